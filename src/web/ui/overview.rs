//! The overview: the bell board, what the last day was like, and what waits for a person.
//!
//! Everything is counted already or found by an index that holds only what is open, so the page costs
//! the same with ten deliveries and with millions. It looks again by itself.

use std::sync::Arc;

use askama::Template;
use axum::{extract::State, response::Response};

use super::{
    super::App,
    board::{self, Board},
    chart::{Chart, Series},
    fault::Fault,
    guard::{Fields, Visitor},
    looks::{self, Wants},
    needs::{self, Counted, Counts, Kind, Reader},
    page as rendered,
    view::{Moment, Shell, count, dollars, short},
};
use crate::{
    clock::Timestamp,
    domain::{source::SourceKind, text::printable, turn::TurnEnd},
    ingest::Snapshot,
    metrics::{Received, Stretch},
    store::BUDGETS_OF_ALL,
};

/// Things of one kind that are listed as waiting for a person; the rest is on the page of those.
const LIST_MAX: usize = 3;

#[derive(Template)]
#[template(path = "overview.html")]
struct Page {
    shell: Shell,
    list: Arc<Now>,
}

#[derive(Template)]
#[template(path = "overview.html", block = "live")]
struct Live {
    list: Arc<Now>,
}

/// What the page says at one moment, to whomever.
#[derive(Debug)]
pub(super) struct Now {
    board: Board,
    figures: Figures,
    charts: [Chart; 3],
    /// The number of the navigation.
    n_needs: Option<String>,
    needs: Vec<Needed>,
}

/// What needs a person, of one kind.
#[derive(Debug)]
struct Needed {
    kind: Kind,
    n: String,
    items: Vec<needs::Item>,
    /// Whether there is more than is shown.
    is_cut: bool,
}

#[derive(Debug)]
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

pub(super) async fn page(
    State(app): State<App>,
    visitor: Visitor,
    query: Fields,
) -> Result<Response, Fault> {
    if query.text("part") == Some("live") {
        return rendered(&Live { list: looks::overview(&app, Wants::Lately).await? });
    }
    let list = looks::overview(&app, Wants::Now).await?;
    let visitor = Visitor { needs: list.n_needs.clone(), ..visitor };
    rendered(&Page { shell: Shell::new(visitor, "overview", app.store.clock().now()), list })
}

pub(super) async fn look(app: &App) -> Result<Now, Fault> {
    let (snapshot, now) = (app.ingest.registry.snapshot(), app.store.clock().now());
    let Counted { counts, last } = needs::count(app).await?;
    let day = app.store.metrics().day(now);
    let reader = Reader { app, snapshot: &snapshot, last: &last, now };
    Ok(Now {
        board: board::board(&snapshot, &last, now),
        figures: figures(app, &snapshot, &day, now).await?,
        charts: charts(&day),
        n_needs: counts.shown(),
        needs: needed(&reader, &counts).await?,
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

fn charts(day: &[Stretch]) -> [Chart; 3] {
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
    [
        Chart::stacked(
            "Deliveries",
            &times,
            &[
                received("good", "accepted", &[Received::Accepted]),
                received("soft", "duplicate", &[Received::Duplicate]),
                received("pale", "filtered", &[Received::Filtered]),
                received("brass", "held", &[Received::Held]),
                received("bad", "refused", &REFUSED),
            ],
        ),
        Chart::marks(
            "Time to answer",
            &times,
            [("good", "half within", within(50)), ("brass", "99 of 100 within", within(99))],
        ),
        Chart::stacked(
            "Turns",
            &times,
            &[
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
    ]
}

/// What needs a person, the most urgent first: the first few of each kind, and how many there are.
async fn needed(reader: &Reader<'_>, counts: &Counts) -> Result<Vec<Needed>, Fault> {
    let mut needed = Vec::new();
    for kind in Kind::ALL {
        let found = reader.items(kind, None, LIST_MAX).await?;
        if !found.data.is_empty() {
            let n = counts.of(kind).max(found.data.len() as u64);
            let is_cut = n > found.data.len() as u64;
            needed.push(Needed { kind, n: needs::said(n), items: found.data, is_cut });
        }
    }
    Ok(needed)
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
