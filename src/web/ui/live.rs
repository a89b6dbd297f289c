//! A session's transcript as it grows: HTML in server-sent events.
//!
//! Each frame carries elements that htmx puts in place by their ids, so a repeated one does no harm;
//! its id is a number of the log, and a browser that comes back with it goes on right there. The loop
//! is that of every stream here: register, look, send, wait. Text that is still being written is one
//! element of its own, always sent whole, and emptied when the log has the finished event.

use std::{
    collections::{HashMap, VecDeque},
    pin::Pin,
    time::Duration,
};

use askama::Template;
use axum::{
    body::Bytes,
    extract::{Path, State},
    http::HeaderMap,
    response::Response,
};
use tokio::time::Sleep;

use super::{
    super::{
        App,
        stream::{Slot, server_sent},
    },
    entry::Context,
    fault::Fault,
    guard::{Fields, Visitor, still_opens},
    session::{Head, HeadFragment},
    view::Markup,
    visitors::Hash,
};
use crate::{
    clock::Timestamp,
    domain::{
        event::{Event, EventBody},
        session::{Session, Status},
    },
    id::{EventId, SessionId},
    preview::{Listener, Preview},
    signal::Changes,
};

/// Entries read at once.
const READ_EVENTS: usize = 200;

/// How often the log is looked at when nobody says that it has grown.
const POLL: Duration = Duration::from_secs(2);

/// Bytes of a text that is being written; what is longer is shown when it is finished.
const DRAFT_BYTES_MAX: usize = 64 * 1024;

/// A draft is sent whole each time, so the longer it is the less often: this many bytes a
/// millisecond, and never faster than the eye.
const DRAFT_BYTES_PER_MS: usize = 40;
const DRAFT_PAUSE_MIN: Duration = Duration::from_millis(80);

/// Finished messages whose late pieces are known to be late.
const FINISHED_MAX: usize = 8;

pub(super) async fn stream(
    State(app): State<App>,
    visitor: Visitor,
    Path(id): Path<String>,
    headers: HeaderMap,
    query: Fields,
) -> Result<Response, Fault> {
    let id: SessionId = id.parse().map_err(|_| Fault::not_found("There is no such session."))?;
    let slot = app.open_stream().map_err(Fault::full)?;
    let (changes, previews) = (app.signals.watch(&id), app.previews.listen(&id));
    // Whether there is one, before there is a stream.
    let session = app.store.session(&id).await?;
    let last = headers.get("last-event-id").and_then(|it| it.to_str().ok());
    let after = last.and_then(|it| it.parse().ok());
    let after = after.or_else(|| query.text("after").and_then(|it| it.parse().ok()));
    let after = after.unwrap_or(session.next_seq - 1).max(0);
    let calls = begun(&app, &session, after).await?;
    let live = Live {
        id,
        entry: visitor.entry,
        may_change: visitor.may_change,
        after,
        position: 0,
        head: String::new(),
        status: session.status,
        draft: Draft::default(),
        calls,
        frames: VecDeque::from([frame(None, Draft::default().render()?.as_str())]),
        heartbeat: app.options().heartbeat,
        looked: false,
        changes,
        previews,
        app,
        _slot: slot,
    };
    Ok(server_sent(futures_util::stream::unfold(live, async |mut live| {
        let frame = live.next().await?;
        Some((frame, live))
    })))
}

struct Live {
    app: App,
    _slot: Slot,
    id: SessionId,
    /// Who watches, and whether they may change something.
    entry: Hash,
    may_change: bool,
    /// The last number of the log that was sent.
    after: i64,
    /// The last position of the inbox that was sent on this connection.
    position: i64,
    /// The head as it was sent last.
    head: String,
    status: Status,
    draft: Draft,
    /// Calls that have no result yet, with when they began. Few: a turn waits for them.
    calls: HashMap<EventId, Timestamp>,
    frames: VecDeque<Bytes>,
    heartbeat: Duration,
    looked: bool,
    changes: Changes,
    previews: Listener,
}

