//! A turn that waits for somebody: parked without a lease, due again with the answer or when nobody
//! gives one in time.

use std::time::Duration;

use super::{Lease, Wanted, append_rows, count, hold, whole_ms};
use crate::{
    clock::Timestamp,
    domain::{
        budget::Used,
        cost::Spent,
        delivery::Outcome,
        event::{Block, Confirmed, EventBody, NewEvent, StopReason},
    },
    id::{EventId, Id, SessionId, TurnId},
    store::{
        Change, Error, Result, Store, Urgency, audit, budgets, deliveries,
        driver::{Lane, Row, Tx, params},
        outbox::{self, Occasion},
    },
};

/// What a call is denied with, or has for a result, that nobody answered for.
const EXPIRED: &str = "nobody answered in time";

impl Store {
    /// Answers that came and are not in the log yet, journaled in the order in which they were given;
    /// what nobody answered in time is denied, or has no result. With any of them the turn runs again.
    /// `told` is whether the session said that it waits.
    pub async fn take_answers(&self, lease: &Lease, told: bool) -> Result<Vec<NewEvent>> {
        let (lease, at) = (lease.clone(), self.clock.now());
        self.driver
            .transaction(Lane::Work, move |tx| {
                let held = hold(tx, &lease)?;
                let turn = held.turn_id.clone().ok_or(Error::Bug("answers without a turn"))?;
                let now = tx.now()?;
                let rows = tx.query(
                    "select id, wanted, status, event_id, deny_message, fingerprint, result, \
                     told_id, told, by_client from approvals where session_id = $1 and journaled = 0 \
                     and (status <> 'pending' or expires_at <= $2) order by answered_at, nth, id",
                    &params![&lease.session_id, now],
                )?;
                let mut events = Vec::new();
                for row in rows {
                    events.extend(answer(tx, &lease.session_id, row, now, at)?);
                }
                if !events.is_empty() {
                    let results = events.iter().filter(|event| event.body.as_result().is_some());
                    let used = Used { tool_calls: results.count() as i64, ..Used::default() };
                    budgets::settle(tx, &lease.session_id, Some(&turn), &used)?;
                    append_rows(tx, &held, &events, at, if told { "idle" } else { "running" })?;
                    set_waiting(tx, &lease.session_id, &turn, false)?;
                }
                Ok(events)
            })
            .await
    }

    /// Lets the turn wait for whoever has to answer for its calls: last events for now, the lease gone, and
    /// the session due again when the first of them expires, or at once if something came meanwhile.
    pub async fn park(&self, lease: &Lease, events: Vec<NewEvent>, active: Duration) -> Result<()> {
        let (lease, at) = (lease.clone(), self.clock.now());
        self.driver
            .transaction(Lane::Work, move |tx| {
                let held = hold(tx, &lease)?;
                let turn = held.turn_id.clone().ok_or(Error::Bug("waiting without a turn"))?;
                append_rows(tx, &held, &events, at, "idle")?;
                count(tx, &lease, &Spent::default(), active)?;
                let used = Used { ms: whole_ms(active), ..Used::default() };
                budgets::settle(tx, &lease.session_id, Some(&turn), &used)?;
                let now = tx.now()?;
                // The session's row is locked, and so nobody answers from here on.
                let first = tx.first(
                    "select min(case when status = 'pending' then expires_at else $2 end) \
                     from approvals where session_id = $1 and journaled = 0",
                    &params![&lease.session_id, now],
                )?;
                let first = first.map(|mut row| row.time_or_null(0)).transpose()?.flatten();
                let due = match held.urgency >= Urgency::Supersede {
                    true => now,
                    false => first.unwrap_or(now),
                };
                tx.execute(
                    "update sessions set lease_owner = null, lease_until = null, next_at = $2 \
                     where id = $1",
                    &params![&lease.session_id, due],
                )?;
                // Coming back was agreed on, so it does not count as a resumption.
                tx.execute(
                    "update turns set resumes = -1, resumed_seq = $2 where id = $1",
                    &params![&turn, held.next_seq + events.len() as i64],
                )?;
                set_waiting(tx, &lease.session_id, &turn, true)?;
                let calls = events.iter().find_map(|event| match &event.body {
                    EventBody::StatusIdle {
                        stop_reason: StopReason::RequiresAction { event_ids },
                        ..
                    } => Some(&event_ids[..]),
                    _ => None,
                });
                // Without the event it was told before.
                let Some(calls) = calls else { return Ok(()) };
                let occasion = Occasion::NeedsApproval(calls);
                outbox::write(tx, &lease.session_id, &turn, &occasion, at)
            })
            .await
    }
}

