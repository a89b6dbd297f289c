//! Agents and their versions. The verbs serve /api/agents too.

use axum::{Json, extract::State};
use secrecy::SecretString;
use serde_json::{Value, json};

use super::{LIMIT, callbacks};
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
        query::{Query, page},
        routes::{Routes, answers, lists},
    },
};

pub(super) fn routes() -> Routes {
    const LIST: &[&str] = &["include_archived", "created_at", "limit", "page"];
    Routes::of("agents")
        .get("/v1/agents", list, lists("Agent", LIST, "Lists agents, newest first."))
        .post(
            "/v1/agents",
            create,
            answers("Agent", "Makes an agent, and the source of its endpoint.")
                .takes("AgentCreate")
                .or(&[409]),
        )
        .get(
            "/v1/agents/{id}",
            retrieve,
            answers("Agent", "Shows an agent, or one version of it.").query(&["version"]),
        )
        .post(
            "/v1/agents/{id}",
            update,
            answers("Agent", "Changes an agent, which makes a new version of it.")
                .takes("AgentUpdate")
                .or(&[409]),
        )
        .post(
            "/v1/agents/{id}/archive",
            archive,
            answers("Agent", "Archives an agent: it takes no new sessions.").or(&[409]),
        )
        .get(
            "/v1/agents/{id}/versions",
            versions,
            lists("Agent", &["limit", "page"], "Lists the versions of an agent, newest first."),
        )
}

async fn create(State(app): State<App>, actor: Actor, fields: Fields) -> Result<Json<Value>> {
    let (agent, made) = make(&app, &actor, fields, None).await?;
    let mut shown = agent.to_json();
    callbacks::show_made(&mut shown, made);
    Ok(Json(shown))
}

async fn update(
    State(app): State<App>,
    actor: Actor,
    At(id): At<AgentId>,
    fields: Fields,
) -> Result<Json<Value>> {
    let (agent, made) = change(&app, &actor, &id, fields, None).await?;
    let mut shown = agent.to_json();
    callbacks::show_made(&mut shown, made);
    Ok(Json(shown))
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
    let created = query.range("created_at")?;
    Ok(app.store.agents(archived, created, query.page("agents")?, limit).await?)
}

/// What a body says about an agent.
fn patch(fields: Fields) -> Result<AgentPatch> {
    let parsed = serde_json::from_value(fields.rest());
    parsed.map_err(|error| Error::invalid(format!("the agent is not valid: {error}")))
}

/// Makes an agent together with the source of its endpoint and its callback. Answers the signing
/// secret too, if one was made.
pub(in crate::web) async fn make(
    app: &App,
    actor: &Actor,
    mut fields: Fields,
    secret_key: Option<String>,
) -> Result<(Agent, Option<SecretString>)> {
    let at = app.store.clock().now();
    let id = AgentId::new(at);
    let wish = callbacks::take(app, &mut fields, None, id.as_str())?;
    let patch = patch(fields)?;
    if patch.version.is_some() {
        return Err(Problem::new("version", "is given by the server").into());
    }
    let spec = patch.create()?;
    let source = Source::of_agent(&id, ManagedBy::Api, secret_key, at);
    let change = actor.change("agent.create", &id, json!({"name": spec.name}));
    let agent = app.store.create_agent(id, spec, ManagedBy::Api, source, change).await?;
    app.configured().await;
    call_back(app, actor, agent, wish).await
}

/// Gives an agent the callback that somebody wishes for.
async fn call_back(
    app: &App,
    actor: &Actor,
    agent: Agent,
    wish: Option<callbacks::Wish>,
) -> Result<(Agent, Option<SecretString>)> {
    let Some(wish) = wish else { return Ok((agent, None)) };
    let made = callbacks::of_agent(app, actor, &agent.id, wish).await?;
    let agent = app.store.agent(&agent.id, None).await?;
    Ok((agent, made))
}

/// Changes an agent, and with it the name of the secret of its endpoint, where one is given: both or
/// neither. The callback is a change of its own.
pub(in crate::web) async fn change(
    app: &App,
    actor: &Actor,
    id: &AgentId,
    mut fields: Fields,
    secret_key: Option<Option<String>>,
) -> Result<(Agent, Option<SecretString>)> {
    let before = known(app, id).await?.callback.map(|(callback, _)| callback);
    let wish = callbacks::take(app, &mut fields, before.as_ref(), id.as_str())?;
    let patch = patch(fields)?;
    let change = actor.change("agent.update", id, json!({}));
    let agent = match secret_key {
        None => app.store.update_agent(id, ManagedBy::Api, patch, change).await,
        Some(secret_key) => {
            let details = json!({"secret_key": secret_key});
            let key_change = actor.change("agent.webhook", id, details);
            app.store.update_agent_with_key(id, patch, secret_key, change, key_change).await
        }
    };
    let agent = agent.map_err(Error::missing("agent"))?;
    app.configured().await;
    call_back(app, actor, agent, wish).await
}

pub(in crate::web) async fn limit(
    app: &App,
    actor: &Actor,
    id: &AgentId,
    limits: TurnLimitsChange,
) -> Result<Agent> {
    let before = known(app, id).await?.limits;
    let change = actor.change("agent.limits", id, limits.apply(before).to_json());
    let agent = app.store.limit_agent(id, ManagedBy::Api, limits, change).await;
    let agent = agent.map_err(Error::missing("agent"))?;
    app.configured().await;
    // What waited for room may have it now.
    app.signals.due();
    Ok(agent)
}

pub(in crate::web) async fn put_away(app: &App, actor: &Actor, id: &AgentId) -> Result<Agent> {
    let change = actor.change("agent.archive", id, json!({}));
    let agent = app.store.archive_agent(id, change).await;
    let agent = agent.map_err(Error::missing("agent"))?;
    app.configured().await;
    Ok(agent)
}

async fn known(app: &App, id: &AgentId) -> Result<Agent> {
    app.store.agent(id, None).await.map_err(Error::missing("agent"))
}
