//! This binary inside a sandbox: its first process, and what comes right before each program.
//!
//! What to do is read from standard input, in frames of a length and JSON, so that no secret is ever an
//! argument; what follows the frames is the program's. The first process stays: it takes in orphans,
//! watches memory and disk, forwards to the proxy, and everything ends with it. Nobody inside can
//! signal it or look into it. Left out: namespaces and mounts, which are `bwrap`'s.

use std::{
    ffi::OsString,
    io::{self, Write as _},
    os::unix::{fs::MetadataExt as _, process::CommandExt as _},
    path::PathBuf,
    process::{Command, ExitCode, Stdio},
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use rustix::{
    event::{PollFd, PollFlags},
    process::{DumpableBehavior, Resource, Rlimit, WaitOptions},
};
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use super::{Options, confine, watch};

/// The first argument of this binary inside; the second one says what it is there.
pub(super) const ENTRY: &str = "__inside";
/// Becomes another user and goes on.
pub(super) const USER: &str = "user";
/// The first process.
pub(super) const FIRST: &str = "first";
/// Sets the limits and becomes a program.
pub(super) const PROGRAM: &str = "program";
/// Says what could be set.
pub(super) const TELL: &str = "tell";

/// Where this binary is inside.
pub(super) const WITHIN: &str = "/run/bellpull/inside";
/// Where the proxy's socket is inside, and the port under which programs reach it.
pub(super) const PROXY: &str = "/run/bellpull/proxy";
pub(super) const PROXY_PORT: u16 = 3128;

/// Both sides of a frame are of one build: a binary that was replaced under a running server is not.
pub(super) const VERSION: &str = env!("CARGO_PKG_VERSION");

/// How the first process ends when it is not the program's end.
const BROKEN: u8 = 240;
const BREACHED: u8 = 241;

/// No frame is larger: arguments and environment have a bound of their own in the kernel.
const FRAME_BYTES_MAX: usize = 8 << 20;

/// Programs get less of the processor than the server, and than the first process.
const NICE: i32 = 10;

/// What must be where.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Expected {
    pub(super) at: PathBuf,
    pub(super) device: u64,
    pub(super) inode: u64,
}

/// For the first process.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct First {
    pub(super) version: String,
    pub(super) expected: Vec<Expected>,
    pub(super) memory_bytes_max: u64,
    /// By how much the workspace may grow, where it may be written.
    pub(super) workspace_bytes_max: Option<u64>,
    pub(super) free_disk_bytes_min: Option<u64>,
    pub(super) has_network: bool,
}

/// For the process that becomes the program.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Program {
    pub(super) directory: PathBuf,
    pub(super) arguments: Vec<String>,
    pub(super) environment: Vec<(String, String)>,
    pub(super) limits: Limits,
    /// What it may write at all; `None` outside a sandbox.
    pub(super) writable: Option<Vec<PathBuf>>,
}

#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(super) struct Limits {
    memory_bytes: u64,
    processes: u64,
    open_files: u64,
    file_bytes: u64,
    cpu_seconds: u64,
}

impl From<&Options> for Limits {
    fn from(options: &Options) -> Limits {
        Limits {
            memory_bytes: options.memory_bytes_max,
            processes: options.processes_max,
            open_files: options.open_files_max,
            file_bytes: options.file_bytes_max,
            cpu_seconds: options.cpu_seconds_max,
        }
    }
}

pub(super) fn frame(value: &impl Serialize) -> Vec<u8> {
    let json = serde_json::to_vec(value).expect("it is made of texts and numbers");
    let length = u32::try_from(json.len()).expect("its texts are bounded");
    [&length.to_be_bytes()[..], &json].concat()
}

/// The next frame, and not a byte more: what follows is somebody else's.
fn read<T: DeserializeOwned>() -> io::Result<T> {
    let mut length = [0; 4];
    read_exactly(&mut length)?;
    let length = u32::from_be_bytes(length) as usize;
    if length > FRAME_BYTES_MAX {
        return Err(io::Error::other("a frame is too large"));
    }
    let mut json = vec![0; length];
    read_exactly(&mut json)?;
    serde_json::from_slice(&json).map_err(io::Error::other)
}

fn read_exactly(mut buffer: &mut [u8]) -> io::Result<()> {
    let stdin = rustix::stdio::stdin();
    while !buffer.is_empty() {
        match rustix::io::read(stdin, &mut *buffer) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(n) => buffer = &mut buffer[n..],
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

/// Whether this binary looks at its arguments for what it is.
static OFFERED: AtomicBool = AtomicBool::new(false);

/// This binary, if it can be run again inside a sandbox: one that this crate is only linked into would
/// do something else there.
pub fn this_binary() -> Option<PathBuf> {
    let is_offered = OFFERED.load(Ordering::Relaxed);
    is_offered.then(|| std::env::current_exe().ok()).flatten()
}

/// What this process is inside a sandbox, if these arguments say so. To be asked before anything else
/// is done.
pub fn enter(arguments: impl Iterator<Item = OsString>) -> Option<ExitCode> {
    OFFERED.store(true, Ordering::Relaxed);
    let mut arguments = arguments.skip(1);
    if arguments.next()? != ENTRY {
        return None;
    }
    let stage = arguments.next().unwrap_or_default();
    let result = match stage.to_str() {
        Some(USER) => become_user(arguments),
        Some(FIRST) => first(),
        Some(PROGRAM) => program(),
        Some(TELL) => tell(),
        _ => Err(io::Error::other("this command is for the sandbox alone")),
    };
    Some(result.unwrap_or_else(|error| {
        say(&format!("the sandbox could not be set up: {error}"));
        ExitCode::from(BROKEN)
    }))
}

/// To whoever reads what the program says.
fn say(text: &str) {
    let _ = writeln!(io::stderr(), "[bellpull: {text}]");
}

/// How long saying why may take: programs may have filled the pipe, and nobody may read it now.
const SAYING: Duration = Duration::from_millis(200);

/// Ends the sandbox, and says why.
pub(super) fn breach(why: &str) -> ! {
    let text = format!("{why}; everything in the sandbox was ended");
    let (said, heard) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        say(&text);
        let _ = said.send(());
    });
    let _ = heard.recv_timeout(SAYING);
    std::process::exit(BREACHED.into())
}

