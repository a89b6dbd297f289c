//! A script that the rehearsal plays: words and calls, written down in an agent's system prompt.
//!
//! So everything that an agent does with its tools, and what its policies make of that, can be tried
//! without a key and without chance. The script begins anew with each event. Pure.

use serde::Deserialize;
use serde_json::Value;

use crate::domain::conversation::{Message, Request, UserPart};

/// How a system prompt begins that is a script: a JSON list of steps follows.
pub const MARK: &str = "Rehearse this script:\n";

/// What one request is answered with.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Step {
    #[serde(default)]
    pub(super) think: Option<String>,
    #[serde(default)]
    pub(super) say: String,
    /// Name and input of each.
    #[serde(default)]
    pub(super) calls: Vec<(String, Value)>,
}

/// The step that answers a request. `None` where there is no script, or it is over.
pub(super) fn step(request: &Request) -> Option<Step> {
    let script = request.system.as_deref()?.strip_prefix(MARK)?;
    // Standing instructions come after it.
    let steps = serde_json::Deserializer::from_str(script).into_iter::<Vec<Step>>().next()?.ok()?;
    let is_event = |message: &Message| match message {
        Message::User { parts } => parts.iter().any(|part| matches!(part, UserPart::Content(_))),
        Message::Assistant { .. } => false,
    };
    let begun = request.messages.iter().rposition(is_event)?;
    let is_ours = |message: &&Message| matches!(message, Message::Assistant { .. });
    let n_played = request.messages[begun..].iter().filter(is_ours).count();
    steps.into_iter().nth(n_played)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::event::Block;

    fn request(system: &str, n_answers: usize) -> Request {
        let user = Message::User { parts: vec![UserPart::Content(Block::text("an event"))] };
        let answer = || Message::Assistant {
            content: vec![Block::text("words")],
            tool_uses: Vec::new(),
            answer: None,
        };
        let messages = [answer(), user].into_iter().chain((0..n_answers).map(|_| answer()));
        Request { system: Some(system.to_owned()), messages: messages.collect(), tools: Vec::new() }
    }

    #[test]
    fn each_request_has_its_step_and_others_have_none() {
        let script = format!(
            "{MARK}[{{\"say\": \"look\", \"calls\": [[\"bash\", {{\"command\": \"ls\"}}]]}}, \
             {{\"say\": \"done\"}}]\n\nmore instructions"
        );
        let first = step(&request(&script, 0)).unwrap();
        assert_eq!((first.say.as_str(), first.calls[0].0.as_str()), ("look", "bash"));
        assert_eq!(step(&request(&script, 1)).unwrap().say, "done");
        assert_eq!(step(&request(&script, 2)), None);
        assert_eq!(step(&request("You are kind.", 0)), None);
        assert_eq!(step(&request(&format!("{MARK}not a list"), 0)), None);
    }
}
