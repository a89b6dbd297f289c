//! A full database: accepts beside an empty one, and the lists that people look at.

use std::{path::Path, time::Instant};

use anyhow::Context;
use rusqlite::Connection;

use crate::{
    Plan,
    cases::accept::CONNECTIONS,
    database::Database,
    load::{self, micros, percentile},
    report::{Report, median, range},
    server::Server,
    visitor::Visitor,
};

/// Each page is asked for so many times.
const LOOKS: usize = 30;

pub async fn run(plan: &Plan, report: &mut Report) -> anyhow::Result<()> {
    let (empty_dir, full_dir) = (tempfile::tempdir()?, tempfile::tempdir()?);
    let server = Server::start(full_dir.path(), &[]).await?;
    let target = server.source().await?;
    server.pause_agents(false).await?;
    load::Connection::open(&target).await?.ring().await?;
    let database = Database::sqlite(full_dir.path());
    while database.count("select count(*) from turns where status = 'done'").await? == 0 {
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
    server.stop()?;
    fill(full_dir.path(), plan.rows)?;

    let full = Server::start(full_dir.path(), &[]).await?;
    let empty = Server::start(empty_dir.path(), &[]).await?;
    let (to_full, to_empty) = (target_of(&full, target), empty.source().await?);
    for server in [&full, &empty] {
        server.pause_agents(true).await?;
    }
    let lists = lists(&full).await?;
    let pages = pages(&full).await?;
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
    report.table(&title, &["list", "p50 ms", "slowest ms"], &lists);
    let title = format!("{} stored deliveries, SQLite: pages", plan.rows);
    report.table(&title, &["page", "p50 ms", "slowest ms"], &pages);
    Ok(())
}

fn target_of(server: &Server, target: load::Target) -> load::Target {
    load::Target { address: server.address, ..target }
}

/// Copies the one delivery that went the whole way, with its session, turn and log.
fn fill(data_dir: &Path, rows: u64) -> anyhow::Result<()> {
    let Database::Sqlite(path) = Database::sqlite(data_dir) else { unreachable!("SQLite") };
    let connection = Connection::open(&path)?;
    connection.execute_batch("pragma synchronous = off; pragma cache_size = -200000; begin")?;
    for (table, ids) in [
        ("deliveries", &["id", "dedupe_key", "session_id"][..]),
        ("sessions", &["id"][..]),
        ("turns", &["id", "session_id"][..]),
        ("events", &["id", "session_id", "turn_id"][..]),
    ] {
        let columns = connection.prepare(&format!("select * from {table} limit 0"))?;
        let names: Vec<String> = columns.column_names().map(str::to_owned).collect();
        // An id keeps its prefix, its time and its place in the order; its end is the number.
        let values: Vec<String> = names
            .iter()
            .map(|name| match ids.contains(&name.as_str()) {
                true => format!("substr({name}, 1, length({name}) - 10) || printf('%010d', n)"),
                false => name.clone(),
            })
            .collect();
        let sql = format!(
            "with recursive numbers(n) as (select 1 union all select n + 1 from numbers where n < {rows}), \
             original as materialized (select * from {table}) \
             insert into {table} ({}) select {} from numbers cross join original",
            names.join(", "),
            values.join(", ")
        );
        connection.execute_batch(&sql).with_context(|| format!("fill {table}"))?;
    }
    connection.execute_batch("commit; pragma wal_checkpoint(truncate)")?;
    // The first accepts shall not wait until the system has written all this.
    Ok(std::fs::File::open(path)?.sync_all()?)
}

async fn lists(server: &Server) -> anyhow::Result<Vec<Vec<String>>> {
    let first = server.get("/v1/deliveries?limit=20").await?;
    let delivery = &first["data"][0];
    let next = first["next_page"].as_str().unwrap_or_default().to_owned();
    let id = |name: &str| delivery[name].as_str().unwrap_or_default().to_owned();
    let paths = [
        "/v1/deliveries?limit=20".to_owned(),
        "/v1/deliveries?limit=100".to_owned(),
        format!("/v1/deliveries?limit=20&page={next}"),
        "/v1/deliveries?limit=20&source=bench".to_owned(),
        "/v1/deliveries?limit=20&status=accepted".to_owned(),
        "/v1/deliveries?limit=20&status=held".to_owned(),
        "/v1/deliveries?limit=20&outcome=succeeded".to_owned(),
        "/v1/deliveries?limit=20&outcome=failed".to_owned(),
        "/v1/deliveries?limit=20&event_type=invoice.payment_succeeded".to_owned(),
        "/v1/deliveries?limit=20&event_type=nothing.like.it".to_owned(),
        format!("/v1/deliveries?limit=20&session_id={}", id("session_id")),
        format!("/v1/deliveries/{}", id("id")),
        "/v1/sessions?limit=20".to_owned(),
        format!("/v1/sessions/{}", id("session_id")),
        format!("/v1/sessions/{}/events?limit=20", id("session_id")),
        "/v1/sources".to_owned(),
        "/v1/agents".to_owned(),
    ];
    let hidden = [next.clone(), id("session_id"), id("id")];
    time(&paths, &hidden, async |path| server.get(path).await.map(drop)).await
}

/// What people look at, whole pages as a browser gets them first.
async fn pages(server: &Server) -> anyhow::Result<Vec<Vec<String>>> {
    let visitor = Visitor::sign_in(server).await?;
    let first = server.get("/v1/deliveries?limit=1").await?;
    let id = |name: &str| first["data"][0][name].as_str().unwrap_or_default().to_owned();
    let agent = id("agent_id");
    let older = visitor.look("/deliveries").await?;
    let older = older.split_once("\" rel=\"next\"").and_then(|(it, _)| it.rsplit('"').next());
    let older = older.context("a link to older deliveries")?.replace("&#38;", "&");
    let paths = [
        "/".to_owned(),
        "/needs".to_owned(),
        "/agents".to_owned(),
        format!("/agents/{agent}"),
        format!("/agents/{agent}/webhook"),
        "/sources".to_owned(),
        "/sources/bench".to_owned(),
        "/deliveries".to_owned(),
        older.clone(),
        "/deliveries?source=bench&status=accepted".to_owned(),
        "/deliveries?status=held".to_owned(),
        "/deliveries?outcome=failed".to_owned(),
        "/deliveries?event_type=nothing.like.it".to_owned(),
        format!("/deliveries/{}", id("id")),
        "/sessions".to_owned(),
        format!("/sessions?agent={agent}"),
        format!("/sessions/{}", id("session_id")),
        "/usage".to_owned(),
        "/audit".to_owned(),
        "/settings".to_owned(),
        "/find?q=bench".to_owned(),
    ];
    let page = older.split("page=").nth(1).unwrap_or_default().to_owned();
    let hidden = [page, id("session_id"), id("id"), agent];
    time(&paths, &hidden, async |path| visitor.look(path).await.map(drop)).await
}

/// How long each takes, with ids out of sight.
async fn time(
    paths: &[String],
    hidden: &[String],
    look: impl AsyncFn(&str) -> anyhow::Result<()>,
) -> anyhow::Result<Vec<Vec<String>>> {
    let mut rows = Vec::new();
    for path in paths {
        let mut latencies = Vec::new();
        for _ in 0..LOOKS {
            let started = Instant::now();
            look(path).await?;
            latencies.push(micros(started.elapsed()));
        }
        let shown = hidden.iter().filter(|it| !it.is_empty());
        let shown = shown.fold(path.clone(), |shown, id| shown.replace(id.as_str(), "…"));
        rows.push(vec![
            format!("`{shown}`"),
            format!("{:.1}", percentile(&latencies, 0.5)),
            format!("{:.1}", percentile(&latencies, 1.0)),
        ]);
    }
    Ok(rows)
}
