//! Rows in their thousands, written past the server: as many accepts would take an hour.

use std::path::Path;

use anyhow::Context;
use rusqlite::{Connection, params};

use super::managed::Managed;
use crate::database::Database;

/// As many as are kept.
const REFUSALS: u64 = 10_000;

/// Of the one deployment that is looked at.
const RUNS: u32 = 10_000;

/// Entries of the audit log for each change that was made.
const AUDITED: u64 = 50;

/// Copies the one delivery that went the whole way, with its session, turn and log; and what else there
/// is much of beside so many.
pub fn fill(data_dir: &Path, rows: u64, managed: &Managed) -> anyhow::Result<()> {
    let Database::Sqlite(path) = Database::sqlite(data_dir) else { unreachable!("SQLite") };
    let connection = Connection::open(&path)?;
    connection.execute_batch("pragma synchronous = off; pragma cache_size = -200000; begin")?;
    for (table, ids, rows) in [
        ("deliveries", &["id", "dedupe_key", "session_id"][..], rows),
        ("sessions", &["id"][..], rows),
        ("turns", &["id", "session_id"][..], rows),
        ("events", &["id", "session_id", "turn_id"][..], rows),
        ("refusals", &["id"][..], REFUSALS - 1),
        ("audit", &["id"][..], AUDITED - 1),
    ] {
        copy(&connection, table, ids, rows).with_context(|| format!("fill {table}"))?;
    }
    hold(&connection).context("hold deliveries")?;
    run_often(&connection, &managed.deployment).context("fill deployment_runs")?;
    connection.execute_batch("commit; pragma wal_checkpoint(truncate)")?;
    // The first accepts shall not wait until the system has written all this.
    Ok(std::fs::File::open(path)?.sync_all()?)
}

fn columns(connection: &Connection, table: &str) -> anyhow::Result<Vec<String>> {
    let statement = connection.prepare(&format!("select * from {table} limit 0"))?;
    Ok(statement.column_names().map(str::to_owned).collect())
}

/// So many of each row that there is.
fn copy(connection: &Connection, table: &str, ids: &[&str], rows: u64) -> anyhow::Result<()> {
    let names = columns(connection, table)?;
    // An id keeps its prefix, its time and its place in the order; its end is the number. The load's own
    // keys are numbers, so a copied one is none.
    let values: Vec<String> = names
        .iter()
        .map(|name| {
            let number = if name == "dedupe_key" { "c%09d" } else { "%010d" };
            match ids.contains(&name.as_str()) {
                true => format!("substr({name}, 1, length({name}) - 10) || printf('{number}', n)"),
                false => name.clone(),
            }
        })
        .collect();
    let sql = format!(
        "with recursive numbers(n) as (select 1 union all select n + 1 from numbers where n < {rows}), \
         original as materialized (select * from {table}) \
         insert into {table} ({}) select {} from numbers cross join original",
        names.join(", "),
        values.join(", ")
    );
    Ok(connection.execute_batch(&sql)?)
}

/// One held delivery for each hundred, right after the fiftieth: somewhere on every second page.
fn hold(connection: &Connection) -> anyhow::Result<()> {
    let names = columns(connection, "deliveries")?;
    let values: Vec<String> = names
        .iter()
        .map(|name| match name.as_str() {
            // A letter sorts after the digits.
            "id" | "dedupe_key" => format!("substr({name}, 1, length({name}) - 1) || 'h'"),
            "status" => "'held'".to_owned(),
            "reason" => "'the source is paused'".to_owned(),
            "outcome" | "session_id" | "turn_id" => "null".to_owned(),
            _ => name.clone(),
        })
        .collect();
    let sql = format!(
        "insert into deliveries ({}) select {} from deliveries where substr(id, -2) = '50'",
        names.join(", "),
        values.join(", ")
    );
    Ok(connection.execute_batch(&sql)?)
}

/// Runs by hand, which all made the same session: a run is shown by what it says itself.
fn run_often(connection: &Connection, deployment: &str) -> anyhow::Result<()> {
    let sql = "with recursive numbers(n) as (select 1 union all select n + 1 from numbers where n < ?1) \
               insert into deployment_runs \
               (id, deployment_id, agent_id, agent_version, session_id, created_at) \
               select printf('drun_%026d', n), d.id, d.agent_id, d.agent_version, s.id, d.created_at \
               from numbers cross join (select * from deployments where id = ?2) d \
               cross join (select id from sessions limit 1) s";
    connection.execute(sql, params![RUNS, deployment])?;
    Ok(())
}
