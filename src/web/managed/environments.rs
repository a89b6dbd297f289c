//! Environments: `cloud`, our sandbox with a fresh workspace, and our own `local`, a directory of
//! this machine under one of the roots that the operator allows.

use std::path::Path;

use axum::{Json, extract::State};
use serde_json::{Value, json};

use super::LIMIT;
use crate::{
    domain::{
        ManagedBy, Problem,
        environment::{
            DEFAULT_NAME, DESCRIPTION_CHARS_MAX, Environment, EnvironmentConfig, EnvironmentPatch,
            INVALID_METADATA, NAME_CHARS_MAX, Workspace,
        },
    },
    id::{EnvironmentId, Id},
    projects,
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
    const LIST: &[&str] = &["include_archived", "limit", "page"];
    Routes::of("environments")
        .get("/v1/environments", list, lists("Environment", LIST, "Lists environments."))
        .post(
            "/v1/environments",
            create,
            answers("Environment", "Makes an environment.").takes("EnvironmentCreate").or(&[409]),
        )
        .get("/v1/environments/{id}", retrieve, answers("Environment", "Shows an environment."))
        .post(
            "/v1/environments/{id}",
            update,
            answers("Environment", "Changes an environment; its type stays.")
                .takes("EnvironmentUpdate")
                .or(&[409]),
        )
        .delete(
            "/v1/environments/{id}",
            delete,
            answers("Deleted", "Deletes an environment that no session works in.").or(&[409]),
        )
        .post(
            "/v1/environments/{id}/archive",
            archive,
            answers("Environment", "Archives an environment: it takes no new sessions.").or(&[409]),
        )
}

fn metadata_problem(problem: Problem) -> Problem {
    problem.with_code(INVALID_METADATA)
}

pub(in crate::web) async fn create(
    State(app): State<App>,
    actor: Actor,
    mut fields: Fields,
) -> Result<Json<Value>> {
    let name = fields.required("name", NAME_CHARS_MAX)?;
    let description = fields.text("description", DESCRIPTION_CHARS_MAX)?;
    let metadata = fields.metadata().map_err(metadata_problem)?;
    let mut config = EnvironmentConfig::parse(&fields.take("config").unwrap_or_default())?;
    scope(&mut fields)?;
    fields.finish()?;
    if let EnvironmentConfig::Local { project, .. } = &mut config {
        *project = directory(&app, "config.project", project)?;
    }
    check_worktree(&config)?;
    let at = app.store.clock().now();
    let environment = Environment {
        id: EnvironmentId::new(at),
        name,
        description,
        config,
        metadata,
        managed_by: ManagedBy::Api,
        created_at: at,
        updated_at: at,
        archived_at: None,
    };
    let details = json!({"name": environment.name, "project": environment.config.project()});
    let change = actor.change("environment.create", &environment.id, details);
    let environment = app.store.create_environment(environment, change).await?;
    app.configured().await;
    Ok(Json(environment.to_json()))
}

/// There is one organisation, and everything belongs to it.
fn scope(fields: &mut Fields) -> Result<(), Problem> {
    match fields.text("scope", 32)?.as_deref() {
        None | Some("organization") => Ok(()),
        Some(_) => Err(Problem::new("scope", "must be `organization`: there are no accounts here")),
    }
}

fn check_worktree(config: &EnvironmentConfig) -> Result<(), Problem> {
    if let EnvironmentConfig::Local { project, workspace: Workspace::Worktree, .. } = config
        && projects::git_objects(Path::new(project)).is_none()
    {
        let message = "needs a project that is the top of a git repository";
        return Err(Problem::new("config.workspace", message));
    }
    Ok(())
}

