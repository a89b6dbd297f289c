//! What the config file declares, made true in the store.
//!
//! Invariants: what is declared is marked and read-only elsewhere; a source that left the file is
//! retired and keeps its deliveries, an agent or an environment that left it becomes an ordinary one;
//! nothing is written that is as it should be, so a reload without changes leaves no trace.

use std::{collections::BTreeMap, path::Path, time::Duration};

use anyhow::Context;
use serde_json::{Value, json};

use crate::{
    config::{Declared, DeclaredAgent, DeclaredCallback, DeclaredEnvironment, DeclaredSource},
    domain::{
        ManagedBy,
        agent::{self, Agent, AgentPatch, AgentSpec},
        budget::Budgets,
        callback::{Callback, Format},
        environment::{self, Environment, EnvironmentConfig},
        source::{Source, SourceKind},
        turn::TurnLimits,
    },
    id::{AgentId, EnvironmentId, Id, SourceId},
    ingest::{Ingest, Registry},
    model,
    store::{Change, Store},
    vault,
};

const ACTOR: &str = "config file";
const FIRST_START: &str = "first start";

fn change(actor: &str, action: &'static str, target: impl ToString, details: Value) -> Change {
    Change { actor: actor.to_owned(), action, target: target.to_string(), details }
}

/// The environment and the agent that exist from the start.
pub(super) async fn seed(
    store: &Store,
    registry: &Registry,
    models: &model::Options,
) -> anyhow::Result<()> {
    let at = store.clock().now();
    if registry.snapshot().environment(environment::DEFAULT_NAME).is_none() {
        let environment = Environment {
            id: EnvironmentId::new(at),
            name: environment::DEFAULT_NAME.to_owned(),
            description: Some("A fresh workspace for each session.".to_owned()),
            config: EnvironmentConfig::cloud(),
            metadata: Default::default(),
            managed_by: ManagedBy::Api,
            created_at: at,
            updated_at: at,
            archived_at: None,
        };
        let note = change(FIRST_START, "environment.create", &environment.id, json!({}));
        match store.create_environment(environment, note).await {
            // Another node was first.
            Ok(_) | Err(crate::store::Error::Conflict(_)) => {}
            Err(error) => return Err(error).context("make the environment `default`"),
        }
    }
    // Archived counts too: whoever archived it does not want it back at the next start.
    let known = |agent: &Agent| agent.spec.name == agent::DEFAULT_NAME;
    if !registry.snapshot().agents.values().any(known) {
        let model = models.default_model();
        tracing::info!(model, "making the agent `{}`", agent::DEFAULT_NAME);
        let spec = AgentSpec::new(agent::DEFAULT_NAME, model);
        create_agent(store, spec, ManagedBy::Api, FIRST_START).await?;
    }
    registry.refresh().await
}

async fn create_agent(
    store: &Store,
    spec: AgentSpec,
    managed_by: ManagedBy,
    actor: &str,
) -> anyhow::Result<Agent> {
    let at = store.clock().now();
    let id = AgentId::new(at);
    let source = Source::of_agent(&id, ManagedBy::Api, None, at);
    let note = change(actor, "agent.create", &id, json!({"name": spec.name}));
    let created = store.create_agent(id, spec, managed_by, source, note).await;
    created.context("make an agent")
}

/// Makes the declared environments, agents and sources true, and retires what is not declared any
/// more.
pub(super) async fn apply(
    store: &Store,
    ingest: &Ingest,
    declared: &Declared,
) -> anyhow::Result<()> {
    let registry = &ingest.registry;
    apply_environments(store, registry, &declared.environments).await?;
    for agent in &declared.agents {
        apply_agent(store, registry, agent)
            .await
            .with_context(|| format!("declare the agent `{}`", agent.name))?;
    }
    let snapshot = registry.snapshot();
    for agent in snapshot.agents.values() {
        let gone = !declared.agents.iter().any(|it| it.name == agent.spec.name);
        if agent.managed_by == ManagedBy::File && gone && agent.archived_at.is_none() {
            let note = change(ACTOR, "agent.undeclare", &agent.id, json!({}));
            store.hand_over_agent(&agent.id, ManagedBy::Api, note).await?;
        }
    }
    for source in &declared.sources {
        apply_source(store, registry, source)
            .await
            .with_context(|| format!("declare the source `{}`", source.name))?;
    }
    let snapshot = registry.snapshot();
    for entry in snapshot.sources() {
        let source = &entry.source;
        let gone = !declared.sources.iter().any(|it| it.name == source.name);
        let named = source.kind == SourceKind::Named;
        if named && source.managed_by == ManagedBy::File && gone {
            let note = change(ACTOR, "source.retire", &source.name, json!({}));
            store.retire_source(&source.id, ManagedBy::File, note).await?;
        }
    }
    registry.refresh().await
}

