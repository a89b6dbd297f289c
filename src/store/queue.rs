//! The queue, which is the session row, and the log that only the lease's holder may write.
//!
//! A claim is one conditional update that gives a lease: owner, end and an epoch one higher than the
//! last. Every later write names the epoch in its `where`; when it matches no row, the lease is
//! somebody else's and the write changed nothing. [`Lease`] is the proof that a method asks for.

mod beside;
mod claim;
mod park;
mod urgency;

use std::time::Duration;

pub use beside::{Beside, EffectEnd, Found, NewAsk, NewEffect, Wanted};
pub(super) use beside::{begun, has_doubts};
pub use claim::{FirstWork, Left, Start};
pub use urgency::Urgency;

use super::{
    Error, Result, Store, budgets, chunks, deliveries,
    driver::{Lane, Row, Tx, Value, params},
    events, occupancy,
    outbox::{self, Occasion},
    outcomes,
    select::padded,
    sessions::first,
    standing::{self, Standing},
};
use crate::{
    clock::Timestamp,
    domain::{
        budget::Used,
        cost::Spent,
        delivery::Outcome,
        event::{DEFINE_OUTCOME, EventBody, NewEvent, Origin, SYSTEM_MESSAGE, USER_MESSAGE, Usage},
        framed::{Framed, Shows},
        outcome::Verdict,
        source::DEBOUNCE_SECONDS_MAX,
        trace::TraceContext,
        turn::TurnEnd,
    },
    id::{AgentId, DeliveryId, EventId, Id, SessionId, TurnId, WebhookRequestId},
};

/// The right to work on a session until `until`, unless it is renewed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lease {
    pub session_id: SessionId,
    pub owner: String,
    pub epoch: i64,
}

/// A session that was just claimed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claimed {
    pub lease: Lease,
    pub agent_id: AgentId,
    /// The turn that an earlier worker left unfinished.
    pub unfinished: Option<TurnId>,
}

/// What becomes of a session whose worker leaves it at a moment: it is due at once. One whose turn had
/// not begun has its place in line back, which is that of its last message.
macro_rules! given_back {
    ($now:literal) => {
        concat!(
            "lease_owner = null, lease_until = null, \
             next_at = case when turn_id is null and updated_at < ",
            $now,
            " then updated_at else cast(",
            $now,
            " as bigint) end"
        )
    };
}

/// Messages that one turn takes at most; the rest wait for the next turn.
const TAKE_MAX: i64 = 500;

/// Events of a log that are read with the turn's beginning, and their size: everybody's commits wait
/// meanwhile.
const SHORT_LOG: usize = 32;
const SHORT_LOG_BYTES: i64 = 65_536;

/// What a new turn is begun with.
#[derive(Clone, Debug)]
pub struct Beginning {
    pub turn_id: TurnId,
    /// For one that no delivery brings its trace to.
    pub trace: TraceContext,
    /// Comes before the messages.
    pub opening: NewEvent,
}

/// A turn that was begun or resumed.
#[derive(Clone, Debug)]
pub struct TurnStart {
    pub taken: Taken,
    /// How things stand with the session, where its log is short: it would else be one more way to the
    /// database and back before anything can be done.
    pub standing: Option<Standing>,
}

/// What a turn starts from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Taken {
    pub turn_id: TurnId,
    /// How often this turn was resumed without getting any further.
    pub resumes: i64,
    /// When the turn was begun first.
    pub started_at: Timestamp,
    /// What was taken from the inbox, in its order; nothing when the turn is resumed.
    pub messages: Vec<TakenMessage>,
    /// What the turn answers, now or from before.
    pub deliveries: Vec<TakenDelivery>,
    /// The trace of the first of them, or one of the turn's own.
    pub trace: TraceContext,
    /// What was asked of it before it was taken up.
    pub urgency: Urgency,
}

/// A message that a turn took.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TakenMessage {
    pub received_at: Timestamp,
    /// What it came with, if a sender sent it.
    pub delivery: Option<TakenDelivery>,
}

/// A delivery that a turn answers, and the request that brought it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TakenDelivery {
    pub delivery_id: DeliveryId,
    pub request_id: WebhookRequestId,
    pub trace: TraceContext,
}

