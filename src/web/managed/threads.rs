//! The threads of a session: the primary one, which is the session itself under another id.
//!
//! It cannot be archived alone. Left out: other threads; there are none.

use axum::{Json, extract::State, http::HeaderMap, response::Response};
use serde_json::{Value, json};

use super::events;
use crate::{
    domain::session::{Session, Status},
    id::{SessionId, ThreadId},
    web::{
        App,
        error::{Error, Result},
        input::{At, Within},
        query::Query,
        routes::{Routes, Success, answers, lists, succeeds},
        stream,
    },
};

pub(super) fn routes() -> Routes {
    const ONE: &str = "/v1/sessions/{id}/threads/{thread}";
    Routes::of("sessions")
        .get(
            "/v1/sessions/{id}/threads",
            list,
            lists(
                "Thread",
                &["statuses", "limit_1000", "page"],
                "Lists the one thread of a session.",
            ),
        )
        .get(ONE, retrieve, answers("Thread", "Shows a thread."))
        .post(
            "/v1/sessions/{id}/threads/{thread}/archive",
            archive,
            answers("Thread", "Refused before the session is archived, and then without effect.")
                .or(&[400]),
        )
        .get(
            "/v1/sessions/{id}/threads/{thread}/events",
            events_of,
            lists("Event", events::LIST, "Lists the events of a thread."),
        )
        .get(
            "/v1/sessions/{id}/threads/{thread}/stream",
            stream_of,
            succeeds(Success::Events, "Streams the events of a thread.").query(&["event_deltas"]),
        )
}

/// Threads on a page, unless the caller says otherwise, and at most.
const LIMIT: usize = 1000;

/// The session of a thread, if the thread is its.
async fn find(app: &App, session: &SessionId, thread: &ThreadId) -> Result<Session> {
    let session = app.store.session(session).await.map_err(Error::missing("session"))?;
    match session.primary_thread() == *thread {
        true => Ok(session),
        false => Err(Error::not_found("there is no such thread in this session")),
    }
}

async fn list(State(app): State<App>, At(id): At<SessionId>, query: Query) -> Result<Json<Value>> {
    let wanted = "idle, running, rescheduling or terminated";
    let statuses = query.words("statuses", Status::parse, wanted)?;
    query.limit(LIMIT, LIMIT)?;
    // There is one page, and so no cursor that leads to another.
    query.page::<SessionId>("threads")?;
    let session = app.store.session(&id).await.map_err(Error::missing("session"))?;
    let is_wanted = statuses.is_empty() || statuses.contains(&session.status());
    let thread = is_wanted.then(|| session.thread_json(app.store.clock().now()));
    let data: Vec<Value> = thread.into_iter().collect();
    Ok(Json(json!({"data": data, "next_page": null})))
}

async fn retrieve(
    State(app): State<App>,
    Within(id, thread): Within<SessionId, ThreadId>,
) -> Result<Json<Value>> {
    let session = find(&app, &id, &thread).await?;
    Ok(Json(session.thread_json(app.store.clock().now())))
}

async fn archive(
    State(app): State<App>,
    Within(id, thread): Within<SessionId, ThreadId>,
) -> Result<Json<Value>> {
    let session = find(&app, &id, &thread).await?;
    if session.archived_at.is_some() {
        return Ok(Json(session.thread_json(app.store.clock().now())));
    }
    Err(Error::invalid("the primary thread is archived with its session, and not alone"))
}

async fn events_of(
    State(app): State<App>,
    Within(id, thread): Within<SessionId, ThreadId>,
    query: Query,
) -> Result<Response> {
    let session = find(&app, &id, &thread).await?;
    events::list(State(app), At(session.id), query).await
}

/// The stream of the session's one thread, which is the session's.
async fn stream_of(
    State(app): State<App>,
    Within(id, thread): Within<SessionId, ThreadId>,
    query: Query,
    headers: HeaderMap,
) -> Result<Response> {
    let session = find(&app, &id, &thread).await?;
    stream::open(State(app), At(session.id), query, headers).await
}
