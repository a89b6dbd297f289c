//! Usage: what work cost, by whom and when, and what it may cost.

use askama::Template;
use axum::{extract::State, response::Response};
use serde_json::{Map, Value};

use super::{
    super::{
        super::{App, input::At, managed::budgets},
        chart::Chart,
        fault::Fault,
        guard::{Fields, Posted, Visitor},
        view::{Shell, count, dollars},
    },
    Wrong, actor, answer, body, done, notice, refused, rendered, shell,
};
use crate::{
    clock::Timestamp,
    domain::{
        ManagedBy,
        budget::{Budget, Budgets, Used},
        cost::MicroUsd,
        text::printable,
    },
    ingest::Snapshot,
    store::{BUDGETS_OF_ALL, BudgetState, Spender},
};

/// Days that may be looked at.
const RANGES: [i64; 3] = [7, 30, 90];

const DAY_MS: i64 = 86_400_000;

/// Rows of one table; those that cost most come first.
const ROWS_MAX: usize = 50;

/// Limits of a budget: the field, what people call it, and how it is filled in.
const LIMITS: [(&str, &str, &str); 5] = [
    ("cost_usd", "Dollars", "decimal"),
    ("tokens", "Tokens", "numeric"),
    ("model_calls", "Model requests", "numeric"),
    ("tool_calls", "Tool calls", "numeric"),
    ("seconds", "Seconds of work", "numeric"),
];
const SCOPES: [(&str, &str); 3] = [("turn", "a turn"), ("session", "a session"), ("day", "a day")];

#[derive(Template)]
#[template(path = "manage/usage.html")]
struct Page {
    shell: Shell,
    days: i64,
    ranges: &'static [i64],
    /// Whose days are shown: the word of the address, and the name; of all where there is none.
    of: Option<(String, String)>,
    charts: Vec<Chart>,
    by_day: Vec<Row>,
    tables: Vec<Table>,
    n_unpriced: String,
    is_unpriced: bool,
    is_empty: bool,
    budgets: Vec<Standing>,
    owners: Vec<(String, String)>,
    editor: Option<Editor>,
    notice: Option<&'static str>,
    problem: Option<Wrong>,
}

struct Table {
    id: &'static str,
    title: &'static str,
    /// What a row is one of.
    noun: &'static str,
    rows: Vec<Row>,
    has_runs: bool,
    n_more: usize,
}

struct Row {
    /// For the address.
    key: String,
    name: String,
    cost: String,
    tokens: String,
    requests: String,
    tools: String,
    runs: String,
    work: String,
}

/// One who has limits.
struct Standing {
    key: String,
    name: String,
    limits: Vec<Limit>,
    from_file: bool,
}

/// A limit, and of a day's how much is used.
struct Limit {
    text: String,
    /// Hundredths of a day's limit that are used, and reserved beside that.
    today: Option<(i64, i64)>,
    used: String,
}

/// The budgets that are being changed.
struct Editor {
    key: String,
    name: String,
    scopes: Vec<(&'static str, &'static str, Vec<Cell>)>,
    from_file: bool,
}

struct Cell {
    field: String,
    label: String,
    mode: &'static str,
    value: String,
}

pub(in crate::web::ui) async fn page(
    State(app): State<App>,
    visitor: Visitor,
    query: Fields,
) -> Result<Response, Fault> {
    show(&app, visitor, &query, None).await
}

pub(in crate::web::ui) async fn set_budgets(
    State(app): State<App>,
    posted: Posted,
) -> Result<Response, Fault> {
    let Posted { visitor, form } = posted;
    let fields = form.fields;
    let owner = fields.text("edit").unwrap_or_default().to_owned();
    let problem = match wanted(&fields) {
        Err(problem) => problem,
        Ok(wanted) => {
            let at = At(owner.clone());
            let set = budgets::update(State(app.clone()), actor(&visitor), at, body(wanted)?).await;
            match answer(set)? {
                Ok(_) => {
                    return Ok(done("/usage", "budgets"));
                }
                Err(problem) => problem,
            }
        }
    };
    show(&app, visitor, &fields, Some(problem)).await
}

