//! What people and programs say in a session: messages, answers about calls that wait, and a stop.
//!
//! All of one request is taken or nothing. A message waits in the inbox; an answer and a stop reach
//! the turn that is under way: they stand beside the session's row, which is locked first, and join
//! the log when the worker takes them, which alone gives numbers. A request that repeats another one
//! ([`repeats`]) changes nothing.

mod repeats;

use serde_json::json;

pub use self::repeats::Tried;
pub(super) use self::repeats::prune as prune_said;
pub(super) use self::repeats::{earlier, note as note_answer};
use super::{
    Change, Error, NewMessage, Result, Store, audit, budgets,
    driver::{Lane, Tx, params},
    queue::Wanted,
    sessions::add_messages,
};
use crate::{
    clock::Timestamp,
    domain::{
        Problem,
        event::{Block, Confirmed, DEFINE_OUTCOME, Event, EventBody},
        outcome::outcome_of,
    },
    id::{EventId, SessionId},
};

/// One thing that somebody says.
#[derive(Clone, Debug)]
pub enum Said {
    /// For the model; or, right after one, what the operator tells it with that.
    Message(NewMessage),
    Answer {
        event_id: EventId,
        /// The call that waits.
        call: EventId,
        result: Confirmed,
        deny_message: Option<String>,
    },
    /// What a call led to that the client carried out.
    Result {
        event_id: EventId,
        call: EventId,
        wanted: Wanted,
        content: Vec<Block>,
        is_error: bool,
    },
    /// What the operator tells the model with the result before.
    Told {
        event_id: EventId,
        content: Vec<Block>,
    },
    Interrupt {
        event_id: EventId,
    },
}

impl Said {
    /// As an event that is in no log yet.
    fn event(&self, id: EventId, processed_at: Option<Timestamp>) -> Event {
        let body = match self.clone() {
            Said::Message(message) => match message.body {
                // The one of the request that this one repeats, if it does.
                EventBody::UserDefineOutcome { description, rubric, max_iterations, .. } => {
                    let outcome_id = outcome_of(&id);
                    EventBody::UserDefineOutcome { outcome_id, description, rubric, max_iterations }
                }
                body => body,
            },
            Said::Answer { call, result, deny_message, .. } => {
                EventBody::UserToolConfirmation { tool_use_id: call, result, deny_message }
            }
            Said::Result { call, wanted, content, is_error, .. } => {
                wanted.executor().result(call, content, is_error)
            }
            Said::Told { content, .. } => EventBody::SystemMessage { content },
            Said::Interrupt { .. } => EventBody::UserInterrupt,
        };
        Event { id, seq: None, body, private: None, processed_at }
    }
}

impl Store {
    /// Takes what somebody says in a session, in its order, and answers the events as they wait.
    /// [`Error::Full`] when more than `waiting_max` messages would wait; [`Error::Conflict`] when a
    /// call was answered before.
    pub async fn say(
        &self,
        session: &SessionId,
        said: Vec<Said>,
        waiting_max: i64,
        actor: String,
    ) -> Result<Vec<Event>> {
        self.say_once(session, said, waiting_max, actor, None).await
    }

