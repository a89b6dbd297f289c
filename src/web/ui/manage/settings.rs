//! Settings: what counts on this server and where it came from, and in short how its parts are.

use askama::Template;
use axum::{extract::State, response::Response};

use super::{
    super::{
        super::{App, Setting, status},
        fault::Fault,
        guard::Visitor,
        needs::said,
        page as rendered,
        session::Badge,
        view::{Moment, Shell, count},
    },
    shell,
};

#[derive(Template)]
#[template(path = "manage/settings.html")]
struct Page {
    shell: Shell,
    parts: Vec<Part>,
    /// What is set, and all of them section by section.
    given: Vec<Setting>,
    sections: Vec<Section>,
    version: &'static str,
}

/// One part of the server, and how it is.
struct Part {
    name: &'static str,
    state: Badge,
    text: String,
    since: Option<Moment>,
}

struct Section {
    name: String,
    settings: Vec<Setting>,
}

pub(in crate::web::ui) async fn page(
    State(app): State<App>,
    visitor: Visitor,
) -> Result<Response, Fault> {
    let facts = app.facts();
    let parts = parts(&app).await;
    let mut sections: Vec<Section> = Vec::new();
    for setting in &facts.settings {
        let name = match setting.key.split_once('.') {
            Some((section, _)) => section,
            None if setting.key.starts_with("BELLPULL_") => "Only in the environment",
            None => "The server",
        };
        match sections.iter_mut().find(|section| section.name == name) {
            Some(section) => section.settings.push(setting.clone()),
            None => {
                sections.push(Section { name: name.to_owned(), settings: vec![setting.clone()] });
            }
        }
    }
    let given = facts.settings.iter().filter(|it| it.origin != "default" || it.waits);
    let given = given.cloned().collect();
    let (shell, _) = shell(&app, visitor, "settings");
    rendered(&Page { shell, parts, given, sections, version: env!("CARGO_PKG_VERSION") })
}

async fn parts(app: &App) -> Vec<Part> {
    const GOOD: Badge = Badge { class: "done", word: "works" };
    const BAD: Badge = Badge { class: "failed", word: "look here" };
    let facts = app.facts();
    let kind = if app.store.is_sqlite() { "SQLite" } else { "PostgreSQL" };
    let look = status::look(app).await;
    let store = match look.store_works {
        true => (GOOD, format!("{kind} commits")),
        // What it said may hold addresses; the log has it.
        false => (BAD, format!("{kind} does not commit: the server's log says why")),
    };
    let providers = facts.providers.iter().map(|(name, _, text)| format!("{name} {text}"));
    let can_ask = facts.providers.iter().any(|(name, can, _)| *can && *name != "rehearsal");
    let models = match can_ask {
        true => GOOD,
        false => Badge { class: "waiting", word: "rehearsal only" },
    };
    let (outbox, oldest) = match look.outbox {
        None => ((BAD, "the server's log says why nobody knows".to_owned()), None),
        Some(found) => {
            let waiting = i64::try_from(found.n_waiting).unwrap_or(i64::MAX);
            let text = format!("{} waiting, {} given up", count(waiting), said(found.n_dead));
            ((if found.n_dead == 0 { GOOD } else { BAD }, text), found.oldest)
        }
    };
    let now = app.store.clock().now();
    let part = |name, (state, text): (Badge, String)| Part { name, state, text, since: None };
    vec![
        part("Store", store),
        part(
            "Sandbox",
            match &app.sandbox {
                Some(sandbox) if sandbox.trouble().is_some() => (BAD, sandbox.message.clone()),
                Some(sandbox) => (GOOD, sandbox.message.clone()),
                None => (BAD, "nobody has looked".to_owned()),
            },
        ),
        part("Models", (models, providers.collect::<Vec<_>>().join("; "))),
        Part { since: oldest.map(|at| Moment::new(at, now)), ..part("Outbox", outbox) },
    ]
}
