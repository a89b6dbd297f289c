//! Sessions as they are changed and archived by whoever looks after them.
//!
//! What is written here is about the session itself and in no turn: the lock on its row keeps a worker
//! from writing meanwhile. Invariants: a change and the event that tells of it are one commit; nobody
//! works on a session that is archived.

use super::{Store, budgets, read};
use crate::{
    domain::{
        budget::Budgets,
        event::{EventBody, NewEvent},
        session::{Session, SessionPatch, Status},
        turn::TurnEnd,
    },
    id::{EventId, Id, SessionId, TurnId},
    store::{
        Change, Error, Result, audit,
        driver::{Lane, Tx, params},
        outcomes,
        queue::{append_rows, close_turn, hold_session},
    },
};

/// What a session's row says about work.
pub(super) struct Rest {
    pub(super) is_archived: bool,
    pub(super) status: String,
    has_lease: bool,
    /// A message waits for a turn.
    has_mail: bool,
    /// The turn that waits for somebody, or that somebody has at work.
    pub(super) turn: Option<TurnId>,
}

impl Rest {
    /// Whether a turn is under way, or was promised to a message. One that waits for an answer rests.
    pub(super) fn is_busy(&self) -> bool {
        let status = [Status::Running.as_str(), Status::Rescheduling.as_str()];
        self.has_lease || self.has_mail || status.contains(&self.status.as_str())
    }
}

/// Looks at a session, whose row is locked from here on.
pub(super) fn look(tx: &mut Tx<'_>, id: &SessionId) -> Result<Rest> {
    let sql = "select archived_at, status, lease_owner, inbox_given - inbox_taken, turn_id \
               from sessions where id = $1 {wait}";
    let mut row = tx.first(sql, &params![id])?.ok_or(Error::NotFound)?;
    Ok(Rest {
        is_archived: row.int_or_null(0)?.is_some(),
        status: row.text(1)?,
        has_lease: row.text_or_null(2)?.is_some(),
        has_mail: row.int(3)? > 0,
        turn: row.id_or_null(4)?,
    })
}

/// A session comes to its end once: the event that says so is named after it.
fn last_event(session: &SessionId) -> EventId {
    let suffix = session.as_str().strip_prefix(SessionId::PREFIX).unwrap_or_default();
    format!("{}{suffix}", EventId::PREFIX).parse().expect("made of an id")
}

impl Store {
    /// Changes a session, and tells so in its log; a change of nothing changes nothing.
    /// [`Error::Conflict`] when it is archived or terminated, [`Error::Invalid`] when the change
    /// cannot be, as that of the agent while it works.
    pub async fn update_session(&self, id: &SessionId, patch: SessionPatch) -> Result<Session> {
        let (id, at) = (id.clone(), self.clock.now());
        self.driver
            .transaction(Lane::Work, move |tx| {
                let rest = look(tx, &id)?;
                if rest.is_archived || rest.status == Status::Terminated.as_str() {
                    let why = "the session is archived or terminated and cannot be changed";
                    return Err(Error::Conflict(why.to_owned()));
                }
                if patch.changes_agent() && rest.is_busy() {
                    let message = "cannot be changed while the session is running";
                    return Err(Error::Invalid(crate::domain::Problem::new("agent", message)));
                }
                let mut session = read(tx, &id)?;
                let before = (session.budget, session.agent.clone());
                let Some(changed) = patch.apply(&mut session).map_err(Error::Invalid)? else {
                    return Ok(session);
                };
                tx.execute(
                    "update sessions set title = $2, metadata = $3, updated_at = $4, \
                     overrides = coalesce($5, overrides) where id = $1",
                    &params![
                        &id,
                        session.title.as_ref(),
                        super::super::to_json(&session.metadata),
                        at,
                        (session.agent != before.1).then(|| super::super::to_json(&session.agent)),
                    ],
                )?;
                if session.budget != before.0 {
                    let limits = Budgets { session: session.budget, ..Budgets::default() };
                    budgets::keep(tx, id.as_str(), &limits)?;
                }
                let event = NewEvent::new(EventId::new(at), EventBody::SessionUpdated { changed });
                let held = hold_session(tx, &id)?;
                append_rows(tx, &held, &[event], at, &rest.status)?;
                read(tx, &id)
            })
            .await
    }

    /// Read-only from now on, and at its end. A turn that waits for somebody is over. Archived again it
    /// stays as it is. [`Error::Conflict`] while there is work: a turn, or a message that was promised
    /// one.
    pub async fn archive_session(&self, id: &SessionId, change: Change) -> Result<Session> {
        let (id, at) = (id.clone(), self.clock.now());
        self.driver
            .transaction(Lane::Work, move |tx| {
                let rest = look(tx, &id)?;
                if rest.is_archived {
                    return read(tx, &id);
                }
                if rest.is_busy() {
                    return Err(Error::Conflict("cannot archive while running".to_owned()));
                }
                let held = hold_session(tx, &id)?;
                if rest.status != Status::Terminated.as_str() {
                    let mut events = Vec::from_iter(held.stopped_by());
                    events.extend(outcomes::given_up(tx, &id, at)?);
                    events.push(NewEvent::new(last_event(&id), EventBody::StatusTerminated));
                    append_rows(tx, &held, &events, at, Status::Terminated.as_str())?;
                }
                if let Some(turn) = &rest.turn {
                    close_turn(tx, &id, turn, TurnEnd::Interrupted, at)?;
                }
                let sql = "update sessions set archived_at = $2, updated_at = $2, next_at = null, \
                           parked_at = null where id = $1";
                tx.execute(sql, &params![&id, at])?;
                audit::note_only(tx, &change, at)?;
                read(tx, &id)
            })
            .await
    }
}
