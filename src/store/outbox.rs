//! The outbox: messages that leave, written in the transaction of what they tell.
//!
//! Whoever ends a turn or parks it calls [`write`] under the session's lock; the rest is a queue like
//! the sessions' own (`outbox/queue.rs`). Invariants: a message is there if and only if what it tells
//! was committed; messages of one session wait for each other in the order of its log; what is open is
//! not pruned. Left out: how a message is sent, and to what URL.

mod queue;

use std::time::Duration;

pub use queue::{Attempted, ClaimedMessage};

use super::{
    Change, Error, Page, Result, Store, audit, callbacks,
    driver::{Lane, Row, Tx, Value, params},
    queue::read_body,
    select::Select,
};
use crate::{
    clock::Timestamp,
    domain::{
        callback::{self, Callback, HOPS_HEADER, Kind, Report},
        cost::{Cost, MicroUsd},
        event::{EventBody, Usage, plain_text},
        turn::TurnEnd,
    },
    id::{DeliveryId, EventId, Id, OutgoingId, SessionId, TurnId},
};

/// What happened that somebody may want to hear of.
#[derive(Clone, Debug)]
pub(super) enum Occasion<'a> {
    Ended(TurnEnd),
    /// The turn is parked until somebody answers for these calls.
    NeedsApproval(&'a [EventId]),
}

impl Occasion<'_> {
    fn kind(&self) -> Kind {
        match self {
            Occasion::Ended(end) => Kind::from(*end),
            Occasion::NeedsApproval(_) => Kind::NeedsApproval,
        }
    }
}

/// A message as people look at it.
#[derive(Clone, Debug, PartialEq)]
pub struct Outgoing {
    pub id: OutgoingId,
    /// An agent's or a source's id.
    pub owner: String,
    pub session_id: Option<SessionId>,
    pub turn_id: Option<TurnId>,
    pub kind: String,
    pub status: OutgoingStatus,
    /// When it is sent next; none while an earlier one of its session is on its way.
    pub next_at: Option<Timestamp>,
    pub is_claimed: bool,
    pub n_attempts: i64,
    pub last_code: Option<i64>,
    pub last_error: Option<String>,
    pub last_attempt_at: Option<Timestamp>,
    pub created_at: Timestamp,
    pub ended_at: Option<Timestamp>,
    pub body: serde_json::Value,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OutgoingStatus {
    Waiting,
    Sent,
    Dead,
}

impl OutgoingStatus {
    pub const ALL: [OutgoingStatus; 3] =
        [OutgoingStatus::Waiting, OutgoingStatus::Sent, OutgoingStatus::Dead];

    pub fn as_str(self) -> &'static str {
        match self {
            OutgoingStatus::Waiting => "waiting",
            OutgoingStatus::Sent => "sent",
            OutgoingStatus::Dead => "dead",
        }
    }

    pub fn parse(text: &str) -> Option<OutgoingStatus> {
        OutgoingStatus::ALL.into_iter().find(|status| status.as_str() == text)
    }
}

#[derive(Clone, Debug, Default)]
pub struct OutgoingFilter {
    pub status: Option<OutgoingStatus>,
    pub session_id: Option<SessionId>,
    pub owner: Option<String>,
    /// Made at the first moment or later, and before the second.
    pub created: (Option<Timestamp>, Option<Timestamp>),
    /// Their bodies are left out, and are null.
    pub without_body: bool,
    pub cursor: Option<OutgoingId>,
    pub limit: usize,
}

const COLUMNS: &str = "id, owner, session_id, turn_id, kind, status, next_at, claimed_by, n_attempts, \
    last_code, last_error, last_attempt_at, created_at, ended_at, body from outbox";

impl Store {
    /// Newest first.
    pub async fn outgoing(&self, filter: OutgoingFilter) -> Result<Page<Outgoing>> {
        self.driver
            .read(move |tx| {
                let (sql, values) = list_sql(&filter);
                let rows = tx.query(&sql, &values)?;
                let messages = rows.into_iter().map(from_row).collect::<Result<Vec<_>>>()?;
                Ok(Page::from_rows(messages, filter.limit, |message| message.id.to_string()))
            })
            .await
    }

    pub async fn outgoing_message(&self, id: &OutgoingId) -> Result<Outgoing> {
        let id = id.clone();
        self.driver.read(move |tx| read(tx, &id)).await
    }

