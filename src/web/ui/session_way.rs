//! The way of a session, turn by turn, the newest first: the deliveries that a turn took, when it began,
//! how it ended, and the callbacks that tell of it. A delivery's page shows the part that is its own.
//!
//! Invariant: within a turn everything is in the order in which it happened. Left out: what was said
//! in between, which is the transcript.

use std::collections::BTreeMap;

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
        text::printable,
        turn::{Turn, TurnEnd},
    },
    id::{Id, SessionId, TurnId},
    ingest::Snapshot,
    store::{self, DeliveryFilter, Outgoing, OutgoingFilter, OutgoingStatus},
};

/// Things of one kind on the way, and when all of them are asked for.
const SOME: usize = 20;
const MANY: usize = 500;

#[derive(Debug)]
pub(super) struct Way {
    /// Turn by turn, each in its order.
    pub(super) turns: Vec<Vec<Step>>,
    /// Whether there is more than is shown.
    pub(super) is_cut: bool,
    /// Whether as much as possible is shown.
    pub(super) is_all: bool,
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
    id: &SessionId,
    is_all: bool,
    now: Timestamp,
) -> Result<Way, Fault> {
    let limit = if is_all { MANY } else { SOME };
    let session_id = Some(id.clone());
    let filter =
        DeliveryFilter { session_id: session_id.clone(), limit, ..DeliveryFilter::default() };
    let deliveries = app.store.deliveries(filter).await?;
    let filter = OutgoingFilter { session_id, limit, ..OutgoingFilter::default() };
    let callbacks = app.store.outgoing(filter).await?;
    let turns = app.store.turns(id, limit + 1).await?;
    let snapshot = app.ingest.registry.snapshot();
    let is_cut = deliveries.next.is_some() || callbacks.next.is_some() || turns.len() > limit;

    // Ids sort by time. What no turn has is what waits for one, so it is newer than all others.
    let mut by_turn: BTreeMap<(bool, Option<TurnId>), Vec<Step>> = BTreeMap::new();
    let mut put = |turn: Option<TurnId>, step| {
        by_turn.entry((turn.is_none(), turn)).or_default().push(step);
    };
    for it in &deliveries.data {
        put(it.turn_id.clone(), came(it, &snapshot, now));
    }
    for turn in turns.iter().take(limit) {
        for step in steps(turn, now) {
            put(Some(turn.id.clone()), step);
        }
    }
    for it in &callbacks.data {
        put(it.turn_id.clone(), told(it, now));
    }
    let turns = by_turn.into_values().rev().map(|mut steps| {
        steps.sort_by_key(|step| (step.at, step.what.place()));
        steps
    });
    Ok(Way { turns: turns.collect(), is_cut, is_all })
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
    match app.store.turn(turn).await {
        Ok(turn) => all.extend(steps(&turn, now)),
        Err(store::Error::NotFound) => return Ok(all),
        Err(error) => return Err(error.into()),
    }
    let filter = OutgoingFilter {
        session_id: Some(session.clone()),
        limit: MANY,
        ..OutgoingFilter::default()
    };
    let callbacks = app.store.outgoing(filter).await?.data;
    let callbacks = callbacks.iter().filter(|it| it.turn_id.as_ref() == Some(turn));
    all.extend(callbacks.map(|it| told(it, now)));
    all.sort_by_key(|step| (step.at, step.what.place()));
    Ok(all)
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
