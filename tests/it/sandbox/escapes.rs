//! Ways out, each one really tried from inside.

use std::{net::TcpListener, time::Duration};

use super::{World, is_running};
use crate::support::process::until;

/// A secret of the server, in the places where servers have theirs.
const SECRET: &str = "s3cr3t-of-the-server";

#[tokio::test]
async fn files_of_the_machine_and_of_the_server_are_not_there() {
    let world = World::new().await;
    let data = world.path().join("data");
    std::fs::create_dir(&data).unwrap();
    std::fs::write(data.join("admin.key"), SECRET).unwrap();
    let (data, home) = (data.display(), world.path().display());
    for path in [
        "/etc/shadow",
        "/etc/ssh",
        "/etc/machine-id",
        "/root",
        "/home",
        "/var",
        "/sys",
        "/boot",
        "/run/systemd",
        "/run/docker.sock",
        "/var/run/docker.sock",
        "/dev/kmsg",
        "/dev/mem",
        "/dev/vda",
        &format!("{data}/admin.key"),
        &format!("{home}"),
        &format!("/proc/1/root{data}/admin.key"),
        &format!("/proc/self/root/../..{data}/admin.key"),
        &format!("/proc/1/cwd/../..{data}/admin.key"),
    ] {
        let said = world.said(&format!("ls -d {path} 2>&1; cat {path} 2>&1")).await;
        let is_absent = said.contains("No such file") || said.contains("Permission denied");
        assert!(is_absent && !said.contains(SECRET), "{path}: {said}");
    }
    let users = world.said("cat /etc/passwd").await;
    assert!(users.lines().count() == 2 && !users.contains("root"), "{users}");
    let found = world.said(&format!("grep -rlI {SECRET} / --exclude-dir=proc 2>/dev/null")).await;
    assert_eq!(found, "");
}

#[tokio::test]
async fn processes_of_the_machine_are_not_there() {
    let world = World::new().await;
    let server = std::process::id();
    let pids = world.said("ls /proc | grep -E '^[0-9]+$' | wc -l").await;
    assert!(pids.parse::<u32>().unwrap() < 10, "{pids}");
    for what in ["environ", "mem", "maps", "fd", "root", "cwd", "ns/mnt"] {
        for pid in ["1", &server.to_string()] {
            let path = format!("/proc/{pid}/{what}");
            let said = world
                .said(&format!("head -c1 {path} 2>&1; ls {path} 2>&1; readlink {path}; true"))
                .await;
            let is_refused = said.contains("No such file")
                || said.contains("Permission denied")
                || said.contains("cannot open");
            // A number of this namespace may be one of that.
            let is_own =
                pid != "1" && !world.said(&format!("cat /proc/{pid}/comm")).await.is_empty();
            assert!(is_refused || is_own, "{path}: {said}");
        }
    }
    assert_eq!(world.said("kill -9 1; kill -STOP 1; kill -TERM 1; echo alive").await, "alive");
    assert_eq!(world.said("echo still").await, "still");
    let parent = world.run(&format!("kill -9 {server}")).await;
    assert_ne!(parent.end, bellpull::tool::shell::End::Exited(0));
}

#[tokio::test]
async fn the_environment_is_made_anew() {
    let mut world = World::new().await;
    world.environment = vec![("TOKEN".to_owned(), "for the agent".to_owned())];
    let said = world
        .said("env; cat /proc/*/environ | tr '\\0' '\\n'; cat /proc/*/cmdline | tr '\\0' ' '")
        .await;
    for name in ["CARGO", "NEXTEST", "BELLPULL_TEST", "HOSTNAME=", "SSH_", "RUST_"] {
        assert!(!said.contains(name), "{name}: {said}");
    }
    assert!(said.contains("TOKEN=for the agent"), "{said}");
    // What an environment makes loaders do is done inside, under all limits, and by nobody outside.
    world.environment = vec![
        ("LD_PRELOAD".to_owned(), "/workspace/evil.so".to_owned()),
        ("BASH_ENV".to_owned(), "/workspace/evil.sh".to_owned()),
    ];
    world.write("evil.sh", "touch /workspace/ran; cat /etc/shadow > /workspace/out 2>&1\n");
    let said = world.said("echo on 2>/dev/null; cat out; grep NoNewPrivs /proc/self/status").await;
    assert!(said.contains("NoNewPrivs:\t1") && !said.contains("root:"), "{said}");
}

