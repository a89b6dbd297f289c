//! `sources`: the systems that may call in.

mod shown;

use serde_json::{Map, Value, json};

use self::shown::{fields, gate, state, target};
use super::{
    Exit, backtest,
    client::Listing,
    context::{Context, Paging, ago, str},
    curl,
    failure::{Failure, Result},
    secrets,
    table::{Cell, Table, one_line},
    trials,
};
use crate::{
    clock::Timestamp,
    domain::{field::Field, source::WhenBusy},
};

pub(super) const EXAMPLES: &str = "\
Examples:
  bellpull sources presets                               the senders that are known
  bellpull sources create code --preset github --secret-stdin < secret.txt
  bellpull sources create deploys --preset bearer --secret-stdin --agent lucy < token.txt
  bellpull sources create tickets --preset header --header X-Token --secret-key TICKETS_TOKEN \\
      --session-key '{{ body.ticket.id }}'               one session per ticket
  bellpull sources test code                             a signed delivery, as GitHub sends one
  bellpull sources verify code --headers head.txt --body body.json
  bellpull sources open tasks                            Asana or Notion hands over its secret
  bellpull sources backtest tickets --since 7d --with new.toml   what it would have done
  bellpull sources refusals tickets                      who was not let in, and why
  bellpull sources pause tickets                         its deliveries are held

A source without a preset is called with an API key of scope `ingest:NAME`.";

#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    action: Option<Action>,
    #[command(flatten)]
    filter: Filter,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, clap::Args)]
struct Filter {
    /// The agents' own sources too
    #[arg(long)]
    all: bool,
}

#[derive(Debug, clap::Subcommand)]
enum Action {
    /// List sources (the same as without a command)
    List(Filter),
    /// Show a source
    Show {
        /// Its id or name
        #[arg(value_name = "SOURCE")]
        name: String,
    },
    /// List the known senders
    Presets,
    /// Make a source, or change the one of this name
    Create(Box<Create>),
    /// Send a test delivery, signed by the server as the source's sender would sign it
    Test(trials::Args),
    /// Say step by step why a request that somebody kept would be let in or not; stores nothing
    Verify(trials::Verify),
    /// Try a changed source on the deliveries that came; nothing is written and no agent runs
    Backtest(backtest::Args),
    /// Hold a source's deliveries back
    Pause {
        /// Its id or name
        #[arg(value_name = "SOURCE")]
        name: String,
    },
    /// Let a paused source's deliveries go on
    Resume {
        /// Its id or name
        #[arg(value_name = "SOURCE")]
        name: String,
    },
    /// Let the sender hand over its secret (Asana, Notion): whoever comes first, once
    Open {
        /// Its id or name
        #[arg(value_name = "SOURCE")]
        name: String,
        /// Minutes, up to 60; 0 closes it again
        #[arg(long, value_name = "MINUTES", default_value_t = 10)]
        minutes: u32,
    },
    /// Show once the secret that the sender handed over and wants back by hand (Notion)
    Received {
        /// Its id or name
        #[arg(value_name = "SOURCE")]
        name: String,
    },
    /// Retire a source: nobody is let in any more, its deliveries stay
    Delete {
        /// Its id or name
        #[arg(value_name = "SOURCE")]
        name: String,
        /// Do not ask
        #[arg(long, short)]
        yes: bool,
    },
    /// List the newest calls that were refused, with the reason
    Refusals {
        /// Its id or name
        #[arg(value_name = "SOURCE")]
        name: String,
        #[command(flatten)]
        paging: Paging,
    },
}