    /// How many messages wait, and since when the oldest does.
    pub async fn outgoing_backlog(&self) -> Result<(u64, Option<Timestamp>)> {
        self.driver
            .read(|tx| {
                // Of the index alone, however many wait.
                let sql = "select count(*), min(id) from outbox where status = 'waiting'";
                let mut row = tx.first(sql, &[])?.ok_or(Error::Bug("a count without a row"))?;
                let n_waiting = u64::try_from(row.int(0)?).unwrap_or(0);
                let Some(oldest) = row.id_or_null::<OutgoingId>(1)? else { return Ok((0, None)) };
                let sql = "select created_at from outbox where id = $1";
                let created = tx.first(sql, &params![&oldest])?.map(|mut row| row.time(0));
                Ok((n_waiting, created.transpose()?))
            })
            .await
    }

    /// Has a dead message sent again, or one that waits at once. [`Error::Conflict`] when it was sent,
    /// or there is no callback to send it to.
    pub async fn send_again(&self, id: &OutgoingId, change: Change) -> Result<Outgoing> {
        let (id, at) = (id.clone(), self.clock.now());
        self.driver
            .transaction(Lane::Work, move |tx| {
                let sql = "select owner, status from outbox where id = $1 {wait}";
                let mut row = tx.first(sql, &params![&id])?.ok_or(Error::NotFound)?;
                let (owner, status) = (row.text(0)?, row.text(1)?);
                if status == "sent" {
                    return Err(Error::Conflict("it was sent already".to_owned()));
                }
                let sql = "select 1 from callbacks where owner = $1";
                if tx.first(sql, &params![&owner])?.is_none() {
                    let message = format!("there is no callback to send it to: give {owner} one");
                    return Err(Error::Conflict(message));
                }
                let now = tx.now()?;
                // One that is being sent stays with whoever sends it.
                tx.execute(
                    "update outbox set status = 'waiting', next_at = $2, ended_at = null, \
                     n_attempts_before = n_attempts where id = $1 and claimed_by is null",
                    &params![&id, now],
                )?;
                audit::note_only(tx, &change, at)?;
                read(tx, &id)
            })
            .await
    }

    /// Writes a test for a callback. [`Error::Conflict`] when the owner has none.
    pub async fn write_test(&self, owner: &str, name: &str, change: Change) -> Result<Outgoing> {
        let (owner, name, at) = (owner.to_owned(), name.to_owned(), self.clock.now());
        self.driver
            .transaction(Lane::Work, move |tx| {
                let sql = "select 1 from callbacks where owner = $1";
                if tx.first(sql, &params![&owner])?.is_none() {
                    return Err(Error::Conflict("there is no callback: give it one".to_owned()));
                }
                let id = OutgoingId::new(at);
                let body = callback::test_body(&name, at).to_string();
                let now = tx.now()?;
                tx.execute(
                    "insert into outbox (id, owner, seq, kind, body, hops, status, next_at, \
                     created_at) values ($1, $2, 0, $3, $4, 0, 'waiting', $5, $6)",
                    &params![&id, &owner, Kind::Test.as_str(), body, now, at],
                )?;
                audit::note_only(tx, &change, at)?;
                read(tx, &id)
            })
            .await
    }
}

/// Writes the message that tells of this, if anybody wants one. To be called under the session's lock,
/// when everything else of the transaction is written.
pub(super) fn write(
    tx: &mut Tx<'_>,
    session: &SessionId,
    turn: &TurnId,
    occasion: &Occasion<'_>,
    at: Timestamp,
) -> Result<()> {
    let kind = occasion.kind();
    let Some(wanted) = wanted(tx, session)?.filter(|it| it.callback.wants(kind)) else {
        return Ok(());
    };
    let Wanted { owner, off, seq, report, .. } = wanted;
    let (deliveries, hops) = answered(tx, session, turn)?;
    let (message, error) = last_words(tx, session, turn, seq)?;
    let (stop_reason, waiting_for) = match occasion {
        Occasion::Ended(end) => (end.as_str(), Vec::new()),
        Occasion::NeedsApproval(calls) => ("requires_action", calls.to_vec()),
    };
    let turn_id = turn.clone();
    let report = Report { turn_id, deliveries, stop_reason, waiting_for, message, error, ..report };
    let body = callback::body(kind, &report, at).to_string();
    let sql = "select 1 from outbox where session_id = $1 and status = 'waiting' limit 1";
    let is_behind = tx.first(sql, &params![session])?.is_some();
    let now = tx.now()?;
    let (status, next_at, ended_at) = match off {
        true => ("dead", None, Some(at)),
        false => ("waiting", (!is_behind).then_some(now), None),
    };
    tx.execute(
        "insert into outbox (id, owner, session_id, turn_id, seq, kind, body, hops, status, next_at, \
         created_at, ended_at, last_error) \
         values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13)",
        &params![
            &OutgoingId::new(at),
            owner,
            session,
            turn,
            seq,
            kind.as_str(),
            body,
            hops,
            status,
            next_at,
            at,
            ended_at,
            off.then_some("the callback is off: its receiver said that it is gone"),
        ],
    )?;
    Ok(())
}

