//! A running Bellpull.
//!
//! Starting: the lock, the socket, the keys, the store, what the config declares, the worker; each
//! step says what to do when it fails. Stopping: no new requests, open ones and turns get a while,
//! what is left is handed back, the store is closed last.

use std::{net::SocketAddr, path::PathBuf, sync::Arc, time::Duration};

use anyhow::{Context, bail};
use arc_swap::ArcSwap;
use futures_util::future::BoxFuture;
use secrecy::{ExposeSecret, SecretString};
use tokio::net::TcpListener;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{
    data_dir::{self, DataDir},
    declare, facts, listen,
    tasks::Tasks,
};
use crate::{
    clock::Clock,
    config::{Config, Declared, Loaded, Log},
    domain::credential::Validation,
    fetch::{Https, Post, pages::Internet, servers::Servers},
    id::{CredentialId, VaultId},
    ingest::{Ingest, Keys, Registry},
    model::Models,
    outbox::Outbox,
    preview::Previews,
    runtime::{self, Runtime, mcp::Mcp, shells::Shells},
    schedule::Schedules,
    signal::Signals,
    store::{self, Location, Retention, Store},
    tool::sandbox::{self, Sandbox, State},
    vault::{self, Vault},
    web,
    worker::Worker,
};

/// How often the database is tried at start before giving up, and how far apart.
const STORE_TRIES: u32 = 30;
const STORE_PAUSE: Duration = Duration::from_secs(1);

/// A server in this process.
#[derive(Debug)]
pub struct Server {
    pub address: SocketAddr,
    /// Where the admin key is, when it was made by us.
    pub admin_key_file: Option<PathBuf>,
    pub(super) store: Store,
    pub(super) ingest: Arc<Ingest>,
    pub(super) web: web::App,
    pub(super) config: Config,
    keys: Keys,
    models: Models,
    retention: Arc<ArcSwap<Retention>>,
    signals: Signals,
    requests: (CancellationToken, TaskTracker),
    projects: Arc<ArcSwap<runtime::Projects>>,
    turns: (CancellationToken, TaskTracker),
    outbox: Outbox,
    sends: (CancellationToken, TaskTracker),
    tasks: (CancellationToken, TaskTracker),
    node: String,
    /// Held to the end.
    _data_dir: DataDir,
}

impl Server {
    pub async fn start(loaded: Loaded, clock: Clock) -> anyhow::Result<Server> {
        // All that a server consists of is in it.
        Box::pin(Server::open(loaded, clock)).await
    }

    async fn open(loaded: Loaded, clock: Clock) -> anyhow::Result<Server> {
        let Loaded { config, declared, settings, .. } = loaded;
        let data_dir = DataDir::open(&config.data_dir)?;
        let (listener, address) = bind(config.listen).await?;
        let (requests, slot) =
            ((CancellationToken::new(), TaskTracker::new()), listen::Slot::default());
        requests.1.spawn(listen::serve(listener, slot.clone(), requests.0.clone()));

        let (master_key, admin_key_file) = master_key(&config, &data_dir)?;
        let vault = Arc::new(open_vault(&config, &data_dir)?);
        let store = open_database(&config, clock).await?;
        check_canary(&store, &vault).await?;
        store.metrics().set_options(&config.metrics.counted);

        let (signals, told) = Signals::new();
        let keys = Keys { box_key: declared.box_key.clone(), master_key: Some(master_key) };
        let registry = Registry::open(store.clone(), vault.clone(), keys.clone()).await?;
        declare::seed(&store, &registry, &config.models).await?;
        let (ingest, refusals) =
            Ingest::new(store.clone(), registry, config.limits.clone(), Arc::new(Https::new()?));
        declare::apply(&store, &ingest, &declared).await?;

        let (node, boot) = (data_dir.node_id()?, vault::hex(&vault::random::<8>()));
        take_up_day(&store, &node).await;
        let tasks = Tasks {
            store: store.clone(),
            ingest: ingest.clone(),
            signals: signals.clone(),
            data_dir: data_dir.path.clone(),
            workspaces: data_dir.workspaces(),
            node: node.clone(),
            retention: Arc::new(ArcSwap::from_pointee(config.retention.clone())),
            tracker: TaskTracker::new(),
            stop: CancellationToken::new(),
        };
        tasks.start(refusals, told);
        let previews = Previews::default();
        let models = Models::new(config.models.clone(), store.clock().clone());
        let projects = Arc::new(ArcSwap::from_pointee(config.projects.clone()));
        let life = (node.as_str(), boot.as_str());
        let shells = open_shells(&config, &data_dir, store.clock()).await;
        let sandbox = standing(shells.sandbox().state());
        tasks.close_idle(shells.clone());
        let options = turn_options(&config, &data_dir, &projects)?;
        let runtime =
            Runtime::new(store.clone(), signals.clone(), previews.clone(), models.clone(), options);
        let mcp = open_mcp(&config, &store, &vault)?;
        let runtime = runtime.with_shells(shells).with_vault(vault.clone()).with_mcp(mcp.clone());
        let turns = start_worker(&config, runtime, &store, &signals, life);
        let outbox = Outbox::new(store.clone(), vault, signals.clone(), Post::new()?, life);
        outbox.set_options(config.outbox.clone(), config.public_url.clone());
        let sends = (CancellationToken::new(), TaskTracker::new());
        sends.1.spawn(outbox.clone().run(sends.0.clone()));
        let schedules = Schedules::new(store.clone(), signals.clone(), config.schedule.clone());
        tasks.tracker.spawn(schedules.run(tasks.stop.clone()));
        let web = web::App::new(
            store.clone(),
            ingest.clone(),
            signals.clone(),
            previews,
            web_options(&config, address),
            requests.0.clone(),
        )
        .with_probe(Arc::new(Prober { mcp, models: models.clone() }))
        .with_sandbox(sandbox);
        web.set_facts(facts::at_start(&settings, &config.models));
        let _ = slot.set(web::Http::new(web.clone()));
        Ok(Server {
            address,
            admin_key_file,
            store,
            ingest,
            web,
            config,
            keys,
            models,
            signals,
            requests,
            turns,
            outbox,
            sends,
            retention: tasks.retention,
            projects,
            tasks: (tasks.stop, tasks.tracker),
            node,
            _data_dir: data_dir,
        })
    }

