//! `outbox`: messages that left, or are about to, or were given up.

use clap::builder::PossibleValuesParser;
use serde_json::{Map, Value, json};

use super::{
    Exit,
    client::Listing,
    context::{Context, Paging, ago, str, time},
    failure::{Failure, Result},
    table::{Cell, Fields, Table, one_line},
};
use crate::{
    clock::Timestamp,
    id::{AgentId, Id as _},
};

pub(super) const EXAMPLES: &str = "\
Examples:
  bellpull outbox --status dead
  bellpull outbox show msg_01jv…
  bellpull outbox retry msg_01jv…
  bellpull outbox callback agent_01jv… --to https://example.com/results
  bellpull outbox callback shop --to \"$SLACK_URL\" --event session.failed
  bellpull outbox test shop              a message that tells nothing, to see one come
  bellpull outbox rotate shop --overlap-seconds 86400

An OWNER is the id of an agent or the name of a source.

docs/callbacks.md says what is sent, and how to verify it.";

#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    action: Option<Action>,
    #[command(flatten)]
    filter: Filter,
}

#[derive(Debug, clap::Subcommand)]
enum Action {
    /// List messages, newest first (the same as without a command)
    List(Filter),
    /// Show a message with its body
    Show {
        /// Its id
        #[arg(value_name = "MESSAGE")]
        id: String,
    },
    /// Send a message again that was given up, or now instead of later
    Retry {
        /// Its id
        #[arg(value_name = "MESSAGE")]
        id: String,
    },
    /// Say where the results of an agent or a source go; a signing secret that is made is shown once
    Callback {
        /// The id of an agent, or the name of a source
        #[arg(value_name = "OWNER")]
        owner: String,
        #[command(flatten)]
        change: Change,
    },
    /// Send a test to a callback
    Test {
        /// The id of an agent, or the name of a source
        #[arg(value_name = "OWNER")]
        owner: String,
    },
    /// Make a new signing secret for a callback, and show it once
    Rotate {
        /// The id of an agent, or the name of a source
        #[arg(value_name = "OWNER")]
        owner: String,
        /// Seconds in which the old one signs too
        #[arg(long, value_name = "SECONDS", default_value_t = 0)]
        overlap_seconds: u64,
    },
}

#[derive(Debug, clap::Args)]
#[group(required = true, multiple = true)]
struct Change {
    /// Where to
    #[arg(long, value_name = "URL")]
    to: Option<String>,
    /// Only this kind; may be given several times
    #[arg(long = "event", value_name = "KIND", value_parser = PossibleValuesParser::new(KINDS))]
    events: Vec<String>,
    /// How it is written
    #[arg(long, value_name = "FORMAT", value_parser = PossibleValuesParser::new(FORMATS))]
    format: Option<String>,
    /// Nowhere
    #[arg(long, conflicts_with_all = ["to", "events", "format"])]
    none: bool,
}

const KINDS: [&str; 4] =
    ["session.idle", "session.failed", "session.needs_approval", "session.budget_reached"];

const FORMATS: [&str; 2] = ["standard", "slack"];

#[derive(Clone, Debug, Default, PartialEq, Eq, clap::Args)]
struct Filter {
    /// With this status
    #[arg(long, value_name = "STATUS", value_parser = PossibleValuesParser::new(STATUSES))]
    status: Option<String>,
    /// Of this session
    #[arg(long, value_name = "SESSION")]
    session: Option<String>,
    /// To the callback of this agent or source, by id
    #[arg(long, value_name = "OWNER")]
    owner: Option<String>,
    #[command(flatten)]
    paging: Paging,
}

const STATUSES: [&str; 3] = ["waiting", "sent", "dead"];

const PATH: [&str; 2] = ["v1", "outbox"];

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
        Action::Retry { id } => retry(&id, context).await,
        Action::Callback { owner, change } => callback(&owner, change, context).await,
        Action::Test { owner } => test(&owner, context).await,
        Action::Rotate { owner, overlap_seconds } => rotate(&owner, overlap_seconds, context).await,
    }
}

async fn list(filter: Filter, context: &mut Context<'_>) -> Result<Exit> {
    let fields =
        [("status", &filter.status), ("session_id", &filter.session), ("owner", &filter.owner)];
    let query: Vec<(&str, &str)> =
        fields.iter().filter_map(|(name, value)| Some((*name, value.as_deref()?))).collect();
    let listing = context.list("list the messages", &PATH, &query, &filter.paging).await?;
    context.print_list(&listing, "messages", table)?;
    Ok(Exit::Fine)
}

