//! `agents`: the personas, by id or by a name that only one of them has.

use std::{
    fs,
    path::{Path, PathBuf},
};

use serde_json::{Map, Value, json};

use super::{
    Exit,
    client::Listing,
    context::{Context, Living, Paging, ago, str, time},
    curl,
    failure::{Failure, Result},
    sources::{turn_limits, turns_max},
    table::{Cell, Fields, Table, fitted},
};
use crate::clock::Timestamp;

pub(super) const EXAMPLES: &str = "\
Examples:
  bellpull agents create --name lucy --model claude-sonnet-4-5 --system-file lucy.md
  bellpull agents update lucy --model openai/gpt-5
  bellpull agents update lucy --from lucy.json      any field of the API, such as tools
  bellpull agents webhook lucy                      where to send events, and a line to try it
  bellpull agents limit lucy --turns-at-once 2      what comes beyond waits
  bellpull agents pause lucy                        deliveries are kept, sessions wait

Every change of what an agent is makes a new version; sessions keep the one they began with.";

#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    action: Option<Action>,
    #[command(flatten)]
    filter: Living,
}

#[derive(Debug, clap::Subcommand)]
enum Action {
    /// List agents (the same as without a command)
    List(Living),
    /// Show an agent
    Show {
        /// Its id or name
        #[arg(value_name = "AGENT")]
        agent: String,
        /// Not the newest version, but this one
        #[arg(long, value_name = "N")]
        version: Option<u32>,
    },
    /// Make an agent
    Create(Change),
    /// Change an agent; what is not given stays
    Update {
        /// Its id or name
        #[arg(value_name = "AGENT")]
        agent: String,
        #[command(flatten)]
        change: Change,
        /// The version that you have seen: refused if it has changed since
        #[arg(long, value_name = "N")]
        version: Option<u32>,
        /// Name of the secret with the webhook token; `default` for the usual one
        #[arg(long, value_name = "NAME")]
        webhook_secret: Option<String>,
    },
    /// List an agent's versions
    Versions {
        /// Its id or name
        #[arg(value_name = "AGENT")]
        agent: String,
        #[command(flatten)]
        paging: Paging,
    },
    /// Let an agent's sessions wait; its deliveries are still taken
    Pause {
        /// Its id or name
        #[arg(value_name = "AGENT")]
        agent: String,
    },
    /// Let a paused agent work again
    Resume {
        /// Its id or name
        #[arg(value_name = "AGENT")]
        agent: String,
    },
    /// Say how many turns an agent may have; what comes beyond waits
    Limit {
        /// Its id or name
        #[arg(value_name = "AGENT")]
        agent: String,
        /// Turns at once; 0: any number
        #[arg(long, value_name = "TURNS")]
        turns_at_once: Option<u32>,
        /// Turns that may begin within a minute; 0: any number
        #[arg(long, value_name = "TURNS")]
        turns_per_minute: Option<u32>,
    },
    /// Archive an agent: it can be read and never used again
    Archive {
        /// Its id or name
        #[arg(value_name = "AGENT")]
        agent: String,
        /// Do not ask
        #[arg(long, short)]
        yes: bool,
    },
    /// Show where an agent's events go, and how their sender proves itself
    Webhook {
        /// Its id or name
        #[arg(value_name = "AGENT")]
        agent: String,
    },
}

#[derive(Debug, clap::Args)]
struct Change {
    /// Name
    #[arg(long, value_name = "NAME")]
    name: Option<String>,
    /// Model: `claude-…`, `anthropic/ID`, `openai/ID`, or `rehearsal`, which needs no key
    #[arg(long, value_name = "MODEL")]
    model: Option<String>,
    /// What it is for
    #[arg(long, value_name = "TEXT")]
    description: Option<String>,
    /// System prompt
    #[arg(long, value_name = "TEXT")]
    system: Option<String>,
    /// File with the system prompt
    #[arg(long, value_name = "FILE", conflicts_with = "system")]
    system_file: Option<PathBuf>,
    /// JSON file with any fields of the API's agent object; options win over it. `-`: the input
    #[arg(long, value_name = "FILE")]
    from: Option<PathBuf>,
}

