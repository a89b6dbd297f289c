//! Finding by a few letters: pages, agents, sources, and sessions and deliveries by their ids.
//!
//! Everything is in memory, so an answer costs no look at the database: whether an id leads to
//! something is told by the page it leads to. The palette asks for the list alone.

use askama::Template;
use axum::{extract::State, response::Response};

use super::{
    super::App,
    fault::Fault,
    guard::{Fields, Visitor},
    navigation::GROUPS,
    page as rendered,
    view::Shell,
};
use crate::{
    domain::{source::SourceKind, text::printable},
    id::{AgentId, DeliveryId, Id, SessionId},
    ingest::Snapshot,
};

/// What is listed at most.
const FOUND_MAX: usize = 20;

/// Characters of what is looked for.
const QUERY_CHARS_MAX: usize = 200;

#[derive(Debug)]
struct Found {
    kind: &'static str,
    name: String,
    href: String,
}

#[derive(Template)]
#[template(path = "find.html")]
struct Page {
    shell: Shell,
    query: String,
    found: Vec<Found>,
}

#[derive(Template)]
#[template(path = "find.html", block = "found")]
struct Fragment {
    found: Vec<Found>,
}

pub(super) async fn page(
    State(app): State<App>,
    visitor: Visitor,
    fields: Fields,
) -> Result<Response, Fault> {
    let query: String = fields.text("q").unwrap_or_default().trim().to_owned();
    let query: String = query.chars().take(QUERY_CHARS_MAX).collect();
    let found = find(&app.ingest.registry.snapshot(), &query);
    if fields.text("part") == Some("found") {
        return rendered(&Fragment { found });
    }
    let shell = Shell::new(visitor, "find", app.store.clock().now());
    rendered(&Page { shell, query, found })
}

fn find(snapshot: &Snapshot, query: &str) -> Vec<Found> {
    if let Some(found) = by_id(query) {
        return vec![found];
    }
    let wanted = query.to_lowercase();
    let fits = |texts: &[&str]| texts.iter().any(|text| text.to_lowercase().contains(&wanted));
    let pages = GROUPS.iter().flat_map(|(_, places)| places.iter());
    let pages = pages.filter(|place| fits(&[place.word])).map(|place| Found {
        kind: "page",
        name: place.word.to_owned(),
        href: place.path.to_owned(),
    });
    let mut agents: Vec<_> = snapshot.agents.values().collect();
    agents.sort_by_key(|agent| (agent.archived_at.is_some(), agent.spec.name.to_lowercase()));
    let agents = agents.into_iter();
    let agents = agents.filter(|agent| fits(&[&agent.spec.name, agent.id.as_str()]));
    let agents = agents.map(|agent| Found {
        kind: "agent",
        name: printable(&agent.spec.name),
        href: format!("/agents/{}", agent.id),
    });
    let sources = snapshot.sources();
    let sources = sources.iter().filter(|entry| entry.source.kind == SourceKind::Named);
    let sources = sources.filter(|entry| fits(&[&entry.source.name, entry.source.id.as_str()]));
    let sources = sources.map(|entry| Found {
        kind: "source",
        name: printable(&entry.source.name),
        href: format!("/sources/{}", entry.source.name),
    });
    pages.chain(agents).chain(sources).take(FOUND_MAX).collect()
}

fn by_id(query: &str) -> Option<Found> {
    let found = |kind, href| Some(Found { kind, name: query.to_owned(), href });
    if let Ok(id) = query.parse::<SessionId>() {
        return found("session", format!("/sessions/{id}"));
    }
    if let Ok(id) = query.parse::<DeliveryId>() {
        return found("delivery", format!("/deliveries/{id}"));
    }
    if let Ok(id) = query.parse::<AgentId>() {
        return found("agent", format!("/agents/{id}"));
    }
    None
}
