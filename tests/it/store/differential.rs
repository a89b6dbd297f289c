//! Random lists of operations, done on both databases side by side: every answer and everything that
//! can be read afterwards is the same.
//!
//! Ids come from the position in the list and time from one clock, so there is little to normalise:
//! errors are compared by their kind, ids of the store's own making are one like the other, and lists that are sorted by ids of the store's own making are
//! sorted again. Leases last an hour or no time at all, because PostgreSQL measures them by its own
//! clock; the test's clock moves by less than an hour in each list.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use bellpull::{
    clock::{Clock, Timestamp},
    domain::{
        ManagedBy, Metadata,
        agent::AgentSpec,
        cost::{MicroUsd, Spent},
        delivery::Identity,
        event::{Block, EventBody, NewEvent, Origin, Usage},
        source::{Pace, Source, SourceKind},
        trace::TraceContext,
        verifier::Verifier,
    },
    id::{AgentId, DeliveryId, EnvironmentId, EventId, Id, SessionId, SourceId},
    store::{
        Beginning, Body, Claimed, DeliveryFilter, Dispatch, Error, EventFilter, Lease, MessageBody,
        NewDelivery, NewMessage, NewSession, ReplayCheck, Route, RouteTarget, SessionFilter, Store,
    },
};
use proptest::{
    prelude::*,
    test_runner::{Config, RngAlgorithm, TestCaseError, TestRng, TestRunner},
};
use serde_json::json;

use super::{
    acts::{self, Call, alike},
    bench::{HOUR, Place, change, environment, open, source, wipe},
    operations::{Goal, Op, Request, op},
};

/// The thing of a kind under a number: the same text on both databases.
pub fn id<T: Id>(n: usize) -> T {
    format!("{}n{n:05}", T::PREFIX).parse().expect("letters and digits")
}

fn trace(n: usize) -> TraceContext {
    let (trace, span) = (n + 1, n + 1);
    format!("00-{trace:032x}-{span:016x}-01").parse().expect("a trace")
}

fn pick<T: Clone>(all: &[T], n: usize) -> Option<T> {
    if all.is_empty() { None } else { Some(all[n % all.len()].clone()) }
}

/// What exists by now, for operations to pick from.
#[derive(Debug)]
struct World {
    clock: Clock,
    /// Ids of sessions, also of ones that were never made.
    sessions: Vec<SessionId>,
    deliveries: Vec<DeliveryId>,
    leases: Vec<Lease>,
    /// That turns made, also in vain.
    calls: Vec<Call>,
}

/// What an operation answered, as it is compared.
pub type Answer = Result<String, &'static str>;

pub fn answer<T: std::fmt::Debug>(result: Result<T, Error>) -> Answer {
    result.map(|value| alike(&format!("{value:?}"))).map_err(|error| match error {
        Error::NotFound => "not found",
        Error::Invalid(_) => "invalid",
        Error::Conflict(_) => "conflict",
        Error::Full(_) => "full",
        Error::Fenced => "fenced",
        Error::Constraint(_) => "constraint",
        Error::Bug(text) => text,
        Error::Unavailable(_) | Error::CommitUnknown(_) | Error::Corrupt(_) => {
            panic!("{}", error.detail())
        }
    })
}

impl World {
    async fn start(stores: &[Store; 2], clock: Clock) -> World {
        for store in stores {
            for n in 0..2 {
                let agent: AgentId = id(n);
                let own = Source {
                    id: id(10 + n),
                    kind: SourceKind::Agent(agent.clone()),
                    name: agent.to_string(),
                    ..source(&copy(&clock), "", Verifier::Bearer {})
                };
                let spec = AgentSpec::new(&format!("agent {n}"), "rehearsal");
                let made = store.create_agent(agent, spec, ManagedBy::Api, own, change("x")).await;
                made.expect("the agent is made");
                store
                    .put_source(named(&clock, n, ManagedBy::Api), change("x"))
                    .await
                    .expect("made");
            }
            let default = environment(&copy(&clock), "default");
            let default = bellpull::domain::environment::Environment { id: id(0), ..default };
            store.create_environment(default, change("x")).await.expect("made");
            for n in 0..2 {
                store.create_session(new_session(id(n), 0, Vec::new())).await.expect("made");
            }
        }
        let sessions = (0..3).map(id).collect();
        World { clock, sessions, deliveries: Vec::new(), leases: Vec::new(), calls: Vec::new() }
    }

