//! `environments`: where the tools of agents run, by id or by name.

use std::path::PathBuf;

use serde_json::{Map, Value, json};

use super::{
    Exit,
    agents::read_fields,
    client::Listing,
    context::{Context, Living, ago, str, time},
    failure::{Failure, Result},
    table::{Cell, Fields, Table, one_line},
};
use crate::clock::Timestamp;

pub(super) const EXAMPLES: &str = "\
Examples:
  bellpull environments create --name shop --type local --project /srv/shop --workspace worktree
  bellpull environments create --name fetching --type cloud --allow-host api.example.com
  bellpull environments update shop --setup 'npm ci' --network none
  bellpull environments update shop --from shop.json    any field of the API
  bellpull environments archive shop                    no new sessions

An environment of the config file is changed there.";

#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    action: Option<Action>,
    #[command(flatten)]
    filter: Living,
}

#[derive(Debug, clap::Subcommand)]
enum Action {
    /// List environments (the same as without a command)
    List(Living),
    /// Show an environment
    Show {
        /// Its id or name
        #[arg(value_name = "ENVIRONMENT")]
        environment: String,
    },
    /// Make an environment
    Create(Change),
    /// Change an environment; what is not given stays
    Update {
        /// Its id or name
        #[arg(value_name = "ENVIRONMENT")]
        environment: String,
        #[command(flatten)]
        change: Change,
    },
    /// Archive an environment: its sessions go on, and there are no new ones
    Archive {
        /// Its id or name
        #[arg(value_name = "ENVIRONMENT")]
        environment: String,
        /// Do not ask
        #[arg(long, short)]
        yes: bool,
    },
    /// Delete an environment that no session works in
    Delete {
        /// Its id or name
        #[arg(value_name = "ENVIRONMENT")]
        environment: String,
        /// Do not ask
        #[arg(long, short)]
        yes: bool,
    },
}

#[derive(Debug, clap::Args)]
struct Change {
    /// Name
    #[arg(long, value_name = "NAME")]
    name: Option<String>,
    /// What it is for
    #[arg(long, value_name = "TEXT")]
    description: Option<String>,
    /// Where the files are: a fresh directory, a project of the server's machine, or with the client
    #[arg(long = "type", value_name = "TYPE", value_parser = ["cloud", "local", "self_hosted"])]
    kind: Option<String>,
    /// Directory of the server's machine to work in, of a `local` one
    #[arg(long, value_name = "DIR")]
    project: Option<String>,
    /// How sessions share the project: in place, one after the other, or each for itself
    #[arg(long, value_name = "WAY", value_parser = ["shared", "worktree", "copy"])]
    workspace: Option<String>,
    /// What programs reach
    #[arg(long, value_name = "NETWORK", value_parser = ["none", "limited", "unrestricted"])]
    network: Option<String>,
    /// Host that programs reach, `*.` for all below it; any number of times, all that there are
    #[arg(long, value_name = "HOST")]
    allow_host: Vec<String>,
    /// Command that prepares a workspace; any number of times, in order, all that there are
    #[arg(long, value_name = "COMMAND")]
    setup: Vec<String>,
    /// JSON file with any fields of the API's environment object; options win over it. `-`: the input
    #[arg(long, value_name = "FILE")]
    from: Option<PathBuf>,
}

impl Change {
    fn body(self, context: &mut Context<'_>) -> Result<Value> {
        let mut body = match &self.from {
            None => Map::new(),
            Some(path) => read_fields(path, context)?,
        };
        let mut config = match body.remove("config") {
            None | Some(Value::Null) => Map::new(),
            Some(Value::Object(config)) => config,
            Some(_) => return Err(Failure::wrong("`config` in the file must be an object")),
        };
        for (name, value) in [("name", self.name), ("description", self.description)] {
            body.extend(value.map(|value| (name.to_owned(), value.into())));
        }
        let fields =
            [("type", self.kind), ("project", self.project), ("workspace", self.workspace)];
        for (name, value) in fields {
            config.extend(value.map(|value| (name.to_owned(), value.into())));
        }
        if !self.setup.is_empty() {
            config.insert("setup".to_owned(), self.setup.into());
        }
        let network = match (self.network, self.allow_host.is_empty()) {
            (None, true) => None,
            (None, false) => Some("limited".to_owned()),
            (Some(network), no_hosts) if no_hosts || network == "limited" => Some(network),
            (Some(_), _) => {
                return Err(Failure::wrong("`--allow-host` is for `--network limited`"));
            }
        };
        if let Some(network) = network {
            let mut networking = json!({ "type": network });
            if !self.allow_host.is_empty() {
                networking["allowed_hosts"] = self.allow_host.into();
            }
            config.insert("networking".to_owned(), networking);
        }
        if !config.is_empty() {
            body.insert("config".to_owned(), Value::Object(config));
        }
        Ok(Value::Object(body))
    }
}

const PATH: [&str; 2] = ["v1", "environments"];

pub(super) async fn run(args: Args, context: &mut Context<'_>) -> Result<Exit> {
    let Some(action) = args.action else {
        return list(args.filter, context).await;
    };
    if args.filter != Living::default() {
        return Err(Failure::wrong("filters are for the list"));
    }
    match action {
        Action::List(filter) => list(filter, context).await,
        Action::Show { environment } => {
            let found = find(&environment, context).await?;
            print(&found, context)
        }
        Action::Create(change) => {
            let body = change.body(context)?;
            if body["name"].is_null() {
                return Err(Failure::wrong("an environment needs `--name`"));
            }
            if body["config"]["type"].is_null() {
                let failure = Failure::wrong("an environment needs `--type`");
                return Err(failure.hint("`local` for a project, `cloud` for a fresh workspace"));
            }
            let made = context.client.post("create the environment", &PATH, &body).await?;
            print(&made, context)
        }
        Action::Update { environment, change } => update(&environment, change, context).await,
        Action::Archive { environment, yes } => archive(&environment, yes, context).await,
        Action::Delete { environment, yes } => delete(&environment, yes, context).await,
    }
}

