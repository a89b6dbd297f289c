//! A session's events as they happen: server-sent events.
//!
//! The rows are the truth: on every signal, and at least once a second, the stream reads what comes
//! after the last number it has shown. So nothing is missed and nothing comes twice, whatever happens
//! to signals. Previews of text are sent beside the rows to whoever asks for them, and are lossy. No
//! transaction and no lock is held between two looks.
//!
//! As in the Managed Agents API a stream begins now. Ours adds `id:`, the event's number, and begins
//! after `Last-Event-ID` when the client sends it. A message that waits in the inbox has no number
//! yet: it is shown once without, and again with one when the agent takes it. What waits already when
//! a stream opens is shown only then.
//!
//! It ends when the session is deleted or terminated, with the event that says so. On a session that
//! is terminated already that event is all that is shown: clients leave at it, and would wait for ever.

mod frame;
mod inbox;

use std::{
    collections::VecDeque,
    convert::Infallible,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use axum::{
    body::Body,
    extract::State,
    http::{HeaderMap, Method, header},
    response::{IntoResponse, Response},
};
use bytes::Bytes;
use futures_util::{Stream, StreamExt, stream};
use tokio::time::{Duration, Instant};

use self::{frame::Deltas, inbox::Inbox};
use super::{
    App, auth,
    error::{Error, Kind, Result},
    input::At,
    query::Query,
};
use crate::{
    domain::Problem,
    id::SessionId,
    metrics::{Metrics, Running},
    preview::{Listener, Preview},
    signal::Changes,
    store,
};

/// Longest time between two looks when no signal comes.
const POLL: Duration = Duration::from_secs(1);

/// Events read at once: each may be as large as a body.
const EVENTS_MAX: usize = 16;

pub(super) async fn open(
    State(app): State<App>,
    At(id): At<SessionId>,
    query: Query,
    headers: HeaderMap,
) -> Result<Response> {
    let caller = headers.clone();
    let may_go_on: MayGoOn = Box::new(move |app| auth::admit(app, &Method::GET, &caller).is_ok());
    follow(app, id, &query, &headers, may_go_on).await
}

/// The streams that are open, of the API and of the pages.
#[derive(Clone, Debug, Default)]
pub(super) struct Streams(Arc<AtomicUsize>);

/// One of them; given back when dropped.
#[derive(Debug)]
pub(super) struct Slot {
    all: Streams,
    _counted: Running,
}

impl Streams {
    /// One more; or, when as many are open as may be, why not and what helps.
    fn enter(&self, max: usize, metrics: &Metrics) -> Result<Slot, String> {
        let slot = Slot { all: self.clone(), _counted: metrics.stream_opens() };
        if self.0.fetch_add(1, Ordering::Relaxed) < max {
            return Ok(slot);
        }
        Err(format!(
            "{max} streams of events are open on this server, which is its limit \
             (`web.streams_max`); close some, or list the events instead"
        ))
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.all.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl App {
    /// Room for a stream, or why there is none.
    pub(super) fn open_stream(&self) -> Result<Slot, String> {
        self.streams.enter(self.options().streams_max, self.store.metrics())
    }
}

/// Asked now and then: a stream outlives no key that was revoked.
pub(super) type MayGoOn = Box<dyn Fn(&App) -> bool + Send + Sync>;

/// The stream of a session, for whoever may see it.
pub(super) async fn follow(
    app: App,
    id: SessionId,
    query: &Query,
    headers: &HeaderMap,
    may_go_on: MayGoOn,
) -> Result<Response> {
    let deltas = Deltas::new(query)?;
    let slot = app.open_stream().map_err(|full| Error::new(Kind::Overloaded, full))?;
    // Registered before the look, so that nothing happens unseen in between.
    let (changes, previews) = (app.signals.watch(&id), app.previews.listen(&id));
    let end = app.store.end_of_log(&id).await.map_err(Error::missing("session"))?;
    let after = match (last_event_id(headers)?, end.terminated) {
        (Some(seq), _) => seq.min(end.last_seq),
        (None, true) => end.last_seq - 1,
        (None, false) => end.last_seq,
    };
    let now = app.store.clock().monotonic();
    let stream = Following {
        last_seq: after,
        inbox: Inbox::new(&end),
        session: id,
        changes,
        previews,
        deltas,
        // Sent at once, so that every proxy passes the headers on.
        ready: VecDeque::from([Bytes::from_static(b": open\n\n")]),
        look_at: now,
        beat_at: now + app.options().heartbeat,
        ended: false,
        may_go_on,
        app,
        _slot: slot,
    };
    Ok(server_sent(stream::unfold(stream, async |mut stream| {
        let frame = stream.next().await?;
        Some((frame, stream))
    })))
}

/// The answer whose body are frames that are sent as they are made.
pub(super) fn server_sent(frames: impl Stream<Item = Bytes> + Send + 'static) -> Response {
    let headers = [
        (header::CONTENT_TYPE.as_str(), "text/event-stream; charset=utf-8"),
        (header::CACHE_CONTROL.as_str(), "no-store"),
        // Proxies that know it do not buffer.
        ("x-accel-buffering", "no"),
    ];
    (headers, Body::from_stream(frames.map(Ok::<_, Infallible>))).into_response()
}

/// The number after which the client wants to go on.
fn last_event_id(headers: &HeaderMap) -> Result<Option<i64>> {
    let Some(value) = headers.get("last-event-id") else { return Ok(None) };
    let text = value.to_str().unwrap_or("?").trim();
    // What a browser sends when it has seen none.
    if text.is_empty() {
        return Ok(None);
    }
    let seq = text.parse().ok().filter(|seq| *seq >= 0);
    let problem = || Problem::new("Last-Event-ID", "must be an `id` of this stream").into();
    seq.map(Some).ok_or_else(problem)
}

struct Following {
    app: App,
    _slot: Slot,
    may_go_on: MayGoOn,
    session: SessionId,
    changes: Changes,
    previews: Listener,
    deltas: Deltas,
    /// The last number of the log that was shown.
    last_seq: i64,
    inbox: Inbox,
    ready: VecDeque<Bytes>,
    look_at: Instant,
    beat_at: Instant,
    ended: bool,
}

/// Why a stream goes on.
enum Woken {
    Look,
    Preview(Option<Preview>),
    Beat,
    Shutdown,
}

impl Following {
    async fn next(&mut self) -> Option<Bytes> {
        loop {
            if let Some(frame) = self.ready.pop_front() {
                let clock = self.app.store.clock();
                self.beat_at = clock.monotonic() + self.app.options().heartbeat;
                return Some(frame);
            }
            if self.ended {
                return None;
            }
            match self.wait().await {
                Woken::Look => self.look().await,
                Woken::Preview(preview) => self.ready.extend(self.deltas.show(preview)),
                Woken::Beat => self.ready.push_back(Bytes::from_static(b": ping\n\n")),
                Woken::Shutdown => self.ended = true,
            }
        }
    }

    /// In order of urgency. Previews come before rows, so that the pieces that were sent before an
    /// event are shown before it.
    async fn wait(&mut self) -> Woken {
        tokio::select! {
            biased;
            () = self.app.shutdown.cancelled() => Woken::Shutdown,
            preview = self.previews.next(), if self.deltas.are_wanted() => Woken::Preview(preview),
            () = self.changes.wait() => Woken::Look,
            () = tokio::time::sleep_until(self.look_at) => Woken::Look,
            () = tokio::time::sleep_until(self.beat_at) => Woken::Beat,
        }
    }

    async fn look(&mut self) {
        if !(self.may_go_on)(&self.app) {
            self.ended = true;
            return;
        }
        self.look_at = self.app.store.clock().monotonic() + POLL;
        match self.read().await {
            Ok(()) => {}
            Err(store::Error::NotFound) => {
                let now = self.app.store.clock().now();
                self.ready.push_back(frame::deleted(now));
                self.ended = true;
            }
            // The rows are still there when the database is back.
            Err(error @ store::Error::Unavailable(_)) => {
                tracing::warn!(session_id = %self.session, detail = error.detail(), "stream waits");
            }
            Err(error) => {
                tracing::error!(session_id = %self.session, detail = error.detail(), "stream ended");
                self.ready.push_back(frame::failed());
                self.ended = true;
            }
        }
    }

    async fn read(&mut self) -> store::Result<()> {
        let (app, session) = (self.app.clone(), self.session.clone());
        let store = &app.store;
        let mut end = store.end_of_log(&session).await?;
        let last_position = end.last_position;
        let (mut waiting, mut events) = (Vec::new(), Vec::new());
        if last_position > self.inbox.shown() {
            waiting = store.waiting_after(&session, self.inbox.shown()).await?;
            // What was taken before the look at what waits is in the log up to here.
            end = store.end_of_log(&session).await?;
        }
        if end.last_seq > self.last_seq {
            events = store.events_after(&session, self.last_seq, EVENTS_MAX).await?;
        }
        let read_to = events.last().and_then(|event| event.seq).unwrap_or(self.last_seq);
        let is_whole = read_to >= end.last_seq;
        self.ready.extend(self.inbox.arrived(&waiting, &events, is_whole));
        if is_whole && waiting.is_empty() {
            self.inbox.skip_to(last_position);
        }
        for event in &events {
            self.deltas.shown(event);
            self.ready.push_back(frame::event(event));
        }
        self.last_seq = read_to;
        if end.terminated && is_whole {
            self.ended = true;
        }
        let more = !is_whole && !events.is_empty() || self.inbox.shown() < last_position;
        if more {
            self.look_at = self.app.store.clock().monotonic();
        }
        Ok(())
    }
}
