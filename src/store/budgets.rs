//! Budgets, what was spent, and what is reserved for requests that are under way.
//!
//! Invariants: a reservation is written in the transaction of the intent, after everybody else's were
//! looked at under a lock, and goes with the outcome; one that a dead worker left goes with the next
//! claim. Rows of a day are locked in one order. Left out: what a limit means, which is the domain's.

use std::collections::HashMap;

use super::{
    Change, Error, Lease, Result, Store, Urgency, audit,
    driver::{Lane, Row, Tx, Value, params},
    queue::{Beside, Held, append_rows, hold},
    select::Select,
};
use crate::{
    clock::Timestamp,
    domain::{
        ManagedBy, Problem,
        budget::{Admission, Budget, Budgets, CommonBudgets, Scope, Used, Wish},
        cost::{MicroUsd, Spent},
        event::{NewEvent, Usage},
        source::EVERYBODY,
    },
    id::{SessionId, TurnId},
};

pub(super) const DAY_MS: i64 = 86_400_000;

/// Days that are kept beside today's: a quarter, and a little for whoever looks at its end.
pub(super) const DAYS_KEPT: i64 = 100;

/// What somebody wants to begin, and what it may use at most.
#[derive(Clone, Debug)]
pub struct Reserve {
    pub common: CommonBudgets,
    pub wish: Wish,
    /// Milliseconds of work on the turn that are in no row yet.
    pub active_ms: i64,
}

/// Whether it may begin; then it is journaled.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Begun {
    pub admission: Admission,
    pub urgency: Urgency,
    /// Milliseconds of work that the budgets leave.
    pub ms_left: Option<i64>,
}

/// A budget, whose it is, and its row of what was used.
struct Limit {
    scope: Scope,
    row: (String, i64),
    budget: Budget,
}

impl Store {
    /// Begins something that costs: looks at the budgets, and journals the intent with what it may
    /// use. Nothing is written unless the admission is fine.
    pub async fn begin_work(
        &self,
        lease: &Lease,
        events: Vec<NewEvent>,
        beside: Beside,
        reserve: Reserve,
    ) -> Result<Begun> {
        let (lease, at) = (lease.clone(), self.clock.now());
        self.driver
            .transaction(Lane::Work, move |tx| begin(tx, &lease, &events, beside, &reserve, at))
            .await
    }

    /// The limits of an agent, a source or a session, by its id.
    pub async fn budgets(&self, owner: String) -> Result<Budgets> {
        self.driver
            .read(move |tx| {
                let sql = "select limits from budgets where owner = $1";
                let row = tx.first(sql, &params![owner])?;
                Ok(row.map(|mut row| row.json(0)).transpose()?.unwrap_or_default())
            })
            .await
    }

    /// What agents and sources, by their ids, and [`ALL`] have cost today (UTC); who has used nothing is
    /// not among the answers.
    pub async fn cost_today(&self, owners: Vec<String>) -> Result<HashMap<String, MicroUsd>> {
        if owners.is_empty() {
            return Ok(HashMap::new());
        }
        let today = self.clock.now().0 / DAY_MS;
        self.driver
            .read(move |tx| {
                let mut select = Select::new(
                    "select scope, cast(sum(cost_micros) as bigint) from spending where day = $1",
                    [today.into()],
                );
                select.and_among("scope", owners.iter());
                let (sql, values) = select.into_parts();
                let rows = tx.query(&format!("{sql} group by scope"), &values)?.into_iter();
                rows.map(|mut row| Ok((row.text(0)?, MicroUsd(row.int(1)?)))).collect()
            })
            .await
    }

    /// [`Error::Conflict`] when the config file says what they are and this is not that.
    pub async fn set_budgets(
        &self,
        owner: String,
        by: ManagedBy,
        budgets: Budgets,
        change: Change,
    ) -> Result<()> {
        let at = self.clock.now();
        self.driver
            .transaction(Lane::Work, move |tx| {
                let row = tx.first(
                    "select name, managed_by from agents where id = $1 union all \
                     select name, managed_by from sources where id = $1",
                    &params![&owner],
                )?;
                if let Some(mut row) = row {
                    let (name, is) = (row.text(0)?, ManagedBy::parse(&row.text(1)?));
                    super::refuse_declared(is, by, &name, "set its `budgets`")?;
                }
                keep(tx, &owner, &budgets)?;
                audit::note_only(tx, &change, at)
            })
            .await
    }
}

/// As [`Store::begin_work`], within a transaction.
pub(super) fn begin(
    tx: &mut Tx<'_>,
    lease: &Lease,
    events: &[NewEvent],
    beside: Beside,
    reserve: &Reserve,
    at: Timestamp,
) -> Result<Begun> {
    let held = hold(tx, lease)?;
    let (admission, ms_left) = admit(tx, &held, reserve)?;
    if admission == Admission::Fine {
        append_rows(tx, &held, events, at, "running")?;
        beside.apply(tx, &held, at)?;
        put(tx, &held, &reserve.wish)?;
    }
    Ok(Begun { admission, urgency: held.urgency, ms_left })
}

