//! Reading a request's body, within the bounds of the receive path.
//!
//! Room for the length that a known caller declares is taken before the first byte is read, room for
//! any other body as it comes: a declared length costs nobody anything. Nobody waits for room: bodies
//! that wait for each other's would wait for ever.

use std::time::Duration;

use axum::{
    body::Body,
    http::{HeaderMap, header},
};
use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt;

use crate::ingest::{Bounds, Permit, Reject};

/// Room is taken in steps of at least this many bytes.
const STEP_BYTES: usize = 16 * 1024;

/// The length that a request says its body has.
pub(super) fn declared(headers: &HeaderMap) -> Option<usize> {
    let bytes: u64 = headers.get(header::CONTENT_LENGTH)?.to_str().ok()?.parse().ok()?;
    Some(usize::try_from(bytes).unwrap_or(usize::MAX))
}

/// The whole body as it came, and the room that it takes.
pub(super) async fn read(
    bounds: &Bounds,
    declared: Option<usize>,
    body: Body,
    mut permit: Permit,
) -> Result<(Bytes, Permit), Reject> {
    let bytes_max = bounds.bytes_max(&permit);
    if declared.is_some_and(|bytes| bytes > bytes_max) {
        return Err(Reject::TooLarge { bytes_max });
    }
    let room = declared.filter(|_| permit.is_verified()).unwrap_or(0);
    bounds.reserve(&mut permit, room)?;
    let seconds = Duration::from_secs(bounds.seconds(&permit));
    let all = collect(bounds, &mut permit, room, body);
    match tokio::time::timeout(seconds, all).await {
        Ok(bytes) => Ok((bytes?, permit)),
        Err(_) => Err(Reject::BodyIncomplete("the body did not arrive in time")),
    }
}

async fn collect(
    bounds: &Bounds,
    permit: &mut Permit,
    mut room: usize,
    mut body: Body,
) -> Result<Bytes, Reject> {
    let bytes_max = bounds.bytes_max(permit);
    let mut all = BytesMut::with_capacity(room);
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|_| Reject::BodyIncomplete("the body broke off"))?;
        // Trailers say nothing that anybody here wants to know.
        let Ok(data) = frame.into_data() else { continue };
        let total = all.len() + data.len();
        if total > bytes_max {
            return Err(Reject::TooLarge { bytes_max });
        }
        if total > room {
            let more = (total - room).max(STEP_BYTES);
            bounds.reserve(permit, more)?;
            room += more;
        }
        all.extend_from_slice(&data);
    }
    Ok(all.freeze())
}
