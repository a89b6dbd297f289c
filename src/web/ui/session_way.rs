//! The way of a session, turn by turn, the newest first: the deliveries that a turn took, when it began,
//! how it ended, and the callbacks that tell of it. A delivery's page shows the part that is its own.
//!
//! Invariant: within a turn everything is in the order in which it happened. Left out: what was said
//! in between, which is the transcript.

use std::time::Duration;

use super::{
    super::App,
    deliveries::{badge, decision},
    fault::Fault,
    overview::source_name,
    session::Badge,
    view::{Moment, duration, short},
};
use crate::{
    clock::Timestamp,
    domain::{
        delivery::Delivery,
        session::Session,
        text::printable,
        turn::{Turn, TurnEnd},
    },
    id::{Id, SessionId},
    ingest::Snapshot,
    store::{self, DeliveryFilter, Outgoing, OutgoingFilter, OutgoingStatus},
};

/// Turns on the way, and when more of them are asked for.
const TURNS: usize = 20;
const TURNS_MORE: usize = 200;

/// Deliveries of one turn, and of those that wait.
const SHOWN_MAX: usize = 10;

/// Deliveries and callbacks of all these turns that are read.
const READ_MAX: usize = 500;

/// A callback is written with the end of its turn, or during it.
const TOLD_WITHIN: Duration = Duration::from_secs(60);

#[derive(Debug)]
pub(super) struct Way {
    /// What waits for a turn, then turn by turn.
    pub(super) parts: Vec<Part>,
    /// Whether there are older turns than are shown.
    pub(super) is_cut: bool,
    /// Whether as much as possible is shown.
    pub(super) is_all: bool,
}

/// What belongs to one turn, or to none yet, in its order.
#[derive(Debug)]
pub(super) struct Part {
    pub(super) steps: Vec<Step>,
    /// Deliveries that are not among them.
    pub(super) n_more: i64,
}

/// Something that happened on the way.
#[derive(Debug)]
pub(super) struct Step {
    at: Timestamp,
    pub(super) when: Moment,
    pub(super) badge: Badge,
    pub(super) what: What,
}

