//! What came last at a source, as the pages of sources list it.

use super::{
    super::App,
    fault::Fault,
    session::Badge,
    view::{Moment, bytes, short},
};
use crate::{
    clock::Timestamp,
    domain::{
        delivery::{Delivery, Outcome, Status},
        text::printable,
    },
    id::SourceId,
    store::DeliveryFilter,
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
    pub(super) session: Option<String>,
    pub(super) at: Moment,
}

/// Newest first.
pub(super) async fn last(app: &App, source: &SourceId, now: Timestamp) -> Result<Vec<Row>, Fault> {
    let filter = DeliveryFilter {
        source_id: Some(source.clone()),
        limit: LIST_MAX,
        ..DeliveryFilter::default()
    };
    let found = app.store.deliveries(filter).await?;
    Ok(found.data.iter().map(|it| row(it, now)).collect())
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
