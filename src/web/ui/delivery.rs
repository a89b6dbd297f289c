//! One delivery, from the gate to what came of it: the inspector.
//!
//! It shows what is stored: headers with the sensitive values taken out, the body as it came and as
//! lines, how it was told from others, each request for it, where it went and where it would go now.
//! Left out: the signature, which is not kept, so the gate cannot be asked again.

use askama::Template;
use axum::{
    body::Bytes,
    extract::{Path, State},
    response::{IntoResponse, Redirect, Response},
};
use serde_json::Value;

use super::{
    super::{App, error::Error, hooks, input::At, managed},
    deliveries::{badge, session_of},
    delivery_list::Choice,
    fault::Fault,
    form::{Wrong, refused},
    guard::{Fields, Posted, Visitor},
    overview::source_name,
    page as rendered,
    payload::Payload,
    place,
    session::Badge,
    session_way::{Step, of_delivery},
    shown,
    view::{Moment, Shell, bytes, short},
};
use crate::{
    clock::Timestamp,
    domain::{Problem, delivery::Delivery, secret::SecretName, text::printable},
    id::{AgentId, DeliveryId, Id},
    ingest::{Destination, NotReplayed, Order, Reject, Snapshot},
    store::{self, Verdict},
};

#[derive(Template)]
#[template(path = "delivery.html")]
struct Page {
    shell: Shell,
    facts: Facts,
    it: Shown,
    agents: Vec<Choice>,
    version: String,
    notice: Option<String>,
    problem: Option<Wrong>,
}

#[derive(Template)]
#[template(path = "delivery.html", block = "live")]
struct Live {
    facts: Facts,
}

/// What it is, and what became of it until now.
struct Facts {
    id: String,
    short: String,
    badge: Badge,
    /// Both of its states: what was decided as it came, and what became of it.
    decision: &'static str,
    outcome: Option<String>,
    source: String,
    event_type: Option<String>,
    reason: Option<String>,
    received: Moment,
    size: String,
    content_type: Option<String>,
    trace: String,
    session: Option<String>,
    replay_of: Option<(String, String)>,
    possible_replay_of: Option<(String, String)>,
    n_replays: i64,
    /// From here to what came of it.
    way: Vec<Step>,
    /// Of a visitor who may change something.
    csrf: Option<String>,
}

