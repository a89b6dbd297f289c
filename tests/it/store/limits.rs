//! How many turns of an agent or a source there may be: what comes beyond waits, and nothing else does.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use bellpull::{
    domain::{
        ManagedBy,
        agent::Agent,
        environment::Workspace,
        source::Source,
        turn::{TurnEnd, TurnLimits, TurnLimitsChange},
    },
    id::SessionId,
    store::{Claimed, Error, Lease},
};
use tokio::task::JoinSet;

use super::{
    Bench,
    bench::{HOUR, change, make_agent, make_project, make_source},
};

on_both!(
    an_agent_has_no_more_turns_at_once_than_it_may,
    a_turn_keeps_its_room_until_it_ends,
    a_full_source_keeps_nobody_else_waiting,
    the_narrower_of_two_limits_counts,
    a_storm_leaves_room_for_an_agents_other_sources,
    turns_in_a_minute_are_counted,
    what_only_waits_for_a_place_begins_nothing,
    limits_change_while_turns_run,
    who_is_gone_has_no_limits,
    nodes_that_claim_at_once_stay_within_a_limit,
);

const fn at_once(n: u32) -> TurnLimits {
    TurnLimits { at_once_max: Some(n), per_minute_max: None }
}

const fn per_minute(n: u32) -> TurnLimits {
    TurnLimits { at_once_max: None, per_minute_max: Some(n) }
}

async fn limit(bench: &Bench, agent: &Agent, limits: TurnLimits) {
    let limited = bench
        .store
        .limit_agent(&agent.id, ManagedBy::Api, limits.into(), change("agent.limits"))
        .await;
    assert_eq!(limited.unwrap().limits, limits);
}

async fn limited_source(bench: &Bench, name: &str, limits: TurnLimits) -> Source {
    let mut source = make_source(&bench.store, name).await;
    source.definition.turns_at_once_max = limits.at_once_max;
    source.definition.turns_per_minute_max = limits.per_minute_max;
    bench.store.put_source(source, change("source.put")).await.unwrap()
}

/// Sessions that wait for an agent, made by a source, oldest first.
async fn waiting(bench: &Bench, agent: &Agent, source: &Source, n: usize) -> Vec<SessionId> {
    let mut sessions = Vec::new();
    for at in 0..n {
        let key = format!("{} {} {at}", agent.id, source.id);
        let draft = bench.draft(&key).of_agent(agent).of_source(source);
        sessions.push(bench.accept(draft).await.session_id.unwrap());
    }
    sessions
}

fn of(claimed: &[Claimed]) -> BTreeSet<SessionId> {
    claimed.iter().map(|it| it.lease.session_id.clone()).collect()
}

async fn end(bench: &Bench, lease: &Lease) {
    bench.begin(lease).await;
    bench.finish(lease, TurnEnd::EndTurn).await;
}

async fn next_due(bench: &Bench) -> Option<Duration> {
    bench.store.next_due().await.unwrap()
}

async fn an_agent_has_no_more_turns_at_once_than_it_may(bench: Bench) {
    limit(&bench, &bench.agent, at_once(2)).await;
    let bob = make_agent(&bench.store, "bob").await;
    let sessions = waiting(&bench, &bench.agent, &bench.source, 5).await;
    let others = waiting(&bench, &bob, &bench.source, 3).await;
    let claimed = bench.claim().await;
    let wanted: Vec<SessionId> = [&sessions[..2], &others].concat();
    assert_eq!(of(&claimed), wanted.into_iter().collect(), "the others' are all there");
    assert_eq!(bench.claim().await, []);
    // Nothing of them is due for as long as nobody leaves: there is no sense in looking again.
    assert!(next_due(&bench).await.unwrap() > HOUR / 2, "only leases run out");
    let mut leases: Vec<Lease> = claimed.into_iter().map(|it| it.lease).collect();
    leases.retain(|lease| sessions.contains(&lease.session_id));
    for next in &sessions[2..] {
        end(&bench, &leases.remove(0)).await;
        assert_eq!(next_due(&bench).await, Some(Duration::ZERO));
        let lease = bench.claim_one().await;
        assert_eq!(lease.session_id, *next, "who waited longest is next");
        leases.push(lease);
    }
}

