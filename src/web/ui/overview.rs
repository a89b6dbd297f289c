//! The overview: the bell board, what the last day was like, and what waits for a person.
//!
//! Everything is counted already or found by an index that holds only what is open, so the page costs
//! the same with ten deliveries and with millions. It looks again by itself.

use askama::Template;
use axum::{extract::State, response::Response};

use super::{
    super::App,
    board::{self, Board},
    chart::{Bars, Lines, Series},
    fault::Fault,
    guard::{Fields, Visitor},
    page as rendered,
    view::{Moment, Shell, count, dollars, short},
};
use crate::{
    clock::Timestamp,
    domain::{
        delivery::Status,
        effect::EffectStatus,
        source::SourceKind,
        text::{first_chars, printable},
        turn::TurnEnd,
    },
    ingest::Snapshot,
    metrics::{Received, Stretch},
    store::{BUDGETS_OF_ALL, DeliveryFilter, EffectFilter, OutgoingFilter, OutgoingStatus},
};

/// Things of one kind that are listed as waiting for a person; more are on their own pages.
const LIST_MAX: usize = 5;

#[derive(Template)]
#[template(path = "overview.html")]
struct Page {
    shell: Shell,
    list: Now,
}

#[derive(Template)]
#[template(path = "overview.html", block = "live")]
struct Live {
    list: Now,
}

/// What the page says at one moment.
struct Now {
    board: Board,
    figures: Figures,
    charts: Charts,
    tasks: Vec<Task>,
}

struct Figures {
    deliveries: String,
    refused: String,
    waiting: String,
    running: String,
    oldest: Option<Moment>,
    cost: String,
    /// The day's budget, and how much of it is used, of a hundred.
    budget: Option<(String, i64)>,
}

struct Charts {
    deliveries: Bars,
    latency: Lines,
    turns: Bars,
}

/// Something that only a person can settle.
struct Task {
    class: &'static str,
    word: &'static str,
    text: String,
    href: String,
    at: Option<Moment>,
}

pub(super) async fn page(
    State(app): State<App>,
    visitor: Visitor,
    query: Fields,
) -> Result<Response, Fault> {
    let now = app.store.clock().now();
    let list = look(&app, now).await?;
    if query.text("part") == Some("live") {
        return rendered(&Live { list });
    }
    rendered(&Page { shell: Shell::new(visitor, "overview", now), list })
}

async fn look(app: &App, now: Timestamp) -> Result<Now, Fault> {
    let snapshot = app.ingest.registry.snapshot();
    let last = board::last(app, &snapshot).await?;
    let day = app.store.metrics().day(now);
    Ok(Now {
        board: board::board(&snapshot, &last, now),
        figures: figures(app, &snapshot, &day, now).await?,
        charts: charts(&day),
        tasks: tasks(app, &snapshot, &last, now).await?,
    })
}

async fn figures(
    app: &App,
    snapshot: &Snapshot,
    day: &[Stretch],
    now: Timestamp,
) -> Result<Figures, Fault> {
    let oldest = app.store.oldest_waiting(1).await?.into_iter().next();
    let used = app.store.cost_today(vec![BUDGETS_OF_ALL.to_owned()]).await?;
    let cost = used.get(BUDGETS_OF_ALL).copied().unwrap_or_default();
    let stored = app.store.budgets(BUDGETS_OF_ALL.to_owned()).await?.day.cost_usd;
    // The strictest wins.
    let most = [stored, app.options().day_cost_max].into_iter().flatten().min();
    let budget = most.map(|most| {
        let percent = cost.0.saturating_mul(100) / most.0.max(1);
        (dollars(most), percent.clamp(0, 100))
    });
    let sum = |these: &[Received]| {
        let n: u64 = day.iter().map(|it| it.received(these)).sum();
        count(i64::try_from(n).unwrap_or(i64::MAX))
    };
    let waiting: u64 = snapshot.sources().iter().map(|it| it.waiting.count()).sum();
    Ok(Figures {
        deliveries: sum(&[Received::Accepted, Received::Filtered, Received::Held]),
        refused: sum(&REFUSED),
        waiting: count(i64::try_from(waiting).unwrap_or(i64::MAX)),
        running: count(app.store.metrics().n_turns_running()),
        oldest: oldest.map(|(_, came)| Moment::new(came, now)),
        cost: dollars(cost),
        budget,
    })
}

const REFUSED: [Received; 6] = [
    Received::Refused,
    Received::TooLarge,
    Received::Incomplete,
    Received::Busy,
    Received::Processing,
    Received::Failed,
];

