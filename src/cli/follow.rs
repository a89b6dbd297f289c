//! The events of one session, each once and in order, whatever happens to the connection.
//!
//! The stream is opened first and the history read then, so nothing falls between them; what comes
//! twice is known by its id. A connection that is lost is made again with `Last-Event-ID`, or, before
//! the stream has given an id, by reading the end of the history again. Invariant: no gap, no repeat;
//! a message that waits and is taken later is two updates. Left out: what the events mean.

use std::{
    collections::{HashMap, VecDeque},
    time::Duration,
};

use reqwest::{Response, header};
use serde_json::Value;

use super::{
    client::{Client, PAGE_MAX, cause},
    context::str,
    failure::{Failure, Result},
    sse::{Frame, Item, Parser},
};

/// What happened.
#[derive(Debug, PartialEq)]
pub(super) enum Update {
    Event(Value),
    /// The agent begins to write the message that will be this event.
    Start {
        id: String,
    },
    /// The next piece of that message's block `index`.
    Delta {
        id: String,
        index: i64,
        text: String,
    },
    /// Everything that was there has been told.
    CaughtUp,
    /// Nothing happened for a while.
    Quiet,
    /// The connection is lost, for this reason; it will be made again.
    Lost(String),
    /// No more will come.
    Ended,
}

#[derive(Clone, Debug)]
pub(super) struct Options {
    pub(super) backoff: Backoff,
    /// How often [`Update::Quiet`] is told.
    pub(super) tick: Duration,
    /// Silence after which the connection counts as lost. Servers send something every 10 to 20 s.
    pub(super) silence_max: Duration,
    /// Whether to ask for messages while they are written.
    pub(super) deltas: bool,
}

impl Options {
    pub(super) fn new(give_up: Option<Duration>, deltas: bool) -> Options {
        Options {
            backoff: Backoff::new(give_up),
            tick: Duration::from_secs(5),
            silence_max: Duration::from_secs(60),
            deltas,
        }
    }
}

/// Waits that grow, and end.
#[derive(Clone, Debug)]
pub(super) struct Backoff {
    pub(super) first: Duration,
    pub(super) max: Duration,
    /// The sum of waits in a row after which there is no further one.
    pub(super) give_up: Option<Duration>,
    next: Option<Duration>,
    waited: Duration,
}

impl Backoff {
    pub(super) fn new(give_up: Option<Duration>) -> Backoff {
        let (first, max) = (Duration::from_millis(500), Duration::from_secs(10));
        Backoff { first, max, give_up, next: None, waited: Duration::ZERO }
    }

    /// It worked: the next wait is a first one again.
    pub(super) fn reset(&mut self) {
        self.next = None;
        self.waited = Duration::ZERO;
    }

    pub(super) fn is_first(&self) -> bool {
        self.next.is_none()
    }

    /// How long to wait now, or nothing when it is time to give up.
    pub(super) fn wait(&mut self) -> Option<Duration> {
        if self.give_up.is_some_and(|most| self.waited >= most) {
            return None;
        }
        let wait = self.next.unwrap_or(self.first).min(self.max);
        self.next = Some(wait * 2);
        self.waited += wait;
        Some(wait)
    }
}

#[derive(Debug)]
pub(super) struct Follow<'a> {
    client: &'a Client,
    session: String,
    options: Options,
    stage: Stage,
    /// Where the last page of the history began that was read.
    page: Option<String>,
    /// By id of an event that was told: whether it had been processed.
    told: HashMap<String, bool>,
    last_event_id: Option<String>,
    updates: VecDeque<Update>,
    /// Before the first connection a failure is an answer, and not a loss.
    was_connected: bool,
}

#[derive(Debug)]
enum Stage {
    Waiting(Duration),
    Apart,
    /// Connected, and behind.
    Behind(Box<Stream>),
    Live(Box<Stream>),
    Ended,
}

#[derive(Debug)]
struct Stream {
    answer: Response,
    parser: Parser,
    silent: Duration,
}

