//! Sessions that work in one project directory take turns.

use std::{sync::Arc, time::Duration};

use bellpull::{
    domain::{
        environment::{Environment, Workspace},
        turn::TurnEnd,
    },
    id::SessionId,
    store::Lease,
};
use tokio::task::JoinSet;

use super::{
    Bench,
    bench::{HOUR, make_project},
};

on_both!(
    one_turn_at_a_time,
    who_waited_longest_is_next,
    a_turn_that_is_put_off_keeps_its_place,
    a_turn_that_nobody_ends_keeps_its_place_and_goes_on,
    a_session_of_its_own_workspace_waits_for_nobody,
    other_environments_wait_for_nobody,
    room_that_nobody_left_is_found,
    nodes_that_claim_and_finish_at_once_strand_nobody,
);

async fn waiting_in(bench: &Bench, environment: &Environment, n: usize) -> Vec<SessionId> {
    let mut sessions = Vec::new();
    for at in 0..n {
        let mut draft = bench.draft(&format!("{} {at}", environment.name));
        draft.dispatch().environment_id = environment.id.clone();
        sessions.push(bench.accept(draft).await.session_id.unwrap());
    }
    sessions
}

async fn end(bench: &Bench, lease: &Lease) {
    bench.begin(lease).await;
    bench.finish(lease, TurnEnd::EndTurn).await;
}

async fn one_turn_at_a_time(bench: Bench) {
    let project = make_project(&bench.store, "billing", Workspace::Shared).await;
    let sessions = waiting_in(&bench, &project, 3).await;
    for wanted in &sessions {
        let lease = bench.claim_one().await;
        assert_eq!(lease.session_id, *wanted);
        assert_eq!(bench.claim().await, [], "the others wait");
        end(&bench, &lease).await;
    }
    assert_eq!(bench.claim().await, []);
    // The room is free for whoever comes again.
    bench.send(&sessions[1], "more").await;
    assert_eq!(bench.claim_one().await.session_id, sessions[1]);
}

async fn who_waited_longest_is_next(bench: Bench) {
    let project = make_project(&bench.store, "billing", Workspace::Shared).await;
    let sessions = waiting_in(&bench, &project, 2).await;
    let first = bench.claim_one().await;
    bench.clock.advance(Duration::from_secs(1));
    // It gets a message while it works, and comes after the one that waits.
    bench.begin(&first).await;
    bench.send(&sessions[0], "more").await;
    bench.finish(&first, TurnEnd::EndTurn).await;
    let next = bench.claim_one().await;
    assert_eq!(next.session_id, sessions[1]);
    end(&bench, &next).await;
    assert_eq!(bench.claim_one().await.session_id, sessions[0]);
}

async fn a_turn_that_is_put_off_keeps_its_place(bench: Bench) {
    let project = make_project(&bench.store, "billing", Workspace::Shared).await;
    let sessions = waiting_in(&bench, &project, 2).await;
    let lease = bench.claim_one().await;
    bench.begin(&lease).await;
    let put_off = bench.store.reschedule(
        &lease,
        vec![bench.says("later")],
        Default::default(),
        Duration::ZERO,
        Duration::ZERO,
    );
    put_off.await.unwrap();
    let lease = bench.claim_one().await;
    assert_eq!(lease.session_id, sessions[0], "the directory is in the middle of its turn");
    bench.begin(&lease).await;
    bench.finish(&lease, TurnEnd::EndTurn).await;
    assert_eq!(bench.claim_one().await.session_id, sessions[1]);
}

async fn a_turn_that_nobody_ends_keeps_its_place_and_goes_on(bench: Bench) {
    let project = make_project(&bench.store, "billing", Workspace::Shared).await;
    let sessions = waiting_in(&bench, &project, 2).await;
    let dead = bench.claim_as("node:1", Duration::ZERO).await.remove(0).lease;
    bench.begin(&dead).await;
    // The lease is over, and the turn goes on with another worker; nobody else gets in between.
    let found = bench.claim_as("other:1", HOUR).await;
    assert_eq!(found.len(), 1);
    assert_eq!(found[0].lease.session_id, sessions[0]);
    assert!(found[0].unfinished.is_some());
}

async fn a_session_of_its_own_workspace_waits_for_nobody(bench: Bench) {
    for workspace in [Workspace::Worktree, Workspace::Copy] {
        let name = format!("{workspace:?}").to_lowercase();
        let project = make_project(&bench.store, &name, workspace).await;
        waiting_in(&bench, &project, 3).await;
        assert_eq!(bench.claim().await.len(), 3, "{name}");
    }
}

async fn other_environments_wait_for_nobody(bench: Bench) {
    let billing = make_project(&bench.store, "billing", Workspace::Shared).await;
    let website = make_project(&bench.store, "website", Workspace::Shared).await;
    waiting_in(&bench, &billing, 2).await;
    waiting_in(&bench, &website, 2).await;
    waiting_in(&bench, &bench.environment, 2).await;
    assert_eq!(bench.claim().await.len(), 4, "one of each project, and two that need none");
}

async fn room_that_nobody_left_is_found(bench: Bench) {
    let project = make_project(&bench.store, "billing", Workspace::Shared).await;
    let sessions = waiting_in(&bench, &project, 2).await;
    let lease = bench.claim_one().await;
    // As when the session that worked here is deleted.
    bench.place.script("update environments set session_id = null").await;
    let due = format!("select next_at from sessions where id = '{}'", sessions[1]);
    assert!(bench.place.number(&due).await > 0, "it looks again by itself");
    let sql = format!("update sessions set next_at = 1 where id = '{}'", sessions[1]);
    bench.place.script(&sql).await;
    assert_ne!(bench.claim_one().await.session_id, lease.session_id);
}

async fn nodes_that_claim_and_finish_at_once_strand_nobody(bench: Bench) {
    const N: usize = 40;
    let project = make_project(&bench.store, "billing", Workspace::Shared).await;
    waiting_in(&bench, &project, N).await;
    let bench = Arc::new(bench);
    let working = Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let done = Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let mut nodes = JoinSet::new();
    for n in 0..4 {
        let (bench, working, done) = (bench.clone(), working.clone(), done.clone());
        nodes.spawn(async move {
            use std::sync::atomic::Ordering::SeqCst;
            while done.load(SeqCst) < N {
                for claimed in bench.claim_as(&format!("node{n}:1"), HOUR).await {
                    assert_eq!(working.fetch_add(1, SeqCst), 0, "two work in one directory");
                    bench.begin(&claimed.lease).await;
                    working.fetch_sub(1, SeqCst);
                    bench.finish(&claimed.lease, TurnEnd::EndTurn).await;
                    done.fetch_add(1, SeqCst);
                }
            }
        });
    }
    // Whoever is stranded looks again after half a minute, and that is too late here.
    let all = async { while nodes.join_next().await.is_some_and(|node| node.is_ok()) {} };
    tokio::time::timeout(Duration::from_secs(20), all).await.expect("nobody is stranded");
    assert_eq!(done.load(std::sync::atomic::Ordering::SeqCst), N);
}