#[tokio::test]
async fn nothing_outside_the_workspace_is_written() {
    let world = World::new().await;
    for path in [
        "/x",
        "/usr/x",
        "/usr/bin/env",
        "/bin/x",
        "/etc/passwd",
        "/etc/x",
        "/etc/ld.so.cache",
        "/dev/x",
        "/run/bellpull/inside",
        "/proc/sys/kernel/core_pattern",
        "/proc/sys/kernel/modprobe",
        "/proc/sys/vm/overcommit_memory",
        "/proc/sysrq-trigger",
        "/proc/1/oom_score_adj",
        "/proc/1/comm",
    ] {
        let before = std::fs::read(path).ok();
        let ran = world
            .run(&format!("(echo 1 >> {path}) 2>&1 || (rm -f {path}; mv /tmp {path}) 2>&1"))
            .await;
        assert_ne!(ran.end, bellpull::tool::shell::End::Exited(0), "{path}: {ran:?}");
        assert_eq!(before, std::fs::read(path).ok(), "{path}");
    }
    // A link out of the workspace leads to a place of the sandbox, if to any.
    let outside = world.path().join("outside");
    std::fs::write(&outside, SECRET).unwrap();
    std::os::unix::fs::symlink(&outside, world.workspace().join("link")).unwrap();
    std::os::unix::fs::symlink(world.path(), world.workspace().join("up")).unwrap();
    let said = world
        .said("cat link up/outside; echo changed > link; echo new > up/new; cat ../outside")
        .await;
    assert!(!said.contains(SECRET), "{said}");
    assert_eq!(std::fs::read_to_string(&outside).unwrap(), SECRET);
    assert!(!world.path().join("new").exists());
    let said =
        world.said("ln link hard; ln -s / root; cat root/etc/shadow; mount --bind / up").await;
    assert!(!said.contains("root:"), "{said}");
}

#[tokio::test]
async fn other_workspaces_are_not_there() {
    let world = World::new().await;
    let other = world.path().join("other");
    std::fs::create_dir(&other).unwrap();
    std::fs::write(other.join("notes"), SECRET).unwrap();
    world.give(&other);
    let path = other.display();
    let said =
        world.said(&format!("cat {path}/notes; ls ..; ls /workspace/..; cat ../other/notes")).await;
    assert!(!said.contains(SECRET) && !said.contains("other\n"), "{said}");
    let said = world.said(&format!("echo mine > {path}/notes; mkdir -p {path}; true")).await;
    assert_eq!(std::fs::read_to_string(other.join("notes")).unwrap(), SECRET, "{said}");
    // A workspace that is only read is not written.
    let mut handle = world.handle().await;
    handle.spec.writable = false;
    let ran =
        handle.run("echo x > new || rm -rf /workspace", Duration::from_secs(10)).await.unwrap();
    assert_ne!(ran.end, bellpull::tool::shell::End::Exited(0), "{ran:?}");
    assert!(!world.workspace().join("new").exists());
}

