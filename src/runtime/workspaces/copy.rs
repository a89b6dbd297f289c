//! Copies a project: what the disk can share is shared until it is written.
//!
//! Invariant: nothing outside of the project is copied, and no more than may be. Links are copied as
//! links; where one leads out, neither tools nor sandbox follow it. What is neither file, directory
//! nor link is left out.

use std::{
    ffi::OsStr,
    fs::File,
    io,
    os::{
        fd::{AsFd, OwnedFd},
        unix::ffi::OsStrExt as _,
    },
    path::Path,
};

use rustix::fs::{self, AtFlags, Dir, FileType, Mode, OFlags};

use super::{Projects, Refused};

/// Directories in one another.
const DEPTH_MAX: usize = 200;

pub(super) fn project(from: &Path, to: &Path, bounds: &Projects) -> Result<(), Refused> {
    std::fs::create_dir(to)?;
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let (from, to) = (fs::open(from, flags, Mode::empty()), fs::open(to, flags, Mode::empty()));
    let (from, to) = (from.map_err(io::Error::from)?, to.map_err(io::Error::from)?);
    let mut copy = Copy { bytes: 0, entries: 0, bounds };
    copy.directory(&from, &to, 0)
}

struct Copy<'a> {
    bytes: u64,
    entries: u64,
    bounds: &'a Projects,
}

impl Copy<'_> {
    fn directory(&mut self, from: &OwnedFd, to: &OwnedFd, depth: usize) -> Result<(), Refused> {
        if depth > DEPTH_MAX {
            return Err(Refused::Said(format!("its directories are {DEPTH_MAX} deep and more")));
        }
        for entry in Dir::read_from(from).map_err(io::Error::from)? {
            let entry = entry.map_err(io::Error::from)?;
            let name = OsStr::from_bytes(entry.file_name().to_bytes());
            if name == "." || name == ".." {
                continue;
            }
            self.entries += 1;
            if self.entries > self.bounds.copy_entries_max {
                let max = self.bounds.copy_entries_max;
                return Err(Refused::Said(format!(
                    "the project has more than `projects.copy_entries_max` ({max}) entries"
                )));
            }
            self.entry(from, to, name, depth)?;
        }
        Ok(())
    }

    fn entry(
        &mut self,
        from: &OwnedFd,
        to: &OwnedFd,
        name: &OsStr,
        depth: usize,
    ) -> Result<(), Refused> {
        let stat = match fs::statat(from, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => stat,
            // Somebody works in the project meanwhile.
            Err(rustix::io::Errno::NOENT) => return Ok(()),
            Err(errno) => return Err(io::Error::from(errno).into()),
        };
        let mode = Mode::from_raw_mode(stat.st_mode & 0o755);
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let errno = |errno: rustix::io::Errno| Refused::from(io::Error::from(errno));
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::Directory => {
                let flags = flags | OFlags::DIRECTORY;
                let inner = fs::openat(from, name, flags, Mode::empty()).map_err(errno)?;
                fs::mkdirat(to, name, mode | Mode::RWXU).map_err(errno)?;
                let made = fs::openat(to, name, flags, Mode::empty()).map_err(errno)?;
                self.directory(&inner, &made, depth + 1)
            }
            FileType::Symlink => {
                let leads_to = fs::readlinkat(from, name, Vec::new()).map_err(errno)?;
                fs::symlinkat(leads_to.as_c_str(), to, name).map_err(errno)
            }
            FileType::RegularFile => {
                let file = File::from(fs::openat(from, name, flags, Mode::empty()).map_err(errno)?);
                // Between the look and now somebody may have put something else there.
                let metadata = file.metadata()?;
                if !metadata.is_file() {
                    return Ok(());
                }
                let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
                let made = fs::openat(to, name, flags, mode | Mode::WUSR).map_err(errno)?;
                self.file(file, File::from(made))
            }
            _ => Ok(()),
        }
    }

    fn file(&mut self, from: File, mut to: File) -> Result<(), Refused> {
        let max = self.bounds.copy_bytes_max;
        let too_much = || {
            let message =
                format!("the project has more than `projects.copy_bytes_max` ({max}) bytes");
            Refused::Said(message)
        };
        let left = max - self.bytes;
        if from.metadata()?.len() > left {
            return Err(too_much());
        }
        if fs::ioctl_ficlone(to.as_fd(), from.as_fd()).is_ok() {
            self.bytes += to.metadata()?.len();
            return if self.bytes > max { Err(too_much()) } else { Ok(()) };
        }
        let n = io::copy(&mut io::Read::take(from, left + 1), &mut to)?;
        self.bytes += n;
        if self.bytes > max { Err(too_much()) } else { Ok(()) }
    }
}
