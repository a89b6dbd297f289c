//! The registry: everything the receive path must know, in memory.
//!
//! A snapshot of sources, agents, environments, secrets and keys is made from the store and swapped
//! in as a whole. A node reads it again when the database's revision has grown: at once after its
//! own changes, within two seconds after another node's. Invariant: a request sees one snapshot.

use std::{
    collections::HashMap,
    fmt,
    path::Path,
    sync::{Arc, LazyLock, OnceLock},
    time::Duration,
};

use anyhow::Context;
use arc_swap::ArcSwap;
use secrecy::{ExposeSecret, SecretString};
use subtle::{Choice, ConstantTimeEq};

use super::{
    Caller, Lane, Sender,
    bounds::Waiting,
    handshake::{Greeted, verify_token},
    policy::Policy,
};
use crate::{
    clock::Timestamp,
    domain::{
        ManagedBy,
        agent::{self, Agent},
        environment::{self, Environment, EnvironmentConfig, Workspace},
        key::Scopes,
        secret::{self, SecretName},
        source::{Source, SourceKind},
    },
    id::{AgentId, EnvironmentId, Id, SourceId},
    metrics::{Metrics, SourceCounters},
    store::{Change, SecretInfo, Store},
    vault::{Place, Vault, hash, unhex},
};

/// One version of a secret.
#[derive(Clone)]
pub(super) struct LiveSecret {
    pub(super) name: SecretName,
    pub(super) value: SecretString,
    /// What a given value is compared with, made once and not for each request.
    hash: [u8; 32],
    /// When it stops being valid; `None` for the current version.
    until: Option<Timestamp>,
}

impl fmt::Debug for LiveSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let LiveSecret { name, until, .. } = self;
        let mut shown = f.debug_struct("LiveSecret");
        shown.field("name", name).field("until", until).finish_non_exhaustive()
    }
}

impl LiveSecret {
    fn new(name: SecretName, value: SecretString, until: Option<Timestamp>) -> LiveSecret {
        let hash = hash(value.expose_secret().as_bytes());
        LiveSecret { name, value, hash, until }
    }

    pub(super) fn text(&self) -> &str {
        self.value.expose_secret()
    }

    /// Whether it is what was given, in a time that tells nothing: the hashes are compared, so not even
    /// the length shows.
    pub(super) fn is(&self, given: &[u8]) -> Choice {
        self.hash.ct_eq(&hash(given))
    }
}

/// The values that a source's caller may hold.
#[derive(Clone, Debug, Default)]
pub struct Secrets {
    wanted: bool,
    values: Vec<LiveSecret>,
}

impl Secrets {
    /// A value that nobody has. Made once, as others are: comparing with it takes as long.
    pub(super) fn nobody() -> &'static Secrets {
        static NOBODY: LazyLock<Secrets> = LazyLock::new(|| {
            let value = SecretString::from("nobody has this value, it is only compared with");
            Secrets::of(SecretName { name: String::new(), version: 0 }, value)
        });
        &NOBODY
    }

    /// One current value.
    pub fn of(name: SecretName, value: SecretString) -> Secrets {
        Secrets { wanted: true, values: vec![LiveSecret::new(name, value, None)] }
    }

    /// Whether the source names a secret at all.
    pub fn is_wanted(&self) -> bool {
        self.wanted
    }

    /// Whether the vault has a value for it.
    pub fn is_set(&self) -> bool {
        !self.values.is_empty()
    }

    /// The same under other values.
    pub(super) fn changed(&self, change: impl Fn(&str) -> String) -> Secrets {
        let changed =
            |it: &LiveSecret| LiveSecret::new(it.name.clone(), change(it.text()).into(), it.until);
        Secrets { wanted: self.wanted, values: self.values.iter().map(changed).collect() }
    }

    /// Those whose value is fit for something.
    pub(super) fn filtered(&self, fits: impl Fn(&str) -> bool) -> Secrets {
        let values = self.values.iter().filter(|it| fits(it.text())).cloned();
        Secrets { wanted: self.wanted, values: values.collect() }
    }

    /// The values that open the gate now, newest first: which they are, and until when.
    pub fn names(&self, now: Timestamp) -> impl Iterator<Item = (&SecretName, Option<Timestamp>)> {
        self.live(now).map(|secret| (&secret.name, secret.until))
    }

    /// The value that a sender signs with from now on.
    pub(super) fn newest(&self, now: Timestamp) -> Option<&SecretString> {
        self.live(now).next().map(|secret| &secret.value)
    }

    pub(super) fn live(&self, now: Timestamp) -> impl Iterator<Item = &LiveSecret> {
        self.values.iter().filter(move |it| it.until.is_none_or(|until| until > now))
    }
}

