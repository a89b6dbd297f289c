//! The list of sessions, and the transcript of one.

use askama::Template;
use axum::{
    extract::{Path, State},
    http::StatusCode,
    response::{IntoResponse, Redirect, Response},
};

use super::{
    super::App,
    delivery_list::Choice,
    entry::{self, Context},
    fault::Fault,
    form::searched,
    guard::{Fields, Posted, Visitor, is_fragment},
    live::DraftFragment,
    overview::source_name,
    page as rendered, place,
    session_side::{self, side},
    view::{Markup, Moment, Shell, count, short},
};
use crate::{
    domain::{
        event::{Confirmed, Event},
        model::REHEARSAL,
        session::{Session, Status},
        text::printable,
    },
    id::{AgentId, EventId, Id, SessionId},
    ingest::Snapshot,
    store::{EventFilter, Said, SessionFilter},
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
struct ListPage {
    shell: Shell,
    form: Filters,
    list: List,
}

#[derive(Template)]
#[template(path = "sessions.html", block = "live")]
struct ListFragment {
    list: List,
}

struct List {
    rows: Vec<Row>,
    /// Of this list, for looking it up again; none on later pages, and where nothing was found yet.
    again: Option<String>,
    /// The query of the next page.
    next: Option<String>,
    is_filtered: bool,
    /// Whether an empty list goes on to the next page by itself; not where it was looked up again.
    goes_on: bool,
}

/// What the list is filtered by, as it was written.
struct Filters {
    agents: Vec<Choice>,
    sources: Vec<Choice>,
    statuses: Vec<Choice>,
    title: String,
    is_used: bool,
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
    /// Idle, as the API has it, is also who waits for somebody to allow a call, and that is not at rest.
    pub(super) fn of(status: Status, has_turn: bool) -> Badge {
        let (class, word) = match status {
            Status::Idle if has_turn => ("waiting", "waiting"),
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
            None => Badge::of(session.status, session.turn_id.is_some()),
        }
    }
}

/// What a session is called where nobody gave it a title.
pub(super) fn title(session: &Session) -> String {
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
    let snapshot = app.ingest.registry.snapshot();
    let status = query.text("status");
    let filter = SessionFilter {
        agent_id: query.text("agent").and_then(|it| it.parse().ok()),
        source_id: query.text("source").and_then(|it| it.parse().ok()),
        statuses: status.and_then(Status::parse).into_iter().collect(),
        title_has: query.text("title").map(searched).filter(|it| !it.is_empty()),
        include_archived: status != Some("terminated"),
        cursor: query.text("page").and_then(|it| it.parse().ok()),
        limit: LIST_MAX,
        ..SessionFilter::default()
    };
    let page = app.store.sessions(filter).await?;
    let now = app.store.clock().now();
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
    let form = filters(&snapshot, &query);
    let with = |name, value: &str| {
        let mut out = form_urlencoded::Serializer::new(String::new());
        out.append_pair(name, value);
        for name in FILTERS {
            if let Some(value) = query.text(name) {
                out.append_pair(name, value);
            }
        }
        out.finish()
    };
    let rows: Vec<Row> = rows.collect();
    // An empty page that is not the last one goes on to the next instead.
    let is_new = query.text("page").is_none() && (!rows.is_empty() || page.next.is_none());
    let list = List {
        rows,
        again: is_new.then(|| with("part", "live")),
        next: page.next.map(|next| with("page", &next)),
        is_filtered: form.is_used,
        goes_on: !query.is_again(),
    };
    if query.text("part") == Some("live") {
        return rendered(&ListFragment { list });
    }
    let shell = Shell::new(visitor, "sessions", now);
    rendered(&ListPage { shell, form, list })
}

const FILTERS: [&str; 4] = ["agent", "source", "status", "title"];

fn filters(snapshot: &Snapshot, query: &Fields) -> Filters {
    let text = |name: &str| query.text(name).unwrap_or_default().to_owned();
    let (agent, source, status) = (text("agent"), text("source"), text("status"));
    let mut agents: Vec<_> = snapshot.agents.values().collect();
    agents.sort_by_key(|agent| agent.spec.name.to_lowercase());
    let agents =
        agents.iter().map(|it| Choice::new(it.id.as_str(), printable(&it.spec.name), &agent));
    let mut sources = snapshot.sources();
    sources.sort_by_key(|it| it.display_name().to_lowercase());
    let sources = sources.iter().map(|it| {
        Choice::new(it.source.id.as_str(), source_name(snapshot, &it.source.name), &source)
    });
    Filters {
        agents: agents.collect(),
        sources: sources.collect(),
        statuses: Status::ALL.map(|it| Choice::new(it.as_str(), it.as_str(), &status)).into(),
        title: printable(&text("title")),
        is_used: query.has_any(&FILTERS),
    }
}

/// What changes about a session while it is looked at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Head {
    status: Badge,
    n_waiting: i64,
    usage: String,
    seconds: String,
    /// Whether there is anything to stop, for one who may.
    may_stop: bool,
}

