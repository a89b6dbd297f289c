//! What the stories share: a store of their own with an agent, an environment and a source in it, a
//! clock that stands still, and short words for what every story does.

use std::{sync::Arc, time::Duration};

use bellpull::{
    clock::{Clock, Timestamp},
    domain::{
        ManagedBy, Metadata,
        agent::{Agent, AgentSpec},
        delivery::Identity,
        environment::{Environment, EnvironmentConfig, Workspace},
        event::{Block, Event, EventBody, NewEvent, Origin, Usage, plain_text},
        source::{Pace, Source, SourceDefinition, SourceKind},
        trace::TraceContext,
        turn::TurnEnd,
        verifier::Verifier,
    },
    id::{AgentId, DeliveryId, EventId, Id, SessionId},
    store::{
        Accepted, Beginning, Body, Change, Claimed, Dispatch, Lease, Location, MessageBody,
        NewDelivery, NewMessage, NewSession, Options, Route, RouteTarget, Store, Taken,
    },
};
use serde_json::json;
use tempfile::TempDir;

use crate::support::{postgres::TestDatabase, raw};

pub const HOUR: Duration = Duration::from_secs(3600);

/// Messages that may wait in a session, unless a story is about that.
const WAITING_MAX: i64 = 10_000;

/// A store with a little world in it.
#[derive(Debug)]
pub struct Bench {
    pub store: Store,
    /// Stands still but for one millisecond with each new id, so that ids sort as they were made.
    /// Leases of PostgreSQL do not follow it: stories use leases of zero seconds or of an hour.
    pub clock: Clock,
    pub agent: Agent,
    pub environment: Environment,
    pub source: Source,
    pub place: Arc<Place>,
}

/// Where the data is; it goes away with this.
#[derive(Debug)]
pub enum Place {
    Directory(TempDir),
    Database(TestDatabase),
}

impl Place {
    pub fn directory() -> Place {
        Place::Directory(tempfile::tempdir().expect("a temporary directory can be made"))
    }

    pub fn database() -> Place {
        Place::Database(TestDatabase::create())
    }

    pub fn location(&self) -> Location {
        match self {
            Place::Directory(directory) => Location::Sqlite(directory.path().join("bellpull.db")),
            Place::Database(database) => Location::Postgres(database.url()),
        }
    }

    /// Runs several statements behind the store's back.
    pub async fn script(&self, sql: &str) {
        raw::script(&self.location(), sql).await;
    }

    /// Runs a statement behind the store's back.
    pub async fn sql(&self, sql: &str) -> Vec<Vec<Option<String>>> {
        raw::sql(&self.location(), sql).await
    }

    /// The number that a statement answers.
    pub async fn number(&self, sql: &str) -> i64 {
        raw::number(&self.location(), sql).await
    }
}

impl Bench {
    pub async fn sqlite() -> Bench {
        Bench::at(Place::directory()).await
    }

    pub async fn postgres() -> Bench {
        Bench::at(Place::database()).await
    }

    async fn at(place: Place) -> Bench {
        let place = Arc::new(place);
        let clock = Clock::manual(Timestamp(1_800_000_000_000));
        let store = open(&place, clock.clone()).await;
        let agent = make_agent(&store, "alice").await;
        let environment = make_environment(&store, "default").await;
        let source = make_source(&store, "zendesk").await;
        Bench { store, clock, agent, environment, source, place }
    }

    /// Another node on the same database.
    pub async fn another_node(&self) -> Bench {
        let store = open(&self.place, self.clock.clone()).await;
        Bench {
            store,
            clock: self.clock.clone(),
            agent: self.agent.clone(),
            environment: self.environment.clone(),
            source: self.source.clone(),
            place: self.place.clone(),
        }
    }

    pub fn trace(&self) -> TraceContext {
        TraceContext::new(self.clock.now())
    }

    pub fn id<T: Id>(&self) -> T {
        new_id(&self.clock)
    }