/// What a route needs of an agent.
#[derive(Clone, Debug)]
pub struct AgentRef {
    pub id: AgentId,
    pub version: i64,
    pub name: String,
}

/// Who works on deliveries and where, found or explained: then they are held.
#[derive(Clone, Debug)]
pub struct Address {
    pub agent: Result<AgentRef, String>,
    pub environment: Result<EnvironmentId, String>,
}

impl Address {
    fn broken(&self) -> Option<&String> {
        self.agent.as_ref().err().or(self.environment.as_ref().err())
    }
}

/// A source with everything it refers to, found or explained.
#[derive(Clone, Debug)]
pub struct Entry {
    pub source: Source,
    pub secrets: Secrets,
    /// Or why nobody is let in.
    pub sender: Result<Sender, String>,
    pub address: Address,
    /// Those of its rules, in their order.
    pub rules: Vec<Address>,
    /// Or why it cannot be read.
    pub(super) policy: Result<Arc<Policy>, String>,
    pub waiting: Waiting,
    /// Until when it takes a secret from whoever comes first.
    pub open_until: Option<Timestamp>,
    /// When it last answered a handshake, as far as this process knows.
    pub greeted: Greeted,
    /// The room that its callers take before they have proved themselves.
    pub lane: Lane,
    /// Looked up with the first request: sources that nobody calls take no label.
    counters: OnceLock<SourceCounters>,
}

impl Entry {
    pub(super) fn counters(&self, metrics: &Metrics) -> &SourceCounters {
        self.counters.get_or_init(|| metrics.source(&self.source.kind, &self.source.name))
    }

    /// Whether anybody has called it since this process started, or waits in it.
    pub fn is_in_use(&self) -> bool {
        self.counters.get().is_some() || self.waiting.count() > 0
    }

    /// What the operator gives a sender that wants it back in a handshake, if it is one of those.
    pub fn verify_token(&self, now: Timestamp) -> Option<String> {
        let handshakes = &self.sender.as_ref().ok()?.handshakes;
        handshakes.iter().find(|it| it.token.is_some())?;
        self.secrets.live(now).next().map(|secret| verify_token(&secret.value))
    }

    /// What people and agents know it by: an agent's own source goes by the agent's name.
    pub fn display_name(&self) -> &str {
        match (&self.source.kind, &self.address.agent) {
            (SourceKind::Agent(_), Ok(agent)) => &agent.name,
            _ => &self.source.name,
        }
    }

    /// What it is, for whoever asks why it does not let somebody in.
    pub(super) fn describe(&self, sender: &Sender) -> String {
        let kind = serde_json::to_value(&sender.verifier).unwrap_or_default();
        let gate = kind["type"].as_str().unwrap_or_default();
        let preset = sender.preset.map(|it| format!(", preset {}", it.id)).unwrap_or_default();
        format!("`{}`{preset}, gate {gate}", self.display_name())
    }

    /// Everybody who may get its deliveries.
    pub fn addresses(&self) -> impl Iterator<Item = &Address> {
        std::iter::once(&self.address).chain(&self.rules)
    }

    /// Why it lets nobody in or holds what comes in, if it does.
    pub fn broken(&self) -> Option<&str> {
        let reasons = [self.sender.as_ref().err(), self.policy.as_ref().err()];
        let reasons = reasons.into_iter().chain(self.addresses().map(Address::broken));
        reasons.flatten().next().map(String::as_str)
    }
}

