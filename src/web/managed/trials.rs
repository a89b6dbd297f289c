//! A source tried out by its owner: a test delivery that this server signs, and why a request would
//! be let in or not.
//!
//! Invariant: what a trial shows was never a secret or a signature, so nobody can make this server
//! sign for them. A test delivery goes through the front door and is one like any other.

use axum::{Json, extract::State};
use base64::{Engine, engine::general_purpose::STANDARD};
use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method};
use serde_json::{Value, json};

use super::sources;
use crate::{
    domain::{Problem, secret::SecretName, text::first_chars},
    id::{Id, WebhookRequestId},
    ingest::{Captured, Destination, Draft, Entry, Payload, Reject, Taken, Trial, shown_headers},
    web::{
        App,
        error::{Error, Result},
        hooks,
        input::{At, Fields},
        intake,
        routes::{Routes, answers},
    },
};

pub(super) fn routes() -> Routes {
    Routes::of("sources")
        .post(
            "/v1/sources/{id}/test",
            test,
            answers("SourceTest", "Signs a delivery as the sender would, and takes it in.")
                .optional("SourceTestRequest")
                .or(&[409]),
        )
        .post(
            "/v1/sources/{id}/verify",
            verify,
            answers(
                "SourceVerification",
                "Says why a request that was kept would be let in or not.",
            )
            .optional("SourceVerifyRequest")
            .or(&[409]),
        )
}

/// Headers of one request.
const HEADERS_MAX: usize = 128;

/// Bytes of one header's value.
const VALUE_BYTES_MAX: usize = 16 * 1024;

/// Characters of a body that an answer shows.
const BODY_CHARS_MAX: usize = 20_000;

pub(in crate::web) async fn test(
    State(app): State<App>,
    At(name): At<String>,
    mut fields: Fields,
) -> Result<Json<Value>> {
    let headers = headers(&mut fields)?;
    let body = body(&mut fields)?;
    let id = fields.text("id", 256)?;
    let id = id.map(|id| value("id", &id)).transpose()?;
    fields.finish()?;
    let source = sources::living(&app, &name).await?;
    let snapshot = app.ingest.registry.snapshot();
    let entry = sources::entry(&snapshot, &source)?;
    let url = app.url(&source.path());
    let signed = app.ingest.trial(entry, url, Trial { headers, body, id });
    let signed = signed.map_err(Error::conflict)?;
    let request_id = WebhookRequestId::new(app.store.clock().now());
    let head = signed.sent.head(entry.endpoint(), request_id.clone());
    let body = signed.sent.body;
    let declared = Some(body.len());
    let read_body = async |permit| {
        intake::read(&app.ingest.bounds, declared, axum::body::Body::from(body), permit).await
    };
    let (status, answer) = match app.ingest.accept(head, read_body).await {
        Ok(Taken::Stored(answer)) => {
            hooks::ring(&app, &answer);
            let status = answer.demanded.map_or(202, |it| it.status);
            (status, json!(hooks::shown(&answer, &request_id)))
        }
        // A body of the caller's that is what the sender asks in a handshake.
        Ok(Taken::Greeted(greeting)) => (greeting.status.as_u16(), Value::Null),
        Err(Reject::Unauthorized | Reject::UnknownName) => (401, Value::Null),
        Err(reject) => return Err(reject.into()),
    };
    Ok(Json(json!({
        "type": "source_test",
        "source": source.name,
        "source_id": source.id,
        "sent": sent(entry, &signed.shown),
        "status": status,
        "answer": answer,
    })))
}

