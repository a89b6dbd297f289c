//! What is different about each sandbox: its workspace, what else it is shown, and as whom it runs.
//!
//! A server that is root lays everything out in a mount namespace of its own first, because whoever
//! programs run as may not look into its directories; there it becomes that user, and `bwrap` runs as
//! for anybody. Invariant: what is mounted is what was looked at here, which the first process inside
//! compares; a path of the workspace is followed through no symbolic link.

use std::{
    ffi::OsString,
    fs::Metadata,
    io,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
};

use super::{
    Error, Options, READ_ONLY, Spec, WORKSPACE,
    inside::{self, Expected},
    system::{self, EMPTY, System},
};

/// How to run a sandbox.
#[derive(Debug)]
pub(super) struct Mounted {
    pub(super) command: Vec<OsString>,
    pub(super) expected: Vec<Expected>,
}

/// Where a server that is root lays out what the sandbox needs.
const STAGE: &str = "/tmp";

/// Arguments, and what they mount.
struct Layout<'a> {
    system: &'a System,
    /// Of the namespace where everything is laid out, where there is one.
    stage: Option<Vec<OsString>>,
    n_staged: u32,
    inner: Vec<OsString>,
    expected: Vec<Expected>,
}

impl Layout<'_> {
    /// The path by which `bwrap` finds something.
    fn staged(&mut self, source: &Path, kind: &str) -> PathBuf {
        let Some(stage) = &mut self.stage else { return source.to_owned() };
        let path = Path::new(STAGE).join(self.n_staged.to_string());
        self.n_staged += 1;
        stage.extend([kind.into(), source.into(), (&path).into()]);
        path
    }

    fn add(&mut self, arguments: &[&str]) {
        self.inner.extend(arguments.iter().map(OsString::from));
    }

    fn mount(&mut self, kind: &str, source: &Path, at: &Path, looked_at: Option<&Metadata>) {
        self.inner.extend([kind.into(), source.into(), at.into()]);
        self.expected.extend(looked_at.map(|it| Expected {
            at: at.to_owned(),
            device: it.dev(),
            inode: it.ino(),
        }));
    }
}

pub(super) fn mount(system: &System, options: &Options, spec: &Spec) -> Result<Mounted, Error> {
    let found = std::fs::symlink_metadata(&spec.workspace);
    let found = found.map_err(|error| wrong(&spec.workspace, &error.to_string()))?;
    if !found.is_dir() {
        return Err(wrong(&spec.workspace, "it is no directory"));
    }
    if system.is_root && found.uid() == 0 {
        return Err(wrong(
            &spec.workspace,
            "it belongs to root, and programs do not run as root; give it to another user with \
             `chown -R`, or let sessions work in a copy",
        ));
    }
    let mut layout = Layout {
        system,
        stage: system.is_root.then(Vec::new),
        n_staged: 0,
        inner: Vec::new(),
        expected: Vec::new(),
    };
    layout.system(options);
    let kind = if spec.writable { "--bind" } else { "--ro-bind" };
    let workspace = layout.staged(&spec.workspace, kind);
    layout.mount(kind, &workspace, WORKSPACE.as_ref(), Some(&found));
    if spec.writable {
        layout.pin(&spec.workspace, &workspace)?;
    }
    for shown in &spec.shown {
        let found = std::fs::metadata(&shown.path);
        let found = found.map_err(|error| wrong(&shown.path, &error.to_string()))?;
        let kind = if shown.writable { "--bind" } else { "--ro-bind" };
        let source = layout.staged(&shown.path, kind);
        layout.mount(kind, &source, &shown.shown_at, Some(&found));
    }
    if let Some(socket) = &spec.network {
        let source = layout.staged(socket, "--bind");
        layout.mount("--bind", &source, inside::PROXY.as_ref(), None);
    }
    layout.add(&["--remount-ro", "/dev", "--remount-ro", "/", "--chdir", "/", "--"]);
    layout.add(&[inside::WITHIN, inside::ENTRY, inside::FIRST]);
    let user = (found.uid(), found.gid());
    Ok(Mounted { command: layout.command(user), expected: layout.expected })
}

fn wrong(path: &Path, why: &str) -> Error {
    Error::Workspace(format!("nothing can be run in {}: {why}", path.display()))
}

