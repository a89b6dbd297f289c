//! What was used over some days: by agents, sources and models, and by all of them day by day.
//!
//! Read from the rows that budgets are settled in: one for each agent, source and model that worked on
//! a day, however many deliveries there were. Left out: what a name behind an id is.

use super::{
    Error, Result, Store,
    budgets::{ALL, DAY_MS, DAYS_KEPT, MODEL, USED, read_used},
    driver::{Row, params},
};
use crate::domain::{
    budget::{Budgets, Used},
    cost::MicroUsd,
};

/// Scopes that one look answers, those that cost most first.
const SCOPES_MAX: i64 = 500;

/// Who used something.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Spender {
    All,
    Agent(String),
    Source(String),
    /// By its name.
    Model(String),
}

impl Spender {
    fn parse(scope: String) -> Spender {
        match scope.strip_prefix(MODEL) {
            Some(model) => Spender::Model(model.to_owned()),
            None if scope == ALL => Spender::All,
            None if scope.starts_with("agent_") => Spender::Agent(scope),
            None => Spender::Source(scope),
        }
    }

    fn scope(&self) -> String {
        match self {
            Spender::All => ALL.to_owned(),
            Spender::Agent(id) | Spender::Source(id) => id.clone(),
            Spender::Model(name) => format!("{MODEL}{name}"),
        }
    }
}

/// What is used and reserved now, by whom limits are set for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BudgetState {
    /// An agent's or a source's id, or `all`.
    pub owner: String,
    pub budgets: Budgets,
    /// Since midnight (UTC).
    pub today: Used,
    /// By requests under way: cost, tokens and how many.
    pub reserved: Used,
}

impl Store {
    /// What everybody used since a day, which is a number of days since 1970 (UTC).
    pub async fn usage(&self, since_day: i64) -> Result<Vec<(Spender, Used)>> {
        self.driver
            .read(move |tx| {
                // A sum of bigint is no bigint on PostgreSQL.
                let sums = USED.split(", ").map(|it| format!("cast(sum({it}) as bigint)"));
                let sums = sums.collect::<Vec<_>>().join(", ");
                let sql = format!(
                    "select scope, {sums} from spending where day >= $1 and day > 0 \
                     group by scope order by sum(cost_micros) desc, sum(tokens) desc, scope limit $2"
                );
                let rows = tx.query(&sql, &params![since_day, SCOPES_MAX])?.into_iter();
                let read = |mut row: Row| {
                    Ok((Spender::parse(row.text(0)?), read_used(&mut row, 1)?))
                };
                rows.map(read).collect()
            })
            .await
    }

    /// What one used on each day since then; days without anything are left out.
    pub async fn usage_by_day(
        &self,
        spender: &Spender,
        since_day: i64,
    ) -> Result<Vec<(i64, Used)>> {
        let scope = spender.scope();
        self.driver
            .read(move |tx| {
                let today = tx.now()?.0 / DAY_MS;
                let days: Vec<i64> = (since_day.max(today - DAYS_KEPT)..=today).collect();
                let sql = format!("select day, {USED} from spending where scope = $1");
                let mut select = super::select::Select::new(sql, [scope.as_str().into()]);
                // Named one by one each is one look, whoever else worked on these days.
                select.and_among("day", days);
                let (sql, values) = select.into_parts();
                let rows = tx.query(&format!("{sql} order by day"), &values)?.into_iter();
                rows.map(|mut row| Ok((row.int(0)?, read_used(&mut row, 1)?))).collect()
            })
            .await
    }

    /// Everybody who has a limit of their own, and what they used today.
    pub async fn budget_states(&self) -> Result<Vec<BudgetState>> {
        self.driver
            .read(move |tx| {
                // The day that work is counted on.
                let today = tx.now()?.0 / DAY_MS;
                let sums = "cast(coalesce(sum(cost_micros), 0) as bigint), \
                            cast(coalesce(sum(tokens), 0) as bigint), count(*) from reservations";
                let sql = "select owner, limits from budgets \
                           where owner = $1 or owner like 'agent%' or owner like 'src%' \
                           order by owner limit $2";
                let mut standings = Vec::new();
                for mut row in tx.query(sql, &params![ALL, SCOPES_MAX])? {
                    let (owner, budgets) = (row.text(0)?, row.json(1)?);
                    let sql = format!("select {USED} from spending where scope = $1 and day = $2");
                    let used = tx.first(&sql, &params![&owner, today])?;
                    let used = used.map(|mut row| read_used(&mut row, 0)).transpose()?;
                    let row = match owner.as_str() {
                        ALL => tx.first(&format!("select {sums}"), &[])?,
                        id => {
                            let sql =
                                format!("select {sums} where agent_id = $1 or source_id = $1");
                            tx.first(&sql, &params![id])?
                        }
                    };
                    let mut row = row.ok_or(Error::Bug("a sum without a row"))?;
                    let reserved = Used {
                        cost: MicroUsd(row.int(0)?),
                        tokens: row.int(1)?,
                        model_calls: row.int(2)?,
                        ..Used::default()
                    };
                    let today = used.unwrap_or_default();
                    standings.push(BudgetState { owner, budgets, today, reserved });
                }
                Ok(standings)
            })
            .await
    }
}
