//! `deliveries`: what came in, what was decided about it, and what became of it.

use std::io::Write as _;

use clap::builder::PossibleValuesParser;
use serde_json::Value;

use super::{
    Exit,
    client::{Listing, cause, read},
    context::{Context, Names, Paging, ago, str, time},
    failure::{Failure, Result},
    style::size,
    table::{Cell, Fields, Table, one_line},
};
use crate::{
    clock::Timestamp,
    domain::{delivery::Outcome, text::printable},
};

pub(super) const EXAMPLES: &str = "\
Examples:
  bellpull deliveries --source stripe --outcome failed
  bellpull deliveries show dlv_01jv…
  bellpull deliveries show dlv_01jv… --body > body.json     the bytes as they came
  bellpull deliveries attempts dlv_01jv…                    every request for it, with time

The status is what was decided when it arrived, the outcome is what the agent made of it.";

#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    action: Option<Action>,
    #[command(flatten)]
    filter: Filter,
}

#[derive(Debug, clap::Subcommand)]
enum Action {
    /// List deliveries, newest first (the same as without a command)
    List(Filter),
    /// Show a delivery with its headers, or its body
    Show {
        /// Its id
        #[arg(value_name = "DELIVERY")]
        id: String,
        /// Print the body and nothing else: as it came into a file or pipe, harmless on a terminal
        #[arg(long)]
        body: bool,
    },
    /// List the requests for a delivery: the first one and the sender's repeats
    Attempts {
        /// Its id
        #[arg(value_name = "DELIVERY")]
        id: String,
    },
    /// Erase a delivery's body and message; its identity stays, so it is not taken again
    Erase {
        /// Its id
        #[arg(value_name = "DELIVERY")]
        id: String,
        /// Do not ask
        #[arg(long, short)]
        yes: bool,
    },
}

#[derive(Clone, Debug, Default, PartialEq, Eq, clap::Args)]
struct Filter {
    /// Of this source, by name or id
    #[arg(long, value_name = "SOURCE")]
    source: Option<String>,
    /// With this status
    #[arg(long, value_name = "STATUS", value_parser = ["accepted", "filtered", "held"])]
    status: Option<String>,
    /// With this outcome
    #[arg(long, value_name = "OUTCOME", value_parser = PossibleValuesParser::new(Outcome::ALL.map(Outcome::as_str)))]
    outcome: Option<String>,
    /// For this session
    #[arg(long, value_name = "SESSION")]
    session: Option<String>,
    /// Of this type, as the sender names it
    #[arg(long, value_name = "TYPE")]
    event_type: Option<String>,
    #[command(flatten)]
    paging: Paging,
}

const PATH: [&str; 2] = ["v1", "deliveries"];

pub(super) async fn run(args: Args, context: &mut Context<'_>) -> Result<Exit> {
    let Some(action) = args.action else {
        return list(args.filter, context).await;
    };
    if args.filter != Filter::default() {
        return Err(Failure::wrong("filters are for the list"));
    }
    match action {
        Action::List(filter) => list(filter, context).await,
        Action::Show { id, body: false } => show(&id, context).await,
        Action::Show { id, body: true } => body(&id, context).await,
        Action::Attempts { id } => attempts(&id, context).await,
        Action::Erase { id, yes } => erase(&id, yes, context).await,
    }
}

async fn list(filter: Filter, context: &mut Context<'_>) -> Result<Exit> {
    let fields = [
        ("source", &filter.source),
        ("status", &filter.status),
        ("outcome", &filter.outcome),
        ("session_id", &filter.session),
        ("event_type", &filter.event_type),
    ];
    let query: Vec<(&str, &str)> =
        fields.iter().filter_map(|(name, value)| Some((*name, value.as_deref()?))).collect();
    let listing = context.list("list the deliveries", &PATH, &query, &filter.paging).await;
    let listing = match (listing, &filter.source) {
        (Err(failure), Some(source)) if failure.has_status(400) => {
            let sources = ["v1", "sources"];
            return Err(context.nearest(failure, source, &sources, &["name"]).await);
        }
        (listing, _) => listing?,
    };
    let names = context.names(&listing).await;
    context.print_list(&listing, "deliveries", |listing, now| table(listing, &names, now))?;
    Ok(Exit::Fine)
}