/// Whoever has no limit has no row.
pub(super) fn keep(tx: &mut Tx<'_>, owner: &str, budgets: &Budgets) -> Result<()> {
    if *budgets == Budgets::default() {
        tx.execute("delete from budgets where owner = $1", &params![owner])?;
    } else {
        tx.execute(
            "insert into budgets (owner, limits) values ($1, $2) \
             on conflict (owner) do update set limits = excluded.limits",
            &params![owner, super::to_json(budgets)],
        )?;
    }
    Ok(())
}

/// Nobody may ask for more of a session that has cost what it may cost by its own budget.
pub(super) fn refuse_at_cap(tx: &mut Tx<'_>, session: &SessionId, field: &str) -> Result<()> {
    let sql = "select b.limits, s.cost_micros from budgets b \
               join sessions s on s.id = b.owner where b.owner = $1";
    let Some(mut row) = tx.first(sql, &params![session])? else { return Ok(()) };
    let budgets: Budgets = row.json(0)?;
    let cost = MicroUsd(row.int(1)?);
    match budgets.session.cost_usd {
        Some(most) if cost >= most => {
            let message = "cannot be sent: the session has reached its budget; raise or remove it";
            Err(Error::Invalid(Problem::new(field, message).with_code("budget_reached")))
        }
        _ => Ok(()),
    }
}

/// Who works, as far as budgets go.
fn owners(tx: &mut Tx<'_>, session: &SessionId) -> Result<(String, String)> {
    let sql = "select agent_id, source_id from sessions where id = $1";
    let mut row = tx.first(sql, &params![session])?.ok_or(Error::NotFound)?;
    Ok((row.text(0)?, row.text(1)?))
}

fn admit(tx: &mut Tx<'_>, held: &Held, reserve: &Reserve) -> Result<(Admission, Option<i64>)> {
    let (agent, source) = owners(tx, &held.session_id)?;
    let limits = limits(tx, held, &agent, &source, &reserve.common)?;
    let of_days = limits.iter().map(|limit| &limit.row).filter(|(_, day)| *day > 0);
    let rows: Vec<Vec<Value>> = of_days.map(|(scope, day)| params![scope, *day].into()).collect();
    // In the order of the rows. They must be there to be locked.
    let sql =
        "insert into spending (scope, day) {rows:ti} on conflict (day, scope, part) do nothing";
    tx.insert(sql, &rows)?;
    let (mut admission, mut ms_left) = (Admission::Fine, None);
    for Limit { scope, row, budget } in &limits {
        let whose = match scope {
            Scope::Turn | Scope::Session => None,
            Scope::SourceDay => Some("where source_id = $1"),
            Scope::AgentDay => Some("where agent_id = $1"),
            Scope::Day => Some(""),
        };
        let (mut used, reserved) = match whose {
            None => (used(tx, row)?, Used::default()),
            Some(whose) => {
                hold_scope(tx, row)?;
                used_and_reserved(tx, &row.0, row.1, whose)?
            }
        };
        used.ms += reserve.active_ms;
        ms_left = [ms_left, budget.ms_left(&used)].into_iter().flatten().min();
        match budget.admit(*scope, &used, &reserved, &reserve.wish) {
            Admission::Fine => {}
            Admission::Busy => admission = Admission::Busy,
            end => return Ok((end, ms_left)),
        }
    }
    Ok((admission, ms_left))
}

/// The budgets that count for this turn, in the order of their rows.
fn limits(
    tx: &mut Tx<'_>,
    held: &Held,
    agent: &str,
    source: &str,
    common: &CommonBudgets,
) -> Result<Vec<Limit>> {
    let session = held.session_id.to_string();
    let rows = tx.query(
        "select owner, limits from budgets \
         where owner = $1 or owner = $2 or owner = $3 or owner = $4",
        &params![agent, source, &session, ALL],
    )?;
    let (mut turn, mut of_session) = (common.turn, common.session);
    let (mut source_day, mut agent_day) = (common.source_day, common.agent_day);
    let mut day = common.day;
    for mut row in rows {
        let (owner, budgets): (String, Budgets) = (row.text(0)?, row.json(1)?);
        turn = turn.and(budgets.turn);
        of_session = of_session.and(budgets.session);
        if owner == agent {
            agent_day = agent_day.and(budgets.day);
        } else if owner == source {
            source_day = source_day.and(budgets.day);
        } else if owner == ALL {
            day = day.and(budgets.day);
        }
    }
    let today = tx.now()?.0 / DAY_MS;
    let turn_id = held.turn_id.as_ref().map(ToString::to_string).unwrap_or_default();
    let all = [
        (Scope::AgentDay, (agent.to_owned(), today), agent_day),
        (Scope::Day, (ALL.to_owned(), today), day),
        (Scope::Session, (session, 0), of_session),
        (Scope::SourceDay, (source.to_owned(), today), source_day),
        (Scope::Turn, (turn_id, 0), turn),
    ];
    let limits = all.into_iter().filter(|(scope, row, budget)| {
        !budget.is_none() && (*scope != Scope::SourceDay || !row.0.is_empty())
    });
    Ok(limits.map(|(scope, row, budget)| Limit { scope, row, budget }).collect())
}

