//! The driver: one small door to SQLite and PostgreSQL.
//!
//! Work is handed over as a closure over a [`Tx`], which speaks the one SQL text. The closure is
//! ordinary blocking code: on SQLite it runs on the thread that owns the connection, together with
//! others in one commit; on PostgreSQL on one of the threads that have a connection each. So a verb of
//! the store is written once and reads from top to bottom.
//!
//! Invariant: a closure's writes are committed and synced when its result is `Ok`, and none of them
//! is when it is `Err`, except [`Error::CommitUnknown`](crate::store::Error), which says so.
//! [`Driver::step`] alone may be synced later.

pub(crate) mod postgres;
mod queue;
pub(crate) mod sqlite;
mod value;

use std::{collections::HashSet, path::PathBuf, sync::Arc};

pub use sqlite::Hands;
pub(crate) use value::{Row, Value, params};

use crate::{
    clock::{Clock, Timestamp},
    metrics::Metrics,
    store::{Error, Options, Result},
};

/// Where the data lives.
#[derive(Clone, Debug)]
pub enum Location {
    /// A file of SQLite.
    Sqlite(PathBuf),
    /// `postgres://…`
    Postgres(String),
}

/// Which queue a write waits in. Receiving comes before working: a sender has a deadline.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Lane {
    Ingest,
    Work,
}

/// When a commit has to be on the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Flush {
    /// Before its answer.
    Now,
    /// With the next commit that is.
    Later,
}

#[derive(Clone, Debug)]
pub(crate) enum Driver {
    Sqlite(sqlite::Sqlite),
    Postgres(postgres::Postgres),
}

impl Driver {
    pub(crate) async fn open(
        location: &Location,
        options: &Options,
        clock: Clock,
        metrics: Arc<Metrics>,
    ) -> Result<Driver> {
        match location {
            Location::Sqlite(path) => {
                let (sqlite, hands) = sqlite::Sqlite::open(path, options, &clock, metrics)?;
                sqlite.employ(hands)?;
                Ok(Driver::Sqlite(sqlite))
            }
            Location::Postgres(url) => {
                postgres::Postgres::open(url, options, clock, metrics).await.map(Driver::Postgres)
            }
        }
    }

    /// Runs a closure that only reads. Statements may see different snapshots.
    pub(crate) async fn read<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Tx<'_>) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        self.counted(match self {
            Driver::Sqlite(sqlite) => sqlite.read(work).await,
            Driver::Postgres(postgres) => postgres.read(work).await,
        })
    }

    /// Runs a closure as one transaction. It goes on to its end when the caller stops waiting.
    pub(crate) async fn transaction<T: Send + 'static>(
        &self,
        lane: Lane,
        work: impl FnOnce(&mut Tx<'_>) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        self.counted(match self {
            Driver::Sqlite(sqlite) => sqlite.transaction(lane, Flush::Now, work).await,
            Driver::Postgres(postgres) => postgres.transaction(lane, work).await,
        })
    }

    /// As [`Driver::transaction`], for those who are many and wait elsewhere: `then` is told the result
    /// where it comes about, without a task between. It must be quick and wait for nothing.
    #[expect(
        clippy::disallowed_methods,
        reason = "ends with the transaction; whoever waits is told by `then`"
    )]
    pub(crate) fn transaction_then<T: Send + 'static>(
        &self,
        lane: Lane,
        work: impl FnOnce(&mut Tx<'_>) -> Result<T> + Send + 'static,
        then: impl FnOnce(Result<T>) + Send + 'static,
    ) {
        let driver = self.clone();
        match self {
            Driver::Sqlite(sqlite) => {
                sqlite.transaction_then(lane, work, move |result| then(driver.counted(result)));
            }
            Driver::Postgres(_) => {
                tokio::spawn(async move { then(driver.transaction(lane, work).await) });
            }
        }
    }

    /// As [`Driver::transaction`], for a step of the work that does nothing by itself, such as taking
    /// a lease. On SQLite a machine that loses its power may lose it, and with it the process that
    /// made the step: whatever comes of it is in a later commit, whose sync is the sync of both. A
    /// server of PostgreSQL can lose its power while we live on, so there it is synced as all else.
    pub(crate) async fn step<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Tx<'_>) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        self.counted(match self {
            Driver::Sqlite(sqlite) => sqlite.transaction(Lane::Work, Flush::Later, work).await,
            Driver::Postgres(postgres) => postgres.transaction(Lane::Work, work).await,
        })
    }

    pub(crate) fn metrics(&self) -> &Arc<Metrics> {
        match self {
            Driver::Sqlite(sqlite) => sqlite.metrics(),
            Driver::Postgres(postgres) => postgres.metrics(),
        }
    }

    fn counted<T>(&self, result: Result<T>) -> Result<T> {
        if let Some(kind) = result.as_ref().err().and_then(Error::failure) {
            self.metrics().store_failed(kind);
        }
        result
    }

    /// Finishes what waits and closes the connections.
    pub(crate) async fn close(&self) {
        match self {
            Driver::Sqlite(sqlite) => sqlite.close().await,
            Driver::Postgres(postgres) => postgres.close(),
        }
    }
}

