//! The workspaces of sessions, after their payloads and their sessions.
//!
//! Invariants: a payload that was erased or is past its days lies in no file of this node for longer
//! than one sweep, and a session that is gone leaves no workspace. Left out: everything else in a
//! workspace, which is the agent's.

use std::{
    io,
    path::{Path, PathBuf},
};

use crate::{
    id::{DeliveryId, SessionId},
    store::Store,
};

/// Files that are asked about at once.
const SLICE: usize = 500;

/// Removes the files of payloads that the database does not have any more; answers how many.
pub(super) async fn sweep(store: &Store, workspaces: &Path) -> anyhow::Result<u64> {
    let (mut n_removed, mut found) = (0, Vec::new());
    let Some(mut sessions) = directory(workspaces).await? else { return Ok(0) };
    while let Some(session) = sessions.next_entry().await? {
        let Some(mut files) = directory(&session.path().join("deliveries")).await? else {
            continue;
        };
        while let Some(file) = files.next_entry().await? {
            let name = file.file_name();
            let id = name.to_str().and_then(|name| name.split('.').next());
            let Some(Ok(id)) = id.map(str::parse::<DeliveryId>) else { continue };
            found.push((id, file.path()));
            if found.len() == SLICE {
                n_removed += remove(store, &mut found).await?;
            }
        }
    }
    Ok(n_removed + remove(store, &mut found).await?)
}

/// Removes the workspaces of sessions that the database does not have any more; answers how many.
/// Where it knows none of them, it is another database, and nothing is removed.
pub(super) async fn sweep_sessions(store: &Store, workspaces: &Path) -> anyhow::Result<u64> {
    let Some(mut entries) = directory(workspaces).await? else { return Ok(0) };
    let mut found = Vec::new();
    while let Some(entry) = entries.next_entry().await? {
        let name = entry.file_name();
        if let Some(Ok(id)) = name.to_str().map(str::parse::<SessionId>) {
            found.push((id, entry.path()));
        }
    }
    let (mut gone, mut n_known) = (Vec::new(), 0);
    for slice in found.chunks(SLICE) {
        let ids = slice.iter().map(|(id, _)| id.clone()).collect();
        let known = store.known_sessions(ids).await?;
        n_known += known.len();
        let is_gone =
            |(id, path): &(SessionId, PathBuf)| (!known.contains(id)).then(|| path.clone());
        gone.extend(slice.iter().filter_map(is_gone));
    }
    if n_known == 0 {
        return Ok(0);
    }
    let mut n_removed = 0;
    for path in gone {
        tokio::fs::remove_dir_all(path).await?;
        n_removed += 1;
    }
    Ok(n_removed)
}

/// Removes those of the files whose payloads are gone, and forgets all of them.
async fn remove(store: &Store, found: &mut Vec<(DeliveryId, PathBuf)>) -> anyhow::Result<u64> {
    let ids = found.iter().map(|(id, _)| id.clone()).collect();
    let kept = store.with_bodies(ids).await?;
    let mut n_removed = 0;
    for (id, path) in found.drain(..) {
        if !kept.contains(&id) {
            tokio::fs::remove_file(path).await?;
            n_removed += 1;
        }
    }
    Ok(n_removed)
}

/// What is in a directory, unless there is none.
async fn directory(path: &Path) -> io::Result<Option<tokio::fs::ReadDir>> {
    match tokio::fs::read_dir(path).await {
        Ok(entries) => Ok(Some(entries)),
        Err(error)
            if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) =>
        {
            Ok(None)
        }
        Err(error) => Err(error),
    }
}
