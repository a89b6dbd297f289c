//! Deployments and their runs: what starts sessions by a schedule or by hand.

use axum::{Json, extract::State};
use serde_json::{Value, json};

use super::{LIMIT, events, resources, sessions};
use crate::{
    clock::Timestamp,
    domain::{
        Problem,
        deployment::{Deployment, DeploymentRun, Schedule},
        event::SYSTEM_MESSAGE,
    },
    id::{AgentId, DeploymentId, DeploymentRunId, Id},
    schedule::cron::{self, Cron},
    store::{DeploymentFilter, DeploymentPatch, Page, RunFilter},
    web::{
        App,
        auth::Actor,
        error::{Error, Result},
        input::{At, Fields},
        query::{Query, page},
        routes::{Routes, answers, lists},
    },
};

pub(super) fn routes() -> Routes {
    const LIST: &[&str] =
        &["agent_id", "deployment_status", "include_archived", "created_at", "limit", "page"];
    const RUNS: &[&str] =
        &["deployment_id", "has_error", "trigger_type", "created_at", "limit_1000", "page"];
    let shows = |says| answers("Deployment", says);
    Routes::of("deployments")
        .get("/v1/deployments", list, lists("Deployment", LIST, "Lists deployments."))
        .post(
            "/v1/deployments",
            create,
            shows("Makes a deployment.").takes("DeploymentCreate").or(&[404, 409]),
        )
        .get("/v1/deployments/{id}", retrieve, shows("Shows a deployment."))
        .post(
            "/v1/deployments/{id}",
            update,
            shows("Changes a deployment.").takes("DeploymentUpdate").or(&[409]),
        )
        .post(
            "/v1/deployments/{id}/archive",
            archive,
            shows("Archives a deployment: it runs no more.").or(&[409]),
        )
        .post("/v1/deployments/{id}/pause", pause, shows("Stops the schedule.").or(&[409]))
        .post(
            "/v1/deployments/{id}/unpause",
            unpause,
            shows("Lets the schedule go on; nothing is made up for.").or(&[409]),
        )
        .post(
            "/v1/deployments/{id}/run",
            run,
            answers("DeploymentRun", "Starts a session of it now.").or(&[409]),
        )
        .get(
            "/v1/deployment_runs",
            runs,
            lists("DeploymentRun", RUNS, "Lists runs of deployments, newest first."),
        )
        .get("/v1/deployment_runs/{id}", retrieve_run, answers("DeploymentRun", "Shows a run."))
}

const NAME_CHARS_MAX: usize = 256;
const DESCRIPTION_CHARS_MAX: usize = 2048;
/// Events that each session starts with.
const INITIAL_MAX: usize = 50;
/// Times that are told of a schedule.
const UPCOMING: usize = 5;
/// Runs on one page, at most.
const RUNS_MAX: usize = 1000;

pub(in crate::web) async fn create(
    State(app): State<App>,
    actor: Actor,
    mut fields: Fields,
) -> Result<Json<Value>> {
    let name = fields.required("name", NAME_CHARS_MAX)?;
    let agent = fields.value("agent").ok_or_else(|| Problem::new("agent", "is required"))?;
    let environment = fields.required("environment_id", 64)?;
    let at = app.store.clock().now();
    let initial_events = initial_events(&app, &mut fields, at).await?;
    let description = fields.text("description", DESCRIPTION_CHARS_MAX)?;
    let metadata = fields.metadata()?;
    let schedule = fields.value("schedule").map(read_schedule).transpose()?;
    let budget = sessions::budget(fields.take("budget"), fields.take("limits"))?;
    let vault_ids = sessions::take_vaults(&app, &mut fields).await?;
    let resources = resources::take(&app, &mut fields).await?;
    fields.finish()?;
    let (agent_id, agent_version) = find_agent(&app, agent).await?;
    let environment_id = sessions::find_environment(&app, &environment).await?;
    resources::check_place(&app, &environment_id, &resources).await?;
    check_system(&app, &initial_events, (&agent_id, agent_version)).await?;
    let deployment = Deployment {
        id: DeploymentId::new(at),
        name,
        description: description.filter(|it| !it.is_empty()),
        agent_id,
        agent_version,
        environment_id,
        initial_events,
        resources,
        vault_ids,
        metadata,
        budget,
        next_at: schedule.as_ref().and_then(|schedule| cron::next(schedule, at)),
        schedule,
        paused: None,
        last_run_at: None,
        created_at: at,
        updated_at: at,
        archived_at: None,
    };
    let change = actor.change("deployment.create", &deployment.id, said(&deployment));
    let made = app.store.create_deployment(deployment, change).await;
    answer(&app, made.map_err(Error::missing("agent"))?).await
}

