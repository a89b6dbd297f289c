//! Sources: who may call in, and where it goes.
//!
//! Invariant: a secret that comes with a source is in the vault before the source is there, so there
//! is no moment at which a source stands without its gate.

use std::{collections::BTreeMap, time::Duration};

use axum::{Json, extract::State};
use secrecy::ExposeSecret;
use serde_json::{Value, json};

use super::{LIMIT, callbacks, environments, source_form};
use crate::{
    clock::Timestamp,
    domain::{
        ManagedBy, Problem, agent,
        handshake::Answered,
        secret,
        source::{Source, SourceDefinition, SourceKind, check_name},
    },
    id::{EnvironmentId, Id, SourceId},
    ingest::{self, Entry, Evidence, Preset, Sender, Snapshot, secret_key},
    store::{Refusal, refuse_declared},
    web::{
        App,
        auth::Actor,
        error::{Error, Result},
        input::{At, Fields},
        query::{Query, whole},
        routes::{Routes, answers, lists},
    },
};

pub(super) fn routes() -> Routes {
    let shows = |says| answers("Source", says);
    Routes::of("sources")
        .get("/v1/presets", presets, lists("Preset", &[], "Lists the senders that are known."))
        .get("/v1/sources", list, lists("Source", &["source_kind"], "Lists sources."))
        .post(
            "/v1/sources",
            put,
            shows("Makes the source of a name, or changes it.").takes("SourcePut").or(&[409]),
        )
        .get("/v1/sources/{id}", retrieve, shows("Shows a source, by its id or name."))
        .post(
            "/v1/sources/{id}",
            update,
            shows("Changes a source: a field left out stays, null is back to its default.")
                .optional("SourceUpdate")
                .or(&[409]),
        )
        .delete(
            "/v1/sources/{id}",
            retire,
            answers("DeletedSource", "Retires a source: nobody may call in by it.").or(&[409]),
        )
        .post("/v1/sources/{id}/pause", pause, shows("Holds what comes in from here on."))
        .post("/v1/sources/{id}/resume", resume, shows("Takes in again what comes."))
        .post(
            "/v1/sources/{id}/handshake",
            open,
            shows("Opens the window in which the sender hands over its secret.")
                .optional("HandshakeOpen")
                .or(&[409]),
        )
        .post(
            "/v1/sources/{id}/handshake/secret",
            received,
            answers("SourceSecret", "Shows the secret that the sender handed over, once.")
                .or(&[409]),
        )
        .get(
            "/v1/sources/{id}/refusals",
            refusals,
            lists("Refusal", &["limit"], "Lists requests that the gate turned away."),
        )
}

/// A source by id or name, retired ones too. Read from the store, so that what another node did a
/// moment before counts.
pub(super) async fn find(app: &App, id_or_name: &str) -> Result<Option<Source>> {
    let mut sources = app.store.sources().await?;
    let by_id = sources.iter().position(|it| it.id.as_str() == id_or_name);
    // Named ones first: an agent's own source goes by the agent's id.
    let named = |it: &Source| it.kind == SourceKind::Named && it.name == id_or_name;
    let by_name = || sources.iter().position(named);
    let by_agent = || sources.iter().position(|it| it.name == id_or_name);
    Ok(by_id.or_else(by_name).or_else(by_agent).map(|at| sources.swap_remove(at)))
}

pub(super) async fn living(app: &App, id_or_name: &str) -> Result<Source> {
    let source = find(app, id_or_name).await?.filter(|source| source.retired_at.is_none());
    source.ok_or_else(unknown)
}

/// Makes the source of a name, or changes the one that there is.
pub(in crate::web) async fn put(
    State(app): State<App>,
    actor: Actor,
    mut fields: Fields,
) -> Result<Json<Value>> {
    let name = fields.required("name", 64)?;
    check_name(&name)?;
    let sources = app.store.sources().await?;
    let known = sources.into_iter().find(|it| it.kind == SourceKind::Named && it.name == name);
    let at = app.store.clock().now();
    let source = match known {
        Some(source) if source.retired_at.is_none() => source,
        // One that comes back is the same source, and starts with a clean definition.
        known => fresh(known.map(|source| source.id), name, at),
    };
    save(&app, &actor, source, fields).await
}

fn fresh(id: Option<SourceId>, name: String, at: Timestamp) -> Source {
    Source {
        id: id.unwrap_or_else(|| SourceId::new(at)),
        kind: SourceKind::Named,
        name,
        definition: SourceDefinition::default(),
        paused: false,
        managed_by: ManagedBy::Api,
        created_at: at,
        updated_at: at,
        retired_at: None,
    }
}

