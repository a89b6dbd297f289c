//! A small disk: a file system in memory of a few megabytes, which can be filled.
//!
//! It is mounted in a namespace: a test that needs one runs itself again in there. So nothing is left
//! behind however it ends, and root is needed only where the system does not let others make
//! namespaces.

use std::{fs::File, io::Write, path::Path, process::Command};

use tempfile::TempDir;

/// Tells the test that it is the second of the two.
const INSIDE: &str = "BELLPULL_TEST_INSIDE_NAMESPACE";

#[derive(Debug)]
pub struct SmallDisk(TempDir);

impl SmallDisk {
    /// The disk. Without one, the test of this full name has run in a namespace, and has passed.
    #[expect(clippy::disallowed_methods, reason = "the tests have no config to read it")]
    pub fn mount(test: &str, bytes: u64) -> Option<SmallDisk> {
        if std::env::var_os(INSIDE).is_none() {
            run_again(test);
            return None;
        }
        let disk = SmallDisk(tempfile::tempdir().expect("a temporary directory can be made"));
        let output = tmpfs(&mut Command::new("mount"), bytes, disk.path());
        assert!(output.is_ok(), "{output:?}");
        Some(disk)
    }

    pub fn path(&self) -> &Path {
        self.0.path()
    }

    /// Fills the disk but for about so many bytes.
    pub fn fill_but(&self, bytes: u64) {
        let mut ballast = File::create(self.path().join("ballast")).expect("a file can be made");
        // Others write too: what was free a moment ago may not be any more.
        while let Some(n @ 1..) = self.free_bytes().checked_sub(bytes) {
            let n = n.min(65_536);
            if ballast.write_all(&vec![0; usize::try_from(n).expect("it is small")]).is_err() {
                return;
            }
        }
    }

    /// Gives back what was filled.
    pub fn free(&self) {
        std::fs::remove_file(self.path().join("ballast")).expect("the disk was filled");
    }

    fn free_bytes(&self) -> u64 {
        let stat = rustix::fs::statvfs(self.path()).expect("it is mounted");
        stat.f_bavail * stat.f_frsize
    }
}

fn tmpfs(mount: &mut Command, bytes: u64, place: &Path) -> Result<(), String> {
    let options = format!("size={bytes},mode=700");
    let output = mount.args(["-t", "tmpfs", "-o", &options, "bellpull-test"]).arg(place).output();
    let output = output.expect("util-linux is installed");
    let said = || String::from_utf8_lossy(&output.stderr).into_owned();
    if output.status.success() { Ok(()) } else { Err(said()) }
}

fn run_again(test: &str) {
    let place = tempfile::tempdir().expect("a temporary directory can be made");
    let mut refusals = String::new();
    // With the rights of root as they are; else those over a user namespace of one's own.
    for rights in [&["--mount"][..], &["--map-root-user", "--mount"]] {
        let mut probe = Command::new("unshare");
        if let Err(refusal) = tmpfs(probe.args(rights).arg("mount"), 1 << 20, place.path()) {
            refusals.push_str(&refusal);
            continue;
        }
        let status = Command::new("unshare")
            .args(rights)
            .arg(std::env::current_exe().expect("it runs"))
            .args(["--exact", test, "--nocapture"])
            .env(INSIDE, "1")
            .status();
        assert!(status.expect("it ran before").success(), "{test} failed in its namespace");
        return;
    }
    panic!(
        "this test needs a small file system of its own, and neither this user nor a user namespace \
         could mount one:\n{refusals}Run the tests as root, or allow user namespaces (sysctl \
         kernel.unprivileged_userns_clone=1 or kernel.apparmor_restrict_unprivileged_userns=0); in a \
         container, give it the capability SYS_ADMIN."
    );
}