    /// Does the operation at a place of the list on one database.
    async fn run(&self, store: &Store, n: usize, op: &Op) -> (Answer, Vec<Claimed>) {
        let session = |at: usize| pick(&self.sessions, at).expect("there are some");
        // The newest has the number 0.
        let lease = |at: usize| {
            let n = self.leases.len();
            pick(&self.leases, (n.max(1) - 1).wrapping_sub(at % n.max(1)))
        };
        let length = |lasting: bool| if lasting { HOUR } else { Duration::ZERO };
        let change = || change("change");
        let answer = match op.clone() {
            Op::Accept(request) => {
                answer(store.accept(self.delivery(store, n, &request).await).await)
            }
            Op::Create { session: at, agent, n_messages } => {
                let messages = new_messages(n, n_messages);
                let session = new_session(session(at), agent, messages);
                answer(store.create_session(session).await)
            }
            Op::Send { session: at, n_messages, waiting_max } => {
                answer(store.send(&session(at), new_messages(n, n_messages), waiting_max).await)
            }
            Op::Archive { session: at } => {
                answer(store.archive_session(&session(at), change()).await)
            }
            Op::Claim { lasting } => {
                let owner = format!("node{}:{n}", n % 2);
                let mut claimed =
                    store.claim(owner, length(lasting), 1000, None).await.expect("works").0;
                // Which of them is the oldest is a matter of the database's clock.
                claimed.sort_by(|a, b| a.lease.session_id.cmp(&b.lease.session_id));
                return (answer(Ok(&claimed)), claimed);
            }
            Op::Work { end } => {
                let claimed = store.claim("node:work".to_owned(), HOUR, 1000, None).await;
                let mut claimed = claimed.expect("works").0;
                claimed.sort_by(|a, b| a.lease.session_id.cmp(&b.lease.session_id));
                for (k, claimed) in claimed.iter().enumerate() {
                    let beginning = Beginning {
                        turn_id: id(n * 100 + k),
                        trace: trace(n),
                        opening: event(n, 2 * k),
                    };
                    store.begin_turn(&claimed.lease, beginning).await.expect("works");
                    let idle = vec![event(n, 2 * k + 1)];
                    store.finish(&claimed.lease, end, idle, HOUR).await.expect("works");
                }
                return (answer(Ok(&claimed)), Vec::new());
            }
            Op::Begin { lease: at } => match lease(at) {
                Some(lease) => {
                    let (turn_id, trace, opening) = (id(n), trace(n), event(n, 0));
                    let beginning = Beginning { turn_id, trace, opening };
                    answer(store.begin_turn(&lease, beginning).await)
                }
                None => Err("no lease"),
            },
            Op::Append { lease: at, n_events, tokens } => match lease(at) {
                Some(lease) => {
                    let events = (0..n_events).map(|k| event(n, k)).collect();
                    let usage = Usage { output_tokens: tokens, ..Usage::default() };
                    answer(store.append(&lease, events, usage).await)
                }
                None => Err("no lease"),
            },
            Op::Finish { lease: at, end } => match lease(at) {
                Some(lease) => {
                    let active = Duration::from_millis(n as u64);
                    answer(store.finish(&lease, end, vec![event(n, 0)], active).await)
                }
                None => Err("no lease"),
            },
            Op::Renew { lease: at, lasting } => match lease(at) {
                Some(lease) => answer(store.renew(&lease, length(lasting)).await),
                None => Err("no lease"),
            },
            Op::Release { lease: at } => match lease(at) {
                Some(lease) => answer(store.release(&lease).await),
                None => Err("no lease"),
            },
            Op::Reschedule { lease: at, at_once } => match lease(at) {
                Some(lease) => {
                    let usage = Usage { input_tokens: 1, ..Usage::default() };
                    let cost = (!n.is_multiple_of(3)).then_some(MicroUsd(n as i64));
                    let (spent, pause) = (Spent { usage, cost }, length(!at_once));
                    let events = vec![event(n, 0)];
                    answer(store.reschedule(&lease, events, spent, pause, pause).await)
                }
                None => Err("no lease"),
            },
            Op::VoidLeases { of_owner } => {
                let owner = format!("node{of_owner}:{n}");
                answer(store.void_leases(format!("node{of_owner}"), owner).await)
            }
            Op::Pause { agent, paused } => {
                answer(store.pause_agent(&id(agent), paused, change()).await)
            }
            Op::Patch { agent, system, version } => {
                let patch = json!({"system": format!("{system}"), "version": version});
                let patch = serde_json::from_value(patch).expect("a patch");
                answer(store.update_agent(&id(agent), ManagedBy::Api, patch, change()).await)
            }
            Op::PauseSource { source, paused } => {
                answer(store.pause_source(&id(source), paused, change()).await)
            }
            Op::RetireSource { source, by } => {
                answer(store.retire_source(&id(source), by, change()).await)
            }
            Op::PutSource { source, by } => {
                answer(store.put_source(named(&self.clock, source, by), change()).await)
            }
            Op::PutSecret { name, overlap_seconds } => {
                let seal = |name: &str, version: i64| format!("{name} {version}").into();
                let overlap = Duration::from_secs(overlap_seconds);
                answer(store.put_secret(format!("S{name}"), overlap, seal, change()).await)
            }
            Op::DeleteSecret { name } => {
                answer(store.delete_secret(format!("S{name}"), change()).await)
            }
            Op::Erase { delivery } => match pick(&self.deliveries, delivery) {
                Some(delivery) => answer(store.erase_delivery(&delivery, change()).await),
                None => Err("no delivery"),
            },
            Op::ReadEvents { session: at, newest_first, limit, only_messages } => {
                let types =
                    if only_messages { vec!["user.message".to_owned()] } else { Vec::new() };
                let filter = EventFilter { types, newest_first, limit, ..EventFilter::default() };
                answer(pages(store, &session(at), filter).await)
            }
            Op::Advance { .. } => Ok(String::new()),
            Op::Act { lease: at, act } => match lease(at) {
                Some(lease) => acts::work(store, n, &lease, act, &self.calls).await,
                None => Err("no lease"),
            },
            Op::Say { call, session: other, word } => {
                let nobodys = || (session(call), id(n));
                let (of, call) = self.newest_call(call).unwrap_or_else(nobodys);
                acts::say(store, n, (other.map_or(of, session), call), word).await
            }
            Op::Settle { call, status } => match self.newest_call(call) {
                Some((_, call)) => acts::settle(store, &call, status).await,
                None => Err("no call"),
            },
            Op::Allow { owner, budgets } => acts::allow(store, owner, budgets).await,
            Op::Deploy { which, plan } => acts::deploy(store, n, which, plan).await,
            Op::ArchiveAgent { agent } => answer(store.archive_agent(&id(agent), change()).await),
        };
        (answer, Vec::new())
    }

