//! Where a delivery goes: a new session, a given one, the one of a key; and when it cannot.

use std::{collections::BTreeSet, sync::Arc};

use bellpull::{
    domain::{
        delivery::{Outcome, Status},
        turn::TurnEnd,
    },
    id::SessionId,
    store::{Accepted, Error, Refused, Verdict},
};
use tokio::task::JoinSet;

use super::{
    Bench,
    accept::accept_at_once,
    bench::{HOUR, change, make_agent, make_source},
    messages, origin_of,
};

on_both!(
    messages_of_one_session_keep_the_order_of_their_commits,
    a_target_that_cannot_take_the_message_holds_the_delivery,
    a_key_has_one_session,
    concurrent_first_deliveries_of_a_key_share_its_session,
    a_full_session_refuses_and_stores_nothing,
    a_full_session_still_knows_its_duplicates,
    the_waiting_limit_holds_however_many_come_at_once,
    a_failed_delivery_runs_again_when_the_source_wants_it,
    a_rerun_needs_an_open_session_with_room,
);

async fn messages_of_one_session_keep_the_order_of_their_commits(bench: Bench) {
    let session = bench.session().await;
    // Keys in another order than the commits, and messages of people in between.
    for n in [5, 1, 4, 2, 3] {
        let accepted = bench.accept(bench.draft(&format!("{n}")).for_session(&session)).await;
        assert_eq!(accepted.session_id.as_ref(), Some(&session));
        bench.send(&session, &format!("typed {n}")).await;
    }
    let wanted = [5, 1, 4, 2, 3].map(|n| [format!("message {n}"), format!("typed {n}")]).concat();
    assert_eq!(messages(&bench.waiting(&session).await), wanted);
    bench.work_off(TurnEnd::EndTurn).await;
    assert_eq!(messages(&bench.log(&session).await), wanted);
}

async fn a_target_that_cannot_take_the_message_holds_the_delivery(bench: Bench) {
    let bob = make_agent(&bench.store, "bob").await;
    let (archived, terminated) = (bench.session().await, bench.session().await);
    bench.store.archive_session(&archived, change("session.archive")).await.unwrap();
    let sql = format!("update sessions set status = 'terminated' where id = '{terminated}'");
    bench.place.sql(&sql).await;
    let foreign = bench.store.create_session(bench.new_session(&bob)).await.unwrap().id;
    let missing: SessionId = bench.id();
    for (session, why) in [
        (&missing, "does not exist"),
        (&archived, "is archived"),
        (&terminated, "is terminated"),
        (&foreign, "belongs to another agent"),
    ] {
        let accepted = bench.accept(bench.draft(why).for_session(session)).await;
        assert_eq!((accepted.verdict, &accepted.session_id), (Verdict::Held, &None), "{why}");
        assert_eq!(accepted.agent_id.as_ref(), Some(&bench.agent.id));
        let delivery = bench.store.delivery(&accepted.delivery_id).await.unwrap();
        assert_eq!((delivery.status, delivery.outcome), (Status::Held, None));
        let reason = format!("the target session {session} {why}");
        assert_eq!(delivery.reason, Some(reason));

        let again = bench.accept(bench.draft(why).for_session(session)).await;
        assert_eq!(again, Accepted { verdict: Verdict::Duplicate, attempt: 2, ..accepted });
    }
    assert_eq!(bench.claim().await, []);
    for session in [archived, terminated, foreign] {
        assert_eq!(bench.waiting(&session).await, []);
    }
}

async fn a_key_has_one_session(bench: Bench) {
    let other = make_source(&bench.store, "github").await;
    let first = bench.accept(bench.draft("1").for_key("ticket-1")).await;
    let second = bench.accept(bench.draft("2").for_key("ticket-1")).await;
    assert_eq!(second.verdict, Verdict::Accepted);
    assert_eq!(first.session_id, second.session_id);
    let delivery = bench.store.delivery(&second.delivery_id).await.unwrap();
    assert_eq!(delivery.session_id, first.session_id);
    let session = first.session_id.clone().unwrap();
    assert_eq!(messages(&bench.waiting(&session).await), ["message 1", "message 2"]);

    for draft in [
        bench.draft("3").for_key("ticket-2"),
        bench.draft("4").for_key("TICKET-1"),
        bench.draft("5").for_key(""),
        bench.draft("6").for_key("ticket-1 ✓ \u{1F514}"),
        bench.draft("7").for_key("ticket-1").of_source(&other),
    ] {
        let elsewhere = bench.accept(draft.clone()).await;
        assert_ne!(elsewhere.session_id, first.session_id, "{draft:?}");
        let mut again = draft;
        again.0.identity.key.push_str(" again");
        (again.0.id, again.0.request_id) = (bench.id(), bench.id());
        let again = bench.accept(again).await;
        assert_eq!(again.session_id, elsewhere.session_id);
    }

    // The key stays with its session, also when that takes nothing any more.
    for claimed in bench.claim().await {
        bench.begin(&claimed.lease).await;
        bench.finish(&claimed.lease, TurnEnd::EndTurn).await;
    }
    bench.store.archive_session(&session, change("session.archive")).await.unwrap();
    let late = bench.accept(bench.draft("8").for_key("ticket-1")).await;
    assert_eq!((late.verdict, late.session_id), (Verdict::Held, None));
}