/// Everything at one moment.
#[derive(Debug, Default)]
pub struct Snapshot {
    pub revision: i64,
    named: HashMap<String, Entry>,
    of_agents: HashMap<String, Entry>,
    pub agents: HashMap<AgentId, Agent>,
    pub environments: HashMap<EnvironmentId, Environment>,
    keys: HashMap<[u8; 32], (String, Scopes)>,
    pub secrets: Vec<SecretInfo>,
    values: HashMap<String, Secrets>,
    windows: HashMap<SourceId, Timestamp>,
    box_key: Option<[u8; 32]>,
    master_key: Option<[u8; 32]>,
}

impl Snapshot {
    pub fn named_source(&self, name: &str) -> Option<&Entry> {
        self.named.get(name)
    }

    pub fn agent_source(&self, agent: &str) -> Option<&Entry> {
        self.of_agents.get(agent)
    }

    /// A source that was not removed.
    pub fn source(&self, id: &SourceId) -> Option<&Entry> {
        self.named.values().chain(self.of_agents.values()).find(|entry| entry.source.id == *id)
    }

    /// All sources that let somebody in, by name.
    pub fn sources(&self) -> Vec<&Entry> {
        let mut entries: Vec<_> = self.named.values().chain(self.of_agents.values()).collect();
        entries.sort_by(|a, b| a.source.name.cmp(&b.source.name));
        entries
    }

    /// The identities that an event with this id of its sender's has, at any of the sources.
    pub fn identities(&self, id: &str) -> Vec<String> {
        let senders = self.sources().into_iter().filter_map(|it| it.sender.as_ref().ok());
        super::identify::keys(senders, id)
    }

    /// Whose token this is. Looked up by its hash, so that time tells nothing about the token.
    pub fn caller(&self, token: &str) -> Option<Caller> {
        self.holder(&hash(token.as_bytes()))
    }

    /// Whose key has this hash now: a revoked or changed key is nobody's.
    pub fn holder(&self, hash: &[u8; 32]) -> Option<Caller> {
        if self.master_key.as_ref() == Some(hash) {
            return Some(Caller::Master);
        }
        if self.box_key.as_ref() == Some(hash) {
            return Some(Caller::Box);
        }
        let (name, scopes) = self.keys.get(hash)?;
        Some(Caller::Key { name: name.clone(), scopes: scopes.clone() })
    }

    /// What may be said about a secret.
    pub fn secret(&self, name: &str) -> Option<&SecretInfo> {
        self.secrets.iter().find(|info| info.name == name)
    }

    /// A living agent by id or name.
    pub fn agent(&self, id_or_name: &str) -> Option<&Agent> {
        if let Ok(id) = id_or_name.parse::<AgentId>() {
            return self.agents.get(&id).filter(|agent| agent.archived_at.is_none());
        }
        // Names are not unique: the config file's agent comes first, then the oldest.
        self.agents
            .values()
            .filter(|agent| agent.spec.name == id_or_name && agent.archived_at.is_none())
            .min_by_key(|agent| (agent.managed_by != ManagedBy::File, agent.id.clone()))
    }

    pub fn environment(&self, name: &str) -> Option<&Environment> {
        self.environments.values().find(|it| it.name == name && it.archived_at.is_none())
    }

    /// Whether the vault has a live value under this name.
    pub fn has_secret(&self, name: &str) -> bool {
        self.values.contains_key(name)
    }
}

/// What the audit log calls whoever came through a window.
const SENDER: &str = "a sender";

/// What the registry knows beside the database.
#[derive(Clone, Debug, Default)]
pub struct Keys {
    pub box_key: Option<SecretString>,
    pub master_key: Option<SecretString>,
}

#[derive(Debug)]
pub struct Registry {
    current: ArcSwap<Snapshot>,
    keys: ArcSwap<Keys>,
    store: Store,
    vault: Arc<Vault>,
    refreshing: tokio::sync::Mutex<()>,
}

impl Registry {
    pub async fn open(store: Store, vault: Arc<Vault>, keys: Keys) -> anyhow::Result<Registry> {
        let registry = Registry {
            current: ArcSwap::default(),
            keys: ArcSwap::from_pointee(keys),
            store,
            vault,
            refreshing: tokio::sync::Mutex::new(()),
        };
        registry.refresh().await?;
        Ok(registry)
    }

    pub fn snapshot(&self) -> Arc<Snapshot> {
        self.current.load_full()
    }

