//! Signing in with an API key, and out again.
//!
//! The key is looked at once and forgotten; what stays is its hash and a random cookie. The form has
//! a token of its own, so that no other site can sign a visitor in as somebody else.

use askama::Template;
use axum::{
    extract::State,
    http::{HeaderMap, StatusCode, header},
    response::{IntoResponse, Redirect, Response},
};

use super::{
    super::App,
    cookie::Cookie,
    fault::Fault,
    guard::{Fields, Form, Sent},
    page as rendered,
    place::is_ours,
    visitors::{self, same},
};
use crate::vault::hash;

#[derive(Template)]
#[template(path = "sign_in.html")]
struct Page<'a> {
    token: String,
    next: &'a str,
    problem: Option<&'a str>,
}

/// How long a form may lie open.
const FORM_LIFE: std::time::Duration = std::time::Duration::from_secs(24 * 3600);

/// How long a browser is told from those that never signed in, as long as this process lives.
const KNOWN_FOR: std::time::Duration = std::time::Duration::from_secs(365 * 24 * 3600);

pub(super) async fn page(
    State(app): State<App>,
    headers: HeaderMap,
    query: Fields,
) -> Result<Response, Fault> {
    form(&app, &headers, query.text("next"), None, StatusCode::OK)
}

/// The form, for a browser that has a nonce or gets one now.
fn form(
    app: &App,
    headers: &HeaderMap,
    next: Option<&str>,
    problem: Option<&str>,
    status: StatusCode,
) -> Result<Response, Fault> {
    let options = app.options();
    let nonce = Cookie::Form.read(&options, headers).filter(|it| it.len() == 43);
    let nonce = nonce.unwrap_or_else(visitors::random_text);
    let token = app.visitors.form_token(&nonce);
    let next = next.filter(|it| is_ours(it)).unwrap_or("/");
    let mut response = rendered(&Page { token, next, problem })?;
    *response.status_mut() = status;
    let cookie = Cookie::Form.set(&options, headers, &nonce, FORM_LIFE);
    response.headers_mut().insert(header::SET_COOKIE, cookie);
    Ok(response)
}

pub(super) async fn sign_in(State(app): State<App>, posted: Form) -> Result<Response, Fault> {
    let Form { headers, fields } = posted;
    let (options, now) = (app.options(), app.store.clock().now());
    let next = fields.text("next");
    let again = |problem, status| form(&app, &headers, next, Some(problem), status);
    let nonce = Cookie::Form.read(&options, &headers).unwrap_or_default();
    let given = fields.text("csrf").unwrap_or_default();
    if !same(given, &app.visitors.form_token(&nonce)) {
        let problem = "The form was out of date. Here is a fresh one; cookies must be allowed.";
        return again(problem, StatusCode::FORBIDDEN);
    }
    let known = Cookie::Known.read(&options, &headers).filter(|it| app.visitors.knows(it));
    let browser = known.as_deref();
    if !app.visitors.may_try(browser, now) {
        let problem = match browser {
            Some(_) => "Too many wrong keys were tried. Try again in a minute.",
            None => {
                "Too many wrong keys were tried. Browsers that have not signed in before have to wait \
                 a minute."
            }
        };
        let mut response = again(problem, StatusCode::TOO_MANY_REQUESTS)?;
        response.headers_mut().insert(header::RETRY_AFTER, header::HeaderValue::from(60));
        return Ok(response);
    }
    let Some(key) = fields.text("key").map(str::trim) else {
        return again("Enter an API key.", StatusCode::UNPROCESSABLE_ENTITY);
    };
    let problem = match app.ingest.registry.snapshot().caller(key) {
        Some(caller) if caller.may_read() => {
            let token = app.visitors.sign_in(hash(key.as_bytes()), now);
            let place = next.filter(|it| is_ours(it)).unwrap_or("/");
            let cookie = Cookie::Visitor.set(&options, &headers, &token, visitors::LIFE_MAX);
            let mut response = Redirect::to(place).into_response();
            response.headers_mut().insert(header::SET_COOKIE, cookie);
            let known = known.unwrap_or_else(|| app.visitors.new_browser());
            let cookie = Cookie::Known.set(&options, &headers, &known, KNOWN_FOR);
            response.headers_mut().append(header::SET_COOKIE, cookie);
            return Ok(response);
        }
        Some(_) => "This key only lets deliveries in. Use one of scope `admin` or `read`.",
        None => "That is not a key of this server.",
    };
    app.visitors.note_wrong(browser, now);
    again(problem, StatusCode::UNAUTHORIZED)
}

pub(super) async fn sign_out(State(app): State<App>, sent: Sent) -> Response {
    app.visitors.forget(&sent.visitor.entry);
    let (options, headers) = (app.options(), &sent.form.headers);
    let mut response = Redirect::to("/sign-in").into_response();
    let gone = Cookie::Visitor.set(&options, headers, "", visitors::LIFE_MAX);
    response.headers_mut().insert(header::SET_COOKIE, gone);
    response
}
