//! The outbox: messages that left or are about to, and those that were given up.

use axum::{Json, extract::State};
use serde_json::{Value, json};

use super::LIMIT;
use crate::{
    id::{OutgoingId, SessionId},
    store::{Outgoing, OutgoingFilter, OutgoingStatus},
    web::{
        App,
        auth::Actor,
        error::{Error, Result},
        input::{At, Fields},
        query::{Query, page},
        routes::{Routes, answers, lists},
    },
};

pub(super) fn routes() -> Routes {
    const LIST: &[&str] = &["outgoing_status", "session_id", "owner", "limit", "page"];
    Routes::of("callbacks")
        .get("/v1/outbox", list, lists("OutgoingMessage", LIST, "Lists messages that leave."))
        .get("/v1/outbox/{id}", retrieve, answers("OutgoingMessage", "Shows a message."))
        .post(
            "/v1/outbox/{id}/retry",
            retry,
            answers("OutgoingMessage", "Sends a message again that was given up.")
                .optional("Nothing")
                .or(&[409]),
        )
}

async fn list(State(app): State<App>, query: Query) -> Result<Json<Value>> {
    let filter = OutgoingFilter {
        status: query.word("status", OutgoingStatus::parse, "`waiting`, `sent` or `dead`")?,
        session_id: query.get::<SessionId>("session_id")?,
        owner: query.text("owner").map(str::to_owned),
        cursor: query.page("outbox")?,
        limit: query.limit(LIMIT.0, LIMIT.1)?,
        ..OutgoingFilter::default()
    };
    Ok(page("outbox", app.store.outgoing(filter).await?, show))
}

async fn retrieve(State(app): State<App>, At(id): At<OutgoingId>) -> Result<Json<Value>> {
    let message = app.store.outgoing_message(&id).await;
    Ok(Json(show(&message.map_err(Error::missing("message"))?)))
}

/// Sends a message again that was given up, or one that waits for its next attempt now.
async fn retry(
    State(app): State<App>,
    actor: Actor,
    At(id): At<OutgoingId>,
    fields: Fields,
) -> Result<Json<Value>> {
    fields.finish()?;
    let change = actor.change("outbox.retry", &id, json!({}));
    let message = app.store.send_again(&id, change).await.map_err(Error::missing("message"))?;
    app.signals.outgoing();
    Ok(Json(show(&message)))
}

pub(super) fn show(message: &Outgoing) -> Value {
    json!({
        "id": message.id,
        "type": "outgoing_message",
        "kind": message.kind,
        "owner": message.owner,
        "session_id": message.session_id,
        "turn_id": message.turn_id,
        "status": message.status.as_str(),
        "next_attempt_at": message.next_at.filter(|_| !message.is_claimed),
        "attempts": message.n_attempts,
        "last_attempt_at": message.last_attempt_at,
        "last_code": message.last_code,
        "last_error": message.last_error,
        "created_at": message.created_at,
        "ended_at": message.ended_at,
        "body": message.body,
    })
}
