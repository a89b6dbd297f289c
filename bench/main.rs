//! Measures Bellpull against its limits: `cargo bench`, or `cargo bench -- NAME…` for some cases.
//!
//! The server is a release build, started as a user would start it; the load comes over HTTP from
//! this process, on the same machine. What depends on the machine is measured against a baseline that
//! runs in turns with it, so that the ratio means something where the figures alone do not. Nothing
//! here passes or fails: it prints tables, which docs/performance.md quotes.

#![expect(
    clippy::disallowed_methods,
    clippy::print_stdout,
    clippy::print_stderr,
    unreachable_pub,
    reason = "this is a program that measures time and talks to a terminal, and nobody's library"
)]

mod baseline;
mod cases;
mod database;
mod load;
mod model;
mod report;
mod server;
mod visitor;

use std::time::Duration;

use report::Report;

const USAGE: &str = "\
Usage: cargo bench -- [CASE…] [--seconds N] [--rounds N] [--rows N] [--postgres URL] [--server PATH]

Cases, all of them unless some are named:
  accept      durable accepts per second on SQLite, against the same HTTP stack without storage, and
              with one row in SQLite for each; server CPU per accept; the same with turns running
  postgres    the same on PostgreSQL (needs --postgres)
  latency     one connection, webhook to first model request, and 202s beside a slow model; with
              --postgres there as well
  many        200 sessions that wait for slow models
  tool        one command in a session's shell, against a bare process
  footprint   cold start and memory
  streams     1,000 open event streams
  backtest    a changed source tried on 100,000 stored deliveries
  verify      one signature checked, without a server around it
  million     accepts, lists and pages with a million stored deliveries

  --seconds N      length of one window of load (4)
  --rounds N       windows of each kind, in turns (5)
  --rows N         stored deliveries in `million` (1000000)
  --postgres URL   a PostgreSQL in which databases may be created
  --server PATH    measures this program and not the one that was built along
";

/// What the command line decides.
#[derive(Clone, Debug)]
struct Plan {
    window: Duration,
    rounds: usize,
    rows: u64,
    postgres: Option<String>,
}

const CASES: [&str; 10] = [
    "accept",
    "postgres",
    "latency",
    "many",
    "tool",
    "footprint",
    "streams",
    "backtest",
    "verify",
    "million",
];

fn main() -> anyhow::Result<()> {
    let mut plan =
        Plan { window: Duration::from_secs(4), rounds: 5, rows: 1_000_000, postgres: None };
    let mut wanted = Vec::new();
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        let mut value = || arguments.next().unwrap_or_else(|| wrong("a value is missing"));
        match argument.as_str() {
            baseline::ARGUMENT => return baseline::serve(arguments.next()),
            // Cargo passes it to every benchmark.
            "--bench" => {}
            "--seconds" => plan.window = Duration::from_secs(number(&value())),
            "--rounds" => plan.rounds = number(&value()) as usize,
            "--rows" => plan.rows = number(&value()),
            "--postgres" => plan.postgres = Some(value()),
            "--server" => {
                if server::PROGRAM.set(value().into()).is_err() {
                    wrong("--server twice");
                }
            }
            "--help" | "-h" => {
                print!("{USAGE}");
                return Ok(());
            }
            name if CASES.contains(&name) => wanted.push(name.to_owned()),
            other => wrong(&format!("`{other}` is neither a case nor an option")),
        }
    }
    let is_wanted = |name: &str| wanted.is_empty() || wanted.iter().any(|it| it == name);
    // One thread: the load shall cost the server as little as it can.
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    runtime.block_on(async {
        let mut report = Report::open(&plan)?;
        if is_wanted("accept") {
            cases::accept::sqlite(&plan, &mut report).await?;
        }
        if is_wanted("postgres") {
            match &plan.postgres {
                Some(url) => cases::accept::postgres(&plan, url, &mut report).await?,
                None => report.note("postgres: left out, there is no --postgres"),
            }
        }
        if is_wanted("latency") {
            cases::latency::run(&plan, &mut report).await?;
        }
        if is_wanted("many") {
            cases::many::run(&plan, &mut report).await?;
        }
        if is_wanted("tool") {
            cases::tool::run(&plan, &mut report).await?;
        }
        if is_wanted("footprint") {
            cases::footprint::run(&plan, &mut report).await?;
        }
        if is_wanted("streams") {
            cases::footprint::streams(&plan, &mut report).await?;
        }
        if is_wanted("backtest") {
            cases::backtest::run(&plan, &mut report).await?;
        }
        if is_wanted("verify") {
            cases::verify::run(&plan, &mut report)?;
        }
        if is_wanted("million") {
            cases::million::run(&plan, &mut report).await?;
        }
        report.close();
        Ok(())
    })
}

fn number(text: &str) -> u64 {
    text.parse().unwrap_or_else(|_| wrong(&format!("`{text}` is not a number")))
}

fn wrong(message: &str) -> ! {
    eprintln!("{message}\n\n{USAGE}");
    std::process::exit(2)
}
