//! Vaults, which sessions are given, and the server's own secrets, which let senders in. Values go in
//! and never come out, but for one that the server made up, once.

use askama::Template;
use axum::{
    extract::{Path, State},
    response::Response,
};
use serde_json::json;

use super::{
    super::{
        super::{
            App,
            input::At,
            managed::{secrets, vaults},
        },
        fault::Fault,
        form::OVERLAPS,
        guard::{Changer, Fields, Posted, Visitor},
        view::{Moment, Shell},
    },
    Confirm, Given, LIST_MAX, actor, answer, body, credentials, done, is_archived_shown,
    next_place, no_such, notice, refused, rendered, shell,
    shown::{self, Shown},
};
use crate::{
    domain::{credential::Vault, text::printable},
    id::VaultId,
};

#[derive(Template)]
#[template(path = "manage/vaults.html")]
struct Page {
    shell: Shell,
    rows: Vec<Row>,
    next: Option<String>,
    with_archived: bool,
    secrets: Vec<Secret>,
    overlaps: &'static [(&'static str, &'static str)],
    /// Of the form for a vault, and of the one for a secret.
    given: Given,
    secret_given: Given,
    notice: Option<&'static str>,
    /// A secret's name, and its value that was made just now.
    made: Option<(String, String)>,
    url: String,
}

struct Row {
    id: String,
    name: String,
    created: Moment,
    changed: Moment,
    archived: bool,
}

struct Secret {
    name: String,
    version: i64,
    since: Moment,
    previous_until: Option<Moment>,
}

/// What a page of vaults shows beside the lists.
#[derive(Default)]
struct Beside {
    given: Given,
    secret_given: Given,
}

pub(in crate::web::ui) async fn list(
    State(app): State<App>,
    visitor: Visitor,
    query: Fields,
) -> Result<Response, Fault> {
    show(&app, visitor, &query, Beside::default()).await
}

pub(in crate::web::ui) async fn create(
    State(app): State<App>,
    posted: Posted,
) -> Result<Response, Fault> {
    let Posted { visitor, form } = posted;
    let wanted = body(json!({"display_name": form.fields.text("display_name")}))?;
    let made = vaults::create(State(app.clone()), actor(&visitor), wanted).await;
    match answer(made)? {
        Ok(vault) => {
            Ok(done(format_args!("/vaults/{}", vault["id"].as_str().unwrap_or_default()), "made"))
        }
        Err(problem) => {
            let given = Given::wrong(form.fields, problem);
            show(&app, visitor, &Fields::parse(b""), Beside { given, ..Beside::default() }).await
        }
    }
}

pub(in crate::web::ui) async fn rename(
    State(app): State<App>,
    Path(id): Path<String>,
    posted: Posted,
) -> Result<Response, Fault> {
    let vault: VaultId = id.parse().map_err(|_| no_such("vault"))?;
    let wanted = body(json!({"display_name": posted.form.fields.text("display_name")}))?;
    let renamed =
        vaults::update(State(app.clone()), actor(&posted.visitor), At(vault), wanted).await;
    match answer(renamed)? {
        Ok(_) => Ok(done(format_args!("/vaults/{id}"), "saved")),
        Err(problem) => {
            let given = Given::only(problem);
            credentials::show(&app, posted.visitor, &id, &Fields::default(), given).await
        }
    }
}

pub(in crate::web::ui) async fn ask_archive(
    State(app): State<App>,
    Changer(visitor): Changer,
    Path(id): Path<String>,
) -> Result<Response, Fault> {
    let vault = find(&app, &id).await?;
    Confirm {
        shell: shell(&app, visitor, "vaults").0,
        title: format!("Archive the vault {}?", printable(&vault.display_name)),
        text: "The values of all of its credentials are erased at once and cannot be brought back. \
               Sessions that have the vault go on without them; new ones cannot be given it.",
        action: format!("/vaults/{id}/archive"),
        button: "Archive it and erase the values",
        back: format!("/vaults/{id}"),
    }
    .page()
}

pub(in crate::web::ui) async fn archive(
    State(app): State<App>,
    Path(id): Path<String>,
    posted: Posted,
) -> Result<Response, Fault> {
    let id: VaultId = id.parse().map_err(|_| no_such("vault"))?;
    vaults::archive(State(app), actor(&posted.visitor), At(id)).await.map(drop)?;
    Ok(done("/vaults", "archived"))
}

pub(in crate::web::ui) async fn ask_delete(
    State(app): State<App>,
    Changer(visitor): Changer,
    Path(id): Path<String>,
) -> Result<Response, Fault> {
    let vault = find(&app, &id).await?;
    Confirm {
        shell: shell(&app, visitor, "vaults").0,
        title: format!("Delete the vault {}?", printable(&vault.display_name)),
        text: "It goes with all of its credentials and their values, for ever. Deployments that name \
               it pause at their next run.",
        action: format!("/vaults/{id}/delete"),
        button: "Delete it for ever",
        back: format!("/vaults/{id}"),
    }
    .page()
}

