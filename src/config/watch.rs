//! Sees that a file has changed, so that the configuration is read again.
//!
//! Looks at metadata only, through symbolic links: an edit in place, a rename over the file and a
//! link that now leads elsewhere (how Kubernetes swaps a mounted directory) all show. Polling is
//! the caller's; there is no thread and no notification in here.

use std::{
    fs, mem,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
};

/// What a file looked like from outside; two that are equal mean that nobody wrote in between.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fingerprint(Option<Seen>);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Seen {
    device: u64,
    inode: u64,
    size: u64,
    modified_ns: i128,
    /// Tells apart what has equal size and a modification time set back, as by `cp -p` or `tar`.
    changed_ns: i128,
}

impl Fingerprint {
    /// The fingerprint of what the path leads to. A file that is not there, or cannot be looked at,
    /// has one too.
    pub fn of(path: &Path) -> Fingerprint {
        let ns = |seconds: i64, ns: i64| i128::from(seconds) * 1_000_000_000 + i128::from(ns);
        Fingerprint(fs::metadata(path).ok().map(|metadata| Seen {
            device: metadata.dev(),
            inode: metadata.ino(),
            size: metadata.size(),
            modified_ns: ns(metadata.mtime(), metadata.mtime_nsec()),
            changed_ns: ns(metadata.ctime(), metadata.ctime_nsec()),
        }))
    }
}

/// The files that a configuration was read from.
#[derive(Clone, Debug, Default)]
pub struct Watch {
    read: Vec<(PathBuf, Fingerprint)>,
    /// What the last look saw, when that was something new.
    settling: Vec<Fingerprint>,
}

impl Watch {
    /// Watches one more file from now on. Called before the file is read, or a change in between
    /// would never be seen.
    pub fn add(&mut self, path: &Path) {
        self.read.push((path.to_owned(), Fingerprint::of(path)));
    }

    /// Whether to read again: something is different, and was already so at the last look. The
    /// second look keeps a half-written file, which may well be valid, from taking effect.
    pub fn look(&mut self) -> bool {
        let now: Vec<_> = self.read.iter().map(|(path, _)| Fingerprint::of(path)).collect();
        if now.iter().eq(self.read.iter().map(|(_, fingerprint)| fingerprint)) {
            self.settling.clear();
            return false;
        }
        let before = mem::replace(&mut self.settling, now);
        before == self.settling
    }

    pub fn paths(&self) -> impl Iterator<Item = &Path> {
        self.read.iter().map(|(path, _)| path.as_path())
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn every_way_to_change_a_file_shows() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.toml");
        let mut seen = vec![Fingerprint::of(&path)];
        let mut differs = |what: &str| {
            let now = Fingerprint::of(&path);
            assert!(!seen.contains(&now), "{what}");
            assert_eq!(Fingerprint::of(&path), now, "{what}");
            seen.push(now);
        };
        fs::write(&path, "a = 1").unwrap();
        differs("created");
        fs::write(&path, "a = 12").unwrap();
        differs("another size");
        fs::write(dir.path().join("b"), "a = 34").unwrap();
        fs::rename(dir.path().join("b"), &path).unwrap();
        differs("renamed over");
    }

    #[test]
    fn a_link_that_leads_elsewhere_shows() {
        let dir = tempfile::tempdir().unwrap();
        for version in ["v1", "v2"] {
            fs::create_dir(dir.path().join(version)).unwrap();
            fs::write(dir.path().join(version).join("a.toml"), "a = 1").unwrap();
        }
        let data = dir.path().join("..data");
        symlink("v1", &data).unwrap();
        let path = dir.path().join("a.toml");
        symlink("..data/a.toml", &path).unwrap();
        let before = Fingerprint::of(&path);
        symlink("v2", dir.path().join("new")).unwrap();
        fs::rename(dir.path().join("new"), &data).unwrap();
        assert_ne!(Fingerprint::of(&path), before);
    }

    #[test]
    fn a_change_is_reported_when_it_has_settled_and_until_it_is_read() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.toml");
        let mut watch = Watch::default();
        watch.add(&path);
        assert!(!watch.look());
        fs::write(&path, "a").unwrap();
        assert!(!watch.look(), "may be half written");
        fs::write(&path, "ab").unwrap();
        assert!(!watch.look(), "still being written");
        assert!(watch.look());
        assert!(watch.look(), "nobody has read it yet");
        fs::remove_file(&path).unwrap();
        assert!(!watch.look());
        assert!(!watch.look(), "as it was when it was read");
        assert_eq!(watch.paths().collect::<Vec<_>>(), [path.as_path()]);
    }
}
