//! Deliveries replayed: one, or those of a source that fit, in the order in which they came.
//!
//! Invariant: what a call answers as done is committed, and a call that ends early says where the
//! next one begins. A call for many leaves out replays, and what was replayed before unless that is
//! wanted again: so one that was cut off can be made again.

use std::{str::FromStr, time::Duration};

use axum::{Json, extract::State};
use serde_json::{Value, json};

use super::{sources, trials};
use crate::{
    clock::Timestamp,
    domain::{
        Problem,
        delivery::{Delivery, Outcome, Status},
    },
    id::DeliveryId,
    ingest::{Answer, NotReplayed, Order},
    store::{DeliveryFilter, Verdict},
    web::{
        App,
        auth::Actor,
        error::{Error, Result},
        hooks,
        input::{At, Fields},
        query::{cursor, place},
        routes::{Routes, answers},
    },
};

pub(super) fn routes() -> Routes {
    Routes::of("deliveries")
        .post(
            "/v1/deliveries/{id}/replay",
            one,
            answers("Delivery", "Makes a delivery again of what is stored.")
                .optional("ReplayOrder")
                .or(&[409, 429]),
        )
        .post(
            "/v1/sources/{id}/replay",
            many,
            answers("Replays", "Replays deliveries of a source, in the order in which they came.")
                .optional("ReplayMany")
                .or(&[409, 429]),
        )
}

/// Deliveries that one call replays, unless it says otherwise, and at most.
const LIMIT: (u64, u64) = (100, 1000);

/// How long one call goes on; what is left is the next one's.
const CALL_MAX: Duration = Duration::from_secs(20);

const LIST: &str = "replays";

impl From<NotReplayed> for Error {
    fn from(failed: NotReplayed) -> Error {
        match failed {
            NotReplayed::Unknown => Error::not_found("there is no such delivery"),
            NotReplayed::Impossible(reason) => Error::conflict(reason),
            NotReplayed::Order(problem) => problem.into(),
            NotReplayed::Reject(reject) => reject.into(),
        }
    }
}

async fn one(
    State(app): State<App>,
    actor: Actor,
    At(id): At<DeliveryId>,
    mut fields: Fields,
) -> Result<Json<Value>> {
    let order = order(&app, &mut fields)?;
    fields.finish()?;
    let answer = app.ingest.replay(&id, &order, actor.0).await?;
    hooks::ring(&app, &answer);
    Ok(Json(app.store.delivery(&answer.delivery_id).await?.to_json()))
}

fn order(app: &App, fields: &mut Fields) -> Result<Order, Problem> {
    let agent = fields.text("agent", 256)?;
    let version = fields.number("version", 1..=u64::from(u32::MAX))?;
    let version = version.map(|version| i64::try_from(version).unwrap_or(i64::MAX));
    app.ingest.order(agent.as_deref(), version)
}

async fn many(
    State(app): State<App>,
    actor: Actor,
    At(name): At<String>,
    fields: Fields,
) -> Result<Json<Value>> {
    many_of(&app, &actor, &name, fields).await.map(Json)
}

/// Those of a source, by its id or name, that the fields want.
pub(in crate::web) async fn many_of(
    app: &App,
    actor: &Actor,
    name: &str,
    mut fields: Fields,
) -> Result<Value> {
    let wanted = wanted(app, &mut fields)?;
    let order = order(app, &mut fields)?;
    let dry_run = fields.flag("dry_run")?;
    fields.finish()?;
    let source = sources::living(app, name).await?;
    let until = wanted.until;
    let filter = DeliveryFilter { source_id: Some(source.id.clone()), ..wanted.filter() };
    let listed = app.store.deliveries(filter).await?;
    let began = app.store.clock().monotonic();
    let (mut data, mut last, mut stopped) = (Vec::new(), None, None);
    for delivery in &listed.data {
        if app.store.clock().monotonic() - began > CALL_MAX {
            break;
        }
        let done = match dry_run {
            true => would(app, delivery, &order).await,
            false => replay(app, delivery, &order, actor).await,
        };
        match done {
            Ok(shown) => data.push(shown),
            // Nothing is wrong with this one: it and those behind it may do better later.
            Err(failed @ NotReplayed::Reject(_)) if data.is_empty() => return Err(failed.into()),
            Err(failed @ NotReplayed::Reject(_)) => {
                stopped = Some(Error::from(failed));
                break;
            }
            Err(failed) => data.push(shown(delivery, json!({"error": why(failed)}))),
        }
        last = Some(&delivery.id);
    }
    let is_cut = listed.next.is_some() || data.len() < listed.data.len();
    // Behind the whole page there may be a part without any of them.
    let end =
        if data.len() < listed.data.len() { last.map(ToString::to_string) } else { listed.next };
    let next = end.map(|id| cursor(LIST, &format!("{}.{id}", until.0)));
    Ok(json!({
        "data": data,
        "next_page": next,
        "is_cut": is_cut,
        "stopped": stopped.map(|error| error.message().to_owned()),
        "dry_run": dry_run,
        "source": source.name,
        "source_id": source.id,
    }))
}

