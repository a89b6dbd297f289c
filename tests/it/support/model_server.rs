//! A model server that answers by a script, in the three wire formats, over HTTP with streaming.
//!
//! It is written against the providers' documentation and shares no code with the product. Every
//! request that it gets is checked, whatever a test is about: each call has exactly one result, right
//! behind it, and each result a call; roles alternate; no secret is in the body. A request that
//! breaks a rule or that the script does not expect is refused, and the test fails at the end.

mod check;
mod http;
mod played;
mod render;

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex},
    time::Duration,
};

use bellpull::clock::Clock;
use serde_json::{Value, json};
use tokio::{net::TcpListener, sync::watch, task::JoinHandle, time::Instant};

/// The formats, by the path that a request is sent to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    Anthropic,
    Chat,
    Responses,
}

impl Format {
    pub const ALL: [Format; 3] = [Format::Anthropic, Format::Chat, Format::Responses];

    fn of_path(path: &str) -> Option<Format> {
        match path {
            "/v1/messages" => Some(Format::Anthropic),
            "/v1/chat/completions" => Some(Format::Chat),
            "/v1/responses" => Some(Format::Responses),
            _ => None,
        }
    }
}

/// Tokens of an answer: read anew, read from the cache, written.
#[derive(Clone, Copy, Debug)]
pub struct Tokens {
    pub input: u64,
    pub cached: u64,
    pub output: u64,
}

/// How an answer ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    Whole,
    Refused,
    /// At the limit of tokens.
    Cut,
}

/// One entry of a script.
#[derive(Clone, Debug)]
pub struct Reply {
    status: u16,
    headers: Vec<(String, String)>,
    body: Body,
    /// Bytes of the body after which the connection is closed.
    cut_after: Option<usize>,
    /// Bytes of the body after which nothing comes any more.
    stall_after: Option<usize>,
    /// Bytes that are sent at once.
    chunk_bytes: usize,
    /// Between two events.
    pause: Duration,
    /// A comment is sent instead of nothing.
    comments: bool,
    /// Nothing but the head is sent until this says so.
    gate: Option<watch::Receiver<bool>>,
}

/// What a held reply waits for.
#[derive(Debug)]
pub struct Gate(watch::Sender<bool>);

impl Gate {
    pub fn open(&self) {
        self.0.send_replace(true);
    }
}

#[derive(Clone, Debug)]
enum Body {
    Answer(Answer),
    Raw(Vec<u8>),
}

#[derive(Clone, Debug)]
struct Answer {
    thinking: bool,
    pieces: Vec<String>,
    calls: Vec<(String, Value)>,
    end: End,
    tokens: Tokens,
    /// Instead of the end: an error in the middle of the stream.
    error: Option<String>,
}

impl Reply {
    fn new(body: Body) -> Reply {
        Reply {
            status: 200,
            headers: vec![("content-type".to_owned(), "text/event-stream".to_owned())],
            body,
            cut_after: None,
            stall_after: None,
            chunk_bytes: usize::MAX,
            pause: Duration::ZERO,
            comments: false,
            gate: None,
        }
    }

    /// An answer in pieces.
    pub fn text(pieces: &[&str]) -> Reply {
        Reply::new(Body::Answer(Answer {
            thinking: false,
            pieces: pieces.iter().map(|piece| (*piece).to_owned()).collect(),
            calls: Vec::new(),
            end: End::Whole,
            tokens: Tokens { input: 10, cached: 0, output: 5 },
            error: None,
        }))
    }

    /// Calls of tools behind what is said, if anything is.
    pub fn and_calls(self, calls: &[(&str, Value)]) -> Reply {
        let calls = calls.iter().map(|(name, input)| ((*name).to_owned(), input.clone())).collect();
        self.answer(|answer| answer.calls = calls)
    }

    pub fn status(status: u16, kind: &str, message: &str) -> Reply {
        let error = json!({"type": "error", "error": {"type": kind, "message": message}});
        Reply {
            status,
            headers: vec![("content-type".to_owned(), "application/json".to_owned())],
            ..Reply::new(Body::Raw(error.to_string().into_bytes()))
        }
    }

    /// Status 200, and then whatever this is.
    pub fn bytes(content_type: &str, bytes: &[u8]) -> Reply {
        Reply {
            headers: vec![("content-type".to_owned(), content_type.to_owned())],
            ..Reply::new(Body::Raw(bytes.to_owned()))
        }
    }

    fn answer(mut self, change: impl FnOnce(&mut Answer)) -> Reply {
        match &mut self.body {
            Body::Answer(answer) => change(answer),
            Body::Raw(_) => panic!("this reply is no answer"),
        }
        self
    }

