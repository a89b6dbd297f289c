//! Bodies that came before under another id: what somebody who kept a request could send again.
//!
//! Only for sources whose senders sign neither an id nor a time that is checked. Invariant: the
//! unique constraint decides which of two equal bodies was first, in the transaction that stores
//! their deliveries, so two nodes cannot both be first. A body is remembered for a day.

use std::{collections::HashSet, time::Duration};

use super::{NewDelivery, Place, Verdict};
use crate::{
    clock::Timestamp,
    id::DeliveryId,
    store::{
        Result,
        driver::{Tx, Value, params},
    },
};

/// How long a body that comes again under another id is told of.
const WINDOW: Duration = Duration::from_secs(24 * 3600);

/// What to do about a body that came before.
#[derive(Clone, Debug)]
pub struct ReplayCheck {
    /// SHA-256 of the body.
    pub body_hash: [u8; 32],
    /// Whether it shall wait for a person rather than go to its agent.
    pub hold: bool,
}

const _: () = assert!(WINDOW.as_millis() == 86_400_000, "as the statement below says it");

/// The row of a day ago gives way; a younger one stays, and is then no row of this statement.
const INSERT: &str = "insert into bodies_seen (id, source_id, body_hash, seen_at) {rows:ttbi} \
    on conflict (source_id, body_hash) do update set id = excluded.id, seen_at = excluded.seen_at \
    where bodies_seen.seen_at <= excluded.seen_at - 86400000";

const INSERTED: &str =
    "select 1 from bodies_seen where id = $1 and source_id = $2 and body_hash = $3";

/// Remembers the bodies of deliveries that are new, and marks those whose body is remembered
/// already.
pub(super) fn mark(
    tx: &mut Tx<'_>,
    deliveries: &[NewDelivery],
    places: &mut [Place],
    is_new: &[bool],
) -> Result<()> {
    let mut seen = HashSet::new();
    let (mut firsts, mut suspects) = (Vec::new(), Vec::new());
    for (at, delivery) in deliveries.iter().enumerate() {
        let Some(check) = &delivery.replay else { continue };
        if !is_new[at] {
            continue;
        }
        // Of those that came together the first one counts: one statement cannot say it twice.
        if seen.insert((&delivery.source_id, check.body_hash)) {
            firsts.push((at, check));
        } else {
            suspects.push((at, check));
        }
    }
    // In one order on every node, like all locks.
    firsts.sort_by_key(|(at, check)| (&deliveries[*at].source_id, check.body_hash));
    let row = |(at, check): &(usize, &ReplayCheck)| -> Vec<Value> {
        let delivery = &deliveries[*at];
        let hash = bytes::Bytes::copy_from_slice(&check.body_hash);
        params![&delivery.id, &delivery.source_id, hash, delivery.received_at].into()
    };
    let rows: Vec<Vec<Value>> = firsts.iter().map(row).collect();
    let is_first = tx.insert_new(INSERT, INSERTED, &rows)?;
    let known = firsts.into_iter().zip(is_first).filter(|(_, is_first)| !is_first);
    suspects.extend(known.map(|(suspect, _)| suspect));
    for (at, check) in suspects {
        if let Some(earlier) = earlier(tx, &deliveries[at], check)? {
            suspect(tx, &deliveries[at], &mut places[at], &earlier, check.hold)?;
        }
    }
    Ok(())
}

fn earlier(
    tx: &mut Tx<'_>,
    delivery: &NewDelivery,
    check: &ReplayCheck,
) -> Result<Option<DeliveryId>> {
    let hash = bytes::Bytes::copy_from_slice(&check.body_hash);
    let sql = "select id from bodies_seen where source_id = $1 and body_hash = $2";
    tx.first(sql, &params![&delivery.source_id, hash])?.map(|mut row| row.id(0)).transpose()
}

fn suspect(
    tx: &mut Tx<'_>,
    delivery: &NewDelivery,
    place: &mut Place,
    earlier: &DeliveryId,
    hold: bool,
) -> Result<()> {
    let sql = "update deliveries set possible_replay_of = $2 where id = $1";
    tx.execute(sql, &params![&delivery.id, earlier])?;
    if hold && let Place::Fresh(_) | Place::Waiting(_) = place {
        let reason = format!("it may be a replay: {earlier} had the same body under another id");
        tx.execute(
            "update deliveries set status = 'held', outcome = null, session_id = null, \
             reason = $2 where id = $1",
            &params![&delivery.id, &reason],
        )?;
        *place = Place::Nowhere(Verdict::Held, reason);
    }
    Ok(())
}

/// Forgets the body of a delivery that found no room after all, so that its retry is no suspect.
pub(super) fn forget(tx: &mut Tx<'_>, delivery: &NewDelivery) -> Result<()> {
    if let Some(check) = &delivery.replay {
        let hash = bytes::Bytes::copy_from_slice(&check.body_hash);
        tx.execute(
            "delete from bodies_seen where source_id = $1 and body_hash = $2 and id = $3",
            &params![&delivery.source_id, hash, &delivery.id],
        )?;
    }
    Ok(())
}

/// Forgets one slice of bodies whose day is over.
pub(in crate::store) fn prune(tx: &mut Tx<'_>, now: Timestamp, slice: i64) -> Result<u64> {
    tx.execute(
        "delete from bodies_seen where (source_id, body_hash) in \
         (select source_id, body_hash from bodies_seen where seen_at <= $1 \
         order by seen_at limit $2)",
        &params![now.minus(WINDOW), slice],
    )
}
