//! Sessions: made, looked at, listed.

use axum::{
    Json, Router,
    extract::State,
    routing::{get, post},
};
use serde_json::{Value, json};

use super::{LIMIT, events};
use crate::{
    domain::{
        Problem,
        agent::{Agent, AgentPatch, AgentSpec},
        environment::EnvironmentConfig,
        session::{Session, Status},
    },
    id::{AgentId, EnvironmentId, Id, SessionId},
    store::{self, NewSession, Page, SessionFilter},
    web::{
        App,
        error::{Error, Result},
        input::{At, Fields},
        query::{Query, page},
    },
};

pub(super) fn routes() -> Router<App> {
    Router::new()
        .route("/v1/sessions", get(list).post(create))
        .route("/v1/sessions/{id}", get(retrieve))
        .route("/v1/sessions/{id}/archive", post(archive))
}

/// Events that a session may start with.
const INITIAL_MAX: usize = 50;

async fn create(State(app): State<App>, mut fields: Fields) -> Result<Json<Value>> {
    let agent = fields.value("agent").ok_or_else(|| Problem::new("agent", "is required"))?;
    let environment = fields.required("environment_id", 64)?;
    let title = fields.text("title", 256)?.filter(|title| !title.is_empty());
    let metadata = fields.metadata()?;
    let initial = fields.list("initial_events")?;
    for field in ["vault_ids", "resources", "budget"] {
        fields.unsupported(field)?;
    }
    fields.finish()?;
    if initial.len() > INITIAL_MAX {
        let message = format!("has more than {INITIAL_MAX} events");
        return Err(Problem::new("initial_events", message).into());
    }
    let at = app.store.clock().now();
    let messages = events::messages(initial, "initial_events", at)?;
    let (agent, overrides) = find_agent(&app, agent).await?;
    let environment_id = find_environment(&app, &environment).await?;
    let starts = !messages.is_empty();
    let session = NewSession {
        id: SessionId::new(at),
        agent_id: agent.id,
        agent_version: agent.version,
        overrides,
        environment_id,
        title,
        metadata,
        messages,
    };
    let session = app.store.create_session(session).await?;
    if starts {
        app.ring(&session.id);
    }
    Ok(Json(session.to_json()))
}

/// The agent of a new session, and the whole spec when it is not the agent's version as it is.
async fn find_agent(app: &App, given: Value) -> Result<(Agent, Option<String>)> {
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
    let overrides = spec.filter(|spec| *spec != agent.spec).map(|spec| spec_text(&spec));
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
            return Err(Error::from(problem).with_code("agent_model_required"));
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
    Problem::new(format!("agent.{}", problem.field), problem.message)
}

async fn find_environment(app: &App, id: &str) -> Result<EnvironmentId> {
    let id: EnvironmentId =
        id.parse().map_err(|error| Problem::new("environment_id", format!("is {error}")))?;
    let environment = app.store.environment(&id).await.map_err(Error::missing("environment"))?;
    if environment.archived_at.is_some() {
        let error = Error::invalid(format!("{id} is archived: it takes no new sessions"));
        return Err(error.with_code("environment_archived"));
    }
    match environment.config {
        EnvironmentConfig::Cloud { .. } | EnvironmentConfig::Local { .. } => Ok(id),
        EnvironmentConfig::SelfHosted => {
            Err(Problem::new("environment_id", "names a self-hosted environment").into())
        }
    }
}

async fn retrieve(State(app): State<App>, At(id): At<SessionId>) -> Result<Json<Value>> {
    let session = app.store.session(&id).await.map_err(Error::missing("session"))?;
    Ok(Json(session.to_json()))
}

/// Possible at rest only. The API calls the opposite a bad request and not a conflict.
async fn archive(State(app): State<App>, At(id): At<SessionId>) -> Result<Json<Value>> {
    let session = app.store.archive_session(&id).await.map_err(|error| match error {
        store::Error::Conflict(message) => Error::invalid(message),
        other => Error::missing("session")(other),
    })?;
    app.signals.changed(&id);
    Ok(Json(session.to_json()))
}

async fn list(State(app): State<App>, query: Query) -> Result<Json<Value>> {
    let oldest_first = !query.newest_first(true)?;
    let name = if oldest_first { "sessions.asc" } else { "sessions.desc" };
    let (created_after, created_before) = query.range("created_at")?;
    let wanted = "idle, running, rescheduling or terminated";
    let parse = |text: &str| text.parse::<i64>().ok();
    let filter = SessionFilter {
        agent_id: query.get("agent_id")?,
        agent_version: query.word("agent_version", parse, "a whole number")?,
        statuses: query.words("statuses", Status::parse, wanted)?,
        include_archived: query.flag("include_archived")?,
        created_after,
        created_before,
        oldest_first,
        cursor: query.page(name)?,
        limit: query.limit(LIMIT.0, LIMIT.1)?,
    };
    // No session here belongs to one of these.
    let others = ["deployment_id", "memory_store_id"];
    let found = if others.iter().any(|other| query.text(other).is_some()) {
        Page { data: Vec::new(), next: None }
    } else {
        app.store.sessions(filter).await?
    };
    let Json(mut body) = page(name, found, Session::to_json);
    body["prev_page"] = Value::Null;
    Ok(Json(body))
}
