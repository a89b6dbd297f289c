//! Agents and their versions. The verbs serve /api/agents too.

use axum::{
    Json, Router,
    extract::State,
    routing::{get, post},
};
use serde_json::{Value, json};

use super::LIMIT;
use crate::{
    domain::{
        ManagedBy, Problem,
        agent::{Agent, AgentPatch},
        source::Source,
        turn::TurnLimitsChange,
    },
    id::{AgentId, Id},
    web::{
        App,
        auth::Actor,
        error::{Error, Result},
        input::{At, Fields},
        query::{Query, Range, page},
    },
};

pub(super) fn routes() -> Router<App> {
    Router::new()
        .route("/v1/agents", get(list).post(create))
        .route("/v1/agents/{id}", get(retrieve).post(update))
        .route("/v1/agents/{id}/archive", post(archive))
        .route("/v1/agents/{id}/versions", get(versions))
}

async fn create(State(app): State<App>, actor: Actor, fields: Fields) -> Result<Json<Value>> {
    Ok(Json(make(&app, &actor, patch(fields)?, None).await?.to_json()))
}

async fn update(
    State(app): State<App>,
    actor: Actor,
    At(id): At<AgentId>,
    fields: Fields,
) -> Result<Json<Value>> {
    Ok(Json(change(&app, &actor, &id, patch(fields)?, None).await?.to_json()))
}

async fn archive(State(app): State<App>, actor: Actor, At(id): At<AgentId>) -> Result<Json<Value>> {
    Ok(Json(put_away(&app, &actor, &id).await?.to_json()))
}

async fn retrieve(
    State(app): State<App>,
    At(id): At<AgentId>,
    query: Query,
) -> Result<Json<Value>> {
    let parse = |text: &str| text.parse::<i64>().ok().filter(|version| *version > 0);
    let version = query.word("version", parse, "a whole number from 1")?;
    let agent = app.store.agent(&id, version).await;
    Ok(Json(agent.map_err(Error::missing("agent"))?.to_json()))
}

async fn versions(
    State(app): State<App>,
    At(id): At<AgentId>,
    query: Query,
) -> Result<Json<Value>> {
    let limit = query.limit(LIMIT.0, LIMIT.1)?;
    let found = app.store.agent_versions(&id, query.page("versions")?, limit).await;
    Ok(page("versions", found.map_err(Error::missing("agent"))?, Agent::to_json))
}

async fn list(State(app): State<App>, query: Query) -> Result<Json<Value>> {
    Ok(page("agents", select(&app, &query).await?, Agent::to_json))
}

/// A page of agents as the query wants it.
pub(in crate::web) async fn select(app: &App, query: &Query) -> Result<crate::store::Page<Agent>> {
    let archived = query.flag("include_archived")?;
    let limit = query.limit(LIMIT.0, LIMIT.1)?;
    let (first, last): Range = query.range("created_at")?;
    let mut found = app.store.agents(archived, query.page("agents")?, limit).await?;
    // A page may come out shorter than its limit, even empty; the next one is there all the same.
    found.data.retain(|agent| {
        first.is_none_or(|first| agent.created_at >= first)
            && last.is_none_or(|last| agent.created_at <= last)
    });
    Ok(found)
}

/// What a body says about an agent.
pub(in crate::web) fn patch(fields: Fields) -> Result<AgentPatch> {
    let parsed = serde_json::from_value(fields.rest());
    parsed.map_err(|error| Error::invalid(format!("the agent is not valid: {error}")))
}

/// Makes an agent together with the source of its endpoint.
pub(in crate::web) async fn make(
    app: &App,
    actor: &Actor,
    patch: AgentPatch,
    secret_key: Option<String>,
) -> Result<Agent> {
    if patch.version.is_some() {
        return Err(Problem::new("version", "is given by the server").into());
    }
    let spec = patch.create()?;
    let at = app.store.clock().now();
    let id = AgentId::new(at);
    let source = Source::of_agent(&id, ManagedBy::Api, secret_key, at);
    let change = actor.change("agent.create", &id, json!({"name": spec.name}));
    let agent = app.store.create_agent(id, spec, ManagedBy::Api, source, change).await?;
    app.configured().await;
    Ok(agent)
}

/// Changes an agent, and with it the name of the secret of its endpoint, where one is given: both or
/// neither.
pub(in crate::web) async fn change(
    app: &App,
    actor: &Actor,
    id: &AgentId,
    patch: AgentPatch,
    secret_key: Option<Option<String>>,
) -> Result<Agent> {
    ours(app, id).await?;
    let change = actor.change("agent.update", id, json!({}));
    let agent = match secret_key {
        None => app.store.update_agent(id, patch, change).await,
        Some(secret_key) => {
            let details = json!({"secret_key": secret_key});
            let key_change = actor.change("agent.webhook", id, details);
            app.store.update_agent_with_key(id, patch, secret_key, change, key_change).await
        }
    };
    let agent = agent.map_err(Error::missing("agent"))?;
    app.configured().await;
    Ok(agent)
}

pub(in crate::web) async fn limit(
    app: &App,
    actor: &Actor,
    id: &AgentId,
    limits: TurnLimitsChange,
) -> Result<Agent> {
    let before = ours(app, id).await?.limits;
    let change = actor.change("agent.limits", id, limits.apply(before).to_json());
    let agent = app.store.limit_agent(id, limits, change).await;
    let agent = agent.map_err(Error::missing("agent"))?;
    app.configured().await;
    // What waited for room may have it now.
    app.signals.due();
    Ok(agent)
}

pub(in crate::web) async fn put_away(app: &App, actor: &Actor, id: &AgentId) -> Result<Agent> {
    ours(app, id).await?;
    let change = actor.change("agent.archive", id, json!({}));
    let agent = app.store.archive_agent(id, change).await;
    let agent = agent.map_err(Error::missing("agent"))?;
    app.configured().await;
    Ok(agent)
}

/// What the config file declares is changed there and nowhere else.
async fn ours(app: &App, id: &AgentId) -> Result<Agent> {
    let agent = app.store.agent(id, None).await.map_err(Error::missing("agent"))?;
    match agent.managed_by {
        ManagedBy::Api => Ok(agent),
        ManagedBy::File => Err(Error::conflict(format!(
            "`{}` is declared in the config file; change it there",
            agent.spec.name
        ))),
    }
}
