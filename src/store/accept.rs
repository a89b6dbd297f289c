//! The accept: one transaction that makes a request a delivery, and its message wait in a session.
//!
//! Invariants: of all requests with one (source, dedupe key) exactly one becomes a delivery, whatever
//! the number of nodes; when it is routed to a session, then session, message and the session's due
//! time are in the same commit. The unique constraint decides who is first, nothing else does.

mod again;
mod places;
mod repeat;
mod replay;

use std::borrow::Cow;

use bytes::Bytes;

pub use self::again::ReplayOf;
pub use self::replay::ReplayCheck;
pub(super) use self::replay::prune as prune_bodies_seen;
use self::{
    places::{Place, Sessions},
    repeat::repeat,
};
use super::{
    Error, Result, Store, Urgency,
    driver::{Tx, Value, params},
    sessions::first,
};
use crate::{
    clock::Timestamp,
    domain::{
        delivery::Identity,
        event::{EventBody, Origin, plain_text},
        framed::{Framed, Shows},
        secret::SecretName,
        source::Pace,
        trace::TraceContext,
    },
    id::{AgentId, DeliveryId, EnvironmentId, EventId, SessionId, SourceId, WebhookRequestId},
};

/// A raw body, as it goes into the delivery's row.
#[derive(Clone, Debug)]
pub enum Body {
    Inline(Bytes),
    /// Stored before by [`Store::put_chunks`] under the delivery's id.
    Chunks(i64),
}

/// The JSON of a `user.message`, as it is kept while it waits.
#[derive(Clone, Debug)]
pub enum MessageBody {
    Inline(String),
    /// All but what is in the delivery, whose inline body is the payload.
    Framed(Framed),
    /// Stored before by [`Store::put_chunks`] under the event's id.
    Chunks(i64),
}

impl MessageBody {
    /// What is said in it about a delivery with this body; none where it is in pieces.
    pub fn text(&self, body: &Body) -> Option<String> {
        match (self, body) {
            (MessageBody::Inline(message), _) => match serde_json::from_str(message).ok()? {
                EventBody::UserMessage { content, .. } => Some(plain_text(&content)),
                _ => None,
            },
            (MessageBody::Framed(framed), Body::Inline(bytes)) => {
                Some(framed.text(std::str::from_utf8(bytes).ok()?))
            }
            (MessageBody::Framed(_) | MessageBody::Chunks(_), _) => None,
        }
    }
}

/// The session that a message goes to.
#[derive(Clone, Debug)]
pub enum RouteTarget {
    New(SessionId),
    Session(SessionId),
    /// The session of this key; `fresh` becomes it when there is none yet.
    Key {
        key: String,
        fresh: SessionId,
    },
}

/// A message and where it goes.
#[derive(Clone, Debug)]
pub struct Dispatch {
    pub agent_id: AgentId,
    pub agent_version: i64,
    pub environment_id: EnvironmentId,
    pub target: RouteTarget,
    pub title: String,
    pub event_id: EventId,
    pub message: MessageBody,
    pub private: String,
    pub pace: Pace,
}

/// The decision for a delivery.
#[derive(Clone, Debug)]
pub enum Route {
    To(Box<Dispatch>),
    Held { agent_id: Option<AgentId>, reason: String },
    Filtered { agent_id: Option<AgentId>, reason: String },
}

#[derive(Clone, Debug)]
pub struct NewDelivery {
    pub id: DeliveryId,
    pub source_id: SourceId,
    pub identity: Identity,
    /// Another key that the same event may have come under: a body hash in the window before.
    pub identity_before: Option<String>,
    pub route: Route,
    pub event_type: Option<String>,
    pub request_id: WebhookRequestId,
    pub trace: TraceContext,
    pub received_at: Timestamp,
    pub content_type: Option<String>,
    /// Redacted, as JSON.
    pub headers: String,
    pub body: Body,
    pub body_bytes: usize,
    /// The secret that let it in.
    pub secret: Option<SecretName>,
    /// For senders whose requests could be sent again under another id.
    pub replay: Option<ReplayCheck>,
    /// Set on what somebody has replayed.
    pub replay_of: Option<Box<ReplayOf>>,
    /// Whether a failed first one gets its message again.
    pub rerun_failed: bool,
    /// Messages that may wait in one session.
    pub waiting_max: i64,
}

