//! The queue: who may work on a session, and that nobody else does.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use bellpull::{
    domain::{
        agent::Agent,
        event::Usage,
        session::Session,
        source::{Debounce, Pace, WhenBusy},
        turn::TurnEnd,
    },
    id::{AgentId, SessionId},
    store::{Claimed, Error, Lease, Urgency, Verdict},
};
use tokio::task::JoinSet;

use super::{
    Bench,
    bench::{HOUR, change, make_agent, make_source},
    messages,
};

on_both!(
    sessions_of_a_paused_agent_wait,
    claims_go_round_the_agents,
    what_one_agent_leaves_is_for_the_others,
    oldest_sessions_come_first,
    a_source_has_one_share_whatever_its_sessions_wait_for,
    nobody_claims_a_session_that_is_leased,
    concurrent_claims_share_out_the_sessions,
    an_expired_lease_is_claimed_with_the_next_epoch,
    a_lease_that_was_lost_changes_nothing,
    a_lease_is_its_epoch_and_not_its_owners_name,
    a_renewed_lease_lasts,
    a_released_session_is_due_at_once,
    an_earlier_life_of_this_node_has_no_leases,
    what_was_claimed_and_not_begun_keeps_its_place_in_line,
    what_waits_for_a_time_ahead_is_due_at_the_next_start,
    the_next_due_time_tells_how_long_to_sleep,
    what_waits_for_quiet_is_due_later,
    messages_ask_something_of_the_turn_that_runs,
    a_session_that_began_as_many_turns_as_it_may_gets_no_more,
);

/// Sessions that wait for an agent, oldest first.
async fn waiting_sessions(bench: &Bench, agent: &Agent, n: usize) -> Vec<SessionId> {
    let mut sessions = Vec::new();
    for at in 0..n {
        let draft = bench.draft(&format!("{} {at}", agent.id)).of_agent(agent);
        sessions.push(bench.accept(draft).await.session_id.unwrap());
    }
    sessions
}

async fn sessions_of_a_paused_agent_wait(bench: Bench) {
    let bob = make_agent(&bench.store, "bob").await;
    let paused = waiting_sessions(&bench, &bench.agent, 2).await;
    let running = waiting_sessions(&bench, &bob, 1).await;
    bench.store.pause_agent(&bench.agent.id, true, change("agent.pause")).await.unwrap();
    // It keeps accepting.
    bench.accept(bench.draft("more").for_session(&paused[0])).await;
    assert_eq!(bench.claim_one().await.session_id, running[0]);
    assert_eq!(bench.claim().await, []);
    bench.store.pause_agent(&bench.agent.id, false, change("agent.resume")).await.unwrap();
    let claimed = claimed_sessions(&bench.claim().await);
    assert_eq!(claimed, paused.into_iter().collect());
}

fn claimed_sessions(claimed: &[Claimed]) -> BTreeSet<SessionId> {
    claimed.iter().map(|it| it.lease.session_id.clone()).collect()
}

async fn claims_go_round_the_agents(bench: Bench) {
    let mut agents = vec![bench.agent.clone()];
    for name in ["bob", "carol"] {
        agents.push(make_agent(&bench.store, name).await);
    }
    for agent in &agents {
        waiting_sessions(&bench, agent, 4).await;
    }
    let claim = async |n: usize, after: Option<&AgentId>| {
        let claimed =
            bench.store.claim("node:1".to_owned(), HOUR, n, after.cloned()).await.map(|it| it.0);
        let claimed = claimed.unwrap();
        claimed.into_iter().map(|it| it.agent_id).collect::<Vec<_>>()
    };
    let ids: Vec<_> = agents.iter().map(|agent| agent.id.clone()).collect();
    assert_eq!(claim(0, None).await, []);
    assert_eq!(claim(3, None).await, ids, "one of each");
    // One at a time, each after the one before: everybody's turn comes.
    let mut after = None;
    for wanted in ids.iter().cycle().take(6) {
        let claimed = claim(1, after.as_ref()).await;
        assert_eq!(claimed, std::slice::from_ref(wanted));
        after = claimed.into_iter().next();
    }
    // Three are left. The first served is the one after `after`, which need not exist.
    assert_eq!(claim(1, Some(&ids[1])).await, [ids[2].clone()]);
    assert_eq!(claim(5, Some(&bench.id())).await, ids[..2]);
    assert_eq!(claim(5, None).await, []);
}

