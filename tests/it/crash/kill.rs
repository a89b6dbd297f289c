//! `kill -9` at random moments under load.

use std::time::Duration;

use super::{Random, World, load::Load};
use crate::support::full;

#[tokio::test(flavor = "multi_thread")]
async fn kill_9_loses_nothing_and_repeats_nothing_on_sqlite() {
    crash_story(World::sqlite()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn kill_9_loses_nothing_and_repeats_nothing_on_postgres() {
    crash_story(World::postgres()).await;
}

async fn crash_story(world: World) {
    let n_kills = if full() { 200 } else { 20 };
    // A turn that is cut off so often in seconds would be ended as one that brings servers down; it can
    // be cut off in each of their lives.
    let resumes_max = n_kills.max(100).to_string();
    let world = world.with("BELLPULL_WORKER__RESUMES_MAX", &resumes_max);
    let (mut random, load) = (Random::new(), Load::default());
    for _ in 0..n_kills {
        let server = world.serve().await;
        let senders = load.start(&server);
        // Not a wait for anything: the moment itself is the test.
        tokio::time::sleep(Duration::from_millis(20 + random.next(200))).await;
        server.kill();
        senders.lose().await;
    }
    let server = world.serve().await;
    load.settle(&server).await;
    assert!(server.terminate().await.success());
    world.has_no_gap().await;
}