/// The row of everything together, and the owner of the server's own budgets. It sorts between agents
/// and models.
pub const ALL: &str = EVERYBODY;

/// What the row of a model begins with; it sorts between everything and sessions.
pub(super) const MODEL: &str = "model:";

/// By a turn or a session, which nobody else counts for.
fn used(tx: &mut Tx<'_>, (scope, day): &(String, i64)) -> Result<Used> {
    let sql = format!("select {USED} from spending where scope = $1 and day = $2");
    let row = tx.first(&sql, &params![scope, *day])?;
    row.map_or(Ok(Used::default()), |mut row| read_used(&mut row, 0))
}

/// Keeps others from asking for the same scope's leave until the commit. Those that write down what they
/// used do not wait for that.
fn hold_scope(tx: &mut Tx<'_>, (scope, day): &(String, i64)) -> Result<()> {
    if tx.has_rivals() {
        let sql = "select part from spending where scope = $1 and day = $2 and part = 0 {wait}";
        tx.first(sql, &params![scope, *day])?;
    }
    Ok(())
}

/// By everybody who counts for a scope on a day, and what they have under way: `whose` says in SQL which
/// reservations, and may name the scope as `$1`. Both are of one moment, so that nothing is missed that
/// goes from one to the other meanwhile.
pub(super) fn used_and_reserved(
    tx: &mut Tx<'_>,
    scope: &str,
    day: i64,
    whose: &'static str,
) -> Result<(Used, Used)> {
    let sql = format!(
        "select u.*, r.* from (select {} from spending where scope = $1 and day = $2) u, \
         (select cast(coalesce(sum(cost_micros), 0) as bigint), \
         cast(coalesce(sum(tokens), 0) as bigint), count(*) from reservations {whose}) r",
        sums()
    );
    let row = tx.first(&sql, &params![scope, day])?;
    let mut row = row.ok_or(Error::Bug("a sum without a row"))?;
    let reserved = Used {
        cost: MicroUsd(row.int(N_USED)?),
        tokens: row.int(N_USED + 1)?,
        model_calls: row.int(N_USED + 2)?,
        ..Used::default()
    };
    Ok((read_used(&mut row, 0)?, reserved))
}

pub(super) const USED: &str =
    "cost_micros, tokens, model_calls, tool_calls, active_ms, turns, unpriced_calls";

const N_USED: usize = 7;

/// The columns of [`USED`], summed up over rows of which there may be none.
pub(super) fn sums() -> String {
    let sum = |column| format!("cast(coalesce(sum({column}), 0) as bigint)");
    USED.split(", ").map(sum).collect::<Vec<_>>().join(", ")
}

/// Reads the columns of [`USED`], which begin here.
pub(super) fn read_used(row: &mut Row, at: usize) -> Result<Used> {
    Ok(Used {
        cost: MicroUsd(row.int(at)?),
        tokens: row.int(at + 1)?,
        model_calls: row.int(at + 2)?,
        tool_calls: row.int(at + 3)?,
        ms: row.int(at + 4)?,
        turns: row.int(at + 5)?,
        unpriced_calls: row.int(at + 6)?,
    })
}

fn put(tx: &mut Tx<'_>, held: &Held, wish: &Wish) -> Result<()> {
    let Wish::Model { cost, tokens, model } = wish else { return Ok(()) };
    let cost = cost.unwrap_or_default();
    let (agent, source) = owners(tx, &held.session_id)?;
    tx.execute(
        "insert into reservations (session_id, agent_id, source_id, cost_micros, tokens, model) \
         values ($1, $2, $3, $4, $5, $6) on conflict (session_id) do update set \
         cost_micros = excluded.cost_micros, tokens = excluded.tokens, model = excluded.model",
        &params![&held.session_id, &agent, &source, cost.0, *tokens, model],
    )?;
    Ok(())
}

/// Nothing of the session is under way any more.
pub(super) fn release(tx: &mut Tx<'_>, session: &SessionId) -> Result<()> {
    tx.execute("delete from reservations where session_id = $1", &params![session])?;
    Ok(())
}