fn table(listing: &Listing, names: &Names, now: Timestamp) -> Table {
    let has_reasons = listing.data.iter().any(|delivery| delivery["reason"].is_string());
    // A badge is never cut, a reason may be.
    let outcome = if has_reasons { "OUTCOME…" } else { "OUTCOME" };
    let mut headings = vec!["ID", "RECEIVED", "SOURCE…", "EVENT…", "STATUS", outcome, "TRIES?"];
    // Most lists have none.
    let has_replays = listing.data.iter().any(|it| !replay(it).is_empty());
    headings.extend(has_replays.then_some("REPLAY"));
    headings.push("SESSION?");
    let mut table = Table::new(&headings);
    for delivery in &listing.data {
        let attempts = delivery["attempts"].as_i64().unwrap_or(1);
        let outcome = match delivery["reason"].as_str() {
            Some(reason) => Cell::dim(reason),
            None => Cell::badge(str(&delivery["outcome"])),
        };
        let mut row = vec![
            Cell::strong(str(&delivery["id"])),
            ago(now, &delivery["received_at"]),
            Cell::new(names.source(&delivery["source"])),
            Cell::new(str(&delivery["event_type"])),
            Cell::badge(str(&delivery["status"])),
            outcome,
            Cell::new(if attempts > 1 { attempts.to_string() } else { String::new() }),
        ];
        if has_replays {
            row.push(Cell::badge(replay(delivery)));
        }
        row.push(Cell::new(str(&delivery["session_id"])));
        table.row(row);
    }
    table
}

/// What a list says about a delivery's replays.
fn replay(delivery: &Value) -> &'static str {
    let is_replayed = delivery["replays"].as_i64().is_some_and(|n| n > 0);
    match delivery["possible_replay_of"].is_string() {
        _ if delivery["replay_of"].is_string() => "replay",
        _ if is_replayed => "replayed",
        true => "possible",
        false => "",
    }
}

/// The delivery's JSON.
async fn get(id: &str, context: &Context<'_>) -> Result<Value> {
    let what = format!("show the delivery `{id}`");
    let found = context.client.get(&what, &["v1", "deliveries", id], &[]).await;
    context.or_nearest(found, id, &PATH, &["id"]).await
}

async fn show(id: &str, context: &mut Context<'_>) -> Result<Exit> {
    let delivery = get(id, context).await?;
    if context.json {
        context.io.json(&delivery)?;
        return Ok(Exit::Fine);
    }
    let now = context.io.clock.now();
    let query = [("replay_of", id)];
    let replays = context.client.list("list its replays", &PATH, &query, None, REPLAYS_MAX).await?;
    context.print_fields(&fields(&delivery, &replays, now))?;
    let style = context.io.style();
    for (at, (name, values)) in delivery["headers"].as_object().into_iter().flatten().enumerate() {
        if at == 0 {
            context.io.line("")?;
        }
        let name = style.dim(&format!("{}:", one_line(name)));
        for value in values.as_array().into_iter().flatten() {
            context.io.line(format!("{name} {}", one_line(str(value))))?;
        }
    }
    Ok(Exit::Fine)
}

/// Replays that are shown with a delivery, the newest ones.
const REPLAYS_MAX: usize = 10;