impl Layout<'_> {
    /// Namespaces, the system's programs, and what is made anew.
    fn system(&mut self, options: &Options) {
        let size = options.tmp_bytes_max.to_string();
        self.add(&["--unshare-all", "--unshare-user", "--disable-userns"]);
        self.add(&["--uid", "1000", "--gid", "1000", "--cap-drop", "ALL"]);
        self.add(&["--new-session", "--die-with-parent", "--as-pid-1", "--hostname", "sandbox"]);
        let system = self.system;
        self.inner.extend(system.view.iter().map(OsString::from));
        let place = self.staged(&system.place, "--ro-bind");
        for name in system::made() {
            self.mount("--ro-bind", &place.join(name), &Path::new("/etc").join(name), None);
        }
        for path in options.paths.iter().filter(|path| path.exists()) {
            let source = self.staged(path, "--ro-bind");
            self.mount("--ro-bind", &source, path, None);
        }
        self.add(&["--proc", "/proc", "--dev", "/dev"]);
        self.add(&["--perms", "1777", "--size", &size, "--tmpfs", "/dev/shm"]);
        self.add(&["--perms", "1777", "--size", &size, "--tmpfs", "/tmp"]);
        let program = self.staged(&system.program, "--ro-bind");
        self.mount("--ro-bind", &program, inside::WITHIN.as_ref(), None);
    }

    /// What others execute stays as it is, and where it is: a directory on the way to it is mounted
    /// over itself, so that it cannot be moved aside.
    fn pin(&mut self, workspace: &Path, staged: &Path) -> Result<(), Error> {
        for (directory, names) in READ_ONLY {
            let (path, at) = (workspace.join(directory), Path::new(WORKSPACE).join(directory));
            let mut is_pinned = directory.is_empty();
            if !is_pinned && let Some(found) = look(&path)? {
                is_pinned = found.is_dir();
                // A worktree's `.git` is a file that says where the rest is.
                let kind = if is_pinned { "--bind" } else { "--ro-bind" };
                self.mount(kind, &staged.join(directory), &at, Some(&found));
            }
            for name in names.iter().filter(|_| is_pinned) {
                // At the top a link is a plain name that programs may put elsewhere anyway.
                if directory.is_empty() && path.join(name).is_symlink() {
                    continue;
                }
                match look(&path.join(name))? {
                    Some(found) => {
                        let source = staged.join(directory).join(name);
                        self.mount("--ro-bind", &source, &at.join(name), Some(&found));
                    }
                    // A repository without hooks gets none.
                    None if *name == "hooks" => {
                        let empty = self.staged(&self.system.place.join(EMPTY), "--ro-bind");
                        self.mount("--ro-bind", &empty, &at.join(name), None);
                    }
                    None => {}
                }
            }
        }
        Ok(())
    }

    /// With everything laid out, as whom it is to be run.
    fn command(&self, (user, group): (u32, u32)) -> Vec<OsString> {
        let bwrap = || OsString::from(&self.system.bwrap);
        let Some(stage) = &self.stage else {
            return [bwrap()].into_iter().chain(self.inner.iter().cloned()).collect();
        };
        let mut command = vec![bwrap()];
        let open = ["--die-with-parent", "--dev-bind", "/", "/", "--tmpfs", STAGE];
        command.extend(open.map(OsString::from));
        command.extend(stage.iter().cloned());
        let program = Path::new(STAGE).join("program");
        command.extend(["--ro-bind".into(), (&self.system.program).into(), (&program).into()]);
        command.extend(["--".into(), program.into(), inside::ENTRY.into(), inside::USER.into()]);
        command.extend([user.to_string().into(), group.to_string().into(), bwrap()]);
        command.extend(self.inner.iter().cloned());
        command
    }
}

/// What is there, if anything is. A link would lead whoever mounts it somewhere else.
fn look(path: &Path) -> Result<Option<Metadata>, Error> {
    match std::fs::symlink_metadata(path) {
        Ok(found) if found.is_symlink() => Err(wrong(
            path,
            "it is a symbolic link, and what it leads to could be changed through it",
        )),
        Ok(found) => Ok(Some(found)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(wrong(path, &error.to_string())),
    }
}
