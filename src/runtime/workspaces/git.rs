//! A working tree of its own, by `git`.
//!
//! It is a clone that shares the objects of its project, on a branch of its own. A linked worktree
//! would have to let the agent write objects and refs of the project, and would run what the project's
//! configuration names (filters, monitors). Invariants: no hook, no filter and no configuration of
//! the project, the machine or the user is executed; nothing is fetched from anywhere; the server runs
//! `git` in no directory that an agent has written. Left out: submodules, and files that a filter
//! would have made.

use std::{
    io::Read as _,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use super::Refused;
use crate::projects;

/// What `git` may say about a failure.
const SAID_BYTES_MAX: u64 = 4 * 1024;

/// The only configuration that is read, beside that of the new clone.
const CONFIG: &str = "[core]\n\thooksPath = /dev/null\n\tfsmonitor = false\n\tlongpaths = true\n\
    [protocol]\n\tallow = never\n[protocol \"file\"]\n\tallow = always\n\
    [advice]\n\tdetachedHead = false\n[gc]\n\tauto = 0\n[safe]\n\tdirectory = *\n";

/// Clones a project and checks its current commit out on a new branch.
pub(super) fn clone(project: &Path, to: &Path, branch: &str, config: &Path) -> Result<(), Refused> {
    objects(project)?;
    std::fs::write(config, CONFIG)?;
    let from = utf8(project)?;
    let path = utf8(to)?;
    let clone = ["clone", "--quiet", "--shared", "--no-checkout", "--template=", "--", from, path];
    git(&clone, config)?;
    // A project without any commit has nothing to check out.
    if git(&["-C", path, "rev-parse", "--verify", "--quiet", "HEAD"], config).is_ok() {
        git(&["-C", path, "checkout", "--quiet", "--no-recurse-submodules", "-b", branch], config)?;
    }
    // The way back is the project's own remote, not a path that no sandbox shows.
    git(&["-C", path, "remote", "remove", "origin"], config)
}

/// Where a project has its objects.
pub(super) fn objects(project: &Path) -> Result<PathBuf, Refused> {
    projects::git_objects(project).ok_or_else(|| {
        Refused::Said(format!(
            "`{}` is not the top of a git repository; `workspace` may be `copy`",
            project.display()
        ))
    })
}

fn utf8(path: &Path) -> Result<&str, Refused> {
    path.to_str().ok_or_else(|| Refused::Said("the project's path is no UTF-8".to_owned()))
}

fn git(arguments: &[&str], config: &Path) -> Result<(), Refused> {
    let mut child = Command::new("git")
        .args(arguments)
        .env_clear()
        .env("PATH", "/usr/local/bin:/usr/bin:/bin")
        .env("HOME", "/nonexistent")
        .env("LC_ALL", "C")
        .env("GIT_CONFIG_NOSYSTEM", "1")
        .env("GIT_CONFIG_GLOBAL", config)
        .env("GIT_ATTR_NOSYSTEM", "1")
        .env("GIT_TERMINAL_PROMPT", "0")
        .env("GIT_NO_LAZY_FETCH", "1")
        .env("GIT_NO_REPLACE_OBJECTS", "1")
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|error| Refused::Said(format!("`git` cannot be run: {error}")))?;
    let mut said = Vec::new();
    if let Some(stderr) = child.stderr.take() {
        stderr.take(SAID_BYTES_MAX).read_to_end(&mut said)?;
    }
    if child.wait()?.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&said);
    Err(Refused::Said(format!("`git` failed: {}", said.trim())))
}