pub(in crate::web) async fn update(
    State(app): State<App>,
    actor: Actor,
    At(id): At<DeploymentId>,
    mut fields: Fields,
) -> Result<Json<Value>> {
    let at = app.store.clock().now();
    let mut patch = DeploymentPatch::default();
    if let Some(name) = kept(&mut fields, "name")? {
        patch.name = Some(crate::web::input::text("name", &name, NAME_CHARS_MAX)?);
        if patch.name.as_deref() == Some("") {
            return Err(Problem::new("name", "must not be empty").into());
        }
    }
    let description = fields.clearable("description", DESCRIPTION_CHARS_MAX)?;
    patch.description = description.map(|text| text.filter(|it| !it.is_empty()));
    if let Some(agent) = kept(&mut fields, "agent")? {
        patch.agent = Some(find_agent(&app, agent).await?);
    }
    if let Some(environment) = kept(&mut fields, "environment_id")? {
        let environment = crate::web::input::text("environment_id", &environment, 64)?;
        patch.environment_id = Some(sessions::find_environment(&app, &environment).await?);
    }
    if fields.has("initial_events") {
        patch.initial_events = Some(initial_events(&app, &mut fields, at).await?);
    }
    patch.metadata = fields.metadata_patch()?;
    if let Some(schedule) = fields.take("schedule") {
        let schedule = Some(schedule).filter(|it| !it.is_null());
        patch.schedule = Some(schedule.map(read_schedule).transpose()?);
    }
    if fields.has("budget") || fields.has("limits") {
        patch.budget = Some(sessions::budget(fields.take("budget"), fields.take("limits"))?);
    }
    if fields.has("vault_ids") {
        patch.vault_ids = Some(sessions::take_vaults(&app, &mut fields).await?);
    }
    if fields.has("resources") {
        patch.resources = Some(resources::take(&app, &mut fields).await?);
    }
    fields.finish()?;
    let before = app.store.deployment(&id).await.map_err(Error::missing("deployment"))?;
    let mounts = patch.resources.as_ref().unwrap_or(&before.resources);
    let environment = patch.environment_id.as_ref().unwrap_or(&before.environment_id);
    if patch.resources.is_some() || patch.environment_id.is_some() {
        resources::check_place(&app, environment, mounts).await?;
    }
    if patch.initial_events.is_some() || patch.agent.is_some() {
        let events = patch.initial_events.as_ref().unwrap_or(&before.initial_events);
        let before = (&before.agent_id, before.agent_version);
        let agent = patch.agent.as_ref().map_or(before, |(id, version)| (id, *version));
        check_system(&app, events, agent).await?;
    }
    let change = actor.change("deployment.update", &id, json!({}));
    let changed = app.store.update_deployment(&id, patch, cron::next, change).await;
    answer(&app, changed.map_err(Error::missing("deployment"))?).await
}

/// A field that may be left out and cannot be cleared.
fn kept(fields: &mut Fields, key: &str) -> Result<Option<Value>, Problem> {
    match fields.take(key) {
        Some(Value::Null) => Err(Problem::new(key, "cannot be cleared")),
        other => Ok(other),
    }
}

/// What each session starts with: events that a session can start with.
async fn initial_events(app: &App, fields: &mut Fields, at: Timestamp) -> Result<Vec<Value>> {
    let events = fields.list("initial_events")?;
    if events.is_empty() || events.len() > INITIAL_MAX {
        let message = format!("must be a list of 1 to {INITIAL_MAX} events");
        return Err(Problem::new("initial_events", message).into());
    }
    let messages = events::opening(events, "initial_events", at)?;
    let bodies = messages.iter().map(|it| serde_json::to_value(&it.body));
    let bodies = bodies.collect::<Result<Vec<Value>, _>>();
    let mut bodies = bodies.expect("an event's fields are plain JSON");
    events::check_rubrics(app, &bodies, "initial_events").await?;
    for body in &mut bodies {
        // Each session has an outcome of its own.
        if let Some(fields) = body.as_object_mut() {
            fields.shift_remove("outcome_id");
        }
    }
    Ok(bodies)
}

/// Whether the agent's model takes an operator's word, if there is one.
async fn check_system(
    app: &App,
    events: &[Value],
    (agent, version): (&AgentId, i64),
) -> Result<()> {
    if events.iter().all(|event| event["type"] != SYSTEM_MESSAGE) {
        return Ok(());
    }
    let agent = app.store.agent(agent, Some(version)).await.map_err(Error::missing("agent"))?;
    events::takes_system(&agent.spec.model)
}

fn read_schedule(given: Value) -> Result<Schedule> {
    let within =
        |problem: Problem| Problem::new(format!("schedule.{}", problem.field), problem.message);
    let mut fields = Fields::of(given, "schedule")?;
    if fields.required("type", 64).map_err(within)? != "cron" {
        return Err(Problem::new("schedule.type", "must be `cron`").into());
    }
    let expression = fields.required("expression", 1024).map_err(within)?;
    let timezone = fields.required("timezone", 1024).map_err(within)?;
    fields.finish().map_err(within)?;
    let schedule = Schedule { expression, timezone };
    Cron::parse(&schedule)?;
    Ok(schedule)
}

/// The version of an agent that is pinned.
async fn find_agent(app: &App, given: Value) -> Result<(AgentId, i64)> {
    if given["type"] == "agent_with_overrides" {
        return Err(Problem::new("agent.type", "must be `agent`").into());
    }
    let (agent, _) = sessions::find_agent(app, given).await?;
    Ok((agent.id, agent.version))
}

