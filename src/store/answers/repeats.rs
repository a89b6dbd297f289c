//! Requests that say something in a session, or run a deployment, and come a second time.
//!
//! A client that got no answer sends the same body again, and only counts its tries. Invariant: of two
//! requests with one body, of which one is another try of the other, whichever commits first counts,
//! and both are answered alike; this is decided under the lock of the session's or the deployment's
//! row, so that it does not matter which node they reach, nor in which order. Left out: equal bodies
//! that are both first tries, which are two messages.

use std::time::Duration;

use serde::{Serialize, de::DeserializeOwned};

use super::Said;
use crate::{
    clock::Timestamp,
    domain::event::Event,
    id::{EventId, Id as _, SessionId},
    store::{
        Result,
        driver::{Tx, params},
    },
};

/// How long after a request another try of it is taken for one. Clients wait for seconds between two.
const WINDOW: Duration = Duration::from_secs(60);

/// Requests that are remembered of one session; the oldest go first.
const KEPT_MAX: i64 = 1000;

/// Which try of a request this is.
#[derive(Clone, Debug)]
pub struct Tried {
    /// From 0, as the client counts.
    pub n: i64,
    /// Before any of its body was read.
    pub came_at: Timestamp,
    /// Of all that it says.
    pub hash: String,
}

/// The answer of the request that this one repeats, if it does: the same events, under the ids that
/// they were given then.
pub(super) fn answered(
    tx: &mut Tx<'_>,
    session: &SessionId,
    tried: &Tried,
    said: &[Said],
) -> Result<Option<Vec<Event>>> {
    let answer: Option<Vec<(EventId, Option<i64>)>> = earlier(tx, session.as_str(), tried)?;
    let event =
        |(said, (id, at)): (&Said, (EventId, Option<i64>))| said.event(id, at.map(Timestamp));
    Ok(answer.map(|answer| said.iter().zip(answer).map(event).collect()))
}

/// As [`note`], for events.
pub(super) fn remember(
    tx: &mut Tx<'_>,
    session: &SessionId,
    tried: &Tried,
    answer: &[Event],
) -> Result<()> {
    let answer: Vec<_> =
        answer.iter().map(|event| (&event.id, event.processed_at.map(|at| at.0))).collect();
    note(tx, session.as_str(), tried, &answer)
}

/// What was noted of the request that this one repeats, if it does. `of` is whose row is locked.
pub(in crate::store) fn earlier<T: DeserializeOwned>(
    tx: &mut Tx<'_>,
    of: &str,
    tried: &Tried,
) -> Result<Option<T>> {
    let sql = "select attempt, came_at, answer from said where session_id = $1 and hash = $2";
    let Some(mut row) = tx.first(sql, &params![of, &tried.hash])? else { return Ok(None) };
    let (n, came_at) = (row.int(0)?, row.time(1)?);
    let is_later = tried.n > 0 && tried.n != n && tried.came_at <= came_at.plus(WINDOW);
    // The first try was still under way when the second one overtook it.
    let is_overtaken = tried.n < n && tried.came_at <= came_at;
    if !is_later && !is_overtaken {
        return Ok(None);
    }
    row.json(2).map(Some)
}

/// Remembers a request and how it was answered, and forgets those that nobody repeats any more.
pub(in crate::store) fn note(
    tx: &mut Tx<'_>,
    of: &str,
    tried: &Tried,
    answer: &impl Serialize,
) -> Result<()> {
    let answer = serde_json::to_string(answer).expect("ids and numbers are plain JSON");
    tx.execute(
        "insert into said (session_id, hash, attempt, came_at, answer) values ($1, $2, $3, $4, $5) \
         on conflict (session_id, hash) do update set attempt = excluded.attempt, \
         came_at = excluded.came_at, answer = excluded.answer",
        &params![of, &tried.hash, tried.n, tried.came_at, answer],
    )?;
    let before = tried.came_at.minus(WINDOW);
    let sql = "delete from said where session_id = $1 and (came_at < $2 or came_at < \
               (select came_at from said where session_id = $1 order by came_at desc \
               limit 1 offset $3))";
    tx.execute(sql, &params![of, before, KEPT_MAX])?;
    Ok(())
}

/// Forgets what is too old to be repeated, in sessions in which nothing is said any more.
pub(in crate::store) fn prune(tx: &mut Tx<'_>, now: Timestamp, limit: i64) -> Result<u64> {
    let sql = "select session_id, hash from said where came_at < $1 order by came_at limit $2";
    let rows = tx.query(sql, &params![now.minus(WINDOW), limit])?;
    let n = rows.len() as u64;
    for mut row in rows {
        let (session, hash) = (row.text(0)?, row.text(1)?);
        let sql = "delete from said where session_id = $1 and hash = $2 and came_at < $3";
        tx.execute(sql, &params![session, hash, now.minus(WINDOW)])?;
    }
    Ok(n)
}
