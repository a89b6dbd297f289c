//! A named source: where its sender sends to, what proves the sender, what came last and why nobody
//! got it.
//!
//! A bell of the board leads here. Left out: changing it, which the API and `bellpull sources` do.

use askama::Template;
use axum::{
    extract::{Path, State},
    response::{IntoResponse, Response},
};
use serde_json::json;

use super::{
    super::App,
    deliveries,
    fault::Fault,
    guard::{Fields, Posted, Visitor, is_fragment},
    page as rendered,
    view::{Moment, Shell},
};
use crate::{
    clock::Timestamp,
    domain::{ManagedBy, text::printable},
    ingest::{Entry, Sender, Snapshot},
};

#[derive(Template)]
#[template(path = "source.html")]
struct Page {
    shell: Shell,
    panel: Panel,
}

#[derive(Template)]
#[template(path = "source.html", block = "last")]
struct LastFragment {
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
    replayed: Option<deliveries::Replayed>,
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
    let snapshot = app.ingest.registry.snapshot();
    let panel = panel(&app, &visitor, find(&snapshot, &name)?).await?;
    if query.text("part") == Some("deliveries") {
        return rendered(&DeliveriesFragment { panel });
    }
    rendered(&Page { shell: Shell::new(visitor, "agents", app.store.clock().now()), panel })
}

pub(super) async fn replay(
    State(app): State<App>,
    Path(name): Path<String>,
    posted: Posted,
) -> Result<Response, Fault> {
    let Posted { visitor, form } = posted;
    let snapshot = app.ingest.registry.snapshot();
    let entry = find(&snapshot, &name)?;
    let replayed = deliveries::replay(&app, &visitor, &entry.source.id, &form.fields).await?;
    let status = replayed.status();
    let panel = Panel { replayed: Some(replayed), ..panel(&app, &visitor, entry).await? };
    let shell = Shell::new(visitor, "agents", app.store.clock().now());
    let page = if is_fragment(&form.headers) {
        rendered(&LastFragment { shell, panel })
    } else {
        rendered(&Page { shell, panel })
    };
    Ok((status, page?).into_response())
}

fn find<'a>(snapshot: &'a Snapshot, name: &str) -> Result<&'a Entry, Fault> {
    snapshot.named_source(name).ok_or_else(|| Fault::not_found("There is no such source."))
}

async fn panel(app: &App, visitor: &Visitor, entry: &Entry) -> Result<Panel, Fault> {
    let now = app.store.clock().now();
    let source = &entry.source;
    let agent = entry.address.agent.as_ref().ok();
    Ok(Panel {
        name: printable(&source.name),
        url: app.url(&source.path()),
        broken: entry.broken().map(printable),
        paused: source.paused,
        from_file: source.managed_by == ManagedBy::File,
        sender: entry.sender.as_ref().map(sender).unwrap_or_default(),
        secret: secret(entry, now),
        agent: agent.map(|agent| (agent.id.to_string(), printable(&agent.name))),
        deliveries: deliveries::last(app, visitor, &source.id, now).await?,
        replayed: None,
    })
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
