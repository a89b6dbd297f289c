//! The sandbox: where every program runs that an agent asks for.
//!
//! `bwrap` gives a program namespaces of its own and a view of this machine that holds the system
//! read-only, a small `/tmp` and one workspace. This binary runs again inside, as the first process of
//! the sandbox and once more before each program ([`inside`]), and sets what `bwrap` does not: limits,
//! Landlock, seccomp, a watch over memory and disk. Whether all of this works on this machine is found
//! out once, by really doing it.
//!
//! Invariants: a program sees nothing of the server: no file, no environment, no process, no network.
//! It is never root for the kernel, whoever the server is, because root owns what is to be read only
//! (`/proc/sys` for one). What is mounted is what was looked at: the first process compares. Nothing
//! outlives its sandbox, and no sandbox outlives the server. Left out: what is run, which is `shell`'s,
//! and ways out, which are `egress`'s.

mod confine;
mod inside;
mod mounts;
mod seccomp;
mod system;
mod watch;

use std::{
    io,
    path::{Path, PathBuf},
    process::{ExitStatus, Stdio},
    sync::Arc,
    time::Duration,
};

use tokio::{
    io::AsyncWriteExt as _,
    process::{Child, ChildStderr, ChildStdin, ChildStdout, Command},
};

pub use self::inside::{enter, this_binary};
use self::{
    inside::{Program, frame},
    system::System,
};
use super::Mount;
use crate::{clock::Clock, domain::access::EXECUTED};

/// Where a sandbox has its workspace, and where its programs begin.
pub const WORKSPACE: &str = super::workspace::ROOT;

/// Where the home directory of a sandbox is: in its `/tmp`, so that it goes with it.
pub const HOME: &str = "/tmp/home";

/// What in a workspace is read-only from inside, where it is there, by the directory that it is in:
/// programs outside the sandbox execute it or take orders from it.
pub const READ_ONLY: [(&str, &[&str]); 3] =
    [("", &EXECUTED), (".git", &["config", "hooks"]), (".hg", &["hgrc"])];

/// How long the look at this machine may take.
const PROBE: Duration = Duration::from_secs(10);

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Mode {
    /// Everything runs in a sandbox, or not at all.
    #[default]
    Auto,
    /// There is no sandbox: programs run as the server itself.
    None,
}

/// Whether there is a sandbox, as whom its programs run, and how much they may use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    pub mode: Mode,
    /// Number of the user that programs run as where the server is root.
    pub user: u32,
    /// Bytes of memory that the processes of one sandbox may have together.
    pub memory_bytes_max: u64,
    /// Processes and threads of one sandbox.
    pub processes_max: u64,
    /// Files that one process may have open.
    pub open_files_max: u64,
    /// Bytes of one file that is written.
    pub file_bytes_max: u64,
    /// Seconds of processor time of one process.
    pub cpu_seconds_max: u64,
    /// Bytes of `/tmp`, and of `/dev/shm`, which are in memory.
    pub tmp_bytes_max: u64,
    /// Bytes by which a workspace may grow while a sandbox is there.
    pub workspace_bytes_max: u64,
    /// Bytes that must stay free on the disk of a workspace.
    pub free_disk_bytes_min: u64,
    /// Further paths of this machine that programs see, read-only.
    pub paths: Vec<PathBuf>,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            mode: Mode::Auto,
            user: 66_000,
            memory_bytes_max: 2 << 30,
            processes_max: 256,
            open_files_max: 4096,
            file_bytes_max: 1 << 30,
            cpu_seconds_max: 3600,
            tmp_bytes_max: 512 << 20,
            workspace_bytes_max: 8 << 30,
            free_disk_bytes_min: 1 << 30,
            paths: Vec::new(),
        }
    }
}

/// What the sandbox is on this machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum State {
    /// It was tried and works; with what beside namespaces and limits.
    Works { with: Vec<&'static str> },
    /// This machine refuses it, and why.
    Refused(String),
    /// The operator switched it off by name.
    Off,
}

impl State {
    /// For people.
    pub fn said(&self) -> String {
        match self {
            State::Works { with } if with.is_empty() => {
                "works, by namespaces and limits".to_owned()
            }
            State::Works { with } => {
                format!("works, by namespaces, limits and {}", with.join(" and "))
            }
            State::Refused(why) => format!("this machine refuses it: {why}"),
            State::Off => {
                "is switched off by `sandbox.mode`: programs run as the server itself".to_owned()
            }
        }
    }
}

