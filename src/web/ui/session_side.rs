//! What goes with a transcript: from the deliveries to what came of them and to the callbacks, effects
//! in doubt, and the forms of whoever may change something.

use askama::Template;
use axum::{
    extract::{Path, State},
    response::{IntoResponse, Redirect, Response},
};
use serde_json::json;

use super::{
    super::{App, auth::Actor, input::At, managed},
    confirm::Confirm,
    deliveries::badge,
    fault::Fault,
    guard::{Changer, Posted, Visitor},
    place::{self, done},
    session::Badge,
    view::{Markup, Moment, Shell, short},
};
use crate::{
    clock::Timestamp,
    domain::{
        effect::EffectStatus,
        session::{Session, Status},
        text::printable,
    },
    id::{EventId, Id, OutgoingId, SessionId},
    store::{
        self, DeliveryFilter, EffectFilter, Outgoing, OutgoingFilter, OutgoingStatus, Settlement,
    },
};

/// Things of one kind beside a transcript; more are on pages of their own, and in the API.
const LIST_MAX: usize = 20;

#[derive(Template)]
#[template(path = "session_side.html")]
struct Side {
    id: String,
    deliveries: Vec<Came>,
    callbacks: Vec<Sent>,
    doubts: Vec<Doubt>,
    csrf: Option<String>,
    is_archived: bool,
    is_at_rest: bool,
}

struct Came {
    id: String,
    short: String,
    badge: Badge,
    event_type: Option<String>,
    at: Moment,
}

struct Sent {
    id: String,
    badge: Badge,
    kind: String,
    n_attempts: i64,
    why: Option<String>,
    may_retry: bool,
    at: Moment,
}

struct Doubt {
    id: String,
    tool: String,
    input: String,
    at: Moment,
}

/// The part of the page, as it is now.
pub(super) async fn side(
    app: &App,
    visitor: &Visitor,
    session: &Session,
    now: Timestamp,
) -> Result<Markup, Fault> {
    let id = &session.id;
    let filter = DeliveryFilter {
        session_id: Some(id.clone()),
        limit: LIST_MAX,
        ..DeliveryFilter::default()
    };
    let deliveries = app.store.deliveries(filter).await?.data.into_iter().map(|it| Came {
        short: short(it.id.as_str()),
        badge: badge(&it),
        event_type: it.event_type.as_deref().map(printable),
        at: Moment::new(it.received_at, now),
        id: it.id.to_string(),
    });
    let filter = OutgoingFilter {
        session_id: Some(id.clone()),
        limit: LIST_MAX,
        ..OutgoingFilter::default()
    };
    let callbacks = app.store.outgoing(filter).await?.data;
    let callbacks = callbacks.iter().map(|it| sent(it, now));
    let filter = EffectFilter {
        session_id: Some(id.clone()),
        status: Some(EffectStatus::InDoubt),
        limit: LIST_MAX,
        ..EffectFilter::default()
    };
    let doubts = app.store.effects(filter).await?.data.into_iter().map(|it| Doubt {
        id: it.id.to_string(),
        tool: printable(&it.tool),
        input: printable(&it.input),
        at: Moment::new(it.intended_at, now),
    });
    let is_archived = session.archived_at.is_some();
    Markup::render(&Side {
        id: id.to_string(),
        deliveries: deliveries.collect(),
        callbacks: callbacks.collect(),
        doubts: doubts.collect(),
        csrf: visitor.may_change.then(|| visitor.csrf.clone()),
        is_archived,
        is_at_rest: matches!(session.status, Status::Idle | Status::Terminated)
            && session.turn_id.is_none(),
    })
}

fn sent(message: &Outgoing, now: Timestamp) -> Sent {
    let (class, word) = match message.status {
        OutgoingStatus::Waiting => ("waiting", "waiting"),
        OutgoingStatus::Sent => ("done", "sent"),
        OutgoingStatus::Dead => ("failed", "given up"),
    };
    let code = message.last_code.map(|code| format!("answered {code}"));
    let why = message.last_error.as_deref().map(printable).or(code);
    Sent {
        id: message.id.to_string(),
        badge: Badge { class, word },
        kind: printable(&message.kind),
        n_attempts: message.n_attempts,
        why: why.filter(|_| message.status != OutgoingStatus::Sent),
        may_retry: message.status == OutgoingStatus::Dead,
        at: Moment::new(message.created_at, now),
    }
}

