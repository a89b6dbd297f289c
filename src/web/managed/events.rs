//! A session's events: sent, listed. The stream has a file of its own.

use axum::{
    Json, Router,
    extract::State,
    http::header,
    response::{IntoResponse, Response},
    routing::get,
};
use serde_json::{Value, json};

use crate::{
    clock::Timestamp,
    domain::{
        Problem, content,
        event::{Event, EventBody},
    },
    id::SessionId,
    ingest::new_message_id,
    store::{EventFilter, NewMessage},
    web::{
        App,
        error::{Error, Result},
        input::{At, Fields},
        query::{Query, cursor},
        stream,
    },
};

pub(super) fn routes() -> Router<App> {
    Router::new()
        .route("/v1/sessions/{id}/events", get(list).post(send))
        .route("/v1/sessions/{id}/events/stream", get(stream::open))
}

/// Events in one request.
const EVENTS_MAX: usize = 100;

/// Events on a page, unless the caller says otherwise, and at most. A page of large ones is shorter.
const LIMIT: usize = 1000;

async fn send(
    State(app): State<App>,
    At(id): At<SessionId>,
    mut fields: Fields,
) -> Result<Json<Value>> {
    let events = fields.list("events")?;
    fields.finish()?;
    if events.is_empty() || events.len() > EVENTS_MAX {
        let message = format!("must be a list of 1 to {EVENTS_MAX} events");
        return Err(Problem::new("events", message).into());
    }
    let messages = messages(events, "events", app.store.clock().now())?;
    let waiting_max = app.ingest.bounds.options().waiting_messages_max;
    let waiting_max = i64::try_from(waiting_max).unwrap_or(i64::MAX);
    let sent = app.store.send(&id, messages, waiting_max).await;
    let sent = sent.map_err(Error::missing("session"))?;
    app.ring(&id);
    Ok(Json(json!({"data": sent.iter().map(Event::to_json).collect::<Vec<_>>()})))
}

/// All of the events as messages, or what is wrong with the first one that is not.
pub(super) fn messages(events: Vec<Value>, at: &str, now: Timestamp) -> Result<Vec<NewMessage>> {
    let read = |(n, event)| message(event, &format!("{at}[{n}]"), now);
    Ok(events.into_iter().enumerate().map(read).collect::<Result<Vec<_>, Problem>>()?)
}

fn message(event: Value, at: &str, now: Timestamp) -> Result<NewMessage, Problem> {
    let within =
        |problem: Problem| Problem::new(format!("{at}.{}", problem.field), problem.message);
    let mut fields = Fields::of(event, at)?;
    match fields.required("type", 64).map_err(within)?.as_str() {
        "user.message" => {}
        kind if kind.starts_with("user.") || kind == "system.message" => {
            let message = format!("`{kind}` is not supported by this server, only `user.message`");
            return Err(Problem::new(format!("{at}.type"), message));
        }
        _ => return Err(Problem::new(format!("{at}.type"), "must be `user.message`")),
    }
    let given = fields.take("content").unwrap_or_default();
    let content = content::parse(&given, &format!("{at}.content"))?;
    fields.finish().map_err(within)?;
    let (event_id, private) = new_message_id(now);
    Ok(NewMessage { event_id, body: EventBody::UserMessage { content, origin: None }, private })
}

/// Events that one look reads. A page is put together from several, because any one event may be as
/// large as a body, and ends before its limit when it has grown as large as one.
const LOOK_MAX: usize = 16;

async fn list(State(app): State<App>, At(id): At<SessionId>, query: Query) -> Result<Response> {
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