async fn apply_environments(
    store: &Store,
    registry: &Registry,
    declared: &[DeclaredEnvironment],
) -> anyhow::Result<()> {
    for environment in declared {
        apply_environment(store, registry, environment)
            .await
            .with_context(|| format!("declare the environment `{}`", environment.name))?;
    }
    let mut changed = false;
    for environment in registry.snapshot().environments.values() {
        let gone = !declared.iter().any(|it| it.name == environment.name);
        // Those of the projects that sources name are made by the way, and stay.
        let by_the_way = environment
            .config
            .project()
            .is_some_and(|project| environment.name == environment::name_of_project(project));
        if environment.managed_by == ManagedBy::File
            && gone
            && !by_the_way
            && environment.archived_at.is_none()
        {
            let note = change(ACTOR, "environment.undeclare", &environment.id, json!({}));
            store.hand_over_environment(&environment.id, ManagedBy::Api, note).await?;
            changed = true;
        }
    }
    if changed { registry.refresh().await } else { Ok(()) }
}

async fn apply_environment(
    store: &Store,
    registry: &Registry,
    declared: &DeclaredEnvironment,
) -> anyhow::Result<()> {
    let mut config = declared.config.clone();
    if let EnvironmentConfig::Local { project, .. } = &mut config
        // Sessions of one directory take turns, and two spellings must not look like two. One that is
        // not there yet may come: whoever works there says that it is missing.
        && let Ok(path) = Path::new(project.as_str()).canonicalize()
        && let Some(path) = path.to_str()
    {
        *project = path.to_owned();
    }
    let snapshot = registry.snapshot();
    if let Some(known) = snapshot.environment(&declared.name)
        && known.managed_by == ManagedBy::File
        && known.config == config
        && known.description == declared.description
        && known.metadata == declared.metadata
    {
        return Ok(());
    }
    let at = store.clock().now();
    let environment = Environment {
        id: EnvironmentId::new(at),
        name: declared.name.clone(),
        description: declared.description.clone(),
        config,
        metadata: declared.metadata.clone(),
        managed_by: ManagedBy::File,
        created_at: at,
        updated_at: at,
        archived_at: None,
    };
    let note = change(ACTOR, "environment.declare", &declared.name, json!({}));
    store.declare_environment(environment, note).await?;
    registry.refresh().await
}

async fn apply_agent(
    store: &Store,
    registry: &Registry,
    declared: &DeclaredAgent,
) -> anyhow::Result<()> {
    let snapshot = registry.snapshot();
    let (created, agent);
    let mut changed = false;
    match snapshot.agent(&declared.name) {
        Some(known) => agent = known,
        None => {
            created = create_agent(store, declared.spec.clone(), ManagedBy::File, ACTOR).await?;
            (agent, changed) = (&created, true);
        }
    }
    changed |= limit(store, agent, declared.limits).await?;
    allow(store, agent.id.as_str(), &declared.budgets).await?;
    changed |= call_back(store, registry, agent, declared.callback.as_ref()).await?;
    if agent.managed_by != ManagedBy::File {
        let note = change(ACTOR, "agent.declare", &agent.id, json!({}));
        store.hand_over_agent(&agent.id, ManagedBy::File, note).await?;
        changed = true;
    }
    if agent.spec != declared.spec {
        let note = change(ACTOR, "agent.update", &agent.id, json!({}));
        let patch = replacement(&agent.spec, &declared.spec)?;
        store.update_agent(&agent.id, ManagedBy::File, patch, note).await?;
        changed = true;
    }
    if changed {
        registry.refresh().await?;
    }
    leave_tools(store, registry, declared).await
}

/// What the agent's own endpoint leaves to tools.
async fn leave_tools(
    store: &Store,
    registry: &Registry,
    declared: &DeclaredAgent,
) -> anyhow::Result<()> {
    let (snapshot, webhook_tools) = (registry.snapshot(), declared.webhook_tools);
    let agent = snapshot.agent(&declared.name);
    let entry = agent.and_then(|agent| snapshot.agent_source(agent.id.as_str()));
    let Some(entry) = entry.filter(|it| it.source.definition.webhook_tools != webhook_tools) else {
        return Ok(());
    };
    let mut source = entry.source.clone();
    source.definition.webhook_tools = webhook_tools;
    let details = json!({ "webhook_tools": webhook_tools });
    store.put_source(source, change(ACTOR, "source.put", &declared.name, details)).await?;
    registry.refresh().await
}

/// Tells whether that is a change.
async fn limit(store: &Store, agent: &Agent, limits: TurnLimits) -> anyhow::Result<bool> {
    if agent.limits == limits {
        return Ok(false);
    }
    let note = change(ACTOR, "agent.limits", &agent.id, limits.to_json());
    store.limit_agent(&agent.id, ManagedBy::File, limits.into(), note).await?;
    Ok(true)
}