impl NewDelivery {
    /// What a message says of where it comes from that this delivery is framed by.
    fn origin(&self, framed: &Framed) -> Origin {
        Origin {
            event_type: self.event_type.clone(),
            content_type: self.content_type.clone(),
            bytes: i64::try_from(self.body_bytes).unwrap_or(i64::MAX),
            ..framed.origin(self.source_id.clone(), self.id.clone())
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    Accepted,
    Duplicate,
    Filtered,
    Held,
}

impl Verdict {
    pub fn as_str(self) -> &'static str {
        match self {
            Verdict::Accepted => "accepted",
            Verdict::Duplicate => "duplicate",
            Verdict::Filtered => "filtered",
            Verdict::Held => "held",
        }
    }
}

/// What became of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Accepted {
    pub verdict: Verdict,
    pub delivery_id: DeliveryId,
    pub agent_id: Option<AgentId>,
    pub session_id: Option<SessionId>,
    /// 1 for the first request of a delivery.
    pub attempt: i64,
}

/// Why nothing was stored although the database works.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// The session has as many messages waiting as it may.
    SessionFull,
    /// What should be replayed was erased meanwhile.
    Erased,
}

pub(super) type Answer = Result<One>;

impl Store {
    /// Makes a request durable: answers only after the commit. Large bodies were put into chunks
    /// before.
    pub async fn accept(&self, delivery: impl Into<Box<NewDelivery>>) -> Answer {
        self.batches.accept(delivery.into()).await
    }
}

pub(super) type One = std::result::Result<Accepted, Refused>;

/// Makes requests deliveries. Every node takes locks in one order, so that batches and workers do
/// not wait for each other in a circle: keys by their text, sessions by id, deliveries by identity,
/// bodies by their hash.
pub(super) fn accept_all(tx: &mut Tx<'_>, deliveries: &[NewDelivery]) -> Result<Vec<One>> {
    let deliveries = &known_by_earlier_key(tx, deliveries)?[..];
    let now = tx.now()?;
    let (mut places, mut sessions) = places::find(tx, deliveries, now)?;
    let mut order: Vec<usize> = (0..deliveries.len()).collect();
    // Alone, one writes them as they came: ids grow, and what grows goes to the end of its index.
    if tx.has_rivals() {
        order.sort_by_key(|&at| (&deliveries[at].source_id, &deliveries[at].identity.key));
    }
    let stored = order.iter().copied().filter(|&at| !matches!(places[at], Place::Refused(_)));
    let stored: Vec<usize> = stored.collect();
    let rows: Vec<_> =
        stored.iter().map(|&at| delivery_row(&deliveries[at], &places[at])).collect();
    let mut is_first = vec![false; deliveries.len()];
    for (at, is_new) in
        stored.into_iter().zip(tx.insert_new(INSERT_DELIVERY, INSERTED_DELIVERY, &rows)?)
    {
        is_first[at] = is_new;
    }
    replay::mark(tx, deliveries, &mut places, &is_first)?;

    // First requests before further ones: those may be for a delivery of this batch.
    order.sort_by_key(|&at| !is_first[at]);
    let mut answers: Vec<Option<One>> = deliveries.iter().map(|_| None).collect();
    let (mut made, mut inbox) = (Vec::new(), Vec::new());
    for &at in &order {
        let (delivery, place) = (&deliveries[at], &places[at]);
        answers[at] = Some(if let Place::Refused(refused) = place {
            Err(*refused)
        } else if is_first[at] {
            dispatch(tx, delivery, place, now, &mut sessions, &mut made, &mut inbox)?
        } else {
            repeat(tx, delivery, &sessions, now, &mut inbox)?
        });
    }
    sessions.forget_unused(tx)?;
    tx.insert(INSERT_SESSION, &made)?;
    tx.insert(INSERT_INBOX, &inbox)?;
    let answers: Option<Vec<_>> = answers.into_iter().collect();
    let answers = answers.ok_or(Error::Bug("an accept without an answer"))?;
    again::note(tx, deliveries, &answers, now)?;
    Ok(answers)
}

