//! /v1: the Managed Agents API, and our own resources in its style.
//!
//! Shapes, statuses and limits of agents, environments, sessions and events are the API's own, so
//! that the official SDKs work unmodified; what we add to an object are further fields. Endpoints
//! that we do not have answer 404.

pub(super) mod agents;
mod api_keys;
mod audit;
mod backtests;
mod deliveries;
mod environments;
mod events;
mod replays;
mod secrets;
mod sessions;
mod source_form;
mod sources;
mod trials;

use axum::Router;

use super::App;

pub(super) fn routes() -> Router<App> {
    Router::new()
        .merge(agents::routes())
        .merge(environments::routes())
        .merge(sessions::routes())
        .merge(events::routes())
        .merge(secrets::routes())
        .merge(sources::routes())
        .merge(trials::routes())
        .merge(backtests::routes())
        .merge(deliveries::routes())
        .merge(replays::routes())
        .merge(api_keys::routes())
        .merge(audit::routes())
}

/// Objects on a page of a list, unless the caller says otherwise, and at most.
const LIMIT: (usize, usize) = (20, 100);
