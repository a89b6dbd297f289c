//! The payload files in the workspaces of sessions, after their payloads.
//!
//! Invariant: a payload that was erased or is past its days lies in no file of this node for longer
//! than one sweep. Left out: everything else in a workspace, which is the agent's.

use std::{
    io,
    path::{Path, PathBuf},
};

use crate::{id::DeliveryId, store::Store};

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