const INSERT_DELIVERY: &str = "insert into deliveries (id, source_id, dedupe_key, identity_field, \
    identity_weak, status, outcome, reason, agent_id, session_id, event_type, request_id, \
    traceparent, received_at, content_type, body_bytes, headers, body, n_chunks, secret) \
    {rows:ttttittttttttititbit} \
    on conflict (source_id, dedupe_key) do nothing";

const INSERTED_DELIVERY: &str = "select 1 from deliveries where id = $1";

const INSERT_SESSION: &str = "insert into sessions (id, agent_id, agent_version, environment_id, \
    source_id, title, metadata, status, created_at, updated_at, next_at, ripe_by, inbox_given, \
    is_first, first_event_id, first_body, first_source, first_indented, first_private, \
    first_delivery_id) {rows:ttitttttiiiiiitttitt}";

const INSERT_INBOX: &str = "insert into inbox (session_id, position, event_id, body, n_chunks, \
    source, indented, private, delivery_id, received_at) {rows:tittititti}";

/// A delivery whose earlier key is known goes by that key, and so is a duplicate.
fn known_by_earlier_key<'a>(
    tx: &mut Tx<'_>,
    deliveries: &'a [NewDelivery],
) -> Result<Cow<'a, [NewDelivery]>> {
    let mut out = Cow::Borrowed(deliveries);
    for (at, delivery) in deliveries.iter().enumerate() {
        if let Some(before) = &delivery.identity_before {
            let sql = "select 1 from deliveries where source_id = $1 and dedupe_key = $2";
            if tx.first(sql, &params![&delivery.source_id, before])?.is_some() {
                out.to_mut()[at].identity.key.clone_from(before);
            }
        }
    }
    Ok(out)
}

fn delivery_row<'a>(delivery: &'a NewDelivery, place: &'a Place) -> Vec<Value<'a>> {
    let agent_id = match &delivery.route {
        Route::To(dispatch) => Some(&dispatch.agent_id),
        Route::Held { agent_id, .. } | Route::Filtered { agent_id, .. } => agent_id.as_ref(),
    };
    let (status, outcome, reason, session_id) = match place {
        Place::Fresh(id) | Place::Waiting(id) => ("accepted", Some("pending"), None, Some(id)),
        Place::Nowhere(Verdict::Filtered, reason) => ("filtered", None, Some(reason), None),
        Place::Nowhere(_, reason) => ("held", None, Some(reason), None),
        Place::Refused(_) => unreachable!("a delivery that is refused is not stored"),
    };
    let (body, n_chunks) = match &delivery.body {
        Body::Inline(bytes) => (Some(bytes.clone()), 0),
        Body::Chunks(n) => (None, *n),
    };
    params![
        &delivery.id,
        &delivery.source_id,
        &delivery.identity.key,
        &delivery.identity.field,
        delivery.identity.weak,
        status,
        outcome,
        reason,
        agent_id,
        session_id,
        delivery.event_type.as_ref(),
        &delivery.request_id,
        delivery.trace.to_text(),
        delivery.received_at,
        delivery.content_type.as_ref(),
        i64::try_from(delivery.body_bytes).unwrap_or(i64::MAX),
        &delivery.headers,
        body,
        n_chunks,
        delivery.secret.as_ref().map(SecretName::to_text),
    ]
    .into()
}

