//! The outbox as a queue: claim, and what became of the attempt.
//!
//! A claim moves `next_at` to the end of the time in which the attempt must be over, and counts the
//! attempt; its number is the fence: a report of an older attempt changes nothing, but for success,
//! which is true whoever tells of it. Claims go round the owners, so that the backlog of one receiver
//! keeps no other waiting. Times are the database's, as for leases.

use std::{collections::BTreeMap, time::Duration};

use super::{bury_all, callbacks};
use crate::{
    clock::Timestamp,
    domain::callback::Callback,
    id::{OutgoingId, SessionId},
    store::{
        Change, Error, Result, Store, audit,
        driver::{Lane, Row, Tx, params},
    },
};

/// A message that is to be sent, by the claimer, now.
#[derive(Clone, Debug)]
pub struct ClaimedMessage {
    pub id: OutgoingId,
    pub owner: String,
    pub session_id: Option<SessionId>,
    pub kind: String,
    pub body: String,
    pub hops: i64,
    /// The number of this attempt, of all that there were.
    pub attempt: i64,
    /// Of those since it was written, or since somebody ordered that it be sent again.
    pub n_tries: i64,
    pub callback: Callback,
}

/// What became of an attempt to send.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Attempted {
    Sent {
        code: u16,
    },
    /// Another one may help.
    Failed {
        code: Option<u16>,
        why: String,
        pause: Duration,
        pause_all: Option<Duration>,
    },
    /// No other one will be made.
    Dead {
        code: Option<u16>,
        why: String,
    },
    /// Nobody takes anything there any more.
    Gone {
        code: u16,
    },
    /// It was not made, or nobody knows.
    Dropped,
}

impl Store {
    /// How long until somebody of these has a message due; owners in `full` are passed over.
    pub async fn next_outgoing(&self, full: Vec<String>) -> Result<Option<Duration>> {
        self.driver
            .read(move |tx| {
                let now = tx.now()?;
                let due = due_owners(tx, Timestamp(i64::MAX), &full)?;
                let next = due.into_iter().map(|(_, at)| at).min();
                Ok(next.map(|next| next.since(now)))
            })
            .await
    }

    /// Claims up to `limit` due messages until `lease` from now, at most so many of each owner that
    /// `per_owner` are under way with those in `busy`.
    pub async fn claim_outgoing(
        &self,
        claimer: String,
        lease: Duration,
        limit: usize,
        per_owner: usize,
        busy: BTreeMap<String, usize>,
    ) -> Result<Vec<ClaimedMessage>> {
        self.driver
            .transaction(Lane::Work, move |tx| {
                let now = tx.now()?;
                let mut owners = due_owners(tx, now, &[])?;
                // Whoever waits longest comes first, and nobody gets all there is.
                owners.sort_by_key(|(_, at)| *at);
                let (mut claimed, mut left) = (Vec::new(), owners.len());
                for (owner, _) in owners {
                    let room = per_owner.saturating_sub(busy.get(&owner).copied().unwrap_or(0));
                    let share = (limit - claimed.len()).div_ceil(left);
                    left -= 1;
                    let n = room.min(share);
                    if n > 0 {
                        claimed.extend(pick(tx, &owner, &claimer, now, lease, n)?);
                    }
                }
                Ok(claimed)
            })
            .await
    }

    /// Makes due again what earlier lives of this node had claimed: they are dead.
    pub async fn void_outgoing_claims(&self, node: String, claimer: String) -> Result<u64> {
        self.driver
            .transaction(Lane::Work, move |tx| {
                let now = tx.now()?;
                tx.execute(
                    "update outbox set claimed_by = null, next_at = $3 \
                     where claimed_by is not null and claimed_by <> $2 \
                     and substr(claimed_by, 1, length($1)) = $1",
                    &params![format!("{node}:"), claimer, now],
                )
            })
            .await
    }

    /// Writes down what became of an attempt. Answers whether that changed anything.
    pub async fn attempted(&self, message: &ClaimedMessage, attempted: Attempted) -> Result<bool> {
        let (message, at) = (message.clone(), self.clock.now());
        if let Attempted::Gone { code } = attempted {
            return self.gone(message, code, at).await;
        }
        self.driver
            .transaction(Lane::Work, move |tx| {
                lock_line(tx, &message)?;
                let now = tx.now()?;
                let (id, attempt) = (&message.id, message.attempt);
                match attempted {
                    Attempted::Sent { code } => {
                        callbacks::switch_on(tx, &message.owner)?;
                        // Whatever somebody else believes: it arrived.
                        let sql = "update outbox set status = 'sent', next_at = null, \
                             claimed_by = null, last_code = $2, last_error = null, \
                             last_attempt_at = $3, ended_at = $3 \
                             where id = $1 and status <> 'sent'";
                        let n = tx.execute(sql, &params![id, i64::from(code), at])?;
                        release_next(tx, &message, now)?;
                        Ok(n > 0)
                    }
                    Attempted::Failed { code, why, pause, pause_all } => {
                        if let Some(pause_all) = pause_all {
                            callbacks::pause(tx, &message.owner, now.plus(pause_all))?;
                        }
                        let sql = "update outbox set next_at = $3, claimed_by = null, \
                             last_code = $4, last_error = $5, last_attempt_at = $6 \
                             where id = $1 and n_attempts = $2 and claimed_by is not null";
                        let (next, code) = (now.plus(pause), code.map(i64::from));
                        let n = tx.execute(sql, &params![id, attempt, next, code, why, at])?;
                        Ok(n > 0)
                    }
                    Attempted::Dead { code, why } => {
                        let n = bury(tx, &message, code, &why, at)?;
                        release_next(tx, &message, now)?;
                        Ok(n > 0)
                    }
                    Attempted::Dropped => {
                        let sql = "update outbox set next_at = $3, claimed_by = null \
                             where id = $1 and n_attempts = $2 and claimed_by is not null";
                        Ok(tx.execute(sql, &params![id, attempt, now])? > 0)
                    }
                    Attempted::Gone { .. } => Err(Error::Bug("what is gone is buried elsewhere")),
                }
            })
            .await
    }

