//! What the config file declares, made true in the store.
//!
//! Invariants: what is declared is marked and read-only elsewhere; a source that left the file is
//! retired and keeps its deliveries, an agent that left it becomes an ordinary one; nothing is
//! written that is as it should be, so a reload without changes leaves no trace.

use std::{collections::BTreeMap, time::Duration};

use anyhow::Context;
use serde_json::{Value, json};

use crate::{
    config::{Declared, DeclaredAgent, DeclaredSource},
    domain::{
        ManagedBy,
        agent::{self, Agent, AgentPatch, AgentSpec},
        environment::{self, Environment, EnvironmentConfig},
        source::{Source, SourceKind},
        turn::TurnLimits,
    },
    id::{AgentId, EnvironmentId, Id, SourceId},
    ingest::{Ingest, Registry},
    model,
    store::{Change, Store},
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

/// Makes the declared agents and sources true, and retires what is not declared any more.
pub(super) async fn apply(
    store: &Store,
    ingest: &Ingest,
    declared: &Declared,
) -> anyhow::Result<()> {
    let registry = &ingest.registry;
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

async fn apply_agent(
    store: &Store,
    registry: &Registry,
    declared: &DeclaredAgent,
) -> anyhow::Result<()> {
    let snapshot = registry.snapshot();
    let Some(agent) = snapshot.agent(&declared.name) else {
        let agent = create_agent(store, declared.spec.clone(), ManagedBy::File, ACTOR).await?;
        limit(store, &agent, declared.limits).await?;
        return registry.refresh().await;
    };
    let mut changed = limit(store, agent, declared.limits).await?;
    if agent.managed_by != ManagedBy::File {
        let note = change(ACTOR, "agent.declare", &agent.id, json!({}));
        store.hand_over_agent(&agent.id, ManagedBy::File, note).await?;
        changed = true;
    }
    if agent.spec != declared.spec {
        let note = change(ACTOR, "agent.update", &agent.id, json!({}));
        let patch = replacement(&agent.spec, &declared.spec)?;
        store.update_agent(&agent.id, patch, note).await?;
        changed = true;
    }
    if changed { registry.refresh().await } else { Ok(()) }
}

/// Tells whether that is a change.
async fn limit(store: &Store, agent: &Agent, limits: TurnLimits) -> anyhow::Result<bool> {
    if agent.limits == limits {
        return Ok(false);
    }
    let note = change(ACTOR, "agent.limits", &agent.id, limits.to_json());
    store.limit_agent(&agent.id, limits.into(), note).await?;
    Ok(true)
}

/// The patch that makes `old` into `new`, metadata included.
fn replacement(old: &AgentSpec, new: &AgentSpec) -> anyhow::Result<AgentPatch> {
    let mut metadata: BTreeMap<String, Option<String>> =
        old.metadata.keys().map(|key| (key.clone(), None)).collect();
    metadata.extend(new.metadata.iter().map(|(key, value)| (key.clone(), Some(value.clone()))));
    Ok(AgentPatch {
        name: Some(json!(new.name)),
        description: Some(json!(new.description)),
        model: Some(serde_json::to_value(&new.model)?),
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
    let snapshot = registry.snapshot();
    let as_it_is = snapshot.named_source(&declared.name).is_some_and(|entry| {
        entry.source.managed_by == ManagedBy::File && entry.source.definition == declared.definition
    });
    if as_it_is {
        return Ok(());
    }
    let at = store.clock().now();
    let source = Source {
        id: SourceId::new(at),
        kind: SourceKind::Named,
        name: declared.name.clone(),
        definition: declared.definition.clone(),
        paused: false,
        managed_by: ManagedBy::File,
        created_at: at,
        updated_at: at,
        retired_at: None,
    };
    let note = change(ACTOR, "source.declare", &declared.name, json!({}));
    store.put_source(source, note).await?;
    registry.refresh().await
}
