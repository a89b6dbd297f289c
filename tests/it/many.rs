//! Many sessions at once: what they cost while their models think, and that one that goes wrong or is
//! many does not harm the others.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use bellpull::{
    agent,
    clock::Clock,
    id::SessionId,
    model::{self, Carrier, Models},
    preview::Previews,
    runtime::{self, Runtime},
    worker::{self, Worker},
};
use futures_util::future::BoxFuture;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use crate::{
    support::{
        model_server::{Gate, ModelServer, Reply},
        process::{Process, until},
    },
    web::server::Server,
};

const N_SESSIONS: usize = 200;
const TOKEN: &str = "a-token-of-the-shop-0123456789";

/// Long enough for a lease of 6 s to be renewed twice.
const WINDOW: Duration = Duration::from_secs(5);

/// Processor seconds that a process has used so far.
fn cpu_seconds(pid: u32) -> f64 {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let fields: Vec<&str> = stat.rsplit_once(") ").unwrap().1.split(' ').collect();
    let ticks = fields[11].parse::<f64>().unwrap() + fields[12].parse::<f64>().unwrap();
    ticks / rustix::param::clock_ticks_per_second() as f64
}

fn held(n: usize) -> (Vec<Gate>, Vec<Reply>) {
    (0..n).map(|_| Reply::text(&["Done."]).held()).unzip()
}

/// A server with the agents `a` and `b` behind the sources of these names, and a scripted model.
async fn serve(directory: &std::path::Path, models: &ModelServer, worker: &str) -> Process {
    let source = |name: &str| {
        format!(
            "[agents.{name}]\nmodel = \"claude-scripted\"\n\
             [webhooks.{name}]\npreset = \"bearer\"\nsecret = \"{TOKEN}\"\nagent = \"{name}\"\n"
        )
    };
    let text = format!("[worker]\n{worker}\n{}{}", source("a"), source("b"));
    let path = directory.join("bellpull.toml");
    std::fs::write(&path, text).unwrap();
    let environment =
        [("ANTHROPIC_BASE_URL", models.url.as_str()), ("ANTHROPIC_API_KEY", "key-of-the-tests")];
    let arguments = ["--config", path.to_str().unwrap()];
    Process::serve_with(&directory.join("data"), &arguments, &environment).await
}

async fn ring(server: &Process, source: &str, body: &str) -> String {
    let request = server.http.post(format!("{}/api/webhook/{source}", server.url));
    let response = request.bearer_auth(TOKEN).body(body.to_owned()).send().await.unwrap();
    assert_eq!(response.status(), 202);
    let answer: Value = serde_json::from_str(&response.text().await.unwrap()).unwrap();
    answer["delivery_id"].as_str().unwrap().to_owned()
}