/// Whose budgets are not looked at in the snapshot, but by each turn.
async fn allow(store: &Store, owner: &str, budgets: &Budgets) -> anyhow::Result<()> {
    if store.budgets(owner.to_owned()).await? == *budgets {
        return Ok(());
    }
    let note = change(ACTOR, "budgets.set", owner, json!(budgets));
    Ok(store.set_budgets(owner.to_owned(), ManagedBy::File, *budgets, note).await?)
}

/// Tells whether that is a change.
async fn call_back(
    store: &Store,
    registry: &Registry,
    agent: &Agent,
    declared: Option<&DeclaredCallback>,
) -> anyhow::Result<bool> {
    let callback = declared.map(|declared| declared.of(agent.id.as_str()));
    if let (Some(declared), Some(callback)) = (declared, &callback) {
        keep_callback(registry, declared, callback).await?;
    }
    if agent.callback.as_ref().map(|(callback, _)| callback) == callback.as_ref() {
        return Ok(false);
    }
    let note = change(ACTOR, "agent.callback", &agent.id, json!(callback));
    store.put_agent_callback(&agent.id, callback, note).await?;
    Ok(true)
}

/// URL and signing secret go into the vault before the callback is there.
async fn keep_callback(
    registry: &Registry,
    declared: &DeclaredCallback,
    callback: &Callback,
) -> anyhow::Result<()> {
    let key = &callback.secret_key;
    let secret = match &declared.secret {
        Some(secret) => Some(secret.clone()),
        None if callback.format == Format::Slack || registry.snapshot().has_secret(key) => None,
        None => {
            tracing::info!(secret_key = key, "a signing secret was made; have a new one to see it");
            Some(vault::generate_signing_secret())
        }
    };
    let secrets = [(&callback.url_key, Some(declared.url.clone())), (key, secret)];
    for (key, value) in secrets {
        let Some(value) = value.filter(|value| !registry.secret_is(key, value)) else { continue };
        let note = change(ACTOR, "secret.set", key, json!({}));
        registry.put_secret(key.clone(), value, Duration::ZERO, note).await?;
    }
    Ok(())
}

/// The patch that makes `old` into `new`, metadata included.
fn replacement(old: &AgentSpec, new: &AgentSpec) -> anyhow::Result<AgentPatch> {
    let mut metadata: BTreeMap<String, Option<String>> =
        old.metadata.keys().map(|key| (key.clone(), None)).collect();
    metadata.extend(new.metadata.iter().map(|(key, value)| (key.clone(), Some(value.clone()))));
    let mut model = serde_json::to_value(&new.model)?;
    // Left out, it would stay as it is.
    model["effort"] = json!(new.model.effort);
    Ok(AgentPatch {
        name: Some(json!(new.name)),
        description: Some(json!(new.description)),
        model: Some(model),
        system: Some(json!(new.system)),
        tools: Some(serde_json::to_value(&new.tools)?),
        mcp_servers: Some(json!(new.mcp_servers)),
        skills: Some(json!(new.skills)),
        metadata: Some(metadata),
        multiagent: Some(json!(new.multiagent)),
        execution_identity: None,
        version: None,
    })
}

async fn apply_source(
    store: &Store,
    registry: &Registry,
    declared: &DeclaredSource,
) -> anyhow::Result<()> {
    let rules = declared.definition.rules.iter().filter_map(|rule| rule.project.as_ref());
    for project in declared.definition.project.iter().chain(rules) {
        registry.ensure_project(project, ManagedBy::File, ACTOR).await?;
    }
    // The secret first: a source never stands open for want of one.
    if let (Some(secret), Some(key)) = (&declared.secret, &declared.definition.secret_key)
        && !registry.secret_is(key, secret)
    {
        let note = change(ACTOR, "secret.set", key, json!({}));
        registry.put_secret(key.clone(), secret.clone(), Duration::ZERO, note).await?;
    }
    if let (Some(declared), Some(callback)) = (&declared.callback, &declared.definition.callback) {
        keep_callback(registry, declared, callback).await?;
    }
    let snapshot = registry.snapshot();
    let mut definition = declared.definition.clone();
    if let Some(name) = &declared.environment {
        let environment = snapshot.environment(name);
        definition.environment_id = environment.map(|environment| environment.id.clone());
    }
    let known = snapshot.named_source(&declared.name).map(|entry| &entry.source);
    if let Some(source) = known
        && source.managed_by == ManagedBy::File
        && source.definition == definition
    {
        return allow(store, source.id.as_str(), &declared.budgets).await;
    }
    let at = store.clock().now();
    let source = Source {
        id: SourceId::new(at),
        kind: SourceKind::Named,
        name: declared.name.clone(),
        definition,
        paused: false,
        managed_by: ManagedBy::File,
        created_at: at,
        updated_at: at,
        retired_at: None,
    };
    let note = change(ACTOR, "source.declare", &declared.name, json!({}));
    let source = store.put_source(source, note).await?;
    allow(store, source.id.as_str(), &declared.budgets).await?;
    registry.refresh().await
}
