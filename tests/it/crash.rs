//! What the real process survives: being killed, stopped and frozen, its database and its disk going
//! away, and a clock that jumps. Every story ends with the same account: each 2xx is there exactly
//! once, each turn has come to its one end, no log has a gap.

mod clock;
mod database;
mod disk;
mod freeze;
mod kill;
mod limits;
mod load;
mod terminate;

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use bellpull::store::Location;
use serde_json::Value;

use crate::support::{
    model_server::ModelServer,
    postgres::TestDatabase,
    process::{Process, until},
    raw,
};

/// Shortest lease that the configuration allows: what is lost is found soon.
const LEASE: Duration = Duration::from_secs(5);

/// Where a server keeps its things, over all of its lives.
struct World {
    directory: tempfile::TempDir,
    /// In the place of the directory's own.
    data_dir: Option<PathBuf>,
    database_url: Option<String>,
    _database: Option<TestDatabase>,
    variables: Vec<(String, String)>,
}

impl World {
    fn sqlite() -> World {
        World::new(None)
    }

    fn postgres() -> World {
        let database = TestDatabase::create();
        let world = World::new(Some(database.url()));
        World { _database: Some(database), ..world }
    }

    fn new(database_url: Option<String>) -> World {
        let directory = tempfile::tempdir().unwrap();
        let world = World {
            directory,
            data_dir: None,
            database_url: database_url.clone(),
            _database: None,
            variables: Vec::new(),
        };
        world.configure(&load::source());
        let world = world
            .with("BELLPULL_WORKER__LEASE_SECONDS", &LEASE.as_secs().to_string())
            .with("BELLPULL_LIMITS__FREE_DISK_BYTES_MIN", "1048576");
        match database_url {
            None => world,
            Some(url) => world
                .with("BELLPULL_DATABASE_URL", &url)
                .with("BELLPULL_VAULT_KEY", "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA="),
        }
    }

    /// With an environment variable; the last one of a name counts.
    fn with(mut self, name: &str, value: &str) -> World {
        self.variables.push((name.to_owned(), value.to_owned()));
        self
    }

    /// With a model that does as it is told behind the source `load`.
    fn asking(self, models: &ModelServer) -> World {
        self.configure(&format!(
            "{}agent = \"concierge\"\n[agents.concierge]\nmodel = \"claude-scripted\"\n",
            load::source()
        ));
        self.with("ANTHROPIC_BASE_URL", &models.url)
    }

    fn configure(&self, text: &str) {
        std::fs::write(self.config(), text).unwrap();
    }

    fn config(&self) -> PathBuf {
        self.directory.path().join("bellpull.toml")
    }

    /// Starts the server, or another life of it.
    async fn serve(&self) -> Process {
        self.serve_in(&self.data_dir()).await
    }

    /// Another node: a data directory of its own.
    async fn serve_in(&self, data_dir: &Path) -> Process {
        let config = self.config();
        let arguments = ["--config", config.to_str().expect("UTF-8")];
        let variables: Vec<(&str, &str)> =
            self.variables.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        Process::serve_with(data_dir, &arguments, &variables).await
    }

    fn data_dir(&self) -> PathBuf {
        self.data_dir.clone().unwrap_or_else(|| self.directory.path().join("data"))
    }

    fn location(&self) -> Location {
        match &self.database_url {
            Some(url) => Location::Postgres(url.clone()),
            None => Location::Sqlite(self.data_dir().join("bellpull.db")),
        }
    }

    async fn n_leases(&self) -> i64 {
        let sql = "select count(*) from sessions where lease_owner is not null";
        raw::number(&self.location(), sql).await
    }

    /// No log has a gap: the numbers of each are those below its session's next one.
    async fn has_no_gap(&self) {
        let sql = "select count(*) from sessions s where s.next_seq - 1 <> (select count(*) \
                   from events e where e.session_id = s.id and e.seq between 1 and s.next_seq - 1)";
        assert_eq!(raw::number(&self.location(), sql).await, 0, "logs with a gap");
        let sql = "select count(*) from events e join sessions s on s.id = e.session_id \
                   where e.seq >= s.next_seq";
        assert_eq!(raw::number(&self.location(), sql).await, 0, "events behind the end of a log");
    }
}

/// A moment follows from a printed seed.
struct Random(u64);

impl Random {
    fn new() -> Random {
        let seed = u64::from(std::process::id()) << 16 | 0x5eed;
        println!("seed {seed}");
        Random(seed)
    }

    fn next(&mut self, below: u64) -> u64 {
        self.0 =
            self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % below
    }
}

/// The state of the one delivery, once it has come to its end.
async fn outcome(server: &Process, delivery: &str) -> String {
    until("the delivery comes to its end", async || {
        let delivery = server.get(&format!("/v1/deliveries/{delivery}")).await;
        let outcome = delivery["outcome"].as_str()?.to_owned();
        ["succeeded", "failed"].contains(&outcome.as_str()).then_some(outcome)
    })
    .await
}

async fn events(server: &Process, session: &str) -> Vec<Value> {
    let list = server.get(&format!("/v1/sessions/{session}/events?limit=1000")).await;
    list["data"].as_array().expect("a list").clone()
}