impl<'a> Follow<'a> {
    pub(super) fn new(client: &'a Client, session: &str, options: Options) -> Follow<'a> {
        Follow {
            client,
            session: session.to_owned(),
            options,
            stage: Stage::Apart,
            page: None,
            told: HashMap::new(),
            last_event_id: None,
            updates: VecDeque::new(),
            was_connected: false,
        }
    }

    /// Waits for the next update.
    pub(super) async fn next(&mut self) -> Result<Update> {
        loop {
            if let Some(update) = self.updates.pop_front() {
                return Ok(update);
            }
            // Whoever stops waiting in between loses the connection and nothing else.
            self.stage = match std::mem::replace(&mut self.stage, Stage::Apart) {
                Stage::Waiting(wait) => {
                    tokio::time::sleep(wait).await;
                    Stage::Apart
                }
                Stage::Apart => self.connect().await?,
                Stage::Behind(stream) => self.read_history(stream).await?,
                Stage::Live(stream) => self.read_stream(stream).await?,
                Stage::Ended => {
                    self.updates.push_back(Update::Ended);
                    Stage::Ended
                }
            };
        }
    }

    /// Looks at the end of the history again: [`Update::CaughtUp`] then comes after everything that
    /// was there at the time of this call.
    pub(super) fn look_again(&mut self) {
        // One that is not told yet is about the time before.
        self.updates.retain(|update| *update != Update::CaughtUp);
        self.stage = match std::mem::replace(&mut self.stage, Stage::Apart) {
            Stage::Live(stream) => Stage::Behind(stream),
            other => other,
        };
    }

    /// Whether [`Follow::look_again`] would have an effect: there is a connection.
    pub(super) fn is_live(&self) -> bool {
        matches!(self.stage, Stage::Live(_))
    }

    fn what(&self) -> String {
        format!("follow the session `{}`", self.session)
    }

    async fn connect(&mut self) -> Result<Stage> {
        let deltas: &[(&str, &str)] =
            if self.options.deltas { &[("event_deltas[]", "agent.message")] } else { &[] };
        let url =
            self.client.url(&["v1", "sessions", &self.session, "events", "stream"], deltas)?;
        let mut headers = vec![("accept", "text/event-stream")];
        if let Some(id) = &self.last_event_id {
            headers.push(("last-event-id", id));
        }
        let opened = self.client.open(&self.what(), url, &headers).await;
        let answer = match opened {
            Ok(answer) => answer,
            Err(failure) if self.was_connected && failure.is_passing() => {
                return self.lost(failure);
            }
            Err(failure) => return Err(failure),
        };
        let kind = answer.headers().get(header::CONTENT_TYPE).and_then(|it| it.to_str().ok());
        if !kind.is_some_and(|kind| kind.starts_with("text/event-stream")) {
            return Err(Failure::new(self.what(), "the server answered with something else"));
        }
        self.was_connected = true;
        let (parser, silent) = (Parser::default(), Duration::ZERO);
        let stream = Box::new(Stream { answer, parser, silent });
        match self.last_event_id {
            Some(_) => Ok(Stage::Live(stream)),
            None => Ok(Stage::Behind(stream)),
        }
    }

    /// Reads one page of the history.
    async fn read_history(&mut self, stream: Box<Stream>) -> Result<Stage> {
        let path = ["v1", "sessions", &self.session, "events"];
        let read = self.client.page(&self.what(), &path, &[], self.page.as_deref(), PAGE_MAX).await;
        let listing = match read {
            Ok(listing) => listing,
            Err(failure) if failure.is_passing() => return self.lost(failure),
            Err(failure) => return Err(failure),
        };
        for event in listing.data {
            self.tell(event);
        }
        match listing.next_page {
            Some(page) => {
                self.page = Some(page);
                Ok(Stage::Behind(stream))
            }
            None => {
                self.updates.push_back(Update::CaughtUp);
                Ok(Stage::Live(stream))
            }
        }
    }

    async fn read_stream(&mut self, mut stream: Box<Stream>) -> Result<Stage> {
        let tick = self.options.tick;
        let bytes = match tokio::time::timeout(tick, stream.answer.chunk()).await {
            Err(_) => {
                stream.silent += tick;
                if stream.silent >= self.options.silence_max {
                    let seconds = stream.silent.as_secs();
                    let why = format!("nothing was heard for {seconds} s");
                    return self.lost(Failure::new(self.what(), why));
                }
                self.options.backoff.reset();
                self.updates.push_back(Update::Quiet);
                return Ok(Stage::Live(stream));
            }
            Ok(Err(error)) => return self.lost(Failure::new(self.what(), cause(&error))),
            Ok(Ok(None)) => return self.lost(Failure::new(self.what(), "the stream ended")),
            Ok(Ok(Some(bytes))) => bytes,
        };
        stream.silent = Duration::ZERO;
        let fed = stream.parser.feed(&bytes);
        fed.map_err(|error| Failure::new(self.what(), error.to_string()))?;
        while let Some(item) = stream.parser.next() {
            match item {
                Item::Comment => self.updates.push_back(Update::Quiet),
                Item::RetryMs(ms) => {
                    let wished = Duration::from_millis(ms);
                    self.options.backoff.first = wished.min(self.options.backoff.max);
                }
                Item::Frame(frame) => {
                    if let Some(stage) = self.take(frame)? {
                        return Ok(stage);
                    }
                }
            }
            self.options.backoff.reset();
        }
        Ok(Stage::Live(stream))
    }

    /// Takes a frame, and says so when it ends the connection.
    fn take(&mut self, frame: Frame) -> Result<Option<Stage>> {
        let Frame { event, data, id } = frame;
        if event == "ping" {
            self.updates.push_back(Update::Quiet);
            return Ok(None);
        }
        let Ok(value) = serde_json::from_str::<Value>(&data) else {
            return Err(Failure::new(self.what(), "an event is not JSON"));
        };
        if event == "error" {
            let message = value["error"]["message"].as_str().unwrap_or("the stream failed");
            let failure = Failure::new(self.what(), message);
            let kind = str(&value["error"]["type"]);
            if ["authentication_error", "permission_error", "not_found_error"].contains(&kind) {
                return Err(failure);
            }
            return self.lost(failure).map(Some);
        }
        let ends = str(&value["type"]) == "session.deleted";
        match str(&value["type"]) {
            "event_start" => {
                if value["event"]["type"] == "agent.message" {
                    let id = str(&value["event"]["id"]).to_owned();
                    self.updates.push_back(Update::Start { id });
                }
            }
            "event_delta" => self.updates.push_back(Update::Delta {
                id: str(&value["event_id"]).to_owned(),
                index: value["delta"]["index"].as_i64().unwrap_or(0),
                text: str(&value["delta"]["content"]["text"]).to_owned(),
            }),
            _ => self.tell(value),
        }
        if id.is_some() {
            self.last_event_id = id;
        }
        Ok(ends.then_some(Stage::Ended))
    }

    /// Tells an event, unless it was told.
    fn tell(&mut self, event: Value) {
        let id = str(&event["id"]).to_owned();
        let is_processed = event["processed_at"].is_string();
        let is_known = self.told.get(&id).is_some_and(|processed| *processed || !is_processed);
        if is_known && !id.is_empty() {
            return;
        }
        self.told.insert(id, is_processed);
        self.updates.push_back(Update::Event(event));
    }

    fn lost(&mut self, failure: Failure) -> Result<Stage> {
        let backoff = &mut self.options.backoff;
        let is_first = backoff.is_first();
        let Some(wait) = backoff.wait() else {
            return Err(failure.hint("the session goes on without us; follow it again later"));
        };
        if is_first {
            self.updates.push_back(Update::Lost(failure.to_string()));
        }
        Ok(Stage::Waiting(wait))
    }
}

#[cfg(test)]
mod tests;