    /// The callback is off: what waits for it is dead, until somebody orders otherwise.
    async fn gone(&self, message: ClaimedMessage, code: u16, at: Timestamp) -> Result<bool> {
        self.configure(move |tx| {
            lock_line(tx, &message)?;
            let why = format!("the receiver answered {code}: it is gone");
            let n = bury(tx, &message, Some(code), &why, at)?;
            if callbacks::switch_off(tx, &message.owner, at)? {
                let why = "the callback is off: its receiver said that it is gone";
                let n_others = bury_all(tx, &message.owner, why, at)?;
                let change = Change {
                    actor: "bellpull".to_owned(),
                    action: "callback.off",
                    target: message.owner.clone(),
                    details: serde_json::json!({"code": code, "dead": n_others + n}),
                };
                audit::note(tx, &change, at)?;
            }
            let now = tx.now()?;
            release_next(tx, &message, now)?;
            Ok(n > 0)
        })
        .await
    }
}

/// Owners with a message due by then, and since when. One look into an index for each callback,
/// however many messages wait.
fn due_owners(tx: &mut Tx<'_>, by: Timestamp, full: &[String]) -> Result<Vec<(String, Timestamp)>> {
    let rows = tx.query(
        "select owner, not_before, (select min(o.next_at) from outbox o \
         where o.owner = callbacks.owner and o.next_at is not null) from callbacks",
        &[],
    )?;
    let mut due = Vec::new();
    for mut row in rows {
        let (owner, not_before) = (row.text(0)?, row.time(1)?);
        let first = row.time_or_null(2)?.map(|at| at.max(not_before));
        if let Some(first) = first.filter(|at| *at <= by && !full.contains(&owner)) {
            due.push((owner, first));
        }
    }
    Ok(due)
}

fn pick(
    tx: &mut Tx<'_>,
    owner: &str,
    claimer: &str,
    now: Timestamp,
    lease: Duration,
    n: usize,
) -> Result<Vec<ClaimedMessage>> {
    let rows = tx.query(
        "with picked as materialized (select id from outbox where owner = $1 and next_at <= $2 \
         order by next_at limit $3 {lock}) \
         update outbox set next_at = $4, claimed_by = $5, n_attempts = n_attempts + 1 \
         from picked where outbox.id = picked.id \
         returning outbox.id, outbox.session_id, outbox.kind, outbox.body, outbox.hops, \
         outbox.n_attempts, outbox.n_attempts - outbox.n_attempts_before, \
         (select c.definition from callbacks c where c.owner = outbox.owner)",
        &params![owner, now, n as i64, now.plus(lease), claimer],
    )?;
    rows.into_iter().map(|row| claimed(row, owner)).collect()
}

fn claimed(mut row: Row, owner: &str) -> Result<ClaimedMessage> {
    Ok(ClaimedMessage {
        id: row.id(0)?,
        owner: owner.to_owned(),
        session_id: row.id_or_null(1)?,
        kind: row.text(2)?,
        body: row.text(3)?,
        hops: row.int(4)?,
        attempt: row.int(5)?,
        n_tries: row.int(6)?,
        callback: row.json(7)?,
    })
}

fn bury(
    tx: &mut Tx<'_>,
    message: &ClaimedMessage,
    code: Option<u16>,
    why: &str,
    at: Timestamp,
) -> Result<u64> {
    tx.execute(
        "update outbox set status = 'dead', next_at = null, claimed_by = null, last_code = $3, \
         last_error = $4, last_attempt_at = $5, ended_at = $5 \
         where id = $1 and n_attempts = $2 and claimed_by is not null",
        &params![&message.id, message.attempt, code.map(i64::from), why, at],
    )
}

/// As whoever writes the next message of the session: so one of the two sees the other.
fn lock_line(tx: &mut Tx<'_>, message: &ClaimedMessage) -> Result<()> {
    let sql = "select 1 from sessions where id = $1 {wait}";
    tx.query(sql, &params![message.session_id.as_ref()]).map(drop)
}

/// The next message of the session is due, unless another one of it is on its way.
fn release_next(tx: &mut Tx<'_>, message: &ClaimedMessage, now: Timestamp) -> Result<()> {
    tx.execute(
        "update outbox set next_at = $2 where id = (select id from outbox where session_id = $1 \
         and status = 'waiting' order by seq limit 1) and next_at is null \
         and not exists (select 1 from outbox b where b.session_id = $1 and b.status = 'waiting' \
         and b.next_at is not null)",
        &params![message.session_id.as_ref(), now],
    )
    .map(drop)
}
