//! `deployments`: what starts sessions by a schedule or by hand, and what became of it.

use serde_json::{Value, json};

use super::{
    Exit,
    client::Listing,
    context::{Context, Paging, ago, str},
    failure::Result,
    table::{Cell, Fields, Table, one_line},
};
use crate::clock::Timestamp;

pub(super) const EXAMPLES: &str = "\
Examples:
  bellpull deployments                              what there is, and when it comes next
  bellpull deployments show depl_01jv…              its schedule, its next times, what it starts with
  bellpull deployments run depl_01jv…               start a session now, paused or not
  bellpull deployments runs depl_01jv… --failed     times at which no session was started, and why
  bellpull deployments pause depl_01jv…             its schedule rests; unpause makes up for nothing

A deployment whose run failed for a reason that stays, such as an archived environment, is paused by
the server: mend it, then unpause it. Deployments are made over the API, with `POST /v1/deployments`.";

#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    action: Option<Action>,
    #[command(flatten)]
    filter: Filter,
}

#[derive(Debug, clap::Subcommand)]
enum Action {
    /// List deployments, newest first (the same as without a command)
    List(Filter),
    /// Show a deployment
    Show {
        /// Its id
        #[arg(value_name = "DEPLOYMENT")]
        id: String,
    },
    /// Start a session now; prints its id
    Run {
        /// The deployment
        #[arg(value_name = "DEPLOYMENT")]
        id: String,
    },
    /// Let its schedule rest; it may still be run by hand
    Pause {
        /// The deployment
        #[arg(value_name = "DEPLOYMENT")]
        id: String,
    },
    /// Let its schedule go on, with the next time that comes
    Unpause {
        /// The deployment
        #[arg(value_name = "DEPLOYMENT")]
        id: String,
    },
    /// List runs, newest first
    Runs {
        /// Of this deployment only
        #[arg(value_name = "DEPLOYMENT")]
        id: Option<String>,
        /// Only those that started no session
        #[arg(long)]
        failed: bool,
        /// Only those of this trigger
        #[arg(long, value_name = "TRIGGER", value_parser = ["schedule", "manual"])]
        trigger: Option<String>,
        #[command(flatten)]
        paging: Paging,
    },
}

#[derive(Clone, Debug, Default, PartialEq, Eq, clap::Args)]
struct Filter {
    /// Of this agent, by id or name
    #[arg(long, value_name = "AGENT")]
    agent: Option<String>,
    /// With this status
    #[arg(long, value_name = "STATUS", value_parser = ["active", "paused"])]
    status: Option<String>,
    /// Archived ones too
    #[arg(long, conflicts_with = "status")]
    archived: bool,
    #[command(flatten)]
    paging: Paging,
}

const PATH: [&str; 2] = ["v1", "deployments"];
const RUNS: [&str; 2] = ["v1", "deployment_runs"];

pub(super) async fn run(args: Args, context: &mut Context<'_>) -> Result<Exit> {
    match args.action {
        None => list(args.filter, context).await,
        Some(Action::List(filter)) => list(filter, context).await,
        Some(Action::Show { id }) => show(&id, context).await,
        Some(Action::Run { id }) => run_now(&id, context).await,
        Some(Action::Pause { id }) => change(&id, "pause", context).await,
        Some(Action::Unpause { id }) => change(&id, "unpause", context).await,
        Some(Action::Runs { id, failed, trigger, paging }) => {
            let mut query: Vec<(&str, &str)> = Vec::new();
            query.extend(id.as_deref().map(|id| ("deployment_id", id)));
            query.extend(failed.then_some(("has_error", "true")));
            query.extend(trigger.as_deref().map(|it| ("trigger_type", it)));
            let listing = context.list("list the runs", &RUNS, &query, &paging).await?;
            context.print_list(&listing, "runs", runs_table)?;
            Ok(Exit::Fine)
        }
    }
}

async fn list(filter: Filter, context: &mut Context<'_>) -> Result<Exit> {
    let agent = match &filter.agent {
        Some(agent) => Some(context.agent_id(agent).await?),
        None => None,
    };
    let mut query: Vec<(&str, &str)> = Vec::new();
    query.extend(agent.as_deref().map(|agent| ("agent_id", agent)));
    query.extend(filter.status.as_deref().map(|status| ("status", status)));
    query.extend(filter.archived.then_some(("include_archived", "true")));
    let listing = context.list("list the deployments", &PATH, &query, &filter.paging).await?;
    context.print_list(&listing, "deployments", |listing, _| table(listing))?;
    Ok(Exit::Fine)
}

