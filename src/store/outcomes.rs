//! What sessions shall reach, and how far they are with it.
//!
//! A row is made when somebody defines an outcome, under the lock of the session's row; from then on it
//! follows the events of the log, in the transaction of each. Invariant: a session has one open outcome
//! at most, and what its object says of outcomes is what its log says. Left out: when an outcome is
//! evaluated, which the turn decides.

use std::collections::HashMap;

use super::{
    Error, NewMessage, Result, Store, chunks,
    driver::{Row, Tx, params},
    select::of_sessions,
};
use crate::{
    clock::Timestamp,
    domain::{
        Problem,
        event::{EventBody, NewEvent, Usage},
        outcome::{OUTCOMES_MAX, Outcome, RUBRIC_CHARS_MAX, Rubric, Verdict},
        session::Session,
    },
    id::{EventId, FileId, Id, SessionId},
};

const COLUMNS: &str = "id, description, result, iteration, explanation, completed_at, session_id \
    from outcomes";

impl Store {
    /// The text of a file that is to be a rubric. [`Error::Invalid`] when it cannot be one.
    pub async fn rubric(&self, file: &FileId) -> Result<String> {
        let (file, at) = (file.clone(), self.clock.now());
        self.driver.read(move |tx| text_of(tx, &file, at, "")).await
    }
}

/// Whether the agent works towards an outcome.
pub(super) fn is_under_way(tx: &mut Tx<'_>, session: &SessionId) -> Result<bool> {
    let sql = "select 1 from outcomes where session_id = $1 and completed_at is null \
               and result <> 'pending'";
    Ok(tx.first(sql, &params![session])?.is_some())
}

/// Takes what a message defines, if it defines an outcome: answers what is kept with the message, and
/// never shown. [`Error::Invalid`] when there is an open one.
pub(super) fn define(
    tx: &mut Tx<'_>,
    session: &SessionId,
    message: &NewMessage,
    at: Timestamp,
) -> Result<Option<String>> {
    let EventBody::UserDefineOutcome { outcome_id, description, rubric, .. } = &message.body else {
        return Ok(None);
    };
    let wrong = |message: String| Err(Error::Invalid(Problem::new("type", message)));
    let sql = "select id from outcomes where session_id = $1 and completed_at is null";
    if let Some(mut row) = tx.first(sql, &params![session])? {
        let open = row.text(0)?;
        return wrong(format!(
            "defines an outcome while {open} is open: there is one at a time; wait for its end, or \
             send `user.interrupt` first"
        ));
    }
    let sql = "select count(*) from outcomes where session_id = $1";
    if tx.first(sql, &params![session])?.ok_or(Error::Bug("no count"))?.int(0)? >= OUTCOMES_MAX {
        return wrong(format!("defines an outcome in a session that has had {OUTCOMES_MAX}"));
    }
    tx.execute(
        "insert into outcomes (id, session_id, description, result) values ($1, $2, $3, 'pending')",
        &params![outcome_id, session, description],
    )?;
    match rubric {
        Rubric::Text { .. } => Ok(None),
        Rubric::File { file_id } => {
            let text = text_of(tx, file_id, at, " {wait}")?;
            Ok(Some(serde_json::json!({"rubric": text}).to_string()))
        }
    }
}

/// The bytes stay there for as long as the lock does, if one is asked for.
fn text_of(tx: &mut Tx<'_>, file: &FileId, at: Timestamp, lock: &str) -> Result<String> {
    let wrong = |message: String| Error::Invalid(Problem::new("rubric.file_id", message));
    let sql = format!(
        "select content, n_chunks, size_bytes from files \
         where id = $1 and (expires_at is null or expires_at > $2){lock}"
    );
    let row = tx.first(&sql, &params![file, at])?;
    let mut row = row.ok_or_else(|| wrong(format!("there is no file {file}")))?;
    let too_long = || wrong(format!("is a file of more than {RUBRIC_CHARS_MAX} characters"));
    // No character has more bytes.
    if row.int(2)? > RUBRIC_CHARS_MAX as i64 * 4 {
        return Err(too_long());
    }
    let bytes = chunks::read(tx, &row.text(0)?, row.int(1)?)?;
    let text = String::from_utf8(bytes);
    let text = text.map_err(|_| wrong("is a file whose bytes are no UTF-8 text".to_owned()))?;
    let text = crate::domain::text::clean(&text).into_owned();
    match text.chars().count() {
        0..=RUBRIC_CHARS_MAX if text.trim().is_empty() => {
            Err(wrong("is a file without any text".to_owned()))
        }
        0..=RUBRIC_CHARS_MAX => Ok(text),
        _ => Err(too_long()),
    }
}

