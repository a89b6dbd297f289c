//! `kill -9` at random moments under load. Afterwards every 2xx is accounted for exactly once and
//! every turn came to its end.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
    sync::{Arc, Mutex},
    time::Duration,
};

use serde_json::Value;

use crate::support::{
    full,
    postgres::TestDatabase,
    process::{Process, until},
};

const TOKEN: &str = "crash-test-token-0123456789";
const SENDERS: usize = 8;
/// Each sender repeats one in so many requests, as senders do that got no answer.
const REPEAT_EVERY: u64 = 5;

#[tokio::test(flavor = "multi_thread")]
async fn kill_9_loses_nothing_and_repeats_nothing_on_sqlite() {
    let directory = tempfile::tempdir().unwrap();
    crash_story(directory.path(), None).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn kill_9_loses_nothing_and_repeats_nothing_on_postgres() {
    let (directory, database) = (tempfile::tempdir().unwrap(), TestDatabase::create());
    crash_story(directory.path(), Some(database.url())).await;
}

/// A small generator: the moments of the kills follow from one printed seed.
struct Random(u64);

impl Random {
    fn next(&mut self, below: u64) -> u64 {
        self.0 =
            self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % below
    }
}

#[derive(Default)]
struct Answered {
    /// Ids that got a 2xx, with the delivery that they were told.
    accepted: BTreeMap<String, BTreeSet<String>>,
    n_requests: u64,
}

async fn crash_story(directory: &Path, database_url: Option<String>) {
    let seed = u64::from(std::process::id()) << 16 | 0x5eed;
    println!("seed {seed}");
    let mut random = Random(seed);
    let config = directory.join("bellpull.toml");
    let text = format!("[webhooks.load]\npreset = \"bearer\"\nsecret = \"{TOKEN}\"\n");
    std::fs::write(&config, text).unwrap();
    let environment = environment(database_url);
    let environment: Vec<(&str, &str)> =
        environment.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    let arguments = ["--config", config.to_str().unwrap()];
    let data = directory.join("data");

    let answered = Arc::new(Mutex::new(Answered::default()));
    let n_kills = if full() { 200 } else { 20 };
    for round in 0..n_kills {
        let server = Process::serve_with(&data, &arguments, &environment).await;
        let senders = start_senders(&server, round, &answered);
        tokio::time::sleep(Duration::from_millis(20 + random.next(200))).await;
        server.kill();
        for sender in senders {
            sender.await.unwrap();
        }
    }

    let server = Process::serve_with(&data, &arguments, &environment).await;
    let deliveries = settled(&server).await;
    let answered = std::mem::take(&mut *answered.lock().unwrap());
    println!(
        "{n_kills} kills, {} requests, {} ids answered with a 2xx, {} deliveries",
        answered.n_requests,
        answered.accepted.len(),
        deliveries.len()
    );
    assert!(answered.accepted.len() > n_kills, "too little load to prove anything");
    account(&server, &answered, &deliveries).await;
    assert!(server.terminate().await.success());
}

fn environment(database_url: Option<String>) -> Vec<(String, String)> {
    // Short leases: what a killed server held is taken up by its next life at once, but a lease
    // that was never voided must not hold the test up either.
    let mut environment = vec![
        ("BELLPULL_WORKER__LEASE_SECONDS".to_owned(), "5".to_owned()),
        // A turn that is cut off so often in seconds would be ended as one that brings servers down.
        ("BELLPULL_WORKER__RESUMES_MAX".to_owned(), "100".to_owned()),
        ("BELLPULL_LIMITS__FREE_DISK_BYTES_MIN".to_owned(), "1048576".to_owned()),
    ];
    if let Some(url) = database_url {
        environment.push(("BELLPULL_DATABASE_URL".to_owned(), url));
        let key = "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=";
        environment.push(("BELLPULL_VAULT_KEY".to_owned(), key.to_owned()));
    }
    environment
}

/// Senders that go on until the server is gone.
fn start_senders(
    server: &Process,
    round: usize,
    answered: &Arc<Mutex<Answered>>,
) -> Vec<tokio::task::JoinHandle<()>> {
    (0..SENDERS)
        .map(|sender| {
            let (http, answered) = (server.http.clone(), answered.clone());
            let url = format!("{}/api/webhook/load", server.url);
            tokio::spawn(async move {
                for n in 0.. {
                    let n = if n % REPEAT_EVERY == REPEAT_EVERY - 1 { n - 1 } else { n };
                    let id = format!("{round}-{sender}-{n}");
                    let request = http.post(&url).bearer_auth(TOKEN);
                    let request = request.header("idempotency-key", &id);
                    let body = format!("{{\"type\":\"load\",\"id\":\"{id}\"}}");
                    answered.lock().unwrap().n_requests += 1;
                    let Ok(response) = request.body(body).send().await else { return };
                    if !response.status().is_success() {
                        continue;
                    }
                    // The status line is the promise; the body may be lost with the connection.
                    let answer = response.json_or_null().await;
                    let mut answered = answered.lock().unwrap();
                    let deliveries = answered.accepted.entry(id).or_default();
                    deliveries.extend(answer["delivery_id"].as_str().map(str::to_owned));
                }
            })
        })
        .collect()
}

trait JsonOrNull {
    async fn json_or_null(self) -> Value;
}

impl JsonOrNull for reqwest::Response {
    async fn json_or_null(self) -> Value {
        match self.text().await {
            Ok(text) => serde_json::from_str(&text).unwrap_or_default(),
            Err(_) => Value::Null,
        }
    }
}

/// All deliveries, once none of them is pending or running.
async fn settled(server: &Process) -> Vec<Value> {
    for outcome in ["pending", "running"] {
        until("no delivery is open", async || {
            let page = server.get(&format!("/v1/deliveries?outcome={outcome}&limit=1")).await;
            page["data"].as_array()?.is_empty().then_some(())
        })
        .await;
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

async fn account(server: &Process, answered: &Answered, deliveries: &[Value]) {
    let mut by_id: BTreeMap<&str, Vec<&Value>> = BTreeMap::new();
    for delivery in deliveries {
        let key = delivery["identity"]["key"].as_str().unwrap();
        let id = key.strip_prefix("idempotency-key:").unwrap();
        by_id.entry(id).or_default().push(delivery);
    }
    for (id, told) in &answered.accepted {
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
    // Every log: gapless is what the numbers say, one message each, and one end.
    for delivery in deliveries {
        let session = delivery["session_id"].as_str().unwrap();
        let events = server.get(&format!("/v1/sessions/{session}/events?limit=1000")).await;
        let types: Vec<&str> = events["data"]
            .as_array()
            .unwrap()
            .iter()
            .filter_map(|it| it["type"].as_str())
            .collect();
        let count = |wanted: &str| types.iter().filter(|it| **it == wanted).count();
        assert_eq!(count("user.message"), 1, "{session}: {types:?}");
        assert_eq!(count("agent.message"), 1, "{session}: {types:?}");
        assert_eq!(count("session.status_idle"), 1, "{session}: {types:?}");
        let (starts, ends) = (count("span.model_request_start"), count("span.model_request_end"));
        assert_eq!(starts, ends, "{session}: {types:?}");
    }
}