/// No agent is described in more.
const FILE_BYTES_MAX: usize = 4 * 1024 * 1024;

impl Change {
    fn body(self, context: &mut Context<'_>) -> Result<Value> {
        let mut body = match self.from {
            None => Map::new(),
            Some(path) => read_fields(&path, context)?,
        };
        let system = match self.system_file {
            None => self.system,
            Some(path) => {
                let text = String::from_utf8(read_file(&path, context)?);
                Some(text.map_err(|_| wrong_file(&path, "it is not valid UTF-8"))?)
            }
        };
        let fields = [
            ("name", self.name),
            ("model", self.model),
            ("description", self.description),
            ("system", system),
        ];
        for (name, value) in fields {
            if let Some(value) = value {
                body.insert(name.to_owned(), value.into());
            }
        }
        Ok(Value::Object(body))
    }
}

/// The fields of an object of the API.
pub(super) fn read_fields(path: &Path, context: &mut Context<'_>) -> Result<Map<String, Value>> {
    match serde_json::from_slice(&read_file(path, context)?) {
        Ok(Value::Object(body)) => Ok(body),
        Ok(_) => Err(wrong_file(path, "it holds no JSON object")),
        Err(error) => Err(wrong_file(path, &error.to_string())),
    }
}

fn wrong_file(path: &Path, why: &str) -> Failure {
    Failure::wrong(format!("`{}` cannot be used: {why}", path.display()))
}

/// The file's bytes; `-` is the input.
pub(super) fn read_file(path: &Path, context: &mut Context<'_>) -> Result<Vec<u8>> {
    if path == Path::new("-") {
        return context.io.read_input(FILE_BYTES_MAX);
    }
    let bytes = fs::read(path).map_err(|error| wrong_file(path, &error.to_string()))?;
    if bytes.len() > FILE_BYTES_MAX {
        return Err(wrong_file(path, &format!("it is larger than {FILE_BYTES_MAX} bytes")));
    }
    Ok(bytes)
}

const PATH: [&str; 2] = ["v1", "agents"];

pub(super) async fn run(args: Args, context: &mut Context<'_>) -> Result<Exit> {
    let Some(action) = args.action else {
        return list(args.filter, context).await;
    };
    if args.filter != Living::default() {
        return Err(Failure::wrong("filters are for the list"));
    }
    match action {
        Action::List(filter) => list(filter, context).await,
        Action::Show { agent, version } => show(&agent, version, context).await,
        Action::Create(change) => {
            let body = change.body(context)?;
            for field in ["name", "model"] {
                if body[field].is_null() {
                    return Err(Failure::wrong(format!("an agent needs `--{field}`")));
                }
            }
            let agent = context.client.post("create the agent", &PATH, &body).await?;
            print(&agent, context)
        }
        Action::Update { agent, change, version, webhook_secret } => {
            update(&agent, change, version, webhook_secret, context).await
        }
        Action::Versions { agent, paging } => versions(&agent, &paging, context).await,
        Action::Pause { agent } => switch(&agent, "pause", context).await,
        Action::Resume { agent } => switch(&agent, "resume", context).await,
        Action::Limit { agent, turns_at_once, turns_per_minute } => {
            limit(&agent, turns_at_once, turns_per_minute, context).await
        }
        Action::Archive { agent, yes } => archive(&agent, yes, context).await,
        Action::Webhook { agent } => webhook(&agent, context).await,
    }
}

async fn list(filter: Living, context: &mut Context<'_>) -> Result<Exit> {
    let listing = context.list("list the agents", &PATH, filter.query(), &filter.paging).await?;
    context.print_list(&listing, "agents", table)?;
    Ok(Exit::Fine)
}

