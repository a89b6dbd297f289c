//! A named source: where its sender sends to, what proves the sender, what came last and why nobody
//! got it.
//!
//! A bell of the board leads here. Left out: changing it, which the API and `bellpull sources` do.

use askama::Template;
use axum::{
    extract::{Path, State},
    response::Response,
};
use serde_json::json;

use super::{
    super::App,
    deliveries,
    fault::Fault,
    guard::{Fields, Visitor},
    page as rendered,
    view::{Moment, Shell},
};
use crate::{
    clock::Timestamp,
    domain::{ManagedBy, text::printable},
    ingest::{Entry, Sender},
};

#[derive(Template)]
#[template(path = "source.html")]
struct Page {
    shell: Shell,
    panel: Panel,
}

#[derive(Template)]
#[template(path = "source.html", block = "deliveries")]
struct DeliveriesFragment {
    panel: Panel,
}

#[derive(Debug)]
struct Panel {
    name: String,
    url: String,
    /// Why it holds what comes in.
    broken: Option<String>,
    paused: bool,
    from_file: bool,
    sender: String,
    secret: Secret,
    /// Whom it leads to where no rule says otherwise: id and name.
    agent: Option<(String, String)>,
    deliveries: Vec<deliveries::Row>,
}

#[derive(Debug)]
enum Secret {
    NotWanted,
    Missing,
    Set {
        version: i64,
        /// When the one before stops to count.
        previous_until: Option<Moment>,
    },
}

pub(super) async fn page(
    State(app): State<App>,
    visitor: Visitor,
    Path(name): Path<String>,
    query: Fields,
) -> Result<Response, Fault> {
    let now = app.store.clock().now();
    let snapshot = app.ingest.registry.snapshot();
    let entry = snapshot.named_source(&name);
    let entry = entry.ok_or_else(|| Fault::not_found("There is no such source."))?;
    let source = &entry.source;
    let agent = entry.address.agent.as_ref().ok();
    let panel = Panel {
        name: printable(&source.name),
        url: app.url(&source.path()),
        broken: entry.broken().map(printable),
        paused: source.paused,
        from_file: source.managed_by == ManagedBy::File,
        sender: entry.sender.as_ref().map(sender).unwrap_or_default(),
        secret: secret(entry, now),
        agent: agent.map(|agent| (agent.id.to_string(), printable(&agent.name))),
        deliveries: deliveries::last(&app, &source.id, now).await?,
    };
    if query.text("part") == Some("deliveries") {
        return rendered(&DeliveriesFragment { panel });
    }
    rendered(&Page { shell: Shell::new(visitor, "agents", now), panel })
}

/// The sender's name where it is known, else what opens the gate.
fn sender(sender: &Sender) -> String {
    match sender.preset {
        Some(preset) => preset.title.clone(),
        None => json!(sender.verifier)["type"].as_str().unwrap_or_default().to_owned(),
    }
}

fn secret(entry: &Entry, now: Timestamp) -> Secret {
    let mut secrets = entry.secrets.names(now);
    match secrets.next() {
        _ if !entry.secrets.is_wanted() => Secret::NotWanted,
        None => Secret::Missing,
        Some((newest, _)) => {
            let previous = secrets.find_map(|(_, until)| until);
            let previous_until = previous.map(|until| Moment::new(until, now));
            Secret::Set { version: newest.version, previous_until }
        }
    }
}