    /// A first request with this dedupe key, for a new session.
    pub fn draft(&self, key: &str) -> Draft {
        let (id, event_id) = (self.id(), self.id());
        let text = format!("message {key}");
        let dispatch = Dispatch {
            agent_id: self.agent.id.clone(),
            agent_version: self.agent.version,
            environment_id: self.environment.id.clone(),
            target: RouteTarget::New(self.id()),
            title: format!("title {key}"),
            event_id,
            message: MessageBody::Inline(String::new()),
            private: json!({ "nonce": key }).to_string(),
            pace: Pace::default(),
        };
        let body = text.clone().into_bytes();
        let draft = Draft(NewDelivery {
            id,
            source_id: self.source.id.clone(),
            identity: Identity { key: key.to_owned(), field: "x-delivery".to_owned(), weak: false },
            identity_before: None,
            route: Route::To(Box::new(dispatch)),
            event_type: Some("ticket.created".to_owned()),
            request_id: self.id(),
            trace: self.trace(),
            received_at: self.clock.now(),
            content_type: Some("application/json".to_owned()),
            headers: json!({ "x-delivery": key }).to_string(),
            body_bytes: body.len(),
            body: Body::Inline(body.into()),
            secret: None,
            replay: None,
            replay_of: None,
            rerun_failed: false,
            waiting_max: WAITING_MAX,
        });
        draft.text(&text)
    }

    pub async fn accept(&self, draft: Draft) -> Accepted {
        self.store.accept(draft.0).await.expect("the database works").expect("there is room")
    }

    /// A session without messages, made through the API.
    pub async fn session(&self) -> SessionId {
        let session = self.new_session(&self.agent);
        self.store.create_session(session).await.expect("the session is made").id
    }

    pub fn new_session(&self, agent: &Agent) -> NewSession {
        NewSession {
            budget: Default::default(),
            id: self.id(),
            agent_id: agent.id.clone(),
            agent_version: agent.version,
            overrides: None,
            environment_id: self.environment.id.clone(),
            deployment_id: None,
            vault_ids: Vec::new(),
            title: None,
            metadata: Metadata::new(),
            messages: Vec::new(),
            resources: Vec::new(),
        }
    }

    /// A message as a person types it.
    pub fn message(&self, text: &str) -> NewMessage {
        NewMessage {
            event_id: self.id(),
            body: EventBody::UserMessage { content: vec![Block::text(text)], origin: None },
            private: json!({ "nonce": text }).to_string(),
        }
    }

    pub async fn send(&self, session: &SessionId, text: &str) -> EventId {
        let message = self.message(text);
        let id = message.event_id.clone();
        self.store.send(session, vec![message], WAITING_MAX).await.expect("sent");
        id
    }

    /// Claims everything that is due, for an hour.
    pub async fn claim(&self) -> Vec<Claimed> {
        self.claim_as("node:1", HOUR).await
    }

    pub async fn claim_as(&self, owner: &str, lease: Duration) -> Vec<Claimed> {
        self.store.claim(owner.to_owned(), lease, 1000, None).await.expect("claimed").0
    }

    /// Claims the one session that is due.
    pub async fn claim_one(&self) -> Lease {
        let mut claimed = self.claim().await;
        assert_eq!(claimed.len(), 1, "{claimed:?}");
        claimed.remove(0).lease
    }

    pub async fn begin(&self, lease: &Lease) -> Taken {
        self.store.begin_turn(lease, self.beginning()).await.expect("begun").taken
    }

    pub fn beginning(&self) -> Beginning {
        Beginning { turn_id: self.id(), trace: self.trace(), opening: self.running() }
    }

    pub async fn append(&self, lease: &Lease, text: &str) {
        let event = self.says(text);
        self.store.append(lease, vec![event], Usage::default()).await.expect("appended");
    }

    pub async fn finish(&self, lease: &Lease, end: TurnEnd) {
        let events = vec![self.idle(end)];
        self.store.finish(lease, end, events, Duration::ZERO).await.expect("finished");
    }

