//! Sessions: made, looked at, listed, changed, archived, deleted.

use axum::{Json, extract::State};
use serde_json::{Value, json};

use super::{LIMIT, events, resources};
use crate::{
    domain::{
        Problem,
        agent::{Agent, AgentPatch, AgentSpec},
        budget::Budget,
        cost::MicroUsd,
        credential::VAULTS_MAX,
        model::{ModelRef, REHEARSAL},
        session::{Session, SessionPatch, Status},
    },
    id::{AgentId, EnvironmentId, Id, SessionId, VaultId},
    store::{self, NewSession, SessionFilter, SessionPage},
    web::{
        App,
        auth::Actor,
        error::{Error, Result},
        input::{At, Fields},
        query::{Query, cursor},
        routes::{Routes, answers},
    },
};

pub(super) fn routes() -> Routes {
    const LIST: &[&str] = &[
        "agent_id",
        "agent_version",
        "deployment_id",
        "statuses",
        "include_archived",
        "created_at",
        "order",
        "limit",
        "page",
    ];
    Routes::of("sessions")
        .get(
            "/v1/sessions",
            list,
            answers("SessionPage", "Lists sessions, newest first unless `order` says otherwise.")
                .query(LIST),
        )
        .post(
            "/v1/sessions",
            create,
            answers("Session", "Makes a session, which works at once if it starts with events.")
                .takes("SessionCreate")
                .or(&[404, 409, 429]),
        )
        .get("/v1/sessions/{id}", retrieve, answers("Session", "Shows a session."))
        .post(
            "/v1/sessions/{id}",
            update,
            answers("Session", "Changes a session.").takes("SessionUpdate").or(&[409]),
        )
        .delete(
            "/v1/sessions/{id}",
            delete,
            answers("Deleted", "Deletes a session that rests, with its log and files.").or(&[400]),
        )
        .post(
            "/v1/sessions/{id}/archive",
            archive,
            answers("Session", "Archives a session that rests: it is terminated.").or(&[400]),
        )
}

/// Events that a session may start with.
const INITIAL_MAX: usize = 50;

const TITLE_MAX: usize = 256;

async fn create(State(app): State<App>, mut fields: Fields) -> Result<Json<Value>> {
    let agent = fields.value("agent").ok_or_else(|| Problem::new("agent", "is required"))?;
    let environment = fields.required("environment_id", 64)?;
    let title = fields.text("title", TITLE_MAX)?.filter(|title| !title.is_empty());
    let metadata = fields.metadata()?;
    let mut initial = fields.list("initial_events")?;
    let vault_ids = take_vaults(&app, &mut fields).await?;
    let resources = resources::take(&app, &mut fields).await?;
    let most = most_cost(fields.take("budget"))?;
    let budget = limits(fields.take("limits"), most)?;
    fields.finish()?;
    if initial.len() > INITIAL_MAX {
        let message = format!("has more than {INITIAL_MAX} events");
        return Err(Problem::new("initial_events", message).into());
    }
    let at = app.store.clock().now();
    let _permit = events::inline(&app, &mut initial, "initial_events").await?;
    let messages = events::messages(initial, "initial_events", at)?;
    let (agent, overrides) = find_agent(&app, agent).await?;
    if most.is_some() {
        check_budgetable(&app, overrides.as_ref().unwrap_or(&agent.spec))?;
    }
    let environment_id = find_environment(&app, &environment).await?;
    let starts = !messages.is_empty();
    let session = NewSession {
        id: SessionId::new(at),
        agent_id: agent.id,
        agent_version: agent.version,
        overrides: overrides.map(|spec| spec_text(&spec)),
        environment_id,
        deployment_id: None,
        vault_ids,
        title,
        metadata,
        messages,
        resources,
        budget,
    };
    let session = app.store.create_session(session).await;
    let session = session.map_err(Error::missing("environment"))?;
    if starts {
        app.ring(&session.id);
    }
    Ok(show(&app, &session))
}

/// A session as it is now.
fn show(app: &App, session: &Session) -> Json<Value> {
    Json(session.to_json(app.store.clock().now()))
}

/// `budget` as the API has it, in whole cents; `limits` are ours, and say more.
pub(super) fn budget(given: Option<Value>, limits_given: Option<Value>) -> Result<Budget, Problem> {
    limits(limits_given, most_cost(given)?)
}

/// `budget` as the API has it, in whole cents.
fn most_cost(given: Option<Value>) -> Result<Option<MicroUsd>, Problem> {
    let Some(given) = given.filter(|it| !it.is_null()) else { return Ok(None) };
    let limit = &given["max_list_cost"];
    let cents = limit["amount"].as_str().filter(|it| it.bytes().all(|it| it.is_ascii_digit()));
    let cents = cents.and_then(|it| it.parse::<u32>().ok()).filter(|cents| *cents > 0);
    match cents {
        Some(cents) if given["type"] == "limit" && limit["currency"] == "USD" => {
            Ok(Some(MicroUsd(i64::from(cents) * 10_000)))
        }
        _ => {
            let message = "must be {\"type\": \"limit\", \"max_list_cost\": {\"amount\", \
                           \"currency\": \"USD\"}} with a whole number of cents, at least one";
            Err(Problem::new("budget", message))
        }
    }
}

