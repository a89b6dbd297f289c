//! Takes what an agent handed in: files in the session's outputs become files of the API that belong
//! to the session.
//!
//! It is looked at when a turn ends or waits, before anybody can hear of that: whoever sees the session
//! at rest finds its files. A file that was changed is taken anew, and the one before it goes. Links
//! are not followed, and what is no plain file is passed over. Invariant: no more files and bytes are
//! taken than the options say. Left out: removing files that are gone from the directory; they were
//! handed in.

use std::{
    ffi::OsStr,
    io::{self, Read as _},
    os::unix::{ffi::OsStrExt as _, fs::MetadataExt as _},
    path::Path,
    sync::Arc,
};

use bytes::Bytes;
use rustix::fs::{Dir, FileType};

use super::mounts;
use crate::{
    domain::file::{FileInfo, filename, mime_type},
    id::{FileId, Id as _, SessionId},
    store::{self, Change, NewFile, Store},
    tool::{
        self, Workspace,
        workspace::{OUTPUTS, Place},
    },
};

/// Files of one session that are taken, and how deep directories are looked into.
const FILES_MAX: usize = 500;
const DEPTH_MAX: usize = 16;

/// How much of what agents hand in is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Outputs {
    /// Bytes of one file; a larger one is passed over.
    pub bytes_max: usize,
    /// Bytes of all files together, uploaded ones too.
    pub total_bytes_max: usize,
}

impl Default for Outputs {
    fn default() -> Outputs {
        Outputs { bytes_max: 500 << 20, total_bytes_max: 20 << 30 }
    }
}

/// Something that lies in the outputs.
struct Found {
    /// Relative to the outputs.
    path: String,
    /// Opened again when it is taken: hundreds at once would use up what may be open.
    place: Place,
    /// Changes when it is written.
    stamp: String,
    size: u64,
}

/// Whether anything lies there. One look at a directory that mostly is not there: a thread that may
/// wait would take longer to ask.
pub(in crate::runtime) fn any(own: &Path) -> bool {
    let entries = std::fs::read_dir(own.join(mounts::OUTPUTS));
    entries.is_ok_and(|mut entries| entries.next().is_some())
}

/// Takes what is new. What cannot be taken is said in the log of the server: the turn goes on.
pub(in crate::runtime) async fn take(
    store: &Store,
    session: &SessionId,
    workspace: &Arc<Workspace>,
    all: Outputs,
) {
    let (workspace, kept) = (workspace.clone(), workspace.clone());
    let found = tokio::task::spawn_blocking(move || {
        let mut found = Vec::new();
        let place = workspace.place(OUTPUTS)?;
        walk(&workspace, &place, "", 0, &mut found).map(|()| found)
    });
    let found = match found.await {
        Ok(Ok(found)) if found.is_empty() => return,
        Ok(Ok(found)) => found,
        Ok(Err(error)) => {
            tracing::warn!(%error, "the outputs of a session cannot be looked at");
            return;
        }
        Err(_) => return,
    };
    if let Err(error) = keep(store, session, &kept, found, all).await {
        tracing::warn!(error = %error.detail(), "outputs of a session were not taken");
    }
}

async fn keep(
    store: &Store,
    session: &SessionId,
    workspace: &Arc<Workspace>,
    found: Vec<Found>,
    all: Outputs,
) -> Result<(), store::Error> {
    let known = store.session_outputs(session).await?;
    for one in found {
        let origin = format!("{}\n{}", one.stamp, one.path);
        if known.iter().any(|(_, known)| *known == origin) {
            continue;
        }
        if one.size > all.bytes_max as u64 {
            tracing::warn!(path = one.path, bytes = one.size, "an output is too large to be taken");
            continue;
        }
        let id = FileId::new(store.clock().now());
        let path = one.path.clone();
        let made = put(store, session, &id, workspace.clone(), one, (origin, all)).await;
        match made {
            Ok(true) => {}
            Ok(false) => continue,
            Err(error) => {
                store.release_content(id.to_string()).await?;
                return Err(error);
            }
        }
        let is_before = |(_, origin): &&(FileId, String)| {
            origin.split_once('\n').is_some_and(|(_, before)| before == path)
        };
        for (before, _) in known.iter().filter(is_before) {
            let (actor, details) = ("bellpull".to_owned(), serde_json::json!({"replaced": path}));
            let change =
                Change { actor, action: "file.replace", target: before.to_string(), details };
            match store.delete_file(before, change).await {
                Ok(()) | Err(store::Error::NotFound) => {}
                Err(error) => return Err(error),
            }
        }
    }
    Ok(())
}

