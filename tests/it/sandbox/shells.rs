//! One shell for all commands of a session, which ends with everything in it.

use std::time::{Duration, Instant};

use bellpull::tool::shell::End;

use super::{World, is_running};
use crate::support::process::until;

#[tokio::test]
async fn state_lasts_from_one_command_to_the_next() {
    let world = World::new().await;
    assert_eq!(
        world.said("pwd; id -un; echo $HOME; hostname").await,
        "/workspace\nagent\n/tmp/home\nsandbox"
    );
    assert_eq!(world.said("mkdir a; cd a; x=1; f() { echo f$x; }").await, "");
    assert_eq!(world.said("pwd; f; declare y=2; continue; echo never").await, "/workspace/a\nf1");
    assert_eq!(world.said("echo $y; cat; read z; echo \"[$z]\"").await, "2\n[]");
    assert_eq!(world.run("sh -c 'exit 7'").await.end, End::Exited(7));
    assert_eq!(world.run("kill -9 $BASHPID &\nwait $!").await.end, End::Exited(137));
    let broken = world.run("echo 'not closed").await;
    assert!(broken.output.contains("unexpected EOF"), "{broken:?}");
    assert_eq!(world.said("exec 2>/dev/null >&2; echo lost").await, "");
    assert_eq!(world.said("echo found; f").await, "found\nf1");
    assert!(world.workspace().join("a").is_dir());
}

#[tokio::test]
async fn what_is_no_text_and_what_is_long_is_answered() {
    let world = World::new().await;
    assert_eq!(world.said("printf 'a\\xff\\xfeb'").await, "a\u{fffd}\u{fffd}b");
    let answer = world.said("seq 1 100000").await;
    assert!(answer.starts_with("1\n2\n") && answer.ends_with("\n99999\n100000"), "{answer}");
    assert!(answer.len() < world.options.answer_bytes_max + 200, "{}", answer.len());
    let name = answer.split("/session/outputs/").nth(1).unwrap().split(']').next().unwrap();
    let whole = std::fs::read_to_string(world.path().join("outputs").join(name)).unwrap();
    assert_eq!(whole.lines().count(), 100_000);
    assert_eq!(world.said("echo still here").await, "still here");
}

#[tokio::test]
async fn a_shell_that_ended_is_begun_anew_and_said_to_be() {
    let world = World::new().await;
    assert!(!world.run("x=1").await.is_anew);
    let ended = world.run("echo bye; exit 5").await;
    assert_eq!((ended.end, ended.output.as_str()), (End::ShellEnded(Some(5)), "bye\n"));
    let anew = world.run("echo \"[$x]\"").await;
    assert!(anew.is_anew && anew.output == "[]\n", "{anew:?}");
    let killed = world.run("kill -9 $$").await;
    assert_eq!(killed.end, End::ShellEnded(Some(137)));
    assert!(world.run("true").await.is_anew);
    assert!(!world.run("true").await.is_anew);
    let mut handle = world.handle().await;
    handle.restart();
    assert!(handle.run("true", Duration::from_secs(10)).await.unwrap().is_anew);
}

#[tokio::test]
async fn a_command_that_takes_too_long_is_killed_with_everything() {
    let world = World::new().await;
    let begun = Instant::now();
    let command = "x=1; (setsid nohup sleep 86401 &) ; echo begun; sleep 86402";
    let ran = world.run_within(command, Duration::from_millis(800)).await;
    assert_eq!(ran.end, End::TimedOut(Duration::from_millis(800)));
    assert_eq!(ran.output, "begun\n");
    until("both are gone", async || {
        (!is_running("sleep 86401") && !is_running("sleep 86402")).then_some(())
    })
    .await;
    assert!(begun.elapsed() < Duration::from_millis(2500), "{:?}", begun.elapsed());
    let next = world.run("echo \"[$x]\"").await;
    assert!(next.is_anew && next.output == "[]\n", "{next:?}");
}

#[tokio::test]
async fn a_command_that_is_dropped_is_killed_with_everything() {
    let world = World::new().await;
    world.run("x=1").await;
    let mut handle = world.handle().await;
    let running =
        handle.run("trap '' TERM HUP; sleep 86403 & sleep 86404", Duration::from_secs(60));
    tokio::select! {
        _ = running => panic!("it does not end"),
        () = until("it runs", async || is_running("sleep 86404").then_some(())) => {}
    }
    drop(handle);
    let dropped = Instant::now();
    until("it is gone", async || {
        (!is_running("sleep 86403") && !is_running("sleep 86404")).then_some(())
    })
    .await;
    assert!(dropped.elapsed() < Duration::from_secs(1), "{:?}", dropped.elapsed());
    assert!(world.run("true").await.is_anew);
}

#[tokio::test]
async fn what_runs_in_the_background_ends_with_the_shell() {
    let world = World::new().await;
    assert_eq!(world.said("sleep 86405 & setsid sleep 86406 & disown -a; echo on").await, "on");
    until("both run", async || {
        (is_running("sleep 86405") && is_running("sleep 86406")).then_some(())
    })
    .await;
    world.handle().await.restart();
    until("both are gone", async || {
        (!is_running("sleep 86405") && !is_running("sleep 86406")).then_some(())
    })
    .await;
}
