//! The disk of the data directory is full.
//!
//! Senders are told to come again, first by the bound on free space and, where there is no bound, by
//! what SQLite says. Reading works, nothing breaks, and room is all that it takes to go on.

use super::{World, load::Load};
use crate::support::{
    disk::SmallDisk,
    process::{Process, until},
    raw,
};

const MIB: u64 = 1024 * 1024;

fn world(disk: &SmallDisk, free_bytes_min: u64) -> World {
    let world = World { data_dir: Some(disk.path().join("data")), ..World::sqlite() };
    // Turns are cut off by the disk, and that is no fault of theirs.
    world
        .with("BELLPULL_WORKER__RESUMES_MAX", "100")
        .with("BELLPULL_LIMITS__FREE_DISK_BYTES_MIN", &free_bytes_min.to_string())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disk_that_is_nearly_full_refuses_before_anything_is_lost() {
    let test = "crash::disk::a_disk_that_is_nearly_full_refuses_before_anything_is_lost";
    let Some(disk) = SmallDisk::mount(test, 64 * MIB) else { return };
    let world = world(&disk, 32 * MIB);
    let (server, load) = (world.serve().await, Load::default());
    let mut senders = load.start(&server);
    for _ in 0..2 {
        load.accepts(50).await;
        disk.fill_but(24 * MIB);
        load.is_refused(50).await;
        // What was looked at while there was room may be taken after others were refused.
        senders.stop().await;
        let n_accepted = load.n_accepted();
        senders = load.start(&server);
        load.is_refused(50).await;
        assert_eq!(load.n_accepted(), n_accepted, "a 2xx below the bound");
        assert!(server.get("/v1/deliveries?limit=1").await["data"].is_array());
        assert_eq!(ready(&server).await, 200, "what was taken is still worked on");
        disk.free();
    }
    load.accepts(50).await;
    senders.stop().await;
    finish(&world, server, &load).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disk_that_is_full_breaks_nothing() {
    let test = "crash::disk::a_disk_that_is_full_breaks_nothing";
    let Some(disk) = SmallDisk::mount(test, 32 * MIB) else { return };
    let world = world(&disk, 0);
    let (server, load) = (world.serve().await, Load::default());
    for _ in 0..3 {
        let senders = load.start(&server);
        load.accepts(50).await;
        disk.fill_but(0);
        load.is_refused(50).await;
        until("readyz says so", async || (ready(&server).await == 503).then_some(())).await;
        assert!(server.get("/v1/deliveries?limit=1").await["data"].is_array(), "reading works");
        assert_eq!(integrity(&world).await, "ok");
        disk.free();
        load.accepts(50).await;
        // The disk is small: what more is taken than was asked for could fill it without the ballast.
        senders.stop().await;
        until("readyz says so", async || (ready(&server).await == 200).then_some(())).await;
    }
    assert!(server.log().contains("database or disk is full"), "{}", server.log());
    finish(&world, server, &load).await;
}

async fn finish(world: &World, server: Process, load: &Load) {
    load.answered_all();
    load.settle(&server).await;
    world.has_no_gap().await;
    assert_eq!(world.n_leases().await, 0);
    assert!(server.terminate().await.success());
    assert_eq!(integrity(world).await, "ok");
}

async fn integrity(world: &World) -> String {
    let rows = raw::sql(&world.location(), "pragma integrity_check").await;
    rows.into_iter().flatten().flatten().collect::<Vec<_>>().join("\n")
}

async fn ready(server: &Process) -> u16 {
    let answer = server.http.get(format!("{}/readyz", server.url)).send().await.unwrap();
    answer.status().as_u16()
}