/// The budgets that a form means; an empty field is no limit.
fn wanted(fields: &Fields) -> Result<Value, Wrong> {
    let mut budgets = Map::new();
    for (scope, _) in SCOPES {
        let mut budget = Map::new();
        for (limit, label, _) in LIMITS {
            let Some(text) = fields.text(&format!("{scope}.{limit}")).map(str::trim) else {
                continue;
            };
            let value = match limit {
                "cost_usd" => Value::from(text.trim_start_matches('$')),
                _ => {
                    let digits = text.replace(',', "");
                    let number: Result<i64, _> = digits.parse();
                    number
                        .map_err(|_| {
                            let why =
                                format!("{label} of a {scope} must be a whole number, or empty.");
                            Wrong::of(&format!("{scope}.{limit}"), why)
                        })?
                        .into()
                }
            };
            budget.insert(limit.to_owned(), value);
        }
        budgets.insert(scope.to_owned(), Value::Object(budget));
    }
    Ok(Value::Object(budgets))
}

async fn show(
    app: &App,
    visitor: Visitor,
    query: &Fields,
    problem: Option<Wrong>,
) -> Result<Response, Fault> {
    let days = query.text("days").and_then(|it| it.parse().ok()).unwrap_or(30);
    let days = RANGES.into_iter().find(|it| *it == days).unwrap_or(30);
    let (shell, now) = shell(app, visitor, "usage");
    let snapshot = app.ingest.registry.snapshot();
    let today = now.0 / DAY_MS;
    let since = today - days + 1;
    let spender = spender(query.text("of").unwrap_or(BUDGETS_OF_ALL));
    let everybody = app.store.usage(since).await?;
    let series = app.store.usage_by_day(&spender, since).await?;
    let states = app.store.budget_states().await?;
    let whole: Vec<(String, Used)> = (since..=today)
        .map(|day| {
            let found = series.iter().find(|(at, _)| *at == day);
            (day_name(day), found.map(|(_, used)| *used).unwrap_or_default())
        })
        .collect();
    let n_unpriced: i64 = whole.iter().map(|(_, used)| used.unpriced_calls).sum();
    let is_all = spender == Spender::All;
    let editor = match query.text("edit").filter(|_| shell.visitor.may_change) {
        Some(owner) => editor(app, &snapshot, owner, query, problem.is_some()).await?,
        None => None,
    };
    let page = Page {
        days,
        ranges: &RANGES,
        charts: charts(&whole, &spender),
        by_day: whole.iter().rev().map(|(day, used)| row(day, day.clone(), used)).collect(),
        tables: tables(&everybody, &snapshot),
        n_unpriced: count(n_unpriced),
        is_unpriced: n_unpriced > 0,
        is_empty: everybody.is_empty(),
        of: (!is_all).then(|| (key(&spender), name(&spender, &snapshot))),
        budgets: states.iter().map(|state| standing(state, &snapshot)).collect(),
        owners: owners(&snapshot),
        editor,
        notice: notice(query),
        problem,
        shell,
    };
    match &page.problem {
        Some(wrong) => refused(&page, wrong),
        None => rendered(&page),
    }
}

fn spender(key: &str) -> Spender {
    match key.split_once(':') {
        Some(("model", model)) => Spender::Model(model.to_owned()),
        _ if key == BUDGETS_OF_ALL => Spender::All,
        _ if key.starts_with("agent_") => Spender::Agent(key.to_owned()),
        _ => Spender::Source(key.to_owned()),
    }
}

fn key(spender: &Spender) -> String {
    match spender {
        Spender::All => BUDGETS_OF_ALL.to_owned(),
        Spender::Agent(id) | Spender::Source(id) => id.clone(),
        Spender::Model(model) => format!("model:{model}"),
    }
}

