//! Requests for a delivery that is known already.
//!
//! Invariant: they change nothing but the count of attempts, except where a source wants a delivery
//! that failed to run again; that second message names the first one's delivery and is marked.

use super::{
    Accepted, Dispatch, MessageBody, NewDelivery, One, Refused, Route, Sessions, Verdict,
    inbox_row, join,
};
use crate::{
    clock::Timestamp,
    domain::event::EventBody,
    id::{DeliveryId, Id, SessionId},
    store::{
        Body, Error, Result, Store, chunks,
        driver::{Tx, Value, params},
        queue,
    },
};

/// A further request for a delivery that is known: counted, answered with the first one's session,
/// and nothing is started, unless the source wants a failed one tried again.
pub(super) fn repeat(
    tx: &mut Tx<'_>,
    delivery: &NewDelivery,
    sessions: &Sessions<'_>,
    now: Timestamp,
    inbox: &mut Vec<Vec<Value<'_>>>,
) -> Result<One> {
    let rerun = match &delivery.route {
        // One that failed only since this began is not failed for this request.
        Route::To(dispatch) if delivery.rerun_failed => failed_session(tx, delivery)?
            .filter(|session| sessions.is_locked(session))
            .map(|session| (dispatch, session)),
        Route::To(_) | Route::Held { .. } | Route::Filtered { .. } => None,
    };
    let position = match &rerun {
        Some((dispatch, session)) => match join(tx, delivery, dispatch.pace, session, now)? {
            Some(position) => Some(position),
            None => return Ok(Err(Refused::SessionFull)),
        },
        None => None,
    };
    let row = tx.first(
        "update deliveries set n_attempts = n_attempts + 1, \
         outcome = case when $3 = 1 then 'pending' else outcome end \
         where source_id = $1 and dedupe_key = $2 \
         returning id, agent_id, session_id, n_attempts",
        &params![&delivery.source_id, &delivery.identity.key, i64::from(rerun.is_some())],
    )?;
    // Gone again: it was first in this batch and found its session full.
    let Some(mut row) = row else { return Ok(Err(Refused::SessionFull)) };
    let (id, attempt) = (row.id::<DeliveryId>(0)?, row.int(3)?);
    tx.execute(
        "insert into attempts (delivery_id, n, request_id, received_at) values ($1, $2, $3, $4)",
        &params![&id, attempt, &delivery.request_id, delivery.received_at],
    )?;
    if let Body::Chunks(_) = delivery.body {
        chunks::remove(tx, delivery.id.as_str())?;
    }
    let mut verdict = Verdict::Duplicate;
    if let (Some((dispatch, session)), Some(position)) = (&rerun, position) {
        let dispatch = rerun_message(tx, delivery, dispatch, &id, attempt)?;
        let row = inbox_row(session, position, delivery, &dispatch, &id);
        inbox.push(row.into_iter().map(Value::into_owned).collect());
        verdict = Verdict::Accepted;
    }
    let (agent_id, session_id) = (row.id_or_null(1)?, row.id_or_null(2)?);
    Ok(Ok(Accepted { verdict, delivery_id: id, agent_id, session_id, attempt }))
}

/// The message of a delivery that runs again: it names the delivery that is stored, which is the first
/// one, and is marked.
fn rerun_message(
    tx: &mut Tx<'_>,
    delivery: &NewDelivery,
    dispatch: &Dispatch,
    first: &DeliveryId,
    attempt: i64,
) -> Result<Dispatch> {
    let mut dispatch = dispatch.clone();
    let (text, n_chunks) = match std::mem::replace(&mut dispatch.message, MessageBody::Chunks(0)) {
        MessageBody::Inline(text) => (text, 0),
        // The payload of this request, which need not be the one that is stored.
        MessageBody::Framed(framed) => match &delivery.body {
            Body::Inline(bytes) => {
                let payload = std::str::from_utf8(bytes).map_err(Error::corrupt)?;
                (framed.around(payload, &delivery.origin(&framed)), 0)
            }
            Body::Chunks(_) => return Err(Error::Bug("a large payload in a frame")),
        },
        MessageBody::Chunks(n) => (String::new(), n),
    };
    let mut body = queue::read_body(tx, &dispatch.event_id, text, n_chunks)?;
    if let EventBody::UserMessage { origin: Some(origin), .. } = &mut body {
        origin.delivery_id = first.clone();
        origin.rerun = Some(attempt);
    }
    let text = body.to_text();
    dispatch.message = if n_chunks == 0 && !Store::is_large(text.len()) {
        MessageBody::Inline(text)
    } else {
        let owner = dispatch.event_id.as_str();
        chunks::remove(tx, owner)?;
        MessageBody::Chunks(chunks::write(tx, owner, text.into(), delivery.received_at)?)
    };
    Ok(dispatch)
}

/// The open session of a delivery that failed before. One that was erased stays as it is.
pub(super) fn failed_session(tx: &mut Tx<'_>, delivery: &NewDelivery) -> Result<Option<SessionId>> {
    let row = tx.first(
        "select s.id from deliveries d join sessions s on s.id = d.session_id \
         where d.source_id = $1 and d.dedupe_key = $2 and d.outcome = 'failed' \
         and d.erased_at is null \
         and s.archived_at is null and s.status <> 'terminated'",
        &params![&delivery.source_id, &delivery.identity.key],
    )?;
    row.map(|mut row| row.id(0)).transpose()
}
