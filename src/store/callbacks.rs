//! Where results are sent: one callback for each agent or source that has one.
//!
//! A source's is part of its definition and is laid down here with it; an agent's is here only, so
//! that changing it makes no version. Invariant: whatever waits has a callback to be sent to. Left
//! out: the URLs and the signing secrets, which are in the vault.

use std::collections::BTreeMap;

use super::{
    Change, Error, Result, Store, audit,
    driver::{Tx, params},
    outbox,
};
use crate::{
    clock::Timestamp,
    domain::callback::Callback,
    id::{AgentId, Id},
};

impl Store {
    /// Gives an agent a callback, or none. One that was off is on again. [`Error::Conflict`] when the
    /// agent is archived.
    pub async fn put_agent_callback(
        &self,
        agent: &AgentId,
        callback: Option<Callback>,
        change: Change,
    ) -> Result<()> {
        let (agent, at) = (agent.clone(), self.clock.now());
        self.configure(move |tx| {
            let sql = "select archived_at from agents where id = $1 {wait}";
            let mut row = tx.first(sql, &params![&agent])?.ok_or(Error::NotFound)?;
            if row.int_or_null(0)?.is_some() {
                return Err(Error::Conflict(format!("{agent} is archived and cannot be changed")));
            }
            put(tx, agent.as_str(), callback.as_ref(), at)?;
            audit::note(tx, &change, at)
        })
        .await
    }

    /// The callbacks that are off, by owner, and since when.
    pub async fn callbacks_off(&self) -> Result<BTreeMap<String, Timestamp>> {
        self.driver
            .read(|tx| {
                let sql = "select owner, off_since from callbacks where off_since is not null";
                let rows = tx.query(sql, &[])?.into_iter();
                rows.map(|mut row| Ok((row.text(0)?, row.time(1)?))).collect()
            })
            .await
    }
}

/// The callback of an agent or a source, from now on. What waits for one that goes is dead.
pub(super) fn put(
    tx: &mut Tx<'_>,
    owner: &str,
    callback: Option<&Callback>,
    at: Timestamp,
) -> Result<()> {
    match callback {
        Some(callback) => {
            tx.execute(
                "insert into callbacks (owner, definition) values ($1, $2) \
                 on conflict (owner) do update set definition = excluded.definition, \
                 off_since = null, not_before = 0",
                &params![owner, super::to_json(callback)],
            )?;
        }
        None => {
            if tx.execute("delete from callbacks where owner = $1", &params![owner])? > 0 {
                outbox::bury_all(tx, owner, "the callback was removed", at)?;
            }
        }
    }
    Ok(())
}

/// Nothing is sent there any more until somebody puts it or orders it.
pub(super) fn switch_off(tx: &mut Tx<'_>, owner: &str, at: Timestamp) -> Result<bool> {
    let sql = "update callbacks set off_since = $2 where owner = $1 and off_since is null";
    Ok(tx.execute(sql, &params![owner, at])? > 0)
}

/// Somebody is there.
pub(super) fn switch_on(tx: &mut Tx<'_>, owner: &str) -> Result<()> {
    let sql = "update callbacks set off_since = null where owner = $1 and off_since is not null";
    tx.execute(sql, &params![owner]).map(drop)
}

/// Nothing is sent there until then.
pub(super) fn pause(tx: &mut Tx<'_>, owner: &str, until: Timestamp) -> Result<()> {
    let sql = "update callbacks set not_before = $2 where owner = $1 and not_before < $2";
    tx.execute(sql, &params![owner, until]).map(drop)
}