pub(in crate::web) async fn update(
    State(app): State<App>,
    actor: Actor,
    At(name): At<String>,
    mut fields: Fields,
) -> Result<Json<Value>> {
    let source = living(&app, &name).await?;
    if fields.text("name", 64)?.is_some_and(|name| name != source.name) {
        return Err(Problem::new("name", "cannot be changed: senders know it").into());
    }
    save(&app, &actor, source, fields).await
}

async fn save(
    app: &App,
    actor: &Actor,
    mut source: Source,
    mut fields: Fields,
) -> Result<Json<Value>> {
    // Before anything is touched, the vault included; the store looks again.
    refuse_declared(source.managed_by, ManagedBy::Api, &source.name, "change it")?;
    refuse_of_agent(app, &source, &fields)?;
    let before = source.definition.callback.as_ref();
    // An agent's own source has none: the field is unknown there.
    let wish = match source.kind {
        SourceKind::Named => callbacks::take(app, &mut fields, before, &source.name)?,
        SourceKind::Agent(_) => None,
    };
    let secret = source_form::apply(fields, &mut source)?;
    check_places(app, actor, &mut source).await?;
    if let Some(value) = secret {
        let key = secret_key(&source);
        let change = actor.change("secret.set", &key, json!({"source": source.name}));
        app.ingest.registry.put_secret(key, value, Duration::ZERO, change).await?;
    }
    let made = match &wish {
        Some(wish) => callbacks::keep(app, actor, wish).await?,
        None => None,
    };
    if let Some(wish) = wish {
        source.definition.callback = wish.callback;
    }
    let change = actor.change("source.put", &source.name, json!(source.definition));
    let source = app.store.put_source(source, change).await?;
    app.configured().await;
    // What waited for room may have it now.
    app.signals.due();
    let mut shown = show_one(app, &source).await?;
    callbacks::show_made(&mut shown, made);
    Ok(shown)
}

/// What the file says of an agent it says of the agent's own source too.
fn refuse_of_agent(app: &App, source: &Source, fields: &Fields) -> Result<()> {
    let SourceKind::Agent(id) = &source.kind else { return Ok(()) };
    let snapshot = app.ingest.registry.snapshot();
    match snapshot.agents.get(id).filter(|_| fields.has("webhook_tools")) {
        Some(agent) => {
            let (name, what) = (&agent.spec.name, "change its `webhook_tools`");
            Ok(refuse_declared(agent.managed_by, ManagedBy::Api, name, what)?)
        }
        None => Ok(()),
    }
}

/// What a source refers to must be there when it is made here; what goes away later shows as broken.
async fn check_places(app: &App, actor: &Actor, source: &mut Source) -> Result<()> {
    let definition = &mut source.definition;
    let own = (&definition.agent, &definition.environment_id, &mut definition.project);
    check_place(app, actor, "", own).await?;
    for (n, rule) in definition.rules.iter_mut().enumerate() {
        let own = (&rule.agent, &rule.environment_id, &mut rule.project);
        check_place(app, actor, &format!("rules[{n}]."), own).await?;
    }
    Ok(())
}

async fn check_place(
    app: &App,
    actor: &Actor,
    at: &str,
    (agent, environment, project): (&Option<String>, &Option<EnvironmentId>, &mut Option<String>),
) -> Result<()> {
    let snapshot = app.ingest.registry.snapshot();
    if let Some(agent) = agent
        && snapshot.agent(agent).is_none()
    {
        let message = format!("there is no agent `{agent}`");
        return Err(Problem::new(format!("{at}agent"), message).into());
    }
    if let Some(id) = environment
        && snapshot.environments.get(id).is_none_or(|it| it.archived_at.is_some())
    {
        let at = format!("{at}environment_id");
        return Err(Problem::new(at, "there is no such environment").into());
    }
    if let Some(project) = project {
        *project = environments::directory(app, &format!("{at}project"), project)?;
        app.ingest.registry.ensure_project(project, ManagedBy::Api, &actor.0).await?;
    }
    Ok(())
}

pub(in crate::web) async fn retire(
    State(app): State<App>,
    actor: Actor,
    At(name): At<String>,
) -> Result<Json<Value>> {
    let source = living(&app, &name).await?;
    if let SourceKind::Agent(agent) = &source.kind {
        let message = format!("it belongs to {agent}; archive the agent instead");
        return Err(Error::conflict(message));
    }
    let change = actor.change("source.retire", &source.name, json!({}));
    let source = app.store.retire_source(&source.id, ManagedBy::Api, change).await?;
    app.configured().await;
    Ok(Json(json!({"id": source.id, "type": "source_deleted", "name": source.name})))
}