    /// The newest has the number 0.
    fn newest_call(&self, at: usize) -> Option<Call> {
        let n = self.calls.len().checked_sub(1)?;
        Some(self.calls[n.saturating_sub(at)].clone())
    }

    /// The request at a place of the list, its body put into pieces if it is so large.
    async fn delivery(&self, store: &Store, n: usize, request: &Request) -> NewDelivery {
        let (delivery_id, event_id): (DeliveryId, EventId) = (id(n), id(n * 100));
        let body = if request.in_pieces { "x".repeat(300_000) } else { format!("body {n}") };
        let dispatch = |target| {
            let origin = Origin {
                source: format!("source-{}", request.source),
                source_id: id(request.source),
                delivery_id: delivery_id.clone(),
                event_type: None,
                content_type: None,
                bytes: body.len() as i64,
                cut: false,
                rerun: None,
                replay_of: None,
            };
            let content = vec![Block::text(format!("message {n}"))];
            let message = EventBody::UserMessage { content, origin: Some(origin) };
            Route::To(Box::new(Dispatch {
                agent_id: id(request.agent),
                agent_version: 1,
                environment_id: id::<EnvironmentId>(0),
                target,
                title: format!("title {n}"),
                event_id,
                message: MessageBody::Inline(message.to_text()),
                private: "{}".to_owned(),
                pace: Pace::default(),
            }))
        };
        let agent_id = Some(id(request.agent));
        let route = match &request.target {
            Goal::New => dispatch(RouteTarget::New(id(n))),
            Goal::Session(at) => {
                dispatch(RouteTarget::Session(pick(&self.sessions, *at).expect("there are some")))
            }
            Goal::Key(key) => {
                dispatch(RouteTarget::Key { key: format!("key {key}"), fresh: id(n) })
            }
            Goal::Held => Route::Held { agent_id, reason: "held".to_owned() },
            Goal::Filtered => Route::Filtered { agent_id, reason: "filtered".to_owned() },
        };
        let (body_bytes, body) = (body.len(), Body::Inline(body.into()));
        let body = match body {
            Body::Inline(bytes) if Store::is_large(body_bytes) => {
                let n = store.put_chunks(delivery_id.as_str(), bytes).await.expect("works");
                Body::Chunks(n)
            }
            small => small,
        };
        NewDelivery {
            id: delivery_id,
            source_id: id::<SourceId>(request.source),
            identity: Identity {
                key: format!("identity {}", request.identity),
                field: "x-id".to_owned(),
                weak: n.is_multiple_of(2),
            },
            identity_before: request.identity_before.map(|it| format!("identity {it}")),
            route,
            event_type: Some(format!("type {}", n % 3)),
            request_id: id(n),
            trace: trace(n),
            received_at: self.clock.now(),
            content_type: None,
            headers: "{}".to_owned(),
            body,
            body_bytes,
            secret: None,
            replay: n.is_multiple_of(3).then(|| ReplayCheck {
                body_hash: [u8::from(n.is_multiple_of(2)); 32],
                hold: n.is_multiple_of(4),
            }),
            replay_of: None,
            rerun_failed: request.rerun_failed,
            waiting_max: request.waiting_max,
        }
    }