impl Store {
    /// Moves the end of the lease. [`Error::Fenced`] when it is not ours any more.
    pub async fn renew(&self, lease: &Lease, by: Duration) -> Result<()> {
        let lease = lease.clone();
        self.driver
            .step(move |tx| {
                let until = tx.now()?.plus(by);
                let sql = "update sessions set lease_until = $4, next_at = $4 \
                           where id = $1 and epoch = $2 and lease_owner = $3";
                let session = &lease.session_id;
                fenced(tx.execute(sql, &params![session, lease.epoch, &lease.owner, until])?)
            })
            .await
    }

    /// Gives the session back as it is: the turn goes on elsewhere, now, or begins in its place.
    pub async fn release(&self, lease: &Lease) -> Result<()> {
        let lease = lease.clone();
        self.driver
            .transaction(Lane::Work, move |tx| {
                let now = tx.now()?;
                let sql = concat!(
                    "update sessions set ",
                    given_back!("$4"),
                    " where id = $1 and epoch = $2 and lease_owner = $3"
                );
                let session = &lease.session_id;
                fenced(tx.execute(sql, &params![session, lease.epoch, &lease.owner, now])?)
            })
            .await
    }

    /// Voids the leases of an earlier life of this node, which holds the lock on its data directory
    /// and so knows that they are dead. Answers how many sessions that makes due.
    pub async fn void_leases(&self, node: String, owner: String) -> Result<u64> {
        self.driver
            .transaction(Lane::Work, move |tx| {
                let now = tx.now()?;
                // Without a turn, not parked and not waiting for quiet, nothing waits for a time to
                // come: the clock was set back.
                let longest = Duration::from_secs(DEBOUNCE_SECONDS_MAX.into());
                let n_ahead = tx.execute(
                    "update sessions set next_at = $1 where next_at > $1 and lease_owner is null \
                     and turn_id is null and parked_at is null \
                     and (ripe_by is null or ripe_by > $2)",
                    &params![now, now.plus(longest)],
                )?;
                let n_voided = tx.execute(
                    concat!(
                        "update sessions set ",
                        given_back!("$3"),
                        " where next_at is not null and lease_owner <> $2 \
                         and substr(lease_owner, 1, length($1)) = $1"
                    ),
                    &params![format!("{node}:"), owner, now],
                )?;
                Ok(n_ahead + n_voided)
            })
            .await
    }

    /// Starts a turn with everything that waits, or resumes the unfinished one. In one transaction:
    /// the messages leave the inbox and get their numbers, the session is running, the deliveries
    /// are.
    pub async fn begin_turn(&self, lease: &Lease, beginning: Beginning) -> Result<TurnStart> {
        let (lease, at) = (lease.clone(), self.clock.now());
        self.driver.step(move |tx| begin(tx, &lease, beginning, at)).await
    }

    /// Appends to the log, in order, and counts tokens and cost. Nothing may be acted on before this
    /// answers. Tells what the messages that wait ask of the turn.
    pub async fn append(
        &self,
        lease: &Lease,
        events: Vec<NewEvent>,
        spent: impl Into<Spent>,
    ) -> Result<Urgency> {
        self.append_with(lease, events, spent.into(), Beside::default()).await
    }

    /// As [`Store::append`], together with what changes beside the log.
    pub async fn append_with(
        &self,
        lease: &Lease,
        events: Vec<NewEvent>,
        spent: Spent,
        beside: Beside,
    ) -> Result<Urgency> {
        let (lease, at) = (lease.clone(), self.clock.now());
        self.driver
            .transaction(Lane::Work, move |tx| {
                let held = hold(tx, &lease)?;
                append_rows(tx, &held, &events, at, "running")?;
                let used = beside.used(&spent);
                budgets::settle(tx, &held.session_id, held.turn_id.as_ref(), &used)?;
                beside.apply(tx, &held, at)?;
                count(tx, &lease, &spent, Duration::ZERO)?;
                Ok(held.urgency)
            })
            .await
    }