/// `limits` are ours, and say more.
fn limits(given: Option<Value>, most: Option<MicroUsd>) -> Result<Budget, Problem> {
    let given = given.filter(|it| !it.is_null()).unwrap_or_else(|| json!({}));
    let limits: Budget = serde_json::from_value(given)
        .map_err(|error| Problem::new("limits", format!("cannot be read: {error}")))?;
    Ok(limits.and(Budget { cost_usd: most, ..Budget::default() }))
}

/// What a model costs must be known, or nobody could stop it in time.
fn check_budgetable(app: &App, spec: &AgentSpec) -> Result<(), Problem> {
    let model = &spec.model.id;
    let options = app.options();
    let bare = ModelRef::parse(model, false).id;
    let has_price = |name: &str| options.priced_models.iter().any(|it| it == name);
    if model == REHEARSAL || has_price(model) || has_price(&bare) {
        return Ok(());
    }
    let message = format!("needs a price of the model `{model}` (`models.prices`)");
    Err(Problem::new("budget", message).with_code("model_not_budgetable"))
}

/// The agent of a new session, and the whole spec when it is not the agent's version as it is.
pub(super) async fn find_agent(app: &App, given: Value) -> Result<(Agent, Option<AgentSpec>)> {
    let mut fields = match given {
        Value::String(id) => Fields::of(json!({"type": "agent", "id": id}), "agent")?,
        given => Fields::of(given, "agent")?,
    };
    let kind = fields.required("type", 64).map_err(within)?;
    let id = fields.required("id", 64).map_err(within)?;
    let version = fields.number("version", 1..=i64::MAX as u64).map_err(within)?;
    let id: AgentId =
        id.parse().map_err(|error| Problem::new("agent.id", format!("is {error}")))?;
    let patch = match kind.as_str() {
        "agent" => {
            fields.finish().map_err(within)?;
            None
        }
        "agent_with_overrides" => Some(read_overrides(fields)?),
        _ => {
            let message = "must be `agent` or `agent_with_overrides`";
            return Err(Problem::new("agent.type", message).into());
        }
    };
    let version = version.and_then(|version| i64::try_from(version).ok());
    let agent = app.store.agent(&id, version).await.map_err(Error::missing("agent"))?;
    if agent.archived_at.is_some() {
        return Err(Error::invalid(format!("{id} is archived: it takes no new sessions")));
    }
    let spec = match patch {
        None => None,
        Some(patch) => Some(patch.apply(agent.spec.clone()).map_err(within)?),
    };
    let overrides = spec.filter(|spec| *spec != agent.spec);
    Ok((agent, overrides))
}

fn spec_text(spec: &AgentSpec) -> String {
    serde_json::to_string(spec).expect("a spec is plain JSON")
}

/// Left out: as the agent has it. Null or empty: cleared. Anything else: replaced as a whole.
fn read_overrides(mut fields: Fields) -> Result<AgentPatch> {
    let mut model = fields.take("model");
    match &mut model {
        Some(Value::Null) => {
            let problem = Problem::new("agent.model", "cannot be cleared");
            return Err(problem.with_code("agent_model_required").into());
        }
        // The API passes over an effort here.
        Some(Value::Object(model)) => drop(model.shift_remove("effort")),
        _ => {}
    }
    let patch = AgentPatch {
        model,
        system: fields.take("system"),
        tools: fields.take("tools"),
        mcp_servers: fields.take("mcp_servers"),
        skills: fields.take("skills"),
        ..AgentPatch::default()
    };
    fields.finish().map_err(within)?;
    Ok(patch)
}

/// A problem of the `agent` field's own fields.
fn within(problem: Problem) -> Problem {
    problem.within("agent")
}

pub(super) async fn find_environment(app: &App, id: &str) -> Result<EnvironmentId> {
    let id: EnvironmentId =
        id.parse().map_err(|error| Problem::new("environment_id", format!("is {error}")))?;
    let environment = app.store.environment(&id).await.map_err(Error::missing("environment"))?;
    if environment.archived_at.is_some() {
        let error = Error::invalid(format!("{id} is archived: it takes no new sessions"));
        return Err(error.with_code("environment_archived"));
    }
    Ok(id)
}

