//! The decision: from a transcript to the one next command.

use super::Transcript;
use crate::{
    domain::{conversation::ToolUse, turn::TurnEnd},
    id::EventId,
};

/// What a tool does to the world, by its own declaration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ToolKind {
    /// Changes nothing: may run any number of times.
    ReadOnly,
    /// Running it twice is as running it once.
    Idempotent,
    /// Changes the outside: must not run twice unnoticed.
    Effect,
    /// There is no such tool.
    Unknown,
}

/// What the model hears of a call of which nobody knows whether it was carried out.
pub const INTERRUPTED: &str = "interrupted: it may or may not have taken effect. Look first, and do \
    not repeat it unless you see that it did not.";

/// The bounds of a turn.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Model requests of one turn.
    pub requests_max: u32,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits { requests_max: 100 }
    }
}

/// What to do next. Each command's outcome is journaled before the next step.
#[derive(Clone, Debug, PartialEq)]
pub enum Command {
    /// A request was begun by an earlier life: end it in the log; its partial text is void.
    AbandonRequest(EventId),
    /// The wait for the next try is over: the session is running again.
    GoOn,
    CallModel,
    RunTool(ToolUse),
    /// The call cannot be run; the model hears why.
    AnswerTool {
        call: ToolUse,
        error: String,
    },
    /// Too many model requests in one turn.
    StopAtLimit,
    Finish(TurnEnd),
}

