//! Puts the files that are mounted into a session where its tools find them, and takes away those
//! that are not mounted any more.
//!
//! What was put where is written down in the session's own directory before it is put there: so what
//! this server put somewhere it also removes, whenever it died between. Invariants: nothing is written
//! outside of the session's directories, whatever links an agent made; a place that an agent has taken
//! costs the file that belongs there and nothing else, and the agent is told. Left out: which files
//! these are, which the store knows.

use std::{
    collections::BTreeMap,
    fs::{File, Permissions},
    io,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    sync::Arc,
};

use serde::{Deserialize, Serialize};
use tokio::io::AsyncWriteExt as _;

use crate::{
    domain::resource::{self, Place},
    id::{FileId, SessionId},
    store::{Error, Store, StoredFile},
    tool::{self, Workspace},
};

/// In the session's own directory.
pub(super) const UPLOADS: &str = "mounted/uploads";
pub(super) const OUTPUTS: &str = "mounted/outputs";
const NOTES: &str = "mounted/files.json";
const PART: &str = "mounted/part";

/// For everybody to read, and nobody to write.
const MODE: u32 = 0o444;

/// What was put somewhere, by path.
#[derive(Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Notes(BTreeMap<String, Note>);

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Note {
    file_id: FileId,
    /// Whether it is there as a whole.
    done: bool,
}

/// Makes the session's directories hold what is mounted, and nothing that was.
pub(in crate::runtime) async fn sync(
    store: &Store,
    session: &SessionId,
    workspace: &Arc<Workspace>,
) -> Result<(), tool::Error> {
    let wanted = store.mounted_files(session).await.map_err(|it| tool::Error::Fatal(it.into()))?;
    let own = workspace.files().to_owned();
    let mut notes = read(&own).await.map_err(broken)?;
    if wanted.is_empty() && notes.0.is_empty() {
        return Ok(());
    }
    let is_wanted = |path: &String, note: &Note| {
        wanted.iter().any(|(at, file)| at == path && file.info.id == note.file_id)
    };
    let gone: Vec<String> = notes
        .0
        .iter()
        .filter(|(path, note)| !is_wanted(path, note))
        .map(|it| it.0.clone())
        .collect();
    for path in gone {
        remove(&own, workspace, &path).await?;
        notes.0.remove(&path);
    }
    let is_there = |path: &String| notes.0.get(path).is_some_and(|note| note.done);
    let new: Vec<_> = wanted.iter().filter(|(path, _)| !is_there(path)).collect();
    for (path, file) in &new {
        notes.0.insert(path.clone(), Note { file_id: file.info.id.clone(), done: false });
    }
    write(&own, &notes).await.map_err(broken)?;
    for (path, file) in new {
        match put(store, &own, workspace, path, file).await {
            Ok(()) => {}
            // It is tried again before the next turn's first tool.
            Err(tool::Error::Model(why)) => {
                tracing::warn!(session_id = %session, path, why, "a file was not mounted");
                workspace.remark(format!("[{why}. Everything else is there.]"));
                continue;
            }
            Err(error) => return Err(error),
        }
        if let Some(note) = notes.0.get_mut(path) {
            note.done = true;
        }
    }
    write(&own, &notes).await.map_err(broken)
}

async fn put(
    store: &Store,
    own: &Path,
    workspace: &Arc<Workspace>,
    path: &str,
    file: &StoredFile,
) -> Result<(), tool::Error> {
    let part = own.join(PART);
    match fetch(store, file, &part).await {
        Ok(()) => {}
        Err(Fetch::Gone) => {
            tracing::warn!(file_id = %file.info.id, "a mounted file is gone");
            return Ok(());
        }
        Err(Fetch::Failed(error)) => return Err(tool::Error::Fatal(error)),
    }
    let (own, workspace, path) = (own.to_owned(), workspace.clone(), path.to_owned());
    blocking(move || match resource::place(&path) {
        Ok(Place::Uploads(below)) => {
            let place = own.join(UPLOADS).join(below);
            std::fs::create_dir_all(place.parent().unwrap_or(&own)).map_err(broken)?;
            std::fs::rename(&part, &place).map_err(broken)
        }
        Ok(Place::Workspace(_)) => {
            let place = workspace.place(&path)?;
            let mut bytes = File::open(&part).map_err(broken)?;
            let put = workspace.put(&place, Some(MODE), &mut bytes);
            std::fs::remove_file(&part).map_err(broken)?;
            match put {
                Err(tool::Error::Model(why)) => {
                    Err(tool::Error::Model(format!("a file cannot be mounted at `{path}`: {why}")))
                }
                other => other.map(drop),
            }
        }
        Err(why) => Err(tool::Error::Model(format!("a file cannot be mounted: `{path}` {why}"))),
    })
    .await
}

