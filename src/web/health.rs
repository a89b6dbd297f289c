//! Whether the process lives, and whether it can take deliveries.

use std::time::Duration;

use axum::{Router, extract::State, routing::get};
use tokio::{sync::Mutex, time::Instant};

use super::{
    App,
    error::{Error, Kind, Result},
};

/// How long an answer of the store stands for the next ones.
const READY_FOR: Duration = Duration::from_secs(1);

/// How long the store may take for its answer.
const PROBE_MAX: Duration = Duration::from_secs(5);

/// What the store said last, and when.
#[derive(Debug, Default)]
pub(super) struct Ready(Mutex<Option<(Instant, Result<(), String>)>>);

pub(super) fn routes() -> Router<App> {
    Router::new().route("/healthz", get(async || "ok")).route("/readyz", get(readyz))
}

/// Ready means that the store can commit. However many ask, it is asked once in a while.
async fn readyz(State(app): State<App>) -> Result<&'static str> {
    let mut last = app.ready.0.lock().await;
    let now = app.store.clock().monotonic();
    let outcome = match &*last {
        Some((at, outcome)) if now.duration_since(*at) < READY_FOR => outcome.clone(),
        _ => {
            let outcome = match tokio::time::timeout(PROBE_MAX, app.store.probe()).await {
                Ok(outcome) => outcome.map_err(|error| error.detail()),
                Err(_) => Err("the store does not answer".to_owned()),
            };
            *last = Some((app.store.clock().monotonic(), outcome.clone()));
            outcome
        }
    };
    outcome.map(|()| "ready").map_err(|detail| Error::failed(Kind::Unavailable, detail))
}
