//! The wall clock is set, forward and back, while the real process works.
//!
//! libfaketime stands between the process and the wall clock, and only there: the monotonic clock goes
//! on as it does when an operator or a time server sets the time. Leases and waits are measured by the
//! database (PostgreSQL) or by a clock that is not set (SQLite), so nothing runs out early, nothing
//! waits an hour, and nobody is paid twice for one turn.

use std::{path::PathBuf, time::Duration};

use super::{
    World, events,
    load::{Load, ring},
    outcome,
};
use crate::{
    model::story::types,
    support::{
        model_server::{ModelServer, Reply},
        process::until,
        raw,
    },
};

const HOUR: i64 = 3600;

/// A wall clock that can be set.
struct Wall {
    file: PathBuf,
}

impl Wall {
    /// In front of all processes that the world starts from now on.
    fn before(world: World) -> (Wall, World) {
        let wall = Wall { file: world.directory.path().join("wall") };
        wall.set(0);
        let world = world
            .with("LD_PRELOAD", libfaketime().to_str().expect("UTF-8"))
            .with("FAKETIME_TIMESTAMP_FILE", wall.file.to_str().expect("UTF-8"))
            .with("FAKETIME_NO_CACHE", "1")
            .with("FAKETIME_DONT_FAKE_MONOTONIC", "1");
        (wall, world)
    }

    /// So many seconds away from the truth.
    fn set(&self, seconds: i64) {
        // Nobody reads half a number.
        let fresh = self.file.with_extension("fresh");
        std::fs::write(&fresh, format!("{seconds:+}\n")).unwrap();
        std::fs::rename(&fresh, &self.file).unwrap();
    }
}

#[expect(clippy::disallowed_methods, reason = "the tests have no config to read the environment")]
fn libfaketime() -> PathBuf {
    if let Ok(given) = std::env::var("BELLPULL_TEST_LIBFAKETIME") {
        return given.into();
    }
    let places = ["/usr/lib", "/usr/lib64", "/usr/local/lib"].into_iter().flat_map(|it| {
        let below = std::fs::read_dir(it).into_iter().flatten().flatten().map(|it| it.path());
        below.chain([it.into()])
    });
    let mut libraries = places.map(|it| it.join("faketime/libfaketimeMT.so.1"));
    libraries.find(|it| it.exists()).unwrap_or_else(|| {
        panic!(
            "this test sets the clock of a process, and no libfaketimeMT.so.1 was found: run ./test, \
             install libfaketime, or name the file with BELLPULL_TEST_LIBFAKETIME"
        )
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn a_clock_that_jumps_under_load_loses_nothing_on_sqlite() {
    jump_under_load(World::sqlite()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_clock_that_jumps_under_load_loses_nothing_on_postgres() {
    jump_under_load(World::postgres()).await;
}

async fn jump_under_load(world: World) {
    let (wall, world) = Wall::before(world);
    let (server, load) = (world.serve().await, Load::default());
    let senders = load.start(&server);
    for hours in [1, -1, 0, -1, 1] {
        load.accepts(50).await;
        wall.set(hours * HOUR);
    }
    load.accepts(50).await;
    // Into the next life, whose clock is behind what is stored.
    server.kill();
    senders.lose().await;
    wall.set(0);
    let server = world.serve().await;
    load.settle(&server).await;
    world.has_no_gap().await;
    assert_eq!(world.n_leases().await, 0);
    let sql = "select max(received_at) - min(received_at) from deliveries";
    let ms = raw::number(&world.location(), sql).await;
    assert!(ms >= 2 * HOUR * 1000, "the clock was not set: {ms} ms between first and last");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_clock_that_jumps_takes_no_lease_away_on_sqlite() {
    keep_the_lease(World::sqlite()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_clock_that_jumps_takes_no_lease_away_on_postgres() {
    keep_the_lease(World::postgres()).await;
}

async fn keep_the_lease(world: World) {
    let (gate, held) = Reply::text(&["At last."]).held();
    let others = ["one", "two", "three"].map(|it| Reply::text(&[it]));
    let models = ModelServer::start([held].into_iter().chain(others)).await;
    let (wall, world) = Wall::before(world.asking(&models));
    let server = world.serve().await;
    let long = ring(&server, "{}").await;
    until("the model is asked", async || (models.requests().len() == 1).then_some(())).await;
    for hours in [1, -1, 0] {
        wall.set(hours * HOUR);
        // Somebody else's turn, from claim to end: so the worker has looked for what is due since.
        let other = ring(&server, "{}").await;
        assert_eq!(outcome(&server, &other.delivery).await, "succeeded");
    }
    gate.open();
    assert_eq!(outcome(&server, &long.delivery).await, "succeeded");
    let log = events(&server, &long.session).await;
    assert_eq!(types(&log), ["running", "user", "ask", "message", "answered", "idle"]);
    assert_eq!((models.requests().len(), models.abandoned().len()), (4, 0));
    assert!(!server.log().contains("the lease was lost"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_clock_that_is_set_back_makes_no_wait_longer_on_sqlite() {
    keep_the_wait(World::sqlite()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_clock_that_is_set_back_makes_no_wait_longer_on_postgres() {
    keep_the_wait(World::postgres()).await;
}

async fn keep_the_wait(world: World) {
    let busy = Reply::status(503, "overloaded_error", "not now").header("retry-after", "2");
    let models = ModelServer::start([busy, Reply::text(&["Here I am."])]).await;
    let (wall, world) = Wall::before(world.asking(&models));
    let server = world.serve().await;
    let rung = ring(&server, "{}").await;
    until("the session waits", async || {
        let session = server.get(&format!("/v1/sessions/{}", rung.session)).await;
        (session["status"] == "rescheduling").then_some(())
    })
    .await;
    wall.set(-HOUR);
    assert_eq!(outcome(&server, &rung.delivery).await, "succeeded");
    let requests = models.requests();
    let pause = requests[1].at - requests[0].at;
    assert!(pause >= Duration::from_secs(2), "{pause:?}");
}