/// Which deliveries.
struct Wanted {
    status: Option<Status>,
    outcome: Option<Outcome>,
    event_type: Option<String>,
    since: Option<Timestamp>,
    /// Not included.
    until: Timestamp,
    again: bool,
    after: Option<DeliveryId>,
    limit: u64,
}

fn wanted(app: &App, fields: &mut Fields) -> Result<Wanted, Problem> {
    let page = fields.text("page", 1024)?;
    let page = page.map(|page| place::<Place>(LIST, &page)).transpose()?;
    let until = fields.time("until")?;
    // What comes while it goes on, its own replays among them, is none of it.
    let until = until.or(page.as_ref().map(|page| page.until));
    let outcomes = Outcome::ALL.map(Outcome::as_str).join(", ");
    Ok(Wanted {
        status: word(fields, "status", Status::parse, "accepted, filtered or held")?,
        outcome: word(fields, "outcome", Outcome::parse, &format!("one of {outcomes}"))?,
        event_type: fields.text("event_type", 256)?,
        since: fields.time("since")?,
        until: until.unwrap_or_else(|| app.store.clock().now()),
        again: fields.flag("again")?,
        after: page.map(|page| page.after),
        limit: fields.number("limit", 1..=LIMIT.1)?.unwrap_or(LIMIT.0),
    })
}

impl Wanted {
    fn filter(self) -> DeliveryFilter {
        DeliveryFilter {
            status: self.status,
            outcome: self.outcome,
            event_type: self.event_type,
            received: (self.since, Some(self.until.minus(Duration::from_millis(1)))),
            originals: true,
            unreplayed: !self.again,
            oldest_first: true,
            cursor: self.after,
            limit: usize::try_from(self.limit).unwrap_or(usize::MAX),
            ..DeliveryFilter::default()
        }
    }
}

/// Where a call goes on, and the end of the first one's time.
struct Place {
    until: Timestamp,
    after: DeliveryId,
}

impl FromStr for Place {
    type Err = ();

    fn from_str(text: &str) -> Result<Place, ()> {
        let (until, after) = text.split_once('.').ok_or(())?;
        let until = until.parse().map(Timestamp).map_err(drop)?;
        Ok(Place { until, after: after.parse().map_err(drop)? })
    }
}

fn word<T>(
    fields: &mut Fields,
    key: &str,
    parse: impl Fn(&str) -> Option<T>,
    wanted: &str,
) -> Result<Option<T>, Problem> {
    let text = fields.text(key, 64)?;
    let read =
        |text: String| parse(&text).ok_or_else(|| Problem::new(key, format!("must be {wanted}")));
    text.map(read).transpose()
}

async fn replay(
    app: &App,
    delivery: &Delivery,
    order: &Order,
    actor: &Actor,
) -> Result<Value, NotReplayed> {
    let answer = app.ingest.replay(&delivery.id, order, actor.0.clone()).await?;
    hooks::ring(app, &answer);
    let reason = match answer.verdict {
        Verdict::Held | Verdict::Filtered => app.store.delivery(&answer.delivery_id).await?.reason,
        Verdict::Accepted | Verdict::Duplicate => None,
    };
    Ok(shown(delivery, done(&answer, reason)))
}

fn done(answer: &Answer, reason: Option<String>) -> Value {
    json!({
        "delivery_id": answer.delivery_id,
        "status": answer.verdict.as_str(),
        "agent_id": answer.agent_id,
        "session_id": answer.session_id,
        "reason": reason,
    })
}

async fn would(app: &App, delivery: &Delivery, order: &Order) -> Result<Value, NotReplayed> {
    let would = app.ingest.would_replay(&delivery.id, order).await?;
    Ok(shown(delivery, trials::destination(&would.destination)))
}

/// What became of one, beside what it was.
fn shown(delivery: &Delivery, became: Value) -> Value {
    let mut shown = json!({
        "type": "replay",
        "replay_of": delivery.id,
        "event_type": delivery.event_type,
        "received_at": delivery.received_at,
        "delivery_id": null,
        "status": null,
        "agent_id": null,
        "session_id": null,
        "reason": null,
        "error": null,
    });
    if let (Some(shown), Value::Object(became)) = (shown.as_object_mut(), became) {
        shown.extend(became);
    }
    shown
}

fn why(failed: NotReplayed) -> String {
    Error::from(failed).message().to_owned()
}