/// Decides. Pure: the same transcript leads to the same command.
pub fn step(
    transcript: &Transcript,
    kind_of: impl Fn(&str) -> ToolKind,
    limits: &Limits,
) -> Command {
    if let Some(start) = &transcript.open_request {
        return Command::AbandonRequest(start.clone());
    }
    if transcript.rescheduled {
        return Command::GoOn;
    }
    if let Some(open) = transcript.open_tools.first() {
        let call = open.call.clone();
        return match (kind_of(&call.name), open.inherited) {
            (ToolKind::Unknown, _) => {
                let error = format!("there is no tool `{}`", call.name);
                Command::AnswerTool { call, error }
            }
            (ToolKind::Effect, true) => Command::AnswerTool { call, error: INTERRUPTED.to_owned() },
            (ToolKind::ReadOnly | ToolKind::Idempotent, _) | (ToolKind::Effect, false) => {
                Command::RunTool(call)
            }
        };
    }
    if transcript.exhausted {
        return Command::Finish(TurnEnd::RetriesExhausted);
    }
    if transcript.refusal.is_some() {
        return Command::Finish(TurnEnd::Refusal);
    }
    if !transcript.awaits_answer() {
        return Command::Finish(TurnEnd::EndTurn);
    }
    if transcript.n_requests >= limits.requests_max {
        return Command::StopAtLimit;
    }
    Command::CallModel
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::{
        clock::Timestamp,
        domain::event::{Block, Event, EventBody, SessionError, Usage},
        id::Id,
    };

    fn log(bodies: &[EventBody]) -> Vec<Event> {
        bodies
            .iter()
            .enumerate()
            .map(|(n, body)| Event {
                id: format!("sevt_{n}").parse().unwrap(),
                seq: Some(n as i64 + 1),
                body: body.clone(),
                private: None,
                processed_at: Some(Timestamp(0)),
            })
            .collect()
    }

    fn kind(name: &str) -> ToolKind {
        match name {
            "delivery" => ToolKind::ReadOnly,
            "bash" => ToolKind::Effect,
            _ => ToolKind::Unknown,
        }
    }

    fn user() -> EventBody {
        EventBody::UserMessage { content: vec![Block::text("hi")], origin: None }
    }

    fn call(name: &str) -> EventBody {
        EventBody::AgentToolUse {
            name: name.to_owned(),
            input: json!({}),
            evaluated_permission: "allow".to_owned(),
            evaluation: json!({"type": "always_allow"}),
        }
    }

    fn end(n: usize) -> EventBody {
        EventBody::ModelRequestEnd {
            model_request_start_id: format!("sevt_{n}").parse().unwrap(),
            is_error: Some(false),
            model_usage: Usage::default(),
            cost_usd: None,
        }
    }

    fn result(n: usize) -> EventBody {
        EventBody::AgentToolResult {
            tool_use_id: format!("sevt_{n}").parse().unwrap(),
            content: vec![Block::text("r")],
            is_error: false,
        }
    }

    fn failed_end(n: usize) -> EventBody {
        EventBody::ModelRequestEnd {
            model_request_start_id: format!("sevt_{n}").parse().unwrap(),
            is_error: Some(true),
            model_usage: Usage::default(),
            cost_usd: None,
        }
    }

    fn decide(bodies: &[EventBody]) -> Command {
        step(&Transcript::of(&log(bodies)), kind, &Limits { requests_max: 2 })
    }

    fn says(text: &str) -> EventBody {
        EventBody::AgentMessage { content: vec![Block::text(text)] }
    }

    #[test]
    fn input_is_answered_and_an_answer_ends_the_turn() {
        use EventBody::{ModelRequestStart, StatusRunning};
        assert_eq!(decide(&[StatusRunning, user()]), Command::CallModel);
        let answered = [StatusRunning, user(), ModelRequestStart, says("ok"), end(2)];
        assert_eq!(decide(&answered), Command::Finish(TurnEnd::EndTurn));
    }

    #[test]
    fn a_request_of_an_earlier_life_is_abandoned_and_asked_again() {
        let mut bodies = vec![EventBody::StatusRunning, user(), EventBody::ModelRequestStart];
        let start = "sevt_2".parse().unwrap();
        assert_eq!(decide(&bodies), Command::AbandonRequest(start));
        bodies.push(failed_end(2));
        assert_eq!(decide(&bodies), Command::CallModel);
    }

    #[test]
    fn silence_is_an_answer_too() {
        use EventBody::{ModelRequestStart, StatusRunning};
        let silent = [StatusRunning, user(), ModelRequestStart, end(2)];
        assert_eq!(decide(&silent), Command::Finish(TurnEnd::EndTurn));
        let [running, first, start, end] = silent;
        assert_eq!(decide(&[running, first, start, end, user()]), Command::CallModel);
    }

    #[test]
    fn a_failed_request_is_made_again_after_a_wait_and_counts_as_one() {
        use EventBody::{ModelRequestStart, StatusRescheduled, StatusRunning};
        let error = || EventBody::SessionError {
            error: SessionError::retrying("model_overloaded_error", "busy"),
        };
        let failed = |n| [ModelRequestStart, failed_end(n), error(), StatusRescheduled];
        let mut bodies = vec![StatusRunning, user()];
        bodies.extend(failed(2));
        assert_eq!(decide(&bodies), Command::GoOn);
        bodies.push(StatusRunning);
        assert_eq!(decide(&bodies), Command::CallModel);
        bodies.extend(failed(7));
        let transcript = Transcript::of(&log(&bodies));
        assert_eq!((transcript.n_failures, transcript.n_requests), (2, 0));
        bodies.extend([StatusRunning, ModelRequestStart, says("at last"), end(12)]);
        assert_eq!(decide(&bodies), Command::Finish(TurnEnd::EndTurn));
        let transcript = Transcript::of(&log(&bodies));
        assert_eq!((transcript.n_failures, transcript.n_requests), (0, 1));
    }

    #[test]
    fn an_inherited_effect_is_not_repeated_but_a_reading_is() {
        use EventBody::{ModelRequestStart, StatusRunning};
        let with = |tool| decide(&[StatusRunning, user(), ModelRequestStart, end(2), call(tool)]);
        assert!(matches!(with("delivery"), Command::RunTool(_)));
        assert!(matches!(with("bash"), Command::AnswerTool { .. }));
        assert!(matches!(with("nonsense"), Command::AnswerTool { .. }));

        let mut fresh = Transcript::of(&log(&[StatusRunning, user(), ModelRequestStart, end(2)]));
        fresh.apply(&EventId::new(Timestamp(0)), &call("bash"), None);
        assert!(matches!(step(&fresh, kind, &Limits::default()), Command::RunTool(_)));
    }

    #[test]
    fn a_turn_has_bounds() {
        use EventBody::{ModelRequestStart, StatusRunning};
        let round = |n| [ModelRequestStart, end(n), call("delivery"), result(n + 2)];
        let mut loops = vec![StatusRunning, user()];
        loops.extend(round(2));
        assert_eq!(decide(&loops), Command::CallModel);
        loops.extend(round(6));
        assert_eq!(decide(&loops), Command::StopAtLimit);
        let error = SessionError::exhausted("model_overloaded_error", "busy");
        let failed = [StatusRunning, user(), EventBody::SessionError { error }];
        assert_eq!(decide(&failed), Command::Finish(TurnEnd::RetriesExhausted));
    }

    #[test]
    fn every_tool_use_is_followed_by_its_result_and_roles_alternate() {
        use crate::domain::conversation::Message;
        let bodies = [
            EventBody::StatusRunning,
            user(),
            says("let me look"),
            end(2),
            call("delivery"),
            result(4),
            user(),
        ];
        let transcript = Transcript::of(&log(&bodies));
        let roles: Vec<_> =
            transcript.messages.iter().map(|it| matches!(it, Message::User { .. })).collect();
        assert_eq!(roles, [true, false, true]);
        assert!(transcript.open_tools.is_empty());
    }

    #[test]
    fn what_a_provider_said_stays_with_its_words_and_calls() {
        use crate::domain::conversation::Message;
        let mut events = log(&[user(), says("look"), end(1), call("delivery"), user()]);
        events[2].private = Some(json!({"model": "m", "raw": {"id": "first"}}));
        let mut more = log(&[end(1), call("delivery"), user(), end(1), user(), says("alone")]);
        more[0].private = Some(json!({"model": "m", "raw": {"id": "second"}}));
        more[3].private = Some(json!({"model": "m", "raw": {"id": "nothing was said"}}));
        events.extend(more);
        let transcript = Transcript::of(&events);
        let answers: Vec<_> = transcript
            .messages
            .iter()
            .filter_map(|message| match message {
                Message::Assistant { answer, .. } => {
                    Some(answer.as_ref().map(|answer| answer.raw["id"].clone()))
                }
                Message::User { .. } => None,
            })
            .collect();
        assert_eq!(answers, [Some(json!("first")), Some(json!("second")), None]);
    }
}