async fn retrieve(State(app): State<App>, At(id): At<DeploymentId>) -> Result<Json<Value>> {
    let deployment = app.store.deployment(&id).await.map_err(Error::missing("deployment"))?;
    Ok(Json(shown(&deployment, app.store.clock().now())))
}

async fn list(State(app): State<App>, query: Query) -> Result<Json<Value>> {
    let parse = |text: &str| match text {
        "active" => Some(false),
        "paused" => Some(true),
        _ => None,
    };
    let (created_after, created_before) = query.range("created_at")?;
    let filter = DeploymentFilter {
        agent_id: query.get("agent_id")?,
        paused: query.word("status", parse, "`active` or `paused`")?,
        include_archived: query.flag("include_archived")?,
        created_after,
        created_before,
        cursor: query.page("deployments")?,
        limit: query.limit(LIMIT.0, LIMIT.1)?,
        bytes_max: app.ingest.bounds.options().body_bytes_max,
    };
    if filter.include_archived && filter.paused.is_some() {
        return Err(Problem::new("status", "does not go with `include_archived`").into());
    }
    let (now, found) = (app.store.clock().now(), app.store.deployments(filter).await?);
    Ok(page("deployments", found, |deployment| shown(deployment, now)))
}

pub(in crate::web) async fn pause(
    State(app): State<App>,
    actor: Actor,
    At(id): At<DeploymentId>,
) -> Result<Json<Value>> {
    let change = actor.change("deployment.pause", &id, json!({}));
    let paused = app.store.pause_deployment(&id, change).await;
    answer(&app, paused.map_err(Error::missing("deployment"))?).await
}

pub(in crate::web) async fn unpause(
    State(app): State<App>,
    actor: Actor,
    At(id): At<DeploymentId>,
) -> Result<Json<Value>> {
    let change = actor.change("deployment.unpause", &id, json!({}));
    let unpaused = app.store.unpause_deployment(&id, cron::next, change).await;
    answer(&app, unpaused.map_err(Error::missing("deployment"))?).await
}

pub(in crate::web) async fn archive(
    State(app): State<App>,
    actor: Actor,
    At(id): At<DeploymentId>,
) -> Result<Json<Value>> {
    let change = actor.change("deployment.archive", &id, json!({}));
    let archived = app.store.archive_deployment(&id, change).await;
    answer(&app, archived.map_err(Error::missing("deployment"))?).await
}

pub(in crate::web) async fn run(
    State(app): State<App>,
    actor: Actor,
    At(id): At<DeploymentId>,
    this: events::Try,
) -> Result<Json<Value>> {
    let change = actor.change("deployment.run", &id, json!({}));
    let run = app.store.run_deployment(&id, this.of(&actor, &[]), change).await;
    let run = run.map_err(Error::missing("deployment"))?;
    if let Ok(session) = &run.outcome {
        app.ring(session);
    }
    Ok(Json(run.to_json()))
}

async fn retrieve_run(State(app): State<App>, At(id): At<DeploymentRunId>) -> Result<Json<Value>> {
    let run = app.store.deployment_run(&id).await.map_err(Error::missing("deployment run"))?;
    Ok(Json(run.to_json()))
}

async fn runs(State(app): State<App>, query: Query) -> Result<Json<Value>> {
    let parse = |text: &str| match text {
        "schedule" => Some(true),
        "manual" => Some(false),
        _ => None,
    };
    let (created_after, created_before) = query.range("created_at")?;
    let deployment = query.text("deployment_id").map(str::parse::<DeploymentId>);
    let filter = RunFilter {
        deployment_id: deployment.clone().and_then(Result::ok),
        has_error: query.word("has_error", |text| text.parse().ok(), "`true` or `false`")?,
        scheduled: query.word("trigger_type", parse, "`schedule` or `manual`")?,
        created_after,
        created_before,
        cursor: query.page("deployment_runs")?,
        limit: query.limit(LIMIT.0, RUNS_MAX)?,
    };
    // What is no id of a deployment is the id of none.
    let found = match deployment {
        Some(Err(_)) => Page { data: Vec::new(), next: None },
        _ => app.store.deployment_runs(filter).await?,
    };
    Ok(page("deployment_runs", found, DeploymentRun::to_json))
}

/// After a change: the loops that start sessions look again.
async fn answer(app: &App, deployment: Deployment) -> Result<Json<Value>> {
    app.configured().await;
    Ok(Json(shown(&deployment, app.store.clock().now())))
}

fn shown(deployment: &Deployment, now: Timestamp) -> Value {
    let cron = deployment.schedule.as_ref().and_then(|schedule| Cron::parse(schedule).ok());
    let upcoming = cron.map(|cron| cron.upcoming(now, UPCOMING));
    deployment.to_json(&upcoming.unwrap_or_default())
}

/// For the audit log.
fn said(deployment: &Deployment) -> Value {
    let schedule = deployment.schedule.as_ref();
    json!({"name": deployment.name, "expression": schedule.map(|it| &it.expression)})
}