/// Whether it was taken: by now it may be gone.
async fn put(
    store: &Store,
    session: &SessionId,
    id: &FileId,
    workspace: Arc<Workspace>,
    one: Found,
    (origin, all): (String, Outputs),
) -> Result<bool, store::Error> {
    let place = one.place;
    let opening = tokio::task::spawn_blocking(move || workspace.open_file(&place));
    let opened = opening.await.map_err(|error| store::Error::Unavailable(error.into()))?;
    let Ok(mut file) = opened else {
        tracing::warn!(path = one.path, "an output is gone, or cannot be read");
        return Ok(false);
    };
    let (mut n_pieces, mut n_bytes) = (0, 0_usize);
    loop {
        let reading = tokio::task::spawn_blocking(move || {
            let mut piece = Vec::with_capacity(Store::PIECE_BYTES);
            let read = (&mut file).take(Store::PIECE_BYTES as u64).read_to_end(&mut piece);
            read.map(|_| (file, piece))
        });
        let read = reading.await.unwrap_or_else(|error| Err(io::Error::other(error)));
        let (back, piece) = read.map_err(|error| store::Error::Unavailable(error.into()))?;
        file = back;
        // It may grow while it is read.
        if piece.is_empty() || n_bytes + piece.len() > all.bytes_max {
            break;
        }
        n_bytes += piece.len();
        store.put_piece(id.as_str(), n_pieces, Bytes::from(piece)).await?;
        n_pieces += 1;
    }
    let name = one.path.rsplit('/').next();
    let mime = mime_type(None, name);
    let info = FileInfo {
        id: id.clone(),
        filename: filename(name, &mime),
        mime_type: mime,
        size_bytes: i64::try_from(n_bytes).unwrap_or(i64::MAX),
        session_id: Some(session.clone()),
        created_at: store.clock().now(),
        expires_at: None,
    };
    let total = i64::try_from(all.total_bytes_max).unwrap_or(i64::MAX);
    let file = NewFile { info, n_pieces, origin: Some(origin) };
    store.create_file(file, total, None).await.map(|_| true)
}

/// A name as a text: one that is no UTF-8 is told from all that are by its slash.
fn text_of(name: &OsStr) -> String {
    match name.to_str() {
        Some(name) => name.to_owned(),
        None => format!("/{}", name.as_bytes().escape_ascii()),
    }
}

/// What lies below a place. Every path is resolved by the workspace, whatever is moved meanwhile.
fn walk(
    workspace: &Workspace,
    place: &Place,
    prefix: &str,
    depth: usize,
    found: &mut Vec<Found>,
) -> Result<(), tool::Error> {
    let broken = |error: io::Error| tool::Error::Fatal(error.into());
    let directory = workspace.open_directory(place)?;
    let mut names = Vec::new();
    for entry in Dir::read_from(directory).map_err(|it| broken(it.into()))? {
        let entry = entry.map_err(|errno| broken(errno.into()))?;
        let name = OsStr::from_bytes(entry.file_name().to_bytes());
        if name != "." && name != ".." {
            names.push((name.to_owned(), entry.file_type()));
        }
    }
    names.sort_by(|a, b| a.0.cmp(&b.0));
    for (name, kind) in names {
        if found.len() >= FILES_MAX {
            return Ok(());
        }
        let (path, place) = (format!("{prefix}{}", text_of(&name)), place.join(&name));
        match kind {
            FileType::Directory if depth < DEPTH_MAX => {
                // One that is gone by now is passed over, like a file.
                let _ = walk(workspace, &place, &format!("{path}/"), depth + 1, found);
            }
            FileType::RegularFile => {
                let file = match workspace.open_file(&place) {
                    Ok(file) => file,
                    Err(error) => {
                        tracing::warn!(path, %error, "an output cannot be read");
                        continue;
                    }
                };
                let data = file.metadata().map_err(broken)?;
                let (seconds, nanos) = (data.mtime(), data.mtime_nsec());
                let stamp = format!("{seconds}.{nanos} {} {}", data.len(), data.ino());
                found.push(Found { path, place, stamp, size: data.len() });
            }
            _ => {}
        }
    }
    Ok(())
}
