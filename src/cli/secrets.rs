//! `secrets`: named values that the server uses. They go in and never come out; a generated one is
//! shown once, because nobody would know it otherwise.

use serde_json::{Value, json};

use super::{
    Exit,
    client::Listing,
    context::{Context, ago, str},
    failure::{Failure, Result},
    table::{Cell, Table, one_line},
};
use crate::{clock::Timestamp, domain::secret::VALUE_BYTES_MAX};

pub(super) const EXAMPLES: &str = "\
Examples:
  bellpull secrets
  bellpull secrets set STRIPE_SECRET < secret.txt       one line break at the end is dropped
  bellpull secrets set STRIPE_SECRET --overlap 86400    the old value stays valid for a day
  bellpull secrets generate DEPLOY_TOKEN                made by the server and shown once

A value that is typed as `--value` may stay in the shell's history; without it, it is asked for
or read from the input.";

#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    action: Option<Action>,
}

#[derive(Debug, clap::Subcommand)]
enum Action {
    /// List the secrets by name, without their values (the same as without a command)
    List,
    /// Set a secret's value
    Set {
        /// Its name
        #[arg(value_name = "NAME")]
        name: String,
        /// The value; without it, it is asked for or read from the input
        #[arg(long, value_name = "VALUE")]
        value: Option<String>,
        /// How long the value before stays valid, in seconds
        #[arg(long, value_name = "SECONDS", default_value_t = 0)]
        overlap: u32,
    },
    /// Let the server make a value, and show it once
    Generate {
        /// Its name
        #[arg(value_name = "NAME")]
        name: String,
        /// How long the value before stays valid, in seconds
        #[arg(long, value_name = "SECONDS", default_value_t = 0)]
        overlap: u32,
    },
    /// Delete a secret with all its values
    Delete {
        /// Its name
        #[arg(value_name = "NAME")]
        name: String,
        /// Do not ask
        #[arg(long, short)]
        yes: bool,
    },
}

const PATH: [&str; 2] = ["v1", "secrets"];

pub(super) async fn run(args: Args, context: &mut Context<'_>) -> Result<Exit> {
    let Some(action) = args.action else {
        return list(context).await;
    };
    match action {
        Action::List => list(context).await,
        Action::Set { name, value, overlap } => {
            let value = match value {
                Some(value) => value,
                None => value_from_input(context, &format!("Value of {name}: "))?,
            };
            let body = json!({"name": name, "value": value, "overlap_seconds": overlap});
            set(&name, &body, context).await
        }
        Action::Generate { name, overlap } => {
            let body = json!({"name": name, "generate": true, "overlap_seconds": overlap});
            set(&name, &body, context).await
        }
        Action::Delete { name, yes } => delete(&name, yes, context).await,
    }
}

async fn list(context: &mut Context<'_>) -> Result<Exit> {
    let listing = context.list_all("list the secrets", &PATH, &[]).await?;
    context.print_list(&listing, "secrets", table)?;
    Ok(Exit::Fine)
}

fn table(listing: &Listing, now: Timestamp) -> Table {
    let mut table = Table::new(&["NAME", "VERSION", "SET", "OLD VALUE ENDS"]);
    for secret in &listing.data {
        table.row(vec![
            Cell::strong(str(&secret["name"])),
            Cell::new(secret["version"].to_string()),
            ago(now, &secret["created_at"]),
            ago(now, &secret["previous_until"]),
        ]);
    }
    table
}

/// A value that somebody types unseen, or the input without one line break at its end.
pub(super) fn value_from_input(context: &mut Context<'_>, prompt: &str) -> Result<String> {
    let value = if context.io.input_is_terminal {
        context.io.read_hidden(prompt)?
    } else {
        let bytes = context.io.read_input(VALUE_BYTES_MAX + 2)?;
        let text = String::from_utf8(bytes);
        let text = text.map_err(|_| Failure::wrong("the value is not valid UTF-8"))?;
        let text = text.strip_suffix('\n').unwrap_or(&text);
        text.strip_suffix('\r').unwrap_or(text).to_owned()
    };
    if value.is_empty() {
        return Err(Failure::wrong("the value is empty"));
    }
    Ok(value)
}

async fn set(name: &str, body: &Value, context: &mut Context<'_>) -> Result<Exit> {
    let what = format!("set the secret `{name}`");
    let answer = context.client.post(&what, &PATH, body).await?;
    if context.json {
        context.io.json(&answer)?;
    } else if let Some(value) = answer["value"].as_str() {
        // Alone on the output, for a variable or a pipe.
        context.io.line(value)?;
        context.io.note(format!("{name} is set to this, which is not shown again"))?;
    } else {
        context.io.line(format!("{}  set", one_line(name)))?;
    }
    Ok(Exit::Fine)
}

async fn delete(name: &str, yes: bool, context: &mut Context<'_>) -> Result<Exit> {
    if !yes && !context.io.confirm(&format!("Delete the secret `{name}`?"))? {
        return Ok(Exit::Failed);
    }
    let what = format!("delete the secret `{name}`");
    let deleted = context.client.delete(&what, &["v1", "secrets", name]).await;
    let deleted = context.or_nearest(deleted, name, &PATH, &["name"]).await?;
    if context.json {
        context.io.json(&deleted)?;
    } else {
        context.io.line(format!("{}  deleted", one_line(name)))?;
    }
    Ok(Exit::Fine)
}
