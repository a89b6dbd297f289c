//! What a call of `bash` costs beyond the process that it starts: the same command in a session's shell
//! in its sandbox, and as a bare process, in turns.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::bail;
use bellpull::{
    clock::Clock,
    tool::{
        sandbox::{self, Sandbox, Spec, State},
        shell::{self, Files, Handle, Slot},
    },
};
use tokio::sync::Mutex;

use crate::{
    Plan,
    report::{Report, median, range},
};

/// Commands of one round.
const COMMANDS: u32 = 200;

const PROGRAM: &str = "/bin/true";

pub async fn run(plan: &Plan, report: &mut Report) -> anyhow::Result<()> {
    let directory = tempfile::tempdir()?;
    let binary = Some(env!("CARGO_BIN_EXE_bellpull").into());
    let place = directory.path().join("sandbox");
    let sandbox =
        Sandbox::open(sandbox::Options::default(), &place, binary, &Clock::system()).await;
    if !matches!(sandbox.state(), State::Works { .. }) {
        report.note(format!("tool: left out, the sandbox {}", sandbox.state().said()));
        return Ok(());
    }
    let workspace = directory.path().join("workspace");
    std::fs::create_dir(&workspace)?;
    if let Some((user, group)) = sandbox.owner() {
        std::os::unix::fs::chown(&workspace, Some(user), Some(group))?;
    }
    let slot: Arc<Mutex<Slot>> = Arc::default();
    let mut handle = Handle {
        slot: slot.lock_owned().await,
        sandbox,
        spec: Spec { workspace, writable: true, ..Spec::default() },
        files: Files {
            outputs: directory.path().join("outputs"),
            shown_at: "/session/outputs".into(),
            mark: directory.path().join("mark"),
        },
        options: shell::Options::default(),
        clock: Clock::system(),
    };
    let begun = Instant::now();
    call(&mut handle).await?;
    let first = begun.elapsed().as_secs_f64() * 1e3;
    let (mut ours, mut bare) = (Vec::new(), Vec::new());
    for _ in 0..plan.rounds {
        let begun = Instant::now();
        for _ in 0..COMMANDS {
            call(&mut handle).await?;
        }
        ours.push(begun.elapsed().as_secs_f64() * 1e3 / f64::from(COMMANDS));
        let begun = Instant::now();
        for _ in 0..COMMANDS {
            if !tokio::process::Command::new(PROGRAM).status().await?.success() {
                bail!("{PROGRAM} failed");
            }
        }
        bare.push(begun.elapsed().as_secs_f64() * 1e3 / f64::from(COMMANDS));
    }
    let row = |what: &str, ms: &[f64]| {
        let micros: Vec<f64> = ms.iter().map(|it| it * 1e3).collect();
        vec![what.to_owned(), format!("{:.2}", median(ms)), range(&micros) + " µs"]
    };
    let rows = [row("in a session's shell, in its sandbox", &ours), row("a bare process", &bare)];
    report.table(&format!("One command (`{PROGRAM}`)"), &["where", "ms", "range"], &rows);
    report.note(format!("tool: the first call, which starts the sandbox, took {first:.0} ms"));
    Ok(())
}

async fn call(handle: &mut Handle) -> anyhow::Result<()> {
    let ran = handle.run(PROGRAM, Duration::from_secs(10)).await;
    match ran {
        Ok(ran) if ran.end == shell::End::Exited(0) => Ok(()),
        Ok(ran) => bail!("{PROGRAM} ended otherwise: {ran:?}"),
        Err(error) => bail!("{PROGRAM} was not run: {error}"),
    }
}
