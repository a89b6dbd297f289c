//! API keys: who may call in, and taking that back. A key is shown in the answer to the form that made
//! it and never again.

use askama::Template;
use axum::{
    extract::{Path, State},
    response::Response,
};
use serde_json::json;

use super::{
    super::{
        super::{App, input::At, managed::api_keys},
        fault::Fault,
        guard::{Changer, Fields, Posted, Visitor},
        view::{Moment, Shell},
    },
    Confirm, Given, actor, answer, body, done, no_such, notice, shell,
    shown::{self, Shown},
};
use crate::{
    clock::Timestamp,
    domain::{key::Scope, text::printable},
    id::ApiKeyId,
    store::ApiKey,
};

#[derive(Template)]
#[template(path = "manage/keys.html")]
struct Page {
    shell: Shell,
    rows: Vec<Row>,
    /// Sources that a key may be made for.
    sources: Vec<String>,
    given: Given,
    notice: Option<&'static str>,
    /// A key that was made just now, with its name.
    made: Option<(String, String)>,
    with_revoked: bool,
    n_revoked: usize,
    url: String,
}

struct Row {
    id: String,
    name: String,
    scopes: Vec<String>,
    /// What the scopes open, in words.
    opens: &'static str,
    created: Moment,
    revoked: Option<Moment>,
    /// Whether it is the one that this visitor came in with.
    is_own: bool,
}

pub(in crate::web::ui) async fn page(
    State(app): State<App>,
    visitor: Visitor,
    query: Fields,
) -> Result<Response, Fault> {
    show(&app, visitor, Given::default(), &query).await
}

pub(in crate::web::ui) async fn create(
    State(app): State<App>,
    posted: Posted,
) -> Result<Response, Fault> {
    let Posted { visitor, form } = posted;
    let fields = form.fields;
    let scope = match fields.text("scope").unwrap_or_default() {
        "ingest" => format!("ingest:{}", fields.text("source").unwrap_or_default()),
        scope => scope.to_owned(),
    };
    let wanted = body(json!({"name": fields.text("name"), "scopes": [scope]}))?;
    let made = api_keys::create(State(app.clone()), actor(&visitor), wanted).await;
    match answer(made)? {
        Err(problem) => {
            show(&app, visitor, Given::wrong(fields, problem), &Fields::default()).await
        }
        Ok(key) => {
            let text = |field: &str| key[field].as_str().unwrap_or_default();
            Ok(shown::show(&app, &visitor, "/keys", Shown::made(text("name"), text("key"))))
        }
    }
}

pub(in crate::web::ui) async fn ask_revoke(
    State(app): State<App>,
    Changer(visitor): Changer,
    Path(id): Path<String>,
) -> Result<Response, Fault> {
    let keys = app.store.api_keys().await?;
    let key = keys.into_iter().find(|key| key.id.to_string() == id);
    let key = key.ok_or_else(|| no_such("key"))?;
    Confirm {
        shell: shell(&app, visitor, "keys").0,
        title: format!("Revoke the key {}?", printable(&key.name)),
        text: "Whoever uses it gets 401 from the next request on, and is signed out here. A revoked \
               key cannot be brought back; make a new one instead.",
        action: format!("/keys/{id}/revoke"),
        button: "Revoke the key",
        back: "/keys".to_owned(),
    }
    .page()
}

pub(in crate::web::ui) async fn revoke(
    State(app): State<App>,
    Path(id): Path<String>,
    posted: Posted,
) -> Result<Response, Fault> {
    let id: ApiKeyId = id.parse().map_err(|_| no_such("key"))?;
    api_keys::revoke(State(app), actor(&posted.visitor), At(id)).await.map(drop)?;
    Ok(done("/keys", "revoked"))
}

async fn show(
    app: &App,
    visitor: Visitor,
    given: Given,
    query: &Fields,
) -> Result<Response, Fault> {
    let (made, with_revoked) =
        (shown::take(app, &visitor, query).made, query.text("revoked") == Some("1"));
    let keys = app.store.api_keys().await?;
    let name = visitor.name.clone();
    let (shell, now) = shell(app, visitor, "keys");
    let n_revoked = keys.iter().filter(|key| key.revoked_at.is_some()).count();
    let shown = keys.iter().filter(|key| with_revoked || key.revoked_at.is_none());
    let rows = shown.map(|key| row(key, &name, now)).collect();
    let snapshot = app.ingest.registry.snapshot();
    let named = snapshot.sources().into_iter().map(|entry| entry.source.name.clone());
    let sources = named.filter(|name| snapshot.named_source(name).is_some()).collect();
    let url = app.url("/v1/api_keys");
    let notice = notice(query);
    let page = Page { shell, rows, sources, given, notice, made, with_revoked, n_revoked, url };
    page.given.answer(&page)
}

fn row(key: &ApiKey, visitor: &str, now: Timestamp) -> Row {
    let opens = match () {
        () if key.scopes.is_admin() => "reads and changes everything",
        () if key.scopes.may_read() => "reads everything, changes nothing",
        () => "lets deliveries of its source in, nothing else",
    };
    Row {
        id: key.id.to_string(),
        name: printable(&key.name),
        scopes: key.scopes.0.iter().map(Scope::to_string).collect(),
        opens,
        created: Moment::new(key.created_at, now),
        revoked: key.revoked_at.map(|at| Moment::new(at, now)),
        is_own: key.revoked_at.is_none() && key.name == visitor,
    }
}