fn become_user(mut arguments: impl Iterator<Item = OsString>) -> io::Result<ExitCode> {
    let mut number = || arguments.next()?.to_str()?.parse::<u32>().ok();
    let (Some(user), Some(group)) = (number(), number()) else {
        return Err(io::Error::other("no user"));
    };
    let program = arguments.next().ok_or_else(|| io::Error::other("no program"))?;
    // Leaves root's other groups, too.
    Err(Command::new(program).args(arguments).uid(user).gid(group).exec())
}

fn first() -> io::Result<ExitCode> {
    let first: First = read()?;
    if first.version != VERSION {
        return Err(io::Error::other(
            "the server's binary was replaced while it runs; restart the server",
        ));
    }
    for expected in &first.expected {
        let found = std::fs::symlink_metadata(&expected.at)?;
        if (found.dev(), found.ino()) != (expected.device, expected.inode) {
            let at = expected.at.display();
            return Err(io::Error::other(format!("{at} was exchanged while it was mounted")));
        }
    }
    rustix::process::set_dumpable_behavior(DumpableBehavior::NotDumpable)?;
    std::fs::create_dir_all(super::HOME)?;
    if first.has_network {
        crate::tool::egress::forward(PROXY, PROXY_PORT)?;
    }
    let child = Command::new(WITHIN).args([ENTRY, PROGRAM]).spawn()?;
    let child = i32::try_from(child.id()).map_err(io::Error::other)?;
    // From here on the program alone holds its input: it sees the end of it.
    rustix::stdio::dup2_stdin(std::fs::File::open("/dev/null")?)?;
    rustix::stdio::dup2_stdout(std::fs::File::options().write(true).open("/dev/null")?)?;
    std::thread::spawn(move || {
        let why = watch::watch(&first);
        breach(&why)
    });
    std::thread::spawn(end_with_the_server);
    loop {
        // Orphans of the sandbox end up here as well.
        let Some((pid, status)) = rustix::process::wait(WaitOptions::empty())? else { continue };
        if pid.as_raw_nonzero().get() == child {
            let code = status.exit_status().or(status.terminating_signal().map(|it| 128 + it));
            return Ok(ExitCode::from(code.and_then(|it| u8::try_from(it).ok()).unwrap_or(BROKEN)));
        }
    }
}

/// Nobody reads any more what is said here: whoever started the sandbox is gone, perhaps by `kill -9`.
/// `bwrap` would go with it, but where it runs as another user than its parent the kernel does not let
/// that one's death kill it.
fn end_with_the_server() {
    let stderr = rustix::stdio::stderr();
    loop {
        // No events: that its other end is gone is told of in any case.
        let mut polled = [PollFd::new(&stderr, PollFlags::empty())];
        match rustix::event::poll(&mut polled, None) {
            Ok(_) => std::process::exit(i32::from(BROKEN)),
            Err(rustix::io::Errno::INTR) => {}
            Err(_) => return,
        }
    }
}

fn program() -> io::Result<ExitCode> {
    let program: Program = read()?;
    // What suits the server need not suit a program.
    let _ = rustix::thread::disable_transparent_huge_pages(false);
    let set = |resource, n: u64| {
        // No more than whoever started the server has allowed it.
        let n = rustix::process::getrlimit(resource).maximum.map_or(n, |maximum| maximum.min(n));
        let limit = Rlimit { current: Some(n), maximum: Some(n) };
        rustix::process::setrlimit(resource, limit)
    };
    let limits = &program.limits;
    // Address space would be the stricter one, and much that only reserves it would not start.
    set(Resource::Data, limits.memory_bytes)?;
    // Outside of a sandbox it would count everything else of this user, too.
    if program.writable.is_some() {
        set(Resource::Nproc, limits.processes)?;
    }
    set(Resource::Nofile, limits.open_files)?;
    set(Resource::Fsize, limits.file_bytes)?;
    set(Resource::Cpu, limits.cpu_seconds)?;
    set(Resource::Core, 0)?;
    let _ = rustix::process::nice(NICE);
    rustix::process::chdir(&program.directory)?;
    if let Some(writable) = &program.writable {
        confine::confine(writable).map_err(io::Error::other)?;
    }
    let [name, arguments @ ..] = &program.arguments[..] else {
        return Err(io::Error::other("no program"));
    };
    let error = Command::new(name)
        .args(arguments)
        .env_clear()
        .envs(program.environment.iter().map(|(name, value)| (name, value)))
        .stdin(Stdio::inherit())
        .exec();
    Err(io::Error::new(error.kind(), format!("`{name}` cannot be run: {error}")))
}

/// By now this process itself has been confined.
fn tell() -> io::Result<ExitCode> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let has_seccomp = status.lines().any(|line| line == "Seccomp:\t2");
    let landlock = confine::has_landlock();
    let mut out = io::stdout();
    writeln!(
        out,
        "{} {}",
        if has_seccomp { "seccomp" } else { "" },
        if landlock { "Landlock" } else { "" }
    )?;
    Ok(ExitCode::SUCCESS)
}