/// The rest of it, which stays as it is.
struct Shown {
    /// What happened, in order: a word, and what about it.
    steps: Vec<(&'static str, String)>,
    attempts: Vec<(i64, String, Moment)>,
    headers: Vec<(String, String)>,
    body: Body,
    /// What the agent is told, or would be now.
    message: Option<Payload>,
    /// Where it would go now.
    would: Option<String>,
}

enum Body {
    /// As lines, as it came, and whether both are the same.
    Text {
        pretty: Payload,
        raw: String,
        is_same: bool,
    },
    Bytes,
    /// Why it is not there.
    Gone(&'static str),
}

/// Characters of a raw body on the page.
const RAW_CHARS_MAX: usize = 20_000;

fn find(id: &str) -> Result<DeliveryId, Fault> {
    id.parse().map_err(|_| Fault::not_found("There is no such delivery."))
}

pub(super) async fn page(
    State(app): State<App>,
    visitor: Visitor,
    Path(id): Path<String>,
    query: Fields,
) -> Result<Response, Fault> {
    let id = find(&id)?;
    if query.text("part") == Some("live") {
        let delivery = app.store.delivery(&id).await?;
        let now = app.store.clock().now();
        return rendered(&Live { facts: facts(&app, &visitor, &delivery, now).await? });
    }
    let notice = shown::take(&app, &visitor, &query).notice;
    show(&app, visitor, &id, &query, (notice, None)).await
}

async fn show(
    app: &App,
    visitor: Visitor,
    id: &DeliveryId,
    fields: &Fields,
    (notice, problem): (Option<String>, Option<Wrong>),
) -> Result<Response, Fault> {
    let delivery = app.store.delivery(id).await;
    let delivery = delivery.map_err(|error| match error {
        store::Error::NotFound => Fault::not_found("There is no such delivery."),
        error => error.into(),
    })?;
    let now = app.store.clock().now();
    let snapshot = app.ingest.registry.snapshot();
    let chosen = fields.text("agent").unwrap_or_default();
    let agents = Choice::of_agents(&snapshot, chosen);
    let it = shown(app, &snapshot, &delivery, now).await?;
    let version = fields.text("version").unwrap_or_default().to_owned();
    let facts = facts(app, &visitor, &delivery, now).await?;
    let shell = Shell::new(visitor, "deliveries", now);
    let page = Page { shell, facts, it, agents, version, notice, problem };
    match &page.problem {
        Some(wrong) => refused(&page, wrong),
        None => rendered(&page),
    }
}

async fn facts(
    app: &App,
    visitor: &Visitor,
    delivery: &Delivery,
    now: Timestamp,
) -> Result<Facts, Fault> {
    let snapshot = app.ingest.registry.snapshot();
    let id = delivery.id.to_string();
    let pair = |id: &DeliveryId| (id.to_string(), short(id.as_str()));
    Ok(Facts {
        short: short(&id),
        id,
        badge: badge(delivery),
        decision: delivery.status.as_str(),
        outcome: delivery.outcome.map(|it| it.as_str().replace('_', " ")),
        source: source_name(&snapshot, &delivery.source_name),
        event_type: delivery.event_type.as_deref().map(printable),
        reason: delivery.reason.as_deref().map(printable),
        received: Moment::new(delivery.received_at, now),
        size: bytes(delivery.body_bytes),
        content_type: delivery.content_type.as_deref().map(printable),
        trace: delivery.trace.trace_id().to_string(),
        session: session_of(delivery),
        replay_of: delivery.replay_of.as_ref().map(pair),
        possible_replay_of: delivery.possible_replay_of.as_ref().map(pair),
        n_replays: delivery.n_replays,
        way: of_delivery(app, delivery, now).await?,
        csrf: visitor.may_change.then(|| visitor.csrf.clone()),
    })
}

async fn shown(
    app: &App,
    snapshot: &Snapshot,
    delivery: &Delivery,
    now: Timestamp,
) -> Result<Shown, Fault> {
    let attempts = app.store.attempts(&delivery.id).await?;
    let would = match app.ingest.would_replay(&delivery.id, &Order::default()).await {
        Ok(would) => Some(would),
        Err(NotReplayed::Reject(Reject::Failed(error))) => return Err(error.into()),
        Err(_) => None,
    };
    let read = would.as_ref().and_then(|it| it.bytes.clone());
    Ok(Shown {
        steps: steps(delivery, snapshot),
        attempts: attempts
            .iter()
            .map(|it| (it.n, it.request_id.to_string(), Moment::new(it.received_at, now)))
            .collect(),
        headers: headers(&delivery.headers),
        body: body(app, delivery, read).await?,
        message: would.as_ref().and_then(|it| it.message.as_deref()).map(Payload::new),
        would: would.map(|it| would_say(&it.destination, snapshot)),
    })
}

/// How it came in, in the order in which that was decided.
fn steps(delivery: &Delivery, snapshot: &Snapshot) -> Vec<(&'static str, String)> {
    let secret = delivery.secret.as_ref().map(SecretName::to_string);
    let gate = match (&delivery.replay_of, secret) {
        (Some(_), _) => "not asked: somebody with a key replayed it".to_owned(),
        (None, Some(secret)) => format!("let in by {}", printable(&secret)),
        (None, None) => "let in by a key of this server, or by its network".to_owned(),
    };
    let identity = &delivery.identity;
    let told = match identity.field.as_str() {
        "none" => "the sender gives no id, so every request is a new delivery".to_owned(),
        "body_hash" => "the sender gives no id; the hash of the body tells it apart".to_owned(),
        "replay" => "a replay, which no sender's id can be".to_owned(),
        _ => {
            let weak = if identity.weak { " (may be rewritten on the way)" } else { "" };
            printable(&format!("{}{weak}", identity.key))
        }
    };
    let kind = delivery.event_type.as_deref();
    let kind = kind.map_or("none was found".to_owned(), printable);
    let agent = delivery.agent_id.as_ref().map(|id| {
        let name = snapshot.agents.get(id).map(|agent| printable(&agent.spec.name));
        name.unwrap_or_else(|| id.to_string())
    });
    let route = match (&delivery.reason, agent) {
        (Some(reason), _) => format!("{}: {}", delivery.status.as_str(), printable(reason)),
        (None, Some(agent)) => format!("to {agent}"),
        (None, None) => delivery.status.as_str().to_owned(),
    };
    vec![("Gate", gate), ("Identity", told), ("Event type", kind), ("Route", route)]
}

fn headers(headers: &Value) -> Vec<(String, String)> {
    let mut out = Vec::new();
    for (name, value) in headers.as_object().into_iter().flatten() {
        let values = match value {
            Value::Array(all) => all.iter().collect(),
            one => vec![one],
        };
        for value in values {
            let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
            out.push((printable(name), printable(&text)));
        }
    }
    out
}

/// What came, unless it was read for something else already.
async fn body(app: &App, delivery: &Delivery, read: Option<Bytes>) -> Result<Body, Fault> {
    if let Some(read) = read {
        return Ok(shown_body(&read));
    }
    match app.store.delivery_body(&delivery.id).await {
        Ok(stored) => Ok(shown_body(&stored.bytes)),
        Err(store::Error::NotFound) if delivery.erased_at.is_some() => {
            Ok(Body::Gone("It was erased."))
        }
        Err(store::Error::NotFound) => Ok(Body::Gone("It is past its days.")),
        Err(error) => Err(error.into()),
    }
}

fn shown_body(bytes: &[u8]) -> Body {
    let Ok(text) = std::str::from_utf8(bytes) else { return Body::Bytes };
    let pretty = Payload::new(text);
    let raw: String = printable(&text.chars().take(RAW_CHARS_MAX).collect::<String>());
    let lines: String = pretty.pieces.iter().map(|piece| piece.text.as_str()).collect();
    Body::Text { is_same: lines == raw, pretty, raw }
}

fn would_say(destination: &Destination, snapshot: &Snapshot) -> String {
    let name = |id: &AgentId| {
        let agent = snapshot.agents.get(id);
        agent.map_or_else(|| id.to_string(), |agent| printable(&agent.spec.name))
    };
    match destination {
        Destination::NewSession { agent_id } => format!("a new session of {}", name(agent_id)),
        Destination::Session { agent_id, session_id } => {
            format!("session {} of {}", short(session_id.as_str()), name(agent_id))
        }
        Destination::Key { agent_id, key } => {
            format!("the session of {} of {}", printable(key), name(agent_id))
        }
        Destination::Held { reason } => format!("nowhere; it would be held: {}", printable(reason)),
        Destination::Filtered { reason } => {
            format!("nowhere; it would be filtered: {}", printable(reason))
        }
    }
}

/// The bytes as they came, to be saved.
pub(super) async fn raw(
    State(app): State<App>,
    _: Visitor,
    Path(id): Path<String>,
) -> Result<Response, Fault> {
    Ok(managed::deliveries::body(State(app), At(find(&id)?)).await?)
}

/// Makes it again: as the source says, or for another agent and version; or says where it would go.
pub(super) async fn replay(
    State(app): State<App>,
    Path(id): Path<String>,
    posted: Posted,
) -> Result<Response, Fault> {
    let Posted { visitor, form } = posted;
    let (id, fields) = (find(&id)?, form.fields);
    let refused = async |visitor: Visitor, wrong: Wrong| {
        show(&app, visitor, &id, &fields, (None, Some(wrong))).await
    };
    let version = fields.text("version").map(str::parse::<i64>);
    let order = match version.transpose() {
        Ok(version) => app.ingest.order(fields.text("agent"), version),
        Err(_) => Err(Problem::new("version", "must be a whole number from 1")),
    };
    let order = match order {
        Ok(order) => order,
        Err(problem) => return refused(visitor, Wrong::said(Error::from(problem).message())).await,
    };
    if fields.text("dry_run").is_some() {
        return match app.ingest.would_replay(&id, &order).await {
            Ok(would) => {
                let snapshot = app.ingest.registry.snapshot();
                let text = format!("It would go to {}.", would_say(&would.destination, &snapshot));
                // What was tried is still in the form.
                let place = format!("/deliveries/{id}?{}", chosen(&fields));
                Ok(shown::show(&app, &visitor, place, shown::Shown::notice(text)))
            }
            Err(failed) => refused(visitor, not_replayed(failed)?).await,
        };
    }
    match app.ingest.replay(&id, &order, visitor.name.clone()).await {
        Ok(answer) => {
            hooks::ring(&app, &answer);
            if fields.text("back").is_some() && answer.verdict != Verdict::Held {
                return Ok(place::done(place::back(&fields, "/needs"), "replayed"));
            }
            Ok(Redirect::to(&format!("/deliveries/{}", answer.delivery_id)).into_response())
        }
        Err(failed) => refused(visitor, not_replayed(failed)?).await,
    }
}

/// Agent and version of a form, for an address.
fn chosen(fields: &Fields) -> String {
    let mut out = form_urlencoded::Serializer::new(String::new());
    for name in ["agent", "version"] {
        if let Some(value) = fields.text(name) {
            out.append_pair(name, value);
        }
    }
    out.finish()
}

fn not_replayed(failed: NotReplayed) -> Result<Wrong, Fault> {
    if let NotReplayed::Reject(Reject::Failed(error)) = failed {
        return Err(error.into());
    }
    Ok(format!("It was not replayed: {}", Error::from(failed).message()).into())
}