    /// Puts the turn off: last events for now, the lease gone, and the session due again after a
    /// pause, with the same turn. Messages that come meanwhile wait.
    pub async fn reschedule(
        &self,
        lease: &Lease,
        events: Vec<NewEvent>,
        spent: Spent,
        pause: Duration,
        active: Duration,
    ) -> Result<()> {
        let (lease, at) = (lease.clone(), self.clock.now());
        self.driver
            .transaction(Lane::Work, move |tx| {
                let held = hold(tx, &lease)?;
                let turn_id = held.turn_id.clone().ok_or(Error::Bug("a wait without a turn"))?;
                let due = tx.now()?.plus(pause);
                tx.execute(
                    "update sessions set lease_owner = null, lease_until = null, next_at = $2 \
                     where id = $1",
                    &params![&lease.session_id, due],
                )?;
                append_rows(tx, &held, &events, at, "rescheduling")?;
                count(tx, &lease, &spent, active)?;
                let used = Used { ms: whole_ms(active), ..budgets::of_request(&spent) };
                budgets::settle(tx, &lease.session_id, Some(&turn_id), &used)?;
                // Coming back was agreed on, so it does not count as a resumption.
                tx.execute(
                    "update turns set resumes = -1, resumed_seq = $2 where id = $1",
                    &params![&turn_id, held.next_seq + events.len() as i64],
                )?;
                Ok(())
            })
            .await
    }

    /// Ends the turn: last events, the deliveries' outcome, the session idle and the lease gone. Due
    /// again at once when messages came meanwhile: decided by the row that is locked here, not by a
    /// look at the inbox, which on PostgreSQL could be an old one. Nobody will tell any more what
    /// became of effects that were begun: they are in doubt, and so are the deliveries.
    pub async fn finish(
        &self,
        lease: &Lease,
        end: TurnEnd,
        events: Vec<NewEvent>,
        active: Duration,
    ) -> Result<()> {
        let (lease, at) = (lease.clone(), self.clock.now());
        self.driver
            .transaction(Lane::Work, move |tx| {
                let held = hold(tx, &lease)?;
                let turn_id = held.turn_id.clone().ok_or(Error::Bug("a finish without a turn"))?;
                let mut all = Vec::with_capacity(events.len() + 1);
                // Also where it had ended by itself.
                all.extend(held.stopped_by());
                all.extend(events);
                append_rows(tx, &held, &all, at, "idle")?;
                count(tx, &lease, &Spent::default(), active)?;
                // One that was under way was made, whatever it used.
                let is_request =
                    |it: &&NewEvent| matches!(it.body, EventBody::ModelRequestEnd { .. });
                let model_calls = all.iter().filter(is_request).count() as i64;
                let ms = whole_ms(active);
                let used = Used { ms, turns: 1, model_calls, ..Used::default() };
                budgets::settle(tx, &lease.session_id, Some(&turn_id), &used)?;
                close_turn(tx, &lease.session_id, &turn_id, end, at)
            })
            .await
    }
}

/// Ends a turn of which everything is in the log and counted, and with it the lease.
pub(super) fn close_turn(
    tx: &mut Tx<'_>,
    session: &SessionId,
    turn: &TurnId,
    end: TurnEnd,
    at: Timestamp,
) -> Result<()> {
    budgets::release(tx, session)?;
    budgets::forget(tx, turn, at)?;
    beside::close(tx, turn, session, at)?;
    if !matches!(end, TurnEnd::EndTurn | TurnEnd::Interrupted) {
        // The turn itself has said so, unless it came to grief over what its log says.
        outcomes::close(tx, session, Verdict::Failed, at)?;
    }
    let outcome = match has_doubts(tx, turn)? {
        true => Outcome::InDoubt,
        false => end.outcome(),
    };
    tx.execute(
        "update turns set status = 'done', stop_reason = $2, ended_at = $3 where id = $1",
        &params![turn, end.as_str(), at],
    )?;
    deliveries::settle(tx, session, Some(turn), [Outcome::Running, Outcome::Waiting], outcome)?;
    let now = tx.now()?;
    tx.execute(
        "update sessions set turn_id = null, lease_owner = null, lease_until = null, \
         urgency = 0, interrupt_id = null, \
         next_at = case when inbox_taken < inbox_given then cast($2 as bigint) end \
         where id = $1",
        &params![session, now],
    )?;
    outbox::write(tx, session, turn, &Occasion::Ended(end), at)?;
    occupancy::leave(tx, session)
}

fn fenced(n_rows: u64) -> Result<()> {
    if n_rows == 1 { Ok(()) } else { Err(Error::Fenced) }
}

/// A session row that this transaction holds under a valid lease.
pub(super) struct Held {
    pub(super) session_id: SessionId,
    next_seq: i64,
    pub(super) turn_id: Option<TurnId>,
    pub(super) urgency: Urgency,
    /// Whoever stops the turn.
    interrupt: Option<EventId>,
}

