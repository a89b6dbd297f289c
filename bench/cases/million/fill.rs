//! Rows in their thousands, written past the server: as many accepts would take an hour.

use std::path::Path;

use anyhow::Context;
use rusqlite::Connection;

use crate::database::Database;

/// Copies the one delivery that went the whole way, with its session, turn and log.
pub fn fill(data_dir: &Path, rows: u64) -> anyhow::Result<()> {
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
