//! The management pages: usage, deployments, environments, vaults, files, keys, the audit log and
//! settings.
//!
//! A form of these pages becomes the request that the API takes, and is carried out by the same
//! function: what a page allows the API allows, and the other way round. Invariants: a refused form
//! comes back with what was filled in, but never with a secret; after a change the browser is sent to
//! a page that can be reloaded. Left out: what these things mean, which the API's modules know.

mod audit;
mod chart;
mod credentials;
mod deployments;
mod environments;
mod files;
mod keys;
mod settings;
mod usage;
mod vaults;

use askama::Template;
use axum::{
    Json, Router,
    http::StatusCode,
    response::Response,
    routing::{get, post},
};
use serde_json::Value;

use super::{
    super::{App, auth::Actor, error, input},
    fault::Fault,
    guard::{Fields, Visitor},
    page as rendered,
    place::{done, notice},
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

/// What a form said that did not go through, so that nobody has to type it again.
#[derive(Debug, Default)]
struct Given {
    fields: Option<Fields>,
    /// Why not.
    problem: Option<String>,
}

impl Given {
    fn wrong(fields: Fields, problem: String) -> Given {
        Given { fields: Some(fields), problem: Some(problem) }
    }

    fn get(&self, name: &str) -> &str {
        self.fields.as_ref().and_then(|fields| fields.text(name)).unwrap_or_default()
    }

    /// As it was filled in, or as it was before.
    fn or<'a>(&'a self, name: &str, before: &'a str) -> &'a str {
        match &self.fields {
            Some(fields) => fields.text(name).unwrap_or_default(),
            None => before,
        }
    }

    fn is(&self, name: &str, value: &str) -> bool {
        self.get(name) == value
    }

    fn status(&self) -> StatusCode {
        match self.problem {
            Some(_) => StatusCode::UNPROCESSABLE_ENTITY,
            None => StatusCode::OK,
        }
    }
}

/// Whoever makes the change, for the API's functions.
fn actor(visitor: &Visitor) -> Actor {
    Actor(visitor.name.clone())
}

/// A form as the body of a request.
fn body(value: Value) -> Result<input::Fields, Fault> {
    input::Fields::of(value, "form").map_err(|problem| Fault::invalid(problem.to_string()))
}

/// A request's answer, or what its sender has to change.
fn answer(result: error::Result<Json<Value>>) -> Result<Result<Value, String>, Fault> {
    match result {
        Ok(Json(value)) => Ok(Ok(value)),
        Err(error) if error.is_of_caller() => Ok(Err(sentence(error.message()))),
        Err(error) => Err(error.into()),
    }
}

/// What the API says, for people: `auth.secret_name: is required` begins with `Secret name`.
fn sentence(text: &str) -> String {
    let is_path =
        |it: &str| it.bytes().all(|byte| byte.is_ascii_lowercase() || b"._".contains(&byte));
    let text = match text.split_once(": ").filter(|(path, _)| is_path(path)) {
        Some((path, why)) => {
            // What a whole form is about need not be said.
            let within = ["auth.", "config."].iter().find_map(|it| path.strip_prefix(it));
            format!("{}: {why}", within.unwrap_or(path).replace(['.', '_'], " "))
        }
        None => text.to_owned(),
    };
    let mut chars = text.chars();
    chars.next().map_or_else(String::new, |first| first.to_uppercase().chain(chars).collect())
}

/// Commas and lines between values that a person lists in one field.
fn listed(text: &str) -> Vec<&str> {
    text.split([',', '\n', '\r']).map(str::trim).filter(|it| !it.is_empty()).collect()
}

/// Something that cannot be taken back, before it is done.
#[derive(Debug, Template)]
#[template(path = "manage/confirm.html")]
struct Confirm {
    shell: Shell,
    title: String,
    /// What happens then.
    text: &'static str,
    /// Where the form goes.
    action: String,
    button: &'static str,
    back: String,
}

impl Confirm {
    fn page(self) -> Result<Response, Fault> {
        self.shell.visitor.must_be_able_to_change()?;
        rendered(&self)
    }
}

fn shell(app: &App, visitor: Visitor, at: &'static str) -> (Shell, Timestamp) {
    let now = app.store.clock().now();
    (Shell::new(visitor, at, now), now)
}

/// A page with the status that its form deserves.
fn with_status(status: StatusCode, template: &impl Template) -> Result<Response, Fault> {
    let mut response = rendered(template)?;
    *response.status_mut() = status;
    Ok(response)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn problems_begin_with_the_name_of_the_field() {
        let check = |given: &str, said: &str| assert_eq!(sentence(given), said);
        check("auth.secret_name: is required", "Secret name: is required");
        check("schedule.expression: has 4 fields", "Schedule expression: has 4 fields");
        check("a key named `x` exists", "A key named `x` exists");
        check("the model `a: b` is not there", "The model `a: b` is not there");
        check("", "");
    }

    #[test]
    fn values_are_listed_with_commas_or_lines() {
        assert_eq!(
            listed(" a.example, b.example\r\n\nc.example,"),
            ["a.example", "b.example", "c.example"]
        );
    }
}
