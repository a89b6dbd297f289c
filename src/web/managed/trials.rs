//! A source tried out by its owner: a test delivery that this server signs.
//!
//! Invariant: what a trial shows was never a secret or a signature, so nobody can make this server
//! sign for them. A test delivery goes through the front door and is one like any other.

use axum::{Json, Router, extract::State, routing::post};
use base64::{Engine, engine::general_purpose::STANDARD};
use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue};
use serde_json::{Value, json};

use super::sources;
use crate::{
    domain::{Problem, text::first_chars},
    id::{Id, WebhookRequestId},
    ingest::{Draft, Entry, Payload, Reject, Trial, shown_headers},
    web::{
        App,
        error::{Error, Result},
        hooks,
        input::{At, Fields},
        intake,
    },
};

pub(super) fn routes() -> Router<App> {
    Router::new().route("/v1/sources/{id}/test", post(test))
}

/// Headers of one request.
const HEADERS_MAX: usize = 128;

/// Bytes of one header's value.
const VALUE_BYTES_MAX: usize = 16 * 1024;

/// Characters of a body that an answer shows.
const BODY_CHARS_MAX: usize = 20_000;

async fn test(
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
    let entry = sources::entry(&snapshot, &source);
    let entry = entry.ok_or_else(|| Error::not_found("there is no such source"))?;
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
        Ok(answer) => {
            hooks::ring(&app, &answer);
            (202, json!(hooks::shown(&answer, &request_id)))
        }
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
