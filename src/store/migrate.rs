//! The schema: made in an empty database, checked in any other.
//!
//! Until the first release there are no migrations: one file per table family is the schema, and a
//! database of another version is refused with its number. From the first release on, numbered
//! forward-only migrations begin.

use super::{
    Error, Result,
    driver::{Driver, Lane, Tx, params},
};

/// Grows with every change of the files in `schema/`.
const VERSION: i64 = 17;

const SCHEMA: [&str; 12] = [
    include_str!("schema/1_meta.sql"),
    include_str!("schema/2_agents.sql"),
    include_str!("schema/3_sessions.sql"),
    include_str!("schema/4_deliveries.sql"),
    include_str!("schema/5_outbox.sql"),
    include_str!("schema/6_work.sql"),
    include_str!("schema/7_vaults.sql"),
    include_str!("schema/8_schedule.sql"),
    include_str!("schema/9_files.sql"),
    include_str!("schema/10_gone.sql"),
    include_str!("schema/11_said.sql"),
    include_str!("schema/12_outcomes.sql"),
];

pub(super) async fn migrate(driver: &Driver) -> Result<()> {
    // Two nodes may start on one empty database: the loser looks again and finds the schema.
    for _ in 0..2 {
        match driver.read(version).await {
            Ok(Some(VERSION)) => return Ok(()),
            Ok(Some(other)) => return Err(refuse(other)),
            Ok(None) => {}
            Err(error) => return Err(error),
        }
        match driver.transaction(Lane::Work, create).await {
            Ok(()) => return driver.transaction(Lane::Work, forget).await,
            Err(error) => tracing::debug!(error = %error.detail(), "the schema was not made here"),
        }
    }
    match driver.read(version).await? {
        Some(VERSION) => Ok(()),
        Some(other) => Err(refuse(other)),
        None => driver.transaction(Lane::Work, create).await,
    }
}

/// SQLite keeps the pages of all that it made, two megabytes of which nobody needs one soon.
fn forget(tx: &mut Tx<'_>) -> Result<()> {
    match tx {
        Tx::Sqlite(_) => tx.script("pragma shrink_memory"),
        Tx::Postgres(_) => Ok(()),
    }
}

fn refuse(version: i64) -> Error {
    Error::Conflict(if version > VERSION {
        format!(
            "the database has schema {version}, newer than this binary's {VERSION}; \
             start a newer bellpull"
        )
    } else {
        format!(
            "the database has schema {version} of an unreleased version, this binary has \
             {VERSION}; start with an empty data directory or database"
        )
    })
}

/// Whether this binary can work with a database of this version, as `meta` has it.
pub(super) fn check_version(text: &str) -> Result<()> {
    match text.parse() {
        Ok(VERSION) => Ok(()),
        Ok(other) => Err(refuse(other)),
        Err(_) => Err(Error::corrupt(anyhow::anyhow!("`meta` names no schema version"))),
    }
}

fn version(tx: &mut Tx<'_>) -> Result<Option<i64>> {
    let exists = match tx {
        Tx::Sqlite(_) => "select 1 from sqlite_master where type = 'table' and name = 'meta'",
        Tx::Postgres(_) => {
            "select 1 from information_schema.tables \
             where table_schema = current_schema() and table_name = 'meta'"
        }
    };
    if tx.first(exists, &[])?.is_none() {
        return Ok(None);
    }
    match tx.first("select value from meta where name = 'schema'", &[])? {
        Some(mut row) => {
            let text = row.text(0)?;
            text.parse().map(Some).map_err(|error: std::num::ParseIntError| Error::corrupt(error))
        }
        None => Err(Error::corrupt(anyhow::anyhow!("`meta` names no schema version"))),
    }
}

fn create(tx: &mut Tx<'_>) -> Result<()> {
    for script in SCHEMA {
        tx.script(script)?;
    }
    tx.execute(
        "insert into meta (name, value) values ('schema', $1)",
        &params![VERSION.to_string()],
    )?;
    Ok(())
}
