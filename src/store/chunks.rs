//! Bodies and messages that are too large for one row.
//!
//! They are written piece by piece, each in its own small commit, before the transaction that
//! refers to them: so a 25 MiB payload does not hold up everybody who shares a commit with it. A
//! piece whose accept never came is swept later.

use std::time::Duration;

use bytes::Bytes;
use futures_util::{StreamExt, TryStreamExt, stream};

use super::{
    Error, Result, Store,
    driver::{Lane, Tx, params},
};
use crate::clock::Timestamp;

/// Largest body that lives in its own row, and size of a piece.
pub(super) const CHUNK_BYTES: usize = 256 * 1024;

/// How long a piece may wait for the transaction that refers to it.
const ORPHAN_AGE: Duration = Duration::from_secs(3600);

/// Rows that one sweep removes.
const SWEEP_MAX: i64 = 500;

const INSERT: &str = "insert into chunks (owner, n, data, written_at) values ($1, $2, $3, $4)";

impl Store {
    /// Size of a piece, but for the last.
    pub const PIECE_BYTES: usize = CHUNK_BYTES;

    /// Whether something of this size must be stored in pieces.
    pub fn is_large(bytes: usize) -> bool {
        bytes > CHUNK_BYTES
    }

    /// Stores a large value under its owner's id; the number of pieces goes into the owner's row.
    pub async fn put_chunks(&self, owner: &str, data: Bytes) -> Result<i64> {
        let at = self.clock.now();
        let pieces = (0..data.len()).step_by(CHUNK_BYTES).enumerate().map(|(n, start)| {
            let piece = data.slice(start..data.len().min(start + CHUNK_BYTES));
            let owner = owner.to_owned();
            self.driver.transaction(Lane::Work, move |tx| {
                tx.execute(INSERT, &params![owner, n as i64, piece, at])
            })
        });
        let n = stream::iter(pieces).buffered(4).try_fold(0, async |n, _| Ok(n + 1)).await?;
        Ok(n)
    }

    /// Stores one piece of a large value, of at most [`Store::PIECE_BYTES`].
    pub async fn put_piece(&self, owner: &str, n: i64, piece: Bytes) -> Result<()> {
        let (owner, at) = (owner.to_owned(), self.clock.now());
        let write = move |tx: &mut Tx<'_>| tx.execute(INSERT, &params![owner, n, piece, at]);
        self.driver.transaction(Lane::Work, write).await.map(drop)
    }

    /// One piece of a large value; [`Error::NotFound`] when it is gone.
    pub async fn piece(&self, owner: &str, n: i64) -> Result<Bytes> {
        let owner = owner.to_owned();
        self.driver
            .read(move |tx| {
                let sql = "select data from chunks where owner = $1 and n = $2";
                let mut row = tx.first(sql, &params![owner, n])?.ok_or(Error::NotFound)?;
                Ok(row.bytes_or_null(0)?.unwrap_or_default())
            })
            .await
    }

    /// Removes pieces that were left by an accept that never happened; answers how many owners.
    pub async fn sweep_orphans(&self) -> Result<u64> {
        let before = self.clock.now().minus(ORPHAN_AGE);
        self.driver
            .transaction(Lane::Work, move |tx| {
                let owners = tx.query(
                    "select owner from chunks c where n = 0 and written_at < $1 \
                     and not exists (select 1 from files f where f.content = c.owner) \
                     and not exists (select 1 from deliveries d where d.id = c.owner) \
                     and not exists \
                     (select 1 from events e where e.id = c.owner and e.n_chunks > 0) \
                     and not exists \
                     (select 1 from inbox i where i.event_id = c.owner and i.n_chunks > 0) \
                     order by written_at limit $2",
                    &params![before, SWEEP_MAX],
                )?;
                let n = owners.len() as u64;
                for mut owner in owners {
                    tx.execute("delete from chunks where owner = $1", &params![owner.text(0)?])?;
                }
                Ok(n)
            })
            .await
    }
}

/// As [`Store::put_chunks`], in a transaction: for what is large and rare.
pub(super) fn write(tx: &mut Tx<'_>, owner: &str, data: Bytes, at: Timestamp) -> Result<i64> {
    let mut n = 0;
    for start in (0..data.len()).step_by(CHUNK_BYTES) {
        let piece = data.slice(start..data.len().min(start + CHUNK_BYTES));
        tx.execute(INSERT, &params![owner, n, piece, at])?;
        n += 1;
    }
    Ok(n)
}

/// Puts the pieces of an owner together again.
pub(super) fn read(tx: &mut Tx<'_>, owner: &str, n_chunks: i64) -> Result<Vec<u8>> {
    let rows = tx.query("select data from chunks where owner = $1 order by n", &params![owner])?;
    if rows.len() as i64 != n_chunks {
        return Err(Error::corrupt(anyhow::anyhow!(
            "{owner} has {} of {n_chunks} pieces",
            rows.len()
        )));
    }
    let mut data = Vec::new();
    for mut row in rows {
        data.extend_from_slice(&row.bytes_or_null(0)?.unwrap_or_default());
    }
    Ok(data)
}

/// Removes what an owner stored in pieces.
pub(super) fn remove(tx: &mut Tx<'_>, owner: &str) -> Result<()> {
    tx.execute("delete from chunks where owner = $1", &params![owner])?;
    Ok(())
}
