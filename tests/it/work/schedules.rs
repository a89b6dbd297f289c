//! Schedules through kill -9, and with two servers on one database.

use std::{collections::BTreeSet, time::Duration};

use bellpull::store::Location;
use serde_json::{Value, json};

use super::{Server, World, text};
use crate::support::{model_server::Reply, process::until, raw};

#[tokio::test(flavor = "multi_thread")]
async fn a_time_is_one_run_through_kill_9_on_sqlite() {
    kill_story(World::sqlite(Vec::new()).await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_time_is_one_run_through_kill_9_with_two_servers_on_postgres() {
    kill_story(World::postgres(Vec::new()).await).await;
}

const DEPLOYMENTS: usize = 30;

/// Lives of a server that are cut short.
const KILLS: usize = 20;

async fn kill_story(world: World) {
    // Each life may ask for each session, and die before it has written the answer down.
    for _ in 0..(2 * KILLS + 1) * DEPLOYMENTS {
        world.models.then(Reply::text(&["done"]));
    }
    let server = world.serve().await;
    let agent = server.agent(json!([])).await;
    let environment = text(&server.get("/v1/environments").await["data"][0]["id"]);
    let message = json!({"type": "user.message", "content": [{"type": "text", "text": "work"}]});
    for _ in 0..DEPLOYMENTS {
        let deployment = json!({"name": "yearly", "agent": agent, "environment_id": environment,
            "initial_events": [message],
            "schedule": {"type": "cron", "expression": "0 0 1 1 *", "timezone": "UTC"}});
        server.post("/v1/deployments", deployment).await;
    }
    server.0.kill();
    let location = match &world.database {
        Some(database) => Location::Postgres(database.url()),
        None => Location::Sqlite(world.directory.path().join("data/bellpull.db")),
    };
    // Nobody waits for a year: it comes while no server runs, a minute ago.
    let now = bellpull::clock::Clock::system().now().minus(Duration::from_secs(60));
    raw::script(&location, &format!("update deployments set next_at = {}", now.0)).await;
    let count = "select count(*) from deployment_runs";
    let mut n_before = 0;
    for _ in 0..KILLS {
        let first = world.serve().await;
        let second = match world.database {
            Some(_) => Some(world.serve_as("other").await),
            None => None,
        };
        first.0.kill();
        if let Some(second) = second {
            second.0.kill();
        }
        let n = raw::number(&location, count).await;
        assert!(n >= n_before, "nothing of what was done is lost");
        n_before = n;
        if n == DEPLOYMENTS as i64 {
            break;
        }
    }
    let server = world.serve().await;
    let runs = until("all have run", async || {
        let runs = runs(&server).await;
        (runs.len() >= DEPLOYMENTS).then_some(runs)
    })
    .await;
    assert_eq!(runs.len(), DEPLOYMENTS);
    let of = |key: &str| runs.iter().map(|run| text(&run[key])).collect::<BTreeSet<_>>().len();
    assert_eq!((of("deployment_id"), of("session_id")), (DEPLOYMENTS, DEPLOYMENTS));
    let sessions = "select count(*) from sessions where deployment_id is not null";
    assert_eq!(raw::number(&location, sessions).await, DEPLOYMENTS as i64);
    for run in &runs {
        server.rest_for(&text(&run["session_id"]), "end_turn").await;
    }
    // More than were needed: a server that died with an answer asks for it again.
    world.models.forget();
}

async fn runs(server: &Server) -> Vec<Value> {
    let list = server.get("/v1/deployment_runs?limit=1000&trigger_type=schedule").await;
    list["data"].as_array().unwrap().clone()
}
