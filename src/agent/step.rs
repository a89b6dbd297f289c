//! The decision: from a transcript to the one next command.

use super::{OpenTool, Transcript, permission::Permission, transcript::CallAnswer};
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
pub fn interrupted(call: &EventId) -> String {
    format!(
        "interrupted: it may or may not have taken effect. Look first, and do not repeat it unless \
         you see that it did not. Say what you saw with `settle_effect`, for the effect `{call}`; \
         without a look at it, leave that to people."
    )
}

/// What it hears of a call that was certainly not carried out.
pub const NOT_RUN: &str = "this was not carried out: the turn ended before.";

/// What it hears when it makes the same call over and over.
pub const REPEATED: &str = "[You made this very call several times in a row. Its result will not \
    change: try something else, or say what is in the way. Once more ends your turn.]";

/// The bounds of a turn.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Model requests of one turn.
    pub requests_max: u32,
    /// Times in a row that a turn makes one call with one input; the last is warned about.
    pub repeats_max: u32,
    /// Tokens of a conversation beyond which it is summed up before the model is asked again.
    pub context_tokens_max: u32,
}

/// Summaries that one turn makes: if they do not help, more of them will not.
const COMPACTIONS_MAX: u32 = 10;

impl Default for Limits {
    fn default() -> Limits {
        Limits { requests_max: 100, repeats_max: 3, context_tokens_max: 150_000 }
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
    /// The conversation comes near the end of the model's window: have it summed up.
    Compact,
    /// The agent has nothing more to do: have it judged whether the outcome is reached.
    Grade,
    RunTool {
        call: ToolUse,
        /// Whether the model has to be told that it goes round in a circle.
        warn: bool,
    },
    /// Nobody knows whether the call was carried out.
    Doubt(ToolUse),
    /// Somebody has to say whether these calls may be made, or what they led to.
    Await(Vec<EventId>),
    /// The call cannot be run; the model hears why.
    AnswerTool {
        call: ToolUse,
        error: String,
    },
    /// Too many model requests in one turn.
    StopAtLimit,
    /// The same call once too often.
    StopRepeating(ToolUse),
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
    if transcript.rescheduled || transcript.waiting.is_some() && transcript.asked().is_empty() {
        return Command::GoOn;
    }
    if let Some(command) = call(transcript, kind_of, limits) {
        return command;
    }
    if transcript.exhausted {
        return Command::Finish(TurnEnd::RetriesExhausted);
    }
    if transcript.refusal.is_some() {
        return Command::Finish(TurnEnd::Refusal);
    }
    let is_done = !transcript.awaits_answer();
    if is_done && transcript.goal.is_none() {
        return Command::Finish(TurnEnd::EndTurn);
    }
    if transcript.n_requests >= limits.requests_max {
        return Command::StopAtLimit;
    }
    if is_done {
        return Command::Grade;
    }
    let is_long = transcript.context_tokens > i64::from(limits.context_tokens_max);
    match is_long && transcript.n_compactions < COMPACTIONS_MAX {
        true => Command::Compact,
        false => Command::CallModel,
    }
}

/// What to do about calls without a result. Those that need nobody come first; then all answers are
/// waited for, and then what was asked about is done or not.
fn call(
    transcript: &Transcript,
    kind_of: impl Fn(&str) -> ToolKind,
    limits: &Limits,
) -> Option<Command> {
    let open = &transcript.open_tools;
    let by_itself = open.iter().find(|open| !open.is_asked() && open.permission != Permission::Ask);
    let asked = transcript.asked();
    if by_itself.is_none() && !asked.is_empty() {
        return Some(Command::Await(asked));
    }
    let OpenTool { call, permission, answer, begun, nth, .. } = by_itself.or(open.first())?;
    let (call, kind) = (call.clone(), kind_of(&call.name));
    Some(match (permission, answer) {
        _ if *begun && kind == ToolKind::Effect => Command::Doubt(call),
        _ if *nth > limits.repeats_max => Command::StopRepeating(call),
        (Permission::Deny, _) => {
            let error = format!("this agent has no tool `{}`", call.name);
            Command::AnswerTool { call, error }
        }
        (_, Some(CallAnswer::Deny(message))) => {
            let message = message.as_deref().unwrap_or("no reason was given");
            let error = format!("this call was denied and not carried out: {message}");
            Command::AnswerTool { call, error }
        }
        _ if kind == ToolKind::Unknown => {
            let error = format!("there is no tool `{}`", call.name);
            Command::AnswerTool { call, error }
        }
        _ => Command::RunTool { call, warn: *nth == limits.repeats_max },
    })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use serde_json::json;

    use super::*;
    use crate::{
        clock::Timestamp,
        domain::{
            event::{Block, Confirmed, Event, EventBody, SessionError, Usage},
            outcome::{Rubric, Verdict},
        },
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
            evaluation: Some(json!({"type": "always_allow"})),
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
            egress: Vec::new(),
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

    fn fold(bodies: &[EventBody]) -> Transcript {
        Transcript::of(&log(bodies), &BTreeSet::new())
    }

    fn decide(bodies: &[EventBody]) -> Command {
        let limits = Limits { requests_max: 2, ..Limits::default() };
        step(&fold(bodies), kind, &limits)
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
    fn a_long_conversation_is_summed_up_before_the_next_request() {
        use EventBody::{ContextCompacted, ModelRequestStart, StatusRunning};
        let limits = Limits { context_tokens_max: 100, ..Limits::default() };
        let long = EventBody::ModelRequestEnd {
            model_request_start_id: "sevt_2".parse().unwrap(),
            is_error: Some(false),
            model_usage: Usage { input_tokens: 90, output_tokens: 11, ..Usage::default() },
            cost_usd: None,
        };
        let mut bodies = vec![StatusRunning, user(), ModelRequestStart, says("ok"), long];
        assert_eq!(step(&fold(&bodies), kind, &limits), Command::Finish(TurnEnd::EndTurn));
        bodies.push(user());
        assert_eq!(step(&fold(&bodies), kind, &limits), Command::Compact);
        bodies.extend([ModelRequestStart, end(6), ContextCompacted]);
        let transcript = fold(&bodies);
        assert_eq!(step(&transcript, kind, &limits), Command::CallModel);
        assert_eq!(transcript.messages.len(), 1, "{:?}", transcript.messages);
    }

    fn defines(max_iterations: Option<u32>) -> EventBody {
        let rubric = Rubric::Text { content: "it rhymes".to_owned() };
        let description = "write a poem".to_owned();
        let outcome_id = "outc_1".parse().unwrap();
        EventBody::UserDefineOutcome { outcome_id, description, rubric, max_iterations }
    }

    fn begins(iteration: u32) -> EventBody {
        EventBody::OutcomeEvaluationStart { outcome_id: "outc_1".parse().unwrap(), iteration }
    }

    fn judges(iteration: u32, result: Verdict) -> EventBody {
        EventBody::OutcomeEvaluationEnd {
            outcome_evaluation_start_id: String::new(),
            outcome_id: "outc_1".parse().unwrap(),
            iteration,
            result,
            explanation: "not a rhyme".to_owned(),
            usage: Usage::default(),
        }
    }

    /// With the ends of requests that are a grader's.
    fn decide_graded(bodies: &[EventBody]) -> (Command, Transcript) {
        let mut events = log(bodies);
        let mut of_grader = false;
        for event in &mut events {
            match &event.body {
                EventBody::OutcomeEvaluationStart { .. } => of_grader = true,
                EventBody::OutcomeEvaluationEnd { .. } => of_grader = false,
                EventBody::ModelRequestEnd { is_error: Some(false), .. } if of_grader => {
                    event.private = Some(json!({"grader": true}));
                }
                _ => {}
            }
        }
        let transcript = Transcript::of(&events, &BTreeSet::new());
        (step(&transcript, kind, &Limits::default()), transcript)
    }

    #[test]
    fn an_outcome_is_graded_and_revised_until_it_is_reached() {
        use EventBody::{ModelRequestStart, StatusRunning};
        let mut bodies = vec![StatusRunning, defines(None)];
        assert_eq!(decide_graded(&bodies).0, Command::CallModel);
        bodies.extend([ModelRequestStart, says("roses"), end(2)]);
        assert_eq!(decide_graded(&bodies).0, Command::Grade);
        bodies.extend([begins(0), ModelRequestStart, end(6)]);
        bodies.push(judges(0, Verdict::NeedsRevision));
        let (command, transcript) = decide_graded(&bodies);
        assert_eq!(command, Command::CallModel);
        assert_eq!(transcript.goal.as_ref().map(|goal| goal.iteration), Some(1));
        let heard = format!("{:?}", transcript.messages.last());
        assert!(heard.contains("not a rhyme"), "{heard}");
        bodies.extend([ModelRequestStart, says("roses, noses"), end(9)]);
        assert_eq!(decide_graded(&bodies).0, Command::Grade);
        let graded = [begins(1), ModelRequestStart, end(13)];
        bodies.extend(graded.clone());
        for verdict in [Verdict::Satisfied, Verdict::Failed, Verdict::Interrupted] {
            let ended = [&bodies[..], &[judges(1, verdict)]].concat();
            let (command, transcript) = decide_graded(&ended);
            assert_eq!(command, Command::Finish(TurnEnd::EndTurn), "{verdict:?}");
            assert_eq!(transcript.goal, None, "{verdict:?}");
        }
        // The last word is the agent's, and nobody judges that.
        bodies.push(judges(1, Verdict::MaxIterationsReached));
        assert_eq!(decide_graded(&bodies).0, Command::CallModel);
        bodies.extend([ModelRequestStart, says("it is what it is"), end(17)]);
        assert_eq!(decide_graded(&bodies).0, Command::Finish(TurnEnd::EndTurn));
    }

    #[test]
    fn grading_that_an_earlier_life_began_is_done_again_under_the_same_start() {
        use EventBody::{ModelRequestStart, StatusRunning};
        let mut bodies =
            vec![StatusRunning, defines(Some(1)), ModelRequestStart, says("a"), end(2)];
        bodies.extend([begins(0), ModelRequestStart]);
        let start = "sevt_6".parse().unwrap();
        assert_eq!(decide_graded(&bodies).0, Command::AbandonRequest(start));
        bodies.push(failed_end(6));
        let (command, transcript) = decide_graded(&bodies);
        assert_eq!(command, Command::Grade);
        let goal = transcript.goal.unwrap();
        assert_eq!(goal.evaluation, Some("sevt_5".parse().unwrap()));
        assert_eq!((goal.iteration, goal.iterations_max), (0, 1));
    }

    #[test]
    fn a_graders_request_leaves_the_conversation_as_it_was() {
        use EventBody::{ContextCompacted, ModelRequestStart, StatusRunning};
        let mut bodies = vec![StatusRunning, defines(None), ModelRequestStart, says("a"), end(2)];
        let before = decide_graded(&bodies).1;
        let large = EventBody::ModelRequestEnd {
            model_request_start_id: "sevt_6".parse().unwrap(),
            is_error: Some(false),
            model_usage: Usage { input_tokens: 1_000_000, ..Usage::default() },
            cost_usd: None,
        };
        bodies.extend([begins(0), ModelRequestStart, large]);
        let (command, after) = decide_graded(&bodies);
        assert_eq!((command, after.context_tokens), (Command::Grade, before.context_tokens));
        assert_eq!((after.messages, after.n_requests), (before.messages, 2));
        // And a bound of requests is one for graders too.
        let limits = Limits { requests_max: 1, ..Limits::default() };
        assert_eq!(step(&fold(&bodies[..5]), kind, &limits), Command::StopAtLimit);
        // What is to be reached outlives a summary.
        let told =
            format!("{:?}", fold(&[StatusRunning, defines(None), ContextCompacted]).messages);
        assert!(told.contains("write a poem"), "{told}");
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
        let transcript = fold(&bodies);
        assert_eq!((transcript.n_failures, transcript.n_requests), (2, 0));
        bodies.extend([StatusRunning, ModelRequestStart, says("at last"), end(12)]);
        assert_eq!(decide(&bodies), Command::Finish(TurnEnd::EndTurn));
        let transcript = fold(&bodies);
        assert_eq!((transcript.n_failures, transcript.n_requests), (0, 1));
    }

    #[test]
    fn an_effect_that_was_begun_is_not_repeated_but_a_reading_is() {
        use EventBody::{ModelRequestStart, StatusRunning};
        let with = |tool, begun: &[&str]| {
            let begun = begun.iter().map(|id| id.parse().unwrap()).collect();
            let bodies = [StatusRunning, user(), ModelRequestStart, end(2), call(tool)];
            step(&Transcript::of(&log(&bodies), &begun), kind, &Limits::default())
        };
        assert!(matches!(with("delivery", &["sevt_4"]), Command::RunTool { .. }));
        assert!(matches!(with("bash", &["sevt_4"]), Command::Doubt(_)));
        assert!(matches!(with("bash", &[]), Command::RunTool { .. }));
        assert!(matches!(with("nonsense", &[]), Command::AnswerTool { .. }));
    }

    fn ask(name: &str, command: &str) -> EventBody {
        EventBody::AgentToolUse {
            name: name.to_owned(),
            input: json!({"command": command}),
            evaluated_permission: "ask".to_owned(),
            evaluation: Some(json!({"type": "always_ask"})),
        }
    }

    fn confirm(n: usize, result: Confirmed) -> EventBody {
        let deny_message = (result == Confirmed::Deny).then(|| "not today".to_owned());
        let tool_use_id = format!("sevt_{n}").parse().unwrap();
        EventBody::UserToolConfirmation { tool_use_id, result, deny_message }
    }

    #[test]
    fn what_is_asked_waits_for_all_answers_and_then_is_done_or_not() {
        use EventBody::{ModelRequestStart, StatusRunning};
        let mut bodies = vec![StatusRunning, user(), ModelRequestStart, end(2)];
        bodies.extend([ask("bash", "rm a"), call("delivery"), ask("bash", "rm b")]);
        let with = |bodies: &[EventBody]| {
            let mut events = log(bodies);
            for at in [4, 6] {
                let EventBody::AgentToolUse { name, input, .. } = &events[at].body else {
                    panic!()
                };
                let (id, name) = (events[at].id.clone(), name.clone());
                let shown = ToolUse { id: id.clone(), name, input: input.clone() }.fingerprint();
                for event in &mut events {
                    if matches!(&event.body, EventBody::UserToolConfirmation { tool_use_id, .. }
                        if *tool_use_id == id)
                    {
                        event.private = Some(json!({"fingerprint": shown}));
                    }
                }
            }
            step(&Transcript::of(&events, &BTreeSet::new()), kind, &Limits::default())
        };
        // What needs nobody is done at once.
        assert!(matches!(with(&bodies), Command::RunTool { call, .. } if call.name == "delivery"));
        bodies.push(result(5));
        let ids = |ids: &[&str]| ids.iter().map(|id| id.parse().unwrap()).collect::<Vec<EventId>>();
        assert_eq!(with(&bodies), Command::Await(ids(&["sevt_4", "sevt_6"])));
        let event_ids = ids(&["sevt_4", "sevt_6"]);
        let stop_reason = crate::domain::event::StopReason::RequiresAction { event_ids };
        bodies.push(EventBody::StatusIdle { stop_reason, stop_details: None });
        bodies.push(confirm(4, Confirmed::Allow));
        assert_eq!(with(&bodies), Command::Await(ids(&["sevt_6"])));
        bodies.push(confirm(6, Confirmed::Deny));
        assert_eq!(with(&bodies), Command::GoOn);
        bodies.push(StatusRunning);
        assert!(
            matches!(with(&bodies), Command::RunTool { call, .. } if call.input["command"] == "rm a")
        );
        bodies.push(result(4));
        let told = with(&bodies);
        assert!(matches!(&told, Command::AnswerTool { error, .. } if error.ends_with("not today")));
    }

    fn custom_result(n: usize) -> EventBody {
        EventBody::UserCustomToolResult {
            custom_tool_use_id: format!("sevt_{n}").parse().unwrap(),
            content: vec![Block::text("seen")],
            is_error: false,
        }
    }

    #[test]
    fn a_call_of_the_client_waits_for_its_result_whatever_else_was_called() {
        use EventBody::{ModelRequestStart, StatusRunning};
        let custom = || EventBody::AgentCustomToolUse { name: "look".into(), input: json!({}) };
        let mut bodies = vec![StatusRunning, user(), ModelRequestStart, end(2)];
        bodies.extend([custom(), call("delivery"), custom()]);
        let decide = |bodies: &[EventBody]| step(&fold(bodies), kind, &Limits::default());
        assert!(
            matches!(decide(&bodies), Command::RunTool { call, .. } if call.name == "delivery")
        );
        bodies.push(result(5));
        let ids = |ids: &[&str]| ids.iter().map(|id| id.parse().unwrap()).collect::<Vec<EventId>>();
        assert_eq!(decide(&bodies), Command::Await(ids(&["sevt_4", "sevt_6"])));
        // Answered before anybody was told: no word about it.
        let mut early = bodies.clone();
        early.extend([custom_result(4), custom_result(6)]);
        assert_eq!(decide(&early), Command::CallModel);
        let event_ids = ids(&["sevt_4", "sevt_6"]);
        let stop_reason = crate::domain::event::StopReason::RequiresAction { event_ids };
        bodies.push(EventBody::StatusIdle { stop_reason, stop_details: None });
        bodies.push(custom_result(6));
        assert_eq!(decide(&bodies), Command::Await(ids(&["sevt_4"])));
        bodies.push(custom_result(4));
        assert_eq!(decide(&bodies), Command::GoOn);
        bodies.push(StatusRunning);
        assert_eq!(decide(&bodies), Command::CallModel);
    }

    #[test]
    fn a_call_in_the_clients_environment_waits_for_its_result_and_first_for_its_permission() {
        use EventBody::{ModelRequestStart, StatusRunning};
        let uses = [call("bash"), ask("bash", "rm a"), ask("bash", "rm b")];
        let bodies = [StatusRunning, user(), ModelRequestStart, end(2)];
        let mut events = log(&[&bodies[..], &uses[..]].concat());
        events[4..].iter_mut().for_each(|it| it.private = Some(json!({"self_hosted": true})));
        let decide = |events: &[Event]| {
            step(&Transcript::of(events, &BTreeSet::new()), kind, &Limits::default())
        };
        let ids = |ids: &[&str]| ids.iter().map(|id| id.parse().unwrap()).collect::<Vec<EventId>>();
        let all = ["sevt_4", "sevt_5", "sevt_6"];
        assert_eq!(decide(&events), Command::Await(ids(&all)));
        let mut say = |body, fingerprint: Option<String>| {
            let mut event = log(&[body]).remove(0);
            event.private = fingerprint.map(|it| json!({"fingerprint": it}));
            events.push(event);
            decide(&events)
        };
        let shown = |n: usize, command: &str| {
            let (id, input) = (format!("sevt_{n}").parse().unwrap(), json!({"command": command}));
            ToolUse { id, name: "bash".to_owned(), input }.fingerprint()
        };
        let result = |n: usize| EventBody::UserToolResult {
            tool_use_id: format!("sevt_{n}").parse().unwrap(),
            content: Vec::new(),
            is_error: false,
        };
        let allowed = say(confirm(5, Confirmed::Allow), Some(shown(5, "rm a")));
        assert_eq!(allowed, Command::Await(ids(&all)), "now its result is waited for");
        assert_eq!(say(confirm(6, Confirmed::Deny), None), Command::Await(ids(&all[..2])));
        assert_eq!(say(result(4), None), Command::Await(ids(&["sevt_5"])));
        let last = say(result(5), None);
        assert!(
            matches!(&last, Command::AnswerTool { call, .. } if call.input["command"] == "rm b")
        );
    }

    #[test]
    fn what_the_operator_says_outlives_a_summary() {
        use crate::domain::conversation::{Message, UserPart};
        let said = EventBody::SystemMessage { content: vec![Block::text("be brief")] };
        let parts = |transcript: &Transcript| match transcript.messages.last() {
            Some(Message::User { parts }) => parts.clone(),
            _ => panic!(),
        };
        let bodies = [EventBody::StatusRunning, user(), said, EventBody::ContextCompacted];
        for n in [3, 4] {
            let parts = parts(&fold(&bodies[..n]));
            assert_eq!(parts.last(), Some(&UserPart::System("be brief".to_owned())), "{n}");
        }
    }

    #[test]
    fn an_approval_is_for_the_input_that_was_shown() {
        use EventBody::{ModelRequestStart, StatusRunning};
        let bodies = [StatusRunning, user(), ModelRequestStart, end(2), ask("bash", "rm a")];
        let mut transcript = fold(&bodies);
        let other = json!({"fingerprint": "of something else"});
        let id = EventId::new(Timestamp(0));
        transcript.apply(&id, &confirm(4, Confirmed::Allow), Some(&other));
        let told = step(&transcript, kind, &Limits::default());
        assert!(matches!(&told, Command::AnswerTool { error, .. } if error.contains("denied")));
    }

    #[test]
    fn the_same_call_over_and_over_is_warned_about_and_then_ends_the_turn() {
        use EventBody::{ModelRequestStart, StatusRunning};
        let mut bodies = vec![StatusRunning, user()];
        let round = |n| [ModelRequestStart, end(n), call("delivery")];
        for (n, expected) in [(2, false), (6, false), (10, true)] {
            bodies.extend(round(n));
            let decided = step(&fold(&bodies), kind, &Limits::default());
            assert!(matches!(decided, Command::RunTool { warn, .. } if warn == expected), "{n}");
            bodies.push(result(n + 2));
        }
        bodies.extend(round(14));
        let decided = step(&fold(&bodies), kind, &Limits::default());
        assert!(matches!(decided, Command::StopRepeating(_)), "{decided:?}");
        let EventBody::AgentToolUse { input, .. } = bodies.last_mut().unwrap() else { panic!() };
        *input = json!({"start": 1});
        let decided = step(&fold(&bodies), kind, &Limits::default());
        assert!(matches!(decided, Command::RunTool { warn: false, .. }), "{decided:?}");
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
        let transcript = fold(&bodies);
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
        let transcript = Transcript::of(&events, &BTreeSet::new());
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