/// What people call somebody; of one that is gone, the id.
fn name(spender: &Spender, snapshot: &Snapshot) -> String {
    match spender {
        Spender::All => "everything".to_owned(),
        Spender::Model(model) => printable(model),
        Spender::Agent(id) => {
            let agent = id.parse().ok().and_then(|id| snapshot.agents.get(&id));
            agent.map_or_else(|| printable(id), |agent| printable(&agent.spec.name))
        }
        Spender::Source(id) => {
            let entry = id.parse().ok().and_then(|id| snapshot.source(&id));
            entry.map_or_else(|| printable(id), |entry| printable(entry.display_name()))
        }
    }
}

fn day_name(day: i64) -> String {
    Timestamp(day * DAY_MS).to_string().chars().take(10).collect()
}

fn charts(days: &[(String, Used)], spender: &Spender) -> Vec<Chart> {
    let draw = |title, of: fn(&Used) -> i64, show: fn(i64) -> String| {
        let values: Vec<_> = days.iter().map(|(day, used)| (day.clone(), of(used))).collect();
        Chart::days(title, &values, show)
    };
    let mut charts = vec![
        draw("Cost", |used| used.cost.0, |it| dollars(MicroUsd(it))),
        draw("Tokens", |used| used.tokens, count),
        draw("Model requests", |used| used.model_calls, count),
    ];
    // A turn may ask more than one model.
    if !matches!(spender, Spender::Model(_)) {
        charts.push(draw("Runs", |used| used.turns, count));
    }
    charts
}

fn tables(everybody: &[(Spender, Used)], snapshot: &Snapshot) -> Vec<Table> {
    let table = |id, title, noun, has_runs, is_mine: fn(&Spender) -> bool| {
        let mine = everybody.iter().filter(|(spender, _)| is_mine(spender));
        let n_mine = mine.clone().count();
        let rows = mine.take(ROWS_MAX);
        let rows = rows.map(|(spender, used)| row(&key(spender), name(spender, snapshot), used));
        let n_more = n_mine.saturating_sub(ROWS_MAX);
        Table { id, title, noun, rows: rows.collect(), has_runs, n_more }
    };
    vec![
        table("agents", "By agent", "Agent", true, |it| matches!(it, Spender::Agent(_))),
        table("sources", "By source", "Source", true, |it| matches!(it, Spender::Source(_))),
        table("models", "By model", "Model", false, |it| matches!(it, Spender::Model(_))),
    ]
}

fn row(key: &str, name: String, used: &Used) -> Row {
    let is_unknown = used.unpriced_calls > 0 && used.cost.0 == 0;
    Row {
        key: key.to_owned(),
        name,
        cost: if is_unknown { "not known".to_owned() } else { dollars(used.cost) },
        tokens: count(used.tokens),
        requests: count(used.model_calls),
        tools: count(used.tool_calls),
        runs: count(used.turns),
        work: duration(used.ms / 1000),
    }
}

fn duration(seconds: i64) -> String {
    match seconds {
        ..60 => format!("{seconds} s"),
        60..3_600 => format!("{} min", seconds / 60),
        _ => format!("{} h {} min", seconds / 3_600, seconds % 3_600 / 60),
    }
}

/// Everybody who may be given a budget here.
fn owners(snapshot: &Snapshot) -> Vec<(String, String)> {
    let agents = snapshot
        .agents
        .values()
        .filter(|agent| agent.archived_at.is_none() && agent.managed_by == ManagedBy::Api);
    let mut owners: Vec<(String, String)> = agents
        .map(|agent| (agent.id.to_string(), format!("agent {}", printable(&agent.spec.name))))
        .collect();
    let sources = snapshot.sources();
    let named = sources.iter().filter(|entry| {
        entry.source.managed_by == ManagedBy::Api
            && snapshot.named_source(&entry.source.name).is_some()
    });
    owners.extend(named.map(|entry| {
        (entry.source.id.to_string(), format!("source {}", printable(&entry.source.name)))
    }));
    owners.sort_by(|one, other| one.1.cmp(&other.1));
    owners.insert(0, (BUDGETS_OF_ALL.to_owned(), "everything together".to_owned()));
    owners
}

