//! The sources, and a new one from the table of senders: the sender, its secret, where it goes.

use askama::Template;
use axum::{
    extract::State,
    response::{IntoResponse, Redirect, Response},
};
use serde_json::json;

use super::{
    super::{App, managed},
    board,
    fault::Fault,
    form::{Wrong, actor, body, outcome, refused},
    guard::{Changer, Fields, Posted, Visitor},
    page as rendered, place,
    source_form::{Settings, fields_of},
    view::{Markup, Moment, Shell},
};
use crate::{
    clock::Timestamp,
    domain::{
        ManagedBy,
        source::{SourceDefinition, SourceKind},
        text::printable,
        verifier::Verifier,
    },
    ingest::{self, Preset, Snapshot},
};

#[derive(Template)]
#[template(path = "sources.html")]
struct List {
    shell: Shell,
    rows: Vec<Row>,
    may_change: bool,
    notice: Option<&'static str>,
}

#[derive(Template)]
#[template(path = "sources.html", block = "live")]
struct ListFragment {
    rows: Vec<Row>,
    may_change: bool,
}

struct Row {
    name: String,
    href: String,
    class: &'static str,
    state: String,
    sender: String,
    agent: Option<(String, String)>,
    from_file: bool,
    n_waiting: u64,
    rang: Option<Moment>,
}

pub(super) async fn list(
    State(app): State<App>,
    visitor: Visitor,
    query: Fields,
) -> Result<Response, Fault> {
    let snapshot = app.ingest.registry.snapshot();
    let last = board::last(&app, &snapshot).await?;
    let now = app.store.clock().now();
    let rows = rows(&snapshot, &last, now);
    let may_change = visitor.may_change;
    if query.text("part") == Some("live") {
        return rendered(&ListFragment { rows, may_change });
    }
    let notice = place::notice(&query);
    rendered(&List { shell: Shell::new(visitor, "sources", now), rows, may_change, notice })
}

fn rows(snapshot: &Snapshot, last: &board::Last, now: Timestamp) -> Vec<Row> {
    let mut entries = snapshot.sources();
    entries.sort_by_key(|it| {
        (matches!(it.source.kind, SourceKind::Agent(_)), it.display_name().to_lowercase())
    });
    let row = |entry: &&ingest::Entry| {
        let bell = board::bell(entry, last, now);
        let sender = match entry.source.kind {
            SourceKind::Agent(_) => "anybody with its token".to_owned(),
            SourceKind::Named => {
                entry.sender.as_ref().map(super::source::sender).unwrap_or_default()
            }
        };
        let agent = entry.address.agent.as_ref().ok();
        let class = match bell.class {
            "broken" | "failed" => "failed",
            "ringing" | "busy" => "running",
            "muted" | "mute" => "waiting",
            "quiet" => "idle",
            _ => "done",
        };
        Row {
            name: bell.name,
            href: bell.href,
            class,
            state: bell.state,
            sender: printable(&sender),
            agent: agent.map(|agent| (agent.id.to_string(), printable(&agent.name))),
            from_file: entry.source.managed_by == ManagedBy::File,
            n_waiting: entry.waiting.count(),
            rang: bell.rang,
        }
    };
    entries.iter().map(row).collect()
}

#[derive(Template)]
#[template(path = "source_new.html")]
struct NewPage {
    shell: Shell,
    query: String,
    presets: Vec<&'static Preset>,
    chosen: Option<&'static Preset>,
    /// What to do at the sender.
    setup: Markup,
    wants_secret: bool,
    name: String,
    settings: Settings,
    problem: Option<Wrong>,
}

impl NewPage {
    fn new(app: &App, visitor: Visitor, fields: &Fields, problem: Option<Wrong>) -> NewPage {
        let query = fields.text("q").unwrap_or_default().to_owned();
        let wanted = query.to_lowercase();
        let fits = |preset: &&Preset| {
            preset.title.to_lowercase().contains(&wanted) || preset.id.contains(&wanted)
        };
        let chosen = fields.text("preset");
        let chosen = chosen.and_then(|id| ingest::presets().iter().find(|it| it.id == id));
        let name = fields.text("name").or(chosen.map(|it| it.id.as_str()));
        let snapshot = app.ingest.registry.snapshot();
        let mut settings = Settings::of(&SourceDefinition::default(), &snapshot);
        if problem.is_some() {
            settings.overlay(fields);
        }
        NewPage {
            presets: ingest::presets().iter().filter(fits).collect(),
            setup: chosen.map(|it| Markup::of_markdown(&it.setup)).unwrap_or_default(),
            wants_secret: chosen.is_some_and(|it| it.verifier["type"] != "box"),
            name: name.unwrap_or_default().to_owned(),
            shell: Shell::new(visitor, "sources", app.store.clock().now()),
            query,
            chosen,
            settings,
            problem,
        }
    }

    /// The one sender that needs a word more than its secret: what the field is called, and what for.
    fn extra(&self) -> Option<(&'static str, &'static str)> {
        match self.chosen.map(|it| it.id.as_str()) {
            Some("basic") => Some(("username", "User name that the sender gives")),
            Some("header") => Some(("header", "Header that holds the secret")),
            _ => None,
        }
    }
}

pub(super) async fn new(
    State(app): State<App>,
    Changer(visitor): Changer,
    query: Fields,
) -> Result<Response, Fault> {
    rendered(&NewPage::new(&app, visitor, &query, None))
}

/// Makes the source, and leads to what has to be done at its sender.
pub(super) async fn create(State(app): State<App>, posted: Posted) -> Result<Response, Fault> {
    let Posted { visitor, form } = posted;
    let fields = &form.fields;
    let name = fields.text("name").unwrap_or_default().to_owned();
    let snapshot = app.ingest.registry.snapshot();
    let again = |visitor, wrong: Wrong| {
        refused(&NewPage::new(&app, visitor, fields, Some(wrong.clone())), &wrong)
    };
    if snapshot.named_source(&name).is_some() {
        let problem = format!("There is a source called `{name}` already: choose another name.");
        return again(visitor, Wrong::of("name", problem));
    }
    let mut wanted = match fields_of(fields, &["agent", "place", "target"]) {
        Ok(wanted) => wanted,
        Err(problem) => return again(visitor, problem),
    };
    wanted.insert("name".to_owned(), json!(name));
    for key in ["preset", "secret", "username", "header"] {
        if let Some(value) = fields.text(key) {
            wanted.insert(key.to_owned(), json!(value));
        }
    }
    let wanted = body(wanted.into())?;
    let made = managed::sources::put(State(app.clone()), actor(&visitor), wanted).await;
    match outcome(made)? {
        Ok(_) => Ok(Redirect::to(&format!("/sources/{name}?new=1")).into_response()),
        Err(wrong) => again(visitor, wrong),
    }
}

/// How a gate is opened, in a word, for whoever chooses a sender.
pub(super) fn gate_word(preset: &Preset) -> &'static str {
    let verifier: Result<Verifier, _> = serde_json::from_value(preset.verifier.clone());
    match verifier {
        Ok(it) if !it.needs_secret() => "key of this server",
        _ => match preset.verifier["type"].as_str() {
            Some("bearer" | "header" | "query" | "url") => "token",
            Some("basic") => "password",
            _ => "signature",
        },
    }
}
