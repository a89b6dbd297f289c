//! Sessions that share a project directory take turns.
//!
//! An environment whose sessions work in place has room for one unfinished turn. Its row names the
//! session that has it, from the claim that begins the turn to the commit that ends it: also while
//! that turn waits for a retry or an answer, or for another worker after a crash, because the
//! directory is in the middle of something. Invariant: the row is locked before it is decided on, so
//! that whoever is turned away is seen by whoever leaves. Left out: who may claim a session at all.

use std::{collections::HashSet, time::Duration};

use super::{
    Error, Result,
    driver::{Tx, params},
    queue::Claimed,
    sessions::first,
};
use crate::{
    clock::Timestamp,
    id::{EnvironmentId, SessionId},
};

/// When a session that was turned away looks again by itself. It is called as soon as there is room;
/// this is for the room that nobody left, as when its session is gone.
const LOOK_AGAIN: Duration = Duration::from_secs(30);

/// The environment that a claimed session must have to itself, and since when it waits for it.
pub(super) struct Wanted {
    pub(super) environment: EnvironmentId,
    pub(super) parked_at: Option<Timestamp>,
}

/// Of the sessions just claimed, those that may begin: the others are parked and keep their place.
pub(super) fn admit(
    tx: &mut Tx<'_>,
    claimed: Vec<(Claimed, Option<Wanted>)>,
    now: Timestamp,
) -> Result<Vec<Claimed>> {
    // Everybody locks environments in one order; within one, who waited longest is first.
    let mut wanted: Vec<(&EnvironmentId, Timestamp, &SessionId)> = claimed
        .iter()
        .filter_map(|(claimed, wanted)| {
            let wanted = wanted.as_ref()?;
            let since = wanted.parked_at.unwrap_or(now);
            Some((&wanted.environment, since, &claimed.lease.session_id))
        })
        .collect();
    wanted.sort();
    let mut parked = HashSet::new();
    for (environment, _, session) in wanted {
        if !enter(tx, environment, session)? {
            park(tx, session, now)?;
            parked.insert(session.clone());
        }
    }
    let admitted = claimed.into_iter().map(|(claimed, _)| claimed);
    Ok(admitted.filter(|claimed| !parked.contains(&claimed.lease.session_id)).collect())
}

fn enter(tx: &mut Tx<'_>, environment: &EnvironmentId, session: &SessionId) -> Result<bool> {
    let sql = "select session_id from environments where id = $1 {wait}";
    let mut row = tx.first(sql, &params![environment])?.ok_or(Error::NotFound)?;
    if row.id_or_null::<SessionId>(0)?.is_some_and(|other| other != *session) {
        return Ok(false);
    }
    let sql = "update environments set session_id = $2 where id = $1";
    tx.execute(sql, &params![environment, session])?;
    tx.execute("update sessions set parked_at = null where id = $1", &params![session])?;
    Ok(true)
}

fn park(tx: &mut Tx<'_>, session: &SessionId, now: Timestamp) -> Result<()> {
    first::into_inbox(tx, session)?;
    tx.execute(
        "update sessions set lease_owner = null, lease_until = null, next_at = $2, \
         parked_at = coalesce(parked_at, $3) where id = $1",
        &params![session, now.plus(LOOK_AGAIN), now],
    )?;
    Ok(())
}

/// The session's turn is over: whoever was turned away first is due.
pub(super) fn leave(tx: &mut Tx<'_>, session: &SessionId) -> Result<()> {
    let row = tx.first(
        "update environments set session_id = null \
         where id = (select environment_id from sessions where id = $1) and session_id = $1 \
         returning id",
        &params![session],
    )?;
    let Some(mut row) = row else { return Ok(()) };
    let environment: EnvironmentId = row.id(0)?;
    // It comes before whoever is due from now on. One that is locked is being claimed right now, and
    // will find the room.
    tx.execute(
        "with picked as materialized (select id from sessions \
         where environment_id = $1 and parked_at is not null and lease_owner is null \
         order by parked_at, id limit 1 {lock}) \
         update sessions set next_at = parked_at from picked where sessions.id = picked.id",
        &params![&environment],
    )?;
    Ok(())
}