impl Head {
    pub(super) fn new(session: &Session, may_change: bool) -> Head {
        Head {
            status: Badge::of_session(session),
            n_waiting: session.n_waiting,
            usage: entry::usage(&session.usage, session.cost.total()),
            seconds: format!("{}.{}", session.active_ms / 1000, session.active_ms % 1000 / 100),
            may_stop: may_change && session.turn_id.is_some(),
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
    /// What goes with it; not on pages of older events.
    side: Option<Markup>,
    /// Whether more can be said in it.
    is_open: bool,
    /// Of a visitor who may answer and stop.
    csrf: Option<String>,
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
    if query.text("part") == Some("side") {
        return session_side::fragment(&app, &visitor, &session, &query, now).await;
    }
    let context = Context { session: &session, now, may_answer: visitor.may_change };
    let events = newest(&app, &id, end).await?;
    let first = events.first().and_then(|event| event.seq).unwrap_or(1);
    let waiting = match before {
        None if session.n_waiting > 0 => app.store.waiting_after(&id, 0).await?,
        None | Some(_) => Vec::new(),
    };
    let waiting = waiting.iter().map(|(position, event)| context.waiting(*position, event));
    let waiting = waiting.filter_map(Result::transpose).collect::<Result<Vec<_>, _>>()?;
    let side = match before {
        None => Some(side(&app, &visitor, &session, &query, now).await?),
        Some(_) => None,
    };
    rendered(&Page {
        side,
        is_open: session.archived_at.is_none() && session.status != Status::Terminated,
        head: Head::new(&session, visitor.may_change),
        id: session.id.to_string(),
        title: title(&session),
        agent: printable(&session.agent.name),
        agent_id: session.agent_id.to_string(),
        version: session.agent_version,
        model: printable(&session.agent.model.id),
        is_rehearsal: session.agent.model.id == REHEARSAL,
        source: rang(&session, &app.ingest.registry.snapshot()),
        created: Moment::new(session.created_at, now),
        entries: context.page(&events)?,
        waiting,
        draft: Markup::render(&DraftFragment { html: None })?,
        live_after: before.is_none().then_some(end - 1),
        earlier: (first > 1).then_some(first),
        csrf: visitor.may_change.then(|| visitor.csrf.clone()),
        shell: Shell::new(visitor, "sessions", now),
    })
}

/// What a person says with a button: about a call that waits, or that the turn shall stop.
pub(super) async fn answer(
    State(app): State<App>,
    Path(id): Path<String>,
    posted: Posted,
) -> Result<Response, Fault> {
    let Posted { visitor, form } = posted;
    let id: SessionId = id.parse().map_err(|_| Fault::not_found("There is no such session."))?;
    let event_id = EventId::new(app.store.clock().now());
    let call = |name| form.fields.text(name).and_then(|call| call.parse().ok());
    let said = |call, result| Said::Answer {
        event_id: event_id.clone(),
        call,
        result,
        deny_message: None,
    };
    let (said, word) = match (call("allow"), call("deny"), form.fields.text("stop")) {
        (Some(call), ..) => (said(call, Confirmed::Allow), "allowed"),
        (_, Some(call), _) => (said(call, Confirmed::Deny), "denied"),
        (.., Some(_)) => (Said::Interrupt { event_id }, "stopped"),
        _ => return Err(Fault::invalid("This is not a form of ours.")),
    };
    app.store.say(&id, vec![said], 0, visitor.name).await?;
    app.ring(&id);
    if is_fragment(&form.headers) {
        // The live stream shows what comes of it.
        return Ok(StatusCode::NO_CONTENT.into_response());
    }
    if form.fields.text("back").is_some() {
        return Ok(place::done(place::back(&form.fields, "/needs"), word));
    }
    Ok(Redirect::to(&format!("/sessions/{id}")).into_response())
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
        n_chars += page.data.iter().map(entry::chars).sum::<usize>();
        events.extend(page.data);
        cursor = page.next.filter(|_| events.len() < EVENTS_MAX && n_chars < CHARS_MAX);
    }
    events.reverse();
    Ok(events)
}