#[derive(Debug, clap::Args)]
struct Create {
    /// Name, which is part of the URL: lower-case letters, digits, `_` and `-`
    #[arg(value_name = "NAME")]
    name: String,
    /// The sender, such as `github`; `bellpull sources presets` lists them
    #[arg(long, value_name = "PRESET")]
    preset: Option<String>,
    /// How callers prove themselves, as JSON; with a preset, what differs from it
    #[arg(long, value_name = "JSON", value_parser = json_object)]
    verifier: Option<Value>,
    /// User name, with the preset `basic`
    #[arg(long, value_name = "NAME", requires = "preset")]
    username: Option<String>,
    /// Header that holds the secret, with the preset `header` [default: X-Webhook-Secret]
    #[arg(long, value_name = "HEADER", requires = "preset")]
    header: Option<String>,
    /// The secret; better read it from the input, or name it
    #[arg(long, value_name = "VALUE", group = "secret_given")]
    secret: Option<String>,
    /// Read the secret from the input
    #[arg(long, group = "secret_given")]
    secret_stdin: bool,
    /// Name of the secret, as in `bellpull secrets`
    #[arg(long, value_name = "NAME", group = "secret_given")]
    secret_key: Option<String>,
    /// Agent, by id or name [default: the one named `default`]
    #[arg(long, value_name = "AGENT")]
    agent: Option<String>,
    /// Directory on the server that the agent works in
    #[arg(long, value_name = "DIR", conflicts_with = "environment")]
    project: Option<String>,
    /// Environment that the agent works in, by id or name [default: the one named `default`]
    #[arg(long, value_name = "ENVIRONMENT")]
    environment: Option<String>,
    /// `new_session`, or the session that every delivery goes to [default: new_session]
    #[arg(long, value_name = "TARGET")]
    target: Option<String>,
    /// One session per value of this template, such as `{{ body.ticket.id }}`
    #[arg(long, value_name = "TEMPLATE", conflicts_with = "target")]
    session_key: Option<String>,
    /// Condition in CEL that a delivery must fulfil, such as `event_type == "push"`
    #[arg(long, value_name = "CONDITION")]
    filter: Option<String>,
    /// Header or JSON pointer that tells deliveries apart; may be given several times
    #[arg(long, value_name = "FIELD", value_parser = field)]
    identity: Vec<Field>,
    /// Header or JSON pointer that says what happened; may be given several times
    #[arg(long, value_name = "FIELD", value_parser = field)]
    event_type: Vec<Field>,
    /// Characters of the payload in the agent's message [default: 2000]
    #[arg(long, value_name = "CHARS")]
    message_chars: Option<u32>,
    /// Without an id, equal bodies within so many seconds are one delivery [default: 0, each is its own]
    #[arg(long, value_name = "SECONDS")]
    body_hash_window: Option<u32>,
    /// Seconds of quiet before a turn begins [default: 0, at once]
    #[arg(long, value_name = "SECONDS")]
    debounce: Option<u32>,
    /// Seconds that the first message waits for quiet at most [default: ten times --debounce]
    #[arg(long, value_name = "SECONDS", requires = "debounce")]
    debounce_max: Option<u32>,
    /// What a message does that comes during a turn: `queue`, `steer`, `supersede` or `skip`
    /// [default: queue]
    #[arg(long, value_name = "WHAT", value_parser = WhenBusy::NAMES.map(|(name, _)| name))]
    when_busy: Option<String>,
    /// Turns that a session may begin within an hour before what comes for it is held, against loops
    /// [default: any number]
    #[arg(long, value_name = "TURNS")]
    turns_per_key_per_hour: Option<u32>,
    /// Turns at once of sessions that it made: what comes beyond waits; 0: any number
    #[arg(long, value_name = "TURNS")]
    turns_at_once: Option<u32>,
    /// Turns of such sessions that may begin within a minute; 0: any number
    #[arg(long, value_name = "TURNS")]
    turns_per_minute: Option<u32>,
    /// Let the agent work again when a delivery whose turn failed is sent again
    #[arg(long)]
    rerun_failed: bool,
    /// Hold a body that comes again within a day under another id, where the sender signs no id
    #[arg(long)]
    hold_possible_replays: bool,
    /// What tools that do more than read may do in its sessions: what the agent's policies say, only
    /// what somebody allows, or nothing
    #[arg(long, value_name = "MODE", value_parser = ["as_usual", "ask", "read_only"])]
    webhook_tools: Option<String>,
}

fn json_object(text: &str) -> std::result::Result<Value, String> {
    let value = serde_json::from_str(text).ok().filter(Value::is_object);
    value.ok_or_else(|| "must be a JSON object".to_owned())
}

fn field(text: &str) -> std::result::Result<Field, String> {
    text.parse().map_err(|problem: crate::domain::Problem| problem.message)
}

const PATH: [&str; 2] = ["v1", "sources"];

pub(super) async fn run(args: Args, context: &mut Context<'_>) -> Result<Exit> {
    let Some(action) = args.action else {
        return list(&args.filter, context).await;
    };
    if args.filter != Filter::default() {
        return Err(Failure::wrong("filters are for the list"));
    }
    match action {
        Action::List(filter) => list(&filter, context).await,
        Action::Show { name } => {
            let what = format!("show the source `{name}`");
            let found = context.client.get(&what, &["v1", "sources", &name], &[]).await;
            let source = context.or_nearest(found, &name, &PATH, &["name"]).await?;
            print(&source, context)
        }
        Action::Presets => presets(context).await,
        Action::Create(create) => self::create(*create, context).await,
        Action::Test(args) => trials::test(args, context).await,
        Action::Verify(args) => trials::verify(args, context).await,
        Action::Backtest(args) => backtest::run(args, context).await,
        Action::Pause { name } => switch(&name, "pause", context).await,
        Action::Resume { name } => switch(&name, "resume", context).await,
        Action::Open { name, minutes } => open(&name, minutes, context).await,
        Action::Received { name } => received(&name, context).await,
        Action::Delete { name, yes } => delete(&name, yes, context).await,
        Action::Refusals { name, paging } => refusals(&name, &paging, context).await,
    }
}

