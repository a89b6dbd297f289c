//! The model that agents of a world ask: it answers by chance, and looks at who is asking.
//!
//! A request comes through the same code as one to a real provider. Whoever makes it must hold the
//! session's lease, must have journaled the request before, and must tell the model all that was said
//! in the session so far, in the order in which it was committed.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
    time::Duration,
};

use bellpull::{clock::Clock, model::Carrier, tool::settle_effect};
use futures_util::future::BoxFuture;
use serde_json::{Value, json};

use super::{random::Random, referee::Referee, setup::LOOK};
use crate::support::model_server::{Captured, End, Format, Reply, Tokens};

/// What the world, its model and the referee know together.
#[derive(Debug)]
pub struct Watch {
    pub referee: Referee,
    pub random: Random,
    pub clock: Clock,
    /// Of a hundred answers, how many are none.
    pub failures: u64,
    /// Questions that are being answered: of which session, and who asks.
    asking: BTreeMap<u64, (String, String)>,
    pub n_asked: u64,
    /// Calls in the answer to each journaled request, by the request's event.
    pub calls: BTreeMap<String, usize>,
    /// Owners of processes that cannot know at this moment what their clock says.
    pub excused: Vec<String>,
}

impl Watch {
    pub fn new(referee: Referee, random: Random, clock: Clock, failures: u64) -> Watch {
        let (asking, calls) = (BTreeMap::new(), BTreeMap::new());
        let (n_asked, excused) = (0, Vec::new());
        Watch { referee, random, clock, failures, asking, n_asked, calls, excused }
    }

    /// Somebody asks. Answers how long the model thinks and what it says then; nothing for ever, if
    /// it says nothing.
    fn ask(&mut self, owner: &str, request: &Captured) -> (u64, Duration, Option<Reply>) {
        for problem in request.problems() {
            self.referee.blame(format!("a request is wrong: {problem}"));
        }
        self.n_asked += 1;
        let told = marks(&request.body);
        let session = self.session_of(&told);
        match &session {
            Some(session) => self.examine(owner, session, &told),
            None => self.referee.blame(format!("{owner} asks about nothing known: {told:?}")),
        }
        let session = session.unwrap_or_default();
        self.referee.notes.push(format!("{owner} asks about {session}"));
        let (thought, reply, n_calls) = self.reply(request);
        if let Some(entry) = self.referee.logs.get(&session).and_then(|log| log.last()) {
            self.calls.insert(entry.id.clone(), n_calls);
        }
        self.asking.insert(self.n_asked, (session, owner.to_owned()));
        (self.n_asked, thought, reply)
    }

    /// The session in whose log the first message is that the model was told.
    fn session_of(&self, told: &[String]) -> Option<String> {
        let first = told.first()?;
        let holds = |session: &&String| self.said_in(session).iter().any(|mark| mark == first);
        self.referee.logs.keys().find(holds).cloned()
    }

    /// What was said in a session until now.
    fn said_in(&self, session: &str) -> Vec<String> {
        let log = self.referee.logs.get(session).map_or(&[][..], Vec::as_slice);
        let said = log.iter().filter(|entry| entry.kind == "user.message");
        said.flat_map(|entry| marks_in(&entry.body)).collect()
    }

    fn examine(&mut self, owner: &str, session: &str, told: &[String]) {
        let (now, said) = (self.clock.now().0, self.said_in(session));
        let row = &self.referee.sessions[session];
        let valid =
            row.owner.as_deref() == Some(owner) && row.lease_until.is_some_and(|it| it > now);
        let last = self.referee.logs[session].last().map(|entry| entry.kind.clone());
        let mut problems = Vec::new();
        if !valid {
            problems.push(format!("{owner} asks at {now} without a lease: {row:?}"));
        }
        if told != said {
            problems.push(format!("the model was told {told:?}, and {said:?} was said"));
        }
        if last.as_deref() != Some("span.model_request_start") {
            problems.push(format!("{owner} asks without having said so: {last:?}"));
        }
        for (other, by) in self.asking.values() {
            if other == session && by != owner && !self.excused.contains(by) {
                problems.push(format!("{owner} and {by} ask at once"));
            }
        }
        for problem in problems {
            self.referee.blame(format!("{session}: {problem}"));
        }
    }

    /// How long the model thinks, what it says then, and how many calls are in that.
    fn reply(&mut self, request: &Captured) -> (Duration, Option<Reply>, usize) {
        let failures = self.failures;
        let random = &mut self.random;
        let thought = random.ms(0..2) * random.pick(&[0, 1, 30, 500, 3000]);
        if random.chance(failures) {
            return (thought, failure(random), 0);
        }
        let offered = request.tools();
        let may_call = !offered.is_empty() && random.chance(30);
        let (n_input, n_output) = (random.range(1..500), random.range(1..500));
        let tokens = Tokens { input: n_input, cached: 0, output: n_output };
        let mut reply = Reply::text(&["I have read", " it."]).tokens(tokens);
        let mut n_calls = 0;
        if may_call {
            let calls = calls(&offered, self.n_asked, &request.said(), random);
            reply = reply.and_calls(&calls);
            n_calls = calls.len();
        }
        let pause = random.pick(&[0, 0, 5, 100]);
        let n_bytes = random.pick(&[usize::MAX, 400]);
        let reply = reply.in_chunks_of(n_bytes).slowly(Duration::from_millis(pause));
        (thought, Some(reply), n_calls)
    }

