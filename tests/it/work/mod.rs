//! What a turn may do: tools by configuration, approvals, stops, effects, budgets. Told by the real
//! server with a scripted model, on both databases.

mod approvals;
mod budgets;
mod context;
mod custom;
mod effects;
mod odd;
mod outcomes;
mod places;
mod schedules;
mod servers;
mod stops;

use std::path::PathBuf;

use bellpull::store::Location;
use serde_json::{Value, json};

use crate::support::{
    model_server::{ModelServer, Reply},
    postgres::TestDatabase,
    process::{Process, until},
};

/// Where a server keeps its things, over all of its lives.
struct World {
    directory: tempfile::TempDir,
    database: Option<TestDatabase>,
    models: ModelServer,
    variables: Vec<(String, String)>,
}

impl World {
    async fn sqlite(script: Vec<Reply>) -> World {
        World::new(None, script).await
    }

    async fn postgres(script: Vec<Reply>) -> World {
        World::new(Some(TestDatabase::create()), script).await
    }

    async fn new(database: Option<TestDatabase>, script: Vec<Reply>) -> World {
        let (directory, models) = (tempfile::tempdir().unwrap(), ModelServer::start(script).await);
        let world = World { directory, database, models, variables: Vec::new() };
        let url = world.models.url.clone();
        let world = world
            .with("ANTHROPIC_BASE_URL", &url)
            .with("BELLPULL_MASTER_KEY", KEY)
            .with("BELLPULL_WORKER__LEASE_SECONDS", "5")
            .with("BELLPULL_WORKER__RESUMES_MAX", "100")
            .with("BELLPULL_LIMITS__FREE_DISK_BYTES_MIN", "1048576");
        match world.database.as_ref().map(TestDatabase::url) {
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

    async fn serve(&self) -> Server {
        self.serve_as("data").await
    }

    async fn serve_as(&self, node: &str) -> Server {
        let variables: Vec<(&str, &str)> =
            self.variables.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        let config = self.directory.path().join("bellpull.toml");
        let config = config.to_str().filter(|_| config.exists());
        let arguments = config.map(|config| ["--config", config]);
        let arguments = arguments.as_ref().map_or(&[][..], |it| it);
        let data_dir = self.directory.path().join(node);
        Server(Process::serve_with(&data_dir, arguments, &variables).await)
    }

    /// The database, for what has no verb.
    fn location(&self) -> Location {
        match &self.database {
            None => Location::Sqlite(self.directory.path().join("data/bellpull.db")),
            Some(database) => Location::Postgres(database.url()),
        }
    }

    fn configure(&self, text: &str) {
        std::fs::write(self.directory.path().join("bellpull.toml"), text).unwrap();
    }

    /// A file in a session's workspace.
    fn file(&self, session: &str, name: &str) -> PathBuf {
        self.directory.path().join("data/workspaces").join(session).join("work").join(name)
    }
}

const KEY: &str = "master-key-of-these-tests";

struct Server(Process);

impl Server {
    async fn get(&self, path: &str) -> Value {
        self.call(reqwest::Method::GET, path, None).await.1
    }

    async fn post(&self, path: &str, body: Value) -> Value {
        let (status, answer) = self.call(reqwest::Method::POST, path, Some(body)).await;
        assert!((200..300).contains(&status), "{path} {status}: {answer}");
        answer
    }

    async fn call(&self, method: reqwest::Method, path: &str, body: Option<Value>) -> (u16, Value) {
        let request = self.0.http.request(method, format!("{}{path}", self.0.url));
        let mut request = request.bearer_auth(KEY);
        if let Some(body) = body {
            request = request.header("content-type", "application/json").body(body.to_string());
        }
        let response = request.send().await.expect("an answer");
        let status = response.status().as_u16();
        let text = response.text().await.expect("a body");
        (status, serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}")))
    }

    /// An agent with these entries of the toolset and no other tools.
    async fn agent(&self, configs: Value) -> String {
        let set = json!({"type": "agent_toolset_20260401", "default_config": {"enabled": false},
            "configs": configs});
        let agent = json!({"name": "worker", "model": "claude-scripted", "tools": [set]});
        text(&self.post("/v1/agents", agent).await["id"])
    }

    /// A session that somebody begins with a message.
    async fn session(&self, agent: &str) -> String {
        self.session_with(agent, json!({})).await
    }

    async fn session_with(&self, agent: &str, more: Value) -> String {
        let environments = self.get("/v1/environments").await;
        let message =
            json!({"type": "user.message", "content": [{"type": "text", "text": "work"}]});
        let mut session = json!({"agent": agent, "environment_id": environments["data"][0]["id"],
            "initial_events": [message]});
        for (key, value) in more.as_object().unwrap() {
            session[key] = value.clone();
        }
        text(&self.post("/v1/sessions", session).await["id"])
    }

    async fn say(&self, session: &str, event: Value) -> (u16, Value) {
        let path = format!("/v1/sessions/{session}/events");
        self.call(reqwest::Method::POST, &path, Some(json!({"events": [event]}))).await
    }

    async fn events(&self, session: &str) -> Vec<Value> {
        let list = self.get(&format!("/v1/sessions/{session}/events?limit=1000")).await;
        list["data"].as_array().expect("a list").clone()
    }

    /// Waits until the session's last word is an idle event, and answers why it rests.
    async fn rest(&self, session: &str) -> Value {
        until("the session rests", async || {
            let last = self.events(session).await.pop()?;
            (last["type"] == "session.status_idle").then(|| last["stop_reason"].clone())
        })
        .await
    }

    /// Waits until the session rests for this reason.
    async fn rest_for(&self, session: &str, reason: &str) -> Value {
        until(&format!("the session rests: {reason}"), async || {
            let last = self.events(session).await.pop()?;
            (last["stop_reason"]["type"] == reason).then(|| last["stop_reason"].clone())
        })
        .await
    }

    /// The text of the results that the model was told, in order.
    async fn results(&self, session: &str) -> Vec<String> {
        let events = self.events(session).await;
        let results = events.iter().filter(|event| event["type"] == "agent.tool_result");
        results.map(|event| text(&event["content"][0]["text"])).collect()
    }

    async fn types(&self, session: &str) -> Vec<String> {
        self.events(session).await.iter().map(|event| text(&event["type"])).collect()
    }
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_else(|| panic!("no text: {value}")).to_owned()
}

fn calls(calls: &[(&str, Value)]) -> Reply {
    Reply::text(&[]).and_calls(calls)
}

fn write(name: &str, content: &str) -> (&'static str, Value) {
    ("write", json!({"file_path": name, "content": content}))
}

fn edit(name: &str, old: &str, new: &str) -> (&'static str, Value) {
    ("edit", json!({"file_path": name, "old_string": old, "new_string": new}))
}

fn allow(call: &Value) -> Value {
    json!({"type": "user.tool_confirmation", "tool_use_id": call, "result": "allow"})
}

/// One entry of a toolset.
fn tool(name: &str, policy: &str) -> Value {
    json!({"name": name, "enabled": true, "permission_policy": {"type": policy}})
}
