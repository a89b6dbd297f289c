//! The management pages: usage, deployments, environments, vaults, files, keys, the audit log and
//! settings.
//!
//! A form of these pages becomes the request that the API takes, and is carried out by the same
//! function: what a page allows the API allows, and the other way round. Invariants: a refused form
//! comes back with what was filled in, but never with a secret; after a change the browser is sent to
//! a page that can be reloaded. Left out: what these things mean, which the API's modules know.

mod audit;
mod credentials;
mod deployment_form;
mod deployments;
mod environments;
mod files;
mod keys;
mod settings;
mod usage;
mod vaults;

use axum::{
    Router,
    routing::{get, post},
};

use super::{
    super::App,
    confirm::Confirm,
    fault::Fault,
    form::{Given, Wrong, actor, answer, body, lines, listed, refused},
    guard::{Fields, Visitor},
    page as rendered,
    place::{done, notice},
    shown,
    view::Shell,
};
use crate::clock::Timestamp;

/// Entries on one page of a list.
const LIST_MAX: usize = 50;

pub(super) fn routes() -> Router<App> {
    Router::new()
        .route("/usage", get(usage::page))
        .route("/usage/budgets", post(usage::set_budgets))
        .route("/vaults", get(vaults::list).post(vaults::create))
        .route("/vaults/{id}", get(credentials::page).post(vaults::rename))
        .route("/vaults/{id}/archive", get(vaults::ask_archive).post(vaults::archive))
        .route("/vaults/{id}/delete", get(vaults::ask_delete).post(vaults::delete))
        .route("/vaults/{id}/credentials", post(credentials::create))
        .route("/vaults/{id}/credentials/{credential}/rotate", post(credentials::rotate))
        .route("/vaults/{id}/credentials/{credential}/validate", post(credentials::validate))
        .route(
            "/vaults/{id}/credentials/{credential}/archive",
            get(credentials::ask_archive).post(credentials::archive),
        )
        .route("/secrets", post(vaults::put_secret))
        .route("/secrets/{name}/delete", get(vaults::ask_delete_secret).post(vaults::delete_secret))
        .route("/deployments", get(deployments::list).post(deployments::create))
        .route("/deployments/{id}", get(deployments::page))
        .route("/deployments/{id}/edit", get(deployment_form::page).post(deployment_form::save))
        .route("/deployments/{id}/run", post(deployments::run))
        .route("/deployments/{id}/pause", post(deployments::pause))
        .route("/deployments/{id}/unpause", post(deployments::unpause))
        .route(
            "/deployments/{id}/archive",
            get(deployments::ask_archive).post(deployments::archive),
        )
        .route("/environments", get(environments::list).post(environments::create))
        .route("/environments/{id}", get(environments::page).post(environments::update))
        .route(
            "/environments/{id}/archive",
            get(environments::ask_archive).post(environments::archive),
        )
        .route("/files", get(files::list).post(files::upload))
        .route("/files/{id}/content", get(files::download))
        .route("/files/{id}/delete", get(files::ask_delete).post(files::delete))
        .route("/keys", get(keys::page).post(keys::create))
        .route("/keys/{id}/revoke", get(keys::ask_revoke).post(keys::revoke))
        .route("/audit", get(audit::page))
        .route("/settings", get(settings::page))
}

fn shell(app: &App, visitor: Visitor, at: &'static str) -> (Shell, Timestamp) {
    let now = app.store.clock().now();
    (Shell::new(visitor, at, now), now)
}

/// The page after this one.
fn next_place(next: Option<String>) -> Option<String> {
    next.filter(|it| it.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_'))
}

fn is_archived_shown(query: &Fields) -> bool {
    query.text("archived") == Some("1")
}

fn no_such(noun: &str) -> Fault {
    Fault::not_found(format!("There is no such {noun}, or not any more."))
}
