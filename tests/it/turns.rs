//! Turns without HTTP: store, worker and runtime as they are wired in the server.

mod graders;

use std::time::Duration;

use bellpull::{
    agent,
    clock::{Clock, Timestamp},
    domain::{
        ManagedBy,
        agent::AgentSpec,
        delivery::{Identity, Outcome},
        environment::{Environment, EnvironmentConfig},
        event::{Block, Event, EventBody, NewEvent, Origin, Usage},
        source::{Debounce, Pace, Source, SourceDefinition, SourceKind, WhenBusy},
        trace::TraceContext,
        verifier::Verifier,
    },
    id::{
        AgentId, DeliveryId, EnvironmentId, EventId, Id, SessionId, SourceId, TurnId,
        WebhookRequestId,
    },
    ingest,
    model::{self, Models},
    preview::Previews,
    runtime::{self, Runtime, Stopped},
    signal::Signals,
    store::{
        self, Accepted, Body, Change, Dispatch, Location, MessageBody, NewDelivery, Route,
        RouteTarget, Store,
    },
    worker::{self, Worker},
};
use tokio_util::sync::CancellationToken;

use crate::support::{
    model_server::{ModelServer, Reply},
    process::until,
};

const LEASE: Duration = Duration::from_secs(3600);
const AT_ONCE: Duration = Duration::ZERO;

struct World {
    directory: tempfile::TempDir,
    store: Store,
    signals: Signals,
    runtime: Runtime,
    agent: AgentId,
    environment: EnvironmentId,
    source: SourceId,
}

fn change() -> Change {
    let details = serde_json::json!({});
    Change { actor: "test".to_owned(), action: "test", target: String::new(), details }
}

impl World {
    async fn new() -> World {
        World::at(Clock::system()).await
    }

    async fn at(clock: Clock) -> World {
        World::with(clock, "rehearsal", model::Options::default()).await
    }

    /// Whose agent asks this server.
    async fn asking(models: &ModelServer) -> World {
        let options = model::Options {
            anthropic_api_key: Some("sk-scripted".into()),
            anthropic_base_url: Some(models.url.clone()),
            ..model::Options::default()
        };
        World::with(Clock::system(), "claude-scripted", options).await
    }

    /// One reader: what is read follows the order in which it was asked.
    async fn with(clock: Clock, model: &str, options: model::Options) -> World {
        let directory = tempfile::tempdir().unwrap();
        let location = Location::Sqlite(directory.path().join("bellpull.db"));
        let one = store::Options { readers: 1, ..store::Options::default() };
        let store = Store::open(&location, &one, clock).await.unwrap();
        let at = store.clock().now();
        let (agent, environment) = (AgentId::new(at), EnvironmentId::new(at));
        let spec = AgentSpec::new("concierge", model);
        let own = Source::of_agent(&agent, ManagedBy::Api, None, at);
        store.create_agent(agent.clone(), spec, ManagedBy::Api, own, change()).await.unwrap();
        store.create_environment(new_environment(&environment, at), change()).await.unwrap();
        let source = store.put_source(new_source(at), change()).await.unwrap().id;
        let (signals, _told) = Signals::new();
        let models = Models::new(options, Clock::system());
        let options = runtime::Options {
            workspaces: directory.path().join("workspaces"),
            resumes_max: 3,
            limits: agent::Limits::default(),
            approval_seconds_max: 3600,
            tools: bellpull::tool::Options::default(),
            projects: Default::default(),
            pages: Default::default(),
            budgets: Default::default(),
            outputs: Default::default(),
        };
        let runtime =
            Runtime::new(store.clone(), signals.clone(), Previews::default(), models, options);
        World { directory, store, signals, runtime, agent, environment, source }
    }

    /// Puts an event in as the receive path does, and rings no bell.
    async fn deliver(&self, text: &str, body: &str, target: RouteTarget) -> Accepted {
        self.deliver_at(Pace::default(), text, body, target).await
    }

