//! Whether the process lives, and whether it can take deliveries.

use std::time::Duration;

use axum::extract::State;
use tokio::{sync::Mutex, time::Instant};

use super::{
    App,
    error::{self, Error, Kind},
    routes::{Access, Routes, Success, succeeds},
};

/// How long an answer of the store stands for the next ones.
const READY_FOR: Duration = Duration::from_secs(1);

/// How long the store may take for its answer.
const PROBE_MAX: Duration = Duration::from_secs(5);

/// What the store said last, and when.
#[derive(Debug, Default)]
pub(super) struct Ready(Mutex<Option<(Instant, Result<(), String>)>>);

pub(super) fn routes() -> Routes {
    let says = |says| succeeds(Success::Text, says);
    Routes::with("server", Access::Open)
        .get("/healthz", async || "ok", says("Says that the process lives."))
        .get("/readyz", readyz, says("Says whether deliveries can be taken: the store commits."))
}

/// Ready means that the store can commit. However many ask, it is asked once in a while.
async fn readyz(State(app): State<App>) -> error::Result<&'static str> {
    let outcome = ready(&app).await;
    outcome.map(|()| "ready").map_err(|detail| Error::failed(Kind::Unavailable, detail))
}

/// Why the store cannot commit, if it cannot.
pub(super) async fn ready(app: &App) -> Result<(), String> {
    let mut last = app.ready.0.lock().await;
    let now = app.store.clock().monotonic();
    match &*last {
        Some((at, outcome)) if now.duration_since(*at) < READY_FOR => outcome.clone(),
        _ => {
            let outcome = match tokio::time::timeout(PROBE_MAX, app.store.probe()).await {
                Ok(outcome) => outcome.map_err(|error| error.detail()),
                Err(_) => Err("the store does not answer".to_owned()),
            };
            *last = Some((app.store.clock().monotonic(), outcome.clone()));
            outcome
        }
    }
}
