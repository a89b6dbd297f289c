//! Callbacks of agents and sources: what a request says about one, its test, its signing secret.
//!
//! Invariant: URL and secret are in the vault before the callback is there. A secret that the server
//! made up is shown once, in the answer to the request that had it made.

use std::time::Duration;

use axum::{Json, extract::State};
use secrecy::{ExposeSecret, SecretString};
use serde_json::{Value, json};

use super::{outbox, secrets, sources};
use crate::{
    domain::{
        Problem,
        agent::Agent,
        callback::{Callback, Format, Kind, check_secret, check_url, shown},
        secret,
        source::{Source, SourceKind},
    },
    id::{AgentId, Id},
    vault,
    web::{
        App,
        auth::Actor,
        error::{Error, Result},
        input::{At, Fields, text},
        routes::{Routes, answers},
    },
};

pub(super) fn routes() -> Routes {
    const TEST: &str = "Has a test message sent to the callback.";
    const ROTATE: &str = "Makes a new signing secret, and shows it once.";
    let test = || answers("OutgoingMessage", TEST).or(&[409]);
    let rotate = || {
        let doc = answers("CallbackSecret", ROTATE);
        doc.optional("CallbackRotate").or(&[409])
    };
    Routes::of("callbacks")
        .post("/v1/agents/{id}/callback/test", test_agent, test())
        .post("/v1/agents/{id}/callback/secret", rotate_agent, rotate())
        .post("/api/agents/{id}/callback/test", test_agent, test())
        .post("/api/agents/{id}/callback/secret", rotate_agent, rotate())
        .post("/v1/sources/{id}/callback/test", test_source, test())
        .post("/v1/sources/{id}/callback/secret", rotate_source, rotate())
}

/// What somebody wants of a callback.
#[derive(Debug, Default)]
pub(in crate::web) struct Wish {
    pub(in crate::web) callback: Option<Callback>,
    url: Option<SecretString>,
    secret: Option<SecretString>,
}

/// Takes what a body says about the callback; nothing is said where the field is not there.
pub(in crate::web) fn take(
    app: &App,
    fields: &mut Fields,
    before: Option<&Callback>,
    owner: &str,
) -> Result<Option<Wish>> {
    let Some(given) = fields.take("callback") else { return Ok(None) };
    let within = |problem: Problem| match problem.field.as_str() {
        "callback" => problem,
        _ => problem.within("callback"),
    };
    let near = &app.options().callback_hosts;
    Ok(Some(read(given, before, owner, near).map_err(within)?))
}

fn read(
    given: Value,
    before: Option<&Callback>,
    owner: &str,
    near: &[String],
) -> Result<Wish, Problem> {
    if given.is_null() {
        return Ok(Wish::default());
    }
    let mut fields = Fields::of(given, "callback")?;
    let url = fields.text("url", 2048)?;
    // What was shown is no new URL, and not a whole one.
    let url = url.filter(|url| before.is_none_or(|before| before.url != *url));
    let url = url.map(|url| check_url(&url, near)).transpose()?;
    let format = match fields.take("format") {
        None => None,
        Some(given) => Some(format(&given)?),
    };
    let mut callback = match (&url, before) {
        (Some(url), None) => Callback::new(owner, url),
        (Some(url), Some(before)) => {
            // A chat's URL says what it takes; any other leaves the format as it is.
            let told = Some(Format::of(url)).filter(|format| *format == Format::Slack);
            let format = told.unwrap_or(before.format);
            Callback { url: shown(url, format), format, ..before.clone() }
        }
        (None, Some(before)) => before.clone(),
        (None, None) => return Err(Problem::new("url", "is required")),
    };
    if let Some(format) = format.filter(|format| *format != callback.format) {
        let Some(url) = &url else {
            return Err(Problem::new("url", "must be given again when `format` changes"));
        };
        callback.format = format;
        callback.url = shown(url, format);
    }
    if let Some(given) = fields.take("events") {
        callback.events = events(&given)?;
    }
    if let Some(given) = fields.take("secret_key") {
        callback.secret_key = match given {
            Value::Null => secret::callback_key(owner),
            given => {
                let name = text("secret_key", &given, 128)?;
                secret::check_name(&name)
                    .map_err(|problem| Problem::new("secret_key", problem.message))?;
                name
            }
        };
    }
    let secret = secrets::value(&mut fields, "secret")?;
    if let Some(secret) = &secret {
        check_secret(secret.expose_secret())?;
        if callback.format == Format::Slack {
            return Err(Problem::new("secret", "signs nothing in this format: leave it out"));
        }
    }
    // What an answer shows and a caller may send back.
    for key in ["off_since", "url_key"] {
        fields.take(key);
    }
    fields.finish()?;
    let url = url.map(|url| SecretString::from(url.to_string()));
    Ok(Wish { callback: Some(callback), url, secret })
}

fn format(given: &Value) -> Result<Format, Problem> {
    let found = Format::NAMES.iter().find(|(name, _)| given == name).map(|(_, format)| *format);
    found.ok_or_else(|| Problem::new("format", "must be `standard` or `slack`"))
}

fn events(given: &Value) -> Result<Vec<Kind>, Problem> {
    let words: Vec<&str> = Kind::WANTED.iter().map(|(name, _)| *name).collect();
    let wanted = || {
        let message = format!("must be a list of one or more of `{}`", words.join("`, `"));
        Problem::new("events", message)
    };
    let list = match given {
        Value::Null => return Ok(Kind::all()),
        Value::Array(list) if !list.is_empty() && list.len() <= words.len() => list,
        _ => return Err(wanted()),
    };
    let kind = |word: &Value| {
        let kind = word.as_str().and_then(Kind::parse).filter(|kind| *kind != Kind::Test);
        kind.ok_or_else(wanted)
    };
    let mut kinds = list.iter().map(kind).collect::<Result<Vec<_>, _>>()?;
    kinds.sort_unstable();
    kinds.dedup();
    Ok(kinds)
}

