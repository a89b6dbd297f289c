//! PostgreSQL goes away under load and comes back.
//!
//! While it is away nobody is promised anything and nobody waits for ever; afterwards the same process
//! works again, by itself.

use std::time::Duration;

use bellpull::clock::Clock;

use super::{World, load::Load};
use crate::support::{
    cluster::Cluster,
    full,
    process::{Process, until},
};

#[tokio::test(flavor = "multi_thread")]
async fn a_postgres_that_is_killed_costs_time_and_nothing_else() {
    go_away(Cluster::kill, 50).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_postgres_that_shuts_down_at_once_costs_time_and_nothing_else() {
    go_away(Cluster::cut_off, 50).await;
}

/// Its sockets are open and nobody answers.
#[tokio::test(flavor = "multi_thread")]
async fn a_postgres_that_freezes_costs_time_and_nothing_else() {
    go_away(Cluster::freeze, 24).await;
}

async fn go_away(end: impl Fn(&mut Cluster), n_refused: u64) {
    let mut cluster = Cluster::start().await;
    let world = World::new(Some(cluster.url()));
    // Turns are cut off with each round, and that is no fault of theirs.
    let world = world
        .with("BELLPULL_WORKER__RESUMES_MAX", "100")
        .with("BELLPULL_STORE__STATEMENT_SECONDS_MAX", "1");
    let (server, load) = (world.serve().await, Load::default());
    let senders = load.start(&server);
    let n_rounds = if full() { 20 } else { 2 };
    for _ in 0..n_rounds {
        load.accepts(50).await;
        end(&mut cluster);
        let n_accepted = load.n_accepted();
        load.is_refused(n_refused).await;
        load.crowd(&server, 100).await;
        // Each sender may have waited for the answer to something that was committed before.
        assert!(load.n_accepted() <= n_accepted + 8, "a 2xx without a database");
        until("readyz says so", async || (ready(&server).await == 503).then_some(())).await;
        let asked = Clock::system().monotonic();
        let list = server.http.get(format!("{}/v1/deliveries", server.url));
        let list = list.bearer_auth(server.admin_key()).send().await.unwrap();
        assert!(list.status() == 503 && list.headers().contains_key("retry-after"), "{list:?}");
        let took = Clock::system().monotonic() - asked;
        assert!(took < Duration::from_secs(10), "{took:?}");

        cluster.start_again().await;
        until("readyz says so", async || (ready(&server).await == 200).then_some(())).await;
    }
    load.accepts(50).await;
    senders.stop().await;
    load.answered_all();
    load.settle(&server).await;
    world.has_no_gap().await;
    assert_eq!(world.n_leases().await, 0);
    assert!(server.terminate().await.success());
}

async fn ready(server: &Process) -> u16 {
    let answer = server.http.get(format!("{}/readyz", server.url)).send().await.unwrap();
    answer.status().as_u16()
}
