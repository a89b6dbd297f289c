//! Environments, agents and sources as a server would have them after its start: what the file declares, and what
//! the database has beside it.

use std::{collections::BTreeMap, path::Path, sync::Arc};

use crate::{
    config::{DeclaredSource, Inspected},
    domain::{
        ManagedBy,
        agent::DEFAULT_NAME,
        environment::{EnvironmentConfig, Workspace},
        source::SourceKind,
    },
    ingest::{self, Entry, Keys, Registry, Snapshot},
    projects::{self, Unfit},
    store::Store,
    vault::Vault,
};

/// What the database says.
pub(super) enum Stored {
    /// There is none yet: what the file declares is everything.
    Nothing,
    /// It could not be asked.
    Unknown,
    Known {
        snapshot: Arc<Snapshot>,
        /// The vault key is good, so a secret without a value has none.
        is_open: bool,
    },
}

impl Stored {
    /// Without a vault everything but the secrets is read.
    pub(super) async fn read(store: Store, vault: Option<Vault>) -> anyhow::Result<Stored> {
        let is_open = vault.is_some();
        let vault = match vault {
            Some(vault) => vault,
            None => Vault::new(&Vault::generate_key())?,
        };
        let registry = Registry::open(store, vault.into(), Keys::default()).await?;
        Ok(Stored::Known { snapshot: registry.snapshot(), is_open })
    }

    fn snapshot(&self) -> Option<&Snapshot> {
        match self {
            Stored::Known { snapshot, .. } => Some(snapshot),
            Stored::Nothing | Stored::Unknown => None,
        }
    }
}

/// Agents whose model cannot be asked. `None` where no agent is known.
pub(super) fn look_at_models(
    inspected: &Inspected,
    stored: &Stored,
) -> Option<Result<String, String>> {
    let loaded = &inspected.loaded;
    let mut agents = BTreeMap::new();
    let living = stored.snapshot().into_iter().flat_map(|it| it.agents.values());
    for agent in living.filter(|agent| agent.archived_at.is_none()) {
        agents.insert(&agent.spec.name, &agent.spec.model.id);
    }
    for agent in &loaded.declared.agents {
        agents.insert(&agent.name, &agent.spec.model.id);
    }
    if agents.is_empty() {
        return None;
    }
    let missing = agents.iter().filter_map(|(name, model)| {
        let key = loaded.config.models.missing_key(model)?;
        inspected.is_certain(key).then(|| {
            format!(
                "the agent `{name}` asks `{model}`, and `{key}` is not set\n\
                 hint: set it, or give the agent another model"
            )
        })
    });
    Some(all(missing, || format!("those of {} agents are set up", agents.len())))
}

/// Declared environments whose project cannot be worked in. `None` where the file declares none.
pub(super) fn look_at_environments(inspected: &Inspected) -> Option<Result<String, String>> {
    let loaded = &inspected.loaded;
    let declared = &loaded.declared.environments;
    if declared.is_empty() {
        return None;
    }
    let roots = &loaded.config.projects.roots;
    let problems = declared.iter().filter_map(|environment| {
        let EnvironmentConfig::Local { project, workspace, .. } = &environment.config else {
            return None;
        };
        let needs_git = *workspace == Workspace::Worktree;
        let why = match projects::allowed(project, roots) {
            Err(Unfit::Gone) => "is not a directory",
            Err(Unfit::Outside) if inspected.is_certain("projects.roots") => {
                "lies under none of `projects.roots`"
            }
            _ if needs_git && projects::git_objects(Path::new(project)).is_none() => {
                "is not the top of a git repository, which `worktree` needs"
            }
            _ => return None,
        };
        Some(format!("`{}`: its project `{project}` {why}", environment.name))
    });
    Some(all(problems, || format!("{} declared, all in order", declared.len())))
}

/// Sources that would hold what comes in, or let nobody in. `None` where no source can be known.
pub(super) fn look_at_sources(
    inspected: &Inspected,
    stored: &Stored,
) -> Option<Result<String, String>> {
    let declared = &inspected.loaded.declared.sources;
    if stored.snapshot().is_none() && !inspected.file_is_known {
        return None;
    }
    let of_the_file = |name: &str| declared.iter().any(|source| source.name == name);
    let (mut problems, mut n) = (Vec::new(), declared.len());
    for source in declared {
        let reasons = [missing_agent(inspected, stored, source), missing_project(source)];
        let held = |reason| format!("`{}` would hold its deliveries: {reason}", source.name);
        problems.extend(reasons.into_iter().flatten().map(held));
    }
    if let Stored::Known { snapshot, is_open } = stored {
        for entry in snapshot.sources() {
            let (source, is_declared) = (&entry.source, of_the_file(&entry.source.name));
            // One that left the file is retired at the next start.
            let is_gone = inspected.file_is_known && source.managed_by == ManagedBy::File;
            if matches!(source.kind, SourceKind::Agent(_)) || !is_declared && is_gone {
                continue;
            }
            if !is_declared {
                n += 1;
                problems.extend(
                    entry
                        .broken()
                        .map(|reason| format!("`{}` holds its deliveries: {reason}", source.name)),
                );
            }
            let is_given = declared.iter().any(|it| it.name == source.name && it.secret.is_some());
            problems.extend((*is_open && !is_given).then(|| closed(entry)).flatten());
        }
    }
    Some(all(problems.into_iter(), || format!("{n}, all in order")))
}

fn missing_agent(
    inspected: &Inspected,
    stored: &Stored,
    source: &DeclaredSource,
) -> Option<String> {
    let own = source.definition.agent.as_deref().unwrap_or(DEFAULT_NAME);
    let of_rules = source.definition.rules.iter().filter_map(|rule| rule.agent.as_deref());
    let exists = |wanted: &str| {
        let declared = inspected.loaded.declared.agents.iter().any(|agent| agent.name == wanted);
        declared
            || match stored {
                // The default one is made at the first start.
                Stored::Nothing => wanted == DEFAULT_NAME,
                Stored::Unknown => true,
                Stored::Known { snapshot, .. } => snapshot.agent(wanted).is_some(),
            }
    };
    let missing = std::iter::once(own).chain(of_rules).find(|wanted| !exists(wanted))?;
    Some(format!("there is no agent `{missing}`"))
}

fn missing_project(source: &DeclaredSource) -> Option<String> {
    let of_rules = source.definition.rules.iter().filter_map(|rule| rule.project.as_ref());
    let mut projects = source.definition.project.iter().chain(of_rules);
    let missing = projects.find(|project| !Path::new(project).is_dir())?;
    Some(format!("the project `{missing}` is not a directory"))
}

fn closed(entry: &Entry) -> Option<String> {
    let key = ingest::secret_key(&entry.source);
    (entry.secrets.is_wanted() && !entry.secrets.is_set()).then(|| {
        format!(
            "`{}` lets nobody in: its secret `{key}` has no value\n\
             hint: `bellpull secrets set {key}`",
            entry.source.name
        )
    })
}

/// All problems in one text, or what is good.
fn all(
    problems: impl Iterator<Item = String>,
    good: impl FnOnce() -> String,
) -> Result<String, String> {
    let problems: Vec<String> = problems.collect();
    if problems.is_empty() { Ok(good()) } else { Err(problems.join("\n")) }
}