pub(in crate::web) async fn pause(
    state: State<App>,
    actor: Actor,
    name: At<String>,
) -> Result<Json<Value>> {
    set_paused(state, actor, name, true).await
}

pub(in crate::web) async fn resume(
    state: State<App>,
    actor: Actor,
    name: At<String>,
) -> Result<Json<Value>> {
    set_paused(state, actor, name, false).await
}

/// Possible with declared ones too: it stops a flood, it does not change what was declared.
async fn set_paused(
    State(app): State<App>,
    actor: Actor,
    At(name): At<String>,
    paused: bool,
) -> Result<Json<Value>> {
    let source = living(&app, &name).await?;
    let action = if paused { "source.pause" } else { "source.resume" };
    let change = actor.change(action, &source.name, json!({}));
    let source = app.store.pause_source(&source.id, paused, change).await?;
    app.configured().await;
    show_one(&app, &source).await
}

/// Minutes in which a sender may hand over its secret.
const OPEN_MINUTES: std::ops::RangeInclusive<u64> = 0..=60;
const OPEN_MINUTES_DEFAULT: u64 = 10;

/// Opens the window in which the sender hands over its secret, or closes it with 0 minutes.
/// Possible with declared ones too: the secret is not theirs to declare.
async fn open(
    State(app): State<App>,
    actor: Actor,
    At(name): At<String>,
    mut fields: Fields,
) -> Result<Json<Value>> {
    let minutes = fields.number("minutes", OPEN_MINUTES)?.unwrap_or(OPEN_MINUTES_DEFAULT);
    fields.finish()?;
    let source = living(&app, &name).await?;
    let sender = Sender::of(&source)?;
    if !sender.handshakes.iter().any(|it| it.answered == Answered::Window) {
        let message = "its sender hands over no secret: give it one";
        return Err(Error::conflict(message));
    }
    // One of another name may be anybody else's too, and whoever comes first must not replace that.
    if secret_key(&source) != secret::source_key(&source.name) {
        let message = "its secret has a name of its own: leave `secret_key` out";
        return Err(Error::conflict(message));
    }
    let until = app.store.clock().now().plus(Duration::from_secs(minutes * 60));
    let change = actor.change("source.open", &source.name, json!({"minutes": minutes}));
    app.store.open_window(&source.id, until, change).await?;
    app.configured().await;
    show_one(&app, &source).await
}

/// The secret that the sender handed over and wants back by hand: shown once.
async fn received(
    State(app): State<App>,
    actor: Actor,
    At(name): At<String>,
) -> Result<Json<Value>> {
    let source = living(&app, &name).await?;
    let change = actor.change("secret.shown", secret_key(&source), json!({"source": source.name}));
    let value = app.ingest.registry.show_once(&source, change).await?;
    let value = value.ok_or_else(|| {
        Error::conflict("there is nothing to show: no secret came, or it was shown already")
    })?;
    Ok(Json(json!({
        "type": "source_secret",
        "name": source.name,
        "value": value.expose_secret(),
    })))
}

async fn retrieve(State(app): State<App>, At(name): At<String>) -> Result<Json<Value>> {
    let source = living(&app, &name).await?;
    show_one(&app, &source).await
}

async fn list(State(app): State<App>, query: Query) -> Result<Json<Value>> {
    let parse = |text: &str| match text {
        "named" => Some((true, false)),
        "agent" => Some((false, true)),
        "all" => Some((true, true)),
        _ => None,
    };
    let kinds = query.word("kind", parse, "`named`, `agent` or `all`")?;
    let (named, of_agents) = kinds.unwrap_or((true, false));
    let off = app.store.callbacks_off().await?;
    let snapshot = app.ingest.registry.snapshot();
    let wanted = snapshot.sources().into_iter().filter(|entry| match entry.source.kind {
        SourceKind::Named => named,
        SourceKind::Agent(_) => of_agents,
    });
    Ok(whole(wanted.map(|entry| show(&app, entry, &off)).collect()))
}

/// The senders that are known.
async fn presets() -> Json<Value> {
    let show = |preset: &Preset| {
        json!({
            "id": preset.id,
            "type": "preset",
            "title": preset.title,
            "verifier": preset.verifier,
            "identity": preset.identity,
            "body_hash_window_seconds": preset.body_hash_window_seconds,
            "event_type": preset.event_type,
            "key": preset.key,
            "actor": preset.actor,
            "handshakes": preset.handshakes,
            "answer": preset.answer,
            "setup": preset.setup,
            "expects": preset.expects,
            "retries": preset.retries,
            "notes": preset.notes,
            "evidence": preset.evidence.map(Evidence::text),
            "unverified": preset.unverified.iter().map(|fact| fact.name()).collect::<Vec<_>>(),
        })
    };
    whole(ingest::presets().iter().map(show).collect())
}

