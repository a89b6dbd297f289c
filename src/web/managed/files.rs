//! Files: uploaded piece by piece, listed, downloaded, deleted.
//!
//! Invariant: however large a file is, this holds a few pieces of it at a time. A name or a type is
//! made safe before it is kept; what comes back is for saving, never for showing.

use std::time::Duration;

use axum::{
    Json,
    body::Body,
    extract::{Request, State},
    http::{HeaderMap, HeaderValue, header},
    response::{IntoResponse, Response},
};
use bytes::{Bytes, BytesMut};
use futures_util::{StreamExt, TryStreamExt, stream};
use multer::{Field, Multipart};
use serde_json::{Value, json};

use super::LIMIT;
use crate::{
    domain::{
        Problem,
        file::{FileInfo, filename, mime_type},
    },
    id::{FileId, Id},
    ingest::Permit,
    store::{FileFilter, NewFile, Store, StoredFile},
    web::{
        App,
        auth::Actor,
        error::{Error, Kind, Result},
        input::At,
        intake,
        query::{Query, cursor},
        routes::{Routes, Success, answers, succeeds},
    },
};

/// Of a body around its file: boundaries, headers of parts, small fields.
const AROUND_BYTES_MAX: usize = 64 * 1024;

/// What one part that is no file may have.
const FIELD_BYTES_MAX: usize = 1024;

const EXPIRES_SECONDS: std::ops::RangeInclusive<u64> = 3600..=7_776_000;

/// Files on one page, at most.
const LIMIT_MAX: usize = 1000;

/// Ids that a list may be asked for.
const IDS_MAX: usize = 100;

pub(super) fn routes() -> Routes {
    const LIST: &[&str] = &["ids", "scope_id", "limit_1000", "page", "after_id", "before_id"];
    Routes::of("files")
        .get("/v1/files", list, answers("FilePage", "Lists files, newest first.").query(LIST))
        .post(
            "/v1/files",
            upload,
            answers("File", "Uploads a file.").form("FileUpload").or(&[409, 429]),
        )
        .get("/v1/files/{id}", retrieve, answers("File", "Shows what is known of a file."))
        .delete("/v1/files/{id}", remove, answers("Deleted", "Deletes a file.").or(&[409]))
        .get("/v1/files/{id}/content", download, succeeds(Success::Bytes, "Downloads a file."))
}

async fn upload(State(app): State<App>, actor: Actor, request: Request) -> Result<Json<Value>> {
    receive(&app, &actor, request, None).await
}

/// Takes a file. With a form's token before it, which is looked at before the file is: one that is
/// wrong is answered with [`Kind::Permission`].
pub(in crate::web) async fn receive(
    app: &App,
    actor: &Actor,
    request: Request,
    token_is_ours: Option<&(dyn Fn(&str) -> bool + Send + Sync)>,
) -> Result<Json<Value>> {
    let (parts, body) = request.into_parts();
    let boundary = parts.headers.get(header::CONTENT_TYPE).and_then(|it| it.to_str().ok());
    let boundary = boundary.and_then(|it| multer::parse_boundary(it).ok());
    let Some(boundary) = boundary else {
        let message = "the body must be `multipart/form-data` with a part `file`";
        return Err(Error::invalid(message));
    };
    let limits = app.options().files;
    let declared = intake::declared(&parts.headers).unwrap_or(0);
    if declared.saturating_sub(AROUND_BYTES_MAX) > limits.bytes_max {
        return Err(too_large(limits.bytes_max));
    }
    // Room in memory for the pieces, and on the disk for what is said to come.
    let mut permit = Permit::default();
    app.ingest.bounds.reserve(&mut permit, 2 * Store::PIECE_BYTES)?;
    app.ingest.bounds.check_disk(declared)?;
    let (total_max, at) = (size(limits.total_bytes_max), app.store.clock().now());
    app.store.room_for_file(size(declared), total_max).await?;
    let id = FileId::new(at);
    let multipart = Multipart::new(body.into_data_stream(), boundary);
    let reading = read(app, &id, multipart, token_is_ours);
    let seconds = Duration::from_secs(limits.upload_seconds_max);
    let read = match tokio::time::timeout(seconds, reading).await {
        Ok(read) => read,
        Err(_) => Err(Error::new(Kind::Timeout, "the file did not arrive in time")),
    };
    let made = match read {
        Err(error) => Err(error),
        Ok(Upload { filename, mime_type, size_bytes, n_pieces, expires_in }) => {
            let created_at = app.store.clock().now();
            let info = FileInfo {
                id: id.clone(),
                filename,
                mime_type,
                size_bytes,
                session_id: None,
                created_at,
                expires_at: expires_in.map(|it| created_at.plus(it)),
            };
            let change = actor.change("file.upload", &id, json!({"size_bytes": size_bytes}));
            let file = NewFile { info, n_pieces, origin: None };
            app.store.create_file(file, total_max, Some(change)).await.map_err(Error::from)
        }
    };
    match made {
        Ok(info) => Ok(Json(info.to_json())),
        Err(error) => {
            if let Err(error) = app.store.release_content(id.to_string()).await {
                // The sweep of pieces finds them.
                tracing::warn!(error = %error.detail(), "pieces of a refused file were left");
            }
            Err(error)
        }
    }
}