async fn what_one_agent_leaves_is_for_the_others(bench: Bench) {
    let bob = make_agent(&bench.store, "bob").await;
    waiting_sessions(&bench, &bench.agent, 9).await;
    let rare = waiting_sessions(&bench, &bob, 1).await;
    let claimed = bench.store.claim("node:1".to_owned(), HOUR, 6, None).await.unwrap().0;
    assert_eq!(claimed.len(), 6, "the limit is used up");
    assert!(claimed_sessions(&claimed).contains(&rare[0]), "a long backlog crowds nobody out");
    assert_eq!(bench.claim().await.len(), 4);
}

async fn a_source_has_one_share_whatever_its_sessions_wait_for(bench: Bench) {
    let used = waiting_sessions(&bench, &bench.agent, 6).await;
    for claimed in bench.claim().await {
        bench.begin(&claimed.lease).await;
        bench.finish(&claimed.lease, TurnEnd::EndTurn).await;
    }
    let github = make_source(&bench.store, "github").await;
    let mut others = BTreeSet::new();
    for (n, session) in used.iter().enumerate() {
        bench.accept(bench.draft(&format!("more {n}")).for_session(session)).await;
        bench.accept(bench.draft(&format!("new {n}"))).await;
        let other = bench.draft(&format!("other {n}")).of_source(&github);
        others.insert(bench.accept(other).await.session_id.unwrap());
    }
    let claimed = bench.store.claim("node:1".to_owned(), HOUR, 8, None).await.unwrap().0;
    let claimed = claimed_sessions(&claimed);
    assert_eq!((claimed.len(), claimed.intersection(&others).count()), (8, 4));
}

/// Only its speed would tell otherwise: of an inbox with ten thousand messages one page is read.
#[tokio::test]
async fn what_waits_is_read_in_its_order() {
    let bench = Bench::sqlite().await;
    let sql = "explain query plan select i.position, d.body from waiting i \
               left join deliveries d on d.id = i.delivery_id \
               where i.session_id = 's' and i.position < 7 order by i.position desc limit 2";
    let plan = format!("{:?}", bench.place.sql(sql).await);
    assert!(plan.contains("MERGE (UNION ALL)"), "{plan}");
    assert!(!plan.contains("SCAN") && !plan.contains("TEMP B-TREE"), "{plan}");
}

async fn oldest_sessions_come_first(bench: Bench) {
    let next = async || {
        let claimed = bench.store.claim("node:1".to_owned(), HOUR, 1, None).await.unwrap().0;
        claimed.into_iter().next().unwrap().lease
    };
    let used = waiting_sessions(&bench, &bench.agent, 3).await;
    for session in &used {
        let lease = next().await;
        assert_eq!(lease.session_id, *session);
        bench.begin(&lease).await;
        bench.finish(&lease, TurnEnd::EndTurn).await;
    }
    // The order is that of waiting, and not of being made, also where some were made just now.
    let mut wanted = Vec::new();
    for (number, session) in [1, 2, 0].into_iter().enumerate() {
        bench.clock.advance(Duration::from_millis(1));
        bench.accept(bench.draft(&format!("more {number}")).for_session(&used[session])).await;
        bench.clock.advance(Duration::from_millis(1));
        let made = bench.accept(bench.draft(&format!("new {number}"))).await.session_id.unwrap();
        wanted.extend([used[session].clone(), made]);
    }
    for session in wanted {
        assert_eq!(next().await.session_id, session);
    }
}

async fn nobody_claims_a_session_that_is_leased(bench: Bench) {
    let sessions = waiting_sessions(&bench, &bench.agent, 1).await;
    let lease = bench.claim_one().await;
    let owner = "node:1".to_owned();
    assert_eq!(lease, Lease { session_id: sessions[0].clone(), owner, epoch: 1 });
    for owner in ["node:1", "node:2"] {
        assert_eq!(bench.claim_as(owner, HOUR).await, []);
    }
    // New messages do not open it either.
    bench.accept(bench.draft("more").for_session(&sessions[0])).await;
    bench.send(&sessions[0], "and more").await;
    assert_eq!(bench.claim_as("node:2", HOUR).await, []);
    bench.begin(&lease).await;
    assert_eq!(bench.claim_as("node:2", HOUR).await, []);
}

