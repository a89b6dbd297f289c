//! `replay`: deliveries made again, one by one or those of a source that fit.
//!
//! Many are replayed in calls of a few, in the order in which they came. Invariant: what was done is
//! told, also when what is left could not be.

use clap::builder::PossibleValuesParser;
use serde_json::{Map, Value, json};

use super::{
    Exit,
    context::{Context, str},
    failure::{Failure, Result},
    moment::{Moment, moment},
    table::{Cell, Table},
};
use crate::domain::delivery::Outcome;

pub(super) const EXAMPLES: &str = "\
Examples:
  bellpull replay dlv_01jv…                                   as the source is now
  bellpull replay dlv_01jv… dlv_01jw… --agent lucy --version 3
  bellpull replay --source code --status held --since 7d --dry-run
  bellpull replay --source code --status held --since 7d      releases what was held
  bellpull replay --source code --outcome failed --again      also those that were replayed before

A replay is a new delivery, made of the bytes and headers that were stored. It is routed as its
source is now, but neither a filter nor a pause keeps it back. With --agent or --version it goes
to a session of its own. Replaying twice makes two; with --source, replays themselves and
deliveries of which a replay was accepted are left out, so a command can be given again.";

/// Deliveries that one call replays: few enough to tell of progress.
const CALL_MAX: u64 = 50;

#[derive(Debug, clap::Args)]
#[command(group = clap::ArgGroup::new("which").required(true))]
pub struct Args {
    /// Deliveries, by their ids
    #[arg(value_name = "DELIVERY", group = "which")]
    ids: Vec<String>,
    /// Those of this source, by name or id, in the order in which they came
    #[arg(long, value_name = "SOURCE", group = "which")]
    source: Option<String>,
    /// With this status
    #[arg(long, value_name = "STATUS", requires = "source", value_parser = ["accepted", "filtered", "held"])]
    status: Option<String>,
    /// With this outcome
    #[arg(long, value_name = "OUTCOME", requires = "source", value_parser = PossibleValuesParser::new(Outcome::ALL.map(Outcome::as_str)))]
    outcome: Option<String>,
    /// Of this type, as the sender names it
    #[arg(long, value_name = "TYPE", requires = "source")]
    event_type: Option<String>,
    /// That came since then, such as `7d`, `12h`, `30m` or 2026-11-22T07:00:00Z
    #[arg(long, value_name = "TIME", requires = "source", value_parser = moment)]
    since: Option<Moment>,
    /// That came before then [default: now]
    #[arg(long, value_name = "TIME", requires = "source", value_parser = moment)]
    until: Option<Moment>,
    /// So many at most
    #[arg(long, value_name = "N", requires = "source", default_value_t = 1000, value_parser = clap::value_parser!(u64).range(1..=100_000))]
    limit: u64,
    /// Also those of which a replay was accepted
    #[arg(long, requires = "source")]
    again: bool,
    /// Only show what would become of them
    #[arg(long, requires = "source")]
    dry_run: bool,
    /// Agent to send them to, by id or name [default: as the source says]
    #[arg(long, value_name = "AGENT")]
    agent: Option<String>,
    /// Version of the agent [default: the newest]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    version: Option<u32>,
}

pub(super) async fn run(args: Args, context: &mut Context<'_>) -> Result<Exit> {
    match &args.source {
        Some(source) => many(source, &args, context).await,
        None => each(&args, context).await,
    }
}

impl Args {
    fn order(&self) -> Map<String, Value> {
        let mut order = Map::new();
        order.extend(self.agent.as_ref().map(|it| ("agent".to_owned(), json!(it))));
        order.extend(self.version.map(|it| ("version".to_owned(), json!(it))));
        order
    }
}

/// Those that were named. One that cannot be replayed does not keep the others from it.
async fn each(args: &Args, context: &mut Context<'_>) -> Result<Exit> {
    let mut done = Vec::new();
    let mut n_failed = 0;
    for id in &args.ids {
        let what = format!("replay the delivery `{id}`");
        let path = ["v1", "deliveries", id, "replay"];
        let made = context.client.post(&what, &path, &args.order().into()).await;
        match context.or_nearest(made, id, &["v1", "deliveries"], &["id"]).await {
            Ok(mut made) => {
                made["delivery_id"] = made["id"].take();
                made["replay_of"] = id.as_str().into();
                done.push(made);
            }
            Err(failure) if args.ids.len() == 1 => return Err(failure),
            Err(failure) => {
                n_failed += 1;
                done.push(json!({"replay_of": id, "error": failure.to_string()}));
            }
        }
    }
    tell(&done, None, false, context)?;
    Ok(if n_failed == 0 { Exit::Fine } else { Exit::Failed })
}