impl Live {
    /// The next piece of the answer; `None` ends it.
    async fn next(&mut self) -> Option<Bytes> {
        let mut silence = Box::pin(tokio::time::sleep(self.heartbeat));
        loop {
            if let Some(frame) = self.frames.pop_front() {
                return Some(frame);
            }
            let stopping = self.app.shutdown.is_cancelled();
            if stopping || !still_opens(&self.app, &self.entry) {
                return None;
            }
            if !self.looked {
                self.looked = true;
                if let Err(fault) = self.look().await {
                    tracing::warn!(session_id = %self.id, ?fault, "a live page was ended");
                    return None;
                }
                continue;
            }
            tokio::select! {
                biased;
                () = self.app.shutdown.cancelled() => return None,
                () = self.changes.wait() => self.looked = false,
                () = wait(&mut self.draft.due) => {
                    self.draft.due = None;
                    let html = self.draft.render().ok()?;
                    self.frames.push_back(frame(None, html.as_str()));
                }
                piece = self.previews.next() => self.draft.take(piece, self.status),
                () = &mut silence => return Some(Bytes::from_static(b": \n\n")),
                () = tokio::time::sleep(POLL) => self.looked = false,
            }
        }
    }

    /// Sends what is new in the log, in the inbox and about the session.
    async fn look(&mut self) -> Result<(), Fault> {
        let session = self.app.store.session(&self.id).await?;
        self.status = session.status;
        if session.next_seq - 1 > self.after {
            self.look_at_log(&session).await?;
        }
        if session.n_waiting > 0 {
            self.look_at_inbox(&session).await?;
        }
        let head = Markup::render(&HeadFragment { head: Head::new(&session, self.may_change) })?;
        if head.as_str() != self.head {
            self.frames.push_back(frame(None, head.as_str()));
            self.head = head.into_text();
        }
        Ok(())
    }

    fn context<'a>(&self, session: &'a Session) -> Context<'a> {
        Context { session, now: self.app.store.clock().now(), may_answer: self.may_change }
    }

    async fn look_at_log(&mut self, session: &Session) -> Result<(), Fault> {
        let events = self.app.store.events_after(&self.id, self.after, READ_EVENTS).await?;
        let context = self.context(session);
        for event in &events {
            let began = note(&mut self.calls, event);
            let mut html = context.live(event, began)?.unwrap_or_default();
            if self.draft.is_over(&event.body, &event.id) {
                html = html.and(&self.draft.render()?);
            }
            self.after = event.seq.unwrap_or(self.after);
            self.frames.push_back(frame(Some(self.after), html.as_str()));
        }
        // Large ones come in small numbers: if there are more, the next look is at once.
        self.looked = events.is_empty() || self.after + 1 >= session.next_seq;
        Ok(())
    }

    async fn look_at_inbox(&mut self, session: &Session) -> Result<(), Fault> {
        let context = self.context(session);
        for (position, event) in self.app.store.waiting_after(&self.id, self.position).await? {
            self.position = position;
            if let Some(html) = context.waiting(position, &event)? {
                self.frames.push_back(frame(None, html.as_str()));
            }
        }
        Ok(())
    }
}

/// Events before those that a stream sends in which a call without a result is looked for.
const CALLS_BEFORE: usize = 100;

/// The calls that were begun before and may get their results on this stream.
async fn begun(
    app: &App,
    session: &Session,
    after: i64,
) -> Result<HashMap<EventId, Timestamp>, Fault> {
    let mut calls = HashMap::new();
    if session.turn_id.is_some() {
        let from = (after - CALLS_BEFORE as i64).max(0);
        for event in app.store.events_after(&session.id, from, CALLS_BEFORE).await? {
            if event.seq.is_some_and(|seq| seq <= after) {
                note(&mut calls, &event);
            }
        }
    }
    Ok(calls)
}

/// Remembers when a call began, and tells it for its result.
fn note(calls: &mut HashMap<EventId, Timestamp>, event: &Event) -> Option<Timestamp> {
    if matches!(
        event.body,
        EventBody::AgentToolUse { .. }
            | EventBody::AgentMcpToolUse { .. }
            | EventBody::AgentCustomToolUse { .. }
    ) {
        calls.extend(event.processed_at.map(|at| (event.id.clone(), at)));
    }
    event.body.as_result().and_then(|(call, ..)| calls.remove(call))
}

async fn wait(due: &mut Option<Pin<Box<Sleep>>>) {
    match due {
        Some(due) => due.await,
        None => std::future::pending().await,
    }
}

