//! The pages: what a person sees of everything that the server has, and can do about it.
//!
//! A page is a template, and a block of it is the fragment that htmx asks for, so both say the same.
//! Invariants: every page works without JavaScript and survives a reload; text from outside becomes
//! HTML only through the escaping templates and through `markdown`; the cookie opens these routes
//! and nothing under /v1 or /api; a change needs the form token of the same signed-in visitor.
//! A form answers with a redirect, or with 422 and what was filled in. Left out: what may be done, which
//! the functions of the API say, and the path of a proxy, which `web::prefix` puts before every place.

mod agent;
mod agent_tools;
mod agents;
mod assets;
mod board;
mod chart;
mod confirm;
mod cookie;
mod deliveries;
mod delivery;
mod delivery_list;
mod diff;
mod entry;
mod fault;
mod find;
mod form;
mod guard;
mod live;
mod looks;
mod manage;
mod markdown;
mod navigation;
mod needs;
mod overview;
mod payload;
mod place;
mod reference;
mod session;
mod session_export;
mod session_side;
mod session_way;
mod shown;
mod sign_in;
mod source;
mod source_acts;
mod source_form;
mod source_list;
mod theme;
mod view;
mod visitors;
mod webhook;

use askama::Template;
use axum::{
    Router,
    extract::{DefaultBodyLimit, Request},
    http::{Extensions, HeaderMap, HeaderValue, StatusCode, Version},
    middleware,
    response::{IntoResponse, Response},
    routing::{get, post},
};
use tower_http::{
    CompressionLevel,
    compression::{
        CompressionLayer,
        predicate::{Predicate, SizeAbove},
    },
};

use self::{fault::Fault, view::Markup};
pub(super) use self::{looks::Looks, visitors::Visitors};
use super::{App, is_below};

/// Largest form: a pasted token with room for its percent signs.
const FORM_BYTES_MAX: usize = 256 * 1024;

/// What fits into one packet is sent as it is.
const PACKED_BYTES_MIN: u64 = 1024;

pub(super) fn routes(app: &App) -> Router<App> {
    Router::new()
        .route("/", get(overview::page))
        .route("/needs", get(needs::page))
        .route("/sign-in", get(sign_in::page).post(sign_in::sign_in))
        .route("/sign-out", post(sign_in::sign_out))
        .route("/find", get(find::page))
        .route("/theme", post(theme::choose))
        .route("/agents", get(agents::page))
        .route("/new-agent", get(agent::new).post(agent::create))
        .route("/agents/{id}", get(agent::page).post(agent::save))
        .route("/agents/{id}/pause", post(agent::pause))
        .route("/agents/{id}/archive", get(agent::ask_archive).post(agent::archive))
        .route("/agents/{id}/webhook", get(webhook::page).post(webhook::store_token))
        .route("/agents/{id}/webhook/test", post(webhook::test))
        .route("/agents/{id}/webhook/replay", post(webhook::replay))
        .route("/sources", get(source_list::list))
        .route("/new-source", get(source_list::new).post(source_list::create))
        .route("/sources/{name}", get(source::page))
        .route("/sources/{name}/settings", post(source_acts::settings))
        .route("/sources/{name}/pause", post(source_acts::pause))
        .route("/sources/{name}/secret", post(source_acts::secret))
        .route("/sources/{name}/test", post(source_acts::test))
        .route("/sources/{name}/remove", post(source_acts::remove))
        .route("/sources/{name}/replay", post(source::replay))
        .route("/deliveries", get(delivery_list::page))
        .route("/deliveries/replay", post(delivery_list::replay))
        .route("/deliveries/{id}", get(delivery::page))
        .route("/deliveries/{id}/body", get(delivery::raw))
        .route("/deliveries/{id}/replay", post(delivery::replay))
        .route("/sessions", get(session::list))
        .route("/sessions/{id}", get(session::page))
        .route("/sessions/{id}/answer", post(session::answer))
        .route("/sessions/{id}/say", post(session_side::say))
        .route("/sessions/{id}/settle", post(session_side::settle))
        .route("/callbacks/{id}/again", post(session_side::send_again))
        .route("/sessions/{id}/archive", post(session_side::archive))
        .route(
            "/sessions/{id}/delete",
            get(session_side::confirm_delete).post(session_side::delete),
        )
        .route("/sessions/{id}/transcript.json", get(session_export::json))
        .route("/sessions/{id}/transcript.md", get(session_export::markdown))
        .route("/sessions/{id}/live", get(live::stream))
        .route("/reference", get(reference::page))
        .merge(manage::routes())
        .route("/assets/{build}/{*name}", get(assets::asset))
        .layer(DefaultBodyLimit::max(FORM_BYTES_MAX))
        .layer(middleware::from_fn_with_state(app.clone(), guard::guard))
        .layer(packed())
}

/// Pages, style and scripts go out compressed; streams, pictures and downloads as they are. What a page
/// repeats of a request could give its secrets away by its length to whoever makes a browser ask for it,
/// and nobody elsewhere can: the cookie is for requests of our own pages only.
fn packed() -> CompressionLayer<impl Predicate> {
    let is_text = |_: StatusCode, _: Version, headers: &HeaderMap, _: &Extensions| {
        let kind = headers.get(http::header::CONTENT_TYPE).map_or(&b""[..], HeaderValue::as_bytes);
        ["text/html", "text/css", "text/javascript"]
            .iter()
            .any(|it| kind.starts_with(it.as_bytes()))
            && !headers.contains_key(http::header::CONTENT_DISPOSITION)
    };
    let layer = CompressionLayer::new().quality(CompressionLevel::Fastest);
    layer.compress_when(SizeAbove::new(PACKED_BYTES_MIN).and(is_text))
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
    Markup::render(template).map(answered)
}

fn answered(html: Markup) -> Response {
    let mut response = html.into_text().into_response();
    let kind = HeaderValue::from_static("text/html; charset=utf-8");
    response.headers_mut().insert(http::header::CONTENT_TYPE, kind);
    response
}
