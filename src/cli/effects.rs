//! `effects`: what agents did outside, and what nobody knows to have been done.

use serde_json::json;

use super::{
    Exit,
    client::Listing,
    context::{Context, Paging, ago, str},
    failure::Result,
    table::{Cell, Table, one_line},
};
use crate::clock::Timestamp;

pub(super) const EXAMPLES: &str = "\
Examples:
  bellpull effects                                  what is in doubt
  bellpull effects list --status done --session sesn_01jv…
  bellpull effects settle sevt_01jv… done --note 'the ticket is there'

An effect is in doubt when its server ended, or its turn was stopped, while it was carried out: look
what became of it, and say so. The agent does that itself where it can; `settle` corrects what it said.";

#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    action: Option<Action>,
}

#[derive(Debug, clap::Subcommand)]
enum Action {
    /// List effects, newest first; without a command, those in doubt
    List {
        /// With this status
        #[arg(long, value_name = "STATUS", value_parser = ["intended", "done", "failed", "in_doubt"])]
        status: Option<String>,
        /// Of this session
        #[arg(long, value_name = "SESSION")]
        session: Option<String>,
        #[command(flatten)]
        paging: Paging,
    },
    /// Say what became of one that is in doubt, or that its agent settled
    Settle {
        /// The effect, by the id of its call
        #[arg(value_name = "EFFECT")]
        id: String,
        /// What you found
        #[arg(value_name = "STATUS", value_parser = ["done", "failed"])]
        status: String,
        /// Where you saw it
        #[arg(long, short, value_name = "TEXT")]
        note: Option<String>,
    },
}

const PATH: [&str; 2] = ["v1", "effects"];

pub(super) async fn run(args: Args, context: &mut Context<'_>) -> Result<Exit> {
    match args.action {
        None => list(Some("in_doubt"), None, &Paging::default(), context).await,
        Some(Action::List { status, session, paging }) => {
            list(status.as_deref(), session.as_deref(), &paging, context).await
        }
        Some(Action::Settle { id, status, note }) => {
            let what = format!("settle the effect `{id}`");
            let mut body = json!({"status": status});
            if let Some(note) = note {
                body["note"] = note.into();
            }
            let path = ["v1", "effects", &id, "settle"];
            let settled = context.client.post(&what, &path, &body).await;
            let settled = context.or_nearest(settled, &id, &PATH, &["id"]).await?;
            if context.json {
                context.io.json(&settled)?;
            } else {
                let (status, id) = (str(&settled["status"]), str(&settled["id"]));
                context.io.line(one_line(&format!("{status}  {id}")))?;
            }
            Ok(Exit::Fine)
        }
    }
}

async fn list(
    status: Option<&str>,
    session: Option<&str>,
    paging: &Paging,
    context: &mut Context<'_>,
) -> Result<Exit> {
    let mut query: Vec<(&str, &str)> = Vec::new();
    query.extend(status.map(|status| ("status", status)));
    query.extend(session.map(|session| ("session_id", session)));
    let listing = context.list("list the effects", &PATH, &query, paging).await?;
    context.print_list(&listing, "effects", table)?;
    Ok(Exit::Fine)
}

fn table(listing: &Listing, now: Timestamp) -> Table {
    let mut table =
        Table::new(&["ID", "BEGAN", "STATUS", "TOOL…", "SESSION", "SETTLED BY?", "INPUT…"]);
    for effect in &listing.data {
        table.row(vec![
            Cell::strong(str(&effect["id"])),
            ago(now, &effect["intended_at"]),
            Cell::badge(str(&effect["status"])),
            Cell::new(str(&effect["tool"])),
            Cell::new(str(&effect["session_id"])),
            Cell::dim(str(&effect["settled_by"])),
            Cell::new(str(&effect["input"])),
        ]);
    }
    table
}