/// Requests that the gate turned away, as far as they are still kept.
async fn refusals(
    State(app): State<App>,
    At(name): At<String>,
    query: Query,
) -> Result<Json<Value>> {
    let limit = query.limit(LIMIT.0, LIMIT.1)?;
    let source = living(&app, &name).await?;
    let found = app.store.refusals(Some(source.name), limit).await?;
    let show = |refusal: &Refusal| {
        json!({
            "id": refusal.id,
            "type": "refusal",
            "source": refusal.source,
            "source_id": refusal.source_id,
            "reason": refusal.reason,
            "at": refusal.at,
        })
    };
    Ok(whole(found.iter().map(show).collect()))
}

async fn show_one(app: &App, source: &Source) -> Result<Json<Value>> {
    let off = app.store.callbacks_off().await?;
    let snapshot = app.ingest.registry.snapshot();
    Ok(Json(show(app, entry(&snapshot, source)?, &off)))
}

/// What the receive path knows of a source.
pub(super) fn entry<'a>(snapshot: &'a Snapshot, source: &Source) -> Result<&'a Entry> {
    let entry = match source.kind {
        SourceKind::Named => snapshot.named_source(&source.name),
        SourceKind::Agent(_) => snapshot.agent_source(&source.name),
    };
    entry.ok_or_else(unknown)
}

fn unknown() -> Error {
    Error::not_found("there is no such source")
}

fn show(app: &App, entry: &Entry, off: &BTreeMap<String, Timestamp>) -> Value {
    let (source, now) = (&entry.source, app.store.clock().now());
    let definition = &source.definition;
    let sender = entry.sender.as_ref().ok();
    let (kind, agent) = match &source.kind {
        SourceKind::Named => {
            ("named", definition.agent.clone().unwrap_or_else(|| agent::DEFAULT_NAME.to_owned()))
        }
        SourceKind::Agent(id) => ("agent", id.to_string()),
    };
    let secrets: Vec<Value> = entry
        .secrets
        .names(now)
        .map(|(secret, until)| {
            json!({"name": secret.name, "version": secret.version, "until": until})
        })
        .collect();
    let mut shown = json!({
        "id": source.id,
        "type": "source",
        "name": source.name,
        "kind": kind,
        "url": app.url(&source.path()),
        "preset": definition.preset,
        "setup": sender.and_then(|sender| sender.preset).map(|preset| &preset.setup),
        "verifier": sender.map(|sender| &sender.verifier),
        "secret_key": entry.secrets.is_wanted().then(|| secret_key(source)),
        "secret_set": entry.secrets.is_set(),
        "secrets": secrets,
        "agent": agent,
        "agent_id": entry.address.agent.as_ref().ok().map(|agent| &agent.id),
        "environment_id": entry.address.environment.as_ref().ok(),
        "project": definition.project,
        "target": definition.target,
        "filter": definition.filter,
        "message": definition.message,
        "rules": definition.rules,
        "ignore_actors": definition.ignore_actors,
        "actor": sender.map(|sender| &sender.actor),
        "identity": sender.map(|sender| &sender.identity),
        "body_hash_window_seconds": sender.map(|sender| sender.body_hash_window_seconds),
        "event_type": sender.map(|sender| &sender.event_type),
        "handshakes": sender.map(|sender| &sender.handshakes),
        "verify_token": entry.verify_token(now),
        "open_until": entry.open_until.filter(|until| *until > now),
        "last_handshake_at": entry.greeted.at(),
        "on_redelivery": definition.on_redelivery,
        "on_possible_replay": definition.on_possible_replay,
        "message_chars_max": definition.message_chars_max,
        "debounce_seconds": definition.debounce_seconds,
        "debounce_seconds_max": definition.debounce_seconds_max,
        "when_busy": definition.when_busy,
        "turns_per_key_per_hour_max": definition.turns_per_key_per_hour_max,
        "paused": source.paused,
        "broken": entry.broken(),
        "managed_by": source.managed_by.as_str(),
        "waiting": entry.waiting.count(),
        "created_at": source.created_at,
        "updated_at": source.updated_at,
    });
    shown["allowed_hosts"] = json!(definition.allowed_hosts);
    shown["webhook_tools"] = json!(definition.webhook_tools);
    // The macro takes no more fields.
    shown["turns_at_once_max"] = definition.turns_at_once_max.into();
    shown["turns_per_minute_max"] = definition.turns_per_minute_max.into();
    let off_since = off.get(source.id.as_str()).copied();
    let callback = definition.callback.as_ref().map(|callback| callback.to_json(off_since));
    shown["callback"] = callback.into();
    shown
}