async fn a_turn_keeps_its_room_until_it_ends(bench: Bench) {
    limit(&bench, &bench.agent, at_once(1)).await;
    let sessions = waiting(&bench, &bench.agent, &bench.source, 2).await;
    let first = &sessions[0];
    // A worker that died before it began, and one that did after it.
    for owner in ["node:1", "other:1"] {
        let mut claimed = bench.claim_as(owner, Duration::ZERO).await;
        assert_eq!(of(&claimed), BTreeSet::from([first.clone()]), "it goes on, and nobody else");
        bench.begin(&claimed.remove(0).lease).await;
    }
    // One that puts the turn off.
    let lease = bench.claim_one().await;
    bench.begin(&lease).await;
    let says = vec![bench.says("later")];
    let put_off =
        bench.store.reschedule(&lease, says, Default::default(), HOUR, Duration::ZERO).await;
    put_off.unwrap();
    assert_eq!(bench.claim().await, [], "it waits, and so does the other one");
    bench.place.script("update sessions set next_at = 1 where turn_id is not null").await;
    // One that gives it back, and another node's start that finds it.
    let lease = bench.claim_one().await;
    bench.store.release(&lease).await.unwrap();
    let lease = bench.claim_as("node:1", HOUR).await.remove(0).lease;
    assert_eq!(lease.session_id, *first);
    bench.store.void_leases("node".to_owned(), "node:2".to_owned()).await.unwrap();
    let lease = bench.claim_one().await;
    assert_eq!(lease.session_id, *first);
    end(&bench, &lease).await;
    let lease = bench.claim_one().await;
    assert_eq!(lease.session_id, sessions[1]);
    // A claim that was given back before it began leaves its room to whoever is first in line.
    bench.store.release(&lease).await.unwrap();
    assert_eq!(bench.claim_one().await.session_id, sessions[1]);
}

async fn a_full_source_keeps_nobody_else_waiting(bench: Bench) {
    let monitor = limited_source(&bench, "monitor", at_once(1)).await;
    let storm = waiting(&bench, &bench.agent, &monitor, 4).await;
    let tickets = waiting(&bench, &bench.agent, &bench.source, 3).await;
    let typed = bench.session().await;
    bench.send(&typed, "hello").await;
    let claimed = bench.claim().await;
    let wanted = [&storm[..1], &tickets, &[typed]].concat();
    assert_eq!(of(&claimed), wanted.into_iter().collect());
    assert_eq!(bench.claim().await, []);
    // What comes for a session at work waits with it, and the limit is the source's of all agents.
    bench.accept(bench.draft("more").of_source(&monitor).for_session(&storm[0])).await;
    let bob = make_agent(&bench.store, "bob").await;
    waiting(&bench, &bob, &monitor, 1).await;
    assert_eq!(bench.claim().await, []);
    let first = claimed.iter().find(|it| it.lease.session_id == storm[0]).unwrap();
    end(&bench, &first.lease).await;
    assert_eq!(bench.claim().await.len(), 1);
}

async fn the_narrower_of_two_limits_counts(bench: Bench) {
    limit(&bench, &bench.agent, at_once(3)).await;
    let monitor = limited_source(&bench, "monitor", at_once(2)).await;
    waiting(&bench, &bench.agent, &monitor, 5).await;
    assert_eq!(bench.claim().await.len(), 2, "the source's");
    waiting(&bench, &bench.agent, &bench.source, 5).await;
    assert_eq!(bench.claim().await.len(), 1, "the agent's");
    assert_eq!(bench.claim().await, []);
}