    /// As [`Store::say`], unless it was said before by another try of the same request: then that
    /// one's answer is given, and nothing changes.
    pub async fn say_once(
        &self,
        session: &SessionId,
        said: Vec<Said>,
        waiting_max: i64,
        actor: String,
        tried: Option<Tried>,
    ) -> Result<Vec<Event>> {
        let (session, at) = (session.clone(), self.clock.now());
        self.driver
            .transaction(Lane::Work, move |tx| {
                let sql = "select status, archived_at, inbox_given - inbox_taken from sessions \
                           where id = $1 {wait}";
                let mut row = tx.first(sql, &params![&session])?.ok_or(Error::NotFound)?;
                if let Some(tried) = &tried
                    && let Some(events) = repeats::answered(tx, &session, tried, &said)?
                {
                    return Ok(events);
                }
                let status = row.text(0)?;
                if row.int_or_null(1)?.is_some() || status == "terminated" {
                    return Err(Error::Conflict(
                        "the session is archived or terminated".to_owned(),
                    ));
                }
                let is_message = |said: &Said| matches!(said, Said::Message(_));
                let n = said.iter().filter(|said| is_message(said)).count();
                if n > 0 && row.int(2)? + n as i64 > waiting_max {
                    return Err(Error::Full(format!(
                        "of a session's messages {waiting_max} may wait \
                         (`limits.waiting_messages_max`); send this when the agent has taken some"
                    )));
                }
                if let Some(n) = said.iter().position(is_message)
                    && status == "idle"
                {
                    budgets::refuse_at_cap(tx, &session, &format!("events[{n}]"))?;
                }
                let mut events = Vec::with_capacity(said.len());
                for n in 0..said.len() {
                    events.push(take(tx, &session, &said, n, &actor, at)?);
                }
                if let Some(tried) = &tried {
                    repeats::remember(tx, &session, tried, &events)?;
                }
                Ok(events)
            })
            .await
    }
}

fn take(
    tx: &mut Tx<'_>,
    session: &SessionId,
    all: &[Said],
    n: usize,
    actor: &str,
    at: Timestamp,
) -> Result<Event> {
    let said = &all[n];
    match said {
        Said::Message(message) => {
            add_messages(tx, session, std::slice::from_ref(message), ("events", n), at)?;
            let is_outcome = message.body.kind() == DEFINE_OUTCOME;
            Ok(said.event(message.event_id.clone(), is_outcome.then_some(at)))
        }
        Said::Answer { event_id, call, result, deny_message } => {
            answer(tx, session, n, (event_id, call), (*result, deny_message.as_ref()), actor, at)?;
            Ok(said.event(event_id.clone(), None))
        }
        Said::Result { event_id, call, wanted, .. } => {
            let event = said.event(event_id.clone(), Some(at));
            result(tx, session, n, (call, *wanted), &event, actor)?;
            Ok(event)
        }
        Said::Told { event_id, .. } => {
            let event = said.event(event_id.clone(), Some(at));
            let Some(Said::Result { call, .. }) = n.checked_sub(1).and_then(|n| all.get(n)) else {
                return Err(Error::Bug("told with no result before"));
            };
            let sql = "update approvals set told_id = $2, told = $3 where id = $1";
            tx.execute(sql, &params![call, event_id, event.body.to_text()])?;
            Ok(event)
        }
        Said::Interrupt { event_id } => {
            let now = tx.now()?;
            let row = tx.first(
                "update sessions set urgency = 3, interrupt_id = coalesce(interrupt_id, $2), \
                 next_at = case when lease_owner is null then $3 else next_at end \
                 where id = $1 and (turn_id is not null or lease_owner is not null) \
                 returning interrupt_id",
                &params![session, event_id, now],
            )?;
            // Without a turn there is nothing to stop.
            Ok(match row {
                Some(mut row) => said.event(row.id(0)?, None),
                None => said.event(event_id.clone(), Some(at)),
            })
        }
    }
}

/// Of a result for a call that is no client's.
const NOT_THEIRS: &str = "names no call of this session that waits for it: `user.tool_result` is for \
    sessions in a `self_hosted` environment; elsewhere this server carries calls out itself";

