//! The list of sessions, and the transcript of one.

use askama::Template;
use axum::{
    extract::{Path, State},
    response::Response,
};

use super::{
    super::App,
    entry::{self, Context},
    fault::Fault,
    guard::{Fields, Visitor},
    live::DraftFragment,
    page as rendered,
    view::{Markup, Moment, Shell, count, short},
};
use crate::{
    domain::{
        event::Event,
        model::REHEARSAL,
        session::{Session, Status},
        text::printable,
    },
    id::{AgentId, Id, SessionId},
    ingest::Snapshot,
    store::{EventFilter, SessionFilter},
};

/// Sessions on one page of the list.
const LIST_MAX: usize = 50;

/// Events on one page of a transcript, and characters of text in them; more are on earlier pages.
const EVENTS_MAX: usize = 400;
const CHARS_MAX: usize = 1_000_000;

/// Events read at once: each may be as large as a body.
const READ_EVENTS: usize = 50;

#[derive(Template)]
#[template(path = "sessions.html")]
struct List {
    shell: Shell,
    rows: Vec<Row>,
    /// Only sessions of this agent.
    agent: Option<(String, String)>,
    next: Option<String>,
}

#[derive(Debug)]
struct Row {
    id: String,
    title: String,
    status: Badge,
    agent: String,
    agent_id: String,
    source: Option<Rang>,
    n_waiting: i64,
    tokens: Option<String>,
    changed: Moment,
}

/// A state, as a word and a colour.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Badge {
    pub(super) class: &'static str,
    pub(super) word: &'static str,
}

impl Badge {
    pub(super) fn of(status: Status) -> Badge {
        let (class, word) = match status {
            Status::Idle => ("idle", "idle"),
            Status::Running => ("running", "running"),
            Status::Rescheduling => ("waiting", "rescheduling"),
            Status::Terminated => ("over", "terminated"),
        };
        Badge { class, word }
    }

    fn of_session(session: &Session) -> Badge {
        match session.archived_at {
            Some(_) => Badge { class: "over", word: "archived" },
            None => Badge::of(session.status),
        }
    }
}

/// What a session is called where nobody gave it a title.
fn title(session: &Session) -> String {
    match (&session.title, &session.source_name) {
        (Some(title), _) if !title.trim().is_empty() => printable(title),
        // An agent's own source is called by the agent's id, which says nothing to a person.
        (_, Some(source)) if source.parse::<AgentId>().is_err() => format!("Bell of {source}"),
        (_, Some(_)) => format!("Bell of {}", printable(&session.agent.name)),
        (_, None) => format!("Session {}", short(session.id.as_str())),
    }
}

/// Who rang: a named source or the agent's own webhook.
#[derive(Debug)]
struct Rang {
    name: String,
    /// Its page, as long as it is there.
    href: Option<String>,
}

fn rang(session: &Session, snapshot: &Snapshot) -> Option<Rang> {
    let name = session.source_name.as_deref()?;
    Some(match name.parse::<AgentId>() {
        Ok(id) => {
            let is_there = snapshot.agents.contains_key(&id);
            let href = is_there.then(|| format!("/agents/{id}/webhook"));
            Rang { name: "webhook".to_owned(), href }
        }
        Err(_) => {
            let is_there = snapshot.named_source(name).is_some();
            Rang { name: printable(name), href: is_there.then(|| format!("/sources/{name}")) }
        }
    })
}

fn tokens(session: &Session) -> i64 {
    let usage = &session.usage;
    usage.input_tokens
        + usage.cache_creation_input_tokens
        + usage.cache_read_input_tokens
        + usage.output_tokens
}

pub(super) async fn list(
    State(app): State<App>,
    visitor: Visitor,
    query: Fields,
) -> Result<Response, Fault> {
    let agent_id: Option<AgentId> = query.text("agent").and_then(|it| it.parse().ok());
    let filter = SessionFilter {
        agent_id: agent_id.clone(),
        include_archived: true,
        cursor: query.text("page").and_then(|it| it.parse().ok()),
        limit: LIST_MAX,
        ..SessionFilter::default()
    };
    let page = app.store.sessions(filter).await?;
    let now = app.store.clock().now();
    let snapshot = app.ingest.registry.snapshot();
    let agent = agent_id.map(|id| {
        let name = snapshot.agents.get(&id).map_or("?", |agent| agent.spec.name.as_str());
        (id.to_string(), printable(name))
    });
    let rows = page.data.iter().map(|session| Row {
        id: session.id.to_string(),
        title: title(session),
        status: Badge::of_session(session),
        agent: printable(&session.agent.name),
        agent_id: session.agent_id.to_string(),
        source: rang(session, &snapshot),
        n_waiting: session.n_waiting,
        tokens: Some(tokens(session)).filter(|n| *n > 0).map(count),
        changed: Moment::new(session.updated_at, now),
    });
    let rows = rows.collect();
    let shell = Shell::new(visitor, "sessions", now);
    rendered(&List { shell, rows, agent, next: page.next })
}

