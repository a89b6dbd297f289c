//! `user.define_outcome`, as a request has it.
//!
//! Invariant: what leaves here has a rubric that says something, or names a file. Left out: whether that
//! file can be one, and whether another outcome is open, which is known where the event is kept.

use serde_json::Value;

use crate::{
    clock::Timestamp,
    domain::{
        Problem,
        event::{DEFINE_OUTCOME, EventBody},
        outcome::{DESCRIPTION_CHARS_MAX, ITERATIONS_MAX, RUBRIC_CHARS_MAX, Rubric, outcome_of},
    },
    id::{EventId, Id},
    store::NewMessage,
    web::{
        App,
        error::{Error, Result},
        input::Fields,
    },
};

/// The rest of a `user.define_outcome`.
pub(super) fn define(mut fields: Fields, at: &str, now: Timestamp) -> Result<NewMessage, Problem> {
    let within = |problem: Problem| problem.within(at);
    let description = fields.required("description", DESCRIPTION_CHARS_MAX).map_err(within)?;
    if description.trim().is_empty() {
        return Err(Problem::new(format!("{at}.description"), "must say something"));
    }
    let rubric = fields.value("rubric").ok_or_else(|| {
        let message = "is required: {\"type\": \"text\", \"content\"} or {\"type\": \"file\", \
                       \"file_id\"}";
        Problem::new(format!("{at}.rubric"), message)
    })?;
    let rubric = read_rubric(rubric, &format!("{at}.rubric"))?;
    let most = fields.number("max_iterations", 1..=ITERATIONS_MAX.into()).map_err(within)?;
    fields.finish().map_err(within)?;
    let event_id = EventId::new(now);
    let outcome_id = outcome_of(&event_id);
    let max_iterations = most.and_then(|most| u32::try_from(most).ok());
    let body = EventBody::UserDefineOutcome { outcome_id, description, rubric, max_iterations };
    Ok(NewMessage { event_id, body, private: "{}".to_owned() })
}

fn read_rubric(given: Value, at: &str) -> Result<Rubric, Problem> {
    let within = |problem: Problem| problem.within(at);
    let mut fields = Fields::of(given, at)?;
    let rubric = match fields.required("type", 16).map_err(within)?.as_str() {
        "text" => {
            let content = fields.required("content", RUBRIC_CHARS_MAX).map_err(within)?;
            if content.trim().is_empty() {
                return Err(Problem::new(format!("{at}.content"), "must say something"));
            }
            Rubric::Text { content }
        }
        "file" => {
            let id = fields.required("file_id", 128).map_err(within)?;
            let wrong = |error| Problem::new(format!("{at}.file_id"), format!("is {error}"));
            Rubric::File { file_id: id.parse().map_err(wrong)? }
        }
        _ => return Err(Problem::new(format!("{at}.type"), "must be `text` or `file`")),
    };
    fields.finish().map_err(within)?;
    Ok(rubric)
}

/// Whether more than one of what a session starts with defines an outcome.
pub(super) fn check_one(events: &[Value], at: &str) -> Result<(), Problem> {
    let is_outcome = |event: &&Value| event["type"] == DEFINE_OUTCOME;
    match events.iter().filter(is_outcome).count() {
        0 | 1 => Ok(()),
        _ => {
            let message =
                format!("can have one `{DEFINE_OUTCOME}`: a session works on one outcome");
            Err(Problem::new(at, message))
        }
    }
}

/// Whether files that are rubrics in what sessions start with can be.
pub(in crate::web::managed) async fn check_rubrics(
    app: &App,
    events: &[Value],
    at: &str,
) -> Result<()> {
    for (n, event) in events.iter().enumerate().filter(|(_, it)| it["type"] == DEFINE_OUTCOME) {
        let body = serde_json::from_value(event.clone());
        if let Ok(EventBody::UserDefineOutcome { rubric: Rubric::File { file_id }, .. }) = body {
            let read = app.store.rubric(&file_id).await;
            read.map_err(|error| match error {
                crate::store::Error::Invalid(problem) => {
                    Error::from(problem.within(&format!("{at}[{n}]")))
                }
                error => error.into(),
            })?;
        }
    }
    Ok(())
}