    /// What secrets are sealed with.
    pub fn vault(&self) -> &Arc<Vault> {
        &self.vault
    }

    /// Replaces the keys that come from configuration.
    pub async fn set_keys(&self, keys: Keys) -> anyhow::Result<()> {
        self.keys.store(Arc::new(keys));
        self.refresh().await
    }

    pub(super) fn box_key(&self) -> Option<SecretString> {
        self.keys.load().box_key.clone()
    }

    /// Reads again if another node changed something.
    pub async fn refresh_if_changed(&self) -> anyhow::Result<bool> {
        let revision = self.store.revision().await.context("read the revision")?;
        let changed = revision != self.snapshot().revision;
        if changed {
            self.refresh().await?;
        }
        Ok(changed)
    }

    /// Reads everything again. Returns when requests see it.
    pub async fn refresh(&self) -> anyhow::Result<()> {
        // One at a time, so that an older reading never replaces a newer one.
        let _one = self.refreshing.lock().await;
        let snapshot = self.read().await?;
        self.current.store(Arc::new(snapshot));
        Ok(())
    }

    /// Seals and stores a secret, and lets it take effect.
    pub async fn put_secret(
        &self,
        name: String,
        value: SecretString,
        overlap: Duration,
        change: Change,
    ) -> anyhow::Result<SecretInfo> {
        let vault = self.vault.clone();
        let seal = move |name: &str, version: i64| {
            vault.seal(Place { kind: "secret", id: name, version }, &value)
        };
        let info = self.store.put_secret(name, overlap, seal, change).await?;
        self.refresh().await?;
        Ok(info)
    }

    /// Makes what a sender handed over the secret of its source, if the source's window is open
    /// still. It may be shown until `shown_until`.
    pub(super) async fn take_secret(
        &self,
        source: &Source,
        value: SecretString,
        shown_until: Option<Timestamp>,
    ) -> anyhow::Result<bool> {
        let name = secret_key(source);
        let change = Change {
            actor: SENDER.to_owned(),
            action: "secret.received",
            target: name.clone(),
            details: serde_json::json!({"source": source.name}),
        };
        let vault = self.vault.clone();
        let seal = move |name: &str, version: i64| {
            vault.seal(Place { kind: "secret", id: name, version }, &value)
        };
        let put = self.store.put_secret_by_window(&source.id, shown_until, name, seal, change);
        let was_open = put.await?;
        self.refresh().await?;
        Ok(was_open)
    }

    /// The newest value of a source's secret, once, when its sender wants it back by hand.
    pub async fn show_once(
        &self,
        source: &Source,
        change: Change,
    ) -> anyhow::Result<Option<SecretString>> {
        if !self.store.show_once(&source.id, change).await? {
            return Ok(None);
        }
        // Another node may have taken it.
        self.refresh().await?;
        let snapshot = self.snapshot();
        let newest = snapshot.values.get(&secret_key(source)).and_then(|it| it.values.first());
        Ok(newest.map(|secret| secret.value.clone()))
    }

    /// Whether the newest value of a secret is this one.
    pub fn secret_is(&self, name: &str, value: &SecretString) -> bool {
        let snapshot = self.snapshot();
        let newest = snapshot.values.get(name).and_then(|secrets| secrets.values.first());
        newest.is_some_and(|known| known.value.expose_secret() == value.expose_secret())
    }

    /// The environment of a project directory, made when there is none yet.
    pub async fn ensure_project(
        &self,
        project: &str,
        managed_by: ManagedBy,
        actor: &str,
    ) -> anyhow::Result<()> {
        if self.snapshot().project(project).is_some() {
            return Ok(());
        }
        let at = self.store.clock().now();
        let environment = Environment {
            id: EnvironmentId::new(at),
            name: environment::name_of_project(project),
            description: None,
            config: EnvironmentConfig::local(project, Workspace::Shared),
            metadata: Default::default(),
            managed_by,
            created_at: at,
            updated_at: at,
            archived_at: None,
        };
        let change = Change {
            actor: actor.to_owned(),
            action: "environment.create",
            target: environment.id.to_string(),
            details: serde_json::json!({"project": project}),
        };
        match self.store.create_environment(environment, change).await {
            // Somebody else made it a moment before: as good.
            Ok(_) | Err(crate::store::Error::Conflict(_)) => self.refresh().await,
            Err(error) => Err(error.into()),
        }
    }

