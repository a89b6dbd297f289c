//! Load as senders make it, and the account of what they were promised.
//!
//! A sender repeats a request until it gets a 2xx, and repeats some of those too, as senders do whose
//! connection broke. Every answer but a 2xx has to be a 503 with `Retry-After`, and has to come before
//! the sender would give up.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex},
    time::Duration,
};

use futures_util::future::join_all;
use reqwest::header::RETRY_AFTER;
use serde_json::Value;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::support::process::{Process, until};

pub const TOKEN: &str = "crash-test-token-0123456789";
const SENDERS: usize = 8;
/// Each sender repeats one in so many requests that were taken.
const REPEAT_EVERY: u64 = 5;
/// How long a sender waits for an answer.
const DEADLINE: Duration = Duration::from_secs(10);

/// Lines of the config file for the source that the load goes to.
pub fn source() -> String {
    format!("[webhooks.load]\npreset = \"bearer\"\nsecret = \"{TOKEN}\"\n")
}

/// What senders were told, over all lives of a server.
#[derive(Clone, Default)]
pub struct Load(Arc<Mutex<Ledger>>);

#[derive(Default)]
struct Ledger {
    n_rounds: usize,
    n_requests: u64,
    /// Ids that got a 2xx, with the deliveries that they were told.
    accepted: BTreeMap<String, BTreeSet<String>>,
    /// Answers that were a proper 503.
    n_refused: u64,
    /// Requests that got no answer.
    unanswered: Vec<String>,
    /// Answers that must not be.
    wrong: Vec<String>,
}

/// Senders at work.
pub struct Senders {
    tasks: JoinSet<()>,
    stop: CancellationToken,
}

impl Senders {
    /// Waits until they found out that the server is gone.
    pub async fn lose(self) {
        self.tasks.join_all().await;
    }

    /// Ends each after the answer that it waits for.
    pub async fn stop(self) {
        self.stop.cancel();
        self.tasks.join_all().await;
    }
}

impl Load {
    /// Senders that go on until they are stopped or get no answer.
    pub fn start(&self, server: &Process) -> Senders {
        let round = self.next_round();
        let (mut tasks, stop) = (JoinSet::new(), CancellationToken::new());
        for sender in 0..SENDERS {
            let (load, http, stop) = (self.clone(), server.http.clone(), stop.clone());
            let url = format!("{}/api/webhook/load", server.url);
            tasks.spawn(async move {
                let mut n = 0;
                while !stop.is_cancelled() {
                    let id = format!("{round}-{sender}-{n}");
                    match load.send(&http, &url, &id).await {
                        Some(true) if n % REPEAT_EVERY == 0 => {
                            if load.send(&http, &url, &id).await.is_none() {
                                return;
                            }
                            n += 1;
                        }
                        Some(true) => n += 1,
                        Some(false) => {}
                        None => return,
                    }
                }
            });
        }
        Senders { tasks, stop }
    }

    /// So many senders at once, each with one request of its own, which is not repeated.
    pub async fn crowd(&self, server: &Process, n: usize) {
        let round = self.next_round();
        let url = format!("{}/api/webhook/load", server.url);
        let requests = (0..n).map(async |n| {
            self.send(&server.http, &url, &format!("{round}-crowd-{n}")).await;
        });
        join_all(requests).await;
    }

    fn next_round(&self) -> usize {
        let mut ledger = self.0.lock().unwrap();
        ledger.n_rounds += 1;
        ledger.n_rounds
    }

    /// One request: whether it was taken, or `None` when there was no answer.
    async fn send(&self, http: &reqwest::Client, url: &str, id: &str) -> Option<bool> {
        let request = http.post(url).bearer_auth(TOKEN).header("idempotency-key", id);
        let request = request.body(format!("{{\"type\":\"load\",\"id\":\"{id}\"}}"));
        self.0.lock().unwrap().n_requests += 1;
        let response = match request.timeout(DEADLINE).send().await {
            Ok(response) => response,
            Err(error) => {
                self.0.lock().unwrap().unanswered.push(format!("{id}: {error:?}"));
                return None;
            }
        };
        let status = response.status();
        let retry_after = response.headers().contains_key(RETRY_AFTER);
        // The status line is the promise; the body may be lost with the connection.
        let text = response.text().await.unwrap_or_default();
        let mut ledger = self.0.lock().unwrap();
        if status.is_success() {
            let answer: Value = serde_json::from_str(&text).unwrap_or_default();
            let told = ledger.accepted.entry(id.to_owned()).or_default();
            told.extend(answer["delivery_id"].as_str().map(str::to_owned));
        } else if status == 503 && retry_after {
            ledger.n_refused += 1;
        } else {
            ledger.wrong.push(format!("{id}: {status}, Retry-After: {retry_after}, {text}"));
        }
        Some(status.is_success())
    }

    pub fn n_accepted(&self) -> usize {
        self.0.lock().unwrap().accepted.len()
    }

    pub fn n_refused(&self) -> u64 {
        self.0.lock().unwrap().n_refused
    }

    /// Waits until so many more events were taken.
    pub async fn accepts(&self, n: usize) {
        let wanted = self.n_accepted() + n;
        until("events are taken", async || (self.n_accepted() >= wanted).then_some(())).await;
    }