fn table(listing: &Listing, now: Timestamp) -> Table {
    let mut table = Table::new(&["ID", "CREATED", "KIND", "STATUS", "TRIES", "ERROR…", "SESSION?"]);
    for message in &listing.data {
        table.row(vec![
            Cell::strong(str(&message["id"])),
            ago(now, &message["created_at"]),
            Cell::new(str(&message["kind"])),
            Cell::badge(str(&message["status"])),
            Cell::new(message["attempts"].to_string()),
            Cell::new(str(&message["last_error"])),
            Cell::new(str(&message["session_id"])),
        ]);
    }
    table
}

async fn show(id: &str, context: &mut Context<'_>) -> Result<Exit> {
    let what = format!("show the message `{id}`");
    let message = context.client.get(&what, &["v1", "outbox", id], &[]).await?;
    print(&message, true, context)
}

async fn retry(id: &str, context: &mut Context<'_>) -> Result<Exit> {
    let what = format!("send the message `{id}` again");
    let message = context.client.post(&what, &["v1", "outbox", id, "retry"], &json!({})).await?;
    print(&message, false, context)
}

/// What an owner is, in a path of the API.
fn kind(owner: &str) -> &'static str {
    if owner.starts_with(AgentId::PREFIX) { "agents" } else { "sources" }
}

async fn callback(owner: &str, change: Change, context: &mut Context<'_>) -> Result<Exit> {
    let Change { to, events, format, none } = change;
    let mut wish = Map::new();
    wish.extend(to.map(|url| ("url".to_owned(), url.into())));
    wish.extend((!events.is_empty()).then(|| ("events".to_owned(), events.into())));
    wish.extend(format.map(|format| ("format".to_owned(), format.into())));
    let wish = if none { Value::Null } else { Value::Object(wish) };
    let what = format!("change the callback of `{owner}`");
    let body = json!({"callback": wish});
    let answer = context.client.post(&what, &["v1", kind(owner), owner], &body).await?;
    let callback = &answer["callback"];
    if context.json {
        context.io.json(callback)?;
    } else if let Some(secret) = callback["secret"].as_str() {
        secret_once(secret, context)?;
    } else {
        let to = callback["url"].as_str().unwrap_or("nowhere");
        context.io.line(format!("{}  {}", one_line(owner), one_line(to)))?;
    }
    Ok(Exit::Fine)
}

async fn test(owner: &str, context: &mut Context<'_>) -> Result<Exit> {
    let what = format!("test the callback of `{owner}`");
    let path = ["v1", kind(owner), owner, "callback", "test"];
    let message = context.client.post(&what, &path, &json!({})).await?;
    print(&message, false, context)
}

async fn rotate(owner: &str, overlap_seconds: u64, context: &mut Context<'_>) -> Result<Exit> {
    let what = format!("make a new signing secret for `{owner}`");
    let path = ["v1", kind(owner), owner, "callback", "secret"];
    let body = json!({"overlap_seconds": overlap_seconds});
    let answer = context.client.post(&what, &path, &body).await?;
    if context.json {
        context.io.json(&answer)?;
        return Ok(Exit::Fine);
    }
    let secret = answer["secret"].as_str();
    secret_once(secret.ok_or_else(|| Failure::new(what, "the answer holds no secret"))?, context)?;
    Ok(Exit::Fine)
}

/// Alone on the output, for a variable or a pipe.
fn secret_once(secret: &str, context: &mut Context<'_>) -> Result<()> {
    context.io.line(secret)?;
    context.io.note("messages are signed with this secret; it is not shown again")?;
    Ok(())
}

fn print(message: &Value, whole: bool, context: &mut Context<'_>) -> Result<Exit> {
    if context.json {
        context.io.json(message)?;
        return Ok(Exit::Fine);
    }
    let now = context.io.clock.now();
    let mut fields = Fields::default();
    fields
        .add("id", Cell::strong(str(&message["id"])))
        .add("kind", Cell::new(str(&message["kind"])))
        .with("status", Cell::badge(str(&message["status"])), str(&message["last_error"]))
        .add("owner", Cell::new(str(&message["owner"])))
        .add("session", Cell::new(str(&message["session_id"])))
        .add("attempts", Cell::new(message["attempts"].to_string()));
    for (name, key) in [
        ("created", "created_at"),
        ("last attempt", "last_attempt_at"),
        ("next attempt", "next_attempt_at"),
        ("ended", "ended_at"),
    ] {
        time(&mut fields, name, now, &message[key]);
    }
    context.print_fields(&fields)?;
    if whole {
        context.io.json(&message["body"])?;
    }
    Ok(Exit::Fine)
}