    /// The URL to reach this server by, from this machine.
    pub fn url(&self) -> String {
        match &self.config.public_url {
            Some(url) => url.clone(),
            None => format!("http://{}", self.address),
        }
    }

    /// Takes over a changed configuration, except for what needs a restart.
    pub(super) async fn reload(&mut self, loaded: Loaded) -> anyhow::Result<()> {
        let Loaded { config, declared, settings, .. } = loaded;
        let waiting = self.config.waiting_for_restart(&config);
        for key in &waiting {
            tracing::warn!(key, "this change takes effect at the next start");
        }
        self.apply(&declared).await?;
        self.ingest.bounds.set_options(config.limits.clone());
        self.store.metrics().set_options(&config.metrics.counted);
        self.retention.store(Arc::new(config.retention.clone()));
        self.projects.store(Arc::new(config.projects.clone()));
        self.models.set_options(config.models.clone());
        self.outbox.set_options(config.outbox.clone(), config.public_url.clone());
        let facts = facts::read_again(&self.web.facts(), &settings, &config.models, &waiting);
        self.web.set_facts(facts);
        self.config = Config {
            data_dir: self.config.data_dir.clone(),
            listen: self.config.listen,
            database_url: self.config.database_url.clone(),
            store: self.config.store.clone(),
            worker: self.config.worker.clone(),
            tools: self.config.tools.clone(),
            turns: self.config.turns.clone(),
            sandbox: self.config.sandbox.clone(),
            shells: self.config.shells.clone(),
            schedule: self.config.schedule.clone(),
            mcp: self.config.mcp.clone(),
            log: Log { format: self.config.log.format, ..config.log },
            ..config
        };
        self.web.set_options(web_options(&self.config, self.address));
        Ok(())
    }

    async fn apply(&mut self, declared: &Declared) -> anyhow::Result<()> {
        self.keys.box_key.clone_from(&declared.box_key);
        self.ingest.registry.set_keys(self.keys.clone()).await?;
        declare::apply(&self.store, &self.ingest, declared).await?;
        self.signals.configured();
        self.signals.due();
        Ok(())
    }

    /// Stops in order: requests, turns, what they had to be sent, everything beside them, the store.
    pub async fn stop(self) {
        for (stop, tracker) in [&self.requests, &self.turns, &self.sends, &self.tasks] {
            stop.cancel();
            tracker.close();
            tracker.wait().await;
        }
        if let Err(error) = self.store.keep_day(self.node).await {
            tracing::warn!(error = %error.detail(), "what was counted last is not kept");
        }
        self.store.close().await;
    }
}

/// Charts can do without.
async fn take_up_day(store: &Store, node: &str) {
    if let Err(error) = store.take_up_day(node.to_owned()).await {
        tracing::warn!(error = %error.detail(), "what was counted before is not known");
    }
}

async fn bind(wanted: SocketAddr) -> anyhow::Result<(TcpListener, SocketAddr)> {
    let listener = TcpListener::bind(wanted).await.with_context(|| {
        format!("listen on {wanted}\nhint: choose another address with `--listen`, port 0 for any")
    })?;
    let address = listener.local_addr().context("read the socket's address")?;
    Ok((listener, address))
}

/// What the API shows of the sandbox.
fn standing(state: &State) -> web::Sandbox {
    let standing = match state {
        State::Works { .. } => web::SandboxStanding::Works,
        State::Off => web::SandboxStanding::Off,
        State::Refused(_) => web::SandboxStanding::Refused,
    };
    web::Sandbox { standing, message: state.said() }
}

/// Lets the API try credentials at their servers, and ask which keys of models there are.
#[derive(Debug)]
struct Prober {
    mcp: Mcp,
    models: Models,
}

impl web::Probe for Prober {
    fn validate(
        &self,
        vault: VaultId,
        credential: CredentialId,
    ) -> BoxFuture<'static, store::Result<Validation>> {
        self.mcp.validate(vault, credential)
    }

    fn missing_key(&self, model: &str) -> Option<&'static str> {
        self.models.missing_key(model)
    }
}