async fn list(filter: &Filter, context: &mut Context<'_>) -> Result<Exit> {
    let query: &[(&str, &str)] = if filter.all { &[("kind", "all")] } else { &[] };
    let listing = context.list_all("list the sources", &PATH, query).await?;
    context.print_list(&listing, "sources", table)?;
    Ok(Exit::Fine)
}

fn table(listing: &Listing, _: Timestamp) -> Table {
    let mut table =
        Table::new(&["NAME", "STATE", "GATE", "AGENT…", "TARGET…", "MANAGED BY?", "PROBLEM…"]);
    for source in &listing.data {
        table.row(vec![
            Cell::strong(str(&source["name"])),
            Cell::badge(state(source)),
            Cell::new(gate(source)),
            Cell::new(str(&source["agent"])),
            Cell::new(target(&source["target"])),
            Cell::dim(str(&source["managed_by"])),
            Cell::new(str(&source["broken"])),
        ]);
    }
    table
}

fn print(source: &Value, context: &mut Context<'_>) -> Result<Exit> {
    if context.json {
        context.io.json(source)?;
        return Ok(Exit::Fine);
    }
    let url = context.client.absolute(str(&source["url"]));
    let fields = fields(source, &url, context.io.clock.now());
    context.print_fields(&fields)?;
    Ok(Exit::Fine)
}

impl Create {
    async fn body(self, context: &mut Context<'_>) -> Result<Value> {
        let mut body = Map::new();
        let mut set = |name: &str, value: Option<Value>| {
            body.extend(value.map(|value| (name.to_owned(), value)));
        };
        set("name", Some(self.name.clone().into()));
        set("preset", self.preset.map(Value::from));
        set("verifier", self.verifier);
        set("username", self.username.map(Value::from));
        set("header", self.header.map(Value::from));
        let secret = match self.secret {
            None if self.secret_stdin => {
                let prompt = format!("Secret of {}: ", self.name);
                Some(secrets::value_from_input(context, &prompt)?)
            }
            secret => secret,
        };
        set("secret", secret.map(Value::from));
        set("secret_key", self.secret_key.map(Value::from));
        set("agent", self.agent.map(Value::from));
        set("project", self.project.map(Value::from));
        if let Some(environment) = self.environment {
            set("environment_id", Some(context.environment_id(&environment).await?.into()));
        }
        let key = self.session_key.map(|template| json!({"key": template}));
        set("target", self.target.map(Value::from).or(key));
        set("filter", self.filter.map(Value::from));
        let fields = |list: Vec<Field>| (!list.is_empty()).then(|| json!(list));
        set("identity", fields(self.identity));
        set("event_type", fields(self.event_type));
        set("message_chars_max", self.message_chars.map(Value::from));
        set("body_hash_window_seconds", self.body_hash_window.map(Value::from));
        set("on_possible_replay", self.hold_possible_replays.then(|| "hold".into()));
        set("webhook_tools", self.webhook_tools.map(Value::from));
        set("debounce_seconds", self.debounce.map(Value::from));
        set("debounce_seconds_max", self.debounce_max.map(Value::from));
        set("when_busy", self.when_busy.map(Value::from));
        let turns = self.turns_per_key_per_hour.map(Value::from);
        set("turns_per_key_per_hour_max", turns);
        set("turns_at_once_max", self.turns_at_once.map(turns_max));
        set("turns_per_minute_max", self.turns_per_minute.map(turns_max));
        set("on_redelivery", self.rerun_failed.then(|| "rerun_failed".into()));
        Ok(Value::Object(body))
    }
}

/// As the API has it: any number is null.
pub(super) fn turns_max(given: u32) -> Value {
    if given == 0 { Value::Null } else { given.into() }
}

/// How many turns an agent or a source may have, in words. Nothing where any number.
pub(super) fn turn_limits(of: &Value) -> String {
    let words = [("turns_at_once_max", "at once"), ("turns_per_minute_max", "per minute")];
    let limits = words.map(|(name, unit)| of[name].as_u64().map(|n| format!("{n} {unit}")));
    limits.into_iter().flatten().collect::<Vec<_>>().join(", ")
}