async fn remove(own: &Path, workspace: &Arc<Workspace>, path: &str) -> Result<(), tool::Error> {
    let (own, workspace, path) = (own.to_owned(), workspace.clone(), path.to_owned());
    blocking(move || match resource::place(&path) {
        Ok(Place::Uploads(below)) => {
            let (uploads, place) = (own.join(UPLOADS), own.join(UPLOADS).join(below));
            match std::fs::remove_file(&place) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(broken(error)),
                _ => {}
            }
            // Directories that were made for it, as far as nothing else is in them.
            let above = place.ancestors().skip(1).take_while(|it| *it != uploads);
            above.map_while(|it| std::fs::remove_dir(it).ok()).for_each(drop);
            Ok(())
        }
        // Whatever the agent did to it, or put in its place: it is not to be there.
        Ok(Place::Workspace(_)) => {
            match workspace.place(&path).and_then(|it| workspace.remove(&it)) {
                Err(tool::Error::Model(why)) => {
                    tracing::warn!(path, why, "a file that was mounted is not there to be removed");
                    Ok(())
                }
                other => other.map(drop),
            }
        }
        Err(_) => Ok(()),
    })
    .await
}

enum Fetch {
    Gone,
    Failed(anyhow::Error),
}

/// Writes a file's pieces one after the other, for everybody to read.
async fn fetch(store: &Store, file: &StoredFile, part: &Path) -> Result<(), Fetch> {
    let failed =
        |error: io::Error| Fetch::Failed(anyhow::Error::new(error).context("mount a file"));
    match tokio::fs::remove_file(part).await {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed(error)),
        _ => {}
    }
    let mut to = tokio::fs::File::create_new(part).await.map_err(failed)?;
    for n in 0..file.n_pieces {
        let piece = match store.piece(&file.content, n).await {
            Ok(piece) => piece,
            Err(Error::NotFound) => return Err(Fetch::Gone),
            Err(error) => return Err(Fetch::Failed(error.into())),
        };
        to.write_all(&piece).await.map_err(failed)?;
    }
    to.flush().await.map_err(failed)?;
    to.set_permissions(Permissions::from_mode(MODE)).await.map_err(failed)
}

async fn read(own: &Path) -> io::Result<Notes> {
    match tokio::fs::read(own.join(NOTES)).await {
        Ok(bytes) => serde_json::from_slice(&bytes).map_err(io::Error::other),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Notes::default()),
        Err(error) => Err(error),
    }
}

async fn write(own: &Path, notes: &Notes) -> io::Result<()> {
    let (place, bytes) = (own.join(NOTES), serde_json::to_vec(notes).map_err(io::Error::other)?);
    let unfinished: PathBuf = place.with_extension("part");
    tokio::fs::write(&unfinished, bytes).await?;
    tokio::fs::rename(&unfinished, &place).await
}

async fn blocking(
    work: impl FnOnce() -> Result<(), tool::Error> + Send + 'static,
) -> Result<(), tool::Error> {
    let done = tokio::task::spawn_blocking(work).await;
    done.unwrap_or_else(|error| Err(tool::Error::Fatal(error.into())))
}

fn broken(error: io::Error) -> tool::Error {
    tool::Error::Fatal(anyhow::Error::new(error).context("mount files"))
}