fn charts(day: &[Stretch]) -> Charts {
    let received = |class, word, these: &[Received]| Series {
        class,
        word,
        values: day.iter().map(|it| it.received(these)).collect(),
    };
    let turns = |class, word, these: &[TurnEnd]| Series {
        class,
        word,
        values: day.iter().map(|it| it.turns(these)).collect(),
    };
    let times: Vec<Timestamp> = day.iter().map(|it| it.began).collect();
    let within = |percent| day.iter().map(|it| it.answered_within(percent)).collect();
    Charts {
        deliveries: Bars::new(
            "Deliveries",
            &times,
            vec![
                received("good", "accepted", &[Received::Accepted]),
                received("soft", "duplicate", &[Received::Duplicate]),
                received("pale", "filtered", &[Received::Filtered]),
                received("brass", "held", &[Received::Held]),
                received("bad", "refused", &REFUSED),
            ],
        ),
        latency: Lines::new(
            "Time to answer",
            &times,
            [("good", "half within", within(50)), ("brass", "99 of 100 within", within(99))],
        ),
        turns: Bars::new(
            "Turns",
            &times,
            vec![
                turns("good", "done", &[TurnEnd::EndTurn]),
                turns("soft", "stopped by hand", &[TurnEnd::Interrupted]),
                turns("brass", "at the budget", &[TurnEnd::BudgetReached]),
                turns(
                    "bad",
                    "failed",
                    &[TurnEnd::Failed, TurnEnd::RetriesExhausted, TurnEnd::Refusal],
                ),
            ],
        ),
    }
}

/// What needs a person, the most urgent first.
async fn tasks(
    app: &App,
    snapshot: &Snapshot,
    last: &board::Last,
    now: Timestamp,
) -> Result<Vec<Task>, Fault> {
    let mut tasks = Vec::new();
    let asked = app.store.open_calls(LIST_MAX * 4).await?;
    for call in asked.into_iter().filter(|it| it.is_question).take(LIST_MAX) {
        tasks.push(Task {
            class: "waiting",
            word: "approval",
            text: format!("{} asks to run {}", printable(&call.agent_name), printable(&call.tool)),
            href: format!("/sessions/{}#{}", call.session_id, call.id),
            at: Some(Moment::new(call.asked_at, now)),
        });
    }
    let filter = EffectFilter {
        status: Some(EffectStatus::InDoubt),
        limit: LIST_MAX,
        ..EffectFilter::default()
    };
    for effect in app.store.effects(filter).await?.data {
        let (input, _) = first_chars(&effect.input, 60);
        tasks.push(Task {
            class: "failed",
            word: "in doubt",
            text: format!("Was it done? {}: {}", printable(&effect.tool), printable(input)),
            href: format!("/sessions/{}#doubts", effect.session_id),
            at: Some(Moment::new(effect.intended_at, now)),
        });
    }
    tasks.extend(
        board::troubles(snapshot, last, now)
            .into_iter()
            .take(LIST_MAX)
            .map(|(word, text, href)| Task { class: "failed", word, text, href, at: None }),
    );
    let filter = DeliveryFilter {
        status: Some(Status::Held),
        limit: LIST_MAX * 4,
        ..DeliveryFilter::default()
    };
    // What is asked of the index of held ones is only that: those that were replayed are few.
    let held = app.store.deliveries(filter).await?.data.into_iter();
    for delivery in held.filter(|it| it.n_replays == 0).take(LIST_MAX) {
        let reason = delivery.reason.as_deref().unwrap_or("no reason was written down");
        tasks.push(Task {
            class: "failed",
            word: "held",
            text: format!(
                "{}: {}",
                source_name(snapshot, &delivery.source_name),
                printable(reason)
            ),
            href: format!("/deliveries/{}", delivery.id),
            at: Some(Moment::new(delivery.received_at, now)),
        });
    }
    let filter = OutgoingFilter {
        status: Some(OutgoingStatus::Dead),
        limit: LIST_MAX,
        ..OutgoingFilter::default()
    };
    for message in app.store.outgoing(filter).await?.data {
        let why = message.last_error.as_deref().unwrap_or("the receiver did not take it");
        let session = message.session_id.as_ref();
        tasks.push(Task {
            class: "failed",
            word: "callback",
            text: format!("Not sent ({}): {}", printable(&message.kind), printable(why)),
            href: session.map_or("/sources".to_owned(), |id| format!("/sessions/{id}#callbacks")),
            at: Some(Moment::new(message.created_at, now)),
        });
    }
    Ok(tasks)
}

/// An agent's own source is called by the agent's id, which says nothing to a person.
pub(super) fn source_name(snapshot: &Snapshot, name: &str) -> String {
    match snapshot.agent_source(name) {
        Some(entry) if matches!(entry.source.kind, SourceKind::Agent(_)) => {
            format!("webhook of {}", printable(entry.display_name()))
        }
        Some(_) | None if name.starts_with("agent_") => format!("webhook {}", short(name)),
        Some(_) | None => printable(name),
    }
}