/// What changes about a session while it is looked at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Head {
    status: Badge,
    n_waiting: i64,
    usage: String,
    seconds: String,
}

impl Head {
    pub(super) fn new(session: &Session) -> Head {
        Head {
            status: Badge::of_session(session),
            n_waiting: session.n_waiting,
            usage: entry::usage(&session.usage, session.cost.total()),
            seconds: format!("{}.{}", session.active_ms / 1000, session.active_ms % 1000 / 100),
        }
    }
}

#[derive(Template)]
#[template(path = "session.html", block = "head")]
pub(super) struct HeadFragment {
    pub(super) head: Head,
}

#[derive(Template)]
#[template(path = "session.html")]
struct Page {
    shell: Shell,
    head: Head,
    id: String,
    title: String,
    agent: String,
    agent_id: String,
    version: i64,
    model: String,
    is_rehearsal: bool,
    source: Option<Rang>,
    created: Moment,
    entries: Vec<Markup>,
    waiting: Vec<Markup>,
    draft: Markup,
    /// The number that the live stream goes on after; none on a page of older events.
    live_after: Option<i64>,
    /// The first number on this page, when there are earlier ones.
    earlier: Option<i64>,
}

pub(super) async fn page(
    State(app): State<App>,
    visitor: Visitor,
    Path(id): Path<String>,
    query: Fields,
) -> Result<Response, Fault> {
    let id: SessionId = id.parse().map_err(|_| Fault::not_found("There is no such session."))?;
    let session = app.store.session(&id).await?;
    let now = app.store.clock().now();
    let before: Option<i64> = query.text("before").and_then(|it| it.parse().ok());
    let end = before.unwrap_or(i64::MAX).clamp(1, session.next_seq);
    let context = Context { session: &session, now };
    let events = newest(&app, &id, end).await?;
    let first = events.first().and_then(|event| event.seq).unwrap_or(1);
    let waiting = match before {
        None if session.n_waiting > 0 => app.store.waiting_after(&id, 0).await?,
        None | Some(_) => Vec::new(),
    };
    let waiting = waiting.iter().map(|(position, event)| context.waiting(*position, event));
    let waiting = waiting.filter_map(Result::transpose).collect::<Result<Vec<_>, _>>()?;
    rendered(&Page {
        head: Head::new(&session),
        id: session.id.to_string(),
        title: title(&session),
        agent: printable(&session.agent.name),
        agent_id: session.agent_id.to_string(),
        version: session.agent_version,
        model: session.agent.model.id.clone(),
        is_rehearsal: session.agent.model.id == REHEARSAL,
        source: rang(&session, &app.ingest.registry.snapshot()),
        created: Moment::new(session.created_at, now),
        entries: context.page(&events)?,
        waiting,
        draft: Markup::render(&DraftFragment { html: None })?,
        live_after: before.is_none().then_some(end - 1),
        earlier: (first > 1).then_some(first),
        shell: Shell::new(visitor, "sessions", now),
    })
}

/// The events before a number, as many as fit on a page, oldest first.
async fn newest(app: &App, id: &SessionId, end: i64) -> Result<Vec<Event>, Fault> {
    let (mut events, mut n_chars) = (Vec::new(), 0);
    let mut cursor = Some(end.to_string());
    while let Some(end) = cursor.take() {
        let filter = EventFilter {
            newest_first: true,
            cursor: Some(end),
            limit: READ_EVENTS,
            ..EventFilter::default()
        };
        let page = app.store.events(id, filter).await?;
        n_chars += page.data.iter().map(|it| entry::chars(&it.body)).sum::<usize>();
        events.extend(page.data);
        cursor = page.next.filter(|_| events.len() < EVENTS_MAX && n_chars < CHARS_MAX);
    }
    events.reverse();
    Ok(events)
}
