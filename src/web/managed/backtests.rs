//! A changed source tried on the deliveries that came, without writing anything.
//!
//! A long one tells how far it is when the caller asks for a stream; it ends when the caller goes.

use std::time::Duration;

use axum::{
    Json,
    extract::State,
    response::{IntoResponse, Response},
};
use bytes::Bytes;
use futures_util::stream;
use serde_json::{Value, json};

use super::{source_form, sources, trials};
use crate::{
    clock::Timestamp,
    domain::{Problem, delivery::Status, source::Source},
    ingest::{Backtest, Counts, Difference, Report, Snapshot, Trying, Verdicts},
    web::{
        App,
        error::{Error, Kind, Result},
        input::{At, Fields},
        routes::{Routes, Success, succeeds},
        stream::server_sent,
    },
};

pub(super) fn routes() -> Routes {
    let doc = succeeds(
        Success::JsonOrEvents("Backtest"),
        "Tries a changed source on the deliveries that came; nothing is written.",
    );
    Routes::of("sources").post(
        "/v1/sources/{id}/backtest",
        backtest,
        doc.optional("BacktestRequest").or(&[409]),
    )
}

/// How far a backtest looks back unless it is said.
const SINCE: Duration = Duration::from_secs(7 * 24 * 3600);

const DIFFERENCES_DEFAULT: u64 = 100;
const DIFFERENCES_MAX: u64 = 1000;

/// Keys, agents and reasons that an answer shows.
const TOP: usize = 20;

async fn backtest(
    State(app): State<App>,
    At(name): At<String>,
    mut fields: Fields,
) -> Result<Response> {
    if !fields.flag("stream")? {
        return Ok(Json(report(&app, &name, fields).await?).into_response());
    }
    let (backtest, shown) = begin(&app, &name, fields).await?;
    Ok(streamed(app, backtest, shown))
}

/// The report of a source that is changed as a body says, to the end.
pub(in crate::web) async fn report(app: &App, name: &str, fields: Fields) -> Result<Value> {
    let (backtest, shown) = begin(app, name, fields).await?;
    let report = whole(backtest).await.map_err(failed)?;
    Ok(shown.report(&app.ingest.registry.snapshot(), &report))
}

async fn begin(app: &App, name: &str, mut fields: Fields) -> Result<(Backtest, Shown)> {
    let mut source = sources::living(app, name).await?;
    let now = app.store.clock().now();
    let until = fields.time("until")?.unwrap_or(now);
    let since = fields.time("since")?.unwrap_or_else(|| until.minus(SINCE));
    let differences = fields.number("differences", 0..=DIFFERENCES_MAX)?;
    if let Some(changed) = fields.value("source") {
        let mut changed = Fields::of(changed, "source")?;
        if changed.take("secret").is_some() {
            return Err(Problem::new("source.secret", "has no part in a backtest").into());
        }
        source_form::apply(changed, &mut source).map_err(|problem| problem.within("source"))?;
    }
    fields.finish()?;
    let trying = Trying {
        source: source.clone(),
        since,
        until,
        differences_max: usize::try_from(differences.unwrap_or(DIFFERENCES_DEFAULT)).unwrap_or(0),
    };
    let begun = app.ingest.backtest(trying).await.map_err(failed)?;
    let busy = || Error::new(Kind::Overloaded, "another backtest is running on this server");
    let backtest = begun.ok_or_else(busy)?;
    Ok((backtest, Shown { source, since, until }))
}

fn failed(error: anyhow::Error) -> Error {
    match error.downcast::<crate::store::Error>() {
        Ok(error) => error.into(),
        Err(error) => Error::failed(Kind::Internal, format!("a backtest failed: {error:#}")),
    }
}

async fn whole(mut backtest: Backtest) -> anyhow::Result<Report> {
    loop {
        if let Some(report) = backtest.step().await? {
            return Ok(report);
        }
    }
}

/// Server-sent events: how far it is after each slice, and the report.
fn streamed(app: App, backtest: Backtest, shown: Shown) -> Response {
    let state = (app, Some(backtest), shown);
    let frames = stream::unfold(state, async |(app, backtest, shown)| {
        let mut backtest = backtest?;
        let frame = match backtest.step().await {
            Ok(None) => {
                let (done, of) = backtest.progress();
                let progress = json!({"type": "backtest.progress", "done": done, "of": of});
                let next = (app, Some(backtest), shown);
                return Some((frame(&progress), next));
            }
            Ok(Some(report)) => frame(&shown.report(&app.ingest.registry.snapshot(), &report)),
            Err(error) => {
                let error = failed(error);
                tracing::error!(detail = error.detail, "a backtest failed");
                frame(&error.body("/v1", ""))
            }
        };
        Some((frame, (app, None, shown)))
    });
    server_sent(frames)
}

fn frame(value: &Value) -> Bytes {
    let kind = value["type"].as_str().unwrap_or("error");
    format!("event: {kind}\ndata: {value}\n\n").into()
}

/// What was asked.
struct Shown {
    source: Source,
    since: Timestamp,
    until: Timestamp,
}

impl Shown {
    fn report(&self, snapshot: &Snapshot, report: &Report) -> Value {
        let agents = report.agents.top(TOP).into_iter().map(|(id, n)| {
            let name = snapshot.agents.get(&id).map(|agent| &agent.spec.name);
            json!({"agent_id": id, "name": name, "deliveries": n})
        });
        let reasons = report.reasons.top(TOP).into_iter().map(
            |((status, reason), n)| json!({"status": status, "reason": reason, "deliveries": n}),
        );
        let differences: Vec<Value> = report.differences.iter().map(difference).collect();
        json!({
            "type": "backtest",
            "source": self.source.name,
            "source_id": self.source.id,
            "since": self.since,
            "until": self.until,
            "deliveries": report.n_deliveries,
            "complete": !report.is_cut,
            "without_body": report.n_gone,
            "duplicates": report.n_duplicates,
            "happened": verdicts(report.happened),
            "would": verdicts(report.would),
            "agents": agents.collect::<Vec<_>>(),
            "keys": keys(&report.keys),
            "reasons": reasons.collect::<Vec<_>>(),
            "turns": report.n_turns,
            "different": report.n_different,
            "differences": differences,
        })
    }
}

fn verdicts(verdicts: Verdicts) -> Value {
    json!({
        "accepted": verdicts.accepted,
        "filtered": verdicts.filtered,
        "held": verdicts.held,
    })
}

fn keys(keys: &Counts<String>) -> Value {
    let top = keys.top(TOP).into_iter().map(|(key, n)| json!({"key": key, "deliveries": n}));
    json!({"distinct": keys.n_distinct(), "top": top.collect::<Vec<_>>()})
}

fn difference(difference: &Difference) -> Value {
    let happened = &difference.happened;
    let is_accepted = happened.status == Status::Accepted;
    json!({
        "delivery_id": difference.delivery,
        "received_at": difference.received_at,
        "event_type": difference.event_type,
        "happened": {
            "status": happened.status,
            "reason": happened.reason,
            "agent_id": happened.agent_id.as_ref().filter(|_| is_accepted),
            "session_id": happened.session_id,
        },
        "would": trials::destination(&difference.would),
    })
}
