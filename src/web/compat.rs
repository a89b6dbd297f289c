//! /api/agents: agents together with their webhook, for users of other webhook-to-agent servers.
//!
//! The object is the one of /v1 plus `webhook {url, secret_key, token_set}`, which is also under
//! `config.webhook`. PATCH merges: a field left out stays, so following an example never wipes an
//! agent's tools. `secret_key` names the secret that senders must know. It belongs to the agent's
//! source: changing it makes no version of the agent.

use axum::{Json, extract::State};
use serde_json::{Value, json};

use super::{
    App,
    auth::Actor,
    error::{Error, Result},
    input::{At, Fields, text, turns},
    managed::{agents, callbacks},
    query::{Query, page},
    routes::{Routes, answers, lists},
};
use crate::{
    domain::{Problem, agent::Agent, secret, turn::TurnLimitsChange},
    id::{AgentId, Id},
};

pub(super) fn routes() -> Routes {
    const LIST: &[&str] = &["include_archived", "created_at", "limit", "page"];
    let shows = |says| answers("WebhookAgent", says);
    Routes::of("agents and webhooks")
        .get("/api/agents", list, lists("WebhookAgent", LIST, "Lists agents with their webhooks."))
        .post(
            "/api/agents",
            create,
            shows("Makes an agent with a webhook.").takes("WebhookAgentCreate").or(&[409]),
        )
        .get("/api/agents/{id}", retrieve, shows("Shows an agent with its webhook."))
        .patch(
            "/api/agents/{id}",
            update,
            shows("Changes an agent: a field left out stays.")
                .optional("WebhookAgentUpdate")
                .or(&[409]),
        )
        .delete("/api/agents/{id}", archive, shows("Archives an agent.").or(&[409]))
        .post(
            "/api/agents/{id}/pause",
            pause,
            shows("Lets its sessions wait; what comes in is still taken.").or(&[409]),
        )
        .post("/api/agents/{id}/resume", resume, shows("Lets its sessions go on.").or(&[409]))
        .post(
            "/api/agents/{id}/limits",
            limits,
            shows("Says how many turns it may have; null is any number.")
                .optional("TurnLimits")
                .or(&[409]),
        )
}

async fn create(State(app): State<App>, actor: Actor, fields: Fields) -> Result<Json<Value>> {
    let (fields, secret_key) = read(fields)?;
    let (agent, made) = agents::make(&app, &actor, fields, secret_key.flatten()).await?;
    let mut shown = show(&app, &agent);
    callbacks::show_made(&mut shown, made);
    Ok(Json(shown))
}

async fn update(
    State(app): State<App>,
    actor: Actor,
    At(id): At<AgentId>,
    fields: Fields,
) -> Result<Json<Value>> {
    let (fields, secret_key) = read(fields)?;
    let (agent, made) = agents::change(&app, &actor, &id, fields, secret_key).await?;
    let mut shown = show(&app, &agent);
    callbacks::show_made(&mut shown, made);
    Ok(Json(shown))
}

/// A name for the agent's secret: not given, back to the default, or this one.
type SecretKey = Option<Option<String>>;

/// Takes the webhook's part out of what a body says about an agent.
fn read(mut fields: Fields) -> Result<(Fields, SecretKey)> {
    let direct = webhook(&mut fields, "webhook")?;
    let mut secret_key = direct.clone();
    if let Some(config) = fields.value("config") {
        let mut config = Fields::of(config, "config")?;
        let nested = webhook(&mut config, "config.webhook")?;
        config.finish().map_err(|problem| under("config", problem))?;
        if direct.is_some() && nested.is_some() && direct != nested {
            let message = "differs from `webhook`, which says the same thing";
            return Err(Problem::new("config.webhook", message).into());
        }
        secret_key = direct.or(nested);
    }
    Ok((fields, secret_key))
}

fn webhook(fields: &mut Fields, at: &str) -> Result<SecretKey, Problem> {
    let Some(given) = fields.value("webhook") else { return Ok(None) };
    let mut webhook = Fields::of(given, at)?;
    let secret_key = match webhook.take("secret_key") {
        None => None,
        Some(Value::Null) => Some(None),
        Some(given) => {
            let at = format!("{at}.secret_key");
            let name = text(&at, &given, 128)?;
            secret::check_name(&name).map_err(|problem| Problem::new(&at, problem.message))?;
            Some(Some(name))
        }
    };
    webhook.finish().map_err(|problem| under(at, problem))?;
    Ok(secret_key)
}

fn under(at: &str, problem: Problem) -> Problem {
    Problem::new(format!("{at}.{}", problem.field), problem.message)
}

async fn archive(State(app): State<App>, actor: Actor, At(id): At<AgentId>) -> Result<Json<Value>> {
    let agent = agents::put_away(&app, &actor, &id).await?;
    Ok(Json(show(&app, &agent)))
}

async fn pause(state: State<App>, actor: Actor, id: At<AgentId>) -> Result<Json<Value>> {
    set_paused(state, actor, id, true).await
}

async fn resume(state: State<App>, actor: Actor, id: At<AgentId>) -> Result<Json<Value>> {
    set_paused(state, actor, id, false).await
}

async fn set_paused(
    State(app): State<App>,
    actor: Actor,
    At(id): At<AgentId>,
    paused: bool,
) -> Result<Json<Value>> {
    let change = actor.change(if paused { "agent.pause" } else { "agent.resume" }, &id, json!({}));
    let agent = app.store.pause_agent(&id, paused, change).await;
    let agent = agent.map_err(Error::missing("agent"))?;
    app.configured().await;
    // What waited while the agent was paused is due now.
    app.signals.due();
    Ok(Json(show(&app, &agent)))
}

/// How many turns the agent may have: what is left out stays, null is any number.
async fn limits(
    State(app): State<App>,
    actor: Actor,
    At(id): At<AgentId>,
    mut fields: Fields,
) -> Result<Json<Value>> {
    let mut max = |key| fields.take(key).map(|given| turns(key, &given)).transpose();
    let limits = TurnLimitsChange {
        at_once_max: max("turns_at_once_max")?,
        per_minute_max: max("turns_per_minute_max")?,
    };
    fields.finish()?;
    let agent = agents::limit(&app, &actor, &id, limits).await?;
    Ok(Json(show(&app, &agent)))
}

async fn retrieve(State(app): State<App>, At(id): At<AgentId>) -> Result<Json<Value>> {
    let agent = app.store.agent(&id, None).await.map_err(Error::missing("agent"))?;
    Ok(Json(show(&app, &agent)))
}

async fn list(State(app): State<App>, query: Query) -> Result<Json<Value>> {
    let found = agents::select(&app, &query).await?;
    Ok(page("agents", found, |agent| show(&app, agent)))
}

fn show(app: &App, agent: &Agent) -> Value {
    let snapshot = app.ingest.registry.snapshot();
    let entry = snapshot.agent_source(agent.id.as_str());
    let named = entry.and_then(|entry| entry.source.definition.secret_key.clone());
    let webhook = json!({
        "url": app.url(&format!("/api/agents/{}/webhook", agent.id)),
        "secret_key": named.unwrap_or_else(|| secret::webhook_key(&agent.id)),
        "token_set": entry.is_some_and(|entry| entry.secrets.is_set()),
    });
    let mut object = agent.to_json();
    object["webhook"] = webhook.clone();
    object["config"] = json!({"webhook": webhook});
    object
}
