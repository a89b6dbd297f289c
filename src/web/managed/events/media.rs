//! Files as the content of messages: what was uploaded is put in the place of its id.
//!
//! Invariant: what a request takes in this way is bounded as a body is, and counts as one. Left out:
//! whether a provider takes such media, which is looked at when the message is read.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde_json::{Value, json};

use crate::{
    domain::Problem,
    id::FileId,
    ingest::Permit,
    store::StoredFile,
    web::{
        App,
        error::{Error, Result},
    },
};

/// Whether anything in these events names a file.
pub(in crate::web::managed) fn names_files(events: &[Value]) -> bool {
    let mut blocks = events.iter().filter_map(|event| event["content"].as_array()).flatten();
    blocks.any(|block| block["source"]["type"] == "file")
}

/// Puts files in the place of sources that name them, in messages; `at` is where the events stand.
pub(in crate::web::managed) async fn inline(
    app: &App,
    events: &mut [Value],
    at: &str,
) -> Result<Permit> {
    let mut permit = Permit::default();
    let mut left = app.ingest.bounds.options().body_bytes_max;
    for (n, event) in events.iter_mut().enumerate() {
        if event["type"] != "user.message" {
            continue;
        }
        let blocks = event.get_mut("content").and_then(Value::as_array_mut);
        for (m, block) in blocks.into_iter().flatten().enumerate() {
            let at = format!("{at}[{n}].content[{m}].source");
            let is_document = block["type"] == "document";
            let Some(source) = block.get_mut("source") else { continue };
            if source["type"] == "file" {
                *source = media(app, (source, is_document), &at, &mut left, &mut permit).await?;
            }
        }
    }
    Ok(permit)
}

async fn media(
    app: &App,
    (source, is_document): (&Value, bool),
    at: &str,
    left: &mut usize,
    permit: &mut Permit,
) -> Result<Value> {
    let place = format!("{at}.file_id");
    let known = |key: &String| ["type", "file_id"].contains(&key.as_str());
    if source.as_object().is_none_or(|map| !map.keys().all(known)) {
        return Err(Problem::new(at, "must be {\"type\": \"file\", \"file_id\"}").into());
    }
    let id = source["file_id"].as_str().ok_or_else(|| Problem::new(&place, "is required"))?;
    let id: FileId = id.parse().map_err(|error| Problem::new(&place, format!("is {error}")))?;
    let StoredFile { info, content, n_pieces } =
        app.store.file(&id).await.map_err(Error::missing("file"))?;
    if info.expires_at.is_some_and(|at| at <= app.store.clock().now()) {
        return Err(Problem::new(place, "has expired, and its bytes are gone").into());
    }
    let size = usize::try_from(info.size_bytes).unwrap_or(usize::MAX);
    *left = left.checked_sub(size.saturating_add(size / 2)).ok_or_else(|| {
        let message = "is too large: what a request has may come to `limits.body_bytes_max`";
        Problem::new(&place, message)
    })?;
    app.ingest.bounds.reserve(permit, size.saturating_mul(3))?;
    let mut bytes = Vec::with_capacity(size);
    for n in 0..n_pieces {
        let piece = app.store.piece(&content, n).await.map_err(Error::missing("file"))?;
        bytes.extend_from_slice(&piece);
    }
    // What fits no block of its kind is refused like any other media.
    if !is_document || info.mime_type != "text/plain" {
        let data = STANDARD.encode(&bytes);
        return Ok(json!({"type": "base64", "media_type": info.mime_type, "data": data}));
    }
    let text = String::from_utf8(bytes).map_err(|_| Problem::new(place, "is no UTF-8"))?;
    Ok(json!({"type": "text", "media_type": "text/plain", "data": text}))
}