async fn list(filter: Living, context: &mut Context<'_>) -> Result<Exit> {
    let listing =
        context.list("list the environments", &PATH, filter.query(), &filter.paging).await?;
    context.print_list(&listing, "environments", table)?;
    Ok(Exit::Fine)
}

fn table(listing: &Listing, now: Timestamp) -> Table {
    let headings =
        ["ID", "NAME…", "TYPE", "PROJECT…", "WORKSPACE?", "NETWORK", "MANAGED BY?", "UPDATED?"];
    let mut table = Table::new(&headings);
    for environment in &listing.data {
        let config = &environment["config"];
        let kind = match environment["archived_at"].is_null() {
            true => str(&config["type"]),
            false => "archived",
        };
        table.row(vec![
            Cell::strong(str(&environment["id"])),
            Cell::new(str(&environment["name"])),
            Cell::badge(kind),
            Cell::new(str(&config["project"])),
            Cell::new(str(&config["workspace"])),
            Cell::new(str(&config["networking"]["type"])),
            Cell::dim(str(&environment["managed_by"])),
            ago(now, &environment["updated_at"]),
        ]);
    }
    table
}

async fn find(environment: &str, context: &Context<'_>) -> Result<Value> {
    let id = context.environment_id(environment).await?;
    let what = format!("show the environment `{environment}`");
    let found = context.client.get(&what, &[PATH[0], PATH[1], &id], &[]).await;
    context.or_nearest(found, environment, &PATH, &["id", "name"]).await
}

fn print(environment: &Value, context: &mut Context<'_>) -> Result<Exit> {
    if context.json {
        context.io.json(environment)?;
        return Ok(Exit::Fine);
    }
    let fields = fields(environment, context.io.clock.now());
    context.print_fields(&fields)?;
    Ok(Exit::Fine)
}

fn fields(environment: &Value, now: Timestamp) -> Fields {
    let (config, text) = (&environment["config"], |value: &Value| Cell::new(str(value)));
    let mut fields = Fields::default();
    fields
        .add("id", Cell::strong(str(&environment["id"])))
        .add("name", text(&environment["name"]))
        .add("description", text(&environment["description"]))
        .add("type", Cell::badge(str(&config["type"])))
        .add("project", text(&config["project"]))
        .add("workspace", text(&config["workspace"]))
        .add("network", text(&config["networking"]["type"]));
    let texts = |value: &Value| -> Vec<String> {
        let texts = value.as_array().into_iter().flatten();
        texts.map(|text| str(text).to_owned()).collect()
    };
    for host in texts(&config["networking"]["allowed_hosts"]) {
        fields.add("reaches", Cell::new(host));
    }
    for command in texts(&config["setup"]) {
        fields.add("setup", Cell::new(one_line(&command)));
    }
    for (name, value) in config["variables"].as_object().into_iter().flatten() {
        let said = match value["secret"].as_str() {
            Some(secret) => format!("the secret `{secret}`"),
            None => str(value).to_owned(),
        };
        fields.with("variable", Cell::new(name), &one_line(&said));
    }
    fields.add("managed by", text(&environment["managed_by"]));
    time(&mut fields, "created", now, &environment["created_at"]);
    time(&mut fields, "updated", now, &environment["updated_at"]);
    time(&mut fields, "archived", now, &environment["archived_at"]);
    fields
}

async fn update(environment: &str, change: Change, context: &mut Context<'_>) -> Result<Exit> {
    let body = change.body(context)?;
    if body.as_object().is_some_and(Map::is_empty) {
        return Err(Failure::wrong("there is nothing to change"));
    }
    let what = format!("change the environment `{environment}`");
    let id = context.environment_id(environment).await?;
    let changed = context.client.post(&what, &[PATH[0], PATH[1], &id], &body).await;
    let changed = context.or_nearest(changed, environment, &PATH, &["id", "name"]).await?;
    print(&changed, context)
}

async fn archive(environment: &str, yes: bool, context: &mut Context<'_>) -> Result<Exit> {
    let id = context.environment_id(environment).await?;
    if !yes
        && !context.io.confirm(&format!("Archive the environment `{environment}`, for good?"))?
    {
        return Ok(Exit::Failed);
    }
    let what = format!("archive the environment `{environment}`");
    let path = [PATH[0], PATH[1], &id, "archive"];
    let answer = context.client.post(&what, &path, &json!({})).await;
    let answer = context.or_nearest(answer, environment, &PATH, &["id"]).await?;
    print(&answer, context)
}

async fn delete(environment: &str, yes: bool, context: &mut Context<'_>) -> Result<Exit> {
    let id = context.environment_id(environment).await?;
    if !yes && !context.io.confirm(&format!("Delete the environment `{environment}`?"))? {
        return Ok(Exit::Failed);
    }
    let what = format!("delete the environment `{environment}`");
    let deleted = context.client.delete(&what, &[PATH[0], PATH[1], &id]).await;
    let deleted = context.or_nearest(deleted, environment, &PATH, &["id"]).await?;
    if context.json {
        context.io.json(&deleted)?;
    } else {
        context.io.line(format!("{}  deleted", one_line(environment)))?;
    }
    Ok(Exit::Fine)
}