    pub fn header(mut self, name: &str, value: &str) -> Reply {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    pub fn thinking(self) -> Reply {
        self.answer(|answer| answer.thinking = true)
    }

    pub fn ending(self, end: End) -> Reply {
        self.answer(|answer| answer.end = end)
    }

    pub fn tokens(self, tokens: Tokens) -> Reply {
        self.answer(|answer| answer.tokens = tokens)
    }

    pub fn breaking_off(self, kind: &str) -> Reply {
        self.answer(|answer| answer.error = Some(kind.to_owned()))
    }

    /// Bytes of the whole body.
    pub fn n_bytes(&self, format: Format) -> usize {
        match &self.body {
            Body::Answer(answer) => render::events(format, answer).iter().map(Vec::len).sum(),
            Body::Raw(bytes) => bytes.len(),
        }
    }

    pub fn cut_after(self, n_bytes: usize) -> Reply {
        Reply { cut_after: Some(n_bytes), ..self }
    }

    pub fn stall_after(self, n_bytes: usize) -> Reply {
        Reply { stall_after: Some(n_bytes), ..self }
    }

    /// In chunks of so many bytes, wherever that cuts.
    pub fn in_chunks_of(self, n_bytes: usize) -> Reply {
        Reply { chunk_bytes: n_bytes, ..self }
    }

    /// With a comment before each event, and this long between two of them.
    pub fn slowly(self, pause: Duration) -> Reply {
        Reply { pause, comments: true, ..self }
    }

    /// Begun, and held back until the gate opens.
    pub fn held(self) -> (Gate, Reply) {
        let (sender, gate) = watch::channel(false);
        (Gate(sender), Reply { gate: Some(gate), ..self })
    }
}

/// A request as it came.
#[derive(Clone, Debug)]
pub struct Captured {
    pub format: Format,
    pub headers: Vec<(String, String)>,
    pub body: Value,
    pub at: Instant,
}

impl Captured {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    pub fn model(&self) -> &str {
        self.body["model"].as_str().expect("a model")
    }

    pub fn system(&self) -> &str {
        let system = match self.format {
            Format::Anthropic => &self.body["system"][0]["text"],
            Format::Chat => &self.body["messages"][0]["content"],
            Format::Responses => &self.body["instructions"],
        };
        system.as_str().expect("a system prompt")
    }

    pub fn tools<'a>(&'a self) -> Vec<&'a str> {
        let tools = self.body["tools"].as_array().map_or(&[][..], Vec::as_slice);
        let name = |tool: &'a Value| match self.format {
            Format::Chat => &tool["function"]["name"],
            Format::Anthropic | Format::Responses => &tool["name"],
        };
        tools.iter().map(|tool| name(tool).as_str().expect("a name")).collect()
    }

    /// Everything that is wrong with it.
    pub fn problems(&self) -> Vec<String> {
        check::problems(self, &[])
    }

    /// Everything that the user's side said, results included.
    pub fn said(&self) -> String {
        check::said(self.format, &self.body)
    }
}

#[derive(Debug, Default)]
struct State {
    script: VecDeque<Reply>,
    requests: Vec<Captured>,
    /// When each connection was closed by the other side in the middle of an answer.
    abandoned: Vec<Instant>,
    secrets: Vec<String>,
    problems: Vec<String>,
}

#[derive(Debug)]
pub struct ModelServer {
    pub url: String,
    state: Arc<Mutex<State>>,
    serving: JoinHandle<()>,
}

impl ModelServer {
    pub async fn start(script: impl IntoIterator<Item = Reply>) -> ModelServer {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let url = format!("http://{}", listener.local_addr().expect("an address"));
        let state = State { script: script.into_iter().collect(), ..State::default() };
        let state = Arc::new(Mutex::new(state));
        let serving = tokio::spawn(http::serve(listener, state.clone()));
        ModelServer { url, state, serving }
    }

    /// A text that no request may have in its body.
    pub fn forbid(&self, secret: &str) {
        self.state.lock().unwrap().secrets.push(secret.to_owned());
    }

    pub fn then(&self, reply: Reply) {
        self.state.lock().unwrap().script.push_back(reply);
    }

    /// Replies that nobody asks for are no fault from here on.
    pub fn forget(&self) {
        self.state.lock().unwrap().script.clear();
    }

    pub fn requests(&self) -> Vec<Captured> {
        self.state.lock().unwrap().requests.clone()
    }

    /// When answers were given up by whoever had asked.
    pub fn abandoned(&self) -> Vec<Instant> {
        self.state.lock().unwrap().abandoned.clone()
    }
}

impl Drop for ModelServer {
    fn drop(&mut self) {
        self.serving.abort();
        let state = self.state.lock().unwrap();
        let problems = state.problems.join("\n");
        if std::thread::panicking() {
            eprintln!("--- what was wrong with the model requests ---\n{problems}");
            return;
        }
        assert!(problems.is_empty(), "{problems}");
        assert!(state.script.is_empty(), "{} replies were not asked for", state.script.len());
    }
}

fn now() -> Instant {
    Clock::system().monotonic()
}