/// The first request of a delivery: its message begins a session, joins one's inbox, or waits for nobody.
fn dispatch<'a>(
    tx: &mut Tx<'_>,
    delivery: &'a NewDelivery,
    place: &'a Place,
    now: Timestamp,
    sessions: &mut Sessions<'_>,
    made: &mut Vec<Vec<Value<'a>>>,
    inbox: &mut Vec<Vec<Value<'a>>>,
) -> Result<One> {
    let accepted = |verdict, agent_id: Option<&AgentId>, session_id| Accepted {
        verdict,
        delivery_id: delivery.id.clone(),
        agent_id: agent_id.cloned(),
        session_id,
        attempt: 1,
    };
    let dispatch = match &delivery.route {
        Route::To(dispatch) => dispatch,
        Route::Held { agent_id, .. } => {
            return Ok(Ok(accepted(Verdict::Held, agent_id.as_ref(), None)));
        }
        Route::Filtered { agent_id, .. } => {
            return Ok(Ok(accepted(Verdict::Filtered, agent_id.as_ref(), None)));
        }
    };
    let agent_id = Some(&dispatch.agent_id);
    let (session_id, position) = match place {
        Place::Nowhere(verdict, _) => return Ok(Ok(accepted(*verdict, agent_id, None))),
        Place::Refused(_) => return Err(Error::Bug("a refused delivery was dispatched")),
        Place::Waiting(id) => (id.clone(), join(tx, delivery, dispatch.pace, id, now)?),
        // An earlier delivery of this batch has the same key.
        Place::Fresh(id) if sessions.is_made(id) => {
            (id.clone(), join(tx, delivery, dispatch.pace, id, now)?)
        }
        Place::Fresh(id) => {
            let first = first_text(dispatch);
            let row = session_row(delivery, dispatch, first.as_ref(), id, now);
            match &dispatch.target {
                // A later delivery of this batch may have the same key: it must find the row.
                RouteTarget::Key { .. } => {
                    tx.insert(INSERT_SESSION, &[row])?;
                    sessions.made(id);
                }
                RouteTarget::New(_) | RouteTarget::Session(_) => made.push(row),
            }
            if first.is_some() {
                return Ok(Ok(accepted(Verdict::Accepted, agent_id, Some(id.clone()))));
            }
            (id.clone(), Some(1))
        }
    };
    let Some(position) = position else {
        // Others of this batch took the last places.
        tx.execute("delete from deliveries where id = $1", &params![&delivery.id])?;
        replay::forget(tx, delivery)?;
        return Ok(Err(Refused::SessionFull));
    };
    inbox.push(inbox_row(&session_id, position, delivery, dispatch, &delivery.id));
    Ok(Ok(accepted(Verdict::Accepted, agent_id, Some(session_id))))
}

fn join(
    tx: &mut Tx<'_>,
    delivery: &NewDelivery,
    pace: Pace,
    session: &SessionId,
    now: Timestamp,
) -> Result<Option<i64>> {
    take_position(tx, session, pace, now, delivery.received_at, delivery.waiting_max)
}

/// Takes the next place in a session's inbox and makes the session due, unless a worker has it: that
/// worker sees the message when it finishes; or unless its turn waits for another try, or for somebody
/// to allow a call: then the message waits with it, but for one that the turn has to make way for.
/// With a debounce it is due once it is quiet, or when the first message has waited long enough; one
/// that must not wait takes those that do along. `None` when as many wait as may.
pub(super) fn take_position(
    tx: &mut Tx<'_>,
    session: &SessionId,
    pace: Pace,
    now: Timestamp,
    at: Timestamp,
    waiting_max: i64,
) -> Result<Option<i64>> {
    let sql = match pace.debounce {
        None => TAKE_POSITION,
        Some(_) => TAKE_POSITION_DEBOUNCED,
    };
    let (quiet, ripe_by) = due(pace, now);
    let urgency = Urgency::from(pace.when_busy);
    let mut values: Vec<Value> = params![session, quiet, at, waiting_max, urgency as i64].into();
    values.extend(ripe_by.map(Value::from));
    let row = tx.first(sql, &values)?;
    row.map(|mut row| row.int(0)).transpose()
}

