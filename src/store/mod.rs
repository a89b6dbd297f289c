//! Storage: the only SQL of the crate, behind verbs of the domain.
//!
//! [`Store`] is one concrete type over SQLite or PostgreSQL; its methods are its documentation. One
//! SQL text serves both databases (see `driver`). Invariants: what a method answers `Ok` for is
//! committed and synced; every write on a session's log names the lease's epoch, and one that names
//! an older epoch changes nothing ([`Error::Fenced`]). Left out: what anything means. Nothing here
//! decides who may do what, and time comes from the caller's clock, except for leases.

mod accept;
mod activity;
mod agents;
mod answers;
mod audit;
mod backup;
mod batches;
mod budgets;
mod callbacks;
mod chunks;
mod days;
mod deliveries;
mod deployments;
mod driver;
mod effects;
mod environments;
mod error;
mod events;
mod files;
mod hints;
mod keys;
mod limits;
mod migrate;
mod needs;
mod occupancy;
mod outbox;
mod outcomes;
mod pins;
mod prune;
mod queue;
mod resources;
mod secrets;
mod select;
mod sessions;
mod slices;
mod sources;
mod standing;
mod turns;
mod usage;
mod vaults;
mod windows;

pub use accept::{
    Accepted, Body, Dispatch, MessageBody, NewDelivery, Refused, ReplayCheck, ReplayOf, Route,
    RouteTarget, Verdict,
};
pub use activity::{LastDelivery, LastRefusals, LastSession};
pub use answers::{Said, Tried};
pub use audit::{AuditEntry, AuditFilter, Change};
pub use backup::{BackupReport, backup, rehearse};
pub use budgets::{ALL as BUDGETS_OF_ALL, Begun, Reserve};
pub use deliveries::{Attempt, DeliveryFilter, Refusal, StoredBody};
pub use deployments::{
    DeploymentFilter, DeploymentPatch, DueDeployment, NextTime, Passed, RunFilter,
};
pub use driver::{Hands, Location};
pub use effects::{EffectFilter, Settlement};
pub use error::{Error, Result};
pub use events::{EventFilter, LogEnd};
pub use files::{FileFilter, NewFile, StoredFile};
pub use hints::Hint;
pub use keys::ApiKey;
pub use needs::{NEEDED_MAX, Needed, Question};
pub use outbox::{Attempted, ClaimedMessage, Outgoing, OutgoingFilter, OutgoingStatus};
pub use pins::PinnedBy;
pub use prune::Pruned;
pub use queue::{
    Beginning, Beside, Claimed, EffectEnd, FirstWork, Found, Lease, Left, NewAsk, NewEffect, Start,
    Taken, TakenDelivery, TakenMessage, TurnStart, Urgency, Wanted,
};
pub use secrets::{Sealed, SealedSecret, SecretInfo};
pub use sessions::{NewMessage, NewSession, SessionFilter, SessionPage, SessionPlace};
pub use slices::{Kept, KeptBody, Recorded, is_whole_slice};
pub use standing::Standing;
pub use usage::{BudgetState, Spender};
pub use vaults::SealedCredential;

use std::{
    path::Path,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use crate::{clock::Clock, domain::ManagedBy, metrics::Metrics};
use driver::{Driver, Lane, sqlite::Sqlite};

/// How the store uses its database.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// Read-only connections of SQLite.
    pub readers: usize,
    /// Connections to PostgreSQL, besides the two that deliveries are accepted with.
    pub postgres_connections_max: usize,
    /// Seconds after which a PostgreSQL statement is given up, and after which a delivery that waits
    /// for its commit is answered without having been promised anything.
    pub statement_seconds_max: u64,
}

impl Default for Options {
    fn default() -> Options {
        Options { readers: 3, postgres_connections_max: 16, statement_seconds_max: 15 }
    }
}

impl Options {
    fn patience(&self) -> Duration {
        Duration::from_secs(self.statement_seconds_max)
    }
}

/// How long what is finished stays. Nothing with an open outcome is pruned.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Retention {
    /// Days that raw bodies and headers are kept.
    pub bodies_days: u32,
    /// Days that deliveries, and with them their identities, are kept.
    pub identities_days: u32,
    /// Days that messages of the outbox are kept which were sent or given up.
    pub outbox_days: u32,
}

impl Default for Retention {
    fn default() -> Retention {
        Retention { bodies_days: 7, identities_days: 30, outbox_days: 30 }
    }
}

/// One page of a list and where the next one begins.
#[derive(Clone, Debug, PartialEq)]
pub struct Page<T> {
    pub data: Vec<T>,
    pub next: Option<String>,
}

impl<T> Page<T> {
    /// From one row more than was asked for: that row only tells that there is a next page.
    fn from_rows(mut data: Vec<T>, limit: usize, cursor: impl Fn(&T) -> String) -> Page<T> {
        let more = data.len() > limit;
        data.truncate(limit);
        let next = if more { data.last().map(cursor) } else { None };
        Page { data, next }
    }
}

