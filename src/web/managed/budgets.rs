//! What an agent's or a source's work may use, and all work together (`all`). A session's own limits
//! come with its creation.

use axum::{Json, extract::State};
use serde_json::{Value, json};

use crate::{
    domain::{ManagedBy, Problem, budget::Budgets},
    id::AgentId,
    ingest::Snapshot,
    store::BUDGETS_OF_ALL,
    web::{
        App,
        auth::Actor,
        error::{Error, Result},
        input::{At, Fields},
        routes::{Routes, answers},
    },
};

pub(super) fn routes() -> Routes {
    Routes::of("budgets")
        .get(
            "/v1/budgets/{owner}",
            retrieve,
            answers("Budgets", "Shows what an agent's or a source's work may use."),
        )
        .post(
            "/v1/budgets/{owner}",
            update,
            answers("Budgets", "Replaces the budgets; what is left out has no limit.")
                .optional("BudgetsUpdate")
                .or(&[409]),
        )
}

/// Whose work budgets are of.
pub(in crate::web) struct Owner {
    pub(in crate::web) id: String,
    /// Whether the config file says what they are.
    pub(in crate::web) is_declared: bool,
}

/// An agent or source, by its id or a source's name: their budgets are under one address.
pub(in crate::web) fn owner(snapshot: &Snapshot, text: &str) -> Option<Owner> {
    let of =
        |id: String, managed_by| Some(Owner { id, is_declared: managed_by == ManagedBy::File });
    if text == BUDGETS_OF_ALL {
        return of(text.to_owned(), ManagedBy::Api);
    }
    if let Some(agent) = text.parse::<AgentId>().ok().and_then(|id| snapshot.agents.get(&id)) {
        return of(agent.id.to_string(), agent.managed_by);
    }
    let source = snapshot.named_source(text);
    let source = source.or_else(|| text.parse().ok().and_then(|id| snapshot.source(&id)));
    let source = &source?.source;
    of(source.id.to_string(), source.managed_by)
}

fn find(app: &App, text: &str) -> Result<String> {
    let owner = owner(&app.ingest.registry.snapshot(), text).map(|owner| owner.id);
    owner.ok_or_else(|| Error::not_found("there is no such agent or source"))
}

async fn retrieve(State(app): State<App>, At(owner): At<String>) -> Result<Json<Value>> {
    let owner = find(&app, &owner)?;
    let budgets = app.store.budgets(owner.clone()).await?;
    Ok(Json(show(&owner, &budgets)))
}

/// Replaces all of them: what is left out has no limit.
pub(in crate::web) async fn update(
    State(app): State<App>,
    actor: Actor,
    At(owner): At<String>,
    mut fields: Fields,
) -> Result<Json<Value>> {
    let owner = find(&app, &owner)?;
    let mut budgets = Budgets::default();
    let Budgets { turn, session, day } = &mut budgets;
    for (key, budget) in [("turn", turn), ("session", session), ("day", day)] {
        if let Some(given) = fields.take(key) {
            let given = Fields::of(given, key)?.rest();
            let wrong = |error| Problem::new(key, format!("cannot be read: {error}"));
            *budget = serde_json::from_value(given).map_err(wrong)?;
        }
    }
    fields.finish()?;
    budgets.check()?;
    if owner == BUDGETS_OF_ALL && (!budgets.turn.is_none() || !budgets.session.is_none()) {
        let message = "limits a day only; `budgets` of the configuration limits turns and sessions";
        return Err(Problem::new(BUDGETS_OF_ALL, message).into());
    }
    let change = actor.change("budgets.set", &owner, json!(budgets));
    app.store.set_budgets(owner.clone(), ManagedBy::Api, budgets, change).await?;
    Ok(Json(show(&owner, &budgets)))
}

fn show(owner: &str, budgets: &Budgets) -> Value {
    json!({
        "type": "budgets",
        "owner": owner,
        "turn": budgets.turn,
        "session": budgets.session,
        "day": budgets.day,
    })
}