/// A call that still waits for an answer of this kind: the tool and the fingerprint of it.
fn open_call(
    tx: &mut Tx<'_>,
    session: &SessionId,
    n: usize,
    call: &EventId,
    wanted: Wanted,
) -> Result<(String, String)> {
    let field = match wanted {
        Wanted::Confirmation | Wanted::ToolResult => format!("events[{n}].tool_use_id"),
        Wanted::CustomResult => format!("events[{n}].custom_tool_use_id"),
    };
    let row = tx.first(
        "select status, tool, fingerprint, expires_at, wanted, by_client from approvals \
         where id = $1 and session_id = $2",
        &params![call, session],
    )?;
    let wrong = |message: &str| Error::Invalid(Problem::new(field.clone(), message));
    let Some(mut row) = row else {
        return Err(wrong(match wanted {
            Wanted::Confirmation | Wanted::CustomResult => {
                "names no call of this session that waits"
            }
            Wanted::ToolResult => NOT_THEIRS,
        }));
    };
    let waits_for = Wanted::parse(&row.text(4)?).ok_or(Error::Bug("an unknown wish"))?;
    if waits_for != wanted {
        return Err(wrong(match waits_for {
            Wanted::Confirmation if wanted == Wanted::ToolResult && row.int(5)? == 0 => NOT_THEIRS,
            Wanted::Confirmation => {
                "names a call that waits to be allowed: answer it with `user.tool_confirmation`"
            }
            Wanted::CustomResult => {
                "names a call of a custom tool: answer it with `user.custom_tool_result`"
            }
            Wanted::ToolResult => {
                "names a call that waits for its result: answer it with `user.tool_result`"
            }
        }));
    }
    let status = row.text(0)?;
    if status == "pending" && row.time(3)? > tx.now()? {
        return Ok((row.text(1)?, row.text(2)?));
    }
    let why = match (status.as_str(), wanted) {
        ("allow" | "deny" | "done", _) => "was answered before",
        ("void", _) => "is not wanted any more: its turn is over",
        (_, Wanted::Confirmation) => "was denied because nobody answered in time",
        (_, _) => "was given up because nobody answered in time",
    };
    Err(match wanted {
        Wanted::Confirmation => Error::Conflict(format!("the call {call} {why}")),
        // Helpers of the official SDKs send a result again for minutes after a conflict.
        _ => wrong(&format!("names a call that {why}")),
    })
}

fn answer(
    tx: &mut Tx<'_>,
    session: &SessionId,
    n: usize,
    (event_id, call): (&EventId, &EventId),
    (result, deny_message): (Confirmed, Option<&String>),
    actor: &str,
    at: Timestamp,
) -> Result<()> {
    let (tool, fingerprint) = open_call(tx, session, n, call, Wanted::Confirmation)?;
    let now = tx.now()?;
    tx.execute(
        "update approvals set status = $2, event_id = $3, deny_message = $4, actor = $5, \
         answered_at = $6, nth = $7 where id = $1",
        &params![call, result.as_str(), event_id, deny_message, actor, now, n as i64],
    )?;
    wake(tx, session, now)?;
    let action = match result {
        Confirmed::Allow => "approval.allow",
        Confirmed::Deny => "approval.deny",
    };
    let details = json!({"session_id": session, "tool": tool, "fingerprint": fingerprint});
    let change = Change { actor: actor.to_owned(), action, target: call.to_string(), details };
    audit::note_only(tx, &change, at)
}

/// What a call led to. It is data for the model, and no decision that the audit log would have.
fn result(
    tx: &mut Tx<'_>,
    session: &SessionId,
    n: usize,
    (call, wanted): (&EventId, Wanted),
    event: &Event,
    actor: &str,
) -> Result<()> {
    open_call(tx, session, n, call, wanted)?;
    let now = tx.now()?;
    tx.execute(
        "update approvals set status = 'done', event_id = $2, result = $3, actor = $4, \
         answered_at = $5, nth = $6 where id = $1",
        &params![call, &event.id, event.body.to_text(), actor, now, n as i64],
    )?;
    wake(tx, session, now)
}

/// A worker that has the session looks before it lets go of it.
fn wake(tx: &mut Tx<'_>, session: &SessionId, now: Timestamp) -> Result<()> {
    let sql = "update sessions set next_at = $2 where id = $1 and lease_owner is null";
    tx.execute(sql, &params![session, now])?;
    Ok(())
}