#[derive(Clone, Debug)]
pub struct Store {
    driver: Driver,
    batches: batches::Batches,
    clock: Clock,
}

impl Store {
    /// Opens the database, making its tables when it is empty.
    pub async fn open(location: &Location, options: &Options, clock: Clock) -> Result<Store> {
        let metrics = Metrics::new(clock.now());
        let driver = Driver::open(location, options, clock.clone(), metrics).await?;
        Store::ready(driver, options.patience(), clock).await
    }

    /// Opens a file of SQLite without giving it threads: whatever is asked of the store, from its
    /// opening on, waits until the caller moves the hands.
    pub fn by_hand(
        path: &Path,
        options: &Options,
        clock: Clock,
    ) -> Result<(impl Future<Output = Result<Store>> + use<>, Hands)> {
        let metrics = Metrics::new(clock.now());
        let (sqlite, hands) = Sqlite::open(path, options, &clock, metrics)?;
        Ok((Store::ready(Driver::Sqlite(sqlite), options.patience(), clock), hands))
    }

    async fn ready(driver: Driver, patience: Duration, clock: Clock) -> Result<Store> {
        migrate::migrate(&driver).await?;
        let batches = batches::Batches::new(&driver, patience, clock.clone());
        Ok(Store { driver, batches, clock })
    }

    pub fn clock(&self) -> &Clock {
        &self.clock
    }

    /// What this process counts: whoever has a store counts into the same numbers.
    pub fn metrics(&self) -> &Arc<Metrics> {
        self.driver.metrics()
    }

    pub fn is_sqlite(&self) -> bool {
        matches!(self.driver, Driver::Sqlite(_))
    }

    /// Whether a write can be committed now.
    pub async fn probe(&self) -> Result<()> {
        let now = self.clock.now();
        self.driver
            .transaction(Lane::Work, move |tx| {
                tx.execute(
                    "insert into meta (name, value) values ('probe', $1) \
                     on conflict (name) do update set value = excluded.value",
                    &driver::params![now.to_string()],
                )?;
                Ok(())
            })
            .await
    }

    /// Grows with every change of configuration; a node whose snapshot has an older one reads again.
    pub async fn revision(&self) -> Result<i64> {
        self.driver
            .read(|tx| match tx.first("select value from meta where name = 'revision'", &[])? {
                Some(mut row) => row.text(0)?.parse().map_err(|_| Error::Bug("bad revision")),
                None => Ok(0),
            })
            .await
    }

    /// A value that lives as long as the database, such as the vault's canary: the first writer
    /// decides, everybody else reads what it wrote.
    pub async fn remember(&self, name: &'static str, value: String) -> Result<String> {
        self.driver
            .transaction(Lane::Work, move |tx| {
                tx.execute(
                    "insert into meta (name, value) values ($1, $2) on conflict (name) do nothing",
                    &driver::params![name, value],
                )?;
                let sql = "select value from meta where name = $1";
                tx.first(sql, &driver::params![name])?.ok_or(Error::NotFound)?.text(0)
            })
            .await
    }

    /// What [`Store::remember`] wrote, if anything.
    pub async fn recall(&self, name: &'static str) -> Result<Option<String>> {
        self.driver
            .read(move |tx| {
                let sql = "select value from meta where name = $1";
                tx.first(sql, &driver::params![name])?.map(|mut row| row.text(0)).transpose()
            })
            .await
    }

    /// Finishes what waits and closes the connections.
    pub async fn close(&self) {
        self.driver.close().await;
    }

    /// Runs a change of the configuration as one transaction. They come one after the other, on all
    /// nodes: the revision's row is their lock, so what a change has looked at stays as it is.
    async fn configure<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut driver::Tx<'_>) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        self.driver
            .transaction(Lane::Work, move |tx| {
                tx.query("select 1 from meta where name = 'revision' {wait}", &[])?;
                work(tx)
            })
            .await
    }
}

/// Marks the configuration as changed, in the transaction of the change.
fn bump_revision(tx: &mut driver::Tx<'_>) -> Result<()> {
    tx.execute(
        "update meta set value = cast(cast(value as bigint) + 1 as text) where name = 'revision'",
        &[],
    )?;
    Ok(())
}

/// Serializes what is plain data.
/// What the config file declares is changed there and nowhere else: [`Error::Conflict`] with what to do
/// there.
pub fn refuse_declared(is: ManagedBy, by: ManagedBy, name: &str, what: &str) -> Result<()> {
    match (is, by) {
        (ManagedBy::File, ManagedBy::Api) => {
            Err(Error::Conflict(format!("`{name}` is declared in the config file; {what} there")))
        }
        _ => Ok(()),
    }
}

fn to_json<T: serde::Serialize>(value: &T) -> String {
    serde_json::to_string(value).expect("plain data serializes")
}

/// A panic while the lock was held left nothing half done: what it guards is changed in one step.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
