//! What is done to a source on its page: settings, and what they would have done; pause, secret, test
//! delivery, removal. Each is the API's own, with a form in the place of JSON.

use axum::{
    extract::{Path, State},
    response::{IntoResponse, Redirect, Response},
};
use secrecy::ExposeSecret;
use serde_json::{Map, Value, json};

use super::{
    super::{
        App,
        auth::Actor,
        error::{Error, Result as Answered},
        input::{At, Fields as Body},
        managed,
    },
    fault::Fault,
    guard::{Posted, Visitor},
    source::{Report, Said, after},
    source_form::{ALL, fields_of},
};
use crate::{domain::text::printable, ingest::secret_key, vault};

/// Differences of a backtest that the page shows.
const DIFFERENCES_MAX: usize = 20;

/// Whoever may change it.
fn begin(posted: &Posted) -> Result<Actor, Fault> {
    posted.visitor.must_be_able_to_change()?;
    Ok(Actor(posted.visitor.name.clone()))
}

fn body(map: Map<String, Value>) -> Answered<Body> {
    Ok(Body::of(Value::Object(map), "form")?)
}

/// What can be done about it is said on the page; the rest is a page of its own.
fn problem(error: Error) -> Result<String, Fault> {
    match error.is_of_caller() {
        true => Ok(format!("{}.", error.message())),
        false => Err(error.into()),
    }
}

/// Saves the settings, or only tries them on the deliveries of the last days.
pub(super) async fn settings(
    State(app): State<App>,
    Path(name): Path<String>,
    posted: Posted,
) -> Result<Response, Fault> {
    let actor = begin(&posted)?;
    let Posted { visitor, form } = posted;
    let fields = form.fields;
    let (wants_try, read) = (fields.text("try").is_some(), fields_of(&fields, &ALL));
    let again = async |visitor: Visitor, said: Said| {
        after(&app, visitor, &name, Said { typed: Some(fields), ..said }).await
    };
    let wanted = match read {
        Ok(wanted) => wanted,
        Err(problem) => {
            return again(visitor, Said { problem: Some(problem), ..Said::default() }).await;
        }
    };
    if wants_try {
        let order = Map::from_iter([("source".to_owned(), Value::Object(wanted))]);
        let found = match body(order) {
            Ok(order) => managed::backtests::report(&app, &name, order).await,
            Err(error) => Err(error),
        };
        let said = match found {
            Ok(found) => Said { report: Some(report(&found)), ..Said::default() },
            Err(error) => Said { problem: Some(problem(error)?), ..Said::default() },
        };
        return again(visitor, said).await;
    }
    let saved = match body(wanted) {
        Ok(wanted) => {
            managed::sources::update(State(app.clone()), actor, At(name.clone()), wanted).await
        }
        Err(error) => Err(error),
    };
    match saved {
        Ok(_) => Ok(Redirect::to(&format!("/sources/{name}?done=saved")).into_response()),
        Err(error) => {
            let problem = problem(error)?;
            again(visitor, Said { problem: Some(problem), ..Said::default() }).await
        }
    }
}

fn report(found: &Value) -> Report {
    let n = |value: &Value| value.as_i64().unwrap_or(0);
    let row = |word: &'static str| (word, n(&found["happened"][word]), n(&found["would"][word]));
    let said = |it: &Value| {
        let status = it["status"].as_str().unwrap_or_default();
        match it["reason"].as_str() {
            Some(reason) => printable(&format!("{status}: {reason}")),
            None => status.to_owned(),
        }
    };
    let differences = found["differences"].as_array().into_iter().flatten();
    let differences = differences.take(DIFFERENCES_MAX).map(|it| {
        let id = it["delivery_id"].as_str().unwrap_or_default().to_owned();
        let kind = printable(it["event_type"].as_str().unwrap_or("delivery"));
        (id, kind, said(&it["happened"]), said(&it["would"]))
    });
    Report {
        deliveries: n(&found["deliveries"]),
        different: n(&found["different"]),
        rows: [row("accepted"), row("filtered"), row("held")],
        differences: differences.collect(),
        is_cut: found["complete"] == false,
    }
}