    async fn read(&self) -> anyhow::Result<Snapshot> {
        // First, so that a change in the middle is noticed by the next look.
        let revision = self.store.revision().await.context("read the revision")?;
        let mut snapshot = Snapshot { revision, ..Snapshot::default() };
        let keys = self.keys.load_full();
        let hashed = |key: &Option<SecretString>| {
            key.as_ref().map(|key| hash(key.expose_secret().as_bytes()))
        };
        snapshot.box_key = hashed(&keys.box_key);
        snapshot.master_key = hashed(&keys.master_key);
        self.read_secrets(&mut snapshot).await?;
        let mut cursor = None;
        loop {
            let page =
                self.store.agents(true, (None, None), cursor, 500).await.context("read agents")?;
            snapshot.agents.extend(page.data.into_iter().map(|it| (it.id.clone(), it)));
            let Some(next) = page.next else { break };
            cursor = next.parse().ok();
        }
        let mut cursor = None;
        loop {
            let page = self.store.environments(true, cursor, 500).await.context("environments")?;
            snapshot.environments.extend(page.data.into_iter().map(|it| (it.id.clone(), it)));
            let Some(next) = page.next else { break };
            cursor = next.parse().ok();
        }
        for key in self.store.api_keys().await.context("read API keys")? {
            let hash = unhex(&key.hash).and_then(|hash| <[u8; 32]>::try_from(hash).ok());
            if let (None, Some(hash)) = (key.revoked_at, hash) {
                snapshot.keys.insert(hash, (key.name, key.scopes));
            }
        }
        let windows = self.store.windows().await.context("read windows")?;
        snapshot.windows = windows.into_iter().collect();
        let before = self.snapshot();
        for source in self.store.sources().await.context("read sources")? {
            if source.retired_at.is_none() {
                let entry = resolve(source, &snapshot, &before);
                let map = match entry.source.kind {
                    SourceKind::Agent(_) => &mut snapshot.of_agents,
                    SourceKind::Named => &mut snapshot.named,
                };
                map.insert(entry.source.name.clone(), entry);
            }
        }
        Ok(snapshot)
    }

    async fn read_secrets(&self, snapshot: &mut Snapshot) -> anyhow::Result<()> {
        for sealed in self.store.secrets().await.context("read secrets")? {
            let place = Place { kind: "secret", id: &sealed.name, version: sealed.version };
            let value = match self.vault.open(place, &sealed.sealed) {
                Ok(value) => value,
                // One broken row closes the sources that use it, and nobody else's.
                Err(error) => {
                    tracing::error!(secret = sealed.name, %error, "a secret cannot be opened");
                    continue;
                }
            };
            let secrets = snapshot.values.entry(sealed.name.clone()).or_default();
            secrets.wanted = true;
            let name = SecretName { name: sealed.name.clone(), version: sealed.version };
            secrets.values.push(LiveSecret::new(name, value, sealed.expires_at));
            match snapshot.secrets.last_mut() {
                Some(info) if info.name == sealed.name => {
                    info.previous_until = info.previous_until.max(sealed.expires_at);
                }
                _ => snapshot.secrets.push(SecretInfo {
                    name: sealed.name,
                    version: sealed.version,
                    created_at: sealed.created_at,
                    previous_until: None,
                }),
            }
        }
        Ok(())
    }
}

/// Where a source or a rule wants its sessions.
#[derive(Clone, Copy)]
struct Site<'a> {
    environment_id: &'a Option<EnvironmentId>,
    project: &'a Option<String>,
}

impl Site<'_> {
    fn is_said(&self) -> bool {
        self.environment_id.is_some() || self.project.is_some()
    }
}

impl Snapshot {
    fn address(&self, kind: &SourceKind, agent: Option<&str>, place: Site<'_>) -> Address {
        let wanted = match kind {
            SourceKind::Agent(id) => id.as_str(),
            SourceKind::Named => agent.unwrap_or(agent::DEFAULT_NAME),
        };
        let agent = self.agent(wanted).map(|agent| AgentRef {
            id: agent.id.clone(),
            version: agent.version,
            name: agent.spec.name.clone(),
        });
        Address {
            agent: agent.ok_or_else(|| format!("there is no agent `{wanted}`")),
            environment: self.place(place),
        }
    }

