//! Replays: deliveries that somebody had made of the bytes of an earlier one.
//!
//! Invariants: a replay is stored, marked and in the audit log by one commit; none is stored whose
//! bytes were erased before. A mark is written on its own, so that what senders send does not pay
//! for it.

use super::{NewDelivery, One};
use crate::{
    clock::Timestamp,
    id::DeliveryId,
    store::{
        Change, Result, audit,
        driver::{Tx, params},
    },
};

/// What a delivery is a replay of, and by whose order.
#[derive(Clone, Debug)]
pub struct ReplayOf {
    /// The sender's own delivery.
    pub first: DeliveryId,
    /// The one that was replayed, which may be a replay too.
    pub of: DeliveryId,
    pub change: Change,
}

/// Whether the bytes may no longer be used. Holds an erasure up until this replay is stored, so that
/// the erasure finds it.
pub(super) fn is_erased(tx: &mut Tx<'_>, replay: &ReplayOf) -> Result<bool> {
    let sql = "select erased_at from deliveries where id = $1 or id = $2 order by id {wait}";
    for mut row in tx.query(sql, &params![&replay.first, &replay.of])? {
        if row.time_or_null(0)?.is_some() {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Marks the replays that were stored, and notes who wanted them.
pub(super) fn note(
    tx: &mut Tx<'_>,
    deliveries: &[NewDelivery],
    answers: &[One],
    now: Timestamp,
) -> Result<()> {
    for (delivery, answer) in deliveries.iter().zip(answers) {
        if let (Some(replay), Ok(_)) = (&delivery.replay_of, answer) {
            let sql = "update deliveries set replay_of = $2 where id = $1";
            tx.execute(sql, &params![&delivery.id, &replay.first])?;
            audit::note_only(tx, &replay.change, now)?;
        }
    }
    Ok(())
}