/// Why a request that somebody kept would be let in or not. Needs a key that may change things: it
/// says which secret made a signature.
async fn verify(
    State(app): State<App>,
    At(name): At<String>,
    mut fields: Fields,
) -> Result<Json<Value>> {
    let headers = headers(&mut fields)?;
    let body = body(&mut fields)?.unwrap_or_default();
    let method = match fields.text("method", 16)? {
        None => Method::POST,
        Some(text) => text.parse().map_err(|_| Problem::new("method", "is no method"))?,
    };
    let url = fields.text("url", 8192)?;
    let at = fields.time("at")?.unwrap_or_else(|| app.store.clock().now());
    fields.finish()?;
    let source = sources::living(&app, &name).await?;
    let snapshot = app.ingest.registry.snapshot();
    let entry = sources::entry(&snapshot, &source)?;
    // A path is one of this server, as a captured request has it.
    let url = match url {
        Some(url) if url.starts_with('/') => app.url(&url),
        Some(url) => url,
        None => app.url(&source.path()),
    };
    let captured = Captured { method, url: url.clone(), headers, body };
    let found = app.ingest.explain(&snapshot, entry, captured, at).await;
    let passed = found.passed.as_ref().ok();
    Ok(Json(json!({
        "type": "source_verification",
        "source": source.name,
        "source_id": source.id,
        "at": at,
        "url": url,
        "passes": passed.is_some(),
        "reason": found.passed.as_ref().err(),
        "steps": found.steps,
        "hints": found.hints,
        "secret": passed.and_then(|it| it.secret.as_ref()).map(SecretName::to_json),
        "identity": passed.map(|it| it.identity.to_json()),
        "event_type": passed.and_then(|it| it.event_type.as_ref()),
        "destination": passed.map(|it| destination(&it.destination)),
    })))
}

/// As the answer to the request would say it, with where it would go.
pub(super) fn destination(destination: &Destination) -> Value {
    match destination {
        Destination::NewSession { agent_id } => {
            json!({"status": "accepted", "agent_id": agent_id, "target": "new_session"})
        }
        Destination::Session { agent_id, session_id } => {
            json!({"status": "accepted", "agent_id": agent_id, "target": session_id})
        }
        Destination::Key { agent_id, key } => {
            json!({"status": "accepted", "agent_id": agent_id, "target": {"key": key}})
        }
        Destination::Held { reason } => json!({"status": "held", "reason": reason}),
        Destination::Filtered { reason } => json!({"status": "filtered", "reason": reason}),
    }
}

fn sent(entry: &Entry, shown: &Draft) -> Value {
    let payload = Payload::new(&shown.headers, shown.body.clone());
    let text = payload.text();
    let (body, is_cut) = first_chars(&text, BODY_CHARS_MAX);
    json!({
        "method": shown.method.as_str(),
        "url": shown.url,
        "headers": shown_headers(entry, &shown.headers),
        "body": body,
        "body_cut": is_cut,
    })
}

/// `{"name": "value"}`, or a list of values.
fn headers(fields: &mut Fields) -> Result<HeaderMap, Problem> {
    let wrong = || Problem::new("headers", "must be an object of texts, or of lists of texts");
    let map = match fields.value("headers") {
        None => return Ok(HeaderMap::new()),
        Some(Value::Object(map)) => map,
        Some(_) => return Err(wrong()),
    };
    let mut headers = HeaderMap::new();
    for (name, given) in map {
        let known: HeaderName =
            name.parse().map_err(|_| Problem::new("headers", "has a name that no header has"))?;
        let given = match given {
            Value::Array(list) => list,
            one => vec![one],
        };
        for one in given {
            let text = one.as_str().ok_or_else(wrong)?;
            headers.append(known.clone(), value("headers", text)?);
            if headers.len() > HEADERS_MAX {
                let message = format!("must be {HEADERS_MAX} at most");
                return Err(Problem::new("headers", message));
            }
        }
    }
    Ok(headers)
}

fn value(at: &str, text: &str) -> Result<HeaderValue, Problem> {
    if text.len() > VALUE_BYTES_MAX {
        return Err(Problem::new(at, format!("has more than {VALUE_BYTES_MAX} bytes")));
    }
    HeaderValue::from_str(text)
        .map_err(|_| Problem::new(at, "has a character that cannot stand in a header"))
}

/// A text as it is, JSON written as compactly as it can be, or bytes in base64.
fn body(fields: &mut Fields) -> Result<Option<Bytes>, Problem> {
    let encoded = fields.value("body_base64");
    match (fields.value("body"), encoded) {
        (Some(_), Some(_)) => {
            Err(Problem::new("body_base64", "is given beside `body`: keep one of them"))
        }
        (Some(Value::String(text)), None) => Ok(Some(text.into())),
        (Some(json), None) => Ok(Some(json.to_string().into())),
        (None, Some(encoded)) => {
            let bytes = encoded.as_str().and_then(|text| STANDARD.decode(text).ok());
            let bytes = bytes.ok_or_else(|| Problem::new("body_base64", "must be base64"))?;
            Ok(Some(bytes.into()))
        }
        (None, None) => Ok(None),
    }
}