fn table(listing: &Listing, now: Timestamp) -> Table {
    let headings = ["ID", "NAME…", "MODEL…", "VERSION", "STATE", "MANAGED BY?", "UPDATED?"];
    let mut table = Table::new(&headings);
    for agent in &listing.data {
        table.row(vec![
            Cell::strong(str(&agent["id"])),
            Cell::new(str(&agent["name"])),
            Cell::new(str(&agent["model"]["id"])),
            Cell::new(agent["version"].to_string()),
            Cell::badge(state(agent)),
            Cell::dim(str(&agent["managed_by"])),
            ago(now, &agent["updated_at"]),
        ]);
    }
    table
}

fn state(agent: &Value) -> &'static str {
    match (agent["archived_at"].is_string(), agent["paused"] == true) {
        (true, _) => "archived",
        (false, true) => "paused",
        (false, false) => "active",
    }
}

async fn show(agent: &str, version: Option<u32>, context: &mut Context<'_>) -> Result<Exit> {
    let version = version.map(|version| version.to_string());
    let query: Vec<(&str, &str)> = version.iter().map(|it| ("version", it.as_str())).collect();
    let id = context.agent_id(agent).await?;
    let what = format!("show the agent `{agent}`");
    let found = context.client.get(&what, &["v1", "agents", &id], &query).await;
    let found = context.or_nearest(found, agent, &PATH, &["id", "name"]).await?;
    print(&found, context)
}

fn print(agent: &Value, context: &mut Context<'_>) -> Result<Exit> {
    if context.json {
        context.io.json(agent)?;
        return Ok(Exit::Fine);
    }
    let fields = fields(agent, context.io.clock.now());
    context.print_fields(&fields)?;
    Ok(Exit::Fine)
}

/// Of a system prompt.
const SYSTEM_CHARS_SHOWN: usize = 200;

fn fields(agent: &Value, now: Timestamp) -> Fields {
    let text = |name: &str| Cell::new(str(&agent[name]));
    let mut fields = Fields::default();
    fields
        .add("id", Cell::strong(str(&agent["id"])))
        .add("name", text("name"))
        .add("version", Cell::new(agent["version"].to_string()))
        .add("state", Cell::badge(state(agent)))
        .add("model", Cell::new(str(&agent["model"]["id"])))
        .add("description", text("description"))
        .add("system", Cell::new(fitted(str(&agent["system"]), SYSTEM_CHARS_SHOWN)));
    let tools = agent["tools"].as_array().map(Vec::as_slice).unwrap_or_default();
    let tools: Vec<&str> = tools
        .iter()
        .map(|tool| match str(&tool["type"]) {
            "mcp_toolset" => str(&tool["mcp_server_name"]),
            "custom" => str(&tool["name"]),
            other => other,
        })
        .collect();
    fields.add("tools", Cell::new(tools.join(", ")));
    fields.add("turns", Cell::new(turn_limits(agent)));
    fields.add("managed by", text("managed_by"));
    time(&mut fields, "created", now, &agent["created_at"]);
    time(&mut fields, "updated", now, &agent["updated_at"]);
    time(&mut fields, "archived", now, &agent["archived_at"]);
    fields
}

async fn update(
    agent: &str,
    change: Change,
    version: Option<u32>,
    webhook_secret: Option<String>,
    context: &mut Context<'_>,
) -> Result<Exit> {
    let mut body = change.body(context)?;
    if body.as_object().is_some_and(Map::is_empty) && webhook_secret.is_none() {
        return Err(Failure::wrong("there is nothing to change"));
    }
    let id = context.agent_id(agent).await?;
    let what = format!("change the agent `{agent}`");
    let mut answer = Value::Null;
    if body.as_object().is_some_and(|body| !body.is_empty()) {
        if let Some(version) = version {
            body["version"] = version.into();
        }
        answer = context.client.post(&what, &["v1", "agents", &id], &body).await?;
    }
    if let Some(name) = webhook_secret {
        let name = if name == "default" { Value::Null } else { name.into() };
        let body = json!({"webhook": {"secret_key": name}});
        answer = context.client.patch(&what, &["api", "agents", &id], &body).await?;
    }
    print(&answer, context)
}

