//! A backup of SQLite while it is in use, and the rehearsal of its restore.
//!
//! The copy is made by SQLite itself from one consistent snapshot; writers go on meanwhile. The vault
//! key is not in it: whoever finds a backup finds sealed secrets only. PostgreSQL has its own tools.

use std::path::Path;

use rusqlite::{Connection, OpenFlags};

use super::{Error, Result};

/// What a rehearsed restore found in a backup.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BackupReport {
    pub bytes: u64,
    pub deliveries: u64,
    pub sessions: u64,
    pub events: u64,
    /// Sealed with the vault key, which must be kept apart.
    pub canary: Option<String>,
}

/// Copies the database to a file that does not exist yet, then opens the copy and looks at all of it.
pub fn backup(database: &Path, to: &Path) -> Result<BackupReport> {
    if to.exists() {
        return Err(Error::Conflict(format!("{} exists already", to.display())));
    }
    let source = open(database)?;
    let target = to.to_str().ok_or_else(|| Error::Conflict("the path is not UTF-8".to_owned()))?;
    source.execute("vacuum into ?1", [target]).map_err(Error::unavailable)?;
    std::fs::File::open(to).and_then(|file| file.sync_all()).map_err(Error::unavailable)?;
    rehearse(to)
}

/// Opens a backup as a restore would, checks every page of it and counts what is inside.
pub fn rehearse(backup: &Path) -> Result<BackupReport> {
    let connection = open(backup)?;
    let text = |sql: &str| connection.query_row(sql, [], |row| row.get::<_, String>(0));
    let count = |table: &str| {
        let sql = format!("select count(*) from {table}");
        connection.query_row(&sql, [], |row| row.get::<_, i64>(0)).map_err(Error::corrupt)
    };
    let verdict = text("pragma integrity_check").map_err(Error::corrupt)?;
    if verdict != "ok" {
        return Err(Error::corrupt(anyhow::anyhow!("the copy is damaged: {verdict}")));
    }
    let schema = text("select value from meta where name = 'schema'").map_err(Error::corrupt)?;
    super::migrate::check_version(&schema)?;
    let canary = text("select value from meta where name = 'vault_canary'").ok();
    let number = |n: i64| u64::try_from(n).unwrap_or(0);
    Ok(BackupReport {
        bytes: std::fs::metadata(backup).map_err(Error::unavailable)?.len(),
        deliveries: number(count("deliveries")?),
        sessions: number(count("sessions")?),
        events: number(count("events")?),
        canary,
    })
}

fn open(path: &Path) -> Result<Connection> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags).map_err(Error::unavailable)?;
    connection.execute_batch("pragma busy_timeout = 10000").map_err(Error::unavailable)?;
    Ok(connection)
}
