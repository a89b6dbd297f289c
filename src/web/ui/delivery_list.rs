//! All deliveries, newest first: searched, filtered, page by page, and many of them replayed at once.
//!
//! A filter is the query of the page, so it can be kept and sent to somebody. A page looks at some
//! thousands of deliveries at most: where no index leads to what is wanted it may be short or empty. Then
//! it says so, and one that is open goes on to the next by itself until it finds something. A whole id
//! is found at once, however old its delivery is.

use std::time::Duration;

use askama::Template;
use axum::{extract::State, response::Response};
use serde_json::{Map, Value, json};

use super::{
    super::{App, managed::replays},
    deliveries::{badge, decision, session_of},
    fault::Fault,
    form::{actor, body, outcome, refused, searched},
    guard::{Fields, Posted, Visitor},
    overview::source_name,
    page as rendered,
    session::Badge,
    shown::{self, Shown},
    view::{Moment, Shell, bytes, count, counted, short},
};
use crate::{
    clock::Timestamp,
    domain::{
        agent::Agent,
        delivery::{Delivery, Outcome, Status},
        source::SourceKind,
        text::printable,
    },
    id::{DeliveryId, Id},
    ingest::Snapshot,
    store::{self, DeliveryFilter, Page as Found},
};

/// Deliveries on one page.
const LIST_MAX: usize = 50;

/// How long what shall be replayed is looked for.
const LOOK_FOR: Duration = Duration::from_secs(10);

const STATUSES: [Status; 3] = [Status::Accepted, Status::Filtered, Status::Held];

#[derive(Template)]
#[template(path = "delivery_list.html")]
struct Page {
    shell: Shell,
    form: Form,
    list: List,
    notice: Option<String>,
    problem: Option<String>,
}

#[derive(Template)]
#[template(path = "delivery_list.html", block = "live")]
struct Live {
    list: List,
}

/// What the page is filtered by, as it was written.
struct Form {
    text: String,
    sources: Vec<Choice>,
    statuses: Vec<Choice>,
    outcomes: Vec<Choice>,
    source: String,
    status: String,
    outcome: String,
    event_type: String,
    since: String,
    until: String,
    is_used: bool,
    /// What is replayed together: a source has to be chosen, and nothing searched for.
    may_replay: bool,
    agents: Vec<Choice>,
    version: String,
    /// Whether the form for replaying was sent before.
    is_tried: bool,
}

/// One line of a select.
#[derive(Debug)]
pub(super) struct Choice {
    pub(super) value: String,
    pub(super) word: String,
    pub(super) is_chosen: bool,
}

impl Choice {
    pub(super) fn new(value: impl Into<String>, word: impl Into<String>, chosen: &str) -> Choice {
        let value = value.into();
        Choice { is_chosen: value == chosen, word: word.into(), value }
    }

    pub(super) fn of_agents(snapshot: &Snapshot, chosen: &str) -> Vec<Choice> {
        let agents = living_agents(snapshot).into_iter();
        agents.map(|it| Choice::new(it.id.as_str(), printable(&it.spec.name), chosen)).collect()
    }
}

/// The agents that can be given something, by their names.
pub(super) fn living_agents(snapshot: &Snapshot) -> Vec<&Agent> {
    let mut agents: Vec<_> =
        snapshot.agents.values().filter(|it| it.archived_at.is_none()).collect();
    agents.sort_by_key(|it| it.spec.name.to_lowercase());
    agents
}

struct List {
    rows: Vec<Row>,
    /// Of this list, for looking it up again; none on later pages, and where nothing was found yet.
    again: Option<String>,
    /// The query of the next page.
    next: Option<String>,
    is_filtered: bool,
    /// Whether an empty list goes on to the next page by itself: not where it was looked up again, or it
    /// would be done again and again.
    goes_on: bool,
    /// How far back an empty page looked, where there is more.
    until: Option<Moment>,
}

struct Row {
    id: String,
    short: String,
    decision: Badge,
    /// Of those that were accepted.
    outcome: Option<Badge>,
    source: String,
    source_href: Option<String>,
    event_type: Option<String>,
    reason: Option<String>,
    size: String,
    n_attempts: i64,
    is_replay: bool,
    session: Option<String>,
    at: Moment,
}

pub(super) async fn page(
    State(app): State<App>,
    visitor: Visitor,
    query: Fields,
) -> Result<Response, Fault> {
    let (form, list) = look(&app, &visitor, &query).await?;
    if query.text("part") == Some("live") {
        return rendered(&Live { list });
    }
    let said = shown::take(&app, &visitor, &query);
    let shell = Shell::new(visitor, "deliveries", app.store.clock().now());
    rendered(&Page { shell, form, list, notice: said.notice, problem: said.problem })
}