#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// There is no sandbox here, and nothing runs without one.
    #[error("this machine has no sandbox for programs: {0}")]
    Refused(String),
    /// This workspace can have none, and what to do about it.
    #[error("{0}")]
    Workspace(String),
    #[error("a program could not be started: {0}")]
    Failed(String),
}

/// One program to run.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Spec {
    /// A directory of this machine; [`WORKSPACE`] inside.
    pub workspace: PathBuf,
    pub writable: bool,
    /// Other directories and files of this machine that it sees.
    pub shown: Vec<Mount>,
    pub program: Vec<String>,
    /// Added to what every program gets, such as `PATH`; nothing of the server's is inherited.
    pub environment: Vec<(String, String)>,
    /// The socket of a proxy: the only way out, if there is one.
    pub network: Option<PathBuf>,
}

/// The sandbox of this machine. Clones share what was found out about it.
#[derive(Clone, Debug)]
pub struct Sandbox(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    options: Options,
    system: System,
    state: State,
}

impl Sandbox {
    /// Finds out what this machine can do. `place` is a directory for the few files that every sandbox
    /// sees, and is made; `program` is the binary that [`enter`] is in, as of [`this_binary`].
    pub async fn open(
        options: Options,
        place: &Path,
        program: Option<PathBuf>,
        clock: &Clock,
    ) -> Sandbox {
        let Some(program) = program else {
            let (system, why) =
                (System::bare(PathBuf::new()), "this binary cannot run again inside");
            let state = State::Refused(why.to_owned());
            return Sandbox(Arc::new(Inner { options, system, state }));
        };
        if options.mode == Mode::None {
            let system = System::bare(program);
            return Sandbox(Arc::new(Inner { options, system, state: State::Off }));
        }
        let (system, missing) = System::look(place, program);
        let refused = |why: String, system, options| {
            Sandbox(Arc::new(Inner { options, system, state: State::Refused(why) }))
        };
        if let Some(why) = missing {
            return refused(why, system, options);
        }
        let state = State::Works { with: Vec::new() };
        let trying = Sandbox(Arc::new(Inner { options: options.clone(), system, state }));
        let found = match clock.timeout(PROBE, trying.probe()).await {
            Ok(found) => found,
            Err(_) => Err(format!("it took longer than {} seconds", PROBE.as_secs())),
        };
        let system = trying.0.system.clone();
        match found {
            Ok(with) => Sandbox(Arc::new(Inner { options, system, state: State::Works { with } })),
            Err(why) => refused(why, system, options),
        }
    }

    pub fn state(&self) -> &State {
        &self.0.state
    }

    pub fn options(&self) -> &Options {
        &self.0.options
    }

    /// Where a workspace of this machine is for programs.
    pub fn inside(&self, workspace: &Path) -> PathBuf {
        match self.0.state {
            State::Off => workspace.to_owned(),
            State::Works { .. } | State::Refused(_) => WORKSPACE.into(),
        }
    }

    /// A path for the socket of a way out; short, as sockets have it.
    pub fn socket(&self, name: &str) -> PathBuf {
        self.0.system.place.join(name)
    }

    /// User and group that a workspace must belong to which the server makes, where it is root.
    pub fn owner(&self) -> Option<(u32, u32)> {
        let as_other = self.0.system.is_root && self.0.state != State::Off;
        as_other.then_some((self.0.options.user, self.0.options.user))
    }