    fn note(&mut self, n: usize, op: &Op, claimed: Vec<Claimed>) {
        match op {
            Op::Accept(request) => {
                self.deliveries.push(id(n));
                if matches!(request.target, Goal::New | Goal::Key(_)) {
                    self.sessions.push(id(n));
                }
            }
            Op::Advance { ms } => self.clock.advance(Duration::from_millis(*ms)),
            Op::Act { lease: at, act } => {
                let n_leases = self.leases.len();
                let lease = n_leases.checked_sub(1).map(|last| last.wrapping_sub(at % n_leases));
                let call = lease.and_then(|at| acts::made(n, &self.leases[at], act));
                self.calls.extend(call);
            }
            // Ids of the store's own making sort by their time.
            Op::Deploy { .. } => self.clock.advance(Duration::from_millis(1)),
            _ => {}
        }
        let claimed = claimed.into_iter().map(|it| it.lease);
        // What a deployment began has another id on each side.
        self.leases.extend(claimed.filter(|it| it.session_id.as_str().len() < 20));
    }

    /// Everything that can be read, in one text.
    async fn everything(&self, store: &Store) -> Vec<String> {
        let mut all = Vec::new();
        let filter = DeliveryFilter { limit: 1000, ..DeliveryFilter::default() };
        all.push(format!("{:?}", store.deliveries(filter).await.expect("works")));
        for delivery in &self.deliveries {
            all.push(format!("{:?}", answer(store.attempts(delivery).await)));
            let body = store.delivery_body(delivery).await.map(|it| (it.content_type, it.bytes));
            all.push(format!("{:?}", answer(body)));
        }
        let include_archived = true;
        let filter = SessionFilter { include_archived, limit: 1000, ..SessionFilter::default() };
        all.push(format!("{:?}", store.sessions(filter).await.expect("works")));
        for session in &self.sessions {
            all.push(format!("{:?}", store.events_after(session, 0, 10_000).await.expect("works")));
            all.push(format!("{:?}", store.waiting_after(session, 0).await.expect("works")));
        }
        let waiting = store.waiting_sessions().await.expect("works");
        all.push(format!("{:?}", waiting.into_iter().collect::<BTreeMap<_, _>>()));
        for n in 0..2 {
            all.push(format!(
                "{:?}",
                store.agent_versions(&id(n), None, 100).await.expect("works")
            ));
        }
        all.push(format!("{:?}", store.sources().await.expect("works")));
        all.push(format!("{:?}", store.secrets().await.expect("works")));
        let mut audit: Vec<_> = store.audit(None, 1000).await.expect("works").data;
        audit.sort_by_key(|entry| (entry.at, entry.action.clone()));
        all.extend(audit.into_iter().map(|it| format!("{} {} {:?}", it.at, it.action, it.details)));
        all.push(format!("{:?}", store.revision().await.expect("works")));
        all.push(format!("{:?}", store.next_due().await.expect("works").is_some()));
        all.extend(acts::everything(store).await);
        all.iter().map(|text| alike(text)).collect()
    }
}

/// A clock of its own that shows the same time: whoever makes a thing moves it.
fn copy(clock: &Clock) -> Clock {
    Clock::manual(clock.now())
}

fn named(clock: &Clock, n: usize, managed_by: ManagedBy) -> Source {
    let source = source(&copy(clock), &format!("source-{n}"), Verifier::Bearer {});
    Source { id: id(n), managed_by, ..source }
}

fn new_session(session: SessionId, agent: usize, messages: Vec<NewMessage>) -> NewSession {
    NewSession {
        budget: Default::default(),
        id: session,
        agent_id: id(agent),
        agent_version: 1,
        overrides: None,
        environment_id: id(0),
        deployment_id: None,
        vault_ids: Vec::new(),
        title: None,
        metadata: Metadata::new(),
        messages,
        resources: Vec::new(),
    }
}

