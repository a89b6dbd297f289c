//! What is done to a source on its page: settings, and what they would have done; pause, secret, test
//! delivery, removal. Each is the API's own, with a form in the place of JSON.

use axum::{
    extract::{Path, State},
    response::{IntoResponse, Redirect, Response},
};
use serde_json::{Map, Value, json};

use super::{
    super::{App, input::At, managed},
    fault::Fault,
    form::{OVERLAPS, Wrong, actor, answer, body, outcome},
    guard::{Fields, Posted},
    place::done,
    shown::{self, Shown},
    source::{Report, again},
    source_form::{ALL, fields_of},
    view::counted,
};
use crate::{domain::text::printable, ingest::secret_key};

/// Differences of a backtest that the page shows.
const DIFFERENCES_MAX: usize = 20;

/// Saves the settings, or only tries them on the deliveries of the last days.
pub(super) async fn settings(
    State(app): State<App>,
    Path(name): Path<String>,
    posted: Posted,
) -> Result<Response, Fault> {
    let Posted { visitor, form } = posted;
    let fields = form.fields;
    let wanted = match fields_of(&fields, &ALL) {
        Ok(wanted) => wanted,
        Err(wrong) => return again(&app, visitor, &name, &wrong, Some(&fields)).await,
    };
    let failed = if fields.text("try").is_some() {
        let order = body(json!({ "source": wanted }))?;
        match outcome(managed::backtests::report(&app, &name, order).await)? {
            Ok(found) => {
                let (report, typed) = (Some(report(&found)), Some(fields.encoded()));
                let shown = Shown { report, typed, ..Shown::default() };
                let place = format_args!("/sources/{name}#settings-title");
                return Ok(shown::show(&app, &visitor, place, shown));
            }
            Err(wrong) => wrong,
        }
    } else {
        let (state, at) = (State(app.clone()), At(name.clone()));
        let saved =
            managed::sources::update(state, actor(&visitor), at, body(wanted.into())?).await;
        match outcome(saved)? {
            Ok(_) => return Ok(done(format_args!("/sources/{name}"), "saved")),
            Err(wrong) => wrong,
        }
    };
    again(&app, visitor, &name, &failed, Some(&fields)).await
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
        deliveries: counted(n(&found["deliveries"]), "delivery", "deliveries"),
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
    let actor = actor(&posted.visitor);
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
    let Posted { visitor, form } = posted;
    let key = {
        let snapshot = app.ingest.registry.snapshot();
        let entry = snapshot.named_source(&name);
        let entry = entry.ok_or_else(|| Fault::not_found("There is no such source."))?;
        secret_key(&entry.source)
    };
    let order = match secret_order(&key, &form.fields, "secret") {
        Ok(order) => body(order)?,
        Err(wrong) => return again(&app, visitor, &name, &wrong, None).await,
    };
    let stored = managed::secrets::put(State(app.clone()), actor(&visitor), order).await;
    let shown = match answer(stored)? {
        Ok(stored) => match stored["value"].as_str() {
            Some(made) => Shown { notice: Some(STORED.to_owned()), ..Shown::made(key, made) },
            None => Shown::notice(STORED),
        },
        Err(wrong) => return again(&app, visitor, &name, &wrong, None).await,
    };
    app.configured().await;
    Ok(shown::show(&app, &visitor, format_args!("/sources/{name}"), shown))
}

const STORED: &str = "The secret is stored.";

/// A secret as it was pasted into this field, or one that the server makes up, as the API takes it.
pub(super) fn secret_order(key: &str, fields: &Fields, field: &str) -> Result<Value, Wrong> {
    let overlap = fields.text("overlap").unwrap_or("0");
    let overlap = OVERLAPS.iter().find(|(seconds, _)| *seconds == overlap);
    let overlap: Option<u64> = overlap.and_then(|(seconds, _)| seconds.parse().ok());
    let seconds =
        overlap.ok_or_else(|| Wrong::of("overlap", "That is none of the overlaps offered."))?;
    let mut order = json!({"name": key, "overlap_seconds": seconds});
    if fields.text("action") == Some("generate") {
        order["generate"] = true.into();
    } else {
        let value = fields.text(field);
        let missing = || Wrong::of(field, "Paste it, or let one be made.");
        order["value"] = value.ok_or_else(missing)?.into();
    }
    Ok(order)
}

/// Sends a delivery as the sender would, signed with the source's secret.
pub(super) async fn test(
    State(app): State<App>,
    Path(name): Path<String>,
    posted: Posted,
) -> Result<Response, Fault> {
    let Posted { visitor, form } = posted;
    let mut order = Map::new();
    if let Some(text) = form.fields.text("body").map(str::trim).filter(|it| !it.is_empty()) {
        order.insert("body".to_owned(), json!(text));
    }
    let at = At(name.clone());
    let sent = managed::trials::test(State(app.clone()), at, body(order.into())?).await;
    match answer(sent)? {
        Ok(sent) => Ok(shown::show(&app, &visitor, format_args!("/sources/{name}"), told(&sent))),
        Err(wrong) => again(&app, visitor, &name, &wrong, None).await,
    }
}

/// What came of a test delivery.
pub(super) fn told(sent: &Value) -> Shown {
    let status = sent["status"].as_u64().unwrap_or(0);
    let verdict = printable(sent["answer"]["status"].as_str().unwrap_or("answered"));
    let text = format!("The test delivery was sent and answered with {status}: {verdict}.");
    match status {
        200..300 => Shown::notice(text),
        _ => Shown::problem(text),
    }
}

/// Removes it: its address lets nobody in any more. What came stays.
pub(super) async fn remove(
    State(app): State<App>,
    Path(name): Path<String>,
    posted: Posted,
) -> Result<Response, Fault> {
    let Posted { visitor, form } = posted;
    if form.fields.text("name") != Some(&name) {
        let wrong = Wrong::of("name", "Write the name of the source to remove it.");
        return again(&app, visitor, &name, &wrong, None).await;
    }
    let _ = managed::sources::retire(State(app), actor(&visitor), At(name)).await?;
    Ok(done("/sources", "removed"))
}
