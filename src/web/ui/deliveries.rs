//! What came last at a source: the section that the pages of sources and agents have in common. It
//! looks by itself for what is new, and has a button for having a delivery again.

use askama::Template;
use axum::{
    http::StatusCode,
    response::{IntoResponse, Response},
};

use super::{
    super::{App, error::Error, hooks},
    answered,
    fault::Fault,
    guard::{Fields, Form, Visitor, is_fragment},
    page as rendered,
    session::Badge,
    shown::{self, Shown},
    view::{Markup, Moment, bytes, short},
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

/// The section of one page.
#[derive(Debug)]
pub(super) struct Last<'a> {
    /// The path of the page. Replays are posted below it.
    pub(super) at: String,
    /// Without a source there is nothing.
    pub(super) source: Option<&'a SourceId>,
    /// The beginning of what is said where nothing came: what appears here.
    pub(super) hint: &'static str,
}

#[derive(Template)]
#[template(path = "deliveries.html")]
struct Section<'a> {
    at: &'a str,
    /// Of a visitor who may replay.
    csrf: Option<&'a str>,
    replayed: Option<Replayed>,
    list: List,
}

#[derive(Template)]
#[template(path = "deliveries.html", block = "list")]
struct ListFragment {
    list: List,
}

struct List {
    hint: &'static str,
    rows: Vec<Row>,
}

impl Last<'_> {
    pub(super) async fn section(&self, app: &App, visitor: &Visitor) -> Result<Markup, Fault> {
        self.after(app, visitor, None).await
    }

    /// Only the list, for a page that is open.
    pub(super) async fn fragment(&self, app: &App, visitor: &Visitor) -> Result<Response, Fault> {
        rendered(&ListFragment { list: self.list(app, visitor).await? })
    }

    /// Replays the delivery that a form names, and says how that went: in the section where a script
    /// asked for it, else on the page that follows.
    pub(super) async fn replay(
        &self,
        app: &App,
        visitor: &Visitor,
        form: &Form,
    ) -> Result<Response, Fault> {
        let replayed = replay(app, visitor, self.source, &form.fields).await?;
        if !is_fragment(&form.headers) {
            let shown = match replayed.is_done {
                true => Shown::notice(replayed.text),
                false => Shown::problem(replayed.text),
            };
            return Ok(shown::show(app, visitor, &self.at, shown));
        }
        let status = match replayed.is_done {
            true => StatusCode::OK,
            false => StatusCode::UNPROCESSABLE_ENTITY,
        };
        let section = self.after(app, visitor, Some(replayed)).await?;
        Ok((status, answered(section)).into_response())
    }

    async fn after(
        &self,
        app: &App,
        visitor: &Visitor,
        replayed: Option<Replayed>,
    ) -> Result<Markup, Fault> {
        let csrf = visitor.may_change.then_some(&*visitor.csrf);
        let list = self.list(app, visitor).await?;
        Markup::render(&Section { at: &self.at, csrf, replayed, list })
    }

    async fn list(&self, app: &App, visitor: &Visitor) -> Result<List, Fault> {
        let rows = match self.source {
            Some(source) => last(app, visitor, source).await?,
            None => Vec::new(),
        };
        Ok(List { hint: self.hint, rows })
    }
}

struct Row {
    id: String,
    short: String,
    badge: Badge,
    event_type: Option<String>,
    /// Why nobody got it.
    reason: Option<String>,
    size: String,
    n_attempts: i64,
    /// The secret that let it in.
    secret: Option<String>,
    /// The delivery that had the same body under another id.
    possible_replay_of: Option<String>,
    replay_of: Option<First>,
    n_replays: i64,
    /// What the button for replaying it says, where there is one.
    replay: Option<&'static str>,
    session: Option<String>,
    at: Moment,
}

/// The sender's delivery that a replay repeats.
struct First {
    id: String,
    short: String,
    session: Option<String>,
}

/// What is said about a replay that was asked for just now.
struct Replayed {
    is_done: bool,
    text: String,
}

/// Newest first.
async fn last(app: &App, visitor: &Visitor, source: &SourceId) -> Result<Vec<Row>, Fault> {
    let now = app.store.clock().now();
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
        Ok(first) => session_of(&first),
        Err(store::Error::NotFound) => None,
        Err(error) => return Err(error.into()),
    };
    let id = id.to_string();
    Ok(First { short: short(&id), id, session })
}

async fn replay(
    app: &App,
    visitor: &Visitor,
    source: Option<&SourceId>,
    fields: &Fields,
) -> Result<Replayed, Fault> {
    let unknown = || Fault::not_found("There is no such delivery.");
    let id: Option<DeliveryId> = fields.text("delivery").and_then(|it| it.parse().ok());
    let id = id.ok_or_else(unknown)?;
    if source != Some(&app.store.delivery(&id).await?.source_id) {
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
        session: session_of(delivery),
        at: Moment::new(delivery.received_at, now),
    }
}

/// What was decided as it came.
pub(super) fn decision(delivery: &Delivery) -> Badge {
    let class = match delivery.status {
        Status::Accepted => "done",
        Status::Filtered => "idle",
        Status::Held => "failed",
    };
    Badge { class, word: delivery.status.as_str() }
}

/// What became of it; of what went to nobody, what was decided.
pub(super) fn badge(delivery: &Delivery) -> Badge {
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

/// The session that a delivery leads to.
pub(super) fn session_of(delivery: &Delivery) -> Option<String> {
    let session = delivery.session_id.as_ref().filter(|_| !delivery.session_deleted);
    session.map(ToString::to_string)
}
