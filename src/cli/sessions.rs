//! `sessions`: the conversations, whoever started them.

use serde_json::{Value, json};

use super::{
    Exit,
    client::Listing,
    context::{Context, Names, Paging, ago, str, time},
    failure::{Failure, Result},
    style::grouped,
    table::{Cell, Fields, Table},
    tail,
};
use crate::clock::Timestamp;

pub(super) const EXAMPLES: &str = "\
Examples:
  bellpull sessions --status running
  bellpull sessions show sesn_01jv…
  bellpull sessions create --agent lucy --message 'Summarise the open issues' --follow";

#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    action: Option<Action>,
    #[command(flatten)]
    filter: Filter,
}

#[derive(Debug, clap::Subcommand)]
enum Action {
    /// List sessions, newest first (the same as without a command)
    List(Filter),
    /// Show a session
    Show {
        /// Its id
        #[arg(value_name = "SESSION")]
        id: String,
    },
    /// Start a session
    Create(Create),
}

#[derive(Clone, Debug, Default, PartialEq, Eq, clap::Args)]
struct Filter {
    /// Of this agent, by id or name
    #[arg(long, value_name = "AGENT")]
    agent: Option<String>,
    /// With this status; may be given several times
    #[arg(
        long,
        value_name = "STATUS",
        value_parser = ["idle", "running", "rescheduling", "terminated"],
    )]
    status: Vec<String>,
    /// Archived ones too
    #[arg(long)]
    archived: bool,
    #[command(flatten)]
    paging: Paging,
}

#[derive(Debug, clap::Args)]
struct Create {
    /// Agent, by id or name
    #[arg(long, value_name = "AGENT")]
    agent: String,
    /// Environment, by id or name
    #[arg(long, value_name = "ENVIRONMENT", default_value = "default")]
    environment: String,
    /// First message; without one the session waits for it
    #[arg(long, value_name = "TEXT")]
    message: Option<String>,
    /// Title
    #[arg(long, value_name = "TEXT")]
    title: Option<String>,
    /// Follow the session until it is idle
    #[arg(long, requires = "message")]
    follow: bool,
}

const PATH: [&str; 2] = ["v1", "sessions"];

pub(super) async fn run(args: Args, context: &mut Context<'_>) -> Result<Exit> {
    let Some(action) = args.action else {
        return list(args.filter, context).await;
    };
    if args.filter != Filter::default() {
        return Err(Failure::wrong("filters are for the list"));
    }
    match action {
        Action::List(filter) => list(filter, context).await,
        Action::Show { id } => show(&id, context).await,
        Action::Create(create) => self::create(create, context).await,
    }
}

async fn list(filter: Filter, context: &mut Context<'_>) -> Result<Exit> {
    let agent = match &filter.agent {
        Some(agent) => Some(context.agent_id(agent).await?),
        None => None,
    };
    let mut query: Vec<(&str, &str)> = Vec::new();
    query.extend(agent.as_deref().map(|agent| ("agent_id", agent)));
    query.extend(filter.status.iter().map(|status| ("statuses[]", status.as_str())));
    query.extend(filter.archived.then_some(("include_archived", "true")));
    let listing = context.list("list the sessions", &PATH, &query, &filter.paging).await?;
    let names = context.names(&listing).await;
    context.print_list(&listing, "sessions", |listing, now| table(listing, &names, now))?;
    Ok(Exit::Fine)
}

fn table(listing: &Listing, names: &Names, now: Timestamp) -> Table {
    let mut table =
        Table::new(&["ID", "CREATED", "AGENT…", "STATUS", "WAITING?", "SOURCE…", "TITLE…"]);
    for session in &listing.data {
        let waiting = session["messages_waiting"].as_i64().unwrap_or(0);
        table.row(vec![
            Cell::strong(str(&session["id"])),
            ago(now, &session["created_at"]),
            Cell::new(str(&session["agent"]["name"])),
            Cell::badge(str(&session["status"])),
            Cell::new(if waiting > 0 { waiting.to_string() } else { String::new() }),
            Cell::new(names.source(&session["source"])),
            Cell::new(str(&session["title"])),
        ]);
    }
    table
}

async fn show(id: &str, context: &mut Context<'_>) -> Result<Exit> {
    let what = format!("show the session `{id}`");
    let found = context.client.get(&what, &["v1", "sessions", id], &[]).await;
    let session = context.or_nearest(found, id, &PATH, &["id"]).await?;
    if context.json {
        context.io.json(&session)?;
    } else {
        let fields = fields(&session, context.io.clock.now());
        context.print_fields(&fields)?;
    }
    Ok(Exit::Fine)
}

fn fields(session: &Value, now: Timestamp) -> Fields {
    let agent = &session["agent"];
    let id = str(&session["id"]);
    let mut fields = Fields::default();
    fields
        .with("id", Cell::strong(id), &format!("bellpull tail {id}"))
        .add("title", Cell::new(str(&session["title"])))
        .add("status", Cell::badge(str(&session["status"])))
        .with(
            "agent",
            Cell::new(format!("{} v{}", str(&agent["name"]), agent["version"])),
            str(&agent["id"]),
        )
        .add("model", Cell::new(str(&agent["model"]["id"])))
        .add("environment", Cell::new(str(&session["environment_id"])))
        .add("source", Cell::new(str(&session["source"])));
    if let Some(waiting) = session["messages_waiting"].as_i64().filter(|n| *n > 0) {
        fields.add("waiting", Cell::new(format!("{} messages", grouped(waiting))));
    }
    let usage = &session["usage"];
    let count = |name: &str| usage[name].as_i64().unwrap_or(0);
    let cached = count("cache_read_input_tokens");
    let tokens = format!(
        "{} in, {} out",
        grouped(count("input_tokens") + cached),
        grouped(count("output_tokens"))
    );
    let remark = if cached > 0 { format!("{} from cache", grouped(cached)) } else { String::new() };
    if count("input_tokens") + count("output_tokens") > 0 {
        fields.with("tokens", Cell::new(tokens), &remark);
    }
    if let Some(seconds) = session["stats"]["active_seconds"].as_f64().filter(|it| *it > 0.0) {
        fields.add("active", Cell::new(format!("{seconds:.1} s")));
    }
    time(&mut fields, "created", now, &session["created_at"]);
    time(&mut fields, "updated", now, &session["updated_at"]);
    time(&mut fields, "archived", now, &session["archived_at"]);
    fields
}

async fn create(create: Create, context: &mut Context<'_>) -> Result<Exit> {
    let agent = context.agent_id(&create.agent).await?;
    let environment = context.environment_id(&create.environment).await?;
    let mut body = json!({"agent": agent, "environment_id": environment});
    if let Some(title) = create.title {
        body["title"] = title.into();
    }
    if let Some(text) = &create.message {
        body["initial_events"] = json!([message(text)]);
    }
    let session = context.client.post("create the session", &PATH, &body).await?;
    let id = str(&session["id"]).to_owned();
    if create.follow {
        return tail::session(context, &id, tail::How::follow()).await;
    }
    if context.json {
        context.io.json(&session)?;
    } else {
        let fields = fields(&session, context.io.clock.now());
        context.print_fields(&fields)?;
    }
    Ok(Exit::Fine)
}

/// A message that a person types.
pub(super) fn message(text: &str) -> Value {
    json!({"type": "user.message", "content": [{"type": "text", "text": text}]})
}
