//! SIGSTOP past the lease, and SIGCONT: a process that slept while somebody else may have worked.
//!
//! It cannot have noticed before it wakes; then its own monotonic clock tells it, or the epoch does.
//! Either way it lets go of the model and changes nothing that is not its own.

use std::time::Duration;

use bellpull::clock::Clock;

use super::{LEASE, World, events, load::ring, outcome};
use crate::{
    model::story::types,
    support::{
        model_server::{ModelServer, Reply},
        process::{Process, until},
        raw,
    },
};

/// The log of a turn whose first request was lost with the process that made it.
const TAKEN_OVER: [&str; 8] =
    ["running", "user", "ask", "failed", "ask", "message", "answered", "idle"];

/// What a process says that found out.
fn has_noticed(server: &Process) -> bool {
    let log = server.log();
    log.contains("the lease was lost") || log.contains("another worker has this session")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_frozen_node_is_taken_over_from_and_lets_go_on_postgres() {
    let stalled = Reply::text(&["never to be seen"]).stall_after(30);
    let replies = [stalled, Reply::text(&["Taken over."]), Reply::text(&["Still at work."])];
    let models = ModelServer::start(replies).await;
    let world = World::postgres().asking(&models);
    let first = world.serve().await;
    let rung = ring(&first, "{}").await;
    until("the model is asked", async || (models.requests().len() == 1).then_some(())).await;
    first.signal("STOP");

    let second = world.serve_in(&world.directory.path().join("second")).await;
    assert_eq!(outcome(&second, &rung.delivery).await, "succeeded");
    assert_eq!(models.abandoned().len(), 0, "the first one sleeps");
    let log = events(&second, &rung.session).await;
    assert_eq!(types(&log), TAKEN_OVER);

    first.signal("CONT");
    until("the model is let go", async || (models.abandoned().len() == 1).then_some(())).await;
    until("the first one notices", async || has_noticed(&first).then_some(())).await;
    assert_eq!(events(&second, &rung.session).await, log, "and it changed nothing");
    world.has_no_gap().await;

    // It is as good as before.
    assert!(second.terminate().await.success());
    let again = ring(&first, "{}").await;
    assert_eq!(outcome(&first, &again.delivery).await, "succeeded");
    assert_eq!(world.n_leases().await, 0);
}

/// The answer comes while the first one sleeps: it wakes up with all that it needs for a turn that is
/// not its own any more.
#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_comes_to_a_frozen_node_is_for_nobody_on_postgres() {
    let (gate, late) = Reply::text(&["Too late."]).held();
    let models = ModelServer::start([late, Reply::text(&["Taken over."])]).await;
    let world = World::postgres().asking(&models);
    let first = world.serve().await;
    let rung = ring(&first, "{}").await;
    until("the model is asked", async || (models.requests().len() == 1).then_some(())).await;
    first.signal("STOP");
    gate.open();

    let second = world.serve_in(&world.directory.path().join("second")).await;
    assert_eq!(outcome(&second, &rung.delivery).await, "succeeded");
    let log = events(&second, &rung.session).await;
    assert_eq!(types(&log), TAKEN_OVER);
    first.signal("CONT");
    until("the first one notices", async || has_noticed(&first).then_some(())).await;
    assert_eq!(events(&second, &rung.session).await, log, "and it changed nothing");
    world.has_no_gap().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_process_that_was_frozen_past_its_lease_takes_the_session_up_again() {
    frozen_until_the_lease_lasts_for(Duration::ZERO).await;
}

/// Nobody else may have it yet; but whoever slept so long has no time left to make sure.
#[tokio::test(flavor = "multi_thread")]
async fn a_process_that_was_frozen_for_two_thirds_of_its_lease_begins_anew() {
    frozen_until_the_lease_lasts_for(LEASE / 3 - Duration::from_millis(100)).await;
}

async fn frozen_until_the_lease_lasts_for(left: Duration) {
    let stalled = Reply::text(&["never to be seen"]).stall_after(30);
    let models = ModelServer::start([stalled, Reply::text(&["Awake."])]).await;
    let world = World::sqlite().asking(&models);
    let server = world.serve().await;
    let rung = ring(&server, "{}").await;
    until("the model is asked", async || (models.requests().len() == 1).then_some(())).await;
    server.signal("STOP");
    until("the lease has run so far", async || {
        let sql = "select lease_until - cast(unixepoch('subsec') * 1000 as integer) from sessions";
        let ms = raw::number(&world.location(), sql).await;
        (ms <= left.as_millis() as i64).then_some(())
    })
    .await;
    let thawed = Clock::system().monotonic();
    server.signal("CONT");
    let let_go = until("the model is let go", async || models.abandoned().pop()).await;
    until("it notices", async || has_noticed(&server).then_some(())).await;
    assert_eq!(outcome(&server, &rung.delivery).await, "succeeded");
    assert_eq!(types(&events(&server, &rung.session).await), TAKEN_OVER);
    // At once, and not when a lease that nobody works under has run out.
    let begun_anew = models.requests()[1].at;
    assert!(let_go - thawed < LEASE / 2, "{:?}", let_go - thawed);
    assert!(begun_anew - thawed < LEASE / 2, "{:?}", begun_anew - thawed);
    assert_eq!(world.n_leases().await, 0);
    assert!(server.terminate().await.success());
    world.has_no_gap().await;
}
