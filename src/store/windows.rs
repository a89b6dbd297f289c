//! Windows: times in which a source takes its secret from its sender.
//!
//! Invariant: one window lets in one secret. The row that says it is open is closed in the
//! transaction that stores the secret, whichever server the sender reached.

use std::time::Duration;

use bytes::Bytes;

use super::{Change, Result, Store, audit, driver::params, secrets};
use crate::{clock::Timestamp, id::SourceId};

impl Store {
    /// Opens a source's window, or moves its end; an end that is past closes it.
    pub async fn open_window(&self, id: &SourceId, until: Timestamp, change: Change) -> Result<()> {
        let (id, at) = (id.clone(), self.clock.now());
        self.configure(move |tx| {
            tx.execute(
                "insert into windows (source_id, open_until) values ($1, $2) \
                 on conflict (source_id) do update set open_until = excluded.open_until, \
                     shown_until = null",
                &params![&id, until],
            )?;
            audit::note(tx, &change, at)
        })
        .await
    }

    /// Stores the secret that came, and closes the window; it may be shown until `shown_until`.
    /// Answers whether the window was open: else nothing is stored.
    pub async fn put_secret_by_window(
        &self,
        id: &SourceId,
        shown_until: Option<Timestamp>,
        name: String,
        seal: impl FnOnce(&str, i64) -> Bytes + Send + 'static,
        change: Change,
    ) -> Result<bool> {
        let (id, at) = (id.clone(), self.clock.now());
        self.configure(move |tx| {
            let sql = "update windows set open_until = 0, shown_until = $3 \
                       where source_id = $1 and open_until > $2";
            if tx.execute(sql, &params![&id, at, shown_until])? == 0 {
                return Ok(false);
            }
            secrets::put(tx, name, Duration::ZERO, seal, at)?;
            audit::note(tx, &change, at)?;
            Ok(true)
        })
        .await
    }

    /// Whether the secret that came by the window may be shown now. It may once.
    pub async fn show_once(&self, id: &SourceId, change: Change) -> Result<bool> {
        let (id, at) = (id.clone(), self.clock.now());
        self.configure(move |tx| {
            let sql = "update windows set shown_until = null \
                       where source_id = $1 and shown_until > $2";
            let may = tx.execute(sql, &params![&id, at])? > 0;
            if may {
                audit::note(tx, &change, at)?;
            }
            Ok(may)
        })
        .await
    }

    /// The windows that are open, with their ends.
    pub async fn windows(&self) -> Result<Vec<(SourceId, Timestamp)>> {
        let now = self.clock.now();
        self.driver
            .read(move |tx| {
                let sql = "select source_id, open_until from windows where open_until > $1";
                let rows = tx.query(sql, &params![now])?;
                rows.into_iter().map(|mut row| Ok((row.id(0)?, row.time(1)?))).collect()
            })
            .await
    }
}