/// Writes down what was used: by the turn, its session, and for the day. With a model request, the
/// reservation for it goes.
pub(super) fn settle(
    tx: &mut Tx<'_>,
    session: &SessionId,
    turn: Option<&TurnId>,
    used: &Used,
) -> Result<()> {
    if *used == Used::default() {
        return Ok(());
    }
    let (agent, source) = owners(tx, session)?;
    let today = tx.now()?.0 / DAY_MS;
    let model = match used.model_calls {
        0 => String::new(),
        _ => take_reserved(tx, session)?,
    };
    let part = part(tx, session);
    // The order in which everybody locks them.
    let rows = [
        (agent, today, part),
        (ALL.to_owned(), today, part),
        (model, today, part),
        (session.to_string(), 0, 0),
        (source, today, part),
        (turn.map(ToString::to_string).unwrap_or_default(), 0, 0),
    ];
    let rows = rows.iter().filter(|(scope, ..)| !scope.is_empty()).map(|(scope, day, part)| {
        params![
            scope,
            *day,
            *part,
            used.cost.0,
            used.tokens,
            used.model_calls,
            used.tool_calls,
            used.ms,
            used.turns,
            used.unpriced_calls
        ]
        .into()
    });
    let sql = format!("insert into spending (scope, day, part, {USED}) {{rows:tiiiiiiiii}} {ADD}");
    tx.insert(&sql, &rows.collect::<Vec<Vec<Value>>>())
}

/// Parts of what many count at once. Turns of all servers end one after the other where they count in one
/// row: that was 75 in a second, each with its commit.
const PARTS: u8 = 64;

/// The part that a session counts in.
fn part(tx: &Tx<'_>, session: &SessionId) -> i64 {
    let id = session.to_string();
    let hash = id.bytes().fold(0_u8, |hash, byte| hash.wrapping_mul(31).wrapping_add(byte));
    if tx.has_rivals() { i64::from(1 + hash % PARTS) } else { 0 }
}

/// Joins the parts of a day that is long over, as nobody counts there any more: whoever looks at a
/// quarter would else read each day in all its parts. For PostgreSQL, which alone has some.
pub(super) fn join_parts(tx: &mut Tx<'_>) -> Result<()> {
    // A turn that ends at midnight may still count for the day before.
    let over = tx.now()?.0 / DAY_MS - 1;
    let sql =
        "select day from spending where day > 0 and day < $1 and part > 0 order by day limit 1";
    let Some(mut row) = tx.first(sql, &params![over])? else { return Ok(()) };
    let day = row.int(0)?;
    let sql = format!(
        "with parts as (delete from spending where day = $1 and part > 0 returning scope, {USED}) \
         insert into spending (scope, day, part, {USED}) \
         select scope, $1, 0, {} from parts group by scope {ADD}",
        sums()
    );
    tx.execute(&sql, &params![day]).map(drop)
}

const ADD: &str = "on conflict (day, scope, part) do update set \
    cost_micros = spending.cost_micros + excluded.cost_micros, \
    tokens = spending.tokens + excluded.tokens, \
    model_calls = spending.model_calls + excluded.model_calls, \
    tool_calls = spending.tool_calls + excluded.tool_calls, \
    active_ms = spending.active_ms + excluded.active_ms, \
    turns = spending.turns + excluded.turns, \
    unpriced_calls = spending.unpriced_calls + excluded.unpriced_calls";

/// Ends the request that a session has under way. Answers the scope of its model; nobody's where that is
/// not known any more.
fn take_reserved(tx: &mut Tx<'_>, session: &SessionId) -> Result<String> {
    let sql = "delete from reservations where session_id = $1 returning model";
    let row = tx.first(sql, &params![session])?;
    let model = row.map(|mut row| row.text(0)).transpose()?.unwrap_or_default();
    Ok(if model.is_empty() { model } else { format!("{MODEL}{model}") })
}

/// What one model request used.
pub(super) fn of_request(spent: &Spent) -> Used {
    let usage = &spent.usage;
    Used {
        cost: spent.cost.unwrap_or_default(),
        unpriced_calls: i64::from(spent.cost.is_none() && *usage != Usage::default()),
        tokens: usage.input_tokens
            + usage.output_tokens
            + usage.cache_creation_input_tokens
            + usage.cache_read_input_tokens,
        model_calls: 1,
        ..Used::default()
    }
}

/// A turn is over: nobody asks any more what it used. Days long gone go along.
pub(super) fn forget(tx: &mut Tx<'_>, turn: &TurnId, now: Timestamp) -> Result<()> {
    tx.execute("delete from spending where scope = $1 and day = 0", &params![turn])?;
    let sql = "delete from spending where day > 0 and day < $1";
    tx.execute(sql, &params![now.0 / DAY_MS - DAYS_KEPT])?;
    Ok(())
}
