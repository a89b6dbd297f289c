//! A full database: accepts beside an empty one, and the lists and pages that people look at.

mod fill;
mod looks;
mod managed;

use std::time::Duration;

use anyhow::ensure;

use crate::{
    Plan,
    cases::accept::CONNECTIONS,
    database::Database,
    load,
    report::{Report, median, range},
    server::Server,
};

pub async fn run(plan: &Plan, report: &mut Report) -> anyhow::Result<()> {
    let (empty_dir, full_dir) = (tempfile::tempdir()?, tempfile::tempdir()?);
    let server = Server::start(full_dir.path(), &[]).await?;
    let target = server.source().await?;
    server.pause_agents(false).await?;
    ring(&target, &Database::sqlite(full_dir.path())).await?;
    let managed = managed::make(&server).await?;
    server.stop()?;
    fill::fill(full_dir.path(), plan.rows, &managed)?;

    let full = Server::start(full_dir.path(), &[]).await?;
    let empty = Server::start(empty_dir.path(), &[]).await?;
    let (to_full, to_empty) = (target_of(&full, target), empty.source().await?);
    for server in [&full, &empty] {
        server.pause_agents(true).await?;
    }
    let lists = looks::lists(&full, &managed).await?;
    let pages = looks::pages(&full, &managed).await?;
    let (mut on_full, mut on_empty) = (vec![], vec![]);
    for _ in 0..plan.rounds {
        on_empty.push(load::run(&to_empty, CONNECTIONS, plan.window).await?.per_second());
        on_full.push(load::run(&to_full, CONNECTIONS, plan.window).await?.per_second());
    }
    let ratios: Vec<f64> =
        on_full.iter().zip(&on_empty).map(|(full, empty)| full / empty).collect();
    let rows = [
        vec!["accepts/s, empty".to_owned(), format!("{:.0}", median(&on_empty)), range(&on_empty)],
        vec!["accepts/s, full".to_owned(), format!("{:.0}", median(&on_full)), range(&on_full)],
        vec!["ratio".to_owned(), format!("{:.2}", median(&ratios)), String::new()],
    ];
    let title = format!("{} stored deliveries, SQLite: accepts", plan.rows);
    report.table(&title, &["what", "median", "range"], &rows);
    let title = format!("{} stored deliveries, SQLite: lists of the API", plan.rows);
    report.table(&title, &["list", "p50 ms", "p99 ms", "slowest ms"], &lists);
    let title = format!("{} stored deliveries, SQLite: pages", plan.rows);
    report.table(&title, &["page", "p50 ms", "p99 ms", "slowest ms", "kB sent"], &pages);
    Ok(())
}

fn target_of(server: &Server, target: load::Target) -> load::Target {
    load::Target { address: server.address, ..target }
}

/// One delivery that goes the whole way, and one request that the gate refuses.
async fn ring(target: &load::Target, database: &Database) -> anyhow::Result<()> {
    load::Connection::open(target).await?.ring().await?;
    let stranger = load::Target { token: "a-wrong-token".to_owned(), ..target.clone() };
    let refused = load::Connection::open(&stranger).await?.ring().await;
    ensure!(refused.is_err(), "a wrong token was let in");
    for there in
        ["select count(*) from turns where status = 'done'", "select count(*) from refusals"]
    {
        while database.count(there).await? == 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
    Ok(())
}