/// A file that has come, and what was said about it.
struct Upload {
    filename: String,
    mime_type: String,
    size_bytes: i64,
    n_pieces: i64,
    expires_in: Option<Duration>,
}

async fn read(
    app: &App,
    id: &FileId,
    mut parts: Multipart<'_>,
    token_is_ours: Option<&(dyn Fn(&str) -> bool + Send + Sync)>,
) -> Result<Upload> {
    let (mut file, mut expires_in) = (None, None);
    let (mut n_parts, mut n_bytes) = (0, 0);
    if let Some(is_ours) = token_is_ours {
        let first = parts.next_field().await.map_err(|error| unreadable(&error))?;
        let token = match first {
            Some(part) if part.name() == Some("csrf") => small(part, &mut n_bytes).await?,
            _ => String::new(),
        };
        if !is_ours(&token) {
            return Err(Error::new(Kind::Permission, "this form is out of date"));
        }
    }
    while let Some(part) = parts.next_field().await.map_err(|error| unreadable(&error))? {
        n_parts += 1;
        match part.name() {
            Some("file") if file.is_some() => {
                return Err(Problem::new("file", "is there more than once").into());
            }
            Some("file") => {
                let mime = part.content_type().map(AsRef::as_ref);
                let mime = mime_type(mime, part.file_name());
                let name = filename(part.file_name(), &mime);
                let (size_bytes, n_pieces) = keep(app, id, part).await?;
                file = Some((name, mime, size_bytes, n_pieces));
            }
            Some("expires_in_seconds") => {
                let text = small(part, &mut n_bytes).await?;
                let seconds = text.trim().parse().ok().filter(|it| EXPIRES_SECONDS.contains(it));
                let wrong = || {
                    let (first, last) = (EXPIRES_SECONDS.start(), EXPIRES_SECONDS.end());
                    let message = format!("must be a whole number from {first} to {last}");
                    Problem::new("expires_in_seconds", message)
                };
                expires_in = Some(Duration::from_secs(seconds.ok_or_else(wrong)?));
            }
            name => {
                let (name, _) = crate::domain::text::first_chars(name.unwrap_or_default(), 100);
                let message = "is not a part of this request, which are `file` and \
                               `expires_in_seconds`";
                return Err(Problem::new(format!("`{name}`"), message).into());
            }
        }
        if n_parts > 2 {
            return Err(Error::invalid("the body has too many parts"));
        }
    }
    let (filename, mime_type, size_bytes, n_pieces) =
        file.ok_or_else(|| Problem::new("file", "is required: a part of this name"))?;
    Ok(Upload { filename, mime_type, size_bytes, n_pieces, expires_in })
}

/// Writes the pieces of a file as they come. Answers how many bytes and how many pieces it has.
async fn keep(app: &App, id: &FileId, mut part: Field<'_>) -> Result<(i64, i64)> {
    let bytes_max = app.options().files.bytes_max;
    let (mut piece, mut n_bytes, mut n_pieces) = (BytesMut::new(), 0_usize, 0);
    while let Some(data) = part.chunk().await.map_err(|error| unreadable(&error))? {
        n_bytes += data.len();
        if n_bytes > bytes_max {
            return Err(too_large(bytes_max));
        }
        piece.extend_from_slice(&data);
        while piece.len() >= Store::PIECE_BYTES {
            let whole = piece.split_to(Store::PIECE_BYTES).freeze();
            app.store.put_piece(id.as_str(), n_pieces, whole).await?;
            n_pieces += 1;
        }
    }
    if !piece.is_empty() {
        app.store.put_piece(id.as_str(), n_pieces, piece.freeze()).await?;
        n_pieces += 1;
    }
    Ok((size(n_bytes), n_pieces))
}

