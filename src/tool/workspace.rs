//! A workspace: the files that the tools of one session see.
//!
//! It has two directories. The root, shown at `/workspace`, is where the agent works. The session's
//! own files, shown at `/session`, hold what the server puts there (payloads, long outputs), and are
//! only read. Of these, what is mounted is shown at `/mnt/session/uploads` as well, and what the agent
//! hands in goes to `/mnt/session/outputs`. Invariant: nothing outside these is opened, whatever links are in them and whoever
//! moves them meanwhile: the kernel resolves every path beneath the directory, and what is written
//! is decided by where it really lies. Left out: how the directories come to be, and what programs
//! in the sandbox do with them.

use std::{
    ffi::OsStr,
    fs::File,
    io,
    os::{fd::OwnedFd, unix::ffi::OsStrExt as _},
    path::{Component, Path, PathBuf},
    sync::Mutex,
};

use rustix::{
    fs::{self, AtFlags, FileType, Mode, OFlags, ResolveFlags},
    io::Errno,
};

use super::Error;
use crate::{clock::Timestamp, domain::access::guarded, id::random_bits};

/// Where a sandbox shows the root, and where the tools do.
pub const ROOT: &str = "/workspace";

/// Where the session's own files are shown.
pub const FILES: &str = "/session";

/// Where files that are mounted into the session are shown, and where the agent puts what it hands in.
pub const UPLOADS: &str = "/mnt/session/uploads";
pub const OUTPUTS: &str = "/mnt/session/outputs";

/// Longest path that a model may give, in bytes; the kernel has the same bound.
const PATH_BYTES_MAX: usize = 4095;

/// Times that a path is looked up again which somebody changed meanwhile.
const TRIES: usize = 8;

/// A directory that is opened once, so that nobody can put another one in its place.
#[derive(Debug)]
struct Tree {
    directory: OwnedFd,
    /// Without any link in it.
    path: PathBuf,
}

#[derive(Debug)]
pub struct Workspace {
    root: Tree,
    files: Tree,
    /// Uploads and outputs.
    mounted: Option<(Tree, Tree)>,
    mounts: Vec<Mount>,
    /// What the agent is to be told about it.
    remarks: Mutex<Vec<String>>,
}

/// A directory of this machine that a sandbox shows beside the root.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mount {
    pub path: PathBuf,
    pub shown_at: PathBuf,
    pub writable: bool,
}

/// A path that a model gave, taken apart. Whether anything is there is not known yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    tree: Which,
    /// Relative to the tree; empty for the tree itself.
    path: PathBuf,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Which {
    Root,
    Files,
    Uploads,
    Outputs,
}

impl Place {
    /// As the model may write it again.
    pub fn shown(&self) -> String {
        let tree = match self.tree {
            Which::Root => ROOT,
            Which::Files => FILES,
            Which::Uploads => UPLOADS,
            Which::Outputs => OUTPUTS,
        };
        Path::new(tree).join(&self.path).display().to_string().trim_end_matches('/').to_owned()
    }

    /// A place beneath this one.
    pub fn join(&self, name: impl AsRef<Path>) -> Place {
        Place { tree: self.tree, path: self.path.join(name) }
    }

    /// Relative to the workspace's root, or to the session's files.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Workspace {
    /// Opens both directories, which exist.
    pub fn open(root: &Path, files: &Path) -> io::Result<Workspace> {
        let (root, files) = (Tree::open(root)?, Tree::open(files)?);
        let mounts = vec![
            Mount { path: root.path.clone(), shown_at: ROOT.into(), writable: true },
            Mount { path: files.path.clone(), shown_at: FILES.into(), writable: false },
        ];
        Ok(Workspace { root, files, mounted: None, mounts, remarks: Mutex::default() })
    }

    /// With two more directories, which exist: for what is mounted, and for what is handed in.
    pub fn with_mounted(mut self, uploads: &Path, outputs: &Path) -> io::Result<Workspace> {
        let (uploads, outputs) = (Tree::open(uploads)?, Tree::open(outputs)?);
        for (tree, shown_at, writable) in [(&uploads, UPLOADS, false), (&outputs, OUTPUTS, true)] {
            self.mounts.push(Mount {
                path: tree.path.clone(),
                shown_at: shown_at.into(),
                writable,
            });
        }
        self.mounted = Some((uploads, outputs));
        Ok(self)
    }

