//! Results that leave: from the end of a turn to a receiver, over real HTTP.

mod guarded;
mod nodes;
mod sending;

use std::{sync::Arc, time::Duration};

use bellpull::{
    domain::turn::TurnEnd,
    fetch::Post,
    id::{EventId, Id, SessionId},
    outbox::{Options, Outbox},
};
use serde_json::{Value, json};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    support::{process::until, receiver::Receiver},
    web::server::Server,
};

/// Fast, and to receivers on this machine.
pub fn options() -> Options {
    Options {
        allowed_private_hosts: vec!["127.0.0.1".to_owned()],
        poll_ms: 20,
        attempts_max: 4,
        retry_first_ms: 60_000,
        attempt_seconds_max: 20,
        drain_seconds: 1,
        ..Options::default()
    }
}

/// A server, and senders beside it. Its time stands still unless a story moves it.
pub struct Bench {
    pub server: Server,
    stop: CancellationToken,
    senders: TaskTracker,
}

impl Bench {
    pub async fn new() -> Bench {
        Bench::with(options()).await
    }

    pub async fn with(options: Options) -> Bench {
        let bench = Bench::silent(Server::new().await);
        bench.sender("a", options, Post::new().unwrap());
        bench
    }

    pub async fn postgres() -> Bench {
        let bench = Bench::silent(Server::postgres().await);
        bench.sender("a", Options { retry_first_ms: 10, ..options() }, Post::new().unwrap());
        bench
    }

    /// Nobody sends yet.
    pub fn silent(server: Server) -> Bench {
        Bench { server, stop: CancellationToken::new(), senders: TaskTracker::new() }
    }

    pub fn sender(&self, node: &str, options: Options, post: Post) {
        let (store, vault) = (self.server.app.store.clone(), self.server.vault.clone());
        let signals = self.server.app.signals.clone();
        let outbox = Outbox::new(store, Arc::clone(&vault), signals, post, (node, "1"));
        outbox.set_options(options, Some("https://bell.example".to_owned()));
        self.senders.spawn(outbox.run(self.stop.clone()));
    }

    /// The default agent calls back here. Answers the secret that was made.
    pub async fn call_back(&self, receiver: &Receiver) -> String {
        let made = self.agent_callback(json!({"url": receiver.url("/results")})).await;
        made["callback"]["secret"].as_str().unwrap_or_default().to_owned()
    }

    pub async fn agent_callback(&self, callback: Value) -> Value {
        let path = format!("/v1/agents/{}", self.server.agent);
        self.server.post(&path).json(json!({"callback": callback})).ok().await
    }

    /// A turn of a session from its message to its end.
    pub async fn turn(&self, session: &SessionId, answer: &str, end: TurnEnd) {
        self.server.say(session, "work").await;
        let lease = self.server.work().await;
        let id = EventId::new(self.server.clock.now());
        self.server.answer(&lease, id, answer).await;
        self.server.finish(&lease, end).await;
        self.server.app.signals.outgoing();
    }

    /// A turn of a session of its own.
    pub async fn told(&self, answer: &str, end: TurnEnd) -> SessionId {
        let session = self.server.session().await;
        self.turn(&session, answer, end).await;
        session
    }

    pub async fn outbox(&self) -> Vec<Value> {
        let list = self.server.get("/v1/outbox?limit=100").ok().await;
        list["data"].as_array().unwrap().clone()
    }

    /// A message that fulfils this, once there is one.
    pub async fn once(&self, what: &str, is: impl Fn(&Value) -> bool) -> Value {
        until(what, async || self.outbox().await.into_iter().find(|it| is(it))).await
    }

    /// Everything, once nothing waits.
    pub async fn settled(&self) -> Vec<Value> {
        until("nothing waits", async || {
            let all = self.outbox().await;
            all.iter().all(|it| it["status"] != "waiting").then_some(all)
        })
        .await
    }

    /// Lets so much time pass that whatever was put off is due.
    pub fn hour(&self) {
        self.server.clock.advance(Duration::from_secs(3600));
    }

    pub async fn stop(self) {
        self.stop.cancel();
        self.senders.close();
        self.senders.wait().await;
    }
}