/// The agent has begun to work towards what was defined.
pub(super) fn begin(tx: &mut Tx<'_>, session: &SessionId) -> Result<()> {
    let sql = "update outcomes set result = 'running' where session_id = $1 and result = 'pending'";
    tx.execute(sql, &params![session])?;
    Ok(())
}

/// What events of a log, appended at this time, say about outcomes.
pub(super) fn follow(tx: &mut Tx<'_>, events: &[NewEvent], at: Timestamp) -> Result<()> {
    for event in events {
        match &event.body {
            EventBody::OutcomeEvaluationStart { outcome_id, .. } => {
                let sql = "update outcomes set result = 'evaluating' \
                           where id = $1 and completed_at is null";
                tx.execute(sql, &params![outcome_id])?;
            }
            EventBody::OutcomeEvaluationEnd {
                outcome_id, iteration, result, explanation, ..
            } => {
                let (word, next, end) = match result {
                    Verdict::NeedsRevision => ("running", iteration + 1, None),
                    last => (last.as_str(), *iteration, Some(at)),
                };
                tx.execute(
                    "update outcomes set result = $2, iteration = $3, explanation = $4, \
                     completed_at = $5 where id = $1 and completed_at is null",
                    &params![outcome_id, word, i64::from(next), explanation, end],
                )?;
            }
            _ => {}
        }
    }
    Ok(())
}

/// That the open outcome of a session is given up, because the session comes to its end.
pub(super) fn given_up(
    tx: &mut Tx<'_>,
    session: &SessionId,
    at: Timestamp,
) -> Result<Option<NewEvent>> {
    let sql = "select id, iteration from outcomes where session_id = $1 and completed_at is null";
    let Some(mut row) = tx.first(sql, &params![session])? else { return Ok(None) };
    let body = EventBody::OutcomeEvaluationEnd {
        outcome_evaluation_start_id: String::new(),
        outcome_id: row.id(0)?,
        iteration: u32::try_from(row.int(1)?).map_err(Error::corrupt)?,
        result: Verdict::Interrupted,
        explanation: "the session was archived".to_owned(),
        usage: Usage::default(),
    };
    Ok(Some(NewEvent::new(EventId::new(at), body)))
}

/// The turn is over without a word about the outcome that it worked towards.
pub(super) fn close(
    tx: &mut Tx<'_>,
    session: &SessionId,
    verdict: Verdict,
    at: Timestamp,
) -> Result<()> {
    let sql = "update outcomes set result = $2, completed_at = $3 \
               where session_id = $1 and completed_at is null and result <> 'pending'";
    tx.execute(sql, &params![session, verdict.as_str(), at])?;
    Ok(())
}

/// The outcomes of each of these sessions.
pub(super) fn of(
    tx: &mut Tx<'_>,
    sessions: &[Session],
) -> Result<HashMap<SessionId, Vec<Outcome>>> {
    of_sessions(tx, COLUMNS, sessions, from_row)
}

fn from_row(mut row: Row) -> Result<(SessionId, Outcome)> {
    let outcome = Outcome {
        id: row.id(0)?,
        description: row.text(1)?,
        result: row.text(2)?,
        iteration: row.int(3)?,
        explanation: row.text_or_null(4)?,
        completed_at: row.time_or_null(5)?,
    };
    Ok((row.id(6)?, outcome))
}
