//! Deployments: what starts sessions by a schedule or by hand, when it comes next, and what came of it.

use askama::Template;
use axum::{
    extract::{Path, State},
    response::{IntoResponse, Redirect, Response},
};
use serde_json::Value;

use super::{
    super::{
        super::{
            App,
            input::At,
            managed::{deployments, events::Try},
        },
        fault::Fault,
        guard::{Changer, Fields, Posted, Visitor},
        session::Badge,
        view::{Moment, Shell},
    },
    Confirm, Given, LIST_MAX, Wrong, actor, answer, body,
    deployment_form::{self, Form, From},
    done, is_archived_shown, next_place, no_such, notice, shell, shown,
};
use crate::{
    clock::Timestamp,
    domain::{
        deployment::{Deployment, DeploymentRun, Paused, Trigger},
        event::DEFINE_OUTCOME,
        text::printable,
    },
    id::{DeploymentId, Id},
    ingest::Snapshot,
    schedule::{
        cron::Cron,
        words::{local, words},
    },
    store::{DeploymentFilter, RunFilter},
};

/// Times that are told of a schedule.
pub(super) const UPCOMING: usize = 5;

#[derive(Template)]
#[template(path = "manage/deployments.html")]
struct List {
    shell: Shell,
    rows: Vec<Row>,
    next: Option<String>,
    with_archived: bool,
    given: Given,
    notice: Option<&'static str>,
    /// Of a visitor who may make one.
    form: Option<Form>,
    is_open: bool,
    url: String,
}

#[derive(Template)]
#[template(path = "manage/deployment.html")]
struct Page {
    shell: Shell,
    row: Row,
    environment: (String, String),
    vaults: Vec<String>,
    messages: Vec<String>,
    /// How far away, and as the clock of its zone shows it.
    upcoming: Vec<(Moment, String)>,
    runs: Vec<Run>,
    next: Option<String>,
    given: Given,
    notice: Option<&'static str>,
}

struct Row {
    id: String,
    name: String,
    description: Option<String>,
    agent_id: String,
    agent: String,
    agent_version: i64,
    /// Its schedule in words.
    words: Option<String>,
    expression: Option<String>,
    next: Option<Moment>,
    last: Option<Moment>,
    state: Badge,
    /// Why it rests, where that was nobody's wish.
    trouble: Option<String>,
    is_paused: bool,
    is_archived: bool,
}

struct Run {
    at: Moment,
    badge: Badge,
    by: &'static str,
    scheduled: Option<Moment>,
    n_skipped: i64,
    session: Option<String>,
    problem: Option<String>,
}

pub(in crate::web::ui) async fn list(
    State(app): State<App>,
    visitor: Visitor,
    query: Fields,
) -> Result<Response, Fault> {
    show_list(&app, visitor, &query, Given::default()).await
}

pub(in crate::web::ui) async fn create(
    State(app): State<App>,
    posted: Posted,
) -> Result<Response, Fault> {
    let wrong = match deployment_form::preview(&app, &posted, "/deployments#times") {
        Ok(Some(response)) => return Ok(response),
        Ok(None) => {
            let wanted = body(deployment_form::wanted(&posted.form.fields, None))?;
            let made =
                deployments::create(State(app.clone()), actor(&posted.visitor), wanted).await;
            match answer(made)? {
                Ok(made) => {
                    let id = made["id"].as_str().unwrap_or_default();
                    return Ok(done(format_args!("/deployments/{id}"), "made"));
                }
                Err(wrong) => wrong,
            }
        }
        Err(wrong) => wrong,
    };
    let given = Given::wrong(posted.form.fields, wrong);
    show_list(&app, posted.visitor, &Fields::default(), given).await
}

pub(in crate::web::ui) async fn page(
    State(app): State<App>,
    visitor: Visitor,
    Path(id): Path<String>,
    query: Fields,
) -> Result<Response, Fault> {
    show_page(&app, visitor, &id, &query, Given::default()).await
}

pub(in crate::web::ui) async fn run(
    State(app): State<App>,
    Path(id): Path<String>,
    posted: Posted,
) -> Result<Response, Fault> {
    let at = At(parse(&id)?);
    let this = Try::only(&app);
    let ran = deployments::run(State(app.clone()), actor(&posted.visitor), at, this).await;
    after(&app, posted.visitor, &id, answer(ran)?, "ran").await
}

