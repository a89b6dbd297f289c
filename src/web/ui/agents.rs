//! The list of agents.

use std::collections::HashMap;

use askama::Template;
use axum::{extract::State, response::Response};

use super::{
    super::App,
    board::{self, Came},
    fault::Fault,
    guard::{Fields, Visitor},
    page as rendered,
    session::Badge,
    view::{Moment, Shell, dollars},
};
use crate::{
    clock::Timestamp,
    domain::{ManagedBy, agent::Agent, model::REHEARSAL, text::printable},
    id::{AgentId, Id},
    ingest::Snapshot,
    store::LastSession,
};

/// Agents on one page.
const LIST_MAX: usize = 50;

#[derive(Template)]
#[template(path = "agents.html")]
struct Page {
    shell: Shell,
    list: List,
}

/// The part that a page looks up again by itself.
#[derive(Template)]
#[template(path = "agents.html", block = "live")]
struct Live {
    list: List,
}

#[derive(Debug)]
struct List {
    rows: Vec<Row>,
    /// Of this list, for looking it up again, and for coming back to it.
    query: String,
    back: String,
    csrf: String,
    may_change: bool,
    with_archived: bool,
    has_archived: bool,
    next: Option<String>,
    /// Where agents are made, for the example of the empty page.
    url: String,
}

#[derive(Debug)]
struct Row {
    id: String,
    name: String,
    description: Option<String>,
    model: String,
    is_rehearsal: bool,
    version: i64,
    state: Badge,
    paused: bool,
    is_archived: bool,
    /// Today's, where there is any.
    cost: Option<String>,
    from_file: bool,
    session: Option<(String, Badge, Moment)>,
    delivery: Option<Moment>,
    token_set: bool,
}

pub(super) async fn page(
    State(app): State<App>,
    visitor: Visitor,
    query: Fields,
) -> Result<Response, Fault> {
    let with_archived = query.text("archived") == Some("1");
    let cursor: Option<AgentId> = query.text("page").and_then(|it| it.parse().ok());
    let agents = app.store.agents(with_archived, (None, None), cursor.clone(), LIST_MAX).await?;
    let ids = agents.data.iter().map(|agent| agent.id.clone()).collect();
    let sessions = app.store.last_sessions(ids).await?;
    let sessions: HashMap<AgentId, LastSession> =
        sessions.into_iter().map(|it| (it.agent_id.clone(), it)).collect();
    let snapshot = app.ingest.registry.snapshot();
    let came = board::came(&app, &snapshot).await?;
    let now = app.store.clock().now();
    let ids = agents.data.iter().map(|agent| agent.id.to_string()).collect();
    let costs = app.store.cost_today(ids).await?;
    let shown = |agent: &Agent| {
        let cost = costs.get(agent.id.as_str()).map(|cost| dollars(*cost));
        row(agent, &snapshot, sessions.get(&agent.id), &came, cost, now)
    };
    let archived = if with_archived { "&archived=1" } else { "" };
    let place = archived.to_owned() + &cursor.map_or_else(String::new, |it| format!("&page={it}"));
    let list = List {
        rows: agents.data.iter().map(shown).collect(),
        query: format!("part=live{place}"),
        back: format!("/agents?{}", place.trim_start_matches('&')),
        csrf: visitor.csrf.clone(),
        may_change: visitor.may_change,
        with_archived,
        has_archived: snapshot.agents.values().any(|agent| agent.archived_at.is_some()),
        next: agents.next,
        url: app.url("/api/agents"),
    };
    if query.text("part") == Some("live") {
        return rendered(&Live { list });
    }
    rendered(&Page { shell: Shell::new(visitor, "agents", now), list })
}

/// Whether it takes work.
pub(super) fn state(agent: &Agent) -> Badge {
    match (&agent.archived_at, agent.paused) {
        (Some(_), _) => Badge { class: "over", word: "archived" },
        (None, true) => Badge { class: "waiting", word: "paused" },
        (None, false) => Badge { class: "idle", word: "ready" },
    }
}

fn row(
    agent: &Agent,
    snapshot: &Snapshot,
    session: Option<&LastSession>,
    came: &Came,
    cost: Option<String>,
    now: Timestamp,
) -> Row {
    let entry = snapshot.agent_source(agent.id.as_str());
    // From its own endpoint, or from a source that leads to it.
    let sources = snapshot.sources().into_iter();
    let sources = sources
        .filter(|it| it.addresses().any(|it| it.agent.as_ref().is_ok_and(|it| it.id == agent.id)));
    let deliveries = sources.filter_map(|it| came.get(&it.source.id));
    let delivery = deliveries.map(|it| it.received_at).max();
    Row {
        id: agent.id.to_string(),
        name: printable(&agent.spec.name),
        description: agent.spec.description.as_deref().map(printable),
        model: printable(&agent.spec.model.id),
        is_rehearsal: agent.spec.model.id == REHEARSAL,
        version: agent.version,
        state: state(agent),
        paused: agent.paused,
        is_archived: agent.archived_at.is_some(),
        cost,
        from_file: agent.managed_by == ManagedBy::File,
        session: session.map(|it| {
            (it.id.to_string(), Badge::of(it.status, it.has_turn), Moment::new(it.updated_at, now))
        }),
        delivery: delivery.map(|at| Moment::new(at, now)),
        token_set: entry.is_some_and(|entry| entry.secrets.is_set()),
    }
}
