//! Walks through a workspace: every file below a place, without what `.gitignore` leaves out.
//!
//! Invariant: no link is followed, each directory is opened from the one around it, and the number of
//! entries is bounded. `.git` and its like are not entered. Left out: ignore files outside of the
//! place where the walk begins, so that whoever asks for an ignored directory sees what is in it.

use std::{
    ffi::OsStr,
    fs::File,
    io::Read as _,
    os::{fd::OwnedFd, unix::ffi::OsStrExt as _},
    path::{Path, PathBuf},
};

use globset::{GlobBuilder, GlobMatcher};
use rustix::fs::{self, AtFlags, Dir, FileType, Mode, OFlags};

use super::{Error, Stop, Workspace, workspace::Place};

/// Directories in one another.
const DEPTH_MAX: usize = 100;

/// Bytes of one `.gitignore`.
const RULES_BYTES_MAX: u64 = 64 * 1024;

/// Directories that hold a version control's own files.
const CONTROL: [&str; 3] = [".git", ".hg", ".svn"];

/// A file on the way.
pub(super) struct Entry<'a> {
    directory: &'a OwnedFd,
    name: &'a OsStr,
    /// Relative to the place where the walk began.
    pub(super) path: &'a Path,
    pub(super) is_link: bool,
}

impl Entry<'_> {
    /// Seconds and nanoseconds since 1970.
    pub(super) fn modified(&self) -> (i64, i64) {
        let flags = AtFlags::SYMLINK_NOFOLLOW;
        let stat = fs::statat(self.directory, self.name, flags);
        stat.map_or((0, 0), |stat| (stat.st_mtime, i64::try_from(stat.st_mtime_nsec).unwrap_or(0)))
    }

    /// Opens it for reading; `None` when it is no plain file any more.
    pub(super) fn open(&self) -> Option<File> {
        open(self.directory, self.name)
    }
}

fn open(directory: &OwnedFd, name: &OsStr) -> Option<File> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let file = File::from(fs::openat(directory, name, flags, Mode::empty()).ok()?);
    file.metadata().ok()?.is_file().then_some(file)
}

/// How a walk ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    Whole,
    /// There are more entries than may be looked at.
    Bound,
}

/// Visits each file below a directory, until the visitor has enough and answers `false`.
pub(super) fn walk(
    workspace: &Workspace,
    place: &Place,
    entries_max: usize,
    stop: &Stop,
    visit: &mut dyn FnMut(&Entry<'_>) -> bool,
) -> Result<End, Error> {
    let directory = workspace.open_directory(place)?;
    let mut walk = Walk { entries_left: entries_max, stop, visit, rules: Vec::new() };
    match walk.enter(&directory, Path::new(""), 0) {
        Next::Bound => Ok(End::Bound),
        Next::On | Next::Enough => Ok(End::Whole),
    }
}

struct Walk<'a> {
    entries_left: usize,
    stop: &'a Stop,
    visit: &'a mut dyn FnMut(&Entry<'_>) -> bool,
    /// Of the directories on the way here, the outermost first.
    rules: Vec<Rule>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Next {
    On,
    Enough,
    Bound,
}

impl Walk<'_> {
    fn enter(&mut self, directory: &OwnedFd, path: &Path, depth: usize) -> Next {
        let n_rules = self.rules.len();
        self.read_rules(directory, path);
        let next = self.entries(directory, path, depth);
        self.rules.truncate(n_rules);
        next
    }

    fn entries(&mut self, directory: &OwnedFd, path: &Path, depth: usize) -> Next {
        // What cannot be read is passed over: somebody may have removed it meanwhile.
        let Ok(entries) = Dir::read_from(directory) else { return Next::On };
        for entry in entries {
            let Ok(entry) = entry else { return Next::On };
            let name = OsStr::from_bytes(entry.file_name().to_bytes());
            if name == "." || name == ".." {
                continue;
            }
            if self.entries_left == 0 || self.stop.is_set() {
                return Next::Bound;
            }
            self.entries_left -= 1;
            let path = path.join(name);
            let kind = match entry.file_type() {
                FileType::Unknown => kind(directory, name),
                kind => kind,
            };
            if self.is_ignored(&path, kind == FileType::Directory) {
                continue;
            }
            let next = match kind {
                FileType::Directory => self.directory(directory, name, &path, depth),
                FileType::RegularFile | FileType::Symlink => {
                    let is_link = kind == FileType::Symlink;
                    let goes_on = (self.visit)(&Entry { directory, name, path: &path, is_link });
                    if goes_on { Next::On } else { Next::Enough }
                }
                _ => Next::On,
            };
            if next != Next::On {
                return next;
            }
        }
        Next::On
    }

    fn directory(&mut self, around: &OwnedFd, name: &OsStr, path: &Path, depth: usize) -> Next {
        if CONTROL.iter().any(|control| name == *control) || depth == DEPTH_MAX {
            return Next::On;
        }
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        match fs::openat(around, name, flags, Mode::empty()) {
            Ok(inside) => self.enter(&inside, path, depth + 1),
            Err(_) => Next::On,
        }
    }

    fn read_rules(&mut self, directory: &OwnedFd, path: &Path) {
        let Some(file) = open(directory, OsStr::new(".gitignore")) else { return };
        let mut text = Vec::new();
        if file.take(RULES_BYTES_MAX).read_to_end(&mut text).is_ok() {
            let text = String::from_utf8_lossy(&text);
            self.rules.extend(text.lines().filter_map(|line| Rule::read(line, path)));
        }
    }

    /// The last rule that fits decides.
    fn is_ignored(&self, path: &Path, is_directory: bool) -> bool {
        let fits = |rule: &&Rule| {
            let below = path.strip_prefix(&rule.base);
            (is_directory || !rule.directories)
                && below.is_ok_and(|below| rule.pattern.is_match(below))
        };
        self.rules.iter().rev().find(fits).is_some_and(|rule| !rule.negated)
    }
}

fn kind(directory: &OwnedFd, name: &OsStr) -> FileType {
    let stat = fs::statat(directory, name, AtFlags::SYMLINK_NOFOLLOW);
    stat.map_or(FileType::Unknown, |stat| FileType::from_raw_mode(stat.st_mode))
}

/// One line of a `.gitignore`.
struct Rule {
    base: PathBuf,
    pattern: GlobMatcher,
    negated: bool,
    directories: bool,
}

impl Rule {
    fn read(line: &str, base: &Path) -> Option<Rule> {
        let line = line.trim_end();
        if line.is_empty() || line.starts_with('#') {
            return None;
        }
        let (negated, line) = line.strip_prefix('!').map_or((false, line), |rest| (true, rest));
        let (directories, line) = line.strip_suffix('/').map_or((false, line), |it| (true, it));
        let pattern = match line.strip_prefix('/') {
            Some(anchored) => anchored.to_owned(),
            None if line.contains('/') => line.to_owned(),
            None => format!("**/{line}"),
        };
        let pattern = pattern_of(&pattern).ok()?;
        Some(Rule { base: base.to_owned(), pattern, negated, directories })
    }
}

/// A pattern in which `*` stays within a name and `**` does not.
pub(super) fn pattern_of(text: &str) -> Result<GlobMatcher, globset::Error> {
    Ok(GlobBuilder::new(text).literal_separator(true).build()?.compile_matcher())
}