impl Held {
    /// Whoever stops the turn, for the log: it is said there before the turn ends, whoever ends it.
    pub(super) fn stopped_by(&self) -> Option<NewEvent> {
        self.interrupt.clone().map(|id| NewEvent::new(id, EventBody::UserInterrupt))
    }
}

/// Locks the session's row and proves the lease. The first statement of every write to a log.
pub(super) fn hold(tx: &mut Tx<'_>, lease: &Lease) -> Result<Held> {
    let sql = "select next_seq, turn_id, urgency, interrupt_id from sessions \
               where id = $1 and epoch = $2 and lease_owner = $3 {wait}";
    let row = tx.first(sql, &params![&lease.session_id, lease.epoch, &lease.owner])?;
    let mut row = row.ok_or(Error::Fenced)?;
    Ok(Held {
        session_id: lease.session_id.clone(),
        next_seq: row.int(0)?,
        turn_id: row.id_or_null(1)?,
        urgency: Urgency::of(row.int(2)?),
        interrupt: row.id_or_null(3)?,
    })
}

/// Locks the row of a session for what is written about the session itself, outside of any turn: the
/// lock keeps whoever has the lease from writing meanwhile.
pub(super) fn hold_session(tx: &mut Tx<'_>, session: &SessionId) -> Result<Held> {
    let sql = "select next_seq, urgency, interrupt_id from sessions where id = $1 {wait}";
    let mut row = tx.first(sql, &params![session])?.ok_or(Error::NotFound)?;
    Ok(Held {
        session_id: session.clone(),
        next_seq: row.int(0)?,
        turn_id: None,
        urgency: Urgency::of(row.int(1)?),
        interrupt: row.id_or_null(2)?,
    })
}

/// Begins or resumes the turn of a session under a lease.
fn begin(tx: &mut Tx<'_>, lease: &Lease, beginning: Beginning, at: Timestamp) -> Result<TurnStart> {
    let held = hold(tx, lease)?;
    // Whatever the worker before had under way.
    budgets::release(tx, &lease.session_id)?;
    let taken = match held.turn_id.clone() {
        Some(turn_id) => resume(tx, lease, turn_id, &held)?,
        None => open(tx, held, beginning, at)?,
    };
    let is_short = events::is_short(tx, &lease.session_id, SHORT_LOG, SHORT_LOG_BYTES)?;
    let standing = is_short.then(|| standing::read(tx, &lease.session_id, SHORT_LOG + 1));
    Ok(TurnStart { taken, standing: standing.transpose()? })
}

/// Opens a turn with what waits.
fn open(tx: &mut Tx<'_>, mut held: Held, beginning: Beginning, at: Timestamp) -> Result<Taken> {
    let Beginning { turn_id: fresh, trace: own, opening } = beginning;
    held.turn_id = Some(fresh.clone());
    let mut rows = vec![event_row(&held, 0, &opening, at)];
    let messages = take(tx, &held, &fresh, at, &mut rows)?;
    let deliveries: Vec<_> = messages.iter().filter_map(|it| it.delivery.clone()).collect();
    let trace = deliveries.first().map_or(own, |it| it.trace);
    tx.execute(
        "insert into turns (id, session_id, status, traceparent, started_at) \
         values ($1, $2, 'running', $3, $4)",
        &params![&fresh, &held.session_id, trace.to_text(), at],
    )?;
    write(tx, &held, rows, "running", at)?;
    let urgency = if held.interrupt.is_some() { held.urgency } else { Urgency::None };
    Ok(Taken { turn_id: fresh, resumes: 0, started_at: at, messages, deliveries, trace, urgency })
}

/// Takes an unfinished turn up, and counts a resumption that found the log where the last one found
/// it.
fn resume(tx: &mut Tx<'_>, lease: &Lease, turn_id: TurnId, held: &Held) -> Result<Taken> {
    let row = tx.first(
        "update turns set resumes = case when resumed_seq = $2 then resumes + 1 else 1 end, \
         resumed_seq = $2 where id = $1 returning resumes, started_at, traceparent",
        &params![&turn_id, held.next_seq],
    )?;
    let mut row = row.ok_or(Error::Bug("an unfinished turn without a row"))?;
    let mut deliveries = tx.query(
        "select id, request_id, traceparent from deliveries \
         where session_id = $1 and turn_id = $2 and outcome <> 'pending' order by id",
        &params![&lease.session_id, &turn_id],
    )?;
    Ok(Taken {
        turn_id,
        resumes: row.int(0)?,
        started_at: row.time(1)?,
        messages: Vec::new(),
        deliveries: deliveries
            .iter_mut()
            .filter_map(|row| taken(row, 0).transpose())
            .collect::<Result<_>>()?,
        trace: trace(&row.text(2)?)?,
        urgency: held.urgency,
    })
}

