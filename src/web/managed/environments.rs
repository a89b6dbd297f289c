//! Environments: `cloud`, our sandbox with a fresh workspace, and our own `local`, a directory of
//! this machine under one of the roots that the operator allows.

use axum::{Json, Router, extract::State, routing::get};
use serde_json::{Value, json};

use super::LIMIT;
use crate::{
    domain::{
        ManagedBy, Problem,
        environment::{Environment, EnvironmentConfig},
    },
    id::{EnvironmentId, Id},
    ingest::project_is_allowed,
    web::{
        App,
        auth::Actor,
        error::{Error, Result},
        input::{At, Fields},
        query::{Query, page},
    },
};

pub(super) fn routes() -> Router<App> {
    Router::new()
        .route("/v1/environments", get(list).post(create))
        .route("/v1/environments/{id}", get(retrieve))
}

async fn create(State(app): State<App>, actor: Actor, mut fields: Fields) -> Result<Json<Value>> {
    let name = fields.required("name", 256)?;
    let description = fields.text("description", 2048)?.filter(|text| !text.is_empty());
    let metadata = fields.metadata()?;
    let mut config = EnvironmentConfig::parse(&fields.take("config").unwrap_or_default())?;
    // There is one organisation, and everything belongs to it.
    if fields.text("scope", 32)?.is_some_and(|it| it != "organization" && it != "account") {
        return Err(Problem::new("scope", "must be `organization` or `account`").into());
    }
    fields.finish()?;
    if let EnvironmentConfig::Local { project, .. } = &mut config {
        *project = directory(&app, "config.project", project)?;
    }
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

async fn retrieve(State(app): State<App>, At(id): At<EnvironmentId>) -> Result<Json<Value>> {
    let environment = app.store.environment(&id).await;
    Ok(Json(environment.map_err(Error::missing("environment"))?.to_json()))
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
    if !project_is_allowed(project, &app.options().project_roots) {
        let message = "is not a directory under one of the `projects.roots` of the configuration";
        return Err(Problem::new(at, message).into());
    }
    let path = std::path::Path::new(project).canonicalize().ok().filter(|path| path.is_dir());
    let path = path.and_then(|path| path.to_str().map(str::to_owned));
    path.ok_or_else(|| Problem::new(at, "is not a directory with a UTF-8 path").into())
}