#[tokio::test]
async fn there_is_no_network() {
    let world = World::new().await;
    let listener = TcpListener::bind("0.0.0.0:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    let port = listener.local_addr().unwrap().port();
    let own = world
        .said(
            "ls /sys/class/net 2>/dev/null; cat /proc/net/route | wc -l; tail -n +3 /proc/net/dev",
        )
        .await;
    assert!(own.contains("lo:") && !own.contains("eth"), "{own}");
    for (host, port) in [
        ("127.0.0.1", port),
        ("169.254.169.254", 80),
        ("10.0.0.1", 443),
        ("1.1.1.1", 443),
        ("8.8.8.8", 53),
        ("localhost", port),
    ] {
        let connect = format!("timeout 5 bash -c '</dev/tcp/{host}/{port}' 2>&1");
        let said = world.said(&connect).await;
        let refused = ["unreachable", "refused", "resolve", "not known"];
        assert!(refused.iter().any(|it| said.contains(it)), "{host}: {said}");
        let said = world
            .said(&format!("timeout 5 bash -c 'echo x >/dev/udp/{host}/{port}' 2>&1; true"))
            .await;
        assert!(
            host.ends_with("1") || host == "localhost" || said.contains("unreachable"),
            "{host}: {said}"
        );
    }
    assert!(listener.accept().is_err(), "nobody came");
    // Sockets that no namespace holds back, and abstract ones of this machine.
    let python = "import socket\nfor f in (40, 38, 17, 31):\n  try: socket.socket(f, socket.SOCK_STREAM if f == 40 else socket.SOCK_RAW); print('made', f)\n  except OSError as e: print(e.errno)";
    if !world.said("command -v python3").await.is_empty() {
        let said = world.said(&format!("python3 -c \"{python}\"")).await;
        assert!(!said.contains("made") && said.lines().count() == 4, "{said}");
    }
}

#[tokio::test]
async fn what_others_execute_is_not_written() {
    let world = World::new().await;
    world.write(".git/config", "[core]\n");
    world.write(".git/HEAD", "ref: refs/heads/main\n");
    world.write(".git/hooks/pre-commit", "#!/bin/sh\n");
    world.write(".envrc", "export A=1\n");
    world.write(".vscode/tasks.json", "{}\n");
    world.write("work.txt", "x\n");
    for attempt in [
        "echo evil >> .git/hooks/pre-commit",
        "echo evil > .git/hooks/post-checkout",
        "rm -rf .git/hooks",
        "mv .git/hooks .git/old && mkdir .git/hooks",
        "mv .git old && mkdir .git",
        "rm -rf .git; mkdir -p .git/hooks && echo evil > .git/hooks/pre-commit",
        "ln -sfn /tmp .git/hooks",
        "mount --bind /tmp .git/hooks",
        "umount .git/hooks && echo evil > .git/hooks/pre-commit",
        "git config core.fsmonitor evil",
        "git config core.hooksPath /workspace/evil",
        "echo evil >> .git/config",
        "chmod u+w .git/config && echo evil > .git/config",
        "echo evil > .envrc",
        "echo evil > .vscode/tasks.json",
        "mv .vscode other",
    ] {
        let ran = world.run(&format!("cd /workspace; ({attempt}) 2>&1")).await;
        assert_ne!(ran.end, bellpull::tool::shell::End::Exited(0), "{attempt}: {ran:?}");
    }
    let text = |path: &str| std::fs::read_to_string(world.workspace().join(path)).unwrap();
    assert_eq!(text(".git/config"), "[core]\n");
    assert_eq!(text(".git/hooks/pre-commit"), "#!/bin/sh\n");
    assert_eq!(text(".envrc"), "export A=1\n");
    assert_eq!(text(".vscode/tasks.json"), "{}\n");
    let hooks = std::fs::read_dir(world.workspace().join(".git/hooks")).unwrap().count();
    assert_eq!(hooks, 1);
    // The repository itself is worked with.
    assert_eq!(
        world.said("echo new > work.txt; echo x > .git/description; cat .git/description").await,
        "x"
    );
}

#[tokio::test]
async fn a_repository_is_worked_with_and_gets_no_hooks() {
    let world = World::new().await;
    let git = |arguments: &[&str]| {
        let mut command = std::process::Command::new("git");
        let status = command.args(arguments).current_dir(world.workspace()).status().unwrap();
        assert!(status.success(), "{arguments:?}");
    };
    git(&["init", "-q"]);
    std::fs::remove_dir_all(world.workspace().join(".git/hooks")).unwrap();
    world.write("a", "1\n");
    let said = world
        .said("git add a && git commit -qm one && git log --oneline | wc -l && git status -s")
        .await;
    assert_eq!(said, "1", "{said}");
    let ran = world.run("mkdir -p .git/hooks; echo evil > .git/hooks/pre-push").await;
    assert_ne!(ran.end, bellpull::tool::shell::End::Exited(0));
    assert_eq!(std::fs::read_dir(world.workspace().join(".git/hooks")).unwrap().count(), 0);
}

#[tokio::test]
async fn a_link_in_the_place_of_a_repository_is_not_followed() {
    let world = World::new().await;
    let secret = world.path().join("secret");
    std::fs::create_dir(&secret).unwrap();
    std::fs::write(secret.join("config"), SECRET).unwrap();
    std::os::unix::fs::symlink(&secret, world.workspace().join(".git")).unwrap();
    let refused = world.handle().await.run("cat .git/config", Duration::from_secs(10)).await;
    let refused = refused.unwrap_err().to_string();
    assert!(refused.contains(".git: it is a symbolic link"), "{refused}");
}

#[tokio::test]
async fn the_kernel_is_asked_for_nothing_unusual() {
    let world = World::new().await;
    for attempt in [
        "unshare -U true",
        "unshare -r true",
        "unshare -n true",
        "unshare -m true",
        "nsenter -t 1 -m true",
        "mount -t tmpfs tmpfs /tmp",
        "mount -t proc proc /tmp",
        "mount -o remount,rw /usr",
        "umount /usr",
        "umount -l /workspace",
        "chroot / true",
        "mknod /tmp/sda b 8 0",
        "dmesg",
        "hostname other",
        "renice -n -5 $$",
        "chown 0:0 /workspace",
        "su -c true",
        "sudo -n true",
        "passwd -d agent",
        "sysctl -w kernel.core_pattern=x",
    ] {
        let ran = world.run(&format!("{attempt} 2>&1 </dev/null")).await;
        assert_ne!(ran.end, bellpull::tool::shell::End::Exited(0), "{attempt}: {ran:?}");
    }
    let status = world.said("grep -E '^(Cap|NoNew|Seccomp:|Uid)' /proc/self/status").await;
    for line in status.lines().filter(|line| line.starts_with("Cap")) {
        assert!(line.ends_with("0000000000000000"), "{status}");
    }
    assert!(status.contains("NoNewPrivs:\t1") && status.contains("Seccomp:\t2"), "{status}");
    assert!(status.contains("Uid:\t1000\t1000\t1000\t1000"), "{status}");
}

/// Really asks, where Python is there to do so.
#[tokio::test]
async fn calls_are_refused_one_by_one() {
    let world = World::new().await;
    if world.said("command -v python3").await.is_empty() {
        return;
    }
    world.write(
        "ask.py",
        "import ctypes, os\n\
         libc = ctypes.CDLL(None, use_errno=True)\n\
         import platform\n\
         assert platform.machine() == 'x86_64', 'other numbers'\n\
         calls = dict(ptrace=101, unshare=272, setns=308, mount=165, clone3=435, bpf=321, keyctl=250,\n\
           process_vm_readv=310, userfaultfd=323, perf_event_open=298, io_uring_setup=425,\n\
           memfd_create=319, open_by_handle_at=304, kexec_load=246, x32_ptrace=0x40000000 + 101)\n\
         for name, number in calls.items():\n\
         \x20   ctypes.set_errno(0)\n\
         \x20   answer = libc.syscall(number, 0, 0, 0, 0, 0, 0)\n\
         \x20   print(name, answer, ctypes.get_errno())\n",
    );
    if std::env::consts::ARCH != "x86_64" {
        return;
    }
    let said = world.said("python3 ask.py").await;
    assert_eq!(said.lines().count(), 15, "{said}");
    for line in said.lines() {
        assert!(line.ends_with(" -1 1") || line.ends_with(" -1 38"), "{line}");
    }
}

#[tokio::test]
async fn setuid_programs_are_plain_ones() {
    let world = World::new().await;
    let said = world.said("find / -xdev -perm -4000 -type f 2>/dev/null | head -3; awk '$2 != \"/proc\" && $4 !~ /nosuid/' /proc/mounts").await;
    assert!(!said.contains("rw,"), "every mount is nosuid: {said}");
    assert_eq!(world.said("cp /bin/id /tmp/id; chmod 4755 /tmp/id; /tmp/id -u").await, "1000");
}

#[tokio::test]
async fn a_sandbox_ends_with_its_server() {
    let world = World::new().await;
    world.run("sleep 86407 &").await;
    until("it runs", async || is_running("sleep 86407").then_some(())).await;
    drop(world);
    until("it is gone", async || (!is_running("sleep 86407")).then_some(())).await;
}