async fn concurrent_first_deliveries_of_a_key_share_its_session(bench: Bench) {
    let bench = Arc::new(bench);
    for round in 0..20 {
        let drafts = (0..6).map(|n| bench.draft(&format!("{round} {n}")).for_key(&key(round)));
        let answers = accept_at_once(&[&bench], drafts.collect()).await;
        one_session_of(&bench, &answers).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nodes_that_meet_at_the_same_keys_do_not_stop_each_other_on_postgres() {
    const N_KEYS: usize = 12;
    let bench = Arc::new(Bench::postgres().await);
    let nodes = [bench.clone(), Arc::new(bench.another_node().await)];
    for round in 0..20 {
        // First the sessions are made, then they are joined.
        for step in ["make", "join"] {
            let mut tasks = JoinSet::new();
            for n in 0..2 * N_KEYS {
                // Each node gets the keys, and the identities, in the other one's opposite order.
                let (node, at) = if n % 2 == 0 { (0, n / 2) } else { (1, N_KEYS - 1 - n / 2) };
                let draft = bench.draft(&format!("{round} {step} {node} {}", N_KEYS - at));
                let (draft, node) = (draft.for_key(&format!("{round} {at}")), nodes[node].clone());
                tasks.spawn(async move { node.accept(draft).await });
            }
            let answers = tasks.join_all().await;
            let sessions: BTreeSet<_> = answers.iter().map(|it| it.session_id.clone()).collect();
            assert_eq!((answers.len(), sessions.len()), (2 * N_KEYS, N_KEYS));
        }
        for claimed in bench.claim().await {
            assert_eq!(bench.begin(&claimed.lease).await.messages.len(), 4);
            bench.finish(&claimed.lease, TurnEnd::EndTurn).await;
        }
    }
    assert_eq!(deadlocks(&bench).await, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn retries_that_meet_a_turn_do_not_stop_it_on_postgres() {
    let bench = Arc::new(Bench::postgres().await);
    let nodes = [&bench, &Arc::new(bench.another_node().await)];
    for round in 0..20 {
        // Identities in one order, commits in the other.
        let draft = |n: usize| bench.draft(&format!("{round} {}", n % 6)).for_key("k");
        for n in (0..6).rev() {
            bench.accept(draft(n)).await;
        }
        let lease = bench.claim_one().await;
        let retry = || accept_at_once(&nodes, (0..40).map(draft).collect());
        let (begun, _) = tokio::join!(retry(), bench.begin(&lease));
        let (finished, ()) = tokio::join!(retry(), bench.finish(&lease, TurnEnd::EndTurn));
        let answers = [begun, finished].concat();
        assert!(answers.iter().all(|it| it.verdict == Verdict::Duplicate), "{answers:?}");
    }
    assert_eq!(deadlocks(&bench).await, 0);
}

/// Deadlocks that the server has had to break in this database.
pub async fn deadlocks(bench: &Bench) -> i64 {
    let sql = "select deadlocks from pg_stat_database where datname = current_database()";
    bench.place.number(sql).await
}

fn key(round: usize) -> String {
    format!("key {round}")
}

/// Asserts that these deliveries went to one session, where nobody else's are, and works them off.
async fn one_session_of(bench: &Bench, answers: &[Accepted]) {
    assert!(answers.iter().all(|it| it.verdict == Verdict::Accepted), "{answers:?}");
    let sessions: BTreeSet<_> = answers.iter().map(|it| it.session_id.clone()).collect();
    assert_eq!(sessions.len(), 1, "{answers:?}");
    let lease = bench.claim_one().await;
    let waiting = messages(&bench.waiting(&lease.session_id).await);
    assert_eq!(bench.begin(&lease).await.messages.len(), answers.len());
    assert_eq!(messages(&bench.log(&lease.session_id).await), waiting);
    for answer in answers {
        let delivery = bench.store.delivery(&answer.delivery_id).await.unwrap();
        assert_eq!(delivery.session_id.as_ref(), Some(&lease.session_id));
        assert_eq!(delivery.outcome, Some(Outcome::Running));
    }
    bench.finish(&lease, TurnEnd::EndTurn).await;
}

async fn a_full_session_refuses_and_stores_nothing(bench: Bench) {
    let session = bench.session().await;
    for n in 0..3 {
        let draft = bench.draft(&format!("{n}")).for_session(&session).waiting_max(3);
        assert_eq!(bench.accept(draft).await.verdict, Verdict::Accepted);
    }
    let late = || bench.draft("late").for_session(&session).waiting_max(3);
    let refused = late();
    let id = refused.0.id.clone();
    assert_eq!(bench.store.accept(refused.0).await.unwrap(), Err(Refused::SessionFull));
    assert_fails!(bench.store.delivery(&id).await, Error::NotFound);
    assert_eq!(bench.waiting(&session).await.len(), 3);

    // The sender tries again later, when there is room: this is its first time.
    bench.work_off(TurnEnd::EndTurn).await;
    let accepted = bench.accept(late()).await;
    assert_eq!((accepted.verdict, accepted.attempt), (Verdict::Accepted, 1));
}

async fn a_full_session_still_knows_its_duplicates(bench: Bench) {
    let session = bench.session().await;
    let draft = || bench.draft("one").for_session(&session).waiting_max(1);
    let first = bench.accept(draft()).await;
    let again = bench.accept(draft()).await;
    assert_eq!(again, Accepted { verdict: Verdict::Duplicate, attempt: 2, ..first });
}

async fn the_waiting_limit_holds_however_many_come_at_once(bench: Bench) {
    let session = bench.session().await;
    bench.accept(bench.draft("first").for_key("key")).await;
    let bench = Arc::new(bench);
    for (name, n_room, keyed) in [("session", 5, false), ("key", 4, true)] {
        let mut tasks = JoinSet::new();
        for n in 0..40 {
            let draft = bench.draft(&format!("{name} {n}")).waiting_max(5);
            let draft = if keyed { draft.for_key("key") } else { draft.for_session(&session) };
            let bench = bench.clone();
            tasks.spawn(async move { bench.store.accept(draft.0).await.expect("works") });
        }
        let answers = tasks.join_all().await;
        let n_full = answers.iter().filter(|it| **it == Err(Refused::SessionFull)).count();
        assert_eq!(answers.len() - n_full, n_room, "{name}");
    }
    assert_eq!(bench.waiting(&session).await.len(), 5);
}

async fn a_failed_delivery_runs_again_when_the_source_wants_it(bench: Bench) {
    let first = bench.accept(bench.draft("one")).await;
    let session = first.session_id.clone().unwrap();
    let again = async |attempt, verdict| {
        let answer = bench.accept(bench.draft("one").text("again").rerun_failed()).await;
        assert_eq!(answer, Accepted { verdict, attempt, ..first.clone() });
    };
    let outcome = async || bench.store.delivery(&first.delivery_id).await.unwrap().outcome.unwrap();

    again(2, Verdict::Duplicate).await;
    let lease = bench.claim_one().await;
    bench.begin(&lease).await;
    again(3, Verdict::Duplicate).await;
    bench.finish(&lease, TurnEnd::Failed).await;
    assert_eq!(outcome().await, Outcome::Failed);

    // A source that does not want it gets a duplicate; one that does starts the same delivery anew.
    let other = bench.accept(bench.draft("one")).await;
    assert_eq!((other.verdict, other.attempt), (Verdict::Duplicate, 4));
    again(5, Verdict::Accepted).await;
    assert_eq!(outcome().await, Outcome::Pending);
    let waiting = bench.waiting(&session).await;
    assert_eq!(messages(&waiting), ["again"]);
    assert_eq!(origin_of(&waiting[0]), (first.delivery_id.clone(), Some(5)));
    again(6, Verdict::Duplicate).await;
    bench.work_off(TurnEnd::EndTurn).await;
    assert_eq!(outcome().await, Outcome::Succeeded);
    again(7, Verdict::Duplicate).await;
    assert_eq!(messages(&bench.log(&session).await), ["message one", "again"]);
    assert_eq!(bench.claim_as("node:2", HOUR).await, []);
}

async fn a_rerun_needs_an_open_session_with_room(bench: Bench) {
    let first = bench.accept(bench.draft("one")).await;
    let session = bench.work_off(TurnEnd::Failed).await;
    let again = || bench.draft("one").rerun_failed().waiting_max(1);
    bench.send(&session, "in the way").await;
    assert_eq!(bench.store.accept(again().0).await.unwrap(), Err(Refused::SessionFull));
    bench.work_off(TurnEnd::EndTurn).await;

    bench.store.archive_session(&session, change("session.archive")).await.unwrap();
    let answer = bench.accept(again()).await;
    assert_eq!(answer, Accepted { verdict: Verdict::Duplicate, attempt: 2, ..first });
    assert_eq!(bench.claim().await, []);
}
