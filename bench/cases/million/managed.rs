//! What people make: environments, vaults, deployments, files, keys and secrets, some hundreds of each.

use anyhow::Context;
use serde_json::{Value, json};

use crate::server::Server;

/// Environments, vaults, deployments and files.
const EACH: usize = 300;

/// Of these all are on one page.
const KEYS: usize = 100;

/// As many as one vault may have.
const CREDENTIALS: usize = 20;

/// The ids of those that are looked at one by one.
pub struct Managed {
    pub environment: String,
    pub vault: String,
    pub deployment: String,
    pub file: String,
}

pub async fn make(server: &Server) -> anyhow::Result<Managed> {
    let agents = server.get("/v1/agents").await?;
    let agent = id_of(&agents["data"][0])?;
    let mut last = None;
    for n in 0..EACH {
        last = Some(make_one_of_each(server, &agent, n).await?);
    }
    let managed = last.context("at least one of each")?;
    let path = format!("/v1/vaults/{}/credentials", managed.vault);
    for n in 0..CREDENTIALS {
        let url = format!("https://tools-{n}.example/mcp");
        let auth = json!({"type": "static_bearer", "token": "a-token", "mcp_server_url": url});
        server.post(&path, json!({"display_name": format!("tools {n}"), "auth": auth})).await?;
    }
    for n in 0..KEYS {
        let key = json!({"name": format!("reader {n}"), "scopes": ["read"]});
        server.post("/v1/api_keys", key).await?;
        let secret = json!({"name": format!("sender-{n}"), "generate": true});
        server.post("/v1/secrets", secret).await?;
    }
    Ok(managed)
}

async fn make_one_of_each(server: &Server, agent: &str, n: usize) -> anyhow::Result<Managed> {
    let environment = json!({
        "name": format!("project {n}"),
        "description": "Where the agents of one project work.",
        "config": {
            "type": "cloud",
            "networking": {"type": "limited", "allowed_hosts": ["api.example.com", "files.example.com"]},
            "setup": ["git clone https://git.example/project .", "cargo fetch"],
            "variables": {"CARGO_TERM_COLOR": "never"},
        },
    });
    let environment = id_of(&server.post("/v1/environments", environment).await?)?;
    let vault = json!({"display_name": format!("credentials of project {n}")});
    let vault = id_of(&server.post("/v1/vaults", vault).await?)?;
    let content = [json!({"type": "text", "text": "Look after what came in since yesterday."})];
    let deployment = json!({
        "name": format!("round {n}"),
        "description": "Goes through what is open.",
        "agent": agent,
        "environment_id": environment,
        "vault_ids": [vault],
        "initial_events": [{"type": "user.message", "content": content}],
        // Once a month, so that none comes while something is measured.
        "schedule": {
            "type": "cron",
            "expression": format!("{} {} 1 * *", n % 60, n % 24),
            "timezone": "Europe/Berlin",
        },
    });
    let deployment = id_of(&server.post("/v1/deployments", deployment).await?)?;
    let file = server.upload(&format!("notes-{n}.md"), &"A line of notes.\n".repeat(100)).await?;
    Ok(Managed { environment, vault, deployment, file: id_of(&file)? })
}

fn id_of(made: &Value) -> anyhow::Result<String> {
    Ok(made["id"].as_str().with_context(|| format!("no id in {made}"))?.to_owned())
}
