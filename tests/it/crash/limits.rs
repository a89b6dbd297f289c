//! Limits of turns, seen from the model: never more requests than an agent may have turns, whatever
//! happens to the servers meanwhile, and in the end everything is answered.

use super::{
    World,
    load::{self, ring},
    outcome,
};
use crate::support::{
    model_server::{Gate, ModelServer, Reply},
    process::{Process, until},
};

const N: usize = 10;

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_asks_no_more_than_it_may_on_sqlite() {
    asks_no_more_than_it_may(World::sqlite(), 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_nodes_ask_no_more_than_an_agent_may_on_postgres() {
    asks_no_more_than_it_may(World::postgres(), 2).await;
}

fn at_once(n: u32) -> String {
    format!(
        "{}agent = \"concierge\"\n[agents.concierge]\nmodel = \"claude-scripted\"\n\
         turns_at_once_max = {n}\n",
        load::source()
    )
}

async fn start(world: &World, n: usize) -> Vec<Process> {
    let mut servers = vec![world.serve().await];
    for n in 1..n {
        servers.push(world.serve_in(&world.directory.path().join(format!("node{n}"))).await);
    }
    servers
}

/// Until the model has been asked so often, and never more often.
async fn asked(models: &ModelServer, n: usize) {
    until("the model is asked", async || {
        let n_asked = models.requests().len();
        assert!(n_asked <= n, "{n_asked} requests of {n}");
        (n_asked == n).then_some(())
    })
    .await;
}

async fn asks_no_more_than_it_may(world: World, n_servers: usize) {
    // Two of them are cut off when the servers are killed.
    let held = (0..N + 2).map(|_| Reply::text(&["Done."]).held());
    let (gates, replies): (Vec<_>, Vec<_>) = held.unzip();
    let models = ModelServer::start(replies).await;
    let world = world.asking(&models);
    world.configure(&at_once(2));
    let servers = start(&world, n_servers).await;
    let mut deliveries = Vec::new();
    for n in 0..N {
        let rung = ring(&servers[n % n_servers], &format!("{{\"id\":\"{n}\"}}")).await;
        deliveries.push(rung.delivery);
    }
    asked(&models, 2).await;
    // Whoever ends makes room for one.
    for (n, gate) in gates[..2].iter().enumerate() {
        gate.open();
        asked(&models, 3 + n).await;
    }
    for server in servers {
        server.kill();
    }
    // What was begun goes on, and has its room still.
    let servers = start(&world, n_servers).await;
    asked(&models, 6).await;
    world.configure(&at_once(4));
    asked(&models, 8).await;
    gates.iter().for_each(Gate::open);
    for delivery in &deliveries {
        assert_eq!(outcome(&servers[0], delivery).await, "succeeded");
    }
    for server in servers {
        assert!(server.terminate().await.success());
    }
    world.has_no_gap().await;
}
