//! Budgets: what a turn, a session, and the turns of a day may use, and whether that is used up.
//!
//! Pure arithmetic over what was settled and what is reserved. The rule: work is admitted while less
//! than the limit is used, counting what others have reserved for work that has not ended; so a limit
//! is overrun by one model request at most, whoever works at the same time. Left out: where the
//! numbers are kept.

use std::fmt;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::{Problem, cost::MicroUsd};

/// Limits; what is absent has none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Budget {
    /// Dollars.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cost_usd: Option<MicroUsd>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tokens: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub model_calls: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tool_calls: Option<i64>,
    /// Seconds of work.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub seconds: Option<i64>,
}

/// What an agent's or a source's work may use: each turn, each session, and all of them in a day (UTC).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Budgets {
    #[serde(skip_serializing_if = "super::is_default")]
    pub turn: Budget,
    #[serde(skip_serializing_if = "super::is_default")]
    pub session: Budget,
    #[serde(skip_serializing_if = "super::is_default")]
    pub day: Budget,
}

/// What the operator allows whoever works.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CommonBudgets {
    pub turn: Budget,
    pub session: Budget,
    /// Of each source, agent, and of everything together.
    pub source_day: Budget,
    pub agent_day: Budget,
    pub day: Budget,
}

/// What was used, or is reserved.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Used {
    pub cost: MicroUsd,
    pub tokens: i64,
    pub model_calls: i64,
    pub tool_calls: i64,
    pub ms: i64,
    /// Turns that ended. No budget counts them.
    pub turns: i64,
    /// Model requests whose model has no price: of those the cost is not known.
    pub unpriced_calls: i64,
}

/// Whose budget it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    Turn,
    Session,
    SourceDay,
    AgentDay,
    Day,
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Scope::Turn => "turn",
            Scope::Session => "session",
            Scope::SourceDay => "source for today",
            Scope::AgentDay => "agent for today",
            Scope::Day => "server for today",
        })
    }
}

/// What somebody wants to begin.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Wish {
    /// A model request.
    Model {
        /// At most; none where the model has no price.
        cost: Option<MicroUsd>,
        /// At most.
        tokens: i64,
        model: String,
    },
    Tool,
}

/// The answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Admission {
    Fine,
    /// It is used up, in these words.
    Reached(String),
    /// Others have reserved what is left, and may not need it.
    Busy,
    /// Nobody can tell what it would cost.
    Unpriced(String),
}

impl Budget {
    /// The `BudgetLimit` object of the Managed Agents API, if there is a limit in money.
    pub fn to_json(&self) -> Option<Value> {
        self.cost_usd.map(|most| json!({"type": "limit", "max_list_cost": most.to_amount()}))
    }

    /// The stricter of two, limit by limit.
    pub fn and(self, other: Budget) -> Budget {
        fn least<T: Ord>(one: Option<T>, other: Option<T>) -> Option<T> {
            match (one, other) {
                (Some(one), Some(other)) => Some(one.min(other)),
                (one, other) => one.or(other),
            }
        }
        Budget {
            cost_usd: least(self.cost_usd, other.cost_usd),
            tokens: least(self.tokens, other.tokens),
            model_calls: least(self.model_calls, other.model_calls),
            tool_calls: least(self.tool_calls, other.tool_calls),
            seconds: least(self.seconds, other.seconds),
        }
    }

    pub fn is_none(&self) -> bool {
        *self == Budget::default()
    }

    /// Milliseconds of work that are left.
    pub fn ms_left(&self, used: &Used) -> Option<i64> {
        self.seconds.map(|seconds| seconds.saturating_mul(1000).saturating_sub(used.ms).max(0))
    }

