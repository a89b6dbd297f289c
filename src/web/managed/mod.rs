//! /v1: the Managed Agents API, and our own resources in its style.
//!
//! Shapes, statuses and limits of agents, environments, sessions and events are the API's own, so
//! that the official SDKs work unmodified; what we add to an object are further fields. Endpoints
//! that we do not have answer 404.

pub(super) mod agents;
pub(super) mod api_keys;
mod audit;
pub(super) mod backtests;
pub(super) mod budgets;
pub(super) mod callbacks;
pub(super) mod deliveries;
pub(super) mod deployments;
pub(super) mod effects;
pub(super) mod environments;
pub(super) mod events;
pub(super) mod files;
pub(super) mod outbox;
pub(super) mod replays;
mod resources;
pub(super) mod secrets;
pub(super) mod sessions;
pub(super) mod source_form;
pub(super) mod sources;
mod threads;
pub(super) mod trials;
pub(super) mod vaults;

use super::routes::Routes;

pub(super) fn routes() -> Routes {
    agents::routes()
        .merge(environments::routes())
        .merge(sessions::routes())
        .merge(events::routes())
        .merge(resources::routes())
        .merge(threads::routes())
        .merge(vaults::routes())
        .merge(deployments::routes())
        .merge(files::routes())
        .merge(sources::routes())
        .merge(trials::routes())
        .merge(backtests::routes())
        .merge(deliveries::routes())
        .merge(replays::routes())
        .merge(callbacks::routes())
        .merge(outbox::routes())
        .merge(effects::routes())
        .merge(budgets::routes())
        .merge(secrets::routes())
        .merge(api_keys::routes())
        .merge(audit::routes())
}

/// Objects on a page of a list, unless the caller says otherwise, and at most.
const LIMIT: (usize, usize) = (20, 100);
