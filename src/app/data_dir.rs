//! The data directory: the lock that makes it one process's, and the keys that were made for it.

use std::{
    fs::{self, File, OpenOptions, TryLockError},
    io::Write,
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

use anyhow::{Context, bail};
use secrecy::{ExposeSecret, SecretString};

/// Where SQLite's file is.
pub(super) fn database(data_dir: &Path) -> PathBuf {
    data_dir.join("bellpull.db")
}

/// An open data directory. The lock lasts as long as this value.
#[derive(Debug)]
pub(super) struct DataDir {
    pub(super) path: PathBuf,
    _lock: File,
}

impl DataDir {
    /// Opens the directory, making it readable for its owner only when it is not there.
    pub(super) fn open(path: &Path) -> anyhow::Result<DataDir> {
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(path)
            .with_context(|| format!("make the data directory {}", path.display()))?;
        let lock_path = path.join("bellpull.lock");
        let lock = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .mode(0o600)
            .open(&lock_path)
            .with_context(|| format!("open {}", lock_path.display()))?;
        match lock.try_lock() {
            Ok(()) => Ok(DataDir { path: path.to_owned(), _lock: lock }),
            Err(TryLockError::WouldBlock) => bail!(
                "another bellpull is running on the data directory {}\n\
                 hint: stop it, or give this one its own with `--data-dir`",
                path.display()
            ),
            Err(TryLockError::Error(error)) => {
                Err(error).with_context(|| format!("lock {}", lock_path.display()))
            }
        }
    }

    /// The few files that every sandbox sees, and the sockets of their ways out.
    pub(super) fn sandbox(&self) -> PathBuf {
        self.path.join("sandbox")
    }

    pub(super) fn workspaces(&self) -> PathBuf {
        self.path.join("workspaces")
    }

    /// What names this directory for ever, so that a restarted node knows its own old leases.
    pub(super) fn node_id(&self) -> anyhow::Result<String> {
        let fresh = || crate::vault::hex(&crate::vault::random::<8>()).into();
        let (id, _) = self.read_or_make("node.id", fresh)?;
        Ok(id.expose_secret().to_owned())
    }

    /// The trimmed content of a small file; made by `fresh`, for the owner only, when it is missing.
    /// Tells whether it was made now.
    pub(super) fn read_or_make(
        &self,
        name: &str,
        fresh: impl FnOnce() -> SecretString,
    ) -> anyhow::Result<(SecretString, bool)> {
        let path = self.path.join(name);
        match fs::read_to_string(&path) {
            Ok(text) if !text.trim().is_empty() => Ok((text.trim().into(), false)),
            Ok(_) => bail!("{} is empty\nhint: restore it from a backup", path.display()),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                let value = fresh();
                self.write_new(&path, &value)?;
                Ok((value, true))
            }
            Err(error) => Err(error).with_context(|| format!("read {}", path.display())),
        }
    }

    /// The trimmed content of a small file that must be there.
    pub(super) fn read(&self, name: &str) -> anyhow::Result<SecretString> {
        let path = self.path.join(name);
        let text = fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))?;
        Ok(text.trim().into())
    }

    /// Puts another content in the place of a small file.
    pub(super) fn replace(&self, name: &str, value: &SecretString) -> anyhow::Result<()> {
        self.write_new(&self.path.join(name), value)
    }

    /// Written whole and synced before it has its name: a crash leaves no half key.
    fn write_new(&self, path: &Path, value: &SecretString) -> anyhow::Result<()> {
        let unfinished = path.with_extension("part");
        let write = || -> std::io::Result<()> {
            let mut file = OpenOptions::new()
                .create(true)
                .truncate(true)
                .write(true)
                .mode(0o600)
                .open(&unfinished)?;
            file.write_all(value.expose_secret().as_bytes())?;
            file.write_all(b"\n")?;
            file.sync_all()?;
            fs::rename(&unfinished, path)?;
            File::open(&self.path)?.sync_all()
        };
        write().with_context(|| format!("write {}", path.display()))
    }

    /// Bytes that are free on the disk for this user.
    pub(super) fn free_bytes(path: &Path) -> Option<u64> {
        let stat = rustix::fs::statvfs(path).ok()?;
        Some(stat.f_bavail.saturating_mul(stat.f_frsize))
    }
}