fn find(id: &str) -> Result<SessionId, Fault> {
    id.parse().map_err(|_| Fault::not_found("There is no such session."))
}

/// Whoever may change something, and the session that it is about.
fn begin(id: &str, posted: &Posted) -> Result<(SessionId, Actor), Fault> {
    Ok((find(id)?, Actor(posted.visitor.name.clone())))
}

fn back(id: &SessionId, part: &str) -> Response {
    Redirect::to(&format!("/sessions/{id}{part}")).into_response()
}

/// Writes a message into the session.
pub(super) async fn say(
    State(app): State<App>,
    Path(id): Path<String>,
    posted: Posted,
) -> Result<Response, Fault> {
    let (id, actor) = begin(&id, &posted)?;
    let text = posted.form.fields.text("message").map(str::trim).filter(|it| !it.is_empty());
    let text = text.ok_or_else(|| Fault::invalid("Write something first."))?;
    let content = json!([{"type": "text", "text": text}]);
    let event = json!({"type": "user.message", "content": content});
    managed::events::say(&app, actor, &id, vec![event], None).await?;
    Ok(back(&id, "#end"))
}

/// Says what became of an effect that nobody knows the outcome of.
pub(super) async fn settle(
    State(app): State<App>,
    Path(id): Path<String>,
    posted: Posted,
) -> Result<Response, Fault> {
    let (id, actor) = begin(&id, &posted)?;
    let fields = &posted.form.fields;
    let effect: Option<EventId> = fields.text("effect").and_then(|it| it.parse().ok());
    let effect = effect.ok_or_else(|| Fault::not_found("There is no such effect."))?;
    let status = match fields.text("status") {
        Some("done") => EffectStatus::Done,
        Some("failed") => EffectStatus::Failed,
        _ => return Err(Fault::invalid("An effect was done, or it was not.")),
    };
    if app.store.effect(&effect).await?.session_id != id {
        return Err(Fault::not_found("There is no such effect in this session."));
    }
    let note = fields.text("note").map(|note| note.chars().take(2000).collect::<String>());
    let details = json!({"status": status.as_str(), "note": note});
    let change = actor.change("effect.settle", &effect, details);
    app.store.settle_effect(&effect, Settlement { status, note }, change).await?;
    app.signals.changed(&id);
    Ok(match fields.text("back") {
        Some(_) => done(place::back(fields, "/needs"), "settled"),
        None => back(&id, "#doubts"),
    })
}

/// Has a callback sent again that was given up.
pub(super) async fn send_again(
    State(app): State<App>,
    Path(id): Path<String>,
    posted: Posted,
) -> Result<Response, Fault> {
    let message: OutgoingId =
        id.parse().map_err(|_| Fault::not_found("There is no such callback."))?;
    let change = posted.visitor.change("outbox.retry", &message, json!({}));
    app.store.send_again(&message, change).await?;
    app.signals.outgoing();
    Ok(done(place::back(&posted.form.fields, "/needs"), "again"))
}

pub(super) async fn archive(
    State(app): State<App>,
    Path(id): Path<String>,
    posted: Posted,
) -> Result<Response, Fault> {
    let (id, actor) = begin(&id, &posted)?;
    let _ = managed::sessions::archive(State(app), actor, At(id.clone())).await?;
    Ok(back(&id, ""))
}

/// Asks whether it is meant.
pub(super) async fn confirm_delete(
    State(app): State<App>,
    Changer(visitor): Changer,
    Path(id): Path<String>,
) -> Result<Response, Fault> {
    let session = app.store.session(&find(&id)?).await;
    let session = session.map_err(|error| match error {
        store::Error::NotFound => Fault::not_found("There is no such session."),
        error => error.into(),
    })?;
    let id = &session.id;
    Confirm {
        shell: Shell::new(visitor, "sessions", app.store.clock().now()),
        title: format!("Delete the session {}?", super::session::title(&session)),
        text: "Its transcript, its files and its place in the list are gone for good. Its deliveries stay, \
               and can be replayed as long as their bodies are kept.",
        action: format!("/sessions/{id}/delete"),
        button: "Delete for good",
        back: format!("/sessions/{id}"),
    }
    .page()
}

pub(super) async fn delete(
    State(app): State<App>,
    Path(id): Path<String>,
    posted: Posted,
) -> Result<Response, Fault> {
    let (id, actor) = begin(&id, &posted)?;
    let _ = managed::sessions::delete(State(app), actor, At(id)).await?;
    Ok(Redirect::to("/sessions").into_response())
}