    fn place(&self, place: Site<'_>) -> Result<EnvironmentId, String> {
        match (place.environment_id, place.project) {
            (Some(id), _) => match self.environments.get(id) {
                Some(environment) if environment.archived_at.is_some() => {
                    Err(format!("the environment {id} is archived"))
                }
                Some(environment) => check_project(environment),
                None => Err(format!("there is no environment {id}")),
            },
            (None, Some(project)) => match self.project(project) {
                Some(environment) => check_project(environment),
                None => Err(format!("there is no environment for the project `{project}`")),
            },
            (None, None) => self
                .environment(environment::DEFAULT_NAME)
                .map(|environment| environment.id.clone())
                .ok_or_else(|| "there is no environment `default`".to_owned()),
        }
    }

    fn project(&self, project: &str) -> Option<&Environment> {
        self.environments
            .values()
            .filter(|it| it.archived_at.is_none() && it.config.project() == Some(project))
            .min_by_key(|it| &it.id)
    }
}

/// Finds what a source refers to, or says in words what is missing.
pub(super) fn resolve(source: Source, snapshot: &Snapshot, before: &Snapshot) -> Entry {
    let definition = &source.definition;
    let place = Site { environment_id: &definition.environment_id, project: &definition.project };
    let named = definition.agent.as_deref();
    let address = snapshot.address(&source.kind, named, place);
    let rules = definition.rules.iter().enumerate().map(|(n, rule)| {
        let own = Site { environment_id: &rule.environment_id, project: &rule.project };
        let place = if own.is_said() { own } else { place };
        let agent = rule.agent.as_deref().or(named);
        let found = snapshot.address(&source.kind, agent, place);
        let said = |reason: String| format!("rules[{n}]: {reason}");
        Address { agent: found.agent.map_err(said), environment: found.environment.map_err(said) }
    });
    let rules = rules.collect();
    let key = secret_key(&source);
    let mut secrets = snapshot.values.get(&key).cloned().unwrap_or_default();
    let sender = Sender::of(&source).map_err(|problem| problem.to_string());
    let needs = sender.as_ref().is_ok_and(|sender| sender.verifier.needs_secret());
    secrets.wanted = source.definition.secret_key.is_some() || needs;
    let known = match source.kind {
        SourceKind::Agent(_) => before.of_agents.get(&source.name),
        SourceKind::Named => before.named.get(&source.name),
    };
    // Read again only when it was changed.
    let policy = match known.filter(|entry| entry.source.definition == *definition) {
        Some(entry) => entry.policy.clone(),
        None => Policy::read(definition).map(Arc::new).map_err(|problem| problem.to_string()),
    };
    let (waiting, greeted, lane, counters) = known
        .map(|it| (it.waiting.clone(), it.greeted.clone(), it.lane.clone(), it.counters.clone()))
        .unwrap_or_default();
    let open_until = snapshot.windows.get(&source.id).copied();
    Entry {
        source,
        secrets,
        sender,
        address,
        rules,
        policy,
        waiting,
        open_until,
        greeted,
        lane,
        counters,
    }
}

/// The name of the secret that a source's verifier uses.
pub fn secret_key(source: &Source) -> String {
    match (&source.definition.secret_key, &source.kind) {
        (Some(key), _) => key.clone(),
        (None, SourceKind::Agent(agent)) => secret::webhook_key(agent),
        (None, SourceKind::Named) => secret::source_key(&source.name),
    }
}

fn check_project(environment: &Environment) -> Result<EnvironmentId, String> {
    match environment.config.project() {
        Some(project) if !Path::new(project).is_dir() => {
            Err(format!("the project `{project}` is not a directory"))
        }
        _ => Ok(environment.id.clone()),
    }
}

/// The entries whose waiting sessions somebody should count, with the id to count by.
pub fn gauges(snapshot: &Snapshot) -> Vec<(SourceId, Waiting)> {
    snapshot.sources().iter().map(|it| (it.source.id.clone(), it.waiting.clone())).collect()
}
