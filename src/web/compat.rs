//! /api/agents: agents together with their webhook, for users of other webhook-to-agent servers.
//!
//! The object is the one of /v1 plus `webhook {url, secret_key, token_set}`, which is also under
//! `config.webhook`. PATCH merges: a field left out stays, so following an example never wipes an
//! agent's tools. `secret_key` names the secret that senders must know. It belongs to the agent's
//! source: changing it makes no version of the agent.

use axum::{
    Json, Router,
    extract::State,
    routing::{get, post},
};
use serde_json::{Value, json};

use super::{
    App,
    auth::Actor,
    error::{Error, Result},
    input::{At, Fields, text, turns},
    managed::agents,
    query::{Query, page},
};
use crate::{
    domain::{
        Problem,
        agent::{Agent, AgentPatch},
        secret,
        turn::TurnLimitsChange,
    },
    id::{AgentId, Id},
};

pub(super) fn routes() -> Router<App> {
    Router::new()
        .route("/api/agents", get(list).post(create))
        .route("/api/agents/{id}", get(retrieve).patch(update).delete(archive))
        .route("/api/agents/{id}/pause", post(pause))
        .route("/api/agents/{id}/resume", post(resume))
        .route("/api/agents/{id}/limits", post(limits))
}

async fn create(State(app): State<App>, actor: Actor, fields: Fields) -> Result<Json<Value>> {
    let (patch, secret_key) = read(fields)?;
    let agent = agents::make(&app, &actor, patch, secret_key.flatten()).await?;
    Ok(Json(show(&app, &agent)))
}

async fn update(
    State(app): State<App>,
    actor: Actor,
    At(id): At<AgentId>,
    fields: Fields,
) -> Result<Json<Value>> {
    let (patch, secret_key) = read(fields)?;
    let agent = agents::change(&app, &actor, &id, patch, secret_key).await?;
    Ok(Json(show(&app, &agent)))
}

/// A name for the agent's secret: not given, back to the default, or this one.
type SecretKey = Option<Option<String>>;

/// Takes the webhook's part out of what a body says about an agent.
fn read(mut fields: Fields) -> Result<(AgentPatch, SecretKey)> {
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
    Ok((agents::patch(fields)?, secret_key))
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
