//! What came last at a source, as the pages of sources list it, and a button for having it again.

use axum::http::StatusCode;

use super::{
    super::{App, error::Error, hooks},
    fault::Fault,
    guard::{Fields, Visitor},
    session::Badge,
    view::{Moment, bytes, short},
};
use crate::{
    clock::Timestamp,
    domain::{
        delivery::{Delivery, Outcome, Status},
        text::printable,
    },
    id::{DeliveryId, SourceId},
    ingest::{NotReplayed, Order, Reject},
    store::{self, DeliveryFilter, Verdict},
};

/// Deliveries in one list.
const LIST_MAX: usize = 8;

#[derive(Debug)]
pub(super) struct Row {
    pub(super) id: String,
    pub(super) short: String,
    pub(super) badge: Badge,
    pub(super) event_type: Option<String>,
    /// Why nobody got it.
    pub(super) reason: Option<String>,
    pub(super) size: String,
    pub(super) n_attempts: i64,
    /// The secret that let it in.
    pub(super) secret: Option<String>,
    /// The delivery that had the same body under another id.
    pub(super) possible_replay_of: Option<String>,
    pub(super) replay_of: Option<First>,
    pub(super) n_replays: i64,
    /// What the button for replaying it says, where there is one.
    pub(super) replay: Option<&'static str>,
    pub(super) session: Option<String>,
    pub(super) at: Moment,
}

/// The sender's delivery that a replay repeats.
#[derive(Debug)]
pub(super) struct First {
    pub(super) id: String,
    pub(super) short: String,
    pub(super) session: Option<String>,
}

/// What is said about a replay that was asked for just now.
#[derive(Debug)]
pub(super) struct Replayed {
    pub(super) is_done: bool,
    pub(super) text: String,
}

impl Replayed {
    pub(super) fn status(&self) -> StatusCode {
        if self.is_done { StatusCode::OK } else { StatusCode::UNPROCESSABLE_ENTITY }
    }
}

/// Newest first.
pub(super) async fn last(
    app: &App,
    visitor: &Visitor,
    source: &SourceId,
    now: Timestamp,
) -> Result<Vec<Row>, Fault> {
    let filter = DeliveryFilter {
        source_id: Some(source.clone()),
        limit: LIST_MAX,
        ..DeliveryFilter::default()
    };
    let found = app.store.deliveries(filter).await?.data;
    let kept = app.store.with_bodies(found.iter().map(|it| it.id.clone()).collect()).await?;
    let mut rows = Vec::with_capacity(found.len());
    for delivery in &found {
        let first = match &delivery.replay_of {
            Some(first) => Some(first_of(app, first).await?),
            None => None,
        };
        let is_possible = visitor.may_change && kept.contains(&delivery.id);
        let was_kept_back = delivery.status != Status::Accepted && delivery.n_replays == 0;
        let word = if was_kept_back { "Release" } else { "Replay" };
        let replay = is_possible.then_some(word);
        rows.push(Row { replay_of: first, replay, ..row(delivery, now) });
    }
    Ok(rows)
}

/// What is known of a delivery that was replayed; its days may be over.
async fn first_of(app: &App, id: &DeliveryId) -> Result<First, Fault> {
    let session = match app.store.delivery(id).await {
        Ok(first) => first.session_id.as_ref().map(ToString::to_string),
        Err(store::Error::NotFound) => None,
        Err(error) => return Err(error.into()),
    };
    let id = id.to_string();
    Ok(First { short: short(&id), id, session })
}

/// Replays the delivery of this source that a form names.
pub(super) async fn replay(
    app: &App,
    visitor: &Visitor,
    source: &SourceId,
    fields: &Fields,
) -> Result<Replayed, Fault> {
    visitor.must_be_able_to_change()?;
    let unknown = || Fault::not_found("There is no such delivery.");
    let id: Option<DeliveryId> = fields.text("delivery").and_then(|it| it.parse().ok());
    let id = id.ok_or_else(unknown)?;
    if app.store.delivery(&id).await?.source_id != *source {
        return Err(unknown());
    }
    let say = |is_done, text: &str| Replayed { is_done, text: text.to_owned() };
    match app.ingest.replay(&id, &Order::default(), visitor.name.clone()).await {
        Ok(answer) => {
            hooks::ring(app, &answer);
            Ok(match answer.verdict {
                Verdict::Held => say(false, "It could not go anywhere, and is held again."),
                Verdict::Accepted | Verdict::Duplicate | Verdict::Filtered => {
                    say(true, "It was replayed: the new delivery leads the list.")
                }
            })
        }
        Err(NotReplayed::Reject(Reject::Failed(error))) => Err(error.into()),
        Err(failed) => {
            let message = Error::from(failed).message().to_owned();
            Ok(say(false, &format!("It was not replayed: {message}.")))
        }
    }
}

fn row(delivery: &Delivery, now: Timestamp) -> Row {
    let id = delivery.id.to_string();
    Row {
        short: short(&id),
        id,
        badge: badge(delivery),
        event_type: delivery.event_type.as_deref().map(printable),
        reason: delivery.reason.as_deref().map(printable),
        size: bytes(delivery.body_bytes),
        n_attempts: delivery.n_attempts,
        secret: delivery.secret.as_ref().map(|secret| printable(&secret.to_string())),
        possible_replay_of: delivery.possible_replay_of.as_ref().map(ToString::to_string),
        replay_of: None,
        n_replays: delivery.n_replays,
        replay: None,
        session: delivery.session_id.as_ref().map(ToString::to_string),
        at: Moment::new(delivery.received_at, now),
    }
}

fn badge(delivery: &Delivery) -> Badge {
    let (class, word) = match (delivery.status, delivery.outcome) {
        (Status::Held, _) => ("failed", "held"),
        (Status::Filtered, _) => ("idle", "filtered"),
        (Status::Accepted, None | Some(Outcome::Pending)) => ("waiting", "pending"),
        (Status::Accepted, Some(Outcome::Running)) => ("running", "running"),
        (Status::Accepted, Some(Outcome::Waiting)) => ("waiting", "waiting"),
        (Status::Accepted, Some(Outcome::Succeeded)) => ("done", "succeeded"),
        (Status::Accepted, Some(Outcome::Failed)) => ("failed", "failed"),
        (Status::Accepted, Some(Outcome::Cancelled)) => ("over", "cancelled"),
        (Status::Accepted, Some(Outcome::InDoubt)) => ("failed", "in doubt"),
    };
    Badge { class, word }
}