/// A connection inside a transaction, or one that reads.
#[derive(Debug)]
pub(crate) enum Tx<'a> {
    Sqlite(sqlite::Tx<'a>),
    Postgres(postgres::Tx<'a>),
}

impl Tx<'_> {
    pub(crate) fn query(&mut self, sql: &str, params: &[Value<'_>]) -> Result<Vec<Row>> {
        match self {
            Tx::Sqlite(tx) => tx.query(sql, params),
            Tx::Postgres(tx) => tx.query(sql, params),
        }
    }

    /// The first row of an answer, if there is one.
    pub(crate) fn first(&mut self, sql: &str, params: &[Value<'_>]) -> Result<Option<Row>> {
        Ok(self.query(sql, params)?.into_iter().next())
    }

    /// The number of rows that were changed.
    pub(crate) fn execute(&mut self, sql: &str, params: &[Value<'_>]) -> Result<u64> {
        match self {
            Tx::Sqlite(tx) => tx.execute(sql, params),
            Tx::Postgres(tx) => tx.execute(sql, params),
        }
    }

    /// Inserts many rows with a text that has `{rows:…}`, one letter for each column: `t` text,
    /// `i` bigint, `b` bytes. One statement on PostgreSQL, one for some of them on SQLite.
    pub(crate) fn insert(&mut self, sql: &str, rows: &[Vec<Value<'_>>]) -> Result<()> {
        if rows.is_empty() {
            return Ok(());
        }
        match self {
            Tx::Sqlite(tx) => tx.insert(sql, rows),
            Tx::Postgres(tx) => tx.insert(sql, rows).map(drop),
        }
    }

    /// Whether others write at the same time, so that rows are locked, and in an order.
    pub(crate) fn has_rivals(&self) -> bool {
        matches!(self, Tx::Postgres(_))
    }

    /// As [`Tx::insert`], with a text that ends in `on conflict … do nothing` and has `id` as its
    /// first column. Tells of each row whether it went in. `look` finds a row that did, by its first
    /// columns.
    pub(crate) fn insert_new(
        &mut self,
        sql: &str,
        look: &str,
        rows: &[Vec<Value<'_>>],
    ) -> Result<Vec<bool>> {
        if rows.is_empty() {
            return Ok(Vec::new());
        }
        match self {
            Tx::Sqlite(tx) => tx.insert_new(sql, look, rows),
            Tx::Postgres(tx) => {
                let inserted = tx.insert(&format!("{sql} returning id"), rows)?;
                let ids: Vec<Value> =
                    inserted.into_iter().filter_map(|row| row.0.into_iter().next()).collect();
                let ids: HashSet<&str> = ids.iter().filter_map(Value::as_text).collect();
                let is_new = |row: &Vec<Value<'_>>| {
                    row.first().and_then(Value::as_text).is_some_and(|id| ids.contains(id))
                };
                Ok(rows.iter().map(is_new).collect())
            }
        }
    }

    /// Several statements without parameters, for the schema.
    pub(crate) fn script(&mut self, sql: &str) -> Result<()> {
        match self {
            Tx::Sqlite(tx) => tx.script(sql),
            Tx::Postgres(tx) => tx.script(sql),
        }
    }

    /// The time that leases and waits are measured by: the database's own on PostgreSQL, so that
    /// nodes with different clocks agree; this process's on SQLite, where there is only one, and
    /// there one that is never set, so that no lease runs out under its owner.
    pub(crate) fn now(&mut self) -> Result<Timestamp> {
        match self {
            Tx::Sqlite(tx) => Ok(tx.now()),
            Tx::Postgres(tx) => tx.now(),
        }
    }
}