async fn a_storm_leaves_room_for_an_agents_other_sources(bench: Bench) {
    limit(&bench, &bench.agent, at_once(2)).await;
    let monitor = make_source(&bench.store, "monitor").await;
    let storm = waiting(&bench, &bench.agent, &monitor, 5).await;
    let tickets = waiting(&bench, &bench.agent, &bench.source, 2).await;
    let claimed = bench.claim().await;
    assert_eq!(of(&claimed), BTreeSet::from([storm[0].clone(), tickets[0].clone()]));
    let (alert, ticket) = match claimed[0].lease.session_id == storm[0] {
        true => (&claimed[0].lease, &claimed[1].lease),
        false => (&claimed[1].lease, &claimed[0].lease),
    };
    // Each room goes to whose line has fewer at work, however much longer the others have waited.
    end(&bench, ticket).await;
    let ticket = bench.claim_one().await;
    assert_eq!(ticket.session_id, tickets[1]);
    end(&bench, &ticket).await;
    assert_eq!(bench.claim_one().await.session_id, storm[1]);
    let late = waiting_more(&bench, "late").await;
    end(&bench, alert).await;
    assert_eq!(bench.claim_one().await.session_id, late);
}

/// A further session of the usual source.
async fn waiting_more(bench: &Bench, key: &str) -> SessionId {
    bench.accept(bench.draft(key)).await.session_id.unwrap()
}

async fn turns_in_a_minute_are_counted(bench: Bench) {
    limit(&bench, &bench.agent, per_minute(3)).await;
    waiting(&bench, &bench.agent, &bench.source, 8).await;
    let minute = Duration::from_secs(60);
    let ages = async |by: Duration| {
        bench.place.script(&format!("update turns_begun set at = at - {}", by.as_millis())).await;
    };
    assert_eq!(bench.store.claim("node:1".to_owned(), HOUR, 2, None).await.unwrap().0.len(), 2);
    ages(minute / 2).await;
    let claimed = bench.claim().await;
    assert_eq!(claimed.len(), 1);
    // Turns that end make no room: it is their beginnings that count.
    end(&bench, &claimed[0].lease).await;
    assert_eq!(bench.claim().await, []);
    let due = next_due(&bench).await.unwrap();
    assert!(due > minute / 4 && due <= minute / 2, "{due:?}: when the first two are a minute old");
    ages(minute / 2).await;
    assert_eq!(next_due(&bench).await, Some(Duration::ZERO));
    let claimed = bench.claim().await;
    assert_eq!(claimed.len(), 2, "the third one is not as old");
    // Going on is no beginning.
    bench.begin(&claimed[0].lease).await;
    bench.store.release(&claimed[0].lease).await.unwrap();
    assert_eq!(of(&bench.claim().await), of(&claimed[..1]));
    // A clock that was set back makes nobody wait for what it showed.
    ages(minute / 60).await;
    bench.place.script("update turns_begun set at = at + 100000000").await;
    assert_eq!(bench.claim().await.len(), 3);
}

async fn what_only_waits_for_a_place_begins_nothing(bench: Bench) {
    let project = make_project(&bench.store, "billing", Workspace::Shared).await;
    limit(&bench, &bench.agent, TurnLimits { at_once_max: Some(2), per_minute_max: Some(2) }).await;
    for key in ["one", "two"] {
        let mut draft = bench.draft(key);
        draft.dispatch().environment_id = project.id.clone();
        bench.accept(draft).await;
    }
    let first = bench.claim_one().await;
    assert_eq!(bench.claim().await, [], "the second one waits for the project");
    let elsewhere = waiting(&bench, &bench.agent, &bench.source, 1).await;
    assert_eq!(bench.claim_one().await.session_id, elsewhere[0], "and took nobody's room");
    end(&bench, &first).await;
    assert_eq!(bench.claim().await, [], "that were two in a minute");
}

