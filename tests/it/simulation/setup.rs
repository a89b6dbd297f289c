//! What is there before a world begins: agents, environments, sources and some sessions.

use std::path::Path;

use bellpull::{
    clock::Clock,
    domain::{
        ManagedBy, Metadata,
        agent::AgentSpec,
        environment::{EnvironmentConfig, Workspace},
        source::{Source, SourceKind},
        toolset::{DefaultConfig, Policy, ToolConfig, Toolset},
        verifier::Verifier,
    },
    id::AgentId,
    store::{NewSession, Store},
};
use serde_json::{Map, json};
use tempfile::TempDir;

use super::{
    node::Process,
    plan::Shape,
    senders::{Agent, Names},
};
use crate::store::bench::{change, environment, source};

/// A directory in memory, where there is one: hundreds of worlds wait for each of their commits.
pub fn directory() -> TempDir {
    let memory = Path::new("/dev/shm");
    let made = if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() };
    made.expect("a temporary directory can be made")
}

/// Of the world's directory, the part in which an agent works.
pub const PROJECT: &str = "project";

/// The tool that a client has.
pub const LOOK: &str = "look";

/// Two tools that the server carries out, and one that it does not.
fn tools(edit: Policy) -> Vec<Toolset> {
    let config = |name: &str, permission_policy| ToolConfig {
        name: name.to_owned(),
        r#type: None,
        enabled: true,
        permission_policy,
        settings: Map::new(),
    };
    let configs = vec![config("write", Policy::AlwaysAllow), config("edit", edit)];
    let default_config = DefaultConfig { enabled: false, permission_policy: Policy::AlwaysAllow };
    let custom = Toolset::Custom {
        name: LOOK.to_owned(),
        description: "Looks out of the window.".to_owned(),
        input_schema: json!({"type": "object", "properties": {"at": {"type": "integer"}}}),
    };
    vec![Toolset::Agent { configs, default_config }, custom]
}

/// Puts into a new file what all nodes find there.
pub fn furnish(file: &Path, clock: &Clock, shape: &Shape) -> Names {
    let mut process = Process::open(file, clock, "setup:1".to_owned());
    let (mut names, store) = (Names::default(), process.store.clone());
    let directory = file.parent().expect("it lies in a directory");
    process.finish(async {
        fill(&mut names, &store, shape, directory).await;
    });
    names
}

async fn fill(names: &mut Names, store: &Store, shape: &Shape, directory: &Path) {
    let clock = store.clock();
    let mut usual = environment(clock, "default");
    let mut project = environment(clock, "project");
    (usual.id, project.id) = (names.id(), names.id());
    names.project = project.id.to_string();
    let place = directory.join(PROJECT);
    std::fs::create_dir(&place).expect("a new directory");
    let place = place.to_str().expect("a plain path");
    project.config = EnvironmentConfig::local(place, Workspace::Shared);
    for made in [&usual, &project] {
        store.create_environment(made.clone(), change("setup")).await.expect("a new name");
    }
    for (number, model) in shape.models.iter().enumerate() {
        let id: AgentId = names.id();
        let mut spec = AgentSpec::new(&format!("agent{number}"), model);
        spec.tools = shape.tools[number].map(tools).unwrap_or_default();
        let own = Source::of_agent(&id, ManagedBy::Api, None, clock.now());
        let made = store.create_agent(id.clone(), spec, ManagedBy::Api, own, change("setup"));
        made.await.expect("a new name");
        let limits = shape.turns[number].into();
        store
            .limit_agent(&id, ManagedBy::Api, limits, change("setup"))
            .await
            .expect("it was just made");
        for environment in [&usual, &project] {
            let session = NewSession {
                resources: Vec::new(),
                budget: Default::default(),
                deployment_id: None,
                id: names.id(),
                agent_id: id.clone(),
                agent_version: 1,
                overrides: None,
                environment_id: environment.id.clone(),
                vault_ids: Vec::new(),
                title: None,
                metadata: Metadata::new(),
                messages: Vec::new(),
            };
            names.fixed.push(session.id.clone());
            store.create_session(session).await.expect("it is all there");
        }
        // One of the agents works in the project whatever it is asked.
        let environment = if number == 1 { &project } else { &usual };
        names.agents.push(Agent { id, environment: environment.id.clone() });
    }
    for (number, shop) in shape.sources.iter().enumerate() {
        let name = format!("shop{number}");
        let mut source = source(clock, &name, Verifier::Bearer {});
        source.id = names.id();
        source.kind = SourceKind::Named;
        source.definition.turns_at_once_max = shop.turns.at_once_max;
        source.definition.turns_per_minute_max = shop.turns.per_minute_max;
        names.sources.push(source.id.clone());
        store.put_source(source, change("setup")).await.expect("a new name");
    }
}