    async fn deliver_at(
        &self,
        pace: Pace,
        text: &str,
        body: &str,
        target: RouteTarget,
    ) -> Accepted {
        let at = self.store.clock().now();
        let (id, request_id) = (DeliveryId::new(at), WebhookRequestId::new(at));
        let message = EventBody::UserMessage {
            content: vec![Block::text(text)],
            origin: Some(Origin {
                source: "shop".to_owned(),
                source_id: self.source.clone(),
                delivery_id: id.clone(),
                event_type: None,
                content_type: None,
                bytes: body.len() as i64,
                cut: text != body,
                rerun: None,
                replay_of: None,
            }),
        };
        let (event_id, private) = ingest::new_message_id(at);
        let dispatch = Dispatch {
            agent_id: self.agent.clone(),
            agent_version: 1,
            environment_id: self.environment.clone(),
            target,
            title: "shop".to_owned(),
            event_id,
            message: MessageBody::Inline(message.to_text()),
            private,
            pace,
        };
        let delivery = NewDelivery {
            source_id: self.source.clone(),
            identity: Identity {
                key: format!("request:{id}"),
                field: "none".to_owned(),
                weak: false,
            },
            identity_before: None,
            id,
            route: Route::To(Box::new(dispatch)),
            event_type: None,
            request_id,
            trace: TraceContext::new(at),
            received_at: at,
            content_type: None,
            headers: "{}".to_owned(),
            body: Body::Inline(body.to_owned().into()),
            body_bytes: body.len(),
            secret: None,
            replay: None,
            replay_of: None,
            rerun_failed: false,
            waiting_max: 10_000,
        };
        self.store.accept(delivery).await.unwrap().unwrap()
    }

    fn fresh(&self) -> RouteTarget {
        RouteTarget::New(SessionId::new(self.store.clock().now()))
    }

    async fn claim(&self, lease: Duration) -> store::Claimed {
        let mut claimed = self.store.claim("test:1".to_owned(), lease, 1, None).await.unwrap().0;
        claimed.pop().expect("a session is due")
    }

    /// Begins a turn as a worker does that will not live to work on it.
    async fn begin(&self, lease: &store::Lease) -> TurnId {
        self.store.begin_turn(lease, self.runtime.beginning()).await.unwrap().taken.turn_id
    }

    /// What a worker leaves behind that began a turn, journaled this much and died.
    async fn cut_off_after(&self, journaled: Vec<NewEvent>) -> TurnId {
        let claimed = self.claim(AT_ONCE).await;
        let turn = self.begin(&claimed.lease).await;
        if !journaled.is_empty() {
            self.store.append(&claimed.lease, journaled, Usage::default()).await.unwrap();
        }
        turn
    }

    /// The same, while the model was asked.
    async fn cut_off_while_asking(&self) -> TurnId {
        self.cut_off_after(vec![self.event(EventBody::ModelRequestStart)]).await
    }

    /// What a worker does that nothing happens to.
    async fn work(&self) {
        let claimed = self.claim(LEASE).await;
        self.runtime.drive(&claimed.lease, None, &CancellationToken::new()).await.unwrap();
    }

    fn event(&self, body: EventBody) -> NewEvent {
        NewEvent::new(EventId::new(self.store.clock().now()), body)
    }

    async fn log(&self, session: &SessionId) -> Vec<Event> {
        self.store.events_after(session, 0, 1000).await.unwrap()
    }

    async fn types(&self, session: &SessionId) -> Vec<&'static str> {
        self.log(session).await.iter().map(|event| event.body.kind()).collect()
    }

    fn worker(&self, node: &str) -> Worker {
        let options =
            worker::Options { poll_ms: 20, lease_seconds: 5, ..worker::Options::default() };
        Worker::new(
            self.store.clone(),
            self.runtime.clone(),
            self.signals.clone(),
            options,
            node,
            "1",
        )
    }
}

fn new_environment(id: &EnvironmentId, at: Timestamp) -> Environment {
    Environment {
        id: id.clone(),
        name: "default".to_owned(),
        description: None,
        config: EnvironmentConfig::cloud(),
        metadata: Default::default(),
        managed_by: ManagedBy::Api,
        created_at: at,
        updated_at: at,
        archived_at: None,
    }
}