    /// Starts a program. It is killed with everything that it started when what this answers is
    /// dropped.
    pub async fn spawn(&self, spec: &Spec) -> Result<Running, Error> {
        if let State::Refused(why) = &self.0.state {
            return Err(Error::Refused(why.clone()));
        }
        let (mut command, frames) = self.prepare(spec)?;
        command
            .env_clear()
            .env("PATH", system::PATH)
            .process_group(0)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true);
        let failed = |error: io::Error| Error::Failed(error.to_string());
        let mut child = command.spawn().map_err(failed)?;
        let (stdin, stdout, stderr) =
            (child.stdin.take(), child.stdout.take(), child.stderr.take());
        let (Some(mut stdin), Some(stdout), Some(stderr)) = (stdin, stdout, stderr) else {
            return Err(Error::Failed("it has no pipes".to_owned()));
        };
        let group = child.id().and_then(|id| i32::try_from(id).ok());
        let group = group.and_then(rustix::process::Pid::from_raw);
        let mut running = Running { child, group, stdin: None, stdout, stderr };
        stdin.write_all(&frames).await.map_err(failed)?;
        running.stdin = Some(stdin);
        Ok(running)
    }

    fn prepare(&self, spec: &Spec) -> Result<(Command, Vec<u8>), Error> {
        let Inner { options, system, state } = &*self.0;
        let limits = options.into();
        let mut program = Program {
            directory: self.inside(&spec.workspace),
            arguments: spec.program.clone(),
            environment: system::environment(spec, *state == State::Off),
            limits,
            writable: None,
        };
        if *state == State::Off {
            let mut command = Command::new(&system.program);
            command.args([inside::ENTRY, inside::PROGRAM]);
            return Ok((command, frame(&program)));
        }
        let mut writable: Vec<PathBuf> = vec!["/tmp".into(), "/dev".into(), "/proc".into()];
        writable.extend(spec.writable.then(|| WORKSPACE.into()));
        writable.extend(spec.shown.iter().filter(|it| it.writable).map(|it| it.shown_at.clone()));
        program.writable = Some(writable);
        let mounted = mounts::mount(system, options, spec)?;
        let mut frames = frame(&inside::First {
            version: inside::VERSION.to_owned(),
            expected: mounted.expected,
            memory_bytes_max: options.memory_bytes_max,
            workspace_bytes_max: spec.writable.then_some(options.workspace_bytes_max),
            free_disk_bytes_min: spec.writable.then_some(options.free_disk_bytes_min),
            has_network: spec.network.is_some(),
        });
        frames.extend(frame(&program));
        let mut command = Command::new(&mounted.command[0]);
        command.args(&mounted.command[1..]);
        Ok((command, frames))
    }

    /// Really runs a program in a sandbox, which tells what it could put around itself.
    async fn probe(&self) -> Result<Vec<&'static str>, String> {
        let inner = &*self.0;
        let workspace = inner.system.place.join("probe");
        system::make_directory(&workspace, self.owner()).map_err(|error| error.to_string())?;
        let program = vec![inside::WITHIN.to_owned(), inside::ENTRY.into(), inside::TELL.into()];
        let spec = Spec { workspace, program, ..Spec::default() };
        let running = self.spawn(&spec).await.map_err(|error| error.to_string())?;
        let ended = running.output().await.map_err(|error| error.to_string())?;
        if !ended.status.success() {
            return Err(system::explain(&ended.said()));
        }
        let told = String::from_utf8_lossy(&ended.stdout).into_owned();
        Ok(["seccomp", "Landlock"].into_iter().filter(|it| told.contains(it)).collect())
    }
}

/// A program in its sandbox.
#[derive(Debug)]
pub struct Running {
    child: Child,
    group: Option<rustix::process::Pid>,
    /// Closed by whoever takes it and drops it.
    pub stdin: Option<ChildStdin>,
    pub stdout: ChildStdout,
    pub stderr: ChildStderr,
}

/// What a program left behind.
#[derive(Debug)]
pub struct Ended {
    pub status: ExitStatus,
    pub stdout: Vec<u8>,
    pub stderr: Vec<u8>,
}

impl Ended {
    fn said(&self) -> String {
        let text = String::from_utf8_lossy(&self.stderr);
        if text.trim().is_empty() { self.status.to_string() } else { text.trim().to_owned() }
    }
}

/// Bytes of each stream that [`Running::output`] keeps.
const OUTPUT_BYTES_MAX: u64 = 1 << 20;

impl Running {
    /// Kills the program and everything that it started.
    pub fn kill(&mut self) {
        // The first process of a sandbox goes with `bwrap`, and everything in it with that.
        if let Some(group) = self.group.take()
            && self.child.id().is_some()
        {
            let _ = rustix::process::kill_process_group(group, rustix::process::Signal::KILL);
        }
        let _ = self.child.start_kill();
    }

    /// Until it ended.
    pub async fn wait(&mut self) -> io::Result<ExitStatus> {
        self.child.wait().await
    }

    /// Gives it nothing, and keeps the beginning of what it says until it ends.
    pub async fn output(mut self) -> io::Result<Ended> {
        use tokio::io::AsyncReadExt as _;
        self.stdin = None;
        let (mut stdout, mut stderr) = (Vec::new(), Vec::new());
        let mut out = (&mut self.stdout).take(OUTPUT_BYTES_MAX);
        let mut err = (&mut self.stderr).take(OUTPUT_BYTES_MAX);
        tokio::try_join!(out.read_to_end(&mut stdout), err.read_to_end(&mut stderr))?;
        let status = self.child.wait().await?;
        Ok(Ended { status, stdout, stderr })
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.kill();
    }
}