async fn versions(agent: &str, paging: &Paging, context: &mut Context<'_>) -> Result<Exit> {
    let id = context.agent_id(agent).await?;
    let what = format!("list the versions of the agent `{agent}`");
    let path = ["v1", "agents", &id, "versions"];
    let listing = context.list(&what, &path, &[], paging).await;
    let listing = context.or_nearest(listing, agent, &PATH, &["id"]).await?;
    context.print_list(&listing, "versions", |listing, now| {
        let mut table = Table::new(&["VERSION", "MADE", "MODEL…", "SYSTEM…"]);
        for version in &listing.data {
            table.row(vec![
                Cell::strong(version["version"].to_string()),
                ago(now, &version["updated_at"]),
                Cell::new(str(&version["model"]["id"])),
                Cell::new(fitted(str(&version["system"]), SYSTEM_CHARS_SHOWN)),
            ]);
        }
        table
    })?;
    Ok(Exit::Fine)
}

async fn switch(agent: &str, verb: &str, context: &mut Context<'_>) -> Result<Exit> {
    let id = context.agent_id(agent).await?;
    let what = format!("{verb} the agent `{agent}`");
    let path = ["api", "agents", &id, verb];
    let answer = context.client.post(&what, &path, &json!({})).await;
    let answer = context.or_nearest(answer, agent, &PATH, &["id"]).await?;
    print(&answer, context)
}

async fn limit(
    agent: &str,
    turns_at_once: Option<u32>,
    turns_per_minute: Option<u32>,
    context: &mut Context<'_>,
) -> Result<Exit> {
    let given = [("turns_at_once_max", turns_at_once), ("turns_per_minute_max", turns_per_minute)];
    let body: Map<String, Value> = given
        .into_iter()
        .filter_map(|(name, n)| n.map(|n| (name.to_owned(), turns_max(n))))
        .collect();
    if body.is_empty() {
        return Err(Failure::wrong("there is nothing to change"));
    }
    let id = context.agent_id(agent).await?;
    let what = format!("limit the agent `{agent}`");
    let path = ["api", "agents", &id, "limits"];
    let answer = context.client.post(&what, &path, &Value::Object(body)).await;
    let answer = context.or_nearest(answer, agent, &PATH, &["id"]).await?;
    print(&answer, context)
}

async fn archive(agent: &str, yes: bool, context: &mut Context<'_>) -> Result<Exit> {
    let id = context.agent_id(agent).await?;
    if !yes && !context.io.confirm(&format!("Archive the agent `{agent}`, for good?"))? {
        return Ok(Exit::Failed);
    }
    let what = format!("archive the agent `{agent}`");
    let answer = context.client.post(&what, &["v1", "agents", &id, "archive"], &json!({})).await;
    let answer = context.or_nearest(answer, agent, &PATH, &["id"]).await?;
    print(&answer, context)
}

async fn webhook(agent: &str, context: &mut Context<'_>) -> Result<Exit> {
    let id = context.agent_id(agent).await?;
    let what = format!("show the webhook of the agent `{agent}`");
    let found = context.client.get(&what, &["api", "agents", &id], &[]).await;
    let found = context.or_nearest(found, agent, &PATH, &["id"]).await?;
    let webhook = &found["webhook"];
    if context.json {
        context.io.json(webhook)?;
        return Ok(Exit::Fine);
    }
    let url = context.client.absolute(str(&webhook["url"]));
    let (key, is_set) = (str(&webhook["secret_key"]), webhook["token_set"] == true);
    let mut fields = Fields::default();
    fields
        .add("endpoint", Cell::strong(&url))
        .with("token", Cell::new(key), "name of the secret that holds it")
        .add("set", Cell::badge(if is_set { "yes" } else { "no" }));
    context.print_fields(&fields)?;
    let bearer = curl::header("Authorization", &format!("Bearer {}", curl::SECRET));
    context.io.line("")?;
    context.io.line(curl::line(&url, &[bearer]))?;
    if !is_set {
        let key = curl::quoted(key);
        context.io.note(format!("make a token first: bellpull secrets generate {key}"))?;
    }
    Ok(Exit::Fine)
}