async fn create(create: Create, context: &mut Context<'_>) -> Result<Exit> {
    let what = format!("create the source `{}`", create.name);
    let body = create.body(context).await?;
    let source = context.client.post(&what, &PATH, &body).await?;
    print(&source, context)?;
    if context.json {
        return Ok(Exit::Fine);
    }
    let url = context.client.absolute(str(&source["url"]));
    let verifier = &source["verifier"];
    context.io.line("")?;
    if let Some(setup) = source["setup"].as_str() {
        context.io.line(one_line(setup))?;
    }
    if let Some(credentials) = curl::credentials(verifier) {
        context.io.line(curl::line(&url, &credentials))?;
    }
    if curl::credentials(verifier).is_none() {
        let name = str(&source["name"]);
        context.io.note(format!("bellpull sources test {name}  tries it out"))?;
    }
    if verifier["type"] == "box" {
        let name = str(&source["name"]);
        context
            .io
            .note(format!("a key for it: bellpull keys create {name} --scope ingest:{name}"))?;
    }
    Ok(Exit::Fine)
}

async fn presets(context: &mut Context<'_>) -> Result<Exit> {
    let listing = context.list_all("list the known senders", &["v1", "presets"], &[]).await?;
    context.print_list(&listing, "presets", |listing, _| {
        let mut table = Table::new(&["PRESET", "SENDER…", "GATE"]);
        for preset in &listing.data {
            table.row(vec![
                Cell::strong(str(&preset["id"])),
                Cell::new(str(&preset["title"])),
                Cell::new(str(&preset["verifier"]["type"])),
            ]);
        }
        table
    })?;
    Ok(Exit::Fine)
}

async fn switch(name: &str, verb: &str, context: &mut Context<'_>) -> Result<Exit> {
    let what = format!("{verb} the source `{name}`");
    let answer = context.client.post(&what, &["v1", "sources", name, verb], &json!({})).await;
    let answer = context.or_nearest(answer, name, &PATH, &["name"]).await?;
    print(&answer, context)
}

async fn open(name: &str, minutes: u32, context: &mut Context<'_>) -> Result<Exit> {
    let what = format!("open the source `{name}`");
    let body = json!({"minutes": minutes});
    let answer = context.client.post(&what, &["v1", "sources", name, "handshake"], &body).await;
    let answer = context.or_nearest(answer, name, &PATH, &["name"]).await?;
    print(&answer, context)
}

async fn received(name: &str, context: &mut Context<'_>) -> Result<Exit> {
    let what = format!("show the secret that the source `{name}` received");
    let path = ["v1", "sources", name, "handshake", "secret"];
    let answer = context.client.post(&what, &path, &json!({})).await;
    let answer = context.or_nearest(answer, name, &PATH, &["name"]).await?;
    if context.json {
        context.io.json(&answer)?;
    } else {
        context.io.line(str(&answer["value"]))?;
    }
    Ok(Exit::Fine)
}

async fn delete(name: &str, yes: bool, context: &mut Context<'_>) -> Result<Exit> {
    if !yes && !context.io.confirm(&format!("Retire the source `{name}`?"))? {
        return Ok(Exit::Failed);
    }
    let what = format!("delete the source `{name}`");
    let deleted = context.client.delete(&what, &["v1", "sources", name]).await;
    let deleted = context.or_nearest(deleted, name, &PATH, &["name"]).await?;
    if context.json {
        context.io.json(&deleted)?;
    } else {
        context.io.line(format!("{}  retired", one_line(name)))?;
    }
    Ok(Exit::Fine)
}

async fn refusals(name: &str, paging: &Paging, context: &mut Context<'_>) -> Result<Exit> {
    let what = format!("list the refusals of the source `{name}`");
    let listing = context.list(&what, &["v1", "sources", name, "refusals"], &[], paging).await;
    let listing = context.or_nearest(listing, name, &PATH, &["name"]).await?;
    context.print_list(&listing, "refusals", |listing, now| {
        let mut table = Table::new(&["ID", "AT", "SOURCE", "REASON…"]);
        for refusal in &listing.data {
            table.row(vec![
                Cell::new(str(&refusal["id"])),
                ago(now, &refusal["at"]),
                Cell::new(str(&refusal["source"])),
                Cell::new(str(&refusal["reason"])),
            ]);
        }
        table
    })?;
    Ok(Exit::Fine)
}
