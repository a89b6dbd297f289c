//! A session's events: sent, listed. The stream has a file of its own.

mod media;
mod outcome;
mod said;

use axum::{
    Json,
    extract::{FromRequestParts, State},
    http::{header, request::Parts},
    response::{IntoResponse, Response},
};
use ring::digest::{Context, SHA256};
use serde_json::{Value, json};

pub(super) use self::{
    media::{inline, names_files},
    outcome::check_rubrics,
    said::{messages, opening},
};
use crate::{
    clock::Timestamp,
    domain::{Problem, event::Event, model::ModelConfig, text},
    id::SessionId,
    store::{EventFilter, Tried},
    web::{
        App,
        auth::Actor,
        error::{Error, Result},
        input::{At, Fields},
        query::{Query, cursor},
        routes::{Routes, Success, answers, lists, succeeds},
        stream,
    },
};

/// What a list of events may be asked for.
pub(super) const LIST: &[&str] = &["types", "created_at", "order", "limit_1000", "page"];

pub(super) fn routes() -> Routes {
    Routes::of("sessions")
        .get(
            "/v1/sessions/{id}/events",
            list,
            lists("Event", LIST, "Lists the events of a session, oldest first."),
        )
        .post(
            "/v1/sessions/{id}/events",
            send,
            answers(
                "SentEvents",
                "Sends events: messages, answers to calls, an outcome, an interrupt.",
            )
            .takes("SendEvents")
            .or(&[409, 429]),
        )
        .get(
            "/v1/sessions/{id}/events/stream",
            stream::open,
            succeeds(Success::Events, "Streams the events of a session as they come.")
                .query(&["event_deltas"]),
        )
}

/// Events in one request.
const EVENTS_MAX: usize = 100;

/// Events on a page, unless the caller says otherwise, and at most. A page of large ones is shorter.
const LIMIT: usize = 1000;

/// Which try of a request this is, by the client's own count, and when it came: read before its body.
pub(in crate::web) struct Try {
    n: i64,
    came_at: Timestamp,
}

/// How the official SDKs count.
const RETRY_COUNT: &str = "x-stainless-retry-count";

impl FromRequestParts<App> for Try {
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Try> {
        let n = parts.headers.get(RETRY_COUNT).and_then(|value| value.to_str().ok()?.parse().ok());
        // A count that is no number is none.
        let n = n.filter(|n| (0..=1000).contains(n)).unwrap_or(0);
        Ok(Try { n, came_at: app.store.clock().now() })
    }
}

impl Try {
    /// Of somebody who does not count.
    pub(in crate::web) fn only(app: &App) -> Try {
        Try { n: 0, came_at: app.store.clock().now() }
    }

    /// With what tells it from other requests of the session: who made it, and everything in it.
    pub(super) fn of(self, actor: &Actor, events: &[Value]) -> Tried {
        let mut context = Context::new(&SHA256);
        context.update(actor.0.as_bytes());
        for event in events {
            context.update(b"\n");
            context.update(event.to_string().as_bytes());
        }
        let hash = text::hex(context.finish().as_ref());
        Tried { n: self.n, came_at: self.came_at, hash }
    }
}

async fn send(
    State(app): State<App>,
    actor: Actor,
    At(id): At<SessionId>,
    this: Try,
    mut fields: Fields,
) -> Result<Json<Value>> {
    let mut events = fields.list("events")?;
    fields.finish()?;
    if events.is_empty() || events.len() > EVENTS_MAX {
        let message = format!("must be a list of 1 to {EVENTS_MAX} events");
        return Err(Problem::new("events", message).into());
    }
    let tried = this.of(&actor, &events);
    // Nobody's files are read for a session that is not there.
    if names_files(&events) {
        app.store.session(&id).await.map_err(Error::missing("session"))?;
    }
    let _permit = inline(&app, &mut events, "events").await?;
    let sent = say(&app, actor, &id, events, Some(tried)).await?;
    Ok(Json(json!({"data": sent.iter().map(Event::to_json).collect::<Vec<_>>()})))
}

/// Says events in a session, as a request has them. Answers them as they wait.
pub(in crate::web) async fn say(
    app: &App,
    actor: Actor,
    id: &SessionId,
    events: Vec<Value>,
    tried: Option<Tried>,
) -> Result<Vec<Event>> {
    let said = said::read_all(id, events, app.store.clock().now())?;
    if said::has_system(&said) {
        check_model(app, id).await?;
    }
    let waiting_max = app.ingest.bounds.options().waiting_messages_max;
    let waiting_max = i64::try_from(waiting_max).unwrap_or(i64::MAX);
    let sent = app.store.say_once(id, said, waiting_max, actor.0, tried).await;
    let sent = sent.map_err(Error::missing("session"))?;
    app.ring(id);
    Ok(sent)
}

/// Not every model takes an operator's word in the middle of a conversation.
async fn check_model(app: &App, id: &SessionId) -> Result<()> {
    let session = app.store.session(id).await.map_err(Error::missing("session"))?;
    takes_system(&session.agent.model)
}

pub(super) fn takes_system(model: &ModelConfig) -> Result<()> {
    if model.takes_system_messages() {
        return Ok(());
    }
    let message = format!(
        "the model `{}` takes no `system.message`: send it as a part of the `user.message`, or use \
         an agent with another model",
        model.id
    );
    Err(Error::invalid(message).with_code("model_does_not_support_mid_conversation_system"))
}

/// Events that one look reads. A page is put together from several, because any one event may be as
/// large as a body, and ends before its limit when it has grown as large as one.
const LOOK_MAX: usize = 16;

pub(super) async fn list(
    State(app): State<App>,
    At(id): At<SessionId>,
    query: Query,
) -> Result<Response> {
    let newest_first = query.newest_first(false)?;
    let name = if newest_first { "events.desc" } else { "events.asc" };
    let (after, before) = query.range("created_at")?;
    let limit = query.limit(LIMIT, LIMIT)?;
    let mut filter = EventFilter {
        types: query.list("types").map(str::to_owned).collect(),
        after,
        before,
        newest_first,
        cursor: query.page(name)?,
        limit: limit.min(LOOK_MAX),
    };
    let bytes_max = app.ingest.bounds.options().body_bytes_max;
    let (mut data, mut n_shown) = (String::new(), 0);
    let next = loop {
        let found = app.store.events(&id, filter.clone()).await;
        let found = found.map_err(Error::missing("session"))?;
        for event in &found.data {
            if n_shown > 0 {
                data.push(',');
            }
            data.push_str(&event.to_json().to_string());
            n_shown += 1;
        }
        if found.next.is_none() || n_shown >= limit || data.len() > bytes_max {
            break found.next;
        }
        filter.cursor = found.next;
        filter.limit = LOOK_MAX.min(limit - n_shown);
    };
    let next = json!(next.map(|place| cursor(name, &place)));
    let body = format!("{{\"data\":[{data}],\"next_page\":{next}}}");
    Ok(([(header::CONTENT_TYPE, "application/json")], body).into_response())
}
