//! What one sandbox may use, and that everybody else goes on.

use std::time::{Duration, Instant};

use bellpull::tool::{sandbox::Options, shell::End};

use super::{World, is_running};
use crate::support::{disk::SmallDisk, process::until};

fn options() -> Options {
    Options { memory_bytes_max: 256 << 20, processes_max: 64, ..Options::default() }
}

#[tokio::test]
async fn a_fork_bomb_is_held() {
    let world = World::with(options()).await;
    let bomb = "f() { f | f & }; f 2>/dev/null; wait; ls /proc | grep -cE '^[0-9]+$'";
    let ran = world.run_within(bomb, Duration::from_secs(3)).await;
    let held = matches!(ran.end, End::TimedOut(_) | End::ShellEnded(_))
        || ran.output.trim().parse::<u32>().is_ok_and(|n| n <= 80);
    assert!(held, "{ran:?}");
    assert_eq!(world.said("echo again").await, "again");
    let many = world
        .said("for i in $(seq 200); do sleep 5 & done 2>/dev/null; ls /proc | grep -cE '^[0-9]+$'")
        .await;
    let many = many.lines().last().unwrap_or("0").to_owned();
    assert!(many.parse::<u32>().is_ok_and(|n| n <= 66) || many.contains("Resource"), "{many}");
}

#[tokio::test]
async fn a_memory_bomb_is_held() {
    let world = World::with(options()).await;
    // One process: its own limit. `tail` keeps what has no line.
    let ran = world.run_within("tail -n 1 /dev/zero | wc -c", Duration::from_secs(30)).await;
    assert!(ran.output.contains("memory") || matches!(ran.end, End::ShellEnded(_)), "{ran:?}");
    // Many, each within its own: together they are too much.
    let many = "for i in 1 2 3 4 5; do (head -c 100M /dev/zero | tail -n 1 | sleep 20) & done; \
        for i in 1 2 3 4 5; do { x=$(head -c 90M /dev/zero | tr '\\0' x); sleep 20; } & done; wait";
    let ran = world.run_within(many, Duration::from_secs(40)).await;
    assert_eq!(ran.end, End::ShellEnded(Some(241)), "{ran:?}");
    assert!(ran.output.contains("took more than 256 MiB of memory"), "{ran:?}");
    assert!(world.run("echo again").await.is_anew);
}

#[tokio::test]
async fn memory_without_a_process_is_held() {
    let world = World::with(Options { tmp_bytes_max: 8 << 20, ..options() }).await;
    for place in ["/tmp/x", "/dev/shm/x"] {
        let said = world
            .said(&format!(
                "{{ head -c 64M /dev/zero > {place}; }} 2>&1; stat -c %s {place}; rm {place}"
            ))
            .await;
        assert!(said.contains("No space left"), "{place}: {said}");
    }
}

#[tokio::test]
async fn a_file_and_a_workspace_have_a_size() {
    let limits = Options { file_bytes_max: 4 << 20, workspace_bytes_max: 16 << 20, ..options() };
    let world = World::with(limits).await;
    let ran = world.run("head -c 64M /dev/zero > big; stat -c %s big").await;
    assert!(ran.output.contains(&(4 << 20).to_string()), "{ran:?}");
    let fill = "i=0; while :; do head -c 4M /dev/zero > f$i; i=$((i + 1)); sleep 0.2; done";
    let ran = world.run_within(fill, Duration::from_secs(30)).await;
    assert_eq!(ran.end, End::ShellEnded(Some(241)), "{ran:?}");
    assert!(ran.output.contains("its workspace grew by more than 16 MiB"), "{ran:?}");
}

#[tokio::test]
async fn a_disk_is_not_filled() {
    let test = "sandbox::limits::a_disk_is_not_filled";
    let Some(disk) = SmallDisk::mount(test, 64 << 20) else { return };
    let limits = Options { free_disk_bytes_min: 16 << 20, ..options() };
    let directory = tempfile::tempdir_in(disk.path()).unwrap();
    let world = World::at(directory, limits).await;
    let fill = "i=0; while :; do head -c 1M /dev/zero > f$i; i=$((i + 1)); sleep 0.05; done";
    let ran = world.run_within(fill, Duration::from_secs(30)).await;
    assert!(ran.output.contains("less than 16 MiB are free on the disk"), "{ran:?}");
    let stat = rustix::fs::statvfs(disk.path()).unwrap();
    assert!(stat.f_bavail * stat.f_frsize > 4 << 20, "others have room left");
}

#[tokio::test]
async fn processor_time_is_bounded() {
    let world = World::with(Options { cpu_seconds_max: 1, ..options() }).await;
    let begun = Instant::now();
    let ran = world.run_within("sh -c 'while :; do :; done'", Duration::from_secs(30)).await;
    assert_eq!(ran.end, End::Exited(137), "{ran:?}");
    assert!(begun.elapsed() < Duration::from_secs(20));
}

#[tokio::test]
async fn output_without_end_is_ended() {
    let mut world = World::with(options()).await;
    world.options.output_bytes_max = 2 << 20;
    let ran = world.run("yes").await;
    assert_eq!(ran.end, End::TooLoud(2 << 20));
    assert!(ran.output.len() < world.options.answer_bytes_max + 200);
    assert!(ran.output.starts_with("y\ny\n"), "{}", &ran.output[..20]);
    let kept: u64 = std::fs::read_dir(world.path().join("outputs"))
        .unwrap()
        .map(|it| it.unwrap().metadata().unwrap().len())
        .sum();
    assert!(kept < 3 << 20, "{kept}");
    assert!(world.run("echo again").await.is_anew);
}

/// Whoever fills the pipe that says why keeps nobody from ending the sandbox.
#[tokio::test]
async fn the_watch_is_not_held_up_by_output_that_nobody_reads() {
    let world = World::with(options()).await;
    let bomb = "sleep 86414 & { sleep 0.5; yes; } & for i in 1 2 3 4 5; do \
        { sleep 1.5; x=$(head -c 90M /dev/zero | tr '\\0' x); sleep 60; } & done";
    assert_eq!(world.run(bomb).await.end, End::Exited(0));
    until("it was begun", async || is_running("sleep 86414").then_some(())).await;
    until("it was ended", async || (!is_running("sleep 86414")).then_some(())).await;
}