/// The delivery that three columns name, if they name one.
fn taken(row: &mut Row, at: usize) -> Result<Option<TakenDelivery>> {
    let Some(delivery_id) = row.id_or_null(at)? else { return Ok(None) };
    let (request_id, trace) = (row.id(at + 1)?, trace(&row.text(at + 2)?)?);
    Ok(Some(TakenDelivery { delivery_id, request_id, trace }))
}

/// The trace that a row belongs to.
pub(super) fn trace(stored: &str) -> Result<TraceContext> {
    stored.parse().map_err(|_| Error::corrupt(anyhow::anyhow!("a trace cannot be read")))
}

/// Moves what waits into the rows that will be appended, and makes it the turn's;
/// answers what that was.
fn take<'a>(
    tx: &mut Tx<'_>,
    held: &'a Held,
    turn: &'a TurnId,
    at: Timestamp,
    rows: &mut Vec<Vec<Value<'a>>>,
) -> Result<Vec<TakenMessage>> {
    let waiting = tx.query(
        &format!(
            "select i.position, i.event_id, i.body, i.n_chunks, i.private, i.received_at, d.id, \
             d.request_id, d.traceparent, {FRAME} from waiting i \
             left join deliveries d on d.id = i.delivery_id \
             where i.session_id = $1 order by i.position limit $2"
        ),
        &params![&held.session_id, TAKE_MAX],
    )?;
    let (mut messages, mut n_taken, mut last) = (Vec::with_capacity(waiting.len()), 0_i64, 0);
    let mut answered: Vec<DeliveryId> = Vec::new();
    for mut row in waiting {
        last = row.int(0)?;
        let (received_at, delivery) = (row.time(5)?, taken(&mut row, 6)?);
        answered.extend(delivery.iter().map(|it| it.delivery_id.clone()));
        let body = unframed(row.text(2)?, &mut row, 9)?;
        let kind = kind_of_waiting(&body);
        match kind {
            USER_MESSAGE => messages.push(TakenMessage { received_at, delivery }),
            DEFINE_OUTCOME => outcomes::begin(tx, &held.session_id)?,
            _ => {}
        }
        n_taken += 1;
        rows.push(
            params![
                &held.session_id,
                held.next_seq + rows.len() as i64,
                row.text(1)?,
                kind,
                body,
                row.int(3)?,
                row.text_or_null(4)?,
                turn,
                at,
            ]
            .into(),
        );
    }
    take_deliveries(tx, turn, &answered)?;
    tx.execute(
        "delete from inbox where session_id = $1 and position <= $2",
        &params![&held.session_id, last],
    )?;
    tx.execute(
        concat!(
            "update sessions set turn_id = $2, inbox_taken = inbox_taken + $3, ripe_by = null, \
             urgency = case when interrupt_id is null then 0 else urgency end, ",
            first::gone!(),
            " where id = $1"
        ),
        &params![&held.session_id, turn, n_taken],
    )?;
    Ok(messages)
}

/// Makes deliveries the turn's. They are named one by one, and their outcome is asked for in a way that
/// leads to no index: PostgreSQL would look for them among all deliveries that wait.
fn take_deliveries(tx: &mut Tx<'_>, turn: &TurnId, ids: &[DeliveryId]) -> Result<()> {
    if ids.is_empty() {
        return Ok(());
    }
    let (marks, mut values) = padded(ids);
    values.push(turn.into());
    let sql = format!(
        "update deliveries set outcome = 'running', turn_id = ${} where id in (select d.id \
         from deliveries d where d.id in ({marks}) and coalesce(d.outcome, '') = 'pending' \
         order by d.source_id, d.dedupe_key {{wait}})",
        values.len()
    );
    tx.execute(&sql, &values).map(drop)
}

