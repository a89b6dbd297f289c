//! Settings: what counts on this server and where it came from, and in short how its parts are.

use askama::Template;
use axum::{extract::State, response::Response};

use super::{
    super::{
        super::{App, Setting, health},
        fault::Fault,
        guard::Visitor,
        page as rendered,
        session::Badge,
        view::{Moment, Shell, count},
    },
    shell,
};
use crate::store::{OutgoingFilter, OutgoingStatus};

/// Messages that were given up, as far as they are counted.
const DEAD_MAX: usize = 100;

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
    let parts = parts(&app).await?;
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

async fn parts(app: &App) -> Result<Vec<Part>, Fault> {
    const GOOD: Badge = Badge { class: "done", word: "works" };
    const BAD: Badge = Badge { class: "failed", word: "look here" };
    let facts = app.facts();
    let kind = if app.store.is_sqlite() { "SQLite" } else { "PostgreSQL" };
    let store = match health::ready(app).await {
        Ok(()) => (GOOD, format!("{kind} commits")),
        // What it said may hold addresses; the log has it.
        Err(_) => (BAD, format!("{kind} does not commit: the server's log says why")),
    };
    let providers = facts.providers.iter().map(|(name, _, text)| format!("{name} {text}"));
    let can_ask = facts.providers.iter().any(|(name, can, _)| *can && *name != "rehearsal");
    let models = match can_ask {
        true => GOOD,
        false => Badge { class: "waiting", word: "rehearsal only" },
    };
    let (n_waiting, oldest) = app.store.outgoing_backlog().await?;
    let dead = OutgoingFilter {
        status: Some(OutgoingStatus::Dead),
        session_id: None,
        owner: None,
        cursor: None,
        limit: DEAD_MAX,
    };
    let dead = app.store.outgoing(dead).await?;
    let n_dead = dead.data.len();
    let more = if dead.next.is_some() { "more than " } else { "" };
    let waiting = i64::try_from(n_waiting).unwrap_or(i64::MAX);
    let outbox = format!("{} waiting, {more}{n_dead} given up", count(waiting));
    let now = app.store.clock().now();
    let part = |name, (state, text): (Badge, String)| Part { name, state, text, since: None };
    Ok(vec![
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
        Part {
            since: oldest.map(|at| Moment::new(at, now)),
            ..part("Outbox", (if n_dead == 0 { GOOD } else { BAD }, outbox))
        },
    ])
}
