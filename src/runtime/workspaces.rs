//! Prepares the workspaces of sessions.
//!
//! Each session has a directory of its own under the data directory: what the server puts there for
//! it, and, in `work`, its files, unless it works in a project itself. Invariants: `work` is there as
//! a whole or not at all, whenever the server dies; a project is one that the operator still allows;
//! nothing of a project is executed for the server. Left out: sweeping what is not needed any more,
//! which is `app`'s, and `setup`, which is beside this.

mod copy;
mod git;
pub(super) mod mounts;
pub(super) mod outputs;

use std::{
    io,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    sync::Arc,
};

use crate::{
    domain::environment::{EnvironmentConfig, Workspace as Way},
    id::{Id, SessionId},
    projects::{self, Unfit},
    tool::{self, Mount, Workspace},
};

/// The directory of a fresh workspace, in the session's own.
const WORK: &str = "work";

/// Which projects there are, and how much is copied of one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Projects {
    /// A project must lie in one of these.
    pub roots: Vec<PathBuf>,
    /// Bytes of a project of which sessions work on copies.
    pub copy_bytes_max: u64,
    /// Files and directories of one.
    pub copy_entries_max: u64,
}

impl Default for Projects {
    fn default() -> Projects {
        Projects { roots: Vec::new(), copy_bytes_max: 2 << 30, copy_entries_max: 200_000 }
    }
}

/// Why a workspace cannot be had.
#[derive(Debug)]
pub(super) enum Refused {
    /// Somebody can do something about it; said to the model, and so in the log.
    Said(String),
    Broken(anyhow::Error),
}

impl From<io::Error> for Refused {
    fn from(error: io::Error) -> Refused {
        Refused::Broken(error.into())
    }
}

/// The session's own directory, which may not be there yet.
pub(super) fn own_directory(workspaces: &Path, session: &SessionId) -> PathBuf {
    workspaces.join(session.as_str())
}

/// The workspace of a session, made if it is not there. `owner` are user and group that its programs
/// run as, where that is not the server itself.
pub(super) async fn prepare(
    workspaces: &Path,
    session: &SessionId,
    config: &EnvironmentConfig,
    projects: &Projects,
    owner: Option<(u32, u32)>,
) -> Result<Arc<Workspace>, tool::Error> {
    let own = own_directory(workspaces, session);
    let branch = format!("bellpull/{session}");
    let (config, projects) = (config.clone(), projects.clone());
    let working = tokio::task::spawn_blocking(move || {
        let made = Making { own, branch, projects, owner }.workspace(&config);
        made.map(Arc::new)
    });
    match working.await.map_err(|error| Refused::Broken(error.into())).and_then(|made| made) {
        Ok(workspace) => Ok(workspace),
        Err(Refused::Said(why)) => Err(tool::Error::Model(format!("there is no workspace: {why}"))),
        Err(Refused::Broken(error)) => {
            Err(tool::Error::Fatal(error.context("prepare the workspace")))
        }
    }
}

struct Making {
    own: PathBuf,
    branch: String,
    projects: Projects,
    owner: Option<(u32, u32)>,
}

impl Making {
    fn workspace(&self, config: &EnvironmentConfig) -> Result<Workspace, Refused> {
        let workspace = self.worked_in(config)?;
        let (uploads, outputs) = (self.own.join(mounts::UPLOADS), self.own.join(mounts::OUTPUTS));
        for directory in [&uploads, &outputs] {
            std::fs::create_dir_all(directory)?;
        }
        if let Some((user, group)) = self.owner {
            std::os::unix::fs::lchown(&outputs, Some(user), Some(group))?;
        }
        Ok(workspace.with_mounted(&uploads, &outputs)?)
    }

    fn worked_in(&self, config: &EnvironmentConfig) -> Result<Workspace, Refused> {
        std::fs::create_dir_all(&self.own)?;
        let work = self.own.join(WORK);
        match config {
            EnvironmentConfig::Cloud { .. } => {
                self.once(&work, |unfinished| Ok(std::fs::create_dir(unfinished)?))?;
                Ok(Workspace::open(&work, &self.own)?)
            }
            EnvironmentConfig::Local { project, workspace, .. } => {
                let project = self.allowed(project)?;
                match workspace {
                    Way::Shared => Ok(Workspace::open(&project, &self.own)?),
                    Way::Copy => {
                        self.once(&work, |to| copy::project(&project, to, &self.projects))?;
                        Ok(Workspace::open(&work, &self.own)?)
                    }
                    Way::Worktree => {
                        let config = self.own.join("gitconfig");
                        self.once(&work, |to| git::clone(&project, to, &self.branch, &config))?;
                        let workspace = Workspace::open(&work, &self.own)?;
                        // What the clone shares with its project is shown where it looks for it.
                        let objects = git::objects(&project)?;
                        let shown_at = objects.clone();
                        Ok(workspace.with_mount(Mount { path: objects, shown_at, writable: false }))
                    }
                }
            }
            EnvironmentConfig::SelfHosted => {
                Err(Refused::Said("the environment is self-hosted".to_owned()))
            }
        }
    }

    /// Makes a directory beside its place, and moves it there once it is whole.
    fn once(
        &self,
        place: &Path,
        make: impl FnOnce(&Path) -> Result<(), Refused>,
    ) -> Result<(), Refused> {
        if place.try_exists()? {
            return Ok(());
        }
        let unfinished = place.with_extension("part");
        match std::fs::remove_dir_all(&unfinished) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error.into()),
            _ => {}
        }
        make(&unfinished)?;
        if let Some(owner) = self.owner {
            give(&unfinished, owner)?;
        }
        std::fs::set_permissions(&unfinished, std::fs::Permissions::from_mode(0o755))?;
        Ok(std::fs::rename(&unfinished, place)?)
    }

    /// The project under its real path.
    fn allowed(&self, project: &str) -> Result<PathBuf, Refused> {
        projects::allowed(project, &self.projects.roots).map_err(|why| {
            let why = match why {
                Unfit::Gone => "is no directory any more",
                Unfit::Outside => "lies under none of `projects.roots`",
            };
            Refused::Said(format!("the project `{project}` {why}"))
        })
    }
}

/// Gives all of a directory to somebody else. Links themselves are given, not what they lead to.
fn give(directory: &Path, (user, group): (u32, u32)) -> io::Result<()> {
    for entry in std::fs::read_dir(directory)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            give(&entry.path(), (user, group))?;
        } else {
            std::os::unix::fs::lchown(entry.path(), Some(user), Some(group))?;
        }
    }
    std::os::unix::fs::lchown(directory, Some(user), Some(group))
}