/// One answer, given or not, as the log has it.
fn answer(
    tx: &mut Tx<'_>,
    session: &SessionId,
    mut row: Row,
    now: Timestamp,
    at: Timestamp,
) -> Result<Vec<NewEvent>> {
    let (call, status): (EventId, String) = (row.id(0)?, row.text(2)?);
    let wanted = Wanted::parse(&row.text(1)?).ok_or(Error::Bug("an unknown wish"))?;
    let is_expired = status == "pending";
    let id = row.id_or_null(3)?.unwrap_or_else(|| EventId::new(at));
    if is_expired {
        let details = serde_json::json!({"session_id": session});
        let (actor, target) = ("bellpull".to_owned(), call.to_string());
        let action = match wanted {
            Wanted::Confirmation => "approval.expire",
            Wanted::CustomResult | Wanted::ToolResult => "result.expire",
        };
        audit::note_only(tx, &Change { actor, action, target, details }, at)?;
    }
    tx.execute(
        "update approvals set journaled = 1, event_id = $2, result = null, told_id = null, \
         told = null, status = case when status = 'pending' then 'expired' else status end, \
         answered_at = coalesce(answered_at, $3) where id = $1",
        &params![&call, &id, now],
    )?;
    if status == "allow" && row.int(9)? == 1 {
        // The client may make it now, and has as long again to tell what it led to.
        tx.execute(
            "update approvals set wanted = 'tool_result', status = 'pending', event_id = null, \
             answered_at = null, journaled = 0, asked_at = $2, \
             expires_at = $2 + expires_at - asked_at where id = $1",
            &params![&call, now],
        )?;
    }
    let mut events = match (wanted, is_expired) {
        (Wanted::Confirmation, _) => {
            let deny_message = match is_expired {
                true => Some(EXPIRED.to_owned()),
                false => row.text_or_null(4)?,
            };
            let result = if status == "allow" { Confirmed::Allow } else { Confirmed::Deny };
            let body = EventBody::UserToolConfirmation { tool_use_id: call, result, deny_message };
            let private = serde_json::json!({"fingerprint": row.text(5)?});
            vec![NewEvent { id, body, private: Some(private) }]
        }
        (_, true) => {
            let content = vec![Block::text(EXPIRED)];
            vec![NewEvent::new(id, wanted.executor().result(call, content, true))]
        }
        (_, false) => vec![NewEvent::new(id, row.json(6)?)],
    };
    if let Some(id) = row.id_or_null(7)? {
        events.push(NewEvent::new(id, row.json(8)?));
    }
    Ok(events)
}

/// What a turn waits for, its deliveries wait for.
fn set_waiting(tx: &mut Tx<'_>, session: &SessionId, turn: &TurnId, waiting: bool) -> Result<()> {
    let (from, to) = match waiting {
        true => (Outcome::Running, Outcome::Waiting),
        false => (Outcome::Waiting, Outcome::Running),
    };
    let sql = "update turns set status = $3 where id = $1 and status = $2";
    tx.execute(sql, &params![turn, from.as_str(), to.as_str()])?;
    deliveries::settle(tx, session, Some(turn), [from; 2], to)
}
