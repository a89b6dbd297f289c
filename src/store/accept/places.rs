//! Where the deliveries of a batch go, looked at before anything of them is written.
//!
//! Invariants: from here on this transaction holds every session row that it may write, and every key
//! that it gives away, so that what is locked later waits for neither; all nodes take them in the same
//! order. Nothing but keys is written here, and one that no delivery used after all is given back.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use super::{
    Dispatch, NewDelivery, Refused, Route, RouteTarget, Verdict, again, repeat::failed_session,
};
use crate::{
    clock::Timestamp,
    domain::source::WhenBusy,
    id::{Id, SessionId, SourceId},
    store::{
        Error, Result,
        driver::{Tx, params},
    },
};

/// Where a delivery goes.
pub(super) enum Place {
    /// To a session that is not there yet.
    Fresh(SessionId),
    Waiting(SessionId),
    Nowhere(Verdict, String),
    /// It is not stored.
    Refused(Refused),
}

/// The sessions that a batch may give messages to.
pub(super) struct Sessions<'a> {
    locked: BTreeMap<SessionId, Option<Seen>>,
    /// Keys that this batch gave to sessions to come.
    given: BTreeMap<(&'a SourceId, &'a str), SessionId>,
    made: BTreeSet<SessionId>,
}

impl Sessions<'_> {
    pub(super) fn is_locked(&self, id: &SessionId) -> bool {
        self.locked.contains_key(id)
    }

    pub(super) fn is_made(&self, id: &SessionId) -> bool {
        self.made.contains(id)
    }

    /// Notes that the session of a key is there now.
    pub(super) fn made(&mut self, id: &SessionId) {
        self.made.insert(id.clone());
    }

    /// Takes keys back whose deliveries made no session: they were known, or are held.
    pub(super) fn forget_unused(&self, tx: &mut Tx<'_>) -> Result<()> {
        for ((source, key), id) in &self.given {
            if !self.is_made(id) {
                let sql = "delete from session_keys where source_id = $1 and key = $2";
                tx.execute(sql, &params![*source, *key])?;
            }
        }
        Ok(())
    }
}

/// A session that may get a message. Its row is locked.
struct Seen {
    agent_id: String,
    archived: bool,
    terminated: bool,
    at_work: bool,
    n_waiting: i64,
}

/// The session that a delivery is meant for.
#[derive(Clone)]
enum Target {
    Fresh(SessionId),
    Stored(SessionId),
}

/// Looks at the targets, after having settled the keys and locked the sessions.
pub(super) fn find<'a>(
    tx: &mut Tx<'_>,
    deliveries: &'a [NewDelivery],
    now: Timestamp,
) -> Result<(Vec<Place>, Sessions<'a>)> {
    let (keys, given) = settle_keys(tx, deliveries)?;
    let mut targets = Vec::with_capacity(deliveries.len());
    let mut locked = BTreeMap::new();
    for delivery in deliveries {
        let target = dispatch_of(delivery).map(|dispatch| match &dispatch.target {
            RouteTarget::New(fresh) => Ok(Target::Fresh(fresh.clone())),
            RouteTarget::Session(id) => Ok(Target::Stored(id.clone())),
            RouteTarget::Key { key, .. } => keys
                .get(&(&delivery.source_id, key.as_str()))
                .cloned()
                .ok_or(Error::Bug("a key without a session")),
        });
        let target = target.transpose()?;
        if let Some(Target::Stored(id)) = &target {
            locked.insert(id.clone(), None);
        }
        if delivery.rerun_failed {
            locked.extend(failed_session(tx, delivery)?.map(|id| (id, None)));
        }
        targets.push(target);
    }
    for (id, seen) in &mut locked {
        *seen = look_at(tx, id)?;
    }
    let sessions = Sessions { locked, given, made: BTreeSet::new() };
    let places = deliveries.iter().zip(targets);
    let places = places.map(|(delivery, target)| find_place(tx, delivery, target, &sessions, now));
    Ok((places.collect::<Result<_>>()?, sessions))
}

type Keys<'a, T> = BTreeMap<(&'a SourceId, &'a str), T>;

/// The session of each key of the batch, and those that have just got theirs. Who gives a key to a
/// session holds it, and others wait for it, so they are given in their order.
fn settle_keys<'a>(
    tx: &mut Tx<'_>,
    deliveries: &'a [NewDelivery],
) -> Result<(Keys<'a, Target>, Keys<'a, SessionId>)> {
    let mut wanted = BTreeMap::new();
    for delivery in deliveries {
        if let Some(RouteTarget::Key { key, fresh }) = dispatch_of(delivery).map(|it| &it.target) {
            wanted.entry((&delivery.source_id, key.as_str())).or_insert(fresh);
        }
    }
    let (mut keys, mut given) = (BTreeMap::new(), BTreeMap::new());
    for ((source, key), fresh) in wanted {
        let target = match session_of(tx, source, key)? {
            Some(id) => Target::Stored(id),
            None => match give(tx, source, key, fresh)? {
                true => {
                    given.insert((source, key), fresh.clone());
                    Target::Fresh(fresh.clone())
                }
                // Another node made the session of this key a moment before, or took it back.
                false => match session_of(tx, source, key)? {
                    Some(id) => Target::Stored(id),
                    None => return Err(Error::Conflict("a key changed hands".to_owned())),
                },
            },
        };
        keys.insert((source, key), target);
    }
    Ok((keys, given))
}