pub(in crate::web::ui) async fn pause(
    State(app): State<App>,
    Path(id): Path<String>,
    posted: Posted,
) -> Result<Response, Fault> {
    let at = At(parse(&id)?);
    let paused = deployments::pause(State(app.clone()), actor(&posted.visitor), at).await;
    after(&app, posted.visitor, &id, answer(paused)?, "paused").await
}

pub(in crate::web::ui) async fn unpause(
    State(app): State<App>,
    Path(id): Path<String>,
    posted: Posted,
) -> Result<Response, Fault> {
    let at = At(parse(&id)?);
    let unpaused = deployments::unpause(State(app.clone()), actor(&posted.visitor), at).await;
    after(&app, posted.visitor, &id, answer(unpaused)?, "unpaused").await
}

/// Back to its page, with what was done or why not.
async fn after(
    app: &App,
    visitor: Visitor,
    id: &str,
    answered: Result<Value, Wrong>,
    word: &str,
) -> Result<Response, Fault> {
    match answered {
        // A run that started nothing is in the list with its reason.
        Ok(said) if said["error"].is_object() => {
            Ok(Redirect::to(&format!("/deployments/{id}")).into_response())
        }
        Ok(_) => Ok(done(format_args!("/deployments/{id}"), word)),
        Err(problem) => {
            let given = Given::only(problem);
            show_page(app, visitor, id, &Fields::parse(b""), given).await
        }
    }
}

pub(in crate::web::ui) async fn ask_archive(
    State(app): State<App>,
    Changer(visitor): Changer,
    Path(id): Path<String>,
) -> Result<Response, Fault> {
    let deployment = app.store.deployment(&parse(&id)?).await?;
    Confirm {
        shell: shell(&app, visitor, "deployments").0,
        title: format!("Archive the deployment {}?", printable(&deployment.name)),
        text: "It starts nothing any more, neither by its schedule nor by hand, and cannot be \
               brought back. Its sessions and its history stay.",
        action: format!("/deployments/{id}/archive"),
        button: "Archive the deployment",
        back: format!("/deployments/{id}"),
    }
    .page()
}

pub(in crate::web::ui) async fn archive(
    State(app): State<App>,
    Path(id): Path<String>,
    posted: Posted,
) -> Result<Response, Fault> {
    deployments::archive(State(app), actor(&posted.visitor), At(parse(&id)?)).await.map(drop)?;
    Ok(done("/deployments", "archived"))
}

pub(super) fn parse(id: &str) -> Result<DeploymentId, Fault> {
    id.parse().map_err(|_| no_such("deployment"))
}

async fn show_list(
    app: &App,
    visitor: Visitor,
    query: &Fields,
    given: Given,
) -> Result<Response, Fault> {
    let filter = DeploymentFilter {
        include_archived: is_archived_shown(query),
        cursor: query.text("page").and_then(|it| it.parse().ok()),
        limit: LIST_MAX,
        bytes_max: app.ingest.bounds.options().body_bytes_max,
        ..DeploymentFilter::default()
    };
    let with_archived = filter.include_archived;
    let found = app.store.deployments(filter).await?;
    let (shell, now) = shell(app, visitor, "deployments");
    let snapshot = app.ingest.registry.snapshot();
    let typed = shown::take(app, &shell.visitor, query).typed;
    let typed = typed.map(|typed| Fields::parse(typed.as_bytes()));
    let typed = given.fields.as_ref().or(typed.as_ref());
    let from = typed.map_or(From::Nothing, |fields| From::Typed(fields, None));
    let form = match shell.visitor.may_change {
        true => Some(Form::new(app, from).await?),
        false => None,
    };
    let page = List {
        rows: found.data.iter().map(|it| row(it, &snapshot, now)).collect(),
        next: next_place(found.next),
        with_archived,
        notice: notice(query),
        is_open: typed.is_some(),
        form,
        url: app.url("/v1/deployments"),
        given,
        shell,
    };
    page.given.answer(&page)
}