/// The vaults that a new session names, if it may use them. One that is named twice counts where it
/// stands first.
pub(super) async fn take_vaults(app: &App, fields: &mut Fields) -> Result<Vec<String>> {
    let ids = fields.texts("vault_ids", 64)?;
    if ids.len() > VAULTS_MAX {
        let message = format!("has more than {VAULTS_MAX} entries");
        return Err(Problem::new("vault_ids", message).into());
    }
    let mut named: Vec<String> = Vec::new();
    for (index, text) in ids.into_iter().enumerate() {
        let wrong = |error| Problem::new(format!("vault_ids[{index}]"), format!("is {error}"));
        let id: VaultId = text.parse().map_err(wrong)?;
        let vault = app.store.vault(&id).await.map_err(Error::missing("vault"))?;
        if vault.archived_at.is_some() {
            return Err(Error::invalid(format!("{id} is archived: it takes no new sessions")));
        }
        if !named.contains(&text) {
            named.push(text);
        }
    }
    Ok(named)
}

async fn retrieve(State(app): State<App>, At(id): At<SessionId>) -> Result<Json<Value>> {
    let session = app.store.session(&id).await.map_err(Error::missing("session"))?;
    Ok(show(&app, &session))
}

async fn update(
    State(app): State<App>,
    At(id): At<SessionId>,
    mut fields: Fields,
) -> Result<Json<Value>> {
    let title = fields.clearable("title", TITLE_MAX)?;
    let title = title.map(|title| title.filter(|it| !it.is_empty()));
    let metadata = fields.metadata_patch()?;
    if fields.value("vault_ids").is_some() {
        let message = "can only be given when a session is created";
        return Err(Problem::new("vault_ids", message).into());
    }
    let budget = match fields.take("budget") {
        None => None,
        Some(given) => Some(most_cost(Some(given))?),
    };
    let (mut tools, mut mcp_servers) = (None, None);
    if let Some(agent) = fields.value("agent") {
        let mut agent = Fields::of(agent, "agent")?;
        tools = agent.take("tools");
        mcp_servers = agent.take("mcp_servers");
        agent.finish().map_err(within)?;
    }
    fields.finish()?;
    if let Some(Some(_)) = budget {
        let session = app.store.session(&id).await.map_err(Error::missing("session"))?;
        // One that has none cannot be given any, whatever its model costs.
        if session.budget.cost_usd.is_some() {
            check_budgetable(&app, &session.agent)?;
        }
    }
    let patch = SessionPatch { title, metadata, budget, tools, mcp_servers };
    let session = app.store.update_session(&id, patch).await.map_err(Error::missing("session"))?;
    app.signals.changed(&id);
    Ok(show(&app, &session))
}

/// Possible at rest only. The API calls the opposite a bad request and not a conflict.
fn at_rest(error: store::Error) -> Error {
    match error {
        store::Error::Conflict(message) => Error::invalid(message),
        other => Error::missing("session")(other),
    }
}

pub(in crate::web) async fn archive(
    State(app): State<App>,
    actor: Actor,
    At(id): At<SessionId>,
) -> Result<Json<Value>> {
    let change = actor.change("session.archive", &id, json!({}));
    let session = app.store.archive_session(&id, change).await.map_err(at_rest)?;
    app.signals.changed(&id);
    Ok(show(&app, &session))
}

pub(in crate::web) async fn delete(
    State(app): State<App>,
    actor: Actor,
    At(id): At<SessionId>,
) -> Result<Json<Value>> {
    let change = actor.change("session.delete", &id, json!({}));
    app.store.delete_session(&id, change).await.map_err(at_rest)?;
    app.signals.changed(&id);
    // Somebody may wait for its place.
    app.signals.due();
    Ok(Json(json!({"id": id, "type": "session_deleted"})))
}

async fn list(State(app): State<App>, query: Query) -> Result<Json<Value>> {
    let oldest_first = !query.newest_first(true)?;
    let name = if oldest_first { "sessions.asc" } else { "sessions.desc" };
    let (created_after, created_before) = query.range("created_at")?;
    let wanted = "idle, running, rescheduling or terminated";
    let agent_id = query.get("agent_id")?;
    let parse = |text: &str| text.parse::<i64>().ok().filter(|version| *version > 0);
    let version = query.word("agent_version", parse, "a whole number from 1")?;
    let filter = SessionFilter {
        // A version of whichever agent says nothing.
        agent_version: version.filter(|_| agent_id.is_some()),
        agent_id,
        deployment_id: query.get("deployment_id")?,
        statuses: query.words("statuses", Status::parse, wanted)?,
        include_archived: query.flag("include_archived")?,
        created_after,
        created_before,
        oldest_first,
        cursor: query.page(name)?,
        limit: query.limit(LIMIT.0, LIMIT.1)?,
        ..SessionFilter::default()
    };
    // No session here belongs to one.
    let found = if query.text("memory_store_id").is_some() {
        SessionPage { data: Vec::new(), next: None, prev: None }
    } else {
        app.store.sessions(filter).await?
    };
    let now = app.store.clock().now();
    let data: Vec<Value> = found.data.iter().map(|session| session.to_json(now)).collect();
    let place = |place: Option<String>| place.map(|place| cursor(name, &place));
    let (next, prev) = (place(found.next), place(found.prev));
    Ok(Json(json!({"data": data, "next_page": next, "prev_page": prev})))
}