async fn look(app: &App, visitor: &Visitor, query: &Fields) -> Result<(Form, List), Fault> {
    let now = app.store.clock().now();
    let snapshot = app.ingest.registry.snapshot();
    let form = form(&snapshot, visitor, query);
    let wanted = query.text("source");
    let source = wanted.and_then(|wanted| {
        let sources = snapshot.sources();
        sources.iter().find(|it| it.source.id.as_str() == wanted).map(|it| it.source.id.clone())
    });
    let filter = DeliveryFilter {
        source_id: source.or_else(|| wanted.and_then(|it| it.parse().ok())),
        status: query.text("status").and_then(Status::parse),
        outcome: query.text("outcome").and_then(Outcome::parse),
        event_type: query.text("event_type").map(searched).filter(|it| !it.is_empty()),
        received: (time(query.text("since")), time(query.text("until"))),
        cursor: query.text("page").and_then(|it| it.parse::<DeliveryId>().ok()),
        limit: LIST_MAX,
        ..DeliveryFilter::default()
    };
    let found = search(app, &snapshot, &form.text, filter).await?;
    let filters = filters(query);
    let looked = found.next.as_deref().filter(|_| found.data.is_empty());
    let until = match looked.and_then(|it| it.parse::<DeliveryId>().ok()) {
        Some(last) => app.store.delivery(&last).await.ok(),
        None => None,
    };
    let until = until.map(|it| Moment::new(it.received_at, now));
    let is_new = query.text("page").is_none() && until.is_none();
    let list = List {
        rows: found.data.iter().map(|it| row(it, &snapshot, now)).collect(),
        again: is_new.then(|| format!("part=live{filters}")),
        next: found.next.map(|next| format!("page={next}{filters}")),
        is_filtered: form.is_used,
        goes_on: !query.is_again(),
        until,
    };
    Ok((form, list))
}

/// What a text leads to, if there is one: the deliveries of a session, those whose whole id it is, or
/// else all that have it in them.
async fn search(
    app: &App,
    snapshot: &Snapshot,
    text: &str,
    filter: DeliveryFilter,
) -> Result<Found<Delivery>, store::Error> {
    if text.is_empty() {
        return app.store.deliveries(filter).await;
    }
    if let Ok(session) = text.parse() {
        let filter = DeliveryFilter { session_id: Some(session), ..filter };
        return app.store.deliveries(filter).await;
    }
    let mut called = snapshot.identities(text);
    called.push(text.to_owned());
    let called = DeliveryFilter { called, ..filter.clone() };
    let found = app.store.deliveries(called).await?;
    if !found.data.is_empty() {
        return Ok(found);
    }
    app.store.deliveries(DeliveryFilter { has: Some(text.to_owned()), ..filter }).await
}

fn form(snapshot: &Snapshot, visitor: &Visitor, query: &Fields) -> Form {
    let text = |name: &str| query.text(name).unwrap_or_default().to_owned();
    let (source, status, outcome) = (text("source"), text("status"), text("outcome"));
    let mut entries = snapshot.sources();
    entries.sort_by_key(|it| {
        (matches!(it.source.kind, SourceKind::Agent(_)), it.display_name().to_lowercase())
    });
    let sources = entries.iter().map(|it| {
        Choice::new(it.source.id.as_str(), source_name(snapshot, &it.source.name), &source)
    });
    let statuses = STATUSES.map(|it| Choice::new(it.as_str(), it.as_str(), &status));
    let outcomes =
        Outcome::ALL.map(|it| Choice::new(it.as_str(), it.as_str().replace('_', " "), &outcome));
    let searched = searched(&text("q"));
    Form {
        agents: Choice::of_agents(snapshot, &text("agent")),
        version: printable(&text("version")),
        is_tried: query.has_any(&["agent", "version"]),
        sources: sources.collect(),
        statuses: statuses.into(),
        outcomes: outcomes.into(),
        is_used: query.has_any(&FILTERS),
        may_replay: visitor.may_change && !source.is_empty() && searched.is_empty(),
        text: searched,
        source,
        status,
        outcome,
        event_type: printable(&text("event_type")),
        since: text("since"),
        until: text("until"),
    }
}

const FILTERS: [&str; 7] = ["q", "source", "status", "outcome", "event_type", "since", "until"];

/// The filters again, for a link.
fn filters(query: &Fields) -> String {
    named(query, &FILTERS)
}

/// These fields again, behind others of an address.
fn named(query: &Fields, names: &[&str]) -> String {
    let mut out = form_urlencoded::Serializer::new(String::new());
    for name in names {
        if let Some(value) = query.text(name) {
            out.append_pair(name, value);
        }
    }
    let text = out.finish();
    if text.is_empty() { text } else { format!("&{text}") }
}

/// What a field for date and time says, as UTC; a whole time of RFC 3339 is read as well.
pub(super) fn time(text: Option<&str>) -> Option<Timestamp> {
    let text = text?;
    let seconds = if text.len() == 16 { ":00Z" } else { "Z" };
    text.parse().or_else(|_| format!("{text}{seconds}").parse()).ok()
}