    /// Whether something may begin under this budget.
    pub fn admit(&self, scope: Scope, used: &Used, reserved: &Used, wish: &Wish) -> Admission {
        let Budget { cost_usd, tokens, model_calls, tool_calls, seconds } = *self;
        let is_model = matches!(wish, Wish::Model { .. });
        if cost_usd.is_some() && matches!(wish, Wish::Model { cost: None, .. }) {
            return Admission::Unpriced(format!(
                "the {scope} has a budget in dollars, and the model has no price (`models.prices`)"
            ));
        }
        let cost = cost_usd.map(|limit| limit.0);
        let ms = seconds.map(|limit| limit.saturating_mul(1000));
        let limits = [
            (cost, used.cost.0, reserved.cost.0, "dollars", cost_usd.map(|it| it.to_string())),
            (tokens, used.tokens, reserved.tokens, "tokens", tokens.map(|it| it.to_string())),
            (
                model_calls.filter(|_| is_model),
                used.model_calls,
                reserved.model_calls,
                "model requests",
                model_calls.map(|it| it.to_string()),
            ),
            (
                tool_calls.filter(|_| !is_model),
                used.tool_calls,
                reserved.tool_calls,
                "tool calls",
                tool_calls.map(|it| it.to_string()),
            ),
            (ms, used.ms, 0, "seconds of work", seconds.map(|it| it.to_string())),
        ];
        let mut admission = Admission::Fine;
        for (limit, used, reserved, unit, shown) in limits {
            let Some(limit) = limit else { continue };
            if used >= limit {
                let limit = shown.unwrap_or_default();
                return Admission::Reached(format!(
                    "the budget of the {scope} is used up: {limit} {unit}"
                ));
            }
            if used.saturating_add(reserved) >= limit {
                admission = Admission::Busy;
            }
        }
        admission
    }
}

impl Budgets {
    /// Whether all limits are numbers that can be reached.
    pub fn check(&self) -> Result<(), Problem> {
        for (name, budget) in [("turn", self.turn), ("session", self.session), ("day", self.day)] {
            let Budget { cost_usd, tokens, model_calls, tool_calls, seconds } = budget;
            let fields = [
                ("cost_usd", cost_usd.map(|it| it.0)),
                ("tokens", tokens),
                ("model_calls", model_calls),
                ("tool_calls", tool_calls),
                ("seconds", seconds),
            ];
            for (field, value) in fields {
                if value.is_some_and(|value| value < 0) {
                    return Err(Problem::new(format!("{name}.{field}"), "must not be negative"));
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wish(cost: Option<MicroUsd>) -> Wish {
        Wish::Model { cost, tokens: 7, model: String::new() }
    }

    #[test]
    fn work_is_admitted_below_the_limit_and_waits_for_what_others_reserved() {
        let budget = Budget { cost_usd: Some(MicroUsd(100)), ..Budget::default() };
        let cost = |n| Used { cost: MicroUsd(n), ..Used::default() };
        let fine = wish(Some(MicroUsd(5)));
        let admit = |used, reserved| budget.admit(Scope::Day, &cost(used), &cost(reserved), &fine);
        assert_eq!(admit(99, 0), Admission::Fine);
        assert_eq!(admit(60, 39), Admission::Fine);
        assert_eq!(admit(60, 40), Admission::Busy);
        assert!(matches!(admit(100, 0), Admission::Reached(_)));
    }

    #[test]
    fn a_budget_in_dollars_needs_a_price() {
        let budget = Budget { cost_usd: Some(MicroUsd(100)), ..Budget::default() };
        let used = Used::default();
        let unpriced = budget.admit(Scope::Turn, &used, &used, &wish(None));
        assert!(matches!(unpriced, Admission::Unpriced(_)));
        assert_eq!(budget.admit(Scope::Turn, &used, &used, &Wish::Tool), Admission::Fine);
    }

    #[test]
    fn the_stricter_limit_counts() {
        let one = Budget { tokens: Some(5), seconds: Some(9), ..Budget::default() };
        let other = Budget { tokens: Some(7), tool_calls: Some(0), ..Budget::default() };
        let both =
            Budget { tokens: Some(5), seconds: Some(9), tool_calls: Some(0), ..Budget::default() };
        assert_eq!(one.and(other), both);
        let used = Used { ms: 9_000, ..Used::default() };
        assert!(matches!(
            both.admit(Scope::Turn, &used, &Used::default(), &wish(Some(MicroUsd(5)))),
            Admission::Reached(_)
        ));
        assert_eq!(both.ms_left(&Used { ms: 8_500, ..Used::default() }), Some(500));
    }
}