    /// Nobody waits for this answer any more, or it is complete.
    fn answered(&mut self, question: u64) {
        self.asking.remove(&question);
    }
}

/// What the model asks for: all of what it may, or the last of it. A file is written for each edit, which
/// leaves a mark in it.
fn calls(
    offered: &[&str],
    number: u64,
    said: &str,
    random: &mut Random,
) -> Vec<(&'static str, Value)> {
    let (pointer, whole) = (json!({"pointer": ""}), json!({}));
    let mut calls = vec![("delivery", pointer), ("delivery", whole), ("shell", json!({}))];
    let in_doubt = said.rsplit_once("for the effect `").and_then(|(_, rest)| rest.split_once('`'));
    if let Some((effect, _)) = in_doubt
        && offered.contains(&settle_effect::NAME)
    {
        let input = json!({"effect": effect, "outcome": "happened", "note": "It looks like it."});
        calls.push((settle_effect::NAME, input));
    }
    if offered.contains(&LOOK) {
        let path = format!("{number}.txt");
        calls.push((LOOK, json!({"at": 2 * number})));
        calls.push(("write", json!({"file_path": path, "content": "END"})));
        let edit =
            json!({"file_path": path, "old_string": "END", "new_string": format!("{MARK}END")});
        calls.push(("edit", edit));
        calls.push((LOOK, json!({"at": 2 * number + 1})));
    }
    let from = random.index(calls.len());
    calls.split_off(from)
}

/// What each edit puts into its file.
pub const MARK: &str = "+";

/// One of the ways in which there is no answer.
fn failure(random: &mut Random) -> Option<Reply> {
    let answer = Reply::text(&["This", " will", " not", " end", " well"]);
    let part = random.index(answer.n_bytes(Format::Anthropic));
    Some(match random.below(10) {
        0 => return None,
        1 => Reply::status(529, "overloaded_error", "Overloaded"),
        2 => {
            let seconds = random.below(6).to_string();
            let busy = Reply::status(429, "rate_limit_error", "Too many");
            busy.header("retry-after", &seconds)
        }
        3 => Reply::status(500, "api_error", "Oh no"),
        4 => Reply::status(400, "invalid_request_error", "No"),
        5 => answer.cut_after(part),
        6 => answer.stall_after(part),
        7 => answer.breaking_off("overloaded_error"),
        8 => answer.ending(End::Refused),
        _ => answer.ending(End::Cut),
    })
}

/// How a process reaches the model.
#[derive(Debug)]
pub struct Caller {
    pub owner: String,
    pub watch: Arc<Mutex<Watch>>,
}

impl Carrier for Caller {
    fn carry(
        &self,
        request: reqwest::Request,
    ) -> BoxFuture<'_, reqwest::Result<reqwest::Response>> {
        Box::pin(async move {
            let body = request.body().and_then(reqwest::Body::as_bytes).expect("a body");
            let clock = self.watch.lock().unwrap().clock.clone();
            let request = Captured {
                format: Format::Anthropic,
                headers: Vec::new(),
                body: serde_json::from_slice(body).expect("JSON"),
                at: clock.monotonic(),
            };
            let (question, thought, reply) = self.watch.lock().unwrap().ask(&self.owner, &request);
            let asking = Asking { question, watch: self.watch.clone() };
            clock.sleep(thought).await;
            let Some(reply) = reply else {
                let _asking = asking;
                return std::future::pending().await;
            };
            Ok(reply.response(Format::Anthropic, clock, asking))
        })
    }
}

/// Lives as long as somebody waits for the answer.
struct Asking {
    question: u64,
    watch: Arc<Mutex<Watch>>,
}

impl Drop for Asking {
    fn drop(&mut self) {
        self.watch.lock().unwrap().answered(self.question);
    }
}

/// The marks of all messages that a request tells of.
fn marks(body: &Value) -> Vec<String> {
    let messages = body["messages"].as_array().map_or(&[][..], Vec::as_slice);
    let said = messages.iter().filter(|message| message["role"] == "user");
    let blocks = said.flat_map(|message| message["content"].as_array().into_iter().flatten());
    blocks.filter_map(|block| block["text"].as_str()).flat_map(marks_in).collect()
}

/// Messages are told apart by a mark in their text: `#d12#`.
pub fn marks_in(text: &str) -> Vec<String> {
    let is_mark = |part: &&str| {
        let digits = part.strip_prefix(['d', 'p']).unwrap_or_default();
        !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit())
    };
    text.split('#').filter(is_mark).map(str::to_owned).collect()
}