fn fields(delivery: &Value, replays: &Listing, now: Timestamp) -> Fields {
    let text = |name: &str| Cell::new(str(&delivery[name]));
    let mut fields = Fields::default();
    fields
        .add("id", Cell::strong(str(&delivery["id"])))
        .with("source", text("source"), str(&delivery["source_id"]))
        .add("event", text("event_type"))
        .with("status", Cell::badge(str(&delivery["status"])), str(&delivery["reason"]))
        .add("outcome", Cell::badge(str(&delivery["outcome"])))
        .add("agent", text("agent_id"));
    let session = str(&delivery["session_id"]);
    fields.with("session", Cell::new(session), &format!("bellpull tail {session}"));
    fields.add("turn", text("turn_id"));
    time(&mut fields, "received", now, &delivery["received_at"]);
    let identity = &delivery["identity"];
    let weak = if identity["weak"] == true { ", which a proxy may rewrite" } else { "" };
    let from = match str(&identity["field"]) {
        "none" => "made up: the sender gave none".to_owned(),
        "body_hash" => "hash of the body: the sender gave none".to_owned(),
        "replay" => "made up for a replay".to_owned(),
        field => format!("from {field}{weak}"),
    };
    fields.with("identity", Cell::new(str(&identity["key"])), &from);
    if let Some(earlier) = delivery["possible_replay_of"].as_str() {
        fields.with("replay", Cell::badge("possible"), &format!("{earlier} had the same body"));
    }
    fields.add("replay of", text("replay_of"));
    for replay in &replays.data {
        let became = format!("{} {}", str(&replay["status"]), str(&replay["outcome"]));
        fields.with("replayed as", Cell::new(str(&replay["id"])), became.trim_end());
    }
    if replays.next_page.is_some() {
        fields.add("", Cell::dim("and by older ones"));
    }
    if let Some(name) = delivery["secret"]["name"].as_str() {
        let version = format!("version {}", delivery["secret"]["version"]);
        fields.with("let in by", Cell::new(name), &version);
    }
    let attempts = delivery["attempts"].as_i64().unwrap_or(1);
    fields.add("attempts", Cell::new(attempts.to_string()));
    let bytes = u64::try_from(delivery["body_bytes"].as_i64().unwrap_or(0)).unwrap_or(0);
    fields.with("body", Cell::new(size(bytes)), str(&delivery["content_type"]));
    fields.add("request", text("request_id"));
    fields.add("trace", text("trace_id"));
    time(&mut fields, "erased", now, &delivery["erased_at"]);
    fields
}

async fn body(id: &str, context: &mut Context<'_>) -> Result<Exit> {
    if context.json {
        return Err(Failure::wrong("`--body` prints bytes, which `--json` cannot"));
    }
    let what = format!("read the body of the delivery `{id}`");
    let url = context.client.url(&["v1", "deliveries", id, "body"], &[])?;
    let opened = context.client.open(&what, url, &[]).await;
    let mut answer = context.or_nearest(opened, id, &PATH, &["id"]).await?;
    if context.io.out_is_terminal {
        let bytes = read(&what, answer).await?;
        let text = String::from_utf8_lossy(&bytes).replace("\r\n", "\n");
        context.io.line(printable(text.trim_end_matches('\n')))?;
        return Ok(Exit::Fine);
    }
    loop {
        let chunk = answer.chunk().await.map_err(|error| {
            Failure::new(&what, format!("the answer broke off: {}", cause(&error)))
        })?;
        let Some(chunk) = chunk else {
            return Ok(Exit::Fine);
        };
        context.io.out.write_all(&chunk)?;
    }
}

async fn attempts(id: &str, context: &mut Context<'_>) -> Result<Exit> {
    let what = format!("list the attempts of the delivery `{id}`");
    let path = ["v1", "deliveries", id, "attempts"];
    let found = context.client.get(&what, &path, &[]).await;
    let mut found = context.or_nearest(found, id, &PATH, &["id"]).await?;
    if context.json {
        context.io.json(&found)?;
        return Ok(Exit::Fine);
    }
    let Value::Array(data) = found["data"].take() else {
        return Err(Failure::new(what, "the answer has no `data`"));
    };
    let listing = Listing { data, next_page: found["next_page"].as_str().map(str::to_owned) };
    context.print_list(&listing, "attempts", |listing, now| {
        let mut table = Table::new(&["ATTEMPT", "RECEIVED", "TIME", "REQUEST"]);
        for (at, attempt) in listing.data.iter().enumerate() {
            let n = attempt["attempt"].as_i64().or(attempt["n"].as_i64());
            table.row(vec![
                Cell::new(n.map_or_else(|| (at + 1).to_string(), |n| n.to_string())),
                ago(now, &attempt["received_at"]),
                Cell::new(str(&attempt["received_at"])),
                Cell::new(str(&attempt["request_id"])),
            ]);
        }
        table
    })?;
    Ok(Exit::Fine)
}

async fn erase(id: &str, yes: bool, context: &mut Context<'_>) -> Result<Exit> {
    if !yes && !context.io.confirm(&format!("Erase body and message of `{id}`, for good?"))? {
        return Ok(Exit::Failed);
    }
    let what = format!("erase the delivery `{id}`");
    let erased = context.client.delete(&what, &["v1", "deliveries", id]).await;
    let erased = context.or_nearest(erased, id, &PATH, &["id"]).await?;
    if context.json {
        context.io.json(&erased)?;
    } else {
        context.io.line(format!("{}  erased", one_line(id)))?;
    }
    Ok(Exit::Fine)
}
