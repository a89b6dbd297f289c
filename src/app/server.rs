//! A running Bellpull.
//!
//! Starting: the lock, the socket, the keys, the store, what the config declares, the worker; each
//! step says what to do when it fails. Stopping: no new requests, open ones and turns get a while,
//! what is left is handed back, the store is closed last.

use std::{net::SocketAddr, path::PathBuf, sync::Arc, time::Duration};

use anyhow::{Context, bail};
use arc_swap::ArcSwap;
use secrecy::{ExposeSecret, SecretString};
use tokio::net::TcpListener;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{
    data_dir::{self, DataDir},
    declare, listen,
    tasks::Tasks,
};
use crate::{
    agent,
    clock::Clock,
    config::{Config, Declared, Loaded},
    fetch::Https,
    ingest::{Ingest, Keys, Registry},
    model::Models,
    preview::Previews,
    runtime::{self, Runtime},
    signal::Signals,
    store::{Location, Retention, Store},
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
    turns: (CancellationToken, TaskTracker),
    tasks: (CancellationToken, TaskTracker),
    /// Held to the end.
    _data_dir: DataDir,
}

impl Server {
    pub async fn start(loaded: Loaded, clock: Clock) -> anyhow::Result<Server> {
        let Loaded { config, declared, .. } = loaded;
        let data_dir = DataDir::open(&config.data_dir)?;
        let listener = TcpListener::bind(config.listen).await.with_context(|| {
            format!(
                "listen on {}\nhint: choose another address with `--listen`, port 0 for any",
                config.listen
            )
        })?;
        let address = listener.local_addr().context("read the socket's address")?;
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
        let registry = Registry::open(store.clone(), vault, keys.clone()).await?;
        declare::seed(&store, &registry, &config.models).await?;
        let (ingest, refusals) =
            Ingest::new(store.clone(), registry, config.limits.clone(), Arc::new(Https::new()?));
        declare::apply(&store, &ingest, &declared).await?;

        let tasks = Tasks {
            store: store.clone(),
            ingest: ingest.clone(),
            signals: signals.clone(),
            data_dir: data_dir.path.clone(),
            workspaces: data_dir.workspaces(),
            retention: Arc::new(ArcSwap::from_pointee(config.retention.clone())),
            tracker: TaskTracker::new(),
            stop: CancellationToken::new(),
        };
        tasks.start(refusals, told);
        let previews = Previews::default();
        let models = Models::new(config.models.clone(), store.clock().clone());
        let turns = start_worker(&config, &data_dir, &store, &signals, &previews, &models)?;
        let web = web::App::new(
            store.clone(),
            ingest.clone(),
            signals.clone(),
            previews,
            web_options(&config, address),
            requests.0.clone(),
        );
        let _ = slot.set(web::router(web.clone()));
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
            retention: tasks.retention,
            tasks: (tasks.stop, tasks.tracker),
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
        let Loaded { config, declared, .. } = loaded;
        for key in self.config.waiting_for_restart(&config) {
            tracing::warn!(key, "this change takes effect at the next start");
        }
        self.apply(&declared).await?;
        self.ingest.bounds.set_options(config.limits.clone());
        self.store.metrics().set_options(&config.metrics.counted);
        self.retention.store(Arc::new(config.retention.clone()));
        self.models.set_options(config.models.clone());
        self.web.set_options(web_options(&config, self.address));
        self.config = Config {
            data_dir: self.config.data_dir.clone(),
            listen: self.config.listen,
            database_url: self.config.database_url.clone(),
            store: self.config.store.clone(),
            worker: self.config.worker.clone(),
            ..config
        };
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

    /// Stops in order: requests, turns, everything beside them, the store.
    pub async fn stop(self) {
        for (stop, tracker) in [&self.requests, &self.turns, &self.tasks] {
            stop.cancel();
            tracker.close();
            tracker.wait().await;
        }
        self.store.close().await;
    }
}

fn web_options(config: &Config, address: SocketAddr) -> web::Options {
    web::Options {
        public_url: config.public_url.clone(),
        project_roots: config.projects.roots.clone(),
        metrics_public: config.metrics.public,
        streams_max: config.web.streams_max,
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
            Err(crate::store::Error::Unavailable(error))
                if config.database_url.is_some() && tries < STORE_TRIES =>
            {
                tracing::warn!(tries, error = format!("{error:#}"), "waiting for the database");
                tokio::time::sleep(STORE_PAUSE).await;
            }
            Err(error) => bail!("open the database: {}", error.detail()),
        }
    }
}

fn start_worker(
    config: &Config,
    data_dir: &DataDir,
    store: &Store,
    signals: &Signals,
    previews: &Previews,
    models: &Models,
) -> anyhow::Result<(CancellationToken, TaskTracker)> {
    let options = runtime::Options {
        workspaces: data_dir.workspaces(),
        resumes_max: config.worker.resumes_max,
        limits: agent::Limits::default(),
    };
    let runtime =
        Runtime::new(store.clone(), signals.clone(), previews.clone(), models.clone(), options);
    let (node, boot) = (data_dir.node_id()?, vault::hex(&vault::random::<8>()));
    let options = config.worker.clone();
    let worker = Worker::new(store.clone(), runtime, signals.clone(), options, &node, &boot);
    let turns = (CancellationToken::new(), TaskTracker::new());
    turns.1.spawn(worker.run(turns.0.clone()));
    Ok(turns)
}
