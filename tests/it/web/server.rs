//! A server without a socket, on a store of its own: keys, an agent, an environment, and a worker's
//! hands for stories that need a log.

use std::{path::PathBuf, sync::Arc, time::Duration};

use bellpull::{
    clock::{Clock, Timestamp},
    domain::{
        event::{Block, EventBody, NewEvent, StopReason, Usage},
        trace::TraceContext,
        turn::TurnEnd,
    },
    id::{EventId, Id, SessionId, TurnId},
    ingest::{self, Ingest, Keys, Registry},
    preview::Previews,
    signal::{Signals, Told},
    store::{self, Beginning, Lease, Location, Refusal, Store},
    vault::Vault,
    web::{App, Http, Options},
};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::client::Call;
use crate::support::{outside::Outside, postgres::TestDatabase, process::until};

pub const MASTER: &str = "master-key-of-the-tests";
pub const BOX: &str = "box-key-of-the-tests";

/// What time it is, unless a story says otherwise.
const NOW: Timestamp = Timestamp(1_800_000_000_000);

/// Nothing here takes longer, unless it never happens.
pub const SOON: Duration = Duration::from_secs(20);

pub struct Server {
    pub app: App,
    pub clock: Clock,
    pub http: Http,
    /// The hosts of senders.
    pub outside: Arc<Outside>,
    pub vault: Arc<Vault>,
    pub told: mpsc::Receiver<Told>,
    refusals: mpsc::Receiver<Refusal>,
    /// The agent `default`.
    pub agent: String,
    /// The environment `default`.
    pub environment: String,
    /// A place where projects may be.
    pub projects: PathBuf,
    place: Place,
}

enum Place {
    Directory(TempDir),
    Database(TestDatabase, TempDir),
}

impl Place {
    fn location(&self) -> Location {
        match self {
            Place::Directory(directory) => Location::Sqlite(directory.path().join("bellpull.db")),
            Place::Database(database, _) => Location::Postgres(database.url()),
        }
    }

    fn directory(&self) -> &TempDir {
        match self {
            Place::Directory(directory) | Place::Database(_, directory) => directory,
        }
    }
}

fn directory() -> TempDir {
    tempfile::tempdir().expect("a temporary directory can be made")
}

impl Server {
    pub fn location(&self) -> Location {
        self.place.location()
    }

    pub async fn new() -> Server {
        Server::with(ingest::Options::default()).await
    }

    pub async fn with(bounds: ingest::Options) -> Server {
        Server::at(Place::Directory(directory()), bounds, NOW).await
    }

    /// One whose time begins here.
    pub async fn since(start: Timestamp) -> Server {
        Server::at(Place::Directory(directory()), ingest::Options::default(), start).await
    }

    pub async fn postgres() -> Server {
        let place = Place::Database(TestDatabase::create(), directory());
        Server::at(place, ingest::Options::default(), NOW).await
    }

    async fn at(place: Place, bounds: ingest::Options, start: Timestamp) -> Server {
        let clock = Clock::manual(start);
        let options = store::Options::default();
        let store = Store::open(&place.location(), &options, clock.clone()).await;
        let store = store.expect("the store opens");
        let vault = Arc::new(Vault::new(&Vault::generate_key()).expect("a key"));
        let keys = Keys { box_key: Some(BOX.into()), master_key: Some(MASTER.into()) };
        let registry =
            Registry::open(store.clone(), vault.clone(), keys).await.expect("it is read");
        let outside = Outside::new();
        let (ingest, refusals) = Ingest::new(store.clone(), registry, bounds, outside.network());
        let (signals, told) = Signals::new();
        let mut options = Options::new(([127, 0, 0, 1], 4100).into());
        options.public_url = Some("https://bell.example".to_owned());
        let projects = place.directory().path().join("projects");
        std::fs::create_dir(&projects).expect("a new directory");
        options.project_roots = vec![projects.clone()];
        options.callback_hosts = vec!["127.0.0.1".to_owned()];
        options.heartbeat = Duration::from_millis(50);
        let shutdown = CancellationToken::new();
        let app = App::new(store, ingest, signals, Previews::default(), options, shutdown);
        let http = Http::new(app.clone());
        let mut server = Server {
            app,
            clock,
            http,
            outside,
            vault,
            told,
            refusals,
            agent: String::new(),
            environment: String::new(),
            projects,
            place,
        };
        let body = json!({"name": "default", "model": "rehearsal"});
        server.agent = server.id(server.post("/v1/agents").json(body)).await;
        let body = json!({"name": "default"});
        server.environment = server.id(server.post("/v1/environments").json(body)).await;
        server
    }