#[derive(Debug)]
pub(super) enum What {
    Came { href: String, short: String, source: String, event_type: Option<String> },
    Began,
    Ended { why: Option<&'static str>, took: String },
    Told { id: String, kind: String, n_attempts: i64, why: Option<String>, may_retry: bool },
}

pub(super) async fn way(
    app: &App,
    session: &Session,
    is_all: bool,
    now: Timestamp,
) -> Result<Way, Fault> {
    let limit = if is_all { TURNS_MORE } else { TURNS };
    let snapshot = app.ingest.registry.snapshot();
    let mut turns = app.store.turns(&session.id, limit + 1).await?;
    let is_cut = turns.len() > limit;
    turns.truncate(limit);
    let mut parts = Vec::new();
    if session.n_waiting > 0 {
        let waiting = app.store.waiting_deliveries(&session.id, SHOWN_MAX).await?;
        let n_more = session.n_waiting - waiting.len() as i64;
        let steps = waiting.iter().map(|it| came(it, &snapshot, now)).collect();
        parts.push(Part::new(steps, n_more));
    }
    let Some(oldest) = turns.last() else { return Ok(Way { parts, is_cut, is_all }) };
    let filter = DeliveryFilter {
        session_id: Some(session.id.clone()),
        turns_from: Some(oldest.id.clone()),
        limit: READ_MAX,
        ..DeliveryFilter::default()
    };
    let taken = app.store.deliveries(filter).await?.data;
    let callbacks = callbacks(app, &session.id, (Some(oldest.started_at), None)).await?;
    for turn in &turns {
        let is_its = |it: &&Delivery| it.turn_id.as_ref() == Some(&turn.id);
        let n_taken = taken.iter().filter(is_its).count();
        let shown = taken.iter().filter(is_its).take(SHOWN_MAX);
        let mut all: Vec<Step> = shown.map(|it| came(it, &snapshot, now)).collect();
        let n_more = n_taken.saturating_sub(SHOWN_MAX);
        all.extend(steps(turn, now));
        let told_of = callbacks.iter().filter(|it| it.turn_id.as_ref() == Some(&turn.id));
        all.extend(told_of.map(|it| told(it, now)));
        parts.push(Part::new(all, i64::try_from(n_more).unwrap_or(i64::MAX)));
    }
    Ok(Way { parts, is_cut, is_all })
}

impl Part {
    fn new(mut steps: Vec<Step>, n_more: i64) -> Part {
        steps.sort_by_key(|step| (step.at, step.what.place()));
        Part { steps, n_more }
    }
}

/// The newest messages of a session that were made in a time.
async fn callbacks(
    app: &App,
    session: &SessionId,
    created: (Option<Timestamp>, Option<Timestamp>),
) -> Result<Vec<Outgoing>, Fault> {
    let filter = OutgoingFilter {
        session_id: Some(session.clone()),
        created,
        without_body: true,
        limit: READ_MAX,
        ..OutgoingFilter::default()
    };
    Ok(app.store.outgoing(filter).await?.data)
}

/// What came of one delivery: its turn, and the callbacks that tell of that.
pub(super) async fn of_delivery(
    app: &App,
    delivery: &Delivery,
    now: Timestamp,
) -> Result<Vec<Step>, Fault> {
    let snapshot = app.ingest.registry.snapshot();
    let mut all = vec![came(delivery, &snapshot, now)];
    let (Some(turn), Some(session)) = (&delivery.turn_id, &delivery.session_id) else {
        return Ok(all);
    };
    let turn = match app.store.turn(turn).await {
        Ok(turn) => turn,
        Err(store::Error::NotFound) => return Ok(all),
        Err(error) => return Err(error.into()),
    };
    all.extend(steps(&turn, now));
    let end = turn.end.map(|(_, at)| at.plus(TOLD_WITHIN));
    let callbacks = callbacks(app, session, (Some(turn.started_at), end)).await?;
    let callbacks = callbacks.iter().filter(|it| it.turn_id.as_ref() == Some(&turn.id));
    all.extend(callbacks.map(|it| told(it, now)));
    Ok(Part::new(all, 0).steps)
}

impl What {
    /// Which is first of what has the same time.
    fn place(&self) -> u8 {
        match self {
            What::Came { .. } => 0,
            What::Began => 1,
            What::Ended { .. } => 2,
            What::Told { .. } => 3,
        }
    }
}

fn came(it: &Delivery, snapshot: &Snapshot, now: Timestamp) -> Step {
    let badge = if it.outcome.is_some() { badge(it) } else { decision(it) };
    let what = What::Came {
        href: format!("/deliveries/{}", it.id),
        short: short(it.id.as_str()),
        source: source_name(snapshot, &it.source_name),
        event_type: it.event_type.as_deref().map(printable),
    };
    Step { at: it.received_at, when: Moment::new(it.received_at, now), badge, what }
}

fn steps(turn: &Turn, now: Timestamp) -> Vec<Step> {
    let step = |at, badge, what| Step { at, when: Moment::new(at, now), badge, what };
    let (class, word) = match (&turn.end, turn.is_waiting) {
        (Some(_), _) => ("idle", "began"),
        (None, true) => ("waiting", "waiting"),
        (None, false) => ("running", "running"),
    };
    let mut steps = vec![step(turn.started_at, Badge { class, word }, What::Began)];
    if let Some((end, at)) = turn.end {
        let (class, word, why) = match end {
            TurnEnd::EndTurn => ("done", "done", None),
            TurnEnd::Interrupted => ("over", "stopped", None),
            TurnEnd::RetriesExhausted => ("failed", "failed", Some("gave up after several tries")),
            TurnEnd::BudgetReached => ("failed", "failed", Some("stopped at its budget")),
            TurnEnd::Refusal => ("failed", "failed", Some("the model refused")),
            TurnEnd::Failed => ("failed", "failed", None),
        };
        let took = duration(at.since(turn.started_at));
        steps.push(step(at, Badge { class, word }, What::Ended { why, took }));
    }
    steps
}

fn told(it: &Outgoing, now: Timestamp) -> Step {
    let (class, word) = match it.status {
        OutgoingStatus::Waiting => ("waiting", "waiting"),
        OutgoingStatus::Sent => ("done", "sent"),
        OutgoingStatus::Dead => ("failed", "given up"),
    };
    let code = it.last_code.map(|code| format!("answered {code}"));
    let why = it.last_error.as_deref().map(printable).or(code);
    let what = What::Told {
        id: it.id.to_string(),
        kind: printable(&it.kind),
        n_attempts: it.n_attempts,
        why: why.filter(|_| it.status != OutgoingStatus::Sent),
        may_retry: it.status == OutgoingStatus::Dead,
    };
    let when = Moment::new(it.created_at, now);
    Step { at: it.created_at, when, badge: Badge { class, word }, what }
}
