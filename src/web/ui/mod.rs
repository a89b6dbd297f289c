//! The pages: what a person sees of agents, sources and sessions, and the few things to be changed
//! there.
//!
//! A page is a template, and a block of it is the fragment that htmx asks for, so both say the same.
//! Invariants: every page works without JavaScript and survives a reload; text from outside becomes
//! HTML only through the escaping templates and through `markdown`; the cookie opens these routes
//! and nothing under /v1 or /api; a change needs the form token of the same signed-in visitor.
//! Left out: everything that the API can do and no page offers yet.

mod agents;
mod assets;
mod board;
mod cookie;
mod deliveries;
mod entry;
mod fault;
mod guard;
mod live;
mod markdown;
mod payload;
mod session;
mod sign_in;
mod source;
mod view;
mod visitors;
mod webhook;

use askama::Template;
use axum::{
    Router,
    extract::{DefaultBodyLimit, Request},
    http::HeaderValue,
    middleware,
    response::{IntoResponse, Redirect, Response},
    routing::{get, post},
};

pub(super) use self::visitors::Visitors;
use self::{fault::Fault, view::Markup};
use super::{App, is_below};

/// Largest form: a pasted token with room for its percent signs.
const FORM_BYTES_MAX: usize = 256 * 1024;

pub(super) fn routes(app: &App) -> Router<App> {
    Router::new()
        .route("/", get(async || Redirect::to("/agents")))
        .route("/sign-in", get(sign_in::page).post(sign_in::sign_in))
        .route("/sign-out", post(sign_in::sign_out))
        .route("/agents", get(agents::page))
        .route("/agents/{id}/webhook", get(webhook::page).post(webhook::store_token))
        .route("/agents/{id}/webhook/replay", post(webhook::replay))
        .route("/sources/{name}", get(source::page))
        .route("/sources/{name}/replay", post(source::replay))
        .route("/sessions", get(session::list))
        .route("/sessions/{id}", get(session::page))
        .route("/sessions/{id}/live", get(live::stream))
        .route("/assets/{build}/{*name}", get(assets::asset))
        .layer(DefaultBodyLimit::max(FORM_BYTES_MAX))
        .layer(middleware::from_fn_with_state(app.clone(), guard::guard))
}

/// Whether somebody who looks for a page asked for a path that has none.
pub(super) fn wants_page(request: &Request) -> bool {
    let accept = request.headers().get(http::header::ACCEPT);
    let html = accept.and_then(|it| it.to_str().ok()).is_some_and(|it| it.contains("text/html"));
    html && !["/v1", "/api"].iter().any(|api| is_below(request.uri().path(), api))
}

/// The page for such a path.
pub(super) async fn nowhere(app: App, request: Request) -> Response {
    let next = async || Fault::not_found("There is no page at this address.").into_response();
    guard::answer(app, request, |_| next()).await
}

/// A finished page or fragment.
fn page(template: &impl Template) -> Result<Response, Fault> {
    let html = Markup::render(template)?;
    let mut response = html.into_text().into_response();
    let kind = HeaderValue::from_static("text/html; charset=utf-8");
    response.headers_mut().insert(http::header::CONTENT_TYPE, kind);
    Ok(response)
}