    /// Something that the agent is to be told with the next result.
    pub fn remark(&self, remark: String) {
        self.remarks.lock().expect("nobody panics with this lock").push(remark);
    }

    /// What there is to be told, until [`Workspace::told`] says that it was.
    pub fn remarks(&self) -> Vec<String> {
        self.remarks.lock().expect("nobody panics with this lock").clone()
    }

    /// The first of the remarks were told.
    pub fn told(&self, n: usize) {
        let mut remarks = self.remarks.lock().expect("nobody panics with this lock");
        let n = n.min(remarks.len());
        remarks.drain(..n);
    }

    /// Has a sandbox show one more directory.
    pub fn with_mount(mut self, mount: Mount) -> Workspace {
        self.mounts.push(mount);
        self
    }

    /// What a sandbox shows, the root first. Guarded names in what is writable are the sandbox's to
    /// keep from being written.
    pub fn mounts(&self) -> &[Mount] {
        &self.mounts
    }

    /// The root on this machine, without any link in it.
    pub fn path(&self) -> &Path {
        &self.root.path
    }

    /// The session's own files on this machine.
    pub fn files(&self) -> &Path {
        &self.files.path
    }

    /// Reads a path as models give them: absolute beneath one of the two names, or relative to the
    /// root. A path of this machine works too, as programs without a sandbox print those.
    pub fn place(&self, given: &str) -> Result<Place, Error> {
        if given.is_empty() || given.len() > PATH_BYTES_MAX || given.contains('\0') {
            let message = format!("a path has 1 to {PATH_BYTES_MAX} bytes and no NUL");
            return Err(Error::Model(message));
        }
        let given_path = Path::new(given);
        let is_mounted = self.mounted.is_some();
        let mounted = [(Which::Uploads, Path::new(UPLOADS)), (Which::Outputs, Path::new(OUTPUTS))];
        let trees = [
            (Which::Root, Path::new(ROOT)),
            (Which::Files, Path::new(FILES)),
            (Which::Root, &self.root.path),
            (Which::Files, &self.files.path),
        ];
        let (tree, path) = if given_path.is_absolute() {
            let beneath = |(tree, root)| Some((tree, given_path.strip_prefix(root).ok()?));
            let mounted = mounted.into_iter().filter(|_| is_mounted);
            trees.into_iter().chain(mounted).find_map(beneath).ok_or_else(|| leads_out(given))?
        } else {
            (Which::Root, given_path)
        };
        // `..` stays: what it means is known only to whoever follows the links before it.
        let path = path.components().filter(|it| !matches!(it, Component::CurDir)).collect();
        Ok(Place { tree, path })
    }

    /// Opens a file for reading. What is no plain file is refused: it may never end.
    pub fn open_file(&self, place: &Place) -> Result<File, Error> {
        let file = self.tree(place).find(&place.path, OFlags::RDONLY | OFlags::NONBLOCK);
        let file = File::from(file.map_err(|errno| refused(errno, place))?);
        let kind = file.metadata().map_err(broken)?.file_type();
        match () {
            () if kind.is_file() => Ok(file),
            () if kind.is_dir() => {
                let message = format!("`{}` is a directory; `glob` lists it", place.shown());
                Err(Error::Model(message))
            }
            () => Err(Error::Model(format!("`{}` is no plain file", place.shown()))),
        }
    }

