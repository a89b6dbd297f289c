//! How long one webhook takes when nobody else rings, and when models are slow.

use std::{
    path::Path,
    time::{Duration, Instant},
};

use anyhow::Context;

use crate::{
    Plan,
    cases::accept::CONNECTIONS,
    database::Database,
    load::{self, Connection, micros, percentile},
    model::Model,
    report::{Report, flush_ms},
    server::Server,
};

/// Webhooks whose time is taken one after the other.
const ONE_BY_ONE: usize = 500;

const COLUMNS: [&str; 5] = ["what", "p50 ms", "p99 ms", "slowest ms", "n"];

pub async fn run(plan: &Plan, report: &mut Report) -> anyhow::Result<()> {
    let directory = tempfile::tempdir()?;
    let flush = flush_ms(directory.path())?;
    let title = format!("Latency, SQLite (a flush takes {flush:.2} ms)");
    report.table(&title, &COLUMNS, &rows(plan, None).await?);
    if let Some(url) = &plan.postgres {
        report.table("Latency, PostgreSQL", &COLUMNS, &rows(plan, Some(url)).await?);
    }
    Ok(())
}

async fn rows(plan: &Plan, postgres: Option<&str>) -> anyhow::Result<[Vec<String>; 4]> {
    let from_idle = to_the_model(postgres, true).await?;
    let back_to_back = to_the_model(postgres, false).await?;
    let beside = beside_slow_turns(plan, postgres).await?;
    Ok([
        row("one connection, idle server: request to 202", &idle(postgres).await?),
        row("webhook sent to first model request received", &from_idle),
        row("the same while the turn before it ends", &back_to_back),
        row("202s while 64 turns wait 3 s each for their model", &beside),
    ])
}

fn row(name: &str, micros: &[u32]) -> Vec<String> {
    let mut row = vec![name.to_owned()];
    row.extend([0.5, 0.99, 1.0].map(|share| format!("{:.2}", percentile(micros, share))));
    row.push(micros.len().to_string());
    row
}

async fn idle(postgres: Option<&str>) -> anyhow::Result<Vec<u32>> {
    let directory = tempfile::tempdir()?;
    let database = Database::new(directory.path(), postgres).await?;
    let server = Server::start_on(directory.path(), &database, &[]).await?;
    let target = server.source().await?;
    server.pause_agents(true).await?;
    let mut connection = Connection::open(&target).await?;
    let mut latencies = Vec::with_capacity(ONE_BY_ONE);
    for _ in 0..ONE_BY_ONE {
        latencies.push(micros(connection.ring().await?));
    }
    Ok(latencies)
}

async fn with_model(
    directory: &Path,
    postgres: Option<&str>,
    model: &Model,
) -> anyhow::Result<Server> {
    let database = Database::new(directory, postgres).await?;
    let url = format!("http://{}", model.address);
    let environment = [("ANTHROPIC_BASE_URL", url.as_str()), ("ANTHROPIC_API_KEY", "key")];
    let server = Server::start_on(directory, &database, &environment).await?;
    let agents = server.get("/v1/agents").await?;
    let model = &agents["data"][0]["model"];
    anyhow::ensure!(model.to_string().contains("claude"), "the default agent has model {model}");
    Ok(server)
}

/// Time in which a turn whose model has answered comes to its end.
const UNTIL_IDLE: Duration = Duration::from_millis(15);

async fn to_the_model(postgres: Option<&str>, from_idle: bool) -> anyhow::Result<Vec<u32>> {
    let directory = tempfile::tempdir()?;
    let mut model = Model::start(Duration::ZERO).await?;
    let server = with_model(directory.path(), postgres, &model).await?;
    let target = server.source().await?;
    let mut connection = Connection::open(&target).await?;
    let mut latencies = Vec::with_capacity(ONE_BY_ONE);
    for _ in 0..ONE_BY_ONE {
        if from_idle {
            tokio::time::sleep(UNTIL_IDLE).await;
        }
        let sent = Instant::now();
        connection.ring().await?;
        let asked = model.asked.recv().await.context("a request to the model")?;
        latencies.push(micros(asked.duration_since(sent)));
    }
    Ok(latencies)
}

/// Twenty webhooks a second on as many connections as above take turns; every slot of the worker has
/// a turn that waits for its model.
async fn beside_slow_turns(plan: &Plan, postgres: Option<&str>) -> anyhow::Result<Vec<u32>> {
    let directory = tempfile::tempdir()?;
    let mut model = Model::start(Duration::from_secs(3)).await?;
    let server = with_model(directory.path(), postgres, &model).await?;
    let target = server.source().await?;
    load::run(&target, CONNECTIONS, Duration::from_millis(100)).await?;
    for _ in 0..CONNECTIONS {
        model.asked.recv().await.context("a request to the model")?;
    }
    let mut connection = Connection::open(&target).await?;
    let mut pace = tokio::time::interval(Duration::from_millis(50));
    let started = Instant::now();
    let mut latencies = Vec::new();
    while started.elapsed() < plan.window * 3 {
        pace.tick().await;
        latencies.push(micros(connection.ring().await?));
    }
    Ok(latencies)
}
