//! Sealed secrets. This module never sees a value in the clear.

use std::time::Duration;

use bytes::Bytes;

use super::{
    Change, Error, Result, Store, audit,
    driver::{Row, Tx, params},
    vaults,
};
use crate::clock::Timestamp;

/// One version of a secret as it is stored.
#[derive(Clone, Debug)]
pub struct SealedSecret {
    pub name: String,
    pub version: i64,
    pub sealed: Bytes,
    pub created_at: Timestamp,
    /// When it stops being valid; `None` for the current version.
    pub expires_at: Option<Timestamp>,
}

/// What may be said about a secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SecretInfo {
    pub name: String,
    pub version: i64,
    pub created_at: Timestamp,
    /// Until when the value before this one is valid too.
    pub previous_until: Option<Timestamp>,
}

/// What a sealed value is of: part of what it is sealed for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sealed {
    Secret,
    Credential,
}

impl Sealed {
    /// As the vault's places name it.
    pub fn kind(self) -> &'static str {
        match self {
            Sealed::Secret => "secret",
            Sealed::Credential => "credential",
        }
    }
}

/// Values of one secret that are valid at once.
const LIVE_MAX: i64 = 8;

impl Store {
    /// Stores a new version. `seal` gets the version, which is sealed in with the value. The versions
    /// before stay valid for `overlap`, or until an end that comes sooner.
    pub async fn put_secret(
        &self,
        name: String,
        overlap: Duration,
        seal: impl FnOnce(&str, i64) -> Bytes + Send + 'static,
        change: Change,
    ) -> Result<SecretInfo> {
        let at = self.clock.now();
        self.configure(move |tx| {
            let info = put(tx, name, overlap, seal, at)?;
            audit::note(tx, &change, at)?;
            Ok(info)
        })
        .await
    }

    /// Removes every version. Answers whether there was one.
    pub async fn delete_secret(&self, name: String, change: Change) -> Result<bool> {
        let at = self.clock.now();
        self.configure(move |tx| {
            let n = tx.execute("delete from secrets where name = $1", &params![&name])?;
            if n > 0 {
                audit::note(tx, &change, at)?;
            }
            Ok(n > 0)
        })
        .await
    }

    /// Replaces how every version of every secret, every credential and the canary are wrapped; values
    /// stay. All in one transaction: there is no moment at which some need the old key and some the new. Answers
    /// how many were rewrapped.
    pub async fn rewrap_secrets(
        &self,
        rewrap: impl Fn(Sealed, &str, i64, &[u8]) -> Result<Option<Bytes>> + Send + 'static,
        canary: impl FnOnce(&str) -> Result<Option<String>> + Send + 'static,
        change: Change,
    ) -> Result<u64> {
        let at = self.clock.now();
        self.configure(move |tx| {
            let mut n = 0;
            for mut row in tx.query("select name, version, sealed from secrets", &[])? {
                let (name, version) = (row.text(0)?, row.int(1)?);
                let sealed = row.bytes_or_null(2)?.unwrap_or_default();
                if let Some(sealed) = rewrap(Sealed::Secret, &name, version, &sealed)? {
                    tx.execute(
                        "update secrets set sealed = $3 where name = $1 and version = $2",
                        &params![name, version, sealed],
                    )?;
                    n += 1;
                }
            }
            n += vaults::rewrap(tx, |id, version, sealed| {
                rewrap(Sealed::Credential, id, version, sealed)
            })?;
            let known = tx.first("select value from meta where name = 'vault_canary'", &[])?;
            if let Some(mut row) = known
                && let Some(fresh) = canary(&row.text(0)?)?
            {
                let sql = "update meta set value = $1 where name = 'vault_canary'";
                tx.execute(sql, &params![fresh])?;
            }
            audit::note(tx, &change, at)?;
            Ok(n)
        })
        .await
    }

    /// Every live version of every secret, newest first within a name.
    pub async fn secrets(&self) -> Result<Vec<SealedSecret>> {
        let now = self.clock.now();
        self.driver
            .read(move |tx| {
                let sql = format!(
                    "select {COLUMNS} where expires_at is null or expires_at > $1 \
                     order by name, version desc"
                );
                tx.query(&sql, &params![now])?.into_iter().map(from_row).collect()
            })
            .await
    }

    /// The live versions of one secret, newest first.
    pub async fn secret_versions(&self, name: &str) -> Result<Vec<SealedSecret>> {
        let (name, now) = (name.to_owned(), self.clock.now());
        self.driver
            .read(move |tx| {
                let sql = format!(
                    "select {COLUMNS} where name = $2 and (expires_at is null or expires_at > $1) \
                     order by version desc"
                );
                tx.query(&sql, &params![now, &name])?.into_iter().map(from_row).collect()
            })
            .await
    }
}

const COLUMNS: &str = "name, version, sealed, created_at, expires_at from secrets";

fn from_row(mut row: Row) -> Result<SealedSecret> {
    Ok(SealedSecret {
        name: row.text(0)?,
        version: row.int(1)?,
        sealed: row.bytes_or_null(2)?.unwrap_or_default(),
        created_at: row.time(3)?,
        expires_at: row.time_or_null(4)?,
    })
}

/// A new version, beside the one before for `overlap`.
pub(super) fn put(
    tx: &mut Tx<'_>,
    name: String,
    overlap: Duration,
    seal: impl FnOnce(&str, i64) -> Bytes,
    at: Timestamp,
) -> Result<SecretInfo> {
    let sql = "select coalesce(max(version), 0) from secrets where name = $1";
    let row = tx.first(sql, &params![&name])?;
    let last = row.ok_or(Error::Bug("max without a row"))?.int(0)?;
    let version = last + 1;
    let until = at.plus(overlap);
    tx.execute(
        "delete from secrets where name = $1 \
         and ($2 = 0 or expires_at <= $3 or version <= $4)",
        &params![&name, i64::from(!overlap.is_zero()), at, version - LIVE_MAX],
    )?;
    // One that ends before keeps its end.
    let n_before = tx.execute(
        "update secrets set expires_at = $2 where name = $1 \
         and (expires_at is null or expires_at > $2)",
        &params![&name, until],
    )?;
    tx.execute(
        "insert into secrets (name, version, sealed, created_at) values ($1, $2, $3, $4)",
        &params![&name, version, seal(&name, version), at],
    )?;
    let previous_until = (n_before > 0).then_some(until);
    Ok(SecretInfo { name, version, created_at: at, previous_until })
}