fn standing(state: &BudgetState, snapshot: &Snapshot) -> Standing {
    let mut limits = Vec::new();
    let budgets = &state.budgets;
    for ((_, words), budget) in SCOPES.iter().zip([budgets.turn, budgets.session, budgets.day]) {
        let is_day = *words == "a day";
        let (today, reserved) = (&state.today, &state.reserved);
        let numbers = [
            (budget.cost_usd.map(|it| it.0), today.cost.0, reserved.cost.0),
            (budget.tokens, today.tokens, reserved.tokens),
            (budget.model_calls, today.model_calls, reserved.model_calls),
            (budget.tool_calls, today.tool_calls, 0),
            (budget.seconds, today.ms / 1000, 0),
        ];
        for ((field, label, _), (limit, used, reserved)) in LIMITS.iter().zip(numbers) {
            let Some(limit) = limit else { continue };
            let amount = |value: i64| match *field {
                "cost_usd" => dollars(MicroUsd(value)),
                _ if value == 1 => format!("1 {}", one_of(label)),
                _ => format!("{} {}", count(value), label.to_lowercase()),
            };
            let held = match reserved {
                0 => String::new(),
                reserved => format!(", {} reserved", amount(reserved)),
            };
            limits.push(Limit {
                text: format!("{} {words}", amount(limit)),
                today: is_day.then(|| {
                    let used = share(used, limit);
                    (used, share(reserved, limit).min(100 - used))
                }),
                used: if is_day { format!("{} used{held}", amount(used)) } else { String::new() },
            });
        }
    }
    Standing {
        key: state.owner.clone(),
        name: name(&spender(&state.owner), snapshot),
        limits,
        from_file: budgets::owner(snapshot, &state.owner).is_some_and(|it| it.is_declared),
    }
}

/// One of what a limit counts.
fn one_of(label: &str) -> String {
    let label = label.to_lowercase();
    match label.split_once(' ') {
        Some(("seconds", rest)) => format!("second {rest}"),
        _ => label.trim_end_matches('s').to_owned(),
    }
}

/// In hundredths, a whole at most.
fn share(part: i64, whole: i64) -> i64 {
    let hundredths = i128::from(part) * 100 / i128::from(whole.max(1));
    i64::try_from(hundredths.clamp(0, 100)).unwrap_or(100)
}

/// The fields of one owner's budgets, as they were filled in or as they are.
async fn editor(
    app: &App,
    snapshot: &Snapshot,
    owner: &str,
    query: &Fields,
    is_filled: bool,
) -> Result<Option<Editor>, Fault> {
    let who = spender(owner);
    let Some(found) = budgets::owner(snapshot, owner) else {
        return Err(Fault::not_found("There is no such agent or source, or not any more."));
    };
    let budgets: Budgets = app.store.budgets(owner.to_owned()).await?;
    // Turns and sessions of everybody are limited by the configuration.
    let scopes = SCOPES.into_iter().filter(|(scope, _)| who != Spender::All || *scope == "day");
    let scopes = scopes.map(|(scope, words)| {
        let budget = match scope {
            "turn" => budgets.turn,
            "session" => budgets.session,
            _ => budgets.day,
        };
        let cells = LIMITS.iter().map(|(limit, label, mode)| {
            let field = format!("{scope}.{limit}");
            let value = match is_filled {
                true => query.text(&field).unwrap_or_default().to_owned(),
                false => stored(&budget, limit),
            };
            Cell { field, label: format!("{label} of {words}"), mode, value }
        });
        (scope, words, cells.collect())
    });
    Ok(Some(Editor {
        key: owner.to_owned(),
        name: name(&who, snapshot),
        scopes: scopes.collect(),
        from_file: found.is_declared,
    }))
}

fn stored(budget: &Budget, limit: &str) -> String {
    let number = match limit {
        "cost_usd" => {
            let text = budget.cost_usd.map(|it| it.to_string()).unwrap_or_default();
            // Two decimals are how money is written; more only where they say something.
            return match text.strip_suffix("0000") {
                Some(short) => short.to_owned(),
                None => text,
            };
        }
        "tokens" => budget.tokens,
        "model_calls" => budget.model_calls,
        "tool_calls" => budget.tool_calls,
        _ => budget.seconds,
    };
    number.map(|it| it.to_string()).unwrap_or_default()
}