async fn limits_change_while_turns_run(bench: Bench) {
    let sessions = waiting(&bench, &bench.agent, &bench.source, 9).await;
    limit(&bench, &bench.agent, at_once(3)).await;
    let running = bench.claim().await;
    assert_eq!(running.len(), 3);
    limit(&bench, &bench.agent, at_once(1)).await;
    // Nobody is stopped, and nobody else begins until there is room again.
    for claimed in &running {
        assert_eq!(bench.claim().await, []);
        bench.begin(&claimed.lease).await;
        bench.append(&claimed.lease, "still at it").await;
        bench.finish(&claimed.lease, TurnEnd::EndTurn).await;
    }
    assert_eq!(bench.claim_one().await.session_id, sessions[3]);
    limit(&bench, &bench.agent, at_once(2)).await;
    assert_eq!(bench.claim_one().await.session_id, sessions[4]);
    // What a change does not name stays.
    let more = TurnLimitsChange { per_minute_max: Some(Some(100)), ..Default::default() };
    let agent = bench
        .store
        .limit_agent(&bench.agent.id, ManagedBy::Api, more, change("agent.limits"))
        .await;
    let both = TurnLimits { at_once_max: Some(2), per_minute_max: Some(100) };
    assert_eq!(agent.unwrap().limits, both);
    assert_eq!(bench.claim().await, []);
    limit(&bench, &bench.agent, TurnLimits::default()).await;
    assert_eq!(bench.claim().await.len(), 4);
}

async fn who_is_gone_has_no_limits(bench: Bench) {
    let n_limits = async || bench.place.number("select count(*) from turn_limits").await;
    let monitor = limited_source(&bench, "monitor", at_once(1)).await;
    limit(&bench, &bench.agent, per_minute(1)).await;
    waiting(&bench, &bench.agent, &monitor, 2).await;
    assert_eq!(bench.claim().await.len(), 1);
    assert_eq!(n_limits().await, 2);
    let retired =
        bench.store.retire_source(&monitor.id, monitor.managed_by, change("source.retire")).await;
    retired.unwrap();
    let archived = bench.store.archive_agent(&bench.agent.id, change("agent.archive")).await;
    assert_eq!(archived.unwrap().limits, TurnLimits::default());
    assert_eq!(n_limits().await, 0);
    assert_eq!(bench.place.number("select count(*) from turns_begun").await, 0);
    let late = bench.store.limit_agent(
        &bench.agent.id,
        ManagedBy::Api,
        at_once(1).into(),
        change("agent.limits"),
    );
    assert_fails!(late.await, Error::Conflict(_));
    // What waits is worked off, and the name back has its limits again.
    assert_eq!(bench.claim().await.len(), 1);
    bench.store.put_source(monitor, change("source.put")).await.unwrap();
    assert_eq!(n_limits().await, 1);
}

async fn nodes_that_claim_at_once_stay_within_a_limit(bench: Bench) {
    let other = match bench.store.is_sqlite() {
        true => None,
        false => Some(Arc::new(bench.another_node().await)),
    };
    let bench = Arc::new(bench);
    share(&bench, other.as_ref().unwrap_or(&bench)).await;
}

/// Four workers on two nodes work off what waits, and none of them ever sees too many at work.
async fn share(one: &Arc<Bench>, other: &Arc<Bench>) {
    use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
    const N: usize = 40;
    const MAX: usize = 3;
    limit(one, &one.agent, at_once(MAX as u32)).await;
    let monitor = limited_source(one, "monitor", at_once(2)).await;
    waiting(one, &one.agent, &monitor, N / 2).await;
    waiting(one, &one.agent, &one.source, N / 2).await;
    let (working, done) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let mut nodes = JoinSet::new();
    for n in 0..4 {
        let node = if n % 2 == 0 { one.clone() } else { other.clone() };
        let (working, done) = (working.clone(), done.clone());
        nodes.spawn(async move {
            while done.load(SeqCst) < N {
                let owner = format!("node{n}:1");
                for claimed in node.store.claim(owner, HOUR, 2, None).await.unwrap().0 {
                    let n_working = working.fetch_add(1, SeqCst) + 1;
                    assert!(n_working <= MAX, "{n_working} at once");
                    node.begin(&claimed.lease).await;
                    working.fetch_sub(1, SeqCst);
                    node.finish(&claimed.lease, TurnEnd::EndTurn).await;
                    done.fetch_add(1, SeqCst);
                }
            }
        });
    }
    let all = async { while nodes.join_next().await.is_some_and(|node| node.is_ok()) {} };
    tokio::time::timeout(Duration::from_secs(30), all).await.expect("nobody is stranded");
    assert_eq!(done.load(SeqCst), N);
}