pub(in crate::web::ui) async fn delete(
    State(app): State<App>,
    Path(id): Path<String>,
    posted: Posted,
) -> Result<Response, Fault> {
    let id: VaultId = id.parse().map_err(|_| no_such("vault"))?;
    vaults::remove(State(app), actor(&posted.visitor), At(id)).await.map(drop)?;
    Ok(done("/vaults", "deleted"))
}

pub(in crate::web::ui) async fn put_secret(
    State(app): State<App>,
    posted: Posted,
) -> Result<Response, Fault> {
    let Posted { visitor, form } = posted;
    let fields = form.fields;
    let generate = fields.text("action") == Some("generate");
    let overlap: u64 = fields.text("overlap").and_then(|it| it.parse().ok()).unwrap_or(0);
    let mut wanted = json!({"name": fields.text("name"), "overlap_seconds": overlap});
    if generate {
        wanted["generate"] = true.into();
    } else {
        wanted["value"] = fields.text("value").into();
    }
    let stored = secrets::put(State(app.clone()), actor(&visitor), body(wanted)?).await;
    match answer(stored)? {
        Ok(secret) if generate => {
            let text = |field: &str| secret[field].as_str().unwrap_or_default();
            let made = Shown::made(text("name"), text("value"));
            Ok(shown::show(&app, &visitor, "/vaults", made))
        }
        Ok(_) => Ok(done("/vaults", "stored")),
        Err(problem) => {
            let secret_given = Given::wrong(fields, problem);
            let beside = Beside { secret_given, ..Beside::default() };
            show(&app, visitor, &Fields::default(), beside).await
        }
    }
}

pub(in crate::web::ui) async fn ask_delete_secret(
    State(app): State<App>,
    Changer(visitor): Changer,
    Path(name): Path<String>,
) -> Result<Response, Fault> {
    if !app.ingest.registry.snapshot().has_secret(&name) {
        return Err(no_such("secret"));
    }
    Confirm {
        shell: shell(&app, visitor, "vaults").0,
        title: format!("Delete the secret {}?", printable(&name)),
        text: "A source or an agent whose secret it is lets nobody in any more, until there is a \
               value of this name again. Environments that use it start no program.",
        action: format!("/secrets/{}/delete", in_path(&name)),
        button: "Delete the secret",
        back: "/vaults".to_owned(),
    }
    .page()
}

pub(in crate::web::ui) async fn delete_secret(
    State(app): State<App>,
    Path(name): Path<String>,
    posted: Posted,
) -> Result<Response, Fault> {
    secrets::remove(State(app), actor(&posted.visitor), At(name)).await.map(drop)?;
    Ok(done("/vaults", "deleted"))
}

/// A name as a part of a path.
fn in_path(name: &str) -> String {
    form_urlencoded::byte_serialize(name.as_bytes()).collect()
}

pub(super) async fn find(app: &App, id: &str) -> Result<Vault, Fault> {
    let id: VaultId = id.parse().map_err(|_| no_such("vault"))?;
    Ok(app.store.vault(&id).await?)
}

async fn show(
    app: &App,
    visitor: Visitor,
    query: &Fields,
    beside: Beside,
) -> Result<Response, Fault> {
    let with_archived = is_archived_shown(query);
    let cursor = query.text("page").and_then(|it| it.parse().ok());
    let found = app.store.vaults(with_archived, cursor, LIST_MAX).await?;
    let (shell, now) = shell(app, visitor, "vaults");
    let rows = found.data.iter().map(|vault| Row {
        id: vault.id.to_string(),
        name: printable(&vault.display_name),
        created: Moment::new(vault.created_at, now),
        changed: Moment::new(vault.updated_at, now),
        archived: vault.archived_at.is_some(),
    });
    let snapshot = app.ingest.registry.snapshot();
    let secrets = snapshot.secrets.iter().map(|info| Secret {
        name: printable(&info.name),
        version: info.version,
        since: Moment::new(info.created_at, now),
        previous_until: info
            .previous_until
            .filter(|until| *until > now)
            .map(|until| Moment::new(until, now)),
    });
    let Beside { given, secret_given } = beside;
    let wrong = given.problem.clone().or_else(|| secret_given.problem.clone());
    let page = Page {
        rows: rows.collect(),
        next: next_place(found.next),
        with_archived,
        secrets: secrets.collect(),
        overlaps: &OVERLAPS,
        given,
        secret_given,
        notice: notice(query),
        made: shown::take(app, &shell.visitor, query).made,
        url: app.url("/v1/vaults"),
        shell,
    };
    match wrong {
        Some(wrong) => refused(&page, &wrong),
        None => rendered(&page),
    }
}
