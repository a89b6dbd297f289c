//! What is mounted into a session: files, added and removed while it lives.

use axum::{Json, extract::State};
use serde_json::{Value, json};

use crate::{
    domain::{
        Problem,
        environment::EnvironmentConfig,
        resource::{self, FileMount, Resource},
    },
    id::{EnvironmentId, ResourceId, SessionId},
    web::{
        App,
        auth::Actor,
        error::{Error, Result},
        input::{At, Fields, Within},
        query::{Query, page},
        routes::{Routes, answers, lists},
    },
};

pub(super) fn routes() -> Routes {
    const ONE: &str = "/v1/sessions/{id}/resources/{resource}";
    Routes::of("sessions")
        .get(
            "/v1/sessions/{id}/resources",
            list,
            lists("Resource", &["limit_1000", "page"], "Lists the files of a session."),
        )
        .post(
            "/v1/sessions/{id}/resources",
            add,
            answers("Resource", "Mounts a file before the next turn.")
                .takes("FileMount")
                .or(&[409]),
        )
        .get(ONE, retrieve, answers("Resource", "Shows one of them."))
        .post(
            ONE,
            update,
            answers("Resource", "Refused: this is for repositories, which are not supported.")
                .or(&[400]),
        )
        .delete(ONE, remove, answers("Deleted", "Takes a file away.").or(&[409]))
}

/// Resources on a page, unless the caller says otherwise, and at most: all that a session may have.
const LIMIT: usize = 1000;

/// The `resources` of a new session or of a deployment: files that are there.
pub(super) async fn take(app: &App, fields: &mut Fields) -> Result<Vec<FileMount>> {
    let mounts = resource::parse(fields.list("resources")?, "resources")?;
    for mount in &mounts {
        app.store.file(&mount.file_id).await.map_err(Error::missing("file"))?;
    }
    Ok(mounts)
}

/// Self-hosted environments take no files.
pub(super) async fn check_place(
    app: &App,
    environment: &EnvironmentId,
    mounts: &[FileMount],
) -> Result<()> {
    if mounts.is_empty() {
        return Ok(());
    }
    let environment = app.store.environment(environment).await;
    match environment.map_err(Error::missing("environment"))?.config {
        EnvironmentConfig::SelfHosted => {
            Err(Problem::new("resources", "are not mounted in self-hosted environments").into())
        }
        EnvironmentConfig::Cloud { .. } | EnvironmentConfig::Local { .. } => Ok(()),
    }
}

async fn add(
    State(app): State<App>,
    actor: Actor,
    At(id): At<SessionId>,
    fields: Fields,
) -> Result<Json<Value>> {
    let mount = resource::parse_one(fields.rest(), "")?;
    let session = app.store.session(&id).await.map_err(Error::missing("session"))?;
    app.store.file(&mount.file_id).await.map_err(Error::missing("file"))?;
    check_place(&app, &session.environment_id, std::slice::from_ref(&mount)).await?;
    let change = actor.change("resource.add", &id, json!({"path": mount.path()}));
    let added = app.store.add_resource(&id, mount, change).await;
    Ok(Json(added.map_err(Error::missing("session"))?.to_json()))
}

async fn list(State(app): State<App>, At(id): At<SessionId>, query: Query) -> Result<Json<Value>> {
    let limit = query.limit(LIMIT, LIMIT)?;
    let found = app.store.resources(&id, query.page("resources")?, limit).await;
    Ok(page("resources", found.map_err(Error::missing("session"))?, Resource::to_json))
}

async fn retrieve(
    State(app): State<App>,
    Within(session, id): Within<SessionId, ResourceId>,
) -> Result<Json<Value>> {
    let found = app.store.resource(&session, &id).await;
    Ok(Json(found.map_err(Error::missing("resource"))?.to_json()))
}

/// In the API this gives a repository a new token, and nothing else.
async fn update(
    State(app): State<App>,
    Within(session, id): Within<SessionId, ResourceId>,
) -> Result<Json<Value>> {
    app.store.resource(&session, &id).await.map_err(Error::missing("resource"))?;
    let message = "is a file, which has no `authorization_token`: remove it and add another one";
    Err(Problem::new("the resource", message).into())
}

async fn remove(
    State(app): State<App>,
    actor: Actor,
    Within(session, id): Within<SessionId, ResourceId>,
) -> Result<Json<Value>> {
    let change = actor.change("resource.delete", &id, json!({"session_id": session}));
    let removed = app.store.delete_resource(&session, &id, change).await;
    removed.map_err(Error::missing("resource"))?;
    Ok(Json(json!({"id": id, "type": "session_resource_deleted"})))
}
