//! Deliveries as they are looked at: what came, what was decided, what became of it.

use axum::{
    Json,
    extract::State,
    http::header,
    response::{IntoResponse, Response},
};
use serde_json::{Value, json};

use super::{LIMIT, sources};
use crate::{
    domain::{
        Problem,
        delivery::{Delivery, Outcome, Status},
    },
    id::DeliveryId,
    store::{Attempt, DeliveryFilter},
    web::{
        App,
        auth::Actor,
        error::{Error, Result},
        input::At,
        query::{Query, page, whole},
        routes::{Routes, Success, answers, lists, succeeds},
    },
};

pub(super) fn routes() -> Routes {
    const LIST: &[&str] = &[
        "source",
        "delivery_status",
        "outcome",
        "session_id",
        "event_type",
        "received_at",
        "replay_of",
        "order",
        "limit",
        "page",
    ];
    Routes::of("deliveries")
        .get("/v1/deliveries", list, lists("Delivery", LIST, "Lists deliveries, newest first."))
        .get(
            "/v1/deliveries/{id}",
            retrieve,
            answers("Delivery", "Shows a delivery and its headers."),
        )
        .delete(
            "/v1/deliveries/{id}",
            erase,
            answers("Delivery", "Erases body and message; that it came stays known.").or(&[409]),
        )
        .get(
            "/v1/deliveries/{id}/body",
            body,
            succeeds(Success::Bytes, "Downloads the body as it came."),
        )
        .get(
            "/v1/deliveries/{id}/attempts",
            attempts,
            lists("Attempt", &[], "Lists the requests that were this delivery."),
        )
}

async fn list(State(app): State<App>, query: Query) -> Result<Json<Value>> {
    let source = match query.text("source") {
        None => None,
        Some(name) => Some(
            sources::find(&app, name)
                .await?
                .ok_or_else(|| Problem::new("source", "must be the name or id of a source"))?,
        ),
    };
    let wanted = Outcome::ALL.map(Outcome::as_str).join(", ");
    let newest_first = query.newest_first(true)?;
    let list = if newest_first { "deliveries" } else { "deliveries.asc" };
    let filter = DeliveryFilter {
        source_id: source.map(|source| source.id),
        status: query.word("status", Status::parse, "accepted, filtered or held")?,
        outcome: query.word("outcome", Outcome::parse, &format!("one of {wanted}"))?,
        session_id: query.get("session_id")?,
        event_type: query.text("event_type").map(str::to_owned),
        received: query.range("received_at")?,
        replay_of: query.get("replay_of")?,
        oldest_first: !newest_first,
        cursor: query.page(list)?,
        limit: query.limit(LIMIT.0, LIMIT.1)?,
        ..DeliveryFilter::default()
    };
    Ok(page(list, app.store.deliveries(filter).await?, Delivery::to_json))
}

async fn retrieve(State(app): State<App>, At(id): At<DeliveryId>) -> Result<Json<Value>> {
    let delivery = app.store.delivery(&id).await.map_err(Error::missing("delivery"))?;
    Ok(Json(delivery.to_json_with_headers()))
}

/// The bytes as they came. A browser saves them: whatever a sender wrote must not run as a page of
/// this server.
pub(in crate::web) async fn body(
    State(app): State<App>,
    At(id): At<DeliveryId>,
) -> Result<Response> {
    let stored = app.store.delivery_body(&id).await;
    let stored = stored.map_err(Error::missing("body of this delivery"))?;
    let kind = stored.content_type.as_deref().unwrap_or_default().to_ascii_lowercase();
    let is_text = kind.starts_with("text/") || kind.contains("json");
    let content_type = if is_text && std::str::from_utf8(&stored.bytes).is_ok() {
        "text/plain; charset=utf-8"
    } else {
        "application/octet-stream"
    };
    let headers = [
        (header::CONTENT_TYPE, content_type.to_owned()),
        (header::CONTENT_DISPOSITION, format!("attachment; filename=\"{id}\"")),
        (header::CONTENT_SECURITY_POLICY, "sandbox; default-src 'none'".to_owned()),
    ];
    Ok((headers, stored.bytes).into_response())
}

async fn attempts(State(app): State<App>, At(id): At<DeliveryId>) -> Result<Json<Value>> {
    let attempts = app.store.attempts(&id).await.map_err(Error::missing("delivery"))?;
    let show = |attempt: &Attempt| {
        json!({
            "n": attempt.n,
            "type": "attempt",
            "request_id": attempt.request_id,
            "received_at": attempt.received_at,
        })
    };
    Ok(whole(attempts.iter().map(show).collect()))
}

async fn erase(
    State(app): State<App>,
    actor: Actor,
    At(id): At<DeliveryId>,
) -> Result<Json<Value>> {
    let change = actor.change("delivery.erase", &id, json!({}));
    let delivery = app.store.erase_delivery(&id, change).await;
    Ok(Json(delivery.map_err(Error::missing("delivery"))?.to_json()))
}