    /// Waits until so many more requests were refused.
    pub async fn is_refused(&self, n: u64) {
        let wanted = self.n_refused() + n;
        until("requests are refused", async || (self.n_refused() >= wanted).then_some(())).await;
    }

    /// Nobody was left without an answer.
    pub fn answered_all(&self) {
        let ledger = self.0.lock().unwrap();
        assert!(ledger.unanswered.is_empty(), "{:?}", ledger.unanswered);
    }

    /// Waits for the end of all turns, and settles the account: every 2xx is there exactly once, and
    /// so is whatever else was stored; every turn has come to its one end.
    pub async fn settle(&self, server: &Process) {
        let deliveries = all_settled(server).await;
        self.balance(&deliveries);
        for delivery in &deliveries {
            one_end(server, delivery["session_id"].as_str().unwrap()).await;
        }
    }

    fn balance(&self, deliveries: &[Value]) {
        let ledger = self.0.lock().unwrap();
        println!(
            "{} rounds, {} requests, {} ids answered with a 2xx, {} refused, {} deliveries",
            ledger.n_rounds,
            ledger.n_requests,
            ledger.accepted.len(),
            ledger.n_refused,
            deliveries.len()
        );
        assert!(ledger.wrong.is_empty(), "{:#?}", ledger.wrong);
        assert!(ledger.accepted.len() > ledger.n_rounds, "too little load to prove anything");
        let mut by_id: BTreeMap<&str, Vec<&Value>> = BTreeMap::new();
        for delivery in deliveries {
            let key = delivery["identity"]["key"].as_str().unwrap();
            let id = key.strip_prefix("idempotency-key:").unwrap();
            by_id.entry(id).or_default().push(delivery);
        }
        for (id, told) in &ledger.accepted {
            let stored = by_id.get(id.as_str()).map_or(&[][..], Vec::as_slice);
            assert_eq!(stored.len(), 1, "{id} was answered with a 2xx: {stored:?}");
            for told in told {
                assert_eq!(stored[0]["id"], told.as_str(), "{id}");
            }
        }
        for (id, stored) in &by_id {
            assert_eq!(stored.len(), 1, "{id} was stored more than once");
            assert_eq!(stored[0]["outcome"], "succeeded", "{}", stored[0]);
        }
    }
}

/// All deliveries, once none of them is pending or running. What was left behind may be much, so there
/// is a bound on each turn and not on all of them.
async fn all_settled(server: &Process) -> Vec<Value> {
    for outcome in ["pending", "running"] {
        while let Some(open) = oldest(server, outcome).await {
            until("the oldest open delivery comes to its end", async || {
                (oldest(server, outcome).await.as_ref() != Some(&open)).then_some(())
            })
            .await;
        }
    }
    let mut all = Vec::new();
    let mut path = "/v1/deliveries?limit=100".to_owned();
    loop {
        let page = server.get(&path).await;
        all.extend(page["data"].as_array().unwrap().iter().cloned());
        match page["next_page"].as_str() {
            Some(next) => path = format!("/v1/deliveries?limit=100&page={next}"),
            None => return all,
        }
    }
}

/// A page may be empty and have another one behind it.
async fn oldest(server: &Process, outcome: &str) -> Option<String> {
    let first = format!("/v1/deliveries?outcome={outcome}&order=asc&limit=1");
    let mut path = first.clone();
    loop {
        let page = server.get(&path).await;
        if let Some(id) = page["data"][0]["id"].as_str() {
            return Some(id.to_owned());
        }
        path = format!("{first}&page={}", page["next_page"].as_str()?);
    }
}

/// The log of a session with one message: nothing is missing, nothing is there twice.
async fn one_end(server: &Process, session: &str) {
    let events = server.get(&format!("/v1/sessions/{session}/events?limit=1000")).await;
    let types: Vec<&str> =
        events["data"].as_array().unwrap().iter().filter_map(|it| it["type"].as_str()).collect();
    let count = |wanted: &str| types.iter().filter(|it| **it == wanted).count();
    assert_eq!(count("user.message"), 1, "{session}: {types:?}");
    assert_eq!(count("agent.message"), 1, "{session}: {types:?}");
    assert_eq!(count("session.status_idle"), 1, "{session}: {types:?}");
    assert_eq!(types.last(), Some(&"session.status_idle"), "{session}: {types:?}");
    let (starts, ends) = (count("span.model_request_start"), count("span.model_request_end"));
    assert_eq!(starts, ends, "{session}: {types:?}");
}

/// One event: the session and the delivery that it was given.
pub async fn ring(server: &Process, body: &str) -> Rung {
    let request = server.http.post(format!("{}/api/webhook/load", server.url));
    let response = request.bearer_auth(TOKEN).body(body.to_owned()).send().await.unwrap();
    assert_eq!(response.status(), 202);
    let answer: Value = serde_json::from_str(&response.text().await.unwrap()).unwrap();
    let text = |key: &str| answer[key].as_str().expect("an id").to_owned();
    Rung { session: text("session_id"), delivery: text("delivery_id") }
}

pub struct Rung {
    pub session: String,
    pub delivery: String,
}