/// Who wants to hear of a session, and what is known of it without its log.
struct Wanted {
    owner: String,
    callback: Callback,
    off: bool,
    seq: i64,
    report: Report,
}

/// One look into an empty table where there are no callbacks.
fn wanted(tx: &mut Tx<'_>, session: &SessionId) -> Result<Option<Wanted>> {
    let rows = tx.query(
        "select c.owner, c.definition, c.off_since, s.next_seq, s.agent_id, a.name, \
         s.agent_version, s.title, r.name, s.input_tokens, s.output_tokens, \
         s.cache_creation_tokens, s.cache_read_tokens, s.cost_micros, s.unpriced_requests \
         from sessions s join callbacks c on c.owner = s.source_id or c.owner = s.agent_id \
         join agents a on a.id = s.agent_id left join sources r on r.id = s.source_id \
         where s.id = $1",
        &params![session],
    )?;
    let mut found: Option<Wanted> = None;
    for mut row in rows {
        let (owner, callback) = (row.text(0)?, row.json(1)?);
        let (off, seq, agent_id) = (row.int_or_null(2)?.is_some(), row.int(3)?, row.id(4)?);
        let report = Report {
            session_id: session.clone(),
            agent_id,
            agent_name: row.text(5)?,
            agent_version: row.int(6)?,
            title: row.text_or_null(7)?,
            source: row.text_or_null(8)?,
            usage: Usage {
                input_tokens: row.int(9)?,
                output_tokens: row.int(10)?,
                cache_creation_input_tokens: row.int(11)?,
                cache_read_input_tokens: row.int(12)?,
            },
            cost: Cost { known: MicroUsd(row.int(13)?), n_unpriced: row.int(14)? },
            turn_id: TurnId::floor(Timestamp(0)),
            deliveries: Default::default(),
            stop_reason: "",
            waiting_for: Vec::new(),
            message: None,
            error: None,
        };
        // The source's comes before the agent's.
        if found.is_none() || owner != report.agent_id.as_str() {
            found = Some(Wanted { owner, callback, off, seq, report });
        }
    }
    Ok(found)
}

/// Deliveries that a message names; of the others it tells the number.
const DELIVERIES_MAX: usize = 100;

/// The deliveries that a turn answers, and through how many callbacks any of them has come at most.
fn answered(
    tx: &mut Tx<'_>,
    session: &SessionId,
    turn: &TurnId,
) -> Result<((Vec<DeliveryId>, usize), i64)> {
    let rows = tx.query(
        "select id, headers from deliveries \
         where session_id = $1 and turn_id = $2 and outcome <> 'pending' order by id",
        &params![session, turn],
    )?;
    let (mut named, mut further, mut hops) = (Vec::new(), 0, 0);
    for mut row in rows {
        if named.len() < DELIVERIES_MAX {
            named.push(row.id(0)?);
        } else {
            further += 1;
        }
        let headers = row.text(1)?;
        // Few have it, and the rest need not be read.
        if headers.contains(HOPS_HEADER) {
            hops = hops.max(callback::hops_of(&headers));
        }
    }
    Ok(((named, further), hops))
}

/// Events at the end of a log among which the agent's last words are looked for.
const LOOKED_AT: i64 = 500;

/// What the agent said last in this turn, and what went wrong last.
fn last_words(
    tx: &mut Tx<'_>,
    session: &SessionId,
    turn: &TurnId,
    next_seq: i64,
) -> Result<(Option<String>, Option<String>)> {
    let mut last = |kind: &str| -> Result<Option<EventBody>> {
        let row = tx.first(
            "select id, body, n_chunks from events where session_id = $1 and seq >= $2 \
             and turn_id = $3 and type = $4 order by seq desc limit 1",
            &params![session, next_seq - LOOKED_AT, turn, kind],
        )?;
        let Some(mut row) = row else { return Ok(None) };
        let (id, body, n_chunks) = (row.id(0)?, row.text(1)?, row.int(2)?);
        read_body(tx, &id, body, n_chunks).map(Some)
    };
    let message = last("agent.message")?.and_then(|body| match body {
        EventBody::AgentMessage { content } => Some(plain_text(&content)),
        _ => None,
    });
    let error = last("session.error")?.and_then(|body| match body {
        EventBody::SessionError { error } if !error.is_retrying() => Some(error.message),
        _ => None,
    });
    Ok((message, error))
}

