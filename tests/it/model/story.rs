//! A server with one source, one agent, and a scripted model behind it.

use std::path::PathBuf;

use serde_json::Value;

use crate::support::{
    model_server::{Format, ModelServer, Reply},
    process::{Process, until},
};

pub const KEY: &str = "key-of-the-provider-0123456789";
pub const TOKEN: &str = "token-of-the-source-0123456789";

pub struct Story {
    pub server: Process,
    pub models: ModelServer,
    format: Format,
    directory: tempfile::TempDir,
}

impl Story {
    /// `settings` are lines of the config file's `[models]`.
    pub async fn begin(
        format: Format,
        settings: &str,
        script: impl IntoIterator<Item = Reply>,
    ) -> Story {
        let models = ModelServer::start(script).await;
        models.forbid(KEY);
        models.forbid(TOKEN);
        let directory = tempfile::tempdir().unwrap();
        let (model, api) = match format {
            Format::Anthropic => ("claude-scripted", "auto"),
            Format::Chat => ("openai/scripted", "auto"),
            Format::Responses => ("openai/scripted", "responses"),
        };
        let config = format!(
            "[models]\nopenai_api = \"{api}\"\nretry_first_ms = 1\n{settings}\n\
             [agents.concierge]\nmodel = \"{model}\"\nsystem = \"You answer the bell.\"\n\
             [webhooks.shop]\npreset = \"bearer\"\nsecret = \"{TOKEN}\"\nagent = \"concierge\"\n\
             target = {{ key = \"one\" }}\n\
             [worker]\ndrain_seconds = 0\nlease_seconds = 5\n"
        );
        std::fs::write(directory.path().join("bellpull.toml"), config).unwrap();
        let server = start(&directory, &models).await;
        Story { server, models, format, directory }
    }

    /// Changes the config file.
    pub fn configure(&self, change: impl FnOnce(String) -> String) {
        let path = self.directory.path().join("bellpull.toml");
        let text = std::fs::read_to_string(&path).unwrap();
        std::fs::write(path, change(text)).unwrap();
    }

    /// SIGTERM, unless it was given before, and another life on the same data.
    pub async fn restart(self) -> Story {
        let Story { server, models, format, directory } = self;
        assert!(server.terminate().await.success());
        let server = start(&directory, &models).await;
        Story { server, models, format, directory }
    }

    pub fn database(&self) -> PathBuf {
        self.directory.path().join("data/bellpull.db")
    }

    /// The model as it is named to its provider.
    pub fn model(&self) -> &'static str {
        match self.format {
            Format::Anthropic => "claude-scripted",
            Format::Chat | Format::Responses => "scripted",
        }
    }

    /// Rings: session and delivery.
    pub async fn ring(&self, body: &str) -> Rung {
        let request = self.server.http.post(format!("{}/api/webhook/shop", self.server.url));
        let response = request.bearer_auth(TOKEN).body(body.to_owned()).send().await.unwrap();
        assert_eq!(response.status(), 202);
        let answer: Value = serde_json::from_str(&response.text().await.unwrap()).unwrap();
        let text = |key: &str| answer[key].as_str().expect("an id").to_owned();
        Rung { session: text("session_id"), delivery: text("delivery_id") }
    }

    /// Waits for the end of the delivery, and says how it ended.
    pub async fn outcome(&self, rung: &Rung) -> String {
        until("the delivery comes to its end", async || {
            let delivery = self.server.get(&format!("/v1/deliveries/{}", rung.delivery)).await;
            let outcome = delivery["outcome"].as_str()?.to_owned();
            ["succeeded", "failed"].contains(&outcome.as_str()).then_some(outcome)
        })
        .await
    }

    pub async fn events(&self, rung: &Rung) -> Vec<Value> {
        let path = format!("/v1/sessions/{}/events?limit=1000", rung.session);
        self.server.get(&path).await["data"].as_array().expect("a list").clone()
    }

    /// Until the session waits for its model's next try.
    pub async fn waits(&self, rung: &Rung) {
        until("the session waits", async || {
            (self.session(rung).await["status"] == "rescheduling").then_some(())
        })
        .await;
    }

    pub async fn session(&self, rung: &Rung) -> Value {
        self.server.get(&format!("/v1/sessions/{}", rung.session)).await
    }
}

async fn start(directory: &tempfile::TempDir, models: &ModelServer) -> Process {
    let environment = [
        ("ANTHROPIC_BASE_URL", models.url.as_str()),
        ("ANTHROPIC_API_KEY", KEY),
        ("OPENAI_BASE_URL", models.url.as_str()),
        ("OPENAI_API_KEY", KEY),
    ];
    let config = directory.path().join("bellpull.toml");
    let arguments = ["--config", config.to_str().expect("UTF-8")];
    Process::serve_with(&directory.path().join("data"), &arguments, &environment).await
}

pub struct Rung {
    pub session: String,
    pub delivery: String,
}

/// The types of events, shortened to what tells them apart.
pub fn types(events: &[Value]) -> Vec<&str> {
    let short = |event: &Value| match event["type"].as_str().expect("a type") {
        "session.status_running" => "running",
        "session.status_idle" => "idle",
        "session.status_rescheduled" => "rescheduled",
        "session.error" => match event["error"]["retry_status"]["type"].as_str() {
            Some("retrying") => "retrying",
            _ => "exhausted",
        },
        "span.model_request_start" => "ask",
        "span.model_request_end" if event["is_error"] == true => "failed",
        "span.model_request_end" => "answered",
        "user.message" => "user",
        "agent.message" => "message",
        "agent.thinking" => "thinking",
        "agent.tool_use" => "call",
        "agent.tool_result" => "result",
        other => panic!("an event of type {other}"),
    };
    events.iter().map(short).collect()
}

/// The first event of a type, by its short name.
pub fn find<'a>(events: &'a [Value], wanted: &str) -> &'a Value {
    let at = types(events).iter().position(|it| *it == wanted);
    &events[at.unwrap_or_else(|| panic!("no {wanted} in {events:?}"))]
}