pub(in crate::web) async fn update(
    State(app): State<App>,
    actor: Actor,
    At(id): At<EnvironmentId>,
    mut fields: Fields,
) -> Result<Json<Value>> {
    let before = known(&app, &id).await?;
    let name = fields.text("name", NAME_CHARS_MAX)?;
    if name.as_ref().is_some_and(String::is_empty) {
        return Err(Problem::new("name", "must not be empty").into());
    }
    if before.name == DEFAULT_NAME && name.as_ref().is_some_and(|name| *name != before.name) {
        return Err(stays(&before));
    }
    let description = fields.clearable("description", DESCRIPTION_CHARS_MAX)?;
    let metadata = fields.metadata_patch().map_err(metadata_problem)?;
    let mut config = fields.value("config");
    scope(&mut fields)?;
    fields.finish()?;
    if let Some(config) = &mut config {
        if let Some(project) = config["project"].as_str() {
            config["project"] = directory(&app, "config.project", project)?.into();
        }
        if before.archived_at.is_none() {
            check_worktree(&before.config.change(config)?)?;
        }
    }
    let patch = EnvironmentPatch { name, description, metadata, config };
    let change = actor.change("environment.update", &id, json!({}));
    let environment = app.store.update_environment(&id, patch, change).await;
    let environment = environment.map_err(Error::missing("environment"))?;
    app.configured().await;
    Ok(Json(environment.to_json()))
}

pub(in crate::web) async fn archive(
    State(app): State<App>,
    actor: Actor,
    At(id): At<EnvironmentId>,
) -> Result<Json<Value>> {
    leaving(&app, &id).await?;
    let change = actor.change("environment.archive", &id, json!({}));
    let environment = app.store.archive_environment(&id, change).await;
    let environment = environment.map_err(Error::missing("environment"))?;
    app.configured().await;
    Ok(Json(environment.to_json()))
}

pub(in crate::web) async fn delete(
    State(app): State<App>,
    actor: Actor,
    At(id): At<EnvironmentId>,
) -> Result<Json<Value>> {
    let before = leaving(&app, &id).await?;
    let change = actor.change("environment.delete", &id, json!({"name": before.name}));
    let deleted = app.store.delete_environment(&id, change).await;
    deleted.map_err(Error::missing("environment"))?;
    app.configured().await;
    Ok(Json(json!({"id": id, "type": "environment_deleted"})))
}

async fn known(app: &App, id: &EnvironmentId) -> Result<Environment> {
    app.store.environment(id).await.map_err(Error::missing("environment"))
}

/// One that may be archived and deleted.
async fn leaving(app: &App, id: &EnvironmentId) -> Result<Environment> {
    let environment = known(app, id).await?;
    match environment.name == DEFAULT_NAME && environment.archived_at.is_none() {
        true => Err(stays(&environment)),
        false => Ok(environment),
    }
}

fn stays(environment: &Environment) -> Error {
    Error::conflict(format!(
        "`{}` keeps its name and its place: sources without an environment use it",
        environment.name
    ))
}

async fn retrieve(State(app): State<App>, At(id): At<EnvironmentId>) -> Result<Json<Value>> {
    Ok(Json(known(&app, &id).await?.to_json()))
}

async fn list(State(app): State<App>, query: Query) -> Result<Json<Value>> {
    let archived = query.flag("include_archived")?;
    let limit = query.limit(LIMIT.0, LIMIT.1)?;
    let found = app.store.environments(archived, query.page("environments")?, limit).await?;
    Ok(page("environments", found, Environment::to_json))
}

/// A project that the operator allows, under its one real path: sessions of one directory take
/// turns, and two spellings of it must not look like two directories.
pub(super) fn directory(app: &App, at: &str, project: &str) -> Result<String> {
    let path = projects::allowed(project, &app.options().project_roots).map_err(|_| {
        Problem::new(
            at,
            "is not a directory under one of the `projects.roots` of the configuration",
        )
    })?;
    let path = path.into_os_string().into_string();
    Ok(path.map_err(|_| Problem::new(at, "is not a directory with a UTF-8 path"))?)
}