/// Ends everything of an owner that waits.
pub(super) fn bury_all(tx: &mut Tx<'_>, owner: &str, why: &str, at: Timestamp) -> Result<u64> {
    tx.execute(
        "update outbox set status = 'dead', next_at = null, claimed_by = null, ended_at = $2, \
         last_error = $3 where owner = $1 and status = 'waiting'",
        &params![owner, at, why],
    )
}

fn read(tx: &mut Tx<'_>, id: &OutgoingId) -> Result<Outgoing> {
    let row = tx.first(&format!("select {COLUMNS} where id = $1"), &params![id])?;
    row.ok_or(Error::NotFound).and_then(from_row)
}

fn list_sql(filter: &OutgoingFilter) -> (String, Vec<Value<'_>>) {
    let columns = match filter.without_body {
        true => COLUMNS.replace("body from", "'null' from"),
        false => COLUMNS.to_owned(),
    };
    let mut select = Select::new(format!("select {columns} where 1 = 1"), []);
    // Ids sort by the time.
    let (first, end) = filter.created;
    select.and_some("id >=", first.map(|at| OutgoingId::floor(at).to_string()));
    select.and_some("id <", end.map(|at| OutgoingId::floor(at).to_string()));
    if let Some(status) = filter.status {
        // A constant of a closed list, in the text: only so it leads to the index that is its.
        select.and_text(&format!("status = '{}'", status.as_str()));
    }
    select.and_some("session_id =", filter.session_id.as_ref());
    select.and_some("owner =", filter.owner.as_ref());
    select.and_some("id <", filter.cursor.as_ref());
    select.page("id desc", filter.limit)
}

fn from_row(mut row: Row) -> Result<Outgoing> {
    let status = row.text(5)?;
    Ok(Outgoing {
        id: row.id(0)?,
        owner: row.text(1)?,
        session_id: row.id_or_null(2)?,
        turn_id: row.id_or_null(3)?,
        kind: row.text(4)?,
        status: OutgoingStatus::parse(&status)
            .ok_or(Error::Bug("an unknown status of a message"))?,
        next_at: row.time_or_null(6)?,
        is_claimed: row.text_or_null(7)?.is_some(),
        n_attempts: row.int(8)?,
        last_code: row.int_or_null(9)?,
        last_error: row.text_or_null(10)?,
        last_attempt_at: row.time_or_null(11)?,
        created_at: row.time(12)?,
        ended_at: row.time_or_null(13)?,
        body: row.json(14)?,
    })
}

/// Rows of one slice.
const SLICE: i64 = 500;

const DAY: Duration = Duration::from_secs(24 * 3600);

/// Removes one slice of what was sent or is dead and past its days.
pub(super) fn prune(tx: &mut Tx<'_>, days: u32, at: Timestamp) -> Result<u64> {
    // Nothing ends before it begins, and ids have an index.
    let before = at.minus(DAY * days);
    tx.execute(
        "delete from outbox where id in (select id from outbox where id < $1 \
         and status <> 'waiting' and ended_at < $2 order by id limit $3)",
        &params![&OutgoingId::floor(before), before, SLICE],
    )
}

/// Mends what only a race of two nodes leaves behind: messages for nobody, and lines of which nobody is
/// first.
pub(super) fn mend(tx: &mut Tx<'_>, at: Timestamp) -> Result<u64> {
    let n_orphans = tx.execute(
        "update outbox set status = 'dead', next_at = null, claimed_by = null, ended_at = $1, \
         last_error = 'the callback was removed' where status = 'waiting' \
         and not exists (select 1 from callbacks c where c.owner = outbox.owner)",
        &params![at],
    )?;
    let now = tx.now()?;
    let n_stuck = tx.execute(
        "update outbox set next_at = $1 where status = 'waiting' and next_at is null \
         and not exists (select 1 from outbox b where b.session_id = outbox.session_id \
         and b.status = 'waiting' and (b.next_at is not null or b.seq < outbox.seq))",
        &params![now],
    )?;
    Ok(n_orphans + n_stuck)
}

impl Store {
    /// Has messages found again that nobody would send.
    pub async fn mend_outbox(&self) -> Result<u64> {
        let at = self.clock.now();
        self.driver.transaction(Lane::Work, move |tx| mend(tx, at)).await
    }
}