    /// Opens a directory for reading its entries.
    pub fn open_directory(&self, place: &Place) -> Result<OwnedFd, Error> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY;
        self.tree(place).find(&place.path, flags).map_err(|errno| refused(errno, place))
    }

    /// Puts a whole file there, making the directories before it, and answers whether it is new. It
    /// is written beside its place and moved there: a reader sees the old file or the new one, and a
    /// hard link to the old one keeps what it had.
    pub fn write(&self, place: &Place, bytes: &[u8]) -> Result<bool, Error> {
        self.put(place, None, &mut &*bytes)
    }

    /// As [`Workspace::write`], from whatever can be read, and with a mode of its own.
    pub fn put(
        &self,
        place: &Place,
        mode: Option<u32>,
        bytes: &mut dyn io::Read,
    ) -> Result<bool, Error> {
        if matches!(place.tree, Which::Files | Which::Uploads) {
            let shown = place.shown();
            let message = format!("`{shown}` is only read; write beneath `{ROOT}`");
            return Err(Error::Model(message));
        }
        let existing = self.existing(place)?;
        let target = existing.as_ref().map_or(place.path.as_path(), |(path, _)| path);
        let Some(name) = target.file_name() else {
            return Err(Error::Model(format!("`{}` names no file", place.shown())));
        };
        let directory = self.make_directories(target, name, place)?;
        let kept = || existing.as_ref().map_or(0o644, |(_, mode)| mode & 0o777);
        let mode = mode.unwrap_or_else(kept);
        let owner = owner(&directory).map_err(broken)?;
        replace(&directory, name, bytes, mode, owner).map_err(broken)?;
        Ok(existing.is_none())
    }

    /// Removes a plain file; answers whether there was one.
    pub fn remove(&self, place: &Place) -> Result<bool, Error> {
        let Some((path, _)) = self.existing(place)? else { return Ok(false) };
        let (parent, name) = (path.parent().unwrap_or(Path::new("")), path.file_name());
        let Some(name) = name else { return Ok(false) };
        let flags = OFlags::PATH | OFlags::DIRECTORY;
        let directory = self.tree(place).find(parent, flags).map_err(|it| refused(it, place))?;
        match fs::unlinkat(&directory, name, AtFlags::empty()) {
            Ok(()) => Ok(true),
            Err(Errno::NOENT) => Ok(false),
            Err(errno) => Err(refused(errno, place)),
        }
    }

    /// Where the place really lies, and its mode, when something is there.
    fn existing(&self, place: &Place) -> Result<Option<(PathBuf, u32)>, Error> {
        let tree = self.tree(place);
        let found = match tree.find(&place.path, OFlags::PATH) {
            Ok(found) => found,
            Err(Errno::NOENT) => return Ok(None),
            Err(errno) => return Err(refused(errno, place)),
        };
        let stat = fs::fstat(&found).map_err(broken)?;
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::RegularFile => Ok(Some((tree.real(&found)?, stat.st_mode))),
            FileType::Directory => Err(Error::Model(format!("`{}` is a directory", place.shown()))),
            _ => Err(Error::Model(format!("`{}` is no plain file", place.shown()))),
        }
    }

    /// The directory of a file that will be written. What is there is opened, what is missing is
    /// made; before either, the whole real path is looked at.
    fn make_directories(
        &self,
        target: &Path,
        name: &OsStr,
        place: &Place,
    ) -> Result<OwnedFd, Error> {
        let parent = target.parent().unwrap_or(Path::new(""));
        let components: Vec<&OsStr> = parent.iter().collect();
        let mut n_known = components.len();
        let flags = OFlags::PATH | OFlags::DIRECTORY;
        let mut directory = loop {
            let known: PathBuf = components[..n_known].iter().collect();
            match self.tree(place).find(&known, flags) {
                Ok(found) => break found,
                Err(Errno::NOENT) if n_known > 0 => n_known -= 1,
                Err(errno) => return Err(refused(errno, place)),
            }
        };
        let missing = &components[n_known..];
        if missing.iter().any(|name| *name == "..") {
            return Err(refused(Errno::NOENT, place));
        }
        let real = self.tree(place).real(&directory)?;
        let whole: PathBuf = real.iter().chain(missing.iter().copied()).chain([name]).collect();
        if let Some(guarded) = guarded(&whole) {
            return Err(Error::Model(format!(
                "`{}` is not written: what is in `{guarded}` is executed by other programs",
                place.shown()
            )));
        }
        let owner = owner(&directory).map_err(broken)?;
        for name in missing {
            match fs::mkdirat(&directory, *name, Mode::from_raw_mode(0o755)) {
                Ok(()) | Err(Errno::EXIST) => {}
                Err(errno) => return Err(refused(errno, place)),
            }
            let flags = flags | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            directory = fs::openat(&directory, *name, flags, Mode::empty())
                .map_err(|errno| refused(errno, place))?;
            give(&directory, owner);
        }
        Ok(directory)
    }

    fn tree(&self, place: &Place) -> &Tree {
        match place.tree {
            Which::Root => &self.root,
            Which::Files => &self.files,
            // Nobody gets such a place where there are none.
            Which::Uploads => self.mounted.as_ref().map_or(&self.files, |(uploads, _)| uploads),
            Which::Outputs => self.mounted.as_ref().map_or(&self.files, |(_, outputs)| outputs),
        }
    }
}