macro_rules! take_position {
    ($due:literal) => {
        concat!(
            "update sessions set inbox_given = inbox_given + 1, \
             updated_at = case when updated_at < $3 then $3 else updated_at end, \
             urgency = case when turn_id is not null and urgency < $5 then $5 else urgency end, ",
            $due,
            " where id = $1 and inbox_given - inbox_taken < $4 returning inbox_given"
        )
    };
}

const TAKE_POSITION: &str = take_position!(
    "ripe_by = null, \
     next_at = case when lease_owner is not null or status = 'rescheduling' then next_at \
     when status = 'idle' and turn_id is not null and $5 < 2 then next_at \
     when next_at is null or next_at > $2 then $2 else next_at end"
);

/// What waits for something else than quiet goes on waiting for it.
const TAKE_POSITION_DEBOUNCED: &str = take_position!(
    "ripe_by = case when inbox_given = inbox_taken then $6 else ripe_by end, \
     next_at = case when next_at is not null and (turn_id is not null or lease_owner is not null \
     or parked_at is not null) then next_at \
     when inbox_given = inbox_taken then $2 \
     when ripe_by is null then next_at \
     when ripe_by < $2 then ripe_by else $2 end"
);

/// When a message that waits for nothing else is due, and when at the latest if more come.
fn due(pace: Pace, now: Timestamp) -> (Timestamp, Option<Timestamp>) {
    match pace.debounce {
        None => (now, None),
        Some(debounce) => (now.plus(debounce.quiet), Some(now.plus(debounce.longest))),
    }
}

fn session_row<'a>(
    delivery: &'a NewDelivery,
    dispatch: &'a Dispatch,
    first: Option<&Text<'a>>,
    id: &'a SessionId,
    now: Timestamp,
) -> Vec<Value<'a>> {
    let (next_at, ripe_by) = due(dispatch.pace, now);
    params![
        id,
        &dispatch.agent_id,
        dispatch.agent_version,
        &dispatch.environment_id,
        &delivery.source_id,
        &dispatch.title,
        "{}",
        "idle",
        delivery.received_at,
        delivery.received_at,
        next_at,
        ripe_by,
        1,
        first.is_some(),
        first.map(|_| &dispatch.event_id),
        first.map(|it| it.body),
        first.and_then(|it| it.source),
        first.is_some_and(|it| it.indented),
        first.map(|_| &dispatch.private),
        first.map(|_| &delivery.id),
    ]
    .into()
}

/// What goes into the row of the session that is made for a message, if it does not go into the inbox.
fn first_text(dispatch: &Dispatch) -> Option<Text<'_>> {
    let text = Text::of(dispatch);
    let n_bytes = text.body.len() + dispatch.private.len();
    (text.n_chunks == 0 && first::is_kept(n_bytes, dispatch.pace)).then_some(text)
}

/// What is kept of a message while it waits.
struct Text<'a> {
    body: &'a str,
    n_chunks: i64,
    source: Option<&'a str>,
    indented: bool,
}

impl Text<'_> {
    fn of(dispatch: &Dispatch) -> Text<'_> {
        let (body, n_chunks, framed) = match &dispatch.message {
            MessageBody::Inline(body) => (body.as_str(), 0, None),
            MessageBody::Framed(framed) => (framed.lead.as_str(), 0, Some(framed)),
            MessageBody::Chunks(n) => ("", *n, None),
        };
        let indented = framed.is_some_and(|framed| framed.shows == Shows::Indented);
        Text { body, n_chunks, source: framed.map(|framed| framed.source.as_str()), indented }
    }
}

fn inbox_row<'a>(
    session: &SessionId,
    position: i64,
    delivery: &'a NewDelivery,
    dispatch: &'a Dispatch,
    delivery_id: &'a DeliveryId,
) -> Vec<Value<'a>> {
    let text = Text::of(dispatch);
    params![
        session.to_string(),
        position,
        &dispatch.event_id,
        text.body,
        text.n_chunks,
        text.source,
        text.indented,
        &dispatch.private,
        delivery_id,
        delivery.received_at,
    ]
    .into()
}