    /// A request with the master key.
    pub fn call(&self, method: &str, path: &str) -> Call {
        self.bare(method, path).bearer(MASTER)
    }

    /// A request without any key.
    pub fn bare(&self, method: &str, path: &str) -> Call {
        Call::new(self.http.clone(), method, path)
    }

    pub fn get(&self, path: &str) -> Call {
        self.call("GET", path)
    }

    pub fn post(&self, path: &str) -> Call {
        self.call("POST", path)
    }

    pub async fn id(&self, call: Call) -> String {
        call.ok().await["id"].as_str().expect("an id").to_owned()
    }

    pub async fn secret(&self, name: &str, value: &str) {
        self.post("/v1/secrets").json(json!({"name": name, "value": value})).ok().await;
    }

    /// The token of the default agent's endpoint, set.
    pub async fn token(&self) -> &'static str {
        let token = "a-token-that-only-the-sender-knows";
        self.secret(&format!("WEBHOOK_{}_SECRET", self.agent), token).await;
        token
    }

    /// A request to the default agent's endpoint.
    pub fn hook(&self) -> Call {
        self.bare("POST", &format!("/api/agents/{}/webhook", self.agent))
    }

    /// A session of the default agent.
    pub async fn session(&self) -> SessionId {
        let body = json!({"agent": self.agent, "environment_id": self.environment});
        self.id(self.post("/v1/sessions").json(body)).await.parse().expect("a session's id")
    }

    pub async fn say(&self, session: &SessionId, text: &str) -> Value {
        let event = json!({"type": "user.message", "content": [{"type": "text", "text": text}]});
        let path = format!("/v1/sessions/{session}/events");
        self.post(&path).json(json!({"events": [event]})).ok().await
    }

    /// The events of a session's list.
    pub async fn events(&self, session: &str) -> Vec<Value> {
        let list = self.get(&format!("/v1/sessions/{session}/events")).ok().await;
        list["data"].as_array().expect("a list").clone()
    }

    /// Writes down what the gate refused, as the app does in the background.
    pub async fn note_refusals(&mut self) {
        let mut refusals = Vec::new();
        while let Ok(refusal) = self.refusals.try_recv() {
            refusals.push(refusal);
        }
        self.app.store.note_refusals(refusals, 1000).await.expect("noted");
    }

    /// Claims the one session that is due and takes its messages.
    pub async fn work(&self) -> Lease {
        let hour = Duration::from_secs(3600);
        // On PostgreSQL a claim passes a session by that somebody writes to, as one does who sends what
        // the turn before told.
        let lease = until("one is due", async || {
            let claimed = self.app.store.claim("node:1".to_owned(), hour, 1, None).await;
            claimed.expect("claims").0.pop().map(|it| it.lease)
        })
        .await;
        let at = self.clock.now();
        let opening = NewEvent::new(EventId::new(at), EventBody::StatusRunning);
        let (turn_id, trace) = (TurnId::new(at), TraceContext::new(at));
        let beginning = Beginning { turn_id, trace, opening };
        self.app.store.begin_turn(&lease, beginning).await.expect("a turn begins");
        self.app.signals.changed(&lease.session_id);
        lease
    }

    pub async fn answer(&self, lease: &Lease, id: EventId, text: &str) {
        let event = NewEvent::new(id, EventBody::AgentMessage { content: vec![Block::text(text)] });
        let appended = self.app.store.append(lease, vec![event], Usage::default()).await;
        appended.expect("the lease is good");
        self.app.signals.changed(&lease.session_id);
    }

    pub async fn finish(&self, lease: &Lease, end: TurnEnd) {
        let body = EventBody::StatusIdle { stop_reason: StopReason::from(end), stop_details: None };
        let events = vec![NewEvent::new(EventId::new(self.clock.now()), body)];
        let done = self.app.store.finish(lease, end, events, Duration::from_secs(1)).await;
        done.expect("the lease is good");
        self.app.signals.changed(&lease.session_id);
    }
}