fn row(delivery: &Delivery, snapshot: &Snapshot, now: Timestamp) -> Row {
    let id = delivery.id.to_string();
    let name = &delivery.source_name;
    let source_href = if snapshot.named_source(name).is_some() {
        Some(format!("/sources/{name}"))
    } else if snapshot.agent_source(name).is_some() {
        Some(format!("/agents/{name}/webhook"))
    } else {
        None
    };
    Row {
        short: short(&id),
        id,
        decision: decision(delivery),
        outcome: delivery.outcome.map(|_| badge(delivery)),
        source: source_name(snapshot, name),
        source_href,
        event_type: delivery.event_type.as_deref().map(printable),
        reason: delivery.reason.as_deref().map(printable),
        size: bytes(delivery.body_bytes),
        n_attempts: delivery.n_attempts,
        is_replay: delivery.replay_of.is_some(),
        session: session_of(delivery),
        at: Moment::new(delivery.received_at, now),
    }
}

/// Replays what the filters lead to, oldest first, of one source.
pub(super) async fn replay(State(app): State<App>, posted: Posted) -> Result<Response, Fault> {
    let Posted { visitor, form } = posted;
    let fields = &form.fields;
    let source = fields.text("source").unwrap_or_default().to_owned();
    let mut order = Map::new();
    for name in ["status", "outcome", "event_type", "agent"] {
        if let Some(value) = fields.text(name) {
            order.insert(name.to_owned(), json!(value));
        }
    }
    for name in ["since", "until"] {
        if let Some(text) = fields.text(name).filter(|it| !it.is_empty()) {
            // What is no time is left to the API to refuse: without it, more would be replayed.
            let at = time(Some(text)).map_or_else(|| json!(text), |at| json!(at));
            order.insert(name.to_owned(), at);
        }
    }
    if let Some(text) = fields.text("version") {
        // The same: what is no number is not left out.
        let version = text.trim().parse::<u64>();
        order.insert("version".to_owned(), version.map_or_else(|_| json!(text), |it| json!(it)));
    }
    if fields.text("dry_run").is_some() {
        order.insert("dry_run".to_owned(), json!(true));
    }
    let began = app.store.clock().monotonic();
    let done = loop {
        let fields = body(Value::Object(order.clone()))?;
        let done = outcome(replays::many_of(&app, &actor(&visitor), &source, fields).await)?;
        // A call looks at some thousands: where none of them is wanted, the next one goes on behind them.
        let next = done.as_ref().ok().filter(|answer| answer["data"] == json!([]));
        match next.and_then(|answer| answer["next_page"].as_str()) {
            Some(next) if app.store.clock().monotonic() - began < LOOK_FOR => {
                order.insert("page".to_owned(), json!(next));
            }
            _ => break done,
        }
    };
    match done {
        Ok(answer) => {
            // Back to what was filtered, with what was done to it.
            let mut query = filters(fields);
            if answer["dry_run"] == true {
                // What was tried is still in the form.
                query.push_str(&named(fields, &["agent", "version"]));
            }
            let place = format!("/deliveries?{}", query.trim_start_matches('&'));
            Ok(shown::show(&app, &visitor, place, Shown::notice(told(&answer))))
        }
        Err(wrong) => {
            let (form, list) = look(&app, &visitor, fields).await?;
            let shell = Shell::new(visitor, "deliveries", app.store.clock().now());
            let problem = Some(wrong.to_string());
            refused(&Page { shell, form, list, notice: None, problem }, &wrong)
        }
    }
}

/// What the answer of the API says, in a sentence.
fn told(answer: &Value) -> String {
    let all = answer["data"].as_array().map(Vec::as_slice).unwrap_or_default();
    let with = |status: &str| all.iter().filter(|it| it["status"] == status).count();
    let n = |n: usize| i64::try_from(n).unwrap_or(i64::MAX);
    let (accepted, held) = (with("accepted"), with("held"));
    let failed = all.iter().filter(|it| !it["error"].is_null()).count();
    let (did, accepted_word) = match (answer["dry_run"] == true, all.len()) {
        (true, _) => ("would be", "would go to an agent"),
        (false, 1) => ("was", "went to an agent"),
        (false, _) => ("were", "went to an agent"),
    };
    let mut text = format!(
        "{} {did} replayed: {} {accepted_word}, {} held, {} not possible.",
        counted(n(all.len()), "delivery", "deliveries"),
        count(n(accepted)),
        count(n(held)),
        count(n(failed))
    );
    if let Some(stopped) = answer["stopped"].as_str() {
        text.push_str(&format!(" It stopped early: {}.", printable(stopped)));
    } else if answer["is_cut"] == true {
        text.push_str(" There are more: do it again to go on with them.");
    }
    text
}