fn new_source(at: Timestamp) -> Source {
    Source {
        id: SourceId::new(at),
        kind: SourceKind::Named,
        name: "shop".to_owned(),
        definition: SourceDefinition::new(&Verifier::Bearer {}),
        paused: false,
        managed_by: ManagedBy::Api,
        created_at: at,
        updated_at: at,
        retired_at: None,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn everything_happens_although_no_signal_is_ever_given() {
    let world = World::new().await;
    let stop = CancellationToken::new();
    let workers = [world.worker("a"), world.worker("b")];
    let running: Vec<_> =
        workers.into_iter().map(|worker| tokio::spawn(worker.run(stop.clone()))).collect();
    // Many at once, and then single ones for workers that have nothing to do: those who end a turn
    // ring for themselves.
    for n in [20, 1, 1] {
        let mut accepted = Vec::new();
        for n in 0..n {
            let body = format!("{{\"n\":{n}}}");
            accepted.push(world.deliver(&body, &body, world.fresh()).await);
        }
        for accepted in &accepted {
            answered(&world, accepted).await;
        }
    }
    stop.cancel();
    for running in running {
        running.await.unwrap();
    }
}

async fn answered(world: &World, accepted: &Accepted) {
    until("the delivery is answered", async || {
        let delivery = world.store.delivery(&accepted.delivery_id).await.unwrap();
        (delivery.outcome == Some(Outcome::Succeeded)).then_some(())
    })
    .await;
    let session = accepted.session_id.as_ref().unwrap();
    assert_eq!(
        world.types(session).await,
        [
            "session.status_running",
            "user.message",
            "span.model_request_start",
            "agent.message",
            "span.model_request_end",
            "session.status_idle",
        ]
    );
}

#[tokio::test]
async fn one_turn_takes_all_waiting_messages_in_order() {
    let world = World::new().await;
    let first = world.deliver("1", "1", world.fresh()).await;
    let session = first.session_id.unwrap();
    for text in ["2", "3"] {
        world.deliver(text, text, RouteTarget::Session(session.clone())).await;
    }
    world.work().await;
    let log = world.log(&session).await;
    let texts: Vec<String> = log
        .iter()
        .filter_map(|event| match &event.body {
            EventBody::UserMessage { content, .. } => {
                Some(bellpull::domain::event::plain_text(content))
            }
            _ => None,
        })
        .collect();
    assert_eq!(texts, ["1", "2", "3"]);
    let seqs: Vec<i64> = log.iter().filter_map(|event| event.seq).collect();
    assert_eq!(seqs, (1..=log.len() as i64).collect::<Vec<_>>());
    assert!(log.iter().filter(|it| it.body.kind() == "agent.message").count() == 1);
}

#[tokio::test]
async fn a_stolen_lease_writes_nothing_and_does_nothing() {
    let world = World::new().await;
    let session = world.deliver("{}", "{}", world.fresh()).await.session_id.unwrap();
    let old = world.claim(AT_ONCE).await;
    let new = world.claim(LEASE).await;
    assert_eq!(new.lease.epoch, old.lease.epoch + 1);
    let result = world.runtime.drive(&old.lease, None, &CancellationToken::new()).await;
    assert!(matches!(result, Err(Stopped::Store(store::Error::Fenced))), "{result:?}");
    assert_eq!(world.types(&session).await, Vec::<&str>::new());
    world.runtime.drive(&new.lease, None, &CancellationToken::new()).await.unwrap();
    assert_eq!(world.types(&session).await.last(), Some(&"session.status_idle"));
}

#[tokio::test]
async fn a_turn_that_was_cut_off_goes_on_where_its_log_ends() {
    let world = World::new().await;
    let session = world.deliver("{}", "{}", world.fresh()).await.session_id.unwrap();
    // A worker that died right after it had journaled its request.
    let turn = world.cut_off_while_asking().await;
    let next = world.claim(LEASE).await;
    assert_eq!(next.unfinished, Some(turn));
    world.runtime.drive(&next.lease, None, &CancellationToken::new()).await.unwrap();
    assert_eq!(
        world.types(&session).await,
        [
            "session.status_running",
            "user.message",
            "span.model_request_start",
            "span.model_request_end",
            "span.model_request_start",
            "agent.message",
            "span.model_request_end",
            "session.status_idle",
        ]
    );
    let log = world.log(&session).await;
    assert!(matches!(log[3].body, EventBody::ModelRequestEnd { is_error: Some(true), .. }));
}

#[tokio::test]
async fn a_turn_that_never_gets_further_is_ended() {
    let world = World::new().await;
    let accepted = world.deliver("{}", "{}", world.fresh()).await;
    let session = accepted.session_id.unwrap();
    // The first one had asked the model.
    world.cut_off_while_asking().await;
    for _ in 0..4 {
        world.cut_off_after(Vec::new()).await;
    }
    world.work().await;
    let types = world.types(&session).await;
    let ends = ["span.model_request_end", "session.error", "session.status_idle"];
    assert_eq!(types[types.len() - 3..], ends);
    let delivery = world.store.delivery(&accepted.delivery_id).await.unwrap();
    assert_eq!(delivery.outcome, Some(Outcome::Failed));
}

#[tokio::test]
async fn a_turn_that_is_given_up_leaves_no_call_without_a_result() {
    let world = World::new().await;
    let session = world.deliver("{}", "{}", world.fresh()).await.session_id.unwrap();
    let call = world.event(EventBody::AgentToolUse {
        name: "delivery".to_owned(),
        input: serde_json::json!({}),
        evaluated_permission: "allow".to_owned(),
        evaluation: None,
    });
    let id = call.id.clone();
    world.cut_off_after(vec![call]).await;
    for _ in 0..4 {
        world.cut_off_after(Vec::new()).await;
    }
    world.work().await;
    let types = world.types(&session).await;
    let ends = ["agent.tool_result", "session.error", "session.status_idle"];
    assert_eq!(types[types.len() - 3..], ends);
    let log = world.log(&session).await;
    let result = log.iter().find_map(|event| match &event.body {
        EventBody::AgentToolResult { tool_use_id, content, is_error, .. } => {
            Some((tool_use_id, content, *is_error))
        }
        _ => None,
    });
    let content = vec![Block::text(agent::NOT_RUN)];
    assert_eq!(result, Some((&id, &content, true)));
}

#[tokio::test]
async fn being_told_to_stop_leaves_the_turn_to_the_next_worker() {
    let world = World::new().await;
    let session = world.deliver("{}", "{}", world.fresh()).await.session_id.unwrap();
    let claimed = world.claim(LEASE).await;
    let stop = CancellationToken::new();
    stop.cancel();
    let result = world.runtime.drive(&claimed.lease, None, &stop).await;
    assert!(matches!(result, Err(Stopped::Cancelled)), "{result:?}");
    world.store.release(&claimed.lease).await.unwrap();
    let next = world.claim(LEASE).await;
    assert!(next.unfinished.is_some());
    world.runtime.drive(&next.lease, None, &CancellationToken::new()).await.unwrap();
    let types = world.types(&session).await;
    assert_eq!(types.iter().filter(|it| **it == "user.message").count(), 1);
    assert_eq!(types.last(), Some(&"session.status_idle"));
}

#[tokio::test]
async fn a_cut_payload_is_read_whole_by_tool_and_lies_in_the_workspace() {
    let world = World::new().await;
    let body = format!("{{\"title\":\"whole\",\"filler\":\"{}\"}}", "x".repeat(5000));
    let accepted = world.deliver("{\"title\":", &body, world.fresh()).await;
    let session = accepted.session_id.unwrap();
    world.work().await;
    let log = world.log(&session).await;
    let text = |wanted: &str| {
        let found = log.iter().find(|event| event.body.kind() == wanted).unwrap();
        match &found.body {
            EventBody::AgentToolResult { content, is_error, .. } => {
                assert!(!is_error);
                bellpull::domain::event::plain_text(content)
            }
            EventBody::AgentMessage { content } => bellpull::domain::event::plain_text(content),
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(text("agent.tool_result"), body);
    assert!(text("agent.message").contains("title: whole"));
    let file = world
        .directory
        .path()
        .join("workspaces")
        .join(session.as_str())
        .join("deliveries")
        .join(format!("{}.json", accepted.delivery_id));
    assert_eq!(std::fs::read_to_string(file).unwrap(), body);
}

fn when_busy(when_busy: WhenBusy) -> Pace {
    Pace { when_busy, ..Pace::default() }
}

#[tokio::test]
async fn a_message_that_steers_is_taken_up_before_the_model_is_asked() {
    let world = World::new().await;
    let session = world.deliver("first", "first", world.fresh()).await.session_id.unwrap();
    // The turn begins, and its worker dies; what comes meanwhile wants to be heard.
    world.cut_off_while_asking().await;
    let there = RouteTarget::Session(session.clone());
    let steering = world.deliver_at(when_busy(WhenBusy::Steer), "second", "second", there).await;
    world.work().await;
    let types = world.types(&session).await;
    let wanted = [
        "session.status_running",
        "user.message",
        "span.model_request_start",
        "span.model_request_end",
        "user.message",
        "span.model_request_start",
        "agent.message",
        "span.model_request_end",
        "session.status_idle",
    ];
    assert_eq!(types, wanted);
    let delivery = world.store.delivery(&steering.delivery_id).await.unwrap();
    assert_eq!(delivery.outcome, Some(Outcome::Succeeded));
    let nothing = world.store.claim("test:1".to_owned(), LEASE, 1, None).await.unwrap().0;
    assert!(nothing.is_empty(), "it was one turn");
}

#[tokio::test]
async fn a_message_that_supersedes_ends_the_turn_and_begins_the_next() {
    let world = World::new().await;
    let first = world.deliver("first", "first", world.fresh()).await;
    let session = first.session_id.unwrap();
    world.cut_off_while_asking().await;
    let there = RouteTarget::Session(session.clone());
    let newer = world.deliver_at(when_busy(WhenBusy::Supersede), "newer", "newer", there).await;
    world.work().await;
    let types = world.types(&session).await;
    assert_eq!(types[types.len() - 2..], ["span.model_request_end", "session.status_idle"]);
    assert!(!types.contains(&"agent.message"), "nobody waited for the answer");
    let delivery = world.store.delivery(&first.delivery_id).await.unwrap();
    assert_eq!(delivery.outcome, Some(Outcome::Cancelled));
    world.work().await;
    let delivery = world.store.delivery(&newer.delivery_id).await.unwrap();
    assert_eq!(delivery.outcome, Some(Outcome::Succeeded));
}

#[tokio::test]
async fn a_request_that_begins_with_its_turn_hears_of_what_comes_before_it_goes_out() {
    let (_gate, never) = Reply::text(&["Late."]).held();
    let models = ModelServer::start([never]).await;
    let world = World::asking(&models).await;
    let session = world.deliver("first", "first", world.fresh()).await.session_id.unwrap();
    let (owner, beginning) = ("test:1".to_owned(), world.runtime.beginning());
    let first = world.runtime.first_request();
    let claiming = world.store.claim_and_begin(owner, LEASE, 1, None, beginning, first);
    let (claimed, _, start) = claiming.await.unwrap();
    assert!(start.as_ref().is_some_and(|start| start.first.is_some()), "the request has begun");
    let begun = ["session.status_running", "user.message", "span.model_request_start"];
    assert_eq!(world.types(&session).await, begun);

    let there = RouteTarget::Session(session.clone());
    world.deliver_at(when_busy(WhenBusy::Supersede), "newer", "newer", there).await;
    world.signals.changed(&session);
    let cancel = CancellationToken::new();
    let driving = world.runtime.drive(&claimed[0].lease, start, &cancel);
    tokio::time::timeout(Duration::from_secs(10), driving).await.expect("it hears").unwrap();
    let types = world.types(&session).await;
    assert_eq!(types[begun.len()..], ["span.model_request_end", "session.status_idle"]);
    // It may have been heard before the request was out.
    models.forget();
}

#[tokio::test]
async fn a_turn_that_is_over_ends_as_it_went_whatever_came_meanwhile() {
    let refused = Reply::status(400, "invalid_request_error", "no such thing");
    for (reply, outcome) in
        [(Reply::text(&["Done."]), Outcome::Succeeded), (refused, Outcome::Failed)]
    {
        let (gate, reply) = reply.held();
        let models = ModelServer::start([reply, Reply::text(&["Next."])]).await;
        let world = World::asking(&models).await;
        let first = world.deliver("first", "first", world.fresh()).await;
        let session = first.session_id.unwrap();
        let claimed = world.claim(LEASE).await;
        let cancel = CancellationToken::new();
        let newer = async {
            let asked = async || (models.requests().len() == 1).then_some(());
            until("the model is asked", asked).await;
            // Behind the look with which the turn began to listen, as there is one reader. No bell
            // rings for what comes now: the turn hears of it as it writes its end down.
            world.store.urgency(&session).await.unwrap();
            let there = RouteTarget::Session(session.clone());
            let newer = world.deliver_at(when_busy(WhenBusy::Supersede), "newer", "n", there).await;
            gate.open();
            newer
        };
        let (driven, newer) =
            tokio::join!(world.runtime.drive(&claimed.lease, None, &cancel), newer);
        driven.unwrap();
        let became =
            async |delivery: &DeliveryId| world.store.delivery(delivery).await.unwrap().outcome;
        assert_eq!(became(&first.delivery_id).await, Some(outcome));
        world.work().await;
        assert_eq!(became(&newer.delivery_id).await, Some(Outcome::Succeeded));
    }
}

#[tokio::test]
async fn a_message_that_nobody_wants_during_a_turn_is_filtered() {
    let world = World::new().await;
    let session = world.deliver("first", "first", world.fresh()).await.session_id.unwrap();
    let there = || RouteTarget::Session(session.clone());
    let skip = when_busy(WhenBusy::Skip);
    // It waits; nobody works on it yet.
    let waiting = world.deliver_at(skip, "second", "second", there()).await;
    assert_eq!(waiting.verdict, store::Verdict::Accepted);
    let claimed = world.claim(LEASE).await;
    world.begin(&claimed.lease).await;
    let skipped = world.deliver_at(skip, "third", "third", there()).await;
    assert_eq!((skipped.verdict, skipped.session_id), (store::Verdict::Filtered, None));
    let delivery = world.store.delivery(&skipped.delivery_id).await.unwrap();
    assert!(delivery.reason.unwrap().contains("at work"));
}

#[tokio::test]
async fn what_a_session_may_begin_within_an_hour_comes_back_with_time() {
    let world = World::at(Clock::manual(Timestamp(1_800_000_000_000))).await;
    let pace = Pace { turns_per_hour_max: Some(2), ..Pace::default() };
    let session = world.deliver_at(pace, "1", "1", world.fresh()).await.session_id.unwrap();
    let there = || RouteTarget::Session(session.clone());
    world.work().await;
    world.store.clock().advance(Duration::from_secs(3000));
    world.deliver_at(pace, "2", "2", there()).await;
    world.work().await;
    let verdict = async || world.deliver_at(pace, "more", "more", there()).await.verdict;
    assert_eq!(verdict().await, store::Verdict::Held);
    world.store.clock().advance(Duration::from_secs(599));
    assert_eq!(verdict().await, store::Verdict::Held);
    world.store.clock().advance(Duration::from_secs(1));
    assert_eq!(verdict().await, store::Verdict::Accepted, "the first turn was an hour ago");
}

#[tokio::test]
async fn a_debounced_turn_begins_when_it_is_quiet_or_has_waited_long_enough() {
    let world = World::at(Clock::manual(Timestamp(1_800_000_000_000))).await;
    let (quiet, longest) = (Duration::from_secs(100), Duration::from_secs(250));
    let pace = Pace { debounce: Some(Debounce { quiet, longest }), ..Pace::default() };
    let due = async || world.store.next_due().await.unwrap().expect("a session waits").as_secs();
    let session = world.deliver_at(pace, "1", "1", world.fresh()).await.session_id.unwrap();
    assert_eq!(due().await, 100);
    let there = || RouteTarget::Session(session.clone());
    // A further one begins the quiet anew, up to the end of the longest wait.
    for at in [0, 60, 120] {
        world.store.clock().advance(Duration::from_secs(60));
        world.deliver_at(pace, "more", "more", there()).await;
        assert_eq!(due().await, (250 - (at + 60)).min(100), "{at}");
    }
    // One that must not wait takes the others along.
    world.deliver("now", "now", there()).await;
    world.work().await;
    let types = world.types(&session).await;
    assert_eq!(types.iter().filter(|it| **it == "user.message").count(), 5);
    assert_eq!(types.iter().filter(|it| **it == "session.status_idle").count(), 1);
    // A server that starts again does not take the wait away.
    world.deliver_at(pace, "later", "later", there()).await;
    assert_eq!(world.store.void_leases("test".to_owned(), "test:2".to_owned()).await.unwrap(), 0);
    assert_eq!(due().await, 100);
}
