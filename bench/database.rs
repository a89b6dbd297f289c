//! A look into the server's database from outside.

use std::path::{Path, PathBuf};

use anyhow::Context;
use rusqlite::{Connection, OpenFlags};

pub enum Database {
    Sqlite(PathBuf),
    /// A URL.
    Postgres(String),
}

impl Database {
    /// The one in a data directory.
    pub fn sqlite(data_dir: &Path) -> Database {
        Database::Sqlite(data_dir.join("bellpull.db"))
    }

    /// A new one on this server.
    pub async fn postgres(url: &str) -> anyhow::Result<Database> {
        let name = format!("bench_{}", uuid::Uuid::now_v7().simple());
        connect(url).await?.batch_execute(&format!("create database {name}")).await?;
        let (server, _) = url.rsplit_once('/').context("a URL that ends in a database's name")?;
        Ok(Database::Postgres(format!("{server}/{name}")))
    }

    /// For a new server: in its data directory, or a new one on the server with this URL.
    pub async fn new(data_dir: &Path, postgres: Option<&str>) -> anyhow::Result<Database> {
        match postgres {
            Some(url) => Database::postgres(url).await,
            None => Ok(Database::sqlite(data_dir)),
        }
    }

    /// The number that a query answers.
    pub async fn count(&self, sql: &str) -> anyhow::Result<u64> {
        let count: i64 = match self {
            Database::Sqlite(path) => {
                let flags = OpenFlags::SQLITE_OPEN_READ_ONLY;
                Connection::open_with_flags(path, flags)?.query_row(sql, [], |row| row.get(0))?
            }
            Database::Postgres(url) => connect(url).await?.query_one(sql, &[]).await?.get(0),
        };
        Ok(u64::try_from(count)?)
    }
}

pub async fn connect(url: &str) -> anyhow::Result<tokio_postgres::Client> {
    let (client, connection) = tokio_postgres::connect(url, tokio_postgres::NoTls).await?;
    tokio::spawn(connection);
    Ok(client)
}
