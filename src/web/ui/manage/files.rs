//! Files: what was uploaded and what sessions handed in. A file is saved by the browser and never shown
//! by it.

use askama::Template;
use axum::{
    extract::{Path, Request, State},
    http::{HeaderMap, HeaderValue, header},
    response::{IntoResponse, Response},
};

use super::{
    super::{
        super::{App, error::Kind, input::At, managed::files},
        fault::Fault,
        guard::{Changer, Fields, Posted, Visitor, is_foreign},
        view::{self, Moment, Shell},
        visitors::same,
    },
    Confirm, Given, LIST_MAX, actor, answer, done, next_place, no_such, notice, shell,
};
use crate::{
    domain::{file::FileInfo, text::printable},
    id::FileId,
    store::FileFilter,
};

#[derive(Template)]
#[template(path = "manage/files.html")]
struct Page {
    shell: Shell,
    rows: Vec<Row>,
    next: Option<String>,
    given: Given,
    notice: Option<&'static str>,
    /// Of one file, as people say it.
    most: String,
    url: String,
}

struct Row {
    id: String,
    name: String,
    mime_type: String,
    size: String,
    session: Option<String>,
    created: Moment,
    expires: Option<Moment>,
}

pub(in crate::web::ui) async fn list(
    State(app): State<App>,
    visitor: Visitor,
    query: Fields,
) -> Result<Response, Fault> {
    show(&app, visitor, &query, Given::default()).await
}

/// A form with a file comes in parts: the form's token is the first of them, and is looked at before a
/// byte of the file is read.
pub(in crate::web::ui) async fn upload(
    State(app): State<App>,
    Changer(visitor): Changer,
    request: Request,
) -> Result<Response, Fault> {
    if is_foreign(request.headers()) {
        return Err(Fault::forbidden("This form was sent by a page of another site."));
    }
    let expected = visitor.csrf.clone();
    let token = |given: &str| same(given, &expected);
    let made = files::receive(&app, &actor(&visitor), request, Some(&token)).await;
    if made.as_ref().is_err_and(|error| error.kind == Kind::Permission) {
        return Err(Fault::stale_form());
    }
    match answer(made)? {
        Ok(_) => Ok(done("/files", "uploaded")),
        Err(problem) => {
            let given = Given::only(problem);
            show(&app, visitor, &Fields::parse(b""), given).await
        }
    }
}

pub(in crate::web::ui) async fn download(
    State(app): State<App>,
    _: Visitor,
    Path(id): Path<String>,
) -> Result<Response, Fault> {
    let id: FileId = id.parse().map_err(|_| no_such("file"))?;
    let mut response = files::download(State(app), At(id)).await?.into_response();
    let cache = HeaderValue::from_static("no-store");
    let headers: &mut HeaderMap = response.headers_mut();
    headers.insert(header::CACHE_CONTROL, cache);
    Ok(response)
}

pub(in crate::web::ui) async fn ask_delete(
    State(app): State<App>,
    Changer(visitor): Changer,
    Path(id): Path<String>,
) -> Result<Response, Fault> {
    let file: FileId = id.parse().map_err(|_| no_such("file"))?;
    let file = app.store.file(&file).await?;
    Confirm {
        shell: shell(&app, visitor, "files").0,
        title: format!("Delete the file {}?", printable(&file.info.filename)),
        text: "It is gone for ever, also from the sessions and deployments that it is mounted into.",
        action: format!("/files/{id}/delete"),
        button: "Delete it for ever",
        back: "/files".to_owned(),
    }
    .page()
}

pub(in crate::web::ui) async fn delete(
    State(app): State<App>,
    Path(id): Path<String>,
    posted: Posted,
) -> Result<Response, Fault> {
    let id: FileId = id.parse().map_err(|_| no_such("file"))?;
    files::remove(State(app), actor(&posted.visitor), At(id)).await.map(drop)?;
    Ok(done("/files", "deleted"))
}

async fn show(
    app: &App,
    visitor: Visitor,
    query: &Fields,
    given: Given,
) -> Result<Response, Fault> {
    let after = query.text("page").and_then(|it| it.parse().ok());
    let filter = FileFilter { after, limit: LIST_MAX, ..FileFilter::default() };
    let found = app.store.files(filter).await?;
    let (shell, now) = shell(app, visitor, "files");
    let row = |file: &FileInfo| Row {
        id: file.id.to_string(),
        name: printable(&file.filename),
        mime_type: printable(&file.mime_type),
        size: view::bytes(file.size_bytes),
        session: file.session_id.as_ref().map(ToString::to_string),
        created: Moment::new(file.created_at, now),
        expires: file.expires_at.map(|at| Moment::new(at, now)),
    };
    let most = i64::try_from(app.options().files.bytes_max).unwrap_or(i64::MAX);
    let page = Page {
        rows: found.data.iter().map(row).collect(),
        next: next_place(found.next),
        notice: notice(query),
        most: view::bytes(most),
        url: app.url("/v1/files"),
        given,
        shell,
    };
    page.given.answer(&page)
}