/// Pauses or resumes it: what comes meanwhile is held.
pub(super) async fn pause(
    State(app): State<App>,
    Path(name): Path<String>,
    posted: Posted,
) -> Result<Response, Fault> {
    let actor = begin(&posted)?;
    let (state, at) = (State(app.clone()), At(name.clone()));
    let _ = match posted.form.fields.text("paused") {
        Some("yes") => managed::sources::pause(state, actor, at).await?,
        _ => managed::sources::resume(state, actor, at).await?,
    };
    Ok(Redirect::to(&format!("/sources/{name}")).into_response())
}

/// Stores the sender's secret, or makes one up; the one before may be good for a while beside it.
pub(super) async fn secret(
    State(app): State<App>,
    Path(name): Path<String>,
    posted: Posted,
) -> Result<Response, Fault> {
    let actor = begin(&posted)?;
    let Posted { visitor, form } = posted;
    let key = {
        let snapshot = app.ingest.registry.snapshot();
        let entry = snapshot.named_source(&name);
        let entry = entry.ok_or_else(|| Fault::not_found("There is no such source."))?;
        secret_key(&entry.source)
    };
    let seconds = form.fields.text("overlap").and_then(|it| it.parse::<u64>().ok()).unwrap_or(0);
    let generated = form.fields.text("action") == Some("generate");
    let made = generated.then(|| vault::generate_token("bps_"));
    let value = match &made {
        Some(made) => Some(made.expose_secret()),
        None => form.fields.text("secret"),
    };
    let Some(value) = value else {
        let problem = Some("Paste the secret, or let one be made.".to_owned());
        return after(&app, visitor, &name, Said { problem, ..Said::default() }).await;
    };
    let order = json!({"name": key, "value": value, "overlap_seconds": seconds});
    let stored = match Body::of(order, "form") {
        Ok(order) => managed::secrets::put(State(app.clone()), actor, order).await,
        Err(problem) => Err(problem.into()),
    };
    let said = match stored {
        Ok(_) => Said {
            notice: Some("The secret is stored.".to_owned()),
            made: made.map(|made| made.expose_secret().to_owned()),
            ..Said::default()
        },
        Err(error) => Said { problem: Some(problem(error)?), ..Said::default() },
    };
    app.configured().await;
    after(&app, visitor, &name, said).await
}

/// Sends a delivery as the sender would, signed with the source's secret.
pub(super) async fn test(
    State(app): State<App>,
    Path(name): Path<String>,
    posted: Posted,
) -> Result<Response, Fault> {
    let _ = begin(&posted)?;
    let Posted { visitor, form } = posted;
    let mut order = Map::new();
    if let Some(text) = form.fields.text("body").map(str::trim).filter(|it| !it.is_empty()) {
        order.insert("body".to_owned(), json!(text));
    }
    let sent = match body(order) {
        Ok(order) => managed::trials::test(State(app.clone()), At(name.clone()), order).await,
        Err(error) => Err(error),
    };
    let said = match sent {
        Ok(sent) => told(&sent.0),
        Err(error) => Said { problem: Some(problem(error)?), ..Said::default() },
    };
    after(&app, visitor, &name, said).await
}

fn told(sent: &Value) -> Said {
    let status = sent["status"].as_u64().unwrap_or(0);
    let verdict = sent["answer"]["status"].as_str().unwrap_or("answered");
    let text = format!("The test delivery was sent and answered with {status}: {verdict}.");
    match status {
        200..300 => Said { notice: Some(text), ..Said::default() },
        _ => Said { problem: Some(text), ..Said::default() },
    }
}

/// Removes it: its address lets nobody in any more. What came stays.
pub(super) async fn remove(
    State(app): State<App>,
    Path(name): Path<String>,
    posted: Posted,
) -> Result<Response, Fault> {
    let actor = begin(&posted)?;
    let Posted { visitor, form } = posted;
    if form.fields.text("name") != Some(&name) {
        let problem = Some("Write the name of the source to remove it.".to_owned());
        return after(&app, visitor, &name, Said { problem, ..Said::default() }).await;
    }
    let _ = managed::sources::retire(State(app), actor, At(name)).await?;
    Ok(Redirect::to("/sources").into_response())
}