/// Text that is being written.
#[derive(Default)]
struct Draft {
    event: Option<EventId>,
    text: String,
    /// When what was added is sent.
    due: Option<Pin<Box<Sleep>>>,
    /// Messages that the log has: pieces of them come too late.
    finished: VecDeque<EventId>,
}

#[derive(Template)]
#[template(path = "draft.html")]
pub(super) struct DraftFragment {
    pub(super) html: Option<Markup>,
}

impl Draft {
    fn render(&self) -> Result<Markup, Fault> {
        let html = self.event.is_some().then(|| Markup::of_markdown(&self.text));
        Markup::render(&DraftFragment { html })
    }

    fn take(&mut self, piece: Option<Preview>, status: Status) {
        let (event_id, text, begins) = match piece {
            Some(Preview::Start { event_id }) => (event_id, String::new(), true),
            Some(Preview::Text { event_id, text, .. }) => (event_id, text, false),
            Some(Preview::Request { .. } | Preview::Thinking { .. }) => return,
            // Pieces were missed; what follows is shown behind a gap.
            None => {
                self.text = "… ".to_owned();
                return;
            }
        };
        if status != Status::Running || self.finished.contains(&event_id) {
            return;
        }
        if self.event.as_ref() != Some(&event_id) {
            self.event = Some(event_id);
            // Whoever comes later sees that there was more.
            self.text = if begins { String::new() } else { "… ".to_owned() };
        }
        if self.text.len() < DRAFT_BYTES_MAX {
            self.text.push_str(&text);
            let ms = (self.text.len() / DRAFT_BYTES_PER_MS) as u64;
            let pause = DRAFT_PAUSE_MIN.max(Duration::from_millis(ms));
            self.due.get_or_insert_with(|| Box::pin(tokio::time::sleep(pause)));
        }
    }

    /// Whether an event of the log ends what is being written; if so, it is empty now.
    fn is_over(&mut self, body: &EventBody, id: &EventId) -> bool {
        if matches!(body, EventBody::ModelRequestStart | EventBody::UserMessage { .. }) {
            return false;
        }
        let open = self.event.take();
        let was_open = open.is_some();
        self.finished.extend(open);
        if matches!(body, EventBody::AgentMessage { .. }) {
            self.finished.push_back(id.clone());
        }
        let n_surplus = self.finished.len().saturating_sub(FINISHED_MAX);
        self.finished.drain(..n_surplus);
        self.text.clear();
        self.due = None;
        was_open
    }
}

/// One server-sent event. A carriage return would end a line too.
fn frame(id: Option<i64>, html: &str) -> Bytes {
    let mut out = id.map_or_else(String::new, |id| format!("id: {id}\n"));
    for line in html.replace('\r', "&#13;").lines() {
        out.push_str("data: ");
        out.push_str(line);
        out.push('\n');
    }
    out.push('\n');
    out.into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::Id;

    #[test]
    fn a_frame_is_one_event_whatever_is_in_it() {
        assert_eq!(
            frame(Some(3), "<p>\r\n\nid: 4</p>"),
            "id: 3\ndata: <p>&#13;\ndata: \ndata: id: 4</p>\n\n"
        );
        assert_eq!(frame(Some(3), ""), "id: 3\n\n");
    }

    #[tokio::test]
    async fn late_pieces_of_a_finished_message_change_nothing() {
        let (id, mut draft) = (EventId::new(Timestamp(0)), Draft::default());
        let piece = |text: &str| {
            Some(Preview::Text { event_id: id.clone(), index: 0, text: text.to_owned() })
        };
        draft.take(Some(Preview::Start { event_id: id.clone() }), Status::Running);
        draft.take(piece("hello"), Status::Running);
        assert_eq!(draft.text, "hello");
        assert!(draft.is_over(&EventBody::AgentMessage { content: Vec::new() }, &id));
        draft.take(piece(" again"), Status::Running);
        assert_eq!((draft.event, draft.text.as_str()), (None, ""));

        let mut late = Draft::default();
        late.take(piece("world"), Status::Running);
        assert_eq!(late.text, "… world");
        let mut idle = Draft::default();
        idle.take(piece("world"), Status::Idle);
        assert!(idle.event.is_none());
    }
}
