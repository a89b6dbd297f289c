//! What was used over some days: by agents, sources and models, and by all of them day by day.
//!
//! Read from the rows that budgets are settled in: one for each agent, source and model that worked on
//! a day, however many deliveries there were. Left out: what a name behind an id is.

use super::{
    Result, Store,
    budgets::{ALL, DAY_MS, DAYS_KEPT, MODEL, read_used, sums, used_and_reserved},
    driver::{Row, params},
};
use crate::domain::budget::{Budgets, Used};

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
                let sql = format!(
                    "select scope, {} from spending where day >= $1 and day > 0 \
                     group by scope order by sum(cost_micros) desc, sum(tokens) desc, scope limit $2",
                    sums()
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
                let sql = format!("select day, {} from spending where scope = $1", sums());
                let mut select = super::select::Select::new(sql, [scope.as_str().into()]);
                // Named one by one each is one look, whoever else worked on these days.
                select.and_among("day", days);
                let (sql, values) = select.into_parts();
                let rows =
                    tx.query(&format!("{sql} group by day order by day"), &values)?.into_iter();
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
                let sql = "select owner, limits from budgets \
                           where owner = $1 or owner like 'agent%' or owner like 'src%' \
                           order by owner limit $2";
                let mut standings = Vec::new();
                for mut row in tx.query(sql, &params![ALL, SCOPES_MAX])? {
                    let (owner, budgets) = (row.text(0)?, row.json(1)?);
                    let whose = match owner.as_str() {
                        ALL => "",
                        _ => "where agent_id = $1 or source_id = $1",
                    };
                    let (today, reserved) = used_and_reserved(tx, &owner, today, whose)?;
                    standings.push(BudgetState { owner, budgets, today, reserved });
                }
                Ok(standings)
            })
            .await
    }
}
