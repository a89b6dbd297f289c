//! The audit log: who changed what, newest first, of one actor or one kind of change.

use askama::Template;
use axum::{extract::State, response::Response};

use super::{
    super::{
        super::App,
        fault::Fault,
        guard::{Fields, Visitor},
        page as rendered,
        view::{Moment, Shell},
    },
    LIST_MAX, next_place, shell,
};
use crate::{
    domain::text::{first_chars, printable},
    store::AuditFilter,
};

/// Of what is told about a change.
const DETAILS_CHARS_MAX: usize = 400;

#[derive(Template)]
#[template(path = "manage/audit.html")]
struct Page {
    shell: Shell,
    rows: Vec<Row>,
    actors: Vec<String>,
    actions: Vec<String>,
    actor: String,
    action: String,
    is_filtered: bool,
    next: Option<String>,
}

struct Row {
    at: Moment,
    actor: String,
    action: String,
    target: String,
    details: Option<String>,
}

pub(in crate::web::ui) async fn page(
    State(app): State<App>,
    visitor: Visitor,
    query: Fields,
) -> Result<Response, Fault> {
    let text = |name: &str| query.text(name).map(str::to_owned);
    let (actor, action) = (text("actor"), text("action"));
    let filter = AuditFilter {
        actor: actor.clone(),
        action: action.clone(),
        cursor: query.text("page").and_then(|it| it.parse().ok()),
        limit: LIST_MAX,
    };
    let is_filtered = actor.is_some() || action.is_some();
    let found = app.store.audit_of(filter).await?;
    let (actors, actions) = app.store.audit_words().await?;
    let (shell, now) = shell(&app, visitor, "audit");
    let rows = found.data.into_iter().map(|entry| {
        let details = entry.details.as_object().filter(|it| !it.is_empty());
        let details = details.map(|_| entry.details.to_string());
        let details = details.map(|it| printable(first_chars(&it, DETAILS_CHARS_MAX).0));
        Row {
            at: Moment::new(entry.at, now),
            actor: printable(&entry.actor),
            action: entry.action,
            target: printable(&entry.target),
            details,
        }
    });
    rendered(&Page {
        rows: rows.collect(),
        shell,
        actors,
        actions,
        actor: actor.unwrap_or_default(),
        action: action.unwrap_or_default(),
        is_filtered,
        next: next_place(found.next),
    })
}