    /// Claims the one session that is due and answers everything that waits in it.
    pub async fn work_off(&self, end: TurnEnd) -> SessionId {
        let lease = self.claim_one().await;
        self.begin(&lease).await;
        self.finish(&lease, end).await;
        lease.session_id
    }

    pub fn running(&self) -> NewEvent {
        NewEvent::new(self.id(), EventBody::StatusRunning)
    }

    pub fn says(&self, text: &str) -> NewEvent {
        NewEvent::new(self.id(), EventBody::AgentMessage { content: vec![Block::text(text)] })
    }

    pub fn idle(&self, end: TurnEnd) -> NewEvent {
        let body = EventBody::StatusIdle { stop_reason: end.into(), stop_details: None };
        NewEvent::new(self.id(), body)
    }

    /// The whole log, which has no gaps.
    pub async fn log(&self, session: &SessionId) -> Vec<Event> {
        let log = self.store.events_after(session, 0, 100_000).await.expect("the log is readable");
        gapless(&log);
        log
    }

    /// What waits in the inbox, up to the bound of one look.
    pub async fn waiting(&self, session: &SessionId) -> Vec<Event> {
        let waiting = self.store.waiting_after(session, 0).await.expect("the inbox is readable");
        waiting.into_iter().map(|(_, event)| event).collect()
    }
}

pub async fn open(place: &Place, clock: Clock) -> Store {
    // A machine that is busy with other tests may take its time with a commit.
    let options = Options { statement_seconds_max: 60, ..Options::default() };
    let store = Store::open(&place.location(), &options, clock).await;
    store.expect("the database opens")
}

pub async fn make_agent(store: &Store, name: &str) -> Agent {
    let id: AgentId = new_id(store.clock());
    let source = Source {
        kind: SourceKind::Agent(id.clone()),
        name: id.to_string(),
        ..source(store.clock(), "", Verifier::Bearer {})
    };
    let spec = AgentSpec::new(name, "rehearsal");
    let made = store.create_agent(id, spec, ManagedBy::Api, source, change("agent.create")).await;
    made.expect("the agent is made")
}

pub async fn make_environment(store: &Store, name: &str) -> Environment {
    let environment = environment(store.clock(), name);
    let made = store.create_environment(environment, change("environment.create")).await;
    made.expect("the environment is made")
}

/// One whose sessions work in place, or in a place of their own.
pub async fn make_project(store: &Store, name: &str, workspace: Workspace) -> Environment {
    let project = format!("/srv/{name}");
    let environment = Environment {
        config: EnvironmentConfig::local(&project, workspace),
        ..environment(store.clock(), name)
    };
    let made = store.create_environment(environment, change("environment.create")).await;
    made.expect("the environment is made")
}

pub async fn make_source(store: &Store, name: &str) -> Source {
    let source = source(store.clock(), name, Verifier::Bearer {});
    store.put_source(source, change("source.put")).await.expect("the source is made")
}

pub fn environment(clock: &Clock, name: &str) -> Environment {
    Environment {
        id: new_id(clock),
        name: name.to_owned(),
        description: None,
        config: EnvironmentConfig::cloud(),
        metadata: Metadata::new(),
        managed_by: ManagedBy::Api,
        created_at: clock.now(),
        updated_at: clock.now(),
        archived_at: None,
    }
}

pub fn source(clock: &Clock, name: &str, verifier: Verifier) -> Source {
    Source {
        id: new_id(clock),
        kind: SourceKind::Named,
        name: name.to_owned(),
        definition: SourceDefinition::new(&verifier),
        paused: false,
        managed_by: ManagedBy::Api,
        created_at: clock.now(),
        updated_at: clock.now(),
        retired_at: None,
    }
}

pub fn change(action: &'static str) -> Change {
    Change {
        actor: "test".to_owned(),
        action,
        target: "target".to_owned(),
        details: json!({ "n": 1 }),
    }
}

fn new_id<T: Id>(clock: &Clock) -> T {
    clock.advance(Duration::from_millis(1));
    T::new(clock.now())
}