async fn many(source: &str, args: &Args, context: &mut Context<'_>) -> Result<Exit> {
    let what = format!("replay deliveries of the source `{source}`");
    let now = context.io.clock.now();
    let mut body = args.order();
    let mut set = |name: &str, value: Option<Value>| {
        body.extend(value.map(|value| (name.to_owned(), value)));
    };
    set("status", args.status.as_deref().map(Value::from));
    set("outcome", args.outcome.as_deref().map(Value::from));
    set("event_type", args.event_type.as_deref().map(Value::from));
    set("since", args.since.map(|it| json!(it.of(now))));
    set("until", args.until.map(|it| json!(it.of(now))));
    set("again", args.again.then_some(true.into()));
    set("dry_run", args.dry_run.then_some(true.into()));
    let mut done: Vec<Value> = Vec::new();
    let path = ["v1", "sources", source, "replay"];
    loop {
        let left = args.limit - done.len() as u64;
        body.insert("limit".to_owned(), left.min(CALL_MAX).into());
        let answer = context.client.post(&what, &path, &Value::from(body.clone())).await;
        let answer = context.or_nearest(answer, source, &["v1", "sources"], &["name"]).await;
        let mut answer = match answer {
            Ok(answer) => answer,
            Err(failure) if done.is_empty() => return Err(failure),
            Err(failure) => {
                tell(&done, None, args.dry_run, context)?;
                return Err(failure.hint("the same command again does what is left"));
            }
        };
        if let Value::Array(data) = answer["data"].take() {
            done.extend(data);
        }
        if let Some(reason) = answer["stopped"].as_str() {
            tell(&done, None, args.dry_run, context)?;
            let failure = Failure::new(what, reason);
            return Err(failure.hint("the same command again does what is left"));
        }
        let next = answer["next_page"].take();
        if next.is_null() || done.len() as u64 >= args.limit {
            tell(&done, next.as_str(), args.dry_run, context)?;
            break;
        }
        context.io.note(format!("{} so far", done.len()))?;
        body.insert("page".to_owned(), next);
    }
    let is_fine = args.dry_run || done.iter().all(|it| it["error"].is_null());
    Ok(if is_fine { Exit::Fine } else { Exit::Failed })
}

fn tell(
    done: &[Value],
    next: Option<&str>,
    dry_run: bool,
    context: &mut Context<'_>,
) -> Result<()> {
    if context.json {
        return context.io.json(&json!({"data": done, "next_page": next}));
    }
    if done.is_empty() {
        return context.io.note("no deliveries that fit, or all of them were replayed before");
    }
    let mut table = Table::new(&["REPLAYED", "AS?", "EVENT…", "STATUS", "AGENT?", "GOES TO…"]);
    let count = |status: &str| done.iter().filter(|it| it["status"] == status).count();
    for it in done {
        let (status, goes_to) = match it["error"].as_str() {
            Some(error) => ("failed", Cell::dim(error)),
            None => (str(&it["status"]), goes_to(it)),
        };
        table.row(vec![
            Cell::strong(str(&it["replay_of"])),
            Cell::new(str(&it["delivery_id"])),
            Cell::new(str(&it["event_type"])),
            Cell::badge(status),
            Cell::new(str(&it["agent_id"])),
            goes_to,
        ]);
    }
    context.print_table(&table)?;
    let n_failed = done.iter().filter(|it| it["error"].is_string()).count();
    let verb = if dry_run { "would be replayed" } else { "replayed" };
    let mut parts = vec![format!("{} accepted", count("accepted"))];
    let held = if dry_run { "held" } else { "held again" };
    let others = [(count("held"), held), (count("filtered"), "filtered"), (n_failed, "failed")];
    parts.extend(others.iter().filter(|it| it.0 > 0).map(|(n, word)| format!("{n} {word}")));
    context.io.note(format!("{} {verb}: {}", done.len() - n_failed, parts.join(", ")))?;
    if next.is_some() {
        context.io.note("there are more; a larger --limit takes them too")?;
    }
    Ok(())
}

/// The session, or what keeps it from one.
fn goes_to(it: &Value) -> Cell {
    if let Some(reason) = it["reason"].as_str() {
        return Cell::dim(reason);
    }
    let key = it["target"]["key"].as_str().map(|key| format!("key {key}"));
    let place = it["session_id"].as_str().or(it["target"].as_str()).map(str::to_owned);
    Cell::new(key.or(place).unwrap_or_default())
}
