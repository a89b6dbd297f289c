//! What no limit of the kernel counts: the memory of all processes of a sandbox, and its disk.
//!
//! The first process looks again and again, seldom while nothing runs; what goes beyond ends the whole
//! sandbox. Invariant: between two looks a process is still under its own limits. Memory is counted
//! cheaply, and where that is too much, exactly: what processes share counts once.

use std::{
    fs,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    time::Duration,
};

use super::{WORKSPACE, inside::First};

/// Between two looks while programs run, and while only one does, which waits for its next command.
const BUSY: Duration = Duration::from_millis(200);
const IDLE: Duration = Duration::from_secs(1);

/// The workspace is measured so many times more seldom than it takes, and at least so far apart.
const REST: u32 = 20;
const MEASURE: Duration = Duration::from_secs(2);

/// Files by which a workspace may grow.
const FILES_MAX: u64 = 1_000_000;

/// Returns with what is beyond its bound.
pub(super) fn watch(first: &First) -> String {
    if let Some(bytes_max) = first.workspace_bytes_max {
        std::thread::spawn(move || {
            let why = measure_again_and_again(bytes_max);
            super::inside::breach(&why);
        });
    }
    loop {
        let (bytes, n_processes) = memory(false);
        if bytes > first.memory_bytes_max && memory(true).0 > first.memory_bytes_max {
            let n_mib = first.memory_bytes_max >> 20;
            return format!("its processes took more than {n_mib} MiB of memory");
        }
        if let Some(bytes_min) = first.free_disk_bytes_min
            && let Ok(disk) = rustix::fs::statvfs(WORKSPACE)
            && disk.f_bavail.saturating_mul(disk.f_frsize) < bytes_min
        {
            return format!("less than {} MiB are free on the disk", bytes_min >> 20);
        }
        std::thread::sleep(if n_processes > 2 { BUSY } else { IDLE });
    }
}

/// Bytes that the processes of this namespace hold, and how many they are.
fn memory(exactly: bool) -> (u64, usize) {
    let (mut bytes, mut n_processes) = (shared_segments(), 0);
    for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
        if !entry.file_name().as_encoded_bytes().iter().all(u8::is_ascii_digit) {
            continue;
        }
        n_processes += 1;
        let fields: (&str, &[&str]) = if exactly {
            ("smaps_rollup", &["Pss_Anon:", "Pss_Shmem:"])
        } else {
            ("status", &["RssAnon:", "RssShmem:"])
        };
        let told = sum(&entry.path().join(fields.0), fields.1);
        // Of a process that may not be looked into, the cheap number.
        bytes += told
            .or_else(|| sum(&entry.path().join("status"), &["RssAnon:", "RssShmem:"]))
            .unwrap_or(0);
    }
    (bytes, n_processes)
}

fn sum(path: &Path, names: &[&str]) -> Option<u64> {
    let text = fs::read_to_string(path).ok()?;
    let kib = text.lines().filter_map(|line| {
        let number = names.iter().find_map(|name| line.strip_prefix(name))?;
        number.trim().strip_suffix(" kB")?.parse::<u64>().ok()
    });
    Some(kib.sum::<u64>() * 1024)
}

/// Segments of shared memory live without a process. The column before the last holds their bytes.
fn shared_segments() -> u64 {
    let text = fs::read_to_string("/proc/sysvipc/shm").unwrap_or_default();
    let bytes = |line: &str| line.split_whitespace().rev().nth(1)?.parse::<u64>().ok();
    text.lines().skip(1).filter_map(bytes).sum()
}

/// Against what was there when the sandbox began: a project may be large.
fn measure_again_and_again(bytes_max: u64) -> String {
    let clock = crate::clock::Clock::system();
    let mut begun: Option<(u64, u64)> = None;
    loop {
        let started = clock.monotonic();
        let (bytes, n_files) = measure(WORKSPACE.into());
        let (bytes_before, n_files_before) = *begun.get_or_insert((bytes, n_files));
        if bytes.saturating_sub(bytes_before) > bytes_max {
            return format!("its workspace grew by more than {} MiB", bytes_max >> 20);
        }
        if n_files.saturating_sub(n_files_before) > FILES_MAX {
            return format!("its workspace grew by more than {FILES_MAX} files");
        }
        std::thread::sleep(MEASURE.max((clock.monotonic() - started) * REST));
    }
}

fn measure(place: PathBuf) -> (u64, u64) {
    let (mut bytes, mut n_files, mut places) = (0, 0, vec![place]);
    while let Some(place) = places.pop() {
        for entry in fs::read_dir(place).into_iter().flatten().flatten() {
            let Ok(found) = entry.metadata() else { continue };
            n_files += 1;
            bytes += found.blocks() * 512;
            if found.is_dir() {
                places.push(entry.path());
            }
        }
    }
    (bytes, n_files)
}
