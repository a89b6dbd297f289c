//! Starting, memory, and what open streams cost.

use std::time::Duration;

use futures_util::StreamExt;

use crate::{
    Plan,
    cases::accept::CONNECTIONS,
    load,
    report::{Report, median, range},
    server::Server,
};

const STARTS: usize = 11;

/// Event streams that stay open.
const STREAMS: usize = 1000;

pub async fn run(_plan: &Plan, report: &mut Report) -> anyhow::Result<()> {
    let (mut first, mut again, mut ready, mut idle) = (vec![], vec![], vec![], vec![]);
    for _ in 0..STARTS {
        let directory = tempfile::tempdir()?;
        let server = Server::start(directory.path(), &[]).await?;
        first.push(ms(server.ready_after));
        server.stop()?;
        let server = Server::start(directory.path(), &[]).await?;
        again.push(ms(server.healthy_after));
        ready.push(ms(server.ready_after));
        idle.push(server.memory()?.0);
    }
    let row = |name: &str, values: &[f64], unit: &str| {
        vec![name.to_owned(), format!("{:.0} {unit}", median(values)), range(values)]
    };
    let rows = [
        row("first start, until ready", &first, "ms"),
        row("start on existing data, until /healthz", &again, "ms"),
        row("start on existing data, until ready", &ready, "ms"),
        row("memory when idle", &idle, "MB"),
    ];
    report.table(
        &format!("Footprint, SQLite, {STARTS} starts"),
        &["what", "median", "range"],
        &rows,
    );
    Ok(())
}

fn ms(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1000.0
}

/// Accepts without and with a thousand open streams, in turns, on one server.
pub async fn streams(plan: &Plan, report: &mut Report) -> anyhow::Result<()> {
    let directory = tempfile::tempdir()?;
    let server = Server::start(directory.path(), &[]).await?;
    let target = server.source().await?;
    load::Connection::open(&target).await?.ring().await?;
    server.pause_agents(true).await?;
    load::run(&target, CONNECTIONS, plan.window).await?;
    let sessions = server.get("/v1/sessions?limit=1").await?;
    let session = sessions["data"][0]["id"].as_str().unwrap_or_default().to_owned();

    let (mut without, mut with, mut costs) = (vec![], vec![], vec![]);
    for _ in 0..plan.rounds {
        without.push(load::run(&target, CONNECTIONS, plan.window).await?.per_second());
        let before = server.memory()?.0;
        let mut open = Vec::with_capacity(STREAMS);
        for _ in 0..STREAMS {
            let path = format!("/v1/sessions/{session}/events/stream");
            let mut stream = server.open(&path).await?.bytes_stream();
            open.push(tokio::spawn(async move { while let Some(Ok(_)) = stream.next().await {} }));
        }
        costs.push(server.memory()?.0 - before);
        with.push(load::run(&target, CONNECTIONS, plan.window).await?.per_second());
        open.into_iter().for_each(|stream| stream.abort());
    }
    let ratios: Vec<f64> =
        with.iter().zip(&without).map(|(with, without)| with / without).collect();
    let rows = [
        vec![
            "accepts/s without streams".to_owned(),
            format!("{:.0}", median(&without)),
            range(&without),
        ],
        vec![
            format!("accepts/s with {STREAMS} streams"),
            format!("{:.0}", median(&with)),
            range(&with),
        ],
        vec!["ratio".to_owned(), format!("{:.2}", median(&ratios)), String::new()],
        vec![format!("memory of {STREAMS} streams, MB"), format!("{:.0}", costs[0]), range(&costs)],
    ];
    report.table("Open event streams, SQLite", &["what", "median", "range"], &rows);
    Ok(())
}