/// A request on its way to the store.
#[derive(Clone, Debug)]
pub struct Draft(pub NewDelivery);

impl Draft {
    pub fn dispatch(&mut self) -> &mut Dispatch {
        match &mut self.0.route {
            Route::To(dispatch) => dispatch,
            other => panic!("{other:?} goes nowhere"),
        }
    }

    /// The text of the message.
    pub fn text(mut self, text: &str) -> Draft {
        let origin = Origin {
            source: "zendesk".to_owned(),
            source_id: self.0.source_id.clone(),
            delivery_id: self.0.id.clone(),
            event_type: self.0.event_type.clone(),
            content_type: self.0.content_type.clone(),
            bytes: self.0.body_bytes as i64,
            cut: false,
            rerun: None,
            replay_of: None,
        };
        let content = vec![Block::text(text)];
        let message = EventBody::UserMessage { content, origin: Some(origin) };
        self.dispatch().message = MessageBody::Inline(message.to_text());
        self
    }

    pub fn to(mut self, target: RouteTarget) -> Draft {
        self.dispatch().target = target;
        self
    }

    pub fn for_session(self, session: &SessionId) -> Draft {
        self.to(RouteTarget::Session(session.clone()))
    }

    /// To the session of a key; the session that this request would have made becomes it first.
    pub fn for_key(mut self, key: &str) -> Draft {
        let fresh = match &self.dispatch().target {
            RouteTarget::New(id) | RouteTarget::Session(id) => id.clone(),
            RouteTarget::Key { fresh, .. } => fresh.clone(),
        };
        self.to(RouteTarget::Key { key: key.to_owned(), fresh })
    }

    pub fn of_agent(mut self, agent: &Agent) -> Draft {
        self.dispatch().agent_id = agent.id.clone();
        self.dispatch().agent_version = agent.version;
        self
    }

    pub fn of_source(mut self, source: &Source) -> Draft {
        self.0.source_id = source.id.clone();
        self
    }

    pub fn waiting_max(mut self, n: i64) -> Draft {
        self.0.waiting_max = n;
        self
    }

    pub fn rerun_failed(mut self) -> Draft {
        self.0.rerun_failed = true;
        self
    }
}

/// The delivery that a message names, and whether it is a second one.
pub fn origin_of(event: &Event) -> (DeliveryId, Option<i64>) {
    match &event.body {
        EventBody::UserMessage { origin: Some(origin), .. } => {
            (origin.delivery_id.clone(), origin.rerun)
        }
        other => panic!("{other:?} came from nowhere"),
    }
}

/// Texts of the user's messages, in order.
pub fn messages(events: &[Event]) -> Vec<String> {
    let content = events.iter().filter_map(|event| match &event.body {
        EventBody::UserMessage { content, .. } => Some(plain_text(content)),
        _ => None,
    });
    content.collect()
}

/// Asserts that a log is numbered from 1 without gaps.
#[track_caller]
pub fn gapless(log: &[Event]) {
    let numbers: Vec<_> = log.iter().map(|event| event.seq).collect();
    let wanted: Vec<_> = (1..=log.len() as i64).map(Some).collect();
    assert_eq!(numbers, wanted, "the log has gaps");
}

const TABLES: [&str; 26] = [
    "secrets",
    "api_keys",
    "audit",
    "agents",
    "agent_versions",
    "environments",
    "sources",
    "windows",
    "sessions",
    "session_keys",
    "inbox",
    "events",
    "turns",
    "deliveries",
    "attempts",
    "chunks",
    "refusals",
    "outbox",
    "said",
    "approvals",
    "effects",
    "budgets",
    "spending",
    "reservations",
    "deployments",
    "deployment_runs",
];

/// Empties every table, so that one database serves many lists.
pub async fn wipe(place: &Place) {
    let deletes = TABLES.map(|table| format!("delete from {table};")).concat();
    let script =
        format!("begin; {deletes} update meta set value = '1' where name = 'revision'; commit");
    place.script(&script).await;
}