fn dispatch_of(delivery: &NewDelivery) -> Option<&Dispatch> {
    match &delivery.route {
        Route::To(dispatch) => Some(dispatch),
        Route::Held { .. } | Route::Filtered { .. } => None,
    }
}

fn session_of(tx: &mut Tx<'_>, source: &SourceId, key: &str) -> Result<Option<SessionId>> {
    let sql = "select session_id from session_keys where source_id = $1 and key = $2";
    tx.first(sql, &params![source, key])?.map(|mut row| row.id(0)).transpose()
}

/// Whether the key went to that session.
fn give(tx: &mut Tx<'_>, source: &SourceId, key: &str, fresh: &SessionId) -> Result<bool> {
    let sql = "insert into session_keys (source_id, key, session_id) values ($1, $2, $3) \
               on conflict (source_id, key) do nothing";
    Ok(tx.execute(sql, &params![source, key, fresh])? == 1)
}

fn look_at(tx: &mut Tx<'_>, id: &SessionId) -> Result<Option<Seen>> {
    let sql = "select agent_id, status, archived_at, inbox_given - inbox_taken, \
               coalesce(turn_id, lease_owner) from sessions where id = $1 {wait}";
    let Some(mut row) = tx.first(sql, &params![id])? else { return Ok(None) };
    Ok(Some(Seen {
        agent_id: row.text(0)?,
        terminated: row.text(1)? == "terminated",
        archived: row.int_or_null(2)?.is_some(),
        n_waiting: row.int(3)?,
        at_work: row.text_or_null(4)?.is_some(),
    }))
}

/// A target that cannot take the message never refuses the delivery: it is held with the reason.
fn find_place(
    tx: &mut Tx<'_>,
    delivery: &NewDelivery,
    target: Option<Target>,
    sessions: &Sessions<'_>,
    now: Timestamp,
) -> Result<Place> {
    if let Some(replay) = &delivery.replay_of
        && again::is_erased(tx, replay)?
    {
        return Ok(Place::Refused(Refused::Erased));
    }
    let dispatch = match &delivery.route {
        Route::Held { reason, .. } => return Ok(Place::Nowhere(Verdict::Held, reason.clone())),
        Route::Filtered { reason, .. } => {
            return Ok(Place::Nowhere(Verdict::Filtered, reason.clone()));
        }
        Route::To(dispatch) => dispatch,
    };
    let wanted = match target {
        None => return Err(Error::Bug("a dispatch without a target")),
        Some(Target::Fresh(id)) => return Ok(Place::Fresh(id)),
        Some(Target::Stored(id)) => id,
    };
    let Some(Some(seen)) = sessions.locked.get(&wanted) else {
        return Ok(held(format!("the target session {wanted} does not exist")));
    };
    if seen.archived {
        return Ok(held(format!("the target session {wanted} is archived")));
    }
    if seen.terminated {
        return Ok(held(format!("the target session {wanted} is terminated")));
    }
    if seen.agent_id != dispatch.agent_id.as_str() {
        return Ok(held(format!("the target session {wanted} belongs to another agent")));
    }
    if seen.at_work && dispatch.pace.when_busy == WhenBusy::Skip {
        let reason = "the session was at work, and the source skips what comes meanwhile";
        return Ok(Place::Nowhere(Verdict::Filtered, reason.to_owned()));
    }
    if let Some(max) = dispatch.pace.turns_per_hour_max
        && has_begun(tx, &wanted, max, now)?
    {
        return Ok(held(format!(
            "the session {wanted} began {max} turns within the hour before, and the source allows \
             no more: is it the agent's own doing that comes back?"
        )));
    }
    // What is known already needs no room.
    if seen.n_waiting >= delivery.waiting_max && !is_known(tx, delivery)? {
        return Ok(Place::Refused(Refused::SessionFull));
    }
    Ok(Place::Waiting(wanted))
}

/// Whether a session, whose row is locked, began so many turns within the last hour.
fn has_begun(tx: &mut Tx<'_>, session: &SessionId, n: u32, now: Timestamp) -> Result<bool> {
    let sql =
        "select started_at from turns where session_id = $1 order by id desc limit 1 offset $2";
    let oldest = tx.first(sql, &params![session, i64::from(n) - 1])?;
    let started = oldest.map(|mut row| row.time(0)).transpose()?;
    Ok(started.is_some_and(|started| started > now.minus(Duration::from_secs(3600))))
}

fn is_known(tx: &mut Tx<'_>, delivery: &NewDelivery) -> Result<bool> {
    let sql = "select 1 from deliveries where source_id = $1 and dedupe_key = $2";
    Ok(tx.first(sql, &params![&delivery.source_id, &delivery.identity.key])?.is_some())
}

fn held(reason: String) -> Place {
    Place::Nowhere(Verdict::Held, reason)
}
