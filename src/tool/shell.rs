//! The shell of a session: one `bash` in the sandbox, whose directory and variables last from one
//! command to the next.
//!
//! Commands go in over its standard input, how they ended comes back over its standard output, and
//! what they say over its standard error; to the commands themselves those three are `/dev/null` and
//! the output. Invariant: a command that was not seen to its end (too long, too loud, dropped) takes
//! the shell and everything in it along, and the next one is told that it begins anew. Left out: which
//! sessions have a shell and for how long, which is the runtime's.

use std::{io, path::PathBuf, time::Duration};

use tokio::{io::AsyncReadExt as _, io::AsyncWriteExt as _, sync::OwnedMutexGuard, time::Instant};

use super::{
    egress::Proxy,
    sandbox::{self, Running, Sandbox, Spec},
};
use crate::{clock::Clock, tool::spool::Spool};

/// Bounds of one command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// Milliseconds that a command may take when it does not say how many.
    pub timeout_ms: u64,
    /// Milliseconds that it may ask for at most.
    pub timeout_ms_max: u64,
    /// Bytes of output that are answered; of more, both ends, and the whole is in a file.
    pub answer_bytes_max: usize,
    /// Bytes of output after which a command is ended.
    pub output_bytes_max: u64,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            timeout_ms: 120_000,
            timeout_ms_max: 600_000,
            answer_bytes_max: 30_000,
            output_bytes_max: 64 << 20,
        }
    }
}

/// Longest command, in bytes.
const COMMAND_BYTES_MAX: usize = 256 << 10;

/// How long a shell that ended may take to say why.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// How long a shell may take to begin.
const START: Duration = Duration::from_secs(20);

/// Bytes that are still read when a command has ended: what was in the pipe then, and a bound on what
/// goes on talking behind it.
const LEFT_BYTES_MAX: usize = 1 << 20;

/// What the shell itself runs. `continue` and `break` in a command reach this loop: the first does no
/// harm, the second ends the shell.
const LOOP: &str = r#"exec 61>&2 62>&1 63<&0 </dev/null >&2
while builtin printf '%d\0' "$?" >&62; IFS= builtin read -r -d '' -u 63 REPLY
do builtin eval "$REPLY" </dev/null >&61 2>&61 61>&- 62>&- 63<&-
done"#;

/// How a command ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum End {
    /// It did, with this status.
    Exited(i32),
    /// The shell did too, with this status.
    ShellEnded(Option<i32>),
    /// It took longer than this, and was killed with the shell.
    TimedOut(Duration),
    /// It said more than this many bytes, and was killed with the shell.
    TooLoud(u64),
}

#[derive(Debug)]
pub struct Ran {
    pub end: End,
    /// What it said, cut in the middle where it was much.
    pub output: String,
    /// It was the first command of a shell after another one, whose state is gone.
    pub is_anew: bool,
}

/// A running shell, between two commands.
#[derive(Debug)]
struct Shell {
    running: Running,
    /// What it was made for; another one is made when that changes.
    spec: Spec,
}

/// Where the shell of a session is, if there is one.
#[derive(Debug, Default)]
pub struct Slot {
    shell: Option<Shell>,
    /// Its way out, if it has one.
    pub proxy: Option<Proxy>,
}

impl Slot {
    /// Ends the shell.
    pub fn close(&mut self) {
        self.shell = None;
    }
}

/// Where a session has its long outputs, and what the server remembers of its shell.
#[derive(Clone, Debug)]
pub struct Files {
    /// On this machine. Nothing that runs in the sandbox may write it.
    pub outputs: PathBuf,
    /// As the agent sees it.
    pub shown_at: PathBuf,
    /// Is there once the session has had a shell.
    pub mark: PathBuf,
}

/// The shell of a session, for as long as somebody uses it.
#[derive(Debug)]
pub struct Handle {
    pub slot: OwnedMutexGuard<Slot>,
    pub sandbox: Sandbox,
    /// Without a program.
    pub spec: Spec,
    pub files: Files,
    pub options: Options,
    pub clock: Clock,
}

impl Handle {
    /// Ends the shell: the next command begins anew.
    pub fn restart(&mut self) {
        self.slot.close();
    }

    /// Runs a command. Dropping this kills it, and the shell with it.
    pub async fn run(&mut self, command: &str, timeout: Duration) -> Result<Ran, sandbox::Error> {
        if command.len() > COMMAND_BYTES_MAX || command.contains('\0') {
            let why = format!("a command has up to {COMMAND_BYTES_MAX} bytes and no NUL");
            return Err(sandbox::Error::Workspace(why));
        }
        // Outside of its place while it works: who drops this drops the shell.
        let known = self.slot.shell.take().filter(|shell| shell.spec == self.spec);
        let (mut shell, is_anew) = match known {
            Some(shell) => (shell, false),
            None => {
                let shell = self.start().await?;
                (shell, self.mark().await)
            }
        };
        let mut spool = Spool::new(&self.files, self.options.answer_bytes_max);
        let deadline = self.clock.monotonic() + timeout;
        let bytes_max = self.options.output_bytes_max;
        let failed = |error: io::Error| sandbox::Error::Failed(error.to_string());
        let end = shell.follow(command, &mut spool, &self.clock, deadline, bytes_max);
        let end = match end.await.map_err(failed)? {
            Some(status) => {
                self.slot.shell = Some(shell);
                End::Exited(status)
            }
            None if spool.bytes() > bytes_max => End::TooLoud(bytes_max),
            None if self.clock.monotonic() >= deadline => End::TimedOut(timeout),
            None => End::ShellEnded(shell.last_words(&mut spool, &self.clock).await),
        };
        let output = spool.finish().await.map_err(failed)?;
        Ok(Ran { end, output, is_anew })
    }

