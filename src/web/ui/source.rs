//! A named source: where its sender sends to, what proves the sender, what came last and why nobody
//! got it.
//!
//! A bell of the board leads here. Whoever may change it finds the forms of `source_acts` here.

use askama::Template;
use axum::{
    extract::{Path, State},
    response::Response,
};
use serde_json::json;

use super::{
    super::App,
    deliveries::Last,
    fault::Fault,
    form::{OVERLAPS, Wrong, refused},
    guard::{Fields, Posted, Visitor},
    page as rendered, place,
    shown::{self, Shown},
    source_form::Settings,
    view::{Markup, Moment, Shell},
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
    refused: Refusals,
}

#[derive(Debug)]
struct Panel {
    /// What to do at the sender, where that is known.
    setup: Option<Markup>,
    notes: Option<String>,
    expects: Option<String>,
    /// What was made just now.
    is_new: bool,
    overlaps: &'static [(&'static str, &'static str)],
    /// Whoever may change it, and whether that is not done in the config file.
    may_change: bool,
    may_edit: bool,
    settings: Settings,
    said: Shown,
    /// What was typed and did not go through, to be typed on.
    is_typed: bool,
    id: String,
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
    last: Markup,
}

/// Requests that the gate refused: why, and when.
type Refusals = Vec<(String, Moment)>;

#[derive(Template)]
#[template(path = "source.html", block = "refused")]
struct RefusedFragment {
    refused: Refusals,
}

/// A backtest, in numbers and some differences.
#[derive(Debug)]
pub(super) struct Report {
    pub(super) deliveries: String,
    pub(super) different: i64,
    /// Accepted, filtered and held: as it happened, and as it would.
    pub(super) rows: [(&'static str, i64, i64); 3],
    /// A delivery, what happened, what would.
    pub(super) differences: Vec<(String, String, String, String)>,
    pub(super) is_cut: bool,
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
    let entry = find(&snapshot, &name)?;
    let last = last(entry);
    if query.text("part") == Some("deliveries") {
        return last.fragment(&app, &visitor).await;
    }
    if query.text("part") == Some("refused") {
        let refused = refusals(&app, &entry.source.name).await?;
        return rendered(&RefusedFragment { refused });
    }
    let mut said = shown::take(&app, &visitor, &query);
    said.notice = said.notice.or_else(|| place::notice(&query).map(str::to_owned));
    // What was tried is still in the form.
    let typed = said.typed.as_ref().map(|typed| Fields::parse(typed.as_bytes()));
    let section = last.section(&app, &visitor).await?;
    let mut panel = panel(&app, &visitor, entry, section, said, typed.as_ref()).await?;
    panel.is_new = query.text("new").is_some();
    let refused = refusals(&app, &entry.source.name).await?;
    let shell = Shell::new(visitor, "sources", app.store.clock().now());
    rendered(&Page { shell, panel, refused })
}

/// The page again, with a form that did not go through.
pub(super) async fn again(
    app: &App,
    visitor: Visitor,
    name: &str,
    wrong: &Wrong,
    typed: Option<&Fields>,
) -> Result<Response, Fault> {
    let snapshot = app.ingest.registry.snapshot();
    let entry = find(&snapshot, name)?;
    let section = last(entry).section(app, &visitor).await?;
    let said = Shown::problem(wrong.to_string());
    let panel = panel(app, &visitor, entry, section, said, typed).await?;
    let refusals = refusals(app, &entry.source.name).await?;
    let shell = Shell::new(visitor, "sources", app.store.clock().now());
    refused(&Page { shell, panel, refused: refusals }, wrong)
}

pub(super) async fn replay(
    State(app): State<App>,
    Path(name): Path<String>,
    posted: Posted,
) -> Result<Response, Fault> {
    let Posted { visitor, form } = posted;
    let snapshot = app.ingest.registry.snapshot();
    let entry = find(&snapshot, &name)?;
    last(entry).replay(&app, &visitor, &form).await
}

fn last(entry: &Entry) -> Last<'_> {
    let at = format!("/sources/{}", entry.source.name);
    Last { at, source: Some(&entry.source.id), hint: "What comes" }
}

fn find<'a>(snapshot: &'a Snapshot, name: &str) -> Result<&'a Entry, Fault> {
    snapshot.named_source(name).ok_or_else(|| Fault::not_found("There is no such source."))
}

/// Refused requests that the page shows.
const REFUSALS_MAX: usize = 10;

async fn refusals(app: &App, source: &str) -> Result<Refusals, Fault> {
    let now = app.store.clock().now();
    let found = app.store.refusals(Some(source.to_owned()), REFUSALS_MAX).await?;
    let rows = found.iter().map(|it| (printable(&it.reason), Moment::new(it.at, now)));
    Ok(rows.collect())
}

async fn panel(
    app: &App,
    visitor: &Visitor,
    entry: &Entry,
    last: Markup,
    said: Shown,
    typed: Option<&Fields>,
) -> Result<Panel, Fault> {
    let now = app.store.clock().now();
    let source = &entry.source;
    let agent = entry.address.agent.as_ref().ok();
    let preset = entry.sender.as_ref().ok().and_then(|sender| sender.preset);
    let mut settings = Settings::of(&source.definition, &app.ingest.registry.snapshot());
    if let Some(typed) = typed {
        settings.overlay(typed);
    }
    Ok(Panel {
        setup: preset.map(|it| Markup::of_markdown(&it.setup)),
        notes: preset.and_then(|it| it.notes.clone()),
        expects: preset.and_then(|it| it.expects.clone()),
        is_new: false,
        overlaps: &OVERLAPS,
        may_change: visitor.may_change,
        may_edit: visitor.may_change && source.managed_by == ManagedBy::Api,
        settings,
        is_typed: typed.is_some(),
        said,
        id: source.id.to_string(),
        name: printable(&source.name),
        url: app.url(&source.path()),
        broken: entry.broken().map(printable),
        paused: source.paused,
        from_file: source.managed_by == ManagedBy::File,
        sender: entry.sender.as_ref().map(sender).unwrap_or_default(),
        secret: secret(entry, now),
        agent: agent.map(|agent| (agent.id.to_string(), printable(&agent.name))),
        last,
    })
}

/// The sender's name where it is known, else what opens the gate.
pub(super) fn sender(sender: &Sender) -> String {
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