/// How the bodies of what else there is in an inbox than messages begin, with their kinds.
pub(super) const BEGINNINGS: [(&str, &str); 2] = [
    (r#"{"type":"system.message""#, SYSTEM_MESSAGE),
    (r#"{"type":"user.define_outcome""#, DEFINE_OUTCOME),
];

fn kind_of_waiting(body: &str) -> &'static str {
    let found = BEGINNINGS.into_iter().find(|(beginning, _)| body.starts_with(beginning));
    found.map_or(USER_MESSAGE, |(_, kind)| kind)
}

pub(super) fn append_rows(
    tx: &mut Tx<'_>,
    held: &Held,
    events: &[NewEvent],
    at: Timestamp,
    status: &str,
) -> Result<()> {
    let rows = events.iter().enumerate().map(|(n, event)| event_row(held, n, event, at)).collect();
    write(tx, held, rows, status, at)?;
    outcomes::follow(tx, events, at)
}

fn write(
    tx: &mut Tx<'_>,
    held: &Held,
    rows: Vec<Vec<Value<'_>>>,
    status: &str,
    at: Timestamp,
) -> Result<()> {
    if rows.is_empty() {
        return Ok(());
    }
    tx.insert(
        "insert into events (session_id, seq, id, type, body, n_chunks, private, turn_id, \
         processed_at) {rows:titttitti}",
        &rows,
    )?;
    tx.execute(
        "update sessions set next_seq = next_seq + $2, status = $3, updated_at = $4 where id = $1",
        &params![&held.session_id, rows.len() as i64, status, at],
    )?;
    Ok(())
}

fn event_row<'a>(held: &'a Held, n: usize, event: &'a NewEvent, at: Timestamp) -> Vec<Value<'a>> {
    params![
        &held.session_id,
        held.next_seq + n as i64,
        &event.id,
        event.body.kind(),
        event.body.to_text(),
        0,
        event.private.as_ref().map(ToString::to_string),
        held.turn_id.as_ref(),
        at,
    ]
    .into()
}

fn count(tx: &mut Tx<'_>, lease: &Lease, spent: &Spent, active: Duration) -> Result<()> {
    let Spent { usage, cost } = spent;
    if *usage == Usage::default() && active.is_zero() {
        return Ok(());
    }
    let n_unpriced = i64::from(*usage != Usage::default() && cost.is_none());
    let active_ms = whole_ms(active);
    tx.execute(
        "update sessions set input_tokens = input_tokens + $2, output_tokens = output_tokens + $3, \
         cache_creation_tokens = cache_creation_tokens + $4, \
         cache_read_tokens = cache_read_tokens + $5, active_ms = active_ms + $6, \
         cost_micros = cost_micros + $7, unpriced_requests = unpriced_requests + $8 \
         where id = $1",
        &params![
            &lease.session_id,
            usage.input_tokens,
            usage.output_tokens,
            usage.cache_creation_input_tokens,
            usage.cache_read_input_tokens,
            active_ms,
            cost.map_or(0, |cost| cost.0),
            n_unpriced,
        ],
    )?;
    Ok(())
}

fn whole_ms(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(0)
}

/// What of a row `i` that waits and of its delivery `d` makes a message whole that shows its payload.
pub(super) const FRAME: &str = "i.source, i.indented, \
    case when i.source is not null then d.body end, d.id, d.source_id, d.event_type, d.content_type, \
    d.body_bytes";

/// The JSON of a message that waits, made whole by its delivery; `at` is the first column of [`FRAME`].
pub(super) fn unframed(text: String, row: &mut Row, at: usize) -> Result<String> {
    let Some(source) = row.text_or_null(at)? else { return Ok(text) };
    let shows = if row.flag(at + 1)? { Shows::Indented } else { Shows::AsItIs };
    let payload = row.bytes_or_null(at + 2)?;
    let payload = payload.ok_or(Error::Bug("a message whose payload is gone"))?;
    let framed = Framed { lead: text, source, shows };
    let origin = Origin {
        event_type: row.text_or_null(at + 5)?,
        content_type: row.text_or_null(at + 6)?,
        bytes: row.int(at + 7)?,
        ..framed.origin(row.id(at + 4)?, row.id(at + 3)?)
    };
    Ok(framed.around(std::str::from_utf8(&payload).map_err(Error::corrupt)?, &origin))
}

/// The JSON of an event's body, put together when it was stored in pieces.
pub(super) fn read_body(
    tx: &mut Tx<'_>,
    id: &EventId,
    body: String,
    n_chunks: i64,
) -> Result<EventBody> {
    let text = if n_chunks == 0 {
        body
    } else {
        String::from_utf8(chunks::read(tx, id.as_str(), n_chunks)?).map_err(Error::corrupt)?
    };
    serde_json::from_str(&text).map_err(Error::corrupt)
}
