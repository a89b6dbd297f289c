//! Who calls /v1 and /api, and whether they may.
//!
//! A key comes as `Authorization: Bearer` or `X-Api-Key`; the official SDKs send one or the other by
//! version. Reading takes scope `read`, everything else `admin`. Keys that only let deliveries in
//! (the box key, scope `ingest`) are known and not enough: 403. Invariant: this comes before
//! anything about the request is looked at, so an unknown caller learns nothing but 401.

use axum::{
    extract::{FromRequestParts, Request, State},
    http::{HeaderMap, Method, request::Parts},
    middleware::Next,
    response::Response,
};

use super::{
    App,
    error::{Error, Kind, Result},
};
use crate::{
    ingest::{Caller, bearer},
    store::Change,
};

/// What the audit log calls whoever has the master key. Further keys cannot have this name.
pub(super) const MASTER: &str = "master key";

/// The name of whoever makes a change, for the audit log.
#[derive(Clone, Debug)]
pub(super) struct Actor(pub(super) String);

impl Actor {
    /// A change by this actor.
    pub(super) fn change(
        &self,
        action: &'static str,
        target: impl ToString,
        details: serde_json::Value,
    ) -> Change {
        Change { actor: self.0.clone(), action, target: target.to_string(), details }
    }
}

impl FromRequestParts<App> for Actor {
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, _: &App) -> Result<Actor> {
        let actor = parts.extensions.get::<Actor>().cloned();
        actor.ok_or_else(|| Error::failed(Kind::Internal, "a route without authentication"))
    }
}

/// Around every route of /v1 and /api but the webhooks.
pub(super) async fn require(
    State(app): State<App>,
    mut request: Request,
    next: Next,
) -> Result<Response> {
    let actor = admit(&app, request.method(), request.headers())?;
    request.extensions_mut().insert(actor);
    Ok(next.run(request).await)
}

/// Lets a caller do a method, or says why not.
pub(super) fn admit(app: &App, method: &Method, headers: &HeaderMap) -> Result<Actor> {
    let unknown = || {
        let message = "an API key is needed, as `authorization: Bearer …` or `x-api-key`";
        Error::new(Kind::Authentication, message)
    };
    let token = bearer(headers).or_else(|| x_api_key(headers)).ok_or_else(unknown)?;
    let caller = app.ingest.registry.snapshot().caller(token).ok_or_else(unknown)?;
    let reads = matches!(*method, Method::GET | Method::HEAD);
    if reads && caller.may_read() || caller.is_admin() {
        return Ok(Actor(match caller {
            Caller::Master => MASTER.to_owned(),
            Caller::Box => "box key".to_owned(),
            Caller::Key { name, .. } => name,
        }));
    }
    let message = if caller.may_read() {
        "this key may only read; changes need one of scope `admin`"
    } else {
        "this key is for deliveries only; the API needs one of scope `admin` or `read`"
    };
    Err(Error::new(Kind::Permission, message))
}

/// Two of them are ambiguous, and so nobody.
fn x_api_key(headers: &HeaderMap) -> Option<&str> {
    let mut values = headers.get_all("x-api-key").iter();
    match (values.next(), values.next()) {
        (Some(value), None) => value.to_str().ok(),
        _ => None,
    }
}