fn web_options(config: &Config, address: SocketAddr) -> web::Options {
    web::Options {
        public_url: config.public_url.clone(),
        project_roots: config.projects.roots.clone(),
        callback_hosts: config.outbox.allowed_private_hosts.clone(),
        priced_models: config.models.prices.keys().cloned().collect(),
        day_cost_max: config.turns.budgets.day.cost_usd,
        metrics_public: config.metrics.public,
        streams_max: config.web.streams_max,
        files: config.files,
        ..web::Options::new(address)
    }
}

/// The first admin key: given, or made once into the data directory.
fn master_key(
    config: &Config,
    data_dir: &DataDir,
) -> anyhow::Result<(SecretString, Option<PathBuf>)> {
    if let Some(key) = &config.master_key {
        return Ok((key.clone(), None));
    }
    let (key, _) = data_dir.read_or_make("admin.key", || vault::generate_token("bpk_"))?;
    Ok((key, Some(data_dir.path.join("admin.key"))))
}

fn open_vault(config: &Config, data_dir: &DataDir) -> anyhow::Result<Vault> {
    let key = match &config.vault_key {
        Some(key) => key.clone(),
        None => data_dir.read_or_make("vault.key", Vault::generate_key)?.0,
    };
    Vault::new(&key).context("read the vault key\nhint: it is 32 bytes in base64")
}

async fn check_canary(store: &Store, vault: &Vault) -> anyhow::Result<()> {
    let canary = store.remember("vault_canary", vault.canary()).await;
    let canary =
        canary.map_err(|error| anyhow::anyhow!(error.detail())).context("read the canary")?;
    if let Err(error) = vault.check_canary(&canary) {
        bail!(
            "the vault key is not the one that this database's secrets are sealed with: {error}\n\
             hint: give the right one in `BELLPULL_VAULT_KEY`, or restore `vault.key`"
        );
    }
    Ok(())
}

/// Opens the database; a PostgreSQL that is still starting is waited for.
pub(super) async fn open_database(config: &Config, clock: Clock) -> anyhow::Result<Store> {
    let location = match &config.database_url {
        Some(url) => Location::Postgres(url.expose_secret().to_owned()),
        None => Location::Sqlite(data_dir::database(&config.data_dir)),
    };
    let mut tries = 0;
    loop {
        tries += 1;
        match Store::open(&location, &config.store, clock.clone()).await {
            Ok(store) => return Ok(store),
            Err(store::Error::Unavailable(error))
                if config.database_url.is_some() && tries < STORE_TRIES =>
            {
                tracing::warn!(tries, error = format!("{error:#}"), "waiting for the database");
                tokio::time::sleep(STORE_PAUSE).await;
            }
            Err(error) => bail!("open the database: {}", error.detail()),
        }
    }
}

/// What agents run, if this machine lets them.
async fn open_shells(config: &Config, data_dir: &DataDir, clock: &Clock) -> Shells {
    let (place, program) = (data_dir.sandbox(), sandbox::this_binary());
    let sandbox = Sandbox::open(config.sandbox.clone(), &place, program, clock).await;
    match sandbox.state() {
        State::Works { .. } => tracing::info!("the sandbox {}", sandbox.state().said()),
        State::Refused(_) | State::Off => {
            tracing::warn!("the sandbox: {}", sandbox.state().said());
        }
    }
    Shells::new(sandbox, config.shells.clone(), clock.clone())
}

/// The way to MCP servers.
fn open_mcp(config: &Config, store: &Store, vault: &Arc<Vault>) -> anyhow::Result<Mcp> {
    let (options, programs) = (config.mcp.options.clone(), config.mcp.programs.clone());
    Ok(Mcp::new(Servers::new()?, options, programs, store.clone(), vault.clone()))
}

fn turn_options(
    config: &Config,
    data_dir: &DataDir,
    projects: &Arc<ArcSwap<runtime::Projects>>,
) -> anyhow::Result<runtime::Options> {
    Ok(runtime::Options {
        workspaces: data_dir.workspaces(),
        resumes_max: config.worker.resumes_max,
        limits: config.turns.limits.clone(),
        approval_seconds_max: config.turns.approval_seconds_max,
        tools: config.tools.clone(),
        projects: projects.clone(),
        pages: runtime::Pages::of(Arc::new(Internet::new()?)),
        budgets: config.turns.budgets,
        outputs: runtime::Outputs {
            bytes_max: config.files.bytes_max,
            total_bytes_max: config.files.total_bytes_max,
        },
    })
}

fn start_worker(
    config: &Config,
    runtime: Runtime,
    store: &Store,
    signals: &Signals,
    (node, boot): (&str, &str),
) -> (CancellationToken, TaskTracker) {
    let options = config.worker.clone();
    let worker = Worker::new(store.clone(), runtime, signals.clone(), options, node, boot);
    let turns = (CancellationToken::new(), TaskTracker::new());
    turns.1.spawn(worker.run(turns.0.clone()));
    turns
}