async fn show_page(
    app: &App,
    visitor: Visitor,
    id: &str,
    query: &Fields,
    given: Given,
) -> Result<Response, Fault> {
    let id = parse(id)?;
    let deployment = app.store.deployment(&id).await?;
    let filter = RunFilter {
        deployment_id: Some(id),
        cursor: query.text("page").and_then(|it| it.parse().ok()),
        limit: LIST_MAX,
        ..RunFilter::default()
    };
    let runs = app.store.deployment_runs(filter).await?;
    let (shell, now) = shell(app, visitor, "deployments");
    let snapshot = app.ingest.registry.snapshot();
    let environment = app.store.environment(&deployment.environment_id).await;
    let environment = environment.map_or_else(|_| "gone".to_owned(), |it| printable(&it.name));
    let is_at_rest = deployment.paused.is_some() || deployment.archived_at.is_some();
    let schedule = deployment.schedule.as_ref().filter(|_| !is_at_rest);
    let upcoming = schedule.into_iter().flat_map(|schedule| {
        let times = Cron::parse(schedule).map(|cron| cron.upcoming(now, UPCOMING));
        let times = times.unwrap_or_default().into_iter();
        times.map(move |at| (Moment::new(at, now), local(schedule, at)))
    });
    let page = Page {
        row: row(&deployment, &snapshot, now),
        environment: (deployment.environment_id.to_string(), environment),
        vaults: deployment.vault_ids.clone(),
        messages: deployment.initial_events.iter().map(said).collect(),
        upcoming: upcoming.collect(),
        runs: runs.data.iter().map(|it| run_row(it, now)).collect(),
        next: next_place(runs.next),
        notice: notice(query),
        given,
        shell,
    };
    page.given.answer(&page)
}

/// The text of an event that sessions start with.
fn said(event: &Value) -> String {
    let blocks = event["content"].as_array().into_iter().flatten();
    let texts: Vec<&str> = blocks.filter_map(|block| block["text"].as_str()).collect();
    match texts.is_empty() {
        true if event["type"] == DEFINE_OUTCOME => {
            printable(event["description"].as_str().unwrap_or_default())
        }
        true => printable(&event.to_string()),
        false => printable(&texts.join("\n")),
    }
}

fn row(deployment: &Deployment, snapshot: &Snapshot, now: Timestamp) -> Row {
    let agent = snapshot.agents.get(&deployment.agent_id);
    let (state, trouble) = match (deployment.archived_at, deployment.paused) {
        (Some(_), _) => (Badge { class: "over", word: "archived" }, None),
        (None, Some(Paused::Manual)) => (Badge { class: "waiting", word: "paused" }, None),
        (None, Some(Paused::Error(kind))) => {
            let why = kind.as_str().trim_end_matches("_error").replace('_', " ");
            (Badge { class: "failed", word: "rests" }, Some(why))
        }
        (None, None) if deployment.schedule.is_none() => {
            (Badge { class: "idle", word: "by hand" }, None)
        }
        (None, None) => (Badge { class: "done", word: "scheduled" }, None),
    };
    Row {
        id: deployment.id.to_string(),
        name: printable(&deployment.name),
        description: deployment.description.as_deref().map(printable),
        agent_id: deployment.agent_id.to_string(),
        agent: agent.map_or_else(
            || deployment.agent_id.as_str().to_owned(),
            |agent| printable(&agent.spec.name),
        ),
        agent_version: deployment.agent_version,
        words: deployment.schedule.as_ref().map(words),
        expression: deployment.schedule.as_ref().map(|it| it.expression.clone()),
        next: deployment.next_at.map(|at| Moment::new(at, now)),
        last: deployment.last_run_at.map(|at| Moment::new(at, now)),
        state,
        trouble,
        is_paused: deployment.paused.is_some(),
        is_archived: deployment.archived_at.is_some(),
    }
}

fn run_row(run: &DeploymentRun, now: Timestamp) -> Run {
    let (by, scheduled, n_skipped) = match &run.trigger {
        Trigger::Manual => ("by hand", None, 0),
        Trigger::Schedule { at, n_skipped } => {
            ("by schedule", Some(Moment::new(*at, now)), *n_skipped)
        }
    };
    let (badge, session, problem) = match &run.outcome {
        Ok(session) => (Badge { class: "done", word: "started" }, Some(session.to_string()), None),
        Err(error) => {
            (Badge { class: "failed", word: "not started" }, None, Some(printable(&error.message)))
        }
    };
    Run { at: Moment::new(run.created_at, now), badge, by, scheduled, n_skipped, session, problem }
}
