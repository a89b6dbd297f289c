//! Retention: what is finished goes in slices, so that nobody waits long for the writer.
//!
//! Invariants: nothing with an open outcome is touched; a delivery's row, and with it its identity,
//! stays when its body goes. Sessions stay until somebody deletes them.

use super::{
    Result, Retention, Store,
    accept::prune_bodies_seen,
    answers::prune_said,
    budgets, chunks,
    driver::{Lane, Tx, params},
    outbox,
};
use crate::{
    clock::Timestamp,
    id::{DeliveryId, Id},
};

/// Rows of one slice.
const SLICE: i64 = 500;

/// What is over and nobody has to look at; what was held is over once a replay was accepted.
const FINISHED: &str = "(outcome is null or \
    outcome not in ('pending', 'running', 'waiting', 'in_doubt')) and (status <> 'held' or exists \
    (select 1 from deliveries p where p.replay_of = deliveries.id and p.status = 'accepted'))";

const DAY: std::time::Duration = std::time::Duration::from_secs(24 * 3600);

/// What one look removed. More may be left when a slice was full.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Pruned {
    pub bodies: u64,
    pub deliveries: u64,
    /// Bodies that are no longer compared with.
    pub seen: u64,
    /// Messages of the outbox.
    pub outgoing: u64,
    /// Slices of what a crash left of deleted sessions.
    pub gone: u64,
    /// Requests that nobody repeats any more.
    pub said: u64,
}

impl Pruned {
    pub fn is_full(&self) -> bool {
        self.gone > 0
            || [self.bodies, self.deliveries, self.seen, self.outgoing, self.said]
                .iter()
                .any(|n| *n >= SLICE.unsigned_abs())
    }
}

impl Store {
    /// Removes one slice of bodies and one of deliveries that are past their days.
    pub async fn prune(&self, retention: &Retention) -> Result<Pruned> {
        let now = self.clock.now();
        let bodies_before = oldest_kept(now, retention.bodies_days);
        let deliveries_before = oldest_kept(now, retention.identities_days);
        let bodies =
            self.driver.transaction(Lane::Work, move |tx| prune_bodies(tx, &bodies_before)).await?;
        let deliveries = self
            .driver
            .transaction(Lane::Work, move |tx| prune_deliveries(tx, &deliveries_before))
            .await?;
        let seen = self
            .driver
            .transaction(Lane::Work, move |tx| prune_bodies_seen(tx, now, SLICE))
            .await?;
        let outbox_days = retention.outbox_days;
        let outgoing = self
            .driver
            .transaction(Lane::Work, move |tx| outbox::prune(tx, outbox_days, now))
            .await?;
        let gone = u64::from(self.clear_gone(None).await?);
        let said =
            self.driver.transaction(Lane::Work, move |tx| prune_said(tx, now, SLICE)).await?;
        if !self.is_sqlite() {
            self.driver.transaction(Lane::Work, budgets::join_parts).await?;
        } else if gone > 0 || bodies > 0 || deliveries > 0 || seen > 0 || outgoing > 0 {
            self.driver
                .transaction(Lane::Work, |tx| tx.query("pragma incremental_vacuum(200)", &[]))
                .await?;
        }
        Ok(Pruned { bodies, deliveries, seen, outgoing, gone, said })
    }
}

/// Ids sort by time: everything before this one is older than so many days.
fn oldest_kept(now: Timestamp, days: u32) -> DeliveryId {
    DeliveryId::floor(now.minus(DAY * days))
}

/// Where pruning of bodies got to, so that a look does not begin with what has gone long ago.
const MARK: &str = "bodies_pruned_before";

fn prune_bodies(tx: &mut Tx<'_>, before: &DeliveryId) -> Result<u64> {
    let mark = tx.first("select value from meta where name = $1", &params![MARK])?;
    let after = mark.map(|mut row| row.text(0)).transpose()?.unwrap_or_default();
    let sql = format!(
        "select id, n_chunks from deliveries where id > $1 and id < $2 \
         and (body is not null or n_chunks > 0) and {FINISHED} order by id limit $3"
    );
    let rows = tx.query(&sql, &params![&after, before, SLICE])?;
    let n = rows.len() as u64;
    for mut row in rows {
        let id = row.text(0)?;
        if row.int(1)? > 0 {
            chunks::remove(tx, &id)?;
        }
        tx.execute(
            "update deliveries set body = null, n_chunks = 0, headers = $2 where id = $1",
            &params![id, "{}"],
        )?;
    }
    if n < SLICE.unsigned_abs() {
        move_mark(tx, &after, before)?;
    }
    Ok(n)
}

/// Up to the first delivery that was passed over because it is still open.
fn move_mark(tx: &mut Tx<'_>, after: &str, before: &DeliveryId) -> Result<()> {
    let open = tx.first(
        "select min(id) from deliveries where id > $1 and id < $2 \
         and (body is not null or n_chunks > 0)",
        &params![after, before],
    )?;
    let open = open.map(|mut row| row.text_or_null(0)).transpose()?.flatten();
    let mark = match open {
        // A text that sorts right before the open one: the mark itself is exclusive.
        Some(open) => open[..open.len().saturating_sub(1)].to_owned(),
        None => before.as_str().to_owned(),
    };
    tx.execute(
        "insert into meta (name, value) values ($1, $2) \
         on conflict (name) do update set value = excluded.value",
        &params![MARK, mark],
    )?;
    Ok(())
}

fn prune_deliveries(tx: &mut Tx<'_>, before: &DeliveryId) -> Result<u64> {
    let sql = format!(
        "select id from deliveries where id < $1 and body is null and n_chunks = 0 \
         and {FINISHED} order by id limit $2"
    );
    let rows = tx.query(&sql, &params![before, SLICE])?;
    let n = rows.len() as u64;
    for mut row in rows {
        let id = row.text(0)?;
        // A failed one may have been started again since the look.
        let sql = format!("delete from deliveries where id = $1 and {FINISHED}");
        if tx.execute(&sql, &params![&id])? > 0 {
            tx.execute("delete from attempts where delivery_id = $1", &params![&id])?;
        }
    }
    Ok(n)
}
