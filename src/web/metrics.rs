//! `/metrics`: what was counted, and what waits now.
//!
//! Counting is done where things happen; only the age of what waits is looked up here, by one query
//! that serves all scrapes of some seconds. A store that does not answer costs its own line and
//! nothing else: the rest of the numbers is wanted most when something is wrong.

use std::{collections::HashMap, time::Duration};

use axum::{
    extract::State,
    http::{HeaderMap, Method, header},
    response::{IntoResponse, Response},
};
use tokio::sync::Mutex;

use super::{
    App, auth,
    error::Result,
    routes::{Access, Routes, Success, succeeds},
};
use crate::{clock::Timestamp, id::SourceId, metrics::Waiting, store};

/// How long one look at the database stands for further scrapes.
const LOOK_FOR: Duration = Duration::from_secs(5);

/// How long the look may take.
const LOOK_MAX: Duration = Duration::from_secs(2);

const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

type Found = Option<HashMap<SourceId, Timestamp>>;

/// When the message that has waited longest came, by source; `None` when nobody knows.
#[derive(Debug, Default)]
pub(super) struct Oldest(Mutex<Option<(Timestamp, Found)>>);

pub(super) fn routes() -> Routes {
    const SAYS: &str = "Tells what was counted, as OpenMetrics; open if `metrics.public` says so.";
    Routes::with("server", Access::Key).get("/metrics", metrics, succeeds(Success::Text, SAYS))
}

async fn metrics(State(app): State<App>, headers: HeaderMap) -> Result<Response> {
    if !app.options().metrics_public {
        auth::admit(&app, &Method::GET, &headers)?;
    }
    let waiting = waiting(&app).await;
    let text = app.store.metrics().text(&waiting);
    Ok(([(header::CONTENT_TYPE, CONTENT_TYPE)], text).into_response())
}

async fn waiting(app: &App) -> Vec<Waiting> {
    let oldest = oldest(app).await;
    let (snapshot, now) = (app.ingest.registry.snapshot(), app.store.clock().now());
    let sources = snapshot.sources().into_iter().filter(|entry| {
        let waits = |found: &HashMap<_, _>| found.contains_key(&entry.source.id);
        entry.is_in_use() || oldest.as_ref().is_some_and(waits)
    });
    sources
        .map(|entry| Waiting {
            kind: entry.source.kind.clone(),
            name: entry.source.name.clone(),
            sessions: entry.waiting.count(),
            oldest: oldest.as_ref().map(|found| {
                found.get(&entry.source.id).map_or(Duration::ZERO, |came| now.since(*came))
            }),
        })
        .collect()
}

async fn oldest(app: &App) -> Found {
    let mut last = app.oldest.0.lock().await;
    let now = app.store.clock().now();
    // A clock that was set back makes a look old, not everlasting.
    if let Some((at, found)) = &*last
        && (*at..at.plus(LOOK_FOR)).contains(&now)
    {
        return found.clone();
    }
    let limit = app.store.metrics().names_max();
    let found = match tokio::time::timeout(LOOK_MAX, app.store.oldest_waiting(limit)).await {
        Ok(Ok(found)) => Some(found.into_iter().collect()),
        Ok(Err(error)) => unknown(&error),
        Err(_) => unknown(&store::Error::Unavailable(anyhow::anyhow!("it does not answer"))),
    };
    *last = Some((now, found.clone()));
    found
}

fn unknown(error: &store::Error) -> Found {
    tracing::warn!(detail = error.detail(), "what waits longest is not known");
    None
}