/// Puts what is secret into the vault, and has a signing secret made where there is none. Answers the
/// one that was made.
pub(in crate::web) async fn keep(
    app: &App,
    actor: &Actor,
    wish: &Wish,
) -> Result<Option<SecretString>> {
    let Some(callback) = &wish.callback else { return Ok(None) };
    if let Some(url) = &wish.url {
        put(app, actor, &callback.url_key, url.clone(), Duration::ZERO).await?;
    }
    if let Some(secret) = &wish.secret {
        put(app, actor, &callback.secret_key, secret.clone(), Duration::ZERO).await?;
        return Ok(None);
    }
    let is_set = app.ingest.registry.snapshot().has_secret(&callback.secret_key);
    if callback.format == Format::Slack || is_set {
        return Ok(None);
    }
    let made = vault::generate_signing_secret();
    put(app, actor, &callback.secret_key, made.clone(), Duration::ZERO).await?;
    Ok(Some(made))
}

async fn put(
    app: &App,
    actor: &Actor,
    name: &str,
    value: SecretString,
    overlap: Duration,
) -> Result<()> {
    let details = json!({"overlap_seconds": overlap.as_secs()});
    let change = actor.change("secret.set", name, details);
    app.ingest.registry.put_secret(name.to_owned(), value, overlap, change).await?;
    Ok(())
}

/// Gives an agent what was wished for. Answers the secret that was made.
pub(in crate::web) async fn of_agent(
    app: &App,
    actor: &Actor,
    id: &AgentId,
    wish: Wish,
) -> Result<Option<SecretString>> {
    let made = keep(app, actor, &wish).await?;
    let change = actor.change("agent.callback", id, json!(wish.callback));
    let done = app.store.put_agent_callback(id, wish.callback, change).await;
    done.map_err(Error::missing("agent"))?;
    app.configured().await;
    Ok(made)
}

/// Shows a secret that was just made inside of what it was made for.
pub(in crate::web) fn show_made(object: &mut Value, made: Option<SecretString>) {
    if let Some(made) = made {
        object["callback"]["secret"] = made.expose_secret().into();
    }
}

async fn test_agent(
    State(app): State<App>,
    actor: Actor,
    At(id): At<AgentId>,
) -> Result<Json<Value>> {
    let agent = agent(&app, &id).await?;
    test(&app, &actor, id.as_str(), &agent.spec.name).await
}

async fn test_source(
    State(app): State<App>,
    actor: Actor,
    At(name): At<String>,
) -> Result<Json<Value>> {
    let source = sources::living(&app, &name).await?;
    refuse_agents(&source)?;
    test(&app, &actor, source.id.as_str(), &source.name).await
}

/// Has a message sent that tells nothing; what became of it is at its own URL.
async fn test(app: &App, actor: &Actor, owner: &str, name: &str) -> Result<Json<Value>> {
    let change = actor.change("callback.test", owner, json!({}));
    let message = app.store.write_test(owner, name, change).await?;
    app.signals.outgoing();
    Ok(Json(outbox::show(&message)))
}

async fn rotate_agent(
    State(app): State<App>,
    actor: Actor,
    At(id): At<AgentId>,
    fields: Fields,
) -> Result<Json<Value>> {
    let callback = agent(&app, &id).await?.callback.map(|(callback, _)| callback);
    rotate(&app, &actor, callback, fields).await
}

async fn rotate_source(
    State(app): State<App>,
    actor: Actor,
    At(name): At<String>,
    fields: Fields,
) -> Result<Json<Value>> {
    let source = sources::living(&app, &name).await?;
    refuse_agents(&source)?;
    rotate(&app, &actor, source.definition.callback, fields).await
}

/// Makes a new signing secret and shows it once. While the old one overlaps both sign.
async fn rotate(
    app: &App,
    actor: &Actor,
    callback: Option<Callback>,
    mut fields: Fields,
) -> Result<Json<Value>> {
    let overlap = fields.number("overlap_seconds", 0..=secrets::OVERLAP_SECONDS_MAX)?.unwrap_or(0);
    fields.finish()?;
    let signs = callback.filter(|callback| callback.format == Format::Standard);
    let callback = signs.ok_or_else(|| Error::conflict("there is no callback that is signed"))?;
    let made = vault::generate_signing_secret();
    let overlap = Duration::from_secs(overlap);
    put(app, actor, &callback.secret_key, made.clone(), overlap).await?;
    app.signals.configured();
    Ok(Json(json!({
        "type": "callback_secret",
        "secret_key": callback.secret_key,
        "secret": made.expose_secret(),
        "overlap_seconds": overlap.as_secs(),
    })))
}

async fn agent(app: &App, id: &AgentId) -> Result<Agent> {
    app.store.agent(id, None).await.map_err(Error::missing("agent"))
}

/// What is told of an agent's own source is the agent's.
fn refuse_agents(source: &Source) -> Result<()> {
    match &source.kind {
        SourceKind::Named => Ok(()),
        SourceKind::Agent(agent) => {
            Err(Error::conflict(format!("the callback is the agent's: /v1/agents/{agent}")))
        }
    }
}