async fn small(mut part: Field<'_>, n_bytes: &mut usize) -> Result<String> {
    let mut bytes = Vec::new();
    while let Some(data) = part.chunk().await.map_err(|error| unreadable(&error))? {
        *n_bytes += data.len();
        if *n_bytes > FIELD_BYTES_MAX {
            return Err(Error::invalid("a part of the body is too long"));
        }
        bytes.extend_from_slice(&data);
    }
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

fn unreadable(error: &multer::Error) -> Error {
    Error::invalid(format!("the multipart body cannot be read: {error}"))
}

fn too_large(bytes_max: usize) -> Error {
    let message = format!(
        "the file is larger than {bytes_max} bytes, the most that `files.bytes_max` of the configuration allows"
    );
    Error::new(Kind::TooLarge, message)
}

fn size(bytes: usize) -> i64 {
    i64::try_from(bytes).unwrap_or(i64::MAX)
}

async fn list(State(app): State<App>, query: Query) -> Result<Json<Value>> {
    let mut ids = query.list("ids").map(str::to_owned).collect::<Vec<_>>();
    ids.sort();
    ids.dedup();
    if ids.len() > IDS_MAX {
        return Err(Problem::new("ids", format!("has more than {IDS_MAX} ids")).into());
    }
    let by_id = !ids.is_empty();
    if by_id && ["page", "limit", "after_id", "before_id"].iter().any(|it| query.text(it).is_some())
    {
        return Err(Problem::new("ids", "goes neither with `limit` nor with a page").into());
    }
    let (page, after) = (query.page("files")?, query.get("after_id")?);
    let before = query.get("before_id")?;
    if [page.is_some(), after.is_some(), before.is_some()].iter().filter(|it| **it).count() > 1 {
        let message =
            "goes neither with `after_id` nor with `before_id`, nor these with each other";
        return Err(Problem::new("page", message).into());
    }
    let filter = FileFilter {
        session_id: query.get("scope_id")?,
        // What is no id of a file is the id of none.
        ids: ids.iter().filter_map(|id| id.parse().ok()).collect(),
        after: page.or(after),
        before,
        limit: if by_id { IDS_MAX } else { query.limit(LIMIT.0, LIMIT_MAX)? },
    };
    let backwards = filter.before.is_some();
    let found = match by_id && filter.ids.is_empty() {
        true => crate::store::Page { data: Vec::new(), next: None },
        false => app.store.files(filter).await?,
    };
    let next = found.next.as_deref().filter(|_| !backwards);
    Ok(Json(json!({
        "data": found.data.iter().map(FileInfo::to_json).collect::<Vec<_>>(),
        "next_page": next.map(|next| cursor("files", next)),
        // For SDKs that page by ids.
        "has_more": found.next.is_some(),
        "first_id": found.data.first().map(|file| &file.id),
        "last_id": found.data.last().map(|file| &file.id),
    })))
}

async fn retrieve(State(app): State<App>, At(id): At<FileId>) -> Result<Json<Value>> {
    let file = app.store.file(&id).await.map_err(Error::missing("file"))?;
    Ok(Json(file.info.to_json()))
}

pub(in crate::web) async fn remove(
    State(app): State<App>,
    actor: Actor,
    At(id): At<FileId>,
) -> Result<Json<Value>> {
    let change = actor.change("file.delete", &id, json!({}));
    app.store.delete_file(&id, change).await.map_err(Error::missing("file"))?;
    Ok(Json(json!({"id": id, "type": "file_deleted"})))
}

pub(in crate::web) async fn download(
    State(app): State<App>,
    At(id): At<FileId>,
) -> Result<Response> {
    let StoredFile { info, content, n_pieces } =
        app.store.file(&id).await.map_err(Error::missing("file"))?;
    if info.expires_at.is_some_and(|at| at <= app.store.clock().now()) {
        let error = Error::not_found("this file has expired, and its bytes are gone");
        return Err(error.with_code("file_expired"));
    }
    let headers = headers(&info);
    // The first piece comes before the answer: whether there are any is known then.
    let first = match n_pieces {
        0 => Bytes::new(),
        _ => app.store.piece(&content, 0).await.map_err(Error::missing("file"))?,
    };
    let rest = stream::iter(1..n_pieces).then(move |n| {
        let (app, content) = (app.clone(), content.clone());
        async move { app.store.piece(&content, n).await }
    });
    // One that is deleted meanwhile breaks off: a part is never taken for the whole.
    let rest = rest.map_err(|error| std::io::Error::other(error.detail()));
    let body = Body::from_stream(stream::iter([Ok(first)]).chain(rest));
    Ok((headers, body).into_response())
}

fn headers(info: &FileInfo) -> HeaderMap {
    let mut headers = HeaderMap::new();
    let octets = HeaderValue::from_static("application/octet-stream");
    let mime = HeaderValue::from_str(&info.mime_type).unwrap_or(octets);
    headers.insert(header::CONTENT_TYPE, mime);
    headers.insert(header::CONTENT_LENGTH, HeaderValue::from(info.size_bytes));
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
    let name: String = info.filename.bytes().fold(String::new(), |mut name, byte| {
        match plain(byte) {
            true => name.push(char::from(byte)),
            false => name.push_str(&format!("%{byte:02X}")),
        }
        name
    });
    let disposition = format!("attachment; filename*=UTF-8''{name}");
    let attachment = HeaderValue::from_static("attachment");
    let disposition = HeaderValue::from_str(&disposition).unwrap_or(attachment);
    headers.insert(header::CONTENT_DISPOSITION, disposition);
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    let policy = HeaderValue::from_static("default-src 'none'; sandbox");
    headers.insert(header::CONTENT_SECURITY_POLICY, policy);
    headers
}