    async fn start(&self) -> Result<Shell, sandbox::Error> {
        let program = ["/bin/bash", "--norc", "--noprofile", "-c", LOOP, "bash"];
        let mut spec = self.spec.clone();
        spec.program = program.map(str::to_owned).into();
        let running = self.sandbox.spawn(&spec).await?;
        let mut shell = Shell { running, spec: self.spec.clone() };
        let mut spool = Spool::new(&self.files, self.options.answer_bytes_max);
        let deadline = self.clock.monotonic() + START;
        let ready = shell.until_status(&mut spool, &self.clock, deadline, u64::MAX).await;
        if ready.is_ok_and(|ready| ready.is_some()) {
            return Ok(shell);
        }
        shell.last_words(&mut spool, &self.clock).await;
        let said = spool.finish().await.unwrap_or_default();
        Err(sandbox::Error::Failed(said.trim().to_owned()))
    }

    /// Whether there was a shell before, perhaps in an earlier life of the server.
    async fn mark(&self) -> bool {
        match tokio::fs::File::create_new(&self.files.mark).await {
            Ok(_) => false,
            Err(error) => error.kind() == io::ErrorKind::AlreadyExists,
        }
    }
}

impl Shell {
    /// The status of a command, once it ended; `None` when the shell did, or something was too much.
    async fn follow(
        &mut self,
        command: &str,
        spool: &mut Spool,
        clock: &Clock,
        deadline: Instant,
        bytes_max: u64,
    ) -> io::Result<Option<i32>> {
        let Some(mut stdin) = self.running.stdin.take() else { return Ok(None) };
        let telling = async {
            let told = stdin.write_all(&[command.as_bytes(), b"\0"].concat()).await;
            (stdin, told)
        };
        let Ok((stdin, told)) = clock.timeout_at(deadline, telling).await else { return Ok(None) };
        self.running.stdin = Some(stdin);
        // The shell is gone; it says why, if anybody does.
        if told.is_err() {
            return Ok(None);
        }
        self.until_status(spool, clock, deadline, bytes_max).await
    }

    async fn until_status(
        &mut self,
        spool: &mut Spool,
        clock: &Clock,
        deadline: Instant,
        bytes_max: u64,
    ) -> io::Result<Option<i32>> {
        let (mut said, mut told) = (vec![0; 64 << 10], [0; 64]);
        let mut status = Vec::new();
        let waiting = clock.sleep_until(deadline);
        tokio::pin!(waiting);
        loop {
            tokio::select! {
                n = self.running.stderr.read(&mut said) => {
                    let n = n?;
                    if n == 0 {
                        return Ok(None);
                    }
                    spool.write(&said[..n]).await?;
                    if spool.bytes() > bytes_max {
                        return Ok(None);
                    }
                }
                n = self.running.stdout.read(&mut told) => {
                    let n = n?;
                    if n == 0 {
                        return Ok(None);
                    }
                    status.extend_from_slice(&told[..n]);
                    if let Some(end) = status.iter().position(|byte| *byte == 0) {
                        let status = std::str::from_utf8(&status[..end]).ok();
                        self.drain(spool).await?;
                        return Ok(Some(status.and_then(|it| it.parse().ok()).unwrap_or(-1)));
                    }
                }
                () = &mut waiting => return Ok(None),
            }
        }
    }

    /// What the command said right before it ended is in the pipe.
    async fn drain(&mut self, spool: &mut Spool) -> io::Result<()> {
        let (mut said, mut n_read) = (vec![0; 64 << 10], 0);
        while n_read < LEFT_BYTES_MAX {
            match rustix::io::read(&self.running.stderr, &mut said[..]) {
                Ok(0) | Err(_) => break,
                Ok(n) => {
                    n_read += n;
                    spool.write(&said[..n]).await?;
                }
            }
        }
        Ok(())
    }

    /// What is still said, and the status.
    async fn last_words(&mut self, spool: &mut Spool, clock: &Clock) -> Option<i32> {
        let mut said = vec![0; 4 << 10];
        let deadline = clock.monotonic() + LAST_WORDS;
        while let Ok(Ok(n @ 1..)) =
            clock.timeout_at(deadline, self.running.stderr.read(&mut said)).await
        {
            let _ = spool.write(&said[..n]).await;
        }
        let status = clock.timeout_at(deadline, self.running.wait()).await.ok()?.ok()?;
        status.code()
    }
}