async fn show(id: &str, context: &mut Context<'_>) -> Result<Exit> {
    let what = format!("show the deployment `{id}`");
    let found = context.client.get(&what, &[PATH[0], PATH[1], id], &[]).await;
    let found = context.or_nearest(found, id, &PATH, &["id", "name"]).await?;
    if context.json {
        context.io.json(&found)?;
        return Ok(Exit::Fine);
    }
    let mut fields = Fields::default();
    fields
        .add("id", Cell::strong(str(&found["id"])))
        .add("name", Cell::new(str(&found["name"])))
        .add("description", Cell::new(str(&found["description"])))
        .add("status", Cell::badge(status(&found)))
        .add("because of", Cell::new(str(&found["paused_reason"]["error"]["type"])))
        .add("agent", Cell::new(str(&found["agent"]["id"])))
        .add("version", Cell::new(found["agent"]["version"].to_string()))
        .add("environment", Cell::new(str(&found["environment_id"])))
        .add("schedule", Cell::new(schedule(&found)))
        .add("last run", Cell::new(str(&found["schedule"]["last_run_at"])));
    for time in found["schedule"]["upcoming_runs_at"].as_array().into_iter().flatten() {
        fields.add("next", Cell::new(str(time)));
    }
    for event in found["initial_events"].as_array().into_iter().flatten() {
        let said = event["content"][0]["text"].as_str().unwrap_or_default();
        fields.with("starts with", Cell::new(str(&event["type"])), said);
    }
    for resource in found["resources"].as_array().into_iter().flatten() {
        fields.with("file", Cell::new(str(&resource["file_id"])), str(&resource["mount_path"]));
    }
    context.print_fields(&fields)?;
    Ok(Exit::Fine)
}

async fn run_now(id: &str, context: &mut Context<'_>) -> Result<Exit> {
    let what = format!("run the deployment `{id}`");
    let run = context.client.post(&what, &[PATH[0], PATH[1], id, "run"], &json!({})).await;
    let run = context.or_nearest(run, id, &PATH, &["id"]).await?;
    let failed = run["session_id"].is_null();
    if context.json {
        context.io.json(&run)?;
    } else if failed {
        let (kind, message) = (str(&run["error"]["type"]), str(&run["error"]["message"]));
        context.io.line(one_line(&format!("{kind}: {message}")))?;
    } else {
        context.io.line(one_line(str(&run["session_id"])))?;
    }
    Ok(if failed { Exit::Failed } else { Exit::Fine })
}

async fn change(id: &str, verb: &'static str, context: &mut Context<'_>) -> Result<Exit> {
    let what = format!("{verb} the deployment `{id}`");
    let changed = context.client.post(&what, &[PATH[0], PATH[1], id, verb], &json!({})).await;
    let changed = context.or_nearest(changed, id, &PATH, &["id"]).await?;
    if context.json {
        context.io.json(&changed)?;
    } else {
        let line = format!("{}  {}", status(&changed), str(&changed["id"]));
        context.io.line(one_line(&line))?;
    }
    Ok(Exit::Fine)
}

/// An archived one reads `active` in the API.
fn status(deployment: &Value) -> &str {
    match deployment["archived_at"].is_null() {
        true => str(&deployment["status"]),
        false => "archived",
    }
}

fn schedule(deployment: &Value) -> String {
    let schedule = &deployment["schedule"];
    match schedule.is_null() {
        true => "by hand only".to_owned(),
        false => format!("{} {}", str(&schedule["expression"]), str(&schedule["timezone"])),
    }
}

fn table(listing: &Listing) -> Table {
    let mut table = Table::new(&["ID", "NAME…", "AGENT?", "STATUS", "SCHEDULE…", "NEXT?"]);
    for deployment in &listing.data {
        let next = &deployment["schedule"]["upcoming_runs_at"][0];
        let next = if deployment["status"] == "paused" { &Value::Null } else { next };
        table.row(vec![
            Cell::strong(str(&deployment["id"])),
            Cell::new(str(&deployment["name"])),
            Cell::new(str(&deployment["agent"]["id"])),
            Cell::badge(status(deployment)),
            Cell::new(schedule(deployment)),
            Cell::new(str(next)),
        ]);
    }
    table
}

fn runs_table(listing: &Listing, now: Timestamp) -> Table {
    let mut table =
        Table::new(&["ID", "CREATED", "DEPLOYMENT", "TRIGGER", "FOR?", "SESSION", "ERROR…"]);
    for run in &listing.data {
        table.row(vec![
            Cell::strong(str(&run["id"])),
            ago(now, &run["created_at"]),
            Cell::new(str(&run["deployment_id"])),
            Cell::new(str(&run["trigger_context"]["type"])),
            Cell::new(str(&run["trigger_context"]["scheduled_at"])),
            Cell::new(str(&run["session_id"])),
            Cell::new(str(&run["error"]["message"])),
        ]);
    }
    table
}