async fn have_ended(server: &Process, deliveries: &[String]) {
    for id in deliveries {
        until("the delivery comes to its end", async || {
            let delivery = server.get(&format!("/v1/deliveries/{id}")).await;
            (delivery["outcome"] == "succeeded").then_some(())
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_hundred_sessions_that_wait_for_their_models_cost_next_to_nothing() {
    let (gates, script) = held(N_SESSIONS);
    let models = ModelServer::start(script).await;
    let directory = tempfile::tempdir().unwrap();
    let server = serve(directory.path(), &models, "turns_max = 256\nlease_seconds = 6").await;
    let mut deliveries = Vec::new();
    for n in 0..N_SESSIONS {
        deliveries.push(ring(&server, "a", &format!("{{\"n\":{n}}}")).await);
    }
    until("all of them ask at once", async || {
        (models.requests().len() == N_SESSIONS).then_some(())
    })
    .await;
    let (began, before) = (Instant::now(), cpu_seconds(server.pid()));
    until("the window is over", async || (began.elapsed() >= WINDOW).then_some(())).await;
    let share = (cpu_seconds(server.pid()) - before) / began.elapsed().as_secs_f64();
    println!("{N_SESSIONS} sessions that wait take {:.1} % of one processor", share * 100.0);
    // Of a build without optimization; each lease is renewed each 2 s.
    assert!(share < 0.5, "{share}");
    // And nobody who waits stands in the way of somebody new.
    models.then(Reply::text(&["Quick."]));
    let quick = ring(&server, "b", "{}").await;
    have_ended(&server, &[quick]).await;
    gates.iter().for_each(Gate::open);
    have_ended(&server, &deliveries).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_agent_with_many_sessions_keeps_no_other_waiting() {
    let (gates, mut script) = held(2);
    script.extend(std::iter::repeat_n(Reply::text(&["Done."]), 39));
    let models = ModelServer::start(script).await;
    let directory = tempfile::tempdir().unwrap();
    let server = serve(directory.path(), &models, "turns_max = 2").await;
    let mut deliveries = Vec::new();
    for n in 0..40 {
        deliveries.push(ring(&server, "a", &format!("{{\"n\":{n}}}")).await);
    }
    until("both places are taken", async || (models.requests().len() == 2).then_some(())).await;
    deliveries.push(ring(&server, "b", "{\"n\":\"the other's\"}").await);
    gates.iter().for_each(Gate::open);
    have_ended(&server, &deliveries).await;
    let requests = models.requests();
    let at = requests.iter().position(|it| it.said().contains("the other's")).unwrap();
    assert!(at <= 4, "it came as number {at} of {}", requests.len());
}

/// The way to a model on which some requests go wrong.
struct Odd(reqwest::Client);

impl Carrier for Odd {
    fn carry(
        &self,
        request: reqwest::Request,
    ) -> BoxFuture<'_, reqwest::Result<reqwest::Response>> {
        let body = request.body().and_then(reqwest::Body::as_bytes).unwrap_or_default();
        let holds = |text: &str| body.windows(text.len()).any(|it| it == text.as_bytes());
        assert!(!holds("break the worker"), "the bug of this test");
        if holds("never come back") {
            return Box::pin(std::future::pending());
        }
        Box::pin(self.0.execute(request))
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_turn_that_panics_or_never_ends_harms_no_other() {
    let models = ModelServer::start(std::iter::repeat_n(Reply::text(&["Done."]), 20)).await;
    let server = Server::new().await;
    let stop = CancellationToken::new();
    let running = tokio::spawn(worker(&server, &models).run(stop.clone()));
    let agent = json!({"name": "odd", "model": "claude-scripted"});
    let agent = server.id(server.post("/v1/agents").json(agent)).await;
    let begin = async |text: &str| -> SessionId {
        let body = json!({"agent": agent, "environment_id": server.environment});
        let id = server.id(server.post("/v1/sessions").json(body)).await;
        let id = id.parse().unwrap();
        server.say(&id, text).await;
        id
    };
    let stuck = begin("never come back").await;
    let mut broken = Vec::new();
    let mut well = Vec::new();
    for n in 0..20 {
        if n % 5 == 0 {
            broken.push(begin("break the worker").await);
        }
        well.push(begin(&n.to_string()).await);
    }
    let end = async |session: &SessionId| {
        until("the session is idle again", async || {
            let events = server.events(&format!("{session}")).await;
            let error = events.iter().find(|it| it["type"] == "session.error").cloned();
            let is_idle = events.iter().any(|it| it["type"] == "session.status_idle");
            is_idle.then(|| error.map(|it| it["error"]["message"].as_str().unwrap().to_owned()))
        })
        .await
    };
    for session in &well {
        assert_eq!(end(session).await, None);
    }
    for session in &broken {
        let error = end(session).await.unwrap();
        assert!(error.contains("a bug in this server"), "{error}");
    }
    let session = server.get(&format!("/v1/sessions/{stuck}")).ok().await;
    assert_eq!(session["status"], "running");
    stop.cancel();
    running.await.unwrap();
}

fn worker(server: &Server, models: &ModelServer) -> Worker {
    let options = model::Options {
        anthropic_api_key: Some("sk-scripted".into()),
        anthropic_base_url: Some(models.url.clone()),
        ..model::Options::default()
    };
    let _ = rustls::crypto::ring::default_provider().install_default();
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    let models = Models::carried(Arc::new(Odd(client)), options, Clock::system());
    let (store, signals) = (server.app.store.clone(), server.app.signals.clone());
    let options = runtime::Options {
        workspaces: server.projects.join("workspaces"),
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
    let options = worker::Options {
        turns_max: 4,
        poll_ms: 20,
        drain_seconds: 0,
        ..worker::Options::default()
    };
    Worker::new(store, runtime, signals, options, "test", "1")
}