impl Tree {
    fn open(path: &Path) -> io::Result<Tree> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let directory = fs::open(path, flags, Mode::empty())?;
        let path = real_path(&directory)?;
        Ok(Tree { directory, path })
    }

    /// Opens what lies beneath this directory, with all links followed by the kernel.
    fn find(&self, path: &Path, flags: OFlags) -> Result<OwnedFd, Errno> {
        let path = if path.as_os_str().is_empty() { Path::new(".") } else { path };
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS;
        let mut n_tries = 0;
        loop {
            let flags = flags | OFlags::CLOEXEC;
            match fs::openat2(&self.directory, path, flags, Mode::empty(), resolve) {
                // Something was moved while `..` was followed.
                Err(Errno::AGAIN | Errno::INTR) if n_tries < TRIES => n_tries += 1,
                found => return found,
            }
        }
    }

    /// Where something that was opened really lies, relative to this directory.
    fn real(&self, found: &OwnedFd) -> Result<PathBuf, Error> {
        let real = real_path(found).map_err(broken)?;
        let beneath = real.strip_prefix(&self.path).map(Path::to_owned);
        // It was moved away since it was opened.
        beneath.map_err(|_| leads_out(&real.display().to_string()))
    }
}

fn real_path(file: &OwnedFd) -> io::Result<PathBuf> {
    use std::os::fd::AsRawFd as _;
    let link = fs::readlink(format!("/proc/self/fd/{}", file.as_raw_fd()), Vec::new())?;
    Ok(PathBuf::from(OsStr::from_bytes(link.as_bytes())))
}

type Owner = (fs::Uid, fs::Gid);

fn owner(directory: &OwnedFd) -> io::Result<Owner> {
    let stat = fs::fstat(directory)?;
    Ok((fs::Uid::from_raw(stat.st_uid), fs::Gid::from_raw(stat.st_gid)))
}

/// What is new belongs to whom the directory around it belongs: programs in the sandbox may run as
/// somebody else than the server. Where it may not be given away it stays the server's.
fn give(made: &OwnedFd, (user, group): Owner) {
    let _ = fs::chownat(made, "", Some(user), Some(group), AtFlags::EMPTY_PATH);
}

/// Writes a file beside its place and moves it there.
fn replace(
    directory: &OwnedFd,
    name: &OsStr,
    bytes: &mut dyn io::Read,
    mode: u32,
    owner: Owner,
) -> io::Result<()> {
    let unfinished = format!(".{:032x}.part", random_bits(Timestamp(0)));
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let file = fs::openat(directory, &unfinished, flags, Mode::from_raw_mode(0o600))?;
    let write = || {
        give(&file, owner);
        let mut file = File::from(file);
        io::copy(bytes, &mut file)?;
        fs::fchmod(&file, Mode::from_raw_mode(mode))?;
        fs::renameat(directory, &unfinished, directory, name)?;
        Ok(())
    };
    write().inspect_err(|_: &io::Error| {
        let _ = fs::unlinkat(directory, &unfinished, AtFlags::empty());
    })
}

fn leads_out(shown: &str) -> Error {
    Error::Model(format!("`{shown}` lies outside of the workspace, which is `{ROOT}`"))
}

/// What the kernel said about a path, for the model.
fn refused(errno: Errno, place: &Place) -> Error {
    let shown = place.shown();
    Error::Model(match errno {
        Errno::XDEV => return leads_out(&shown),
        Errno::NOENT => format!("there is no `{shown}`"),
        Errno::NOTDIR => format!("`{shown}`: a part of the path is no directory"),
        Errno::LOOP => format!("`{shown}` has too many links, or one that is not followed"),
        Errno::ACCESS | Errno::PERM => format!("`{shown}` may not be opened"),
        Errno::NAMETOOLONG => format!("`{shown}` has too long a name in it"),
        Errno::NXIO | Errno::NODEV | Errno::AGAIN => format!("`{shown}` cannot be opened now"),
        Errno::NOSPC | Errno::DQUOT => "the disk is full".to_owned(),
        Errno::ROFS => format!("`{shown}` is only read"),
        other => return broken(other),
    })
}

fn broken(error: impl Into<io::Error>) -> Error {
    let error: io::Error = error.into();
    match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
            Error::Model("the disk is full".to_owned())
        }
        _ => Error::Fatal(anyhow::Error::new(error).context("use the workspace")),
    }
}
