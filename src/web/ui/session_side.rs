//! What goes with a transcript, and stays true beside it: the way from the deliveries to the callbacks,
//! effects in doubt, and the forms of whoever may change something.

use askama::Template;
use axum::{
    extract::{Path, State},
    response::{IntoResponse, Redirect, Response},
};
use serde_json::json;

use super::{
    super::{App, auth::Actor, input::At, managed},
    confirm::Confirm,
    fault::Fault,
    guard::{Changer, Fields, Posted, Visitor},
    page as rendered,
    place::{self, done},
    session_way::{Way, way},
    view::{Markup, Moment, Shell},
};
use crate::{
    clock::Timestamp,
    domain::{
        effect::EffectStatus,
        session::{Session, Status},
        text::printable,
    },
    id::{EventId, OutgoingId, SessionId},
    store::{self, EffectFilter, Settlement},
};

/// Effects in doubt beside a transcript; all are in *Needs you*.
const DOUBTS_MAX: usize = 20;

#[derive(Template)]
#[template(path = "session_side.html", blocks = ["live"])]
struct Side {
    id: String,
    doubts: Vec<Doubt>,
    way: Way,
    csrf: Option<String>,
    is_archived: bool,
    is_at_rest: bool,
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
    query: &Fields,
    now: Timestamp,
) -> Result<Markup, Fault> {
    Markup::render(&read(app, visitor, session, query, now).await?)
}

/// What of it changes, for a page that is open.
pub(super) async fn fragment(
    app: &App,
    visitor: &Visitor,
    session: &Session,
    query: &Fields,
    now: Timestamp,
) -> Result<Response, Fault> {
    rendered(&read(app, visitor, session, query, now).await?.as_live())
}

async fn read(
    app: &App,
    visitor: &Visitor,
    session: &Session,
    query: &Fields,
    now: Timestamp,
) -> Result<Side, Fault> {
    let id = &session.id;
    let filter = EffectFilter {
        session_id: Some(id.clone()),
        status: Some(EffectStatus::InDoubt),
        limit: DOUBTS_MAX,
        ..EffectFilter::default()
    };
    let doubts = app.store.effects(filter).await?.data.into_iter().map(|it| Doubt {
        id: it.id.to_string(),
        tool: printable(&it.tool),
        input: printable(&it.input),
        at: Moment::new(it.intended_at, now),
    });
    Ok(Side {
        id: id.to_string(),
        doubts: doubts.collect(),
        way: way(app, session, query.text("way") == Some("all"), now).await?,
        csrf: visitor.may_change.then(|| visitor.csrf.clone()),
        is_archived: session.archived_at.is_some(),
        is_at_rest: matches!(session.status, Status::Idle | Status::Terminated)
            && session.turn_id.is_none(),
    })
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
