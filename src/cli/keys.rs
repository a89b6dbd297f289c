//! `keys`: further API keys. The server keeps a hash, so a key is shown when it is made and never
//! again.

use serde_json::json;

use super::{
    Exit,
    client::Listing,
    context::{Context, ago, str},
    failure::{Failure, Result},
    table::{Cell, Table, one_line},
};
use crate::{
    clock::Timestamp,
    domain::key::Scope,
    id::{ApiKeyId, Id as _},
};

pub(super) const EXAMPLES: &str = "\
Examples:
  bellpull keys
  bellpull keys create dashboard --scope read
  bellpull keys create ci --scope ingest:deploys --scope ingest:builds
  bellpull keys revoke dashboard

`admin` may do everything on the API, `read` may look, `ingest:NAME` may only send to that source.";

#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    action: Option<Action>,
}

#[derive(Debug, clap::Subcommand)]
enum Action {
    /// List the keys, without the keys themselves (the same as without a command)
    List,
    /// Make a key, and show it once
    Create {
        /// What it is for
        #[arg(value_name = "NAME")]
        name: String,
        /// What it may do: `admin`, `read` or `ingest:SOURCE`; may be given several times
        #[arg(long = "scope", value_name = "SCOPE", required = true, value_parser = scope)]
        scopes: Vec<Scope>,
    },
    /// Revoke a key, at once
    Revoke {
        /// Its id, or its name if no other key has it
        #[arg(value_name = "KEY_ID")]
        id: String,
        /// Do not ask
        #[arg(long, short)]
        yes: bool,
    },
}

const PATH: [&str; 2] = ["v1", "api_keys"];

fn scope(text: &str) -> std::result::Result<Scope, String> {
    text.parse().map_err(|problem: crate::domain::Problem| problem.message)
}

pub(super) async fn run(args: Args, context: &mut Context<'_>) -> Result<Exit> {
    let Some(action) = args.action else {
        return list(context).await;
    };
    match action {
        Action::List => list(context).await,
        Action::Create { name, scopes } => create(&name, &scopes, context).await,
        Action::Revoke { id, yes } => revoke(&id, yes, context).await,
    }
}

async fn list(context: &mut Context<'_>) -> Result<Exit> {
    let listing = context.list_all("list the keys", &PATH, &[]).await?;
    context.print_list(&listing, "keys", table)?;
    Ok(Exit::Fine)
}

fn table(listing: &Listing, now: Timestamp) -> Table {
    let mut table = Table::new(&["ID", "NAME…", "SCOPES…", "CREATED", "REVOKED"]);
    for key in &listing.data {
        let scopes = key["scopes"].as_array().map(Vec::as_slice).unwrap_or_default();
        let scopes: Vec<&str> = scopes.iter().map(str).collect();
        table.row(vec![
            Cell::strong(str(&key["id"])),
            Cell::new(str(&key["name"])),
            Cell::new(scopes.join(" ")),
            ago(now, &key["created_at"]),
            ago(now, &key["revoked_at"]),
        ]);
    }
    table
}

async fn create(name: &str, scopes: &[Scope], context: &mut Context<'_>) -> Result<Exit> {
    let scopes: Vec<String> = scopes.iter().map(ToString::to_string).collect();
    let body = json!({"name": name, "scopes": scopes});
    let what = format!("create the key `{name}`");
    let answer = context.client.post(&what, &PATH, &body).await?;
    if context.json {
        context.io.json(&answer)?;
        return Ok(Exit::Fine);
    }
    let Some(key) = answer["key"].as_str() else {
        return Err(Failure::new(what, "the answer holds no key"));
    };
    // Alone on the output, for a variable or a pipe.
    context.io.line(key)?;
    let id = str(&answer["id"]);
    context.io.note(format!("{id} ({name}) is made; the key is not shown again"))?;
    Ok(Exit::Fine)
}

async fn revoke(id: &str, yes: bool, context: &mut Context<'_>) -> Result<Exit> {
    let id = if id.parse::<ApiKeyId>().is_ok() || id.starts_with(ApiKeyId::PREFIX) {
        id.to_owned()
    } else {
        context.id_by_name("key", "api_keys", id).await?
    };
    if !yes && !context.io.confirm(&format!("Revoke the key `{id}`?"))? {
        return Ok(Exit::Failed);
    }
    let what = format!("revoke the key `{id}`");
    let revoked = context.client.delete(&what, &["v1", "api_keys", &id]).await;
    let revoked = context.or_nearest(revoked, &id, &PATH, &["id"]).await?;
    if context.json {
        context.io.json(&revoked)?;
    } else {
        context.io.line(format!("{}  revoked", one_line(&id)))?;
    }
    Ok(Exit::Fine)
}