async fn concurrent_claims_share_out_the_sessions(bench: Bench) {
    let bench = Arc::new(bench);
    share_out(&bench, &[&bench]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn claims_of_two_nodes_share_out_the_sessions_on_postgres() {
    let bench = Arc::new(Bench::postgres().await);
    let other = Arc::new(bench.another_node().await);
    share_out(&bench, &[&bench, &other]).await;
}

async fn share_out(bench: &Bench, nodes: &[&Arc<Bench>]) {
    let bob = make_agent(&bench.store, "bob").await;
    for round in 1..=5 {
        let mut wanted = waiting_sessions(bench, &bench.agent, 10).await;
        wanted.extend(waiting_sessions(bench, &bob, 10).await);
        let mut tasks = JoinSet::new();
        for worker in 0..8 {
            let node = nodes[worker % nodes.len()].clone();
            tasks.spawn(async move {
                let mut mine = Vec::new();
                loop {
                    let owner = format!("node:{worker}");
                    let claimed = node.store.claim(owner, HOUR, 3, None).await.unwrap().0;
                    if claimed.is_empty() {
                        return mine;
                    }
                    mine.extend(claimed);
                }
            });
        }
        let claimed = tasks.join_all().await.concat();
        assert_eq!(claimed.len(), claimed_sessions(&claimed).len(), "round {round}: claimed twice");
        // Who finds rows locked goes home: the last of them are for whoever looks next.
        let mut claimed = [claimed, bench.claim().await].concat();
        assert_eq!(claimed_sessions(&claimed), wanted.into_iter().collect());
        for claimed in claimed.drain(..) {
            bench.begin(&claimed.lease).await;
            bench.finish(&claimed.lease, TurnEnd::EndTurn).await;
        }
        // The same keys make no new deliveries.
        bench.place.sql("delete from deliveries").await;
    }
}

async fn an_expired_lease_is_claimed_with_the_next_epoch(bench: Bench) {
    let session = waiting_sessions(&bench, &bench.agent, 1).await.remove(0);
    for epoch in 1..=3 {
        let claimed = bench.claim_as("node:1", Duration::ZERO).await;
        let owner = "node:1".to_owned();
        let lease = Lease { session_id: session.clone(), owner, epoch };
        let agent_id = bench.agent.id.clone();
        assert_eq!(claimed, [Claimed { lease, agent_id, unfinished: None }]);
    }
    // The turn that was begun under an expired lease is handed on.
    let claimed = bench.claim_as("node:1", Duration::ZERO).await.remove(0);
    let turn = bench.begin(&claimed.lease).await.turn_id;
    let claimed = bench.claim_as("node:2", HOUR).await.remove(0);
    assert_eq!((claimed.lease.epoch, claimed.unfinished), (5, Some(turn)));
}

/// Everything about a session that a write could change.
async fn state(bench: &Bench, session: &SessionId) -> (Session, String, String) {
    let log = format!("{:?}", bench.log(session).await);
    let columns = "select next_at, lease_owner, lease_until, epoch, inbox_given, inbox_taken, \
                   active_ms from sessions where id";
    let row = bench.place.sql(&format!("{columns} = '{session}'")).await;
    (bench.store.session(session).await.unwrap(), log, format!("{row:?}"))
}

/// Asserts that nothing can be done with a lease any more.
async fn dead(bench: &Bench, lease: &Lease) {
    let before = state(bench, &lease.session_id).await;
    let usage = Usage { input_tokens: 1, ..Usage::default() };
    let store = &bench.store;
    assert_fails!(store.append(lease, vec![bench.says("late")], usage).await, Error::Fenced);
    assert_fails!(store.append(lease, Vec::new(), usage).await, Error::Fenced);
    assert_fails!(store.begin_turn(lease, bench.beginning()).await, Error::Fenced);
    assert_fails!(store.renew(lease, HOUR).await, Error::Fenced);
    assert_fails!(store.release(lease).await, Error::Fenced);
    let idle = vec![bench.idle(TurnEnd::Failed)];
    let finish = store.finish(lease, TurnEnd::Failed, idle, HOUR).await;
    assert_fails!(finish, Error::Fenced);
    assert_eq!(state(bench, &lease.session_id).await, before);
}

async fn a_lease_that_was_lost_changes_nothing(bench: Bench) {
    waiting_sessions(&bench, &bench.agent, 1).await;
    let old = bench.claim_as("node:1", Duration::ZERO).await.remove(0).lease;
    // Expired and not claimed by anybody: still its owner's.
    bench.begin(&old).await;
    bench.append(&old, "in time").await;
    let new = bench.claim_as("node:2", HOUR).await.remove(0).lease;
    dead(&bench, &old).await;
    bench.begin(&new).await;
    dead(&bench, &old).await;
    bench.append(&new, "mine now").await;
    dead(&bench, &old).await;
    bench.finish(&new, TurnEnd::EndTurn).await;
    dead(&bench, &old).await;
    dead(&bench, &new).await;
    assert_eq!(bench.log(&new.session_id).await.len(), 5);
}

async fn a_lease_is_its_epoch_and_not_its_owners_name(bench: Bench) {
    waiting_sessions(&bench, &bench.agent, 1).await;
    let old = bench.claim_as("node:1", Duration::ZERO).await.remove(0).lease;
    let new = bench.claim_as("node:1", HOUR).await.remove(0).lease;
    assert_eq!((old.owner.as_str(), old.epoch + 1), ("node:1", new.epoch));
    dead(&bench, &old).await;
    dead(&bench, &Lease { owner: "node:2".to_owned(), ..new.clone() }).await;
    dead(&bench, &Lease { epoch: new.epoch + 1, ..new.clone() }).await;
    bench.begin(&new).await;
}

async fn a_renewed_lease_lasts(bench: Bench) {
    waiting_sessions(&bench, &bench.agent, 1).await;
    let lease = bench.claim_as("node:1", Duration::ZERO).await.remove(0).lease;
    bench.store.renew(&lease, HOUR).await.unwrap();
    assert_eq!(bench.claim_as("node:2", HOUR).await, []);
    bench.begin(&lease).await;
    bench.store.renew(&lease, Duration::ZERO).await.unwrap();
    assert_eq!(bench.claim_as("node:2", HOUR).await.len(), 1);
    dead(&bench, &lease).await;
}

async fn a_released_session_is_due_at_once(bench: Bench) {
    waiting_sessions(&bench, &bench.agent, 1).await;
    let lease = bench.claim_one().await;
    bench.store.release(&lease).await.unwrap();
    dead(&bench, &lease).await;
    let lease = bench.claim_one().await;
    assert_eq!(lease.epoch, 2);
    let turn = bench.begin(&lease).await.turn_id;
    bench.append(&lease, "half").await;
    bench.store.release(&lease).await.unwrap();

    let claimed = bench.claim_as("node:2", HOUR).await.remove(0);
    assert_eq!(claimed.unfinished, Some(turn));
    bench.begin(&claimed.lease).await;
    bench.finish(&claimed.lease, TurnEnd::EndTurn).await;
    assert_eq!(bench.claim().await, []);
}

async fn an_earlier_life_of_this_node_has_no_leases(bench: Bench) {
    let sessions = waiting_sessions(&bench, &bench.agent, 4).await;
    let mut leases = Vec::new();
    for owner in ["one:a", "one:b", "one-more:a", "on"] {
        let claimed = bench.store.claim(owner.to_owned(), HOUR, 1, None).await.unwrap().0;
        leases.push(claimed.into_iter().next().unwrap().lease);
    }
    let turn = bench.begin(&leases[0]).await.turn_id;
    let void = async || bench.store.void_leases("one".to_owned(), "one:b".to_owned()).await;
    assert_eq!(void().await.unwrap(), 1, "another life, another node and this one stay");
    assert_eq!(void().await.unwrap(), 0);
    dead(&bench, &leases[0]).await;
    for lease in &leases[1..] {
        bench.store.renew(lease, HOUR).await.unwrap();
    }
    let claimed = bench.claim_as("one:b", HOUR).await;
    assert_eq!(claimed.len(), 1);
    assert_eq!((claimed[0].lease.epoch, &claimed[0].unfinished), (2, &Some(turn)));
    assert!(sessions.contains(&claimed[0].lease.session_id));
}

async fn what_was_claimed_and_not_begun_keeps_its_place_in_line(bench: Bench) {
    let sessions = waiting_sessions(&bench, &bench.agent, 3).await;
    for (n, session) in sessions.iter().enumerate() {
        let sql =
            format!("update sessions set next_at = {n}, updated_at = {n} where id = '{session}'");
        bench.place.sql(&sql).await;
    }
    let claim = async |owner: &str| {
        let claimed = bench.store.claim(owner.to_owned(), HOUR, 1, None).await.unwrap().0;
        claimed.into_iter().next().unwrap().lease
    };
    let lease = claim("one:a").await;
    assert_eq!(lease.session_id, sessions[0]);
    bench.store.release(&lease).await.unwrap();
    assert_eq!(claim("one:a").await.session_id, sessions[0], "handed back");
    bench.store.void_leases("one".to_owned(), "one:b".to_owned()).await.unwrap();
    assert_eq!(claim("one:b").await.session_id, sessions[0], "after a crash");
    assert_eq!(claim("one:b").await.session_id, sessions[1]);
}

async fn what_waits_for_a_time_ahead_is_due_at_the_next_start(bench: Bench) {
    let sessions = waiting_sessions(&bench, &bench.agent, 3).await;
    let claimed = bench.store.claim("other:1".to_owned(), HOUR, 1, None).await.unwrap().0;
    let turn = claimed.into_iter().next().unwrap().lease;
    bench.begin(&turn).await;
    bench.store.release(&turn).await.unwrap();
    // The clock was set back by an hour: for one this is a message, for one the end of a pause.
    bench.place.sql("update sessions set next_at = next_at + 3600000").await;
    let leased = sessions.iter().find(|it| **it == turn.session_id).unwrap();
    assert_eq!(bench.claim_as("one:b", HOUR).await, []);
    let n_due = bench.store.void_leases("one".to_owned(), "one:b".to_owned()).await.unwrap();
    assert_eq!(n_due, 2);
    let claimed = claimed_sessions(&bench.claim_as("one:b", HOUR).await);
    assert_eq!(claimed.len(), 2);
    assert!(!claimed.contains(leased), "a turn waits for as long as it was told to");
}

async fn the_next_due_time_tells_how_long_to_sleep(bench: Bench) {
    let next_due = async || bench.store.next_due().await.unwrap();
    assert_eq!(next_due().await, None);
    let session = bench.session().await;
    assert_eq!(next_due().await, None, "an idle session wants nothing");
    bench.send(&session, "hello").await;
    assert_eq!(next_due().await, Some(Duration::ZERO), "and now it does");
    let lease = bench.claim_one().await;
    // The end of the lease: if the worker dies, that is when to look.
    let wait = next_due().await.unwrap();
    assert!(wait <= HOUR && wait > HOUR / 2, "{wait:?}");
    bench.store.pause_agent(&bench.agent.id, true, change("agent.pause")).await.unwrap();
    assert_eq!(next_due().await, None);
    bench.store.pause_agent(&bench.agent.id, false, change("agent.resume")).await.unwrap();
    bench.begin(&lease).await;
    bench.finish(&lease, TurnEnd::EndTurn).await;
    assert_eq!(next_due().await, None);
    assert_eq!(messages(&bench.log(&session).await), ["hello"]);
}

async fn what_waits_for_quiet_is_due_later(bench: Bench) {
    let debounced = |key: &str, longest: u64| {
        let (quiet, longest) = (Duration::from_secs(100), Duration::from_secs(longest));
        let debounce = Some(Debounce { quiet, longest });
        let mut draft = bench.draft(key);
        draft.dispatch().pace = Pace { debounce, ..Pace::default() };
        draft
    };
    let due = async || bench.store.next_due().await.unwrap().expect("a session waits");
    let is = |due: Duration, seconds: u64| {
        due > Duration::from_secs(seconds - 10) && due <= Duration::from_secs(seconds)
    };
    let session = bench.accept(debounced("a", 300)).await.session_id.unwrap();
    assert!(is(due().await, 100));
    bench.accept(debounced("b", 50).for_session(&session)).await;
    assert!(is(due().await, 100), "the first one says how long they wait at most");
    assert_eq!(bench.claim().await, []);
    // One that must not wait takes them along, and no further one takes that back.
    bench.accept(bench.draft("c").for_session(&session)).await;
    bench.accept(debounced("d", 300).for_session(&session)).await;
    let lease = bench.claim_one().await;
    assert_eq!(bench.begin(&lease).await.messages.len(), 4);
    // During a turn they wait for its end, as all messages do.
    bench.accept(debounced("e", 300).for_session(&session)).await;
    bench.finish(&lease, TurnEnd::EndTurn).await;
    let lease = bench.claim_one().await;
    bench.begin(&lease).await;
    bench.finish(&lease, TurnEnd::EndTurn).await;
    bench.accept(debounced("f", 300).for_session(&session)).await;
    assert!(is(due().await, 100), "another quiet begins");
}

async fn messages_ask_something_of_the_turn_that_runs(bench: Bench) {
    let busy = |key: &str, when_busy: WhenBusy| {
        let mut draft = bench.draft(key);
        draft.dispatch().pace = Pace { when_busy, ..Pace::default() };
        draft
    };
    let session = bench.accept(busy("a", WhenBusy::Supersede)).await.session_id.unwrap();
    let lease = bench.claim_one().await;
    bench.begin(&lease).await;
    let urgency = async || bench.store.urgency(&session).await.unwrap();
    assert_eq!(urgency().await, Urgency::None, "it came before the turn");
    let skipped = bench.accept(busy("b", WhenBusy::Skip).for_session(&session)).await;
    assert_eq!(skipped.verdict, Verdict::Filtered);
    bench.accept(busy("c", WhenBusy::Steer).for_session(&session)).await;
    bench.accept(busy("d", WhenBusy::Queue).for_session(&session)).await;
    assert_eq!(urgency().await, Urgency::Steer);
    let taken = bench.store.take_up(&lease).await.unwrap();
    assert_eq!((taken.len(), urgency().await), (2, Urgency::None));
    bench.accept(busy("e", WhenBusy::Supersede).for_session(&session)).await;
    bench.accept(busy("f", WhenBusy::Steer).for_session(&session)).await;
    let told = bench.store.append(&lease, Vec::new(), Usage::default()).await.unwrap();
    assert_eq!(told, Urgency::Supersede, "the strongest counts");
    bench.finish(&lease, TurnEnd::Interrupted).await;
    let lease = bench.claim_one().await;
    assert_eq!(bench.begin(&lease).await.messages.len(), 2);
    assert_eq!(urgency().await, Urgency::None);
    let log = bench.store.events_after(&session, 0, 100).await.unwrap();
    let seqs: Vec<_> = log.iter().filter_map(|event| event.seq).collect();
    assert_eq!(seqs, (1..=seqs.len() as i64).collect::<Vec<_>>());
    // An old lease takes nothing up.
    bench.finish(&lease, TurnEnd::EndTurn).await;
    assert!(matches!(bench.store.take_up(&lease).await, Err(Error::Fenced)));
}

async fn a_session_that_began_as_many_turns_as_it_may_gets_no_more(bench: Bench) {
    let bounded = |key: &str| {
        let mut draft = bench.draft(key);
        draft.dispatch().pace = Pace { turns_per_hour_max: Some(2), ..Pace::default() };
        draft
    };
    let turn = async || {
        let lease = bench.claim_one().await;
        bench.begin(&lease).await;
        lease
    };
    let session = bench.accept(bounded("a")).await.session_id.unwrap();
    let first = turn().await;
    // What waits during the last turn that it may have begins none of its own.
    let waiting = bench.accept(bounded("b").for_session(&session)).await;
    assert_eq!(waiting.verdict, Verdict::Accepted);
    bench.finish(&first, TurnEnd::EndTurn).await;
    let second = turn().await;
    let held = bench.accept(bounded("c").for_session(&session)).await;
    assert_eq!((held.verdict, held.session_id), (Verdict::Held, None));
    let reason = bench.store.delivery(&held.delivery_id).await.unwrap().reason.unwrap();
    assert!(reason.contains("began 2 turns within the hour"), "{reason}");
    bench.finish(&second, TurnEnd::EndTurn).await;
    assert_eq!(bench.accept(bounded("c").for_session(&session)).await.verdict, Verdict::Duplicate);
    assert_eq!(bench.claim().await, []);
    // Others are not bound by it: another session, and a source that allows more.
    assert_eq!(bench.accept(bounded("d")).await.verdict, Verdict::Accepted);
    let unbounded = bench.accept(bench.draft("e").for_session(&session)).await;
    assert_eq!(unbounded.verdict, Verdict::Accepted);
}
