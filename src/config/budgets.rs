//! Reads `budgets` of an agent or a source: what its work may use.

use serde_json::Value;

use super::{problem::Wrong, reader::Entry};
use crate::domain::budget::Budgets;

/// None at all where the file names none.
pub(super) fn read(entry: &mut Entry<'_, '_>) -> Budgets {
    let Some(given) = entry.raw("budgets").cloned() else { return Budgets::default() };
    let budgets = match serde_json::from_value::<Budgets>(given.clone()) {
        Ok(budgets) => budgets,
        Err(error) => {
            let message =
                if given.is_object() { error.to_string() } else { "must be a table".into() };
            let wrong = Wrong { message, hint: None };
            entry.problem("budgets", wrong.hint(HINT));
            return Budgets::default();
        }
    };
    if let Err(problem) = budgets.check() {
        entry.problem("budgets", format!("{} {}", problem.field, problem.message));
    }
    // A table of what has no limits would say something and mean nothing.
    let is_void =
        |(_, budget): (&String, &Value)| budget.as_object().is_some_and(serde_json::Map::is_empty);
    if given.as_object().is_some_and(|scopes| scopes.is_empty() || scopes.iter().any(is_void)) {
        entry.problem("budgets", Wrong::from("has a table without a limit").hint(HINT));
    }
    budgets
}

const HINT: &str = "for instance `{ turn = { cost_usd = \"0.50\" }, day = { tokens = 1000000 } }`";