fn new_messages(n: usize, n_messages: usize) -> Vec<NewMessage> {
    let message = |k: usize| NewMessage {
        event_id: id(n * 100 + k),
        body: EventBody::UserMessage {
            content: vec![Block::text(format!("typed {n} {k}"))],
            origin: None,
        },
        private: "{}".to_owned(),
    };
    (0..n_messages).map(message).collect()
}

pub fn event(n: usize, k: usize) -> NewEvent {
    let content = vec![Block::text(format!("answer {n} {k}"))];
    NewEvent::new(id(n * 100 + k), EventBody::AgentMessage { content })
}

async fn pages(
    store: &Store,
    session: &SessionId,
    mut filter: EventFilter,
) -> Result<Vec<bellpull::domain::event::Event>, Error> {
    let mut all = Vec::new();
    loop {
        let page = store.events(session, filter.clone()).await?;
        all.extend(page.data);
        filter.cursor = page.next;
        if filter.cursor.is_none() {
            return Ok(all);
        }
    }
}

/// Columns that no method shows, and that must be the same all the same.
const HIDDEN: [&str; 2] = [
    "select id, epoch, inbox_given, inbox_taken, lease_owner, \
     case when next_at is null then 0 else 1 end, case when lease_until is null then 0 else 1 end \
     from sessions order by id",
    "select id, session_id, status, stop_reason, resumes, resumed_seq, started_at, ended_at \
     from turns order by id",
];

/// Both databases, for one list after the other.
struct Sides {
    places: [Place; 2],
    stores: [Store; 2],
    clock: Clock,
}

impl Sides {
    async fn open() -> Sides {
        let clock = Clock::manual(Timestamp(1_800_000_000_000));
        let places = [Place::directory(), Place::database()];
        let stores = [open(&places[0], clock.clone()).await, open(&places[1], clock.clone()).await];
        Sides { places, stores, clock }
    }

    /// Does a list on both and tells the first difference.
    async fn compare(&self, ops: &[Op]) -> Result<(), String> {
        for place in &self.places {
            wipe(place).await;
        }
        let [sqlite, postgres] = &self.stores;
        let mut world = World::start(&self.stores, self.clock.clone()).await;
        for (n, op) in ops.iter().enumerate() {
            // Small numbers are those of what is there from the start.
            let n = n + 100;
            let (here, claimed) = world.run(sqlite, n, op).await;
            let (there, _) = world.run(postgres, n, op).await;
            if here != there {
                return Err(format!(
                    "{op:?} answers\n{here:?} on SQLite,\n{there:?} on PostgreSQL"
                ));
            }
            world.note(n, op, claimed);
        }
        let (here, there) = (world.everything(sqlite).await, world.everything(postgres).await);
        for (here, there) in here.into_iter().zip(there) {
            if here != there {
                return Err(format!(
                    "in the end there is\n{here} on SQLite,\n{there} on PostgreSQL"
                ));
            }
        }
        for sql in HIDDEN.into_iter().chain(acts::HIDDEN) {
            let shown = async |place: &Place| alike(&format!("{:?}", place.sql(sql).await));
            let (here, there) = (shown(&self.places[0]).await, shown(&self.places[1]).await);
            if here != there {
                return Err(format!("{sql}:\n{here} on SQLite,\n{there} on PostgreSQL"));
            }
        }
        Ok(())
    }
}

/// The seed of this run: a new one each time, or the one to look at again.
#[expect(clippy::disallowed_methods, reason = "the tests have no config to read the environment")]
fn seed() -> u128 {
    match std::env::var("BELLPULL_TEST_SEED") {
        Ok(text) => u128::from_str_radix(&text, 16).expect("BELLPULL_TEST_SEED is a number in hex"),
        Err(_) => uuid::Uuid::now_v7().as_u128(),
    }
}

#[test]
fn random_operations_do_the_same_on_sqlite_and_postgres() {
    let seed = seed();
    println!("BELLPULL_TEST_SEED={seed:x} does this run again");
    let bytes = [seed.to_le_bytes(), (!seed).to_le_bytes()].concat();
    let random = TestRng::from_seed(RngAlgorithm::ChaCha, &bytes);
    let cases = if crate::support::full() { 512 } else { 64 };
    let config =
        Config { cases, failure_persistence: None, max_shrink_iters: 400, ..Config::default() };
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .expect("a runtime can be built");
    let sides = Arc::new(runtime.block_on(Sides::open()));
    let mut runner = TestRunner::new_with_rng(config, random);
    let result = runner.run(&prop::collection::vec(op(), 1..70), |ops| {
        runtime.block_on(sides.compare(&ops)).map_err(TestCaseError::fail)
    });
    if let Err(error) = result {
        panic!("{error}");
    }
}
