//! The `bellpull` binary: reads the command line and hands over.

use std::{io::Write, process::ExitCode};

use bellpull::app;
use clap::{Parser, Subcommand};

/// Any event pulls the cord, an agent answers: once, in order, within budget, in the open.
#[derive(Debug, Parser)]
#[command(name = "bellpull", version, max_term_width = 100, after_help = AFTER_HELP)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

const AFTER_HELP: &str = "\
Start here:
  bellpull demo                 see it work, in a temporary directory
  bellpull serve                run a server; its admin key is in the data directory
  bellpull agents webhook NAME  the URL and the token for a sender

Exit codes: 0 fine, 1 failed, 2 wrong use.";

#[derive(Debug, Subcommand)]
enum Command {
    /// Run a server until SIGTERM or Ctrl-C
    Serve(app::ServeArgs),
    /// Print the version
    Version,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return failed(&error.into()),
    };
    runtime.block_on(run(arguments.command))
}

async fn run(command: Command) -> ExitCode {
    let mut out = std::io::stdout();
    let result = match command {
        Command::Serve(args) => app::serve(&args).await.map(|()| true),
        Command::Version => writeln!(out, "bellpull {}", env!("CARGO_PKG_VERSION"))
            .map(|()| true)
            .map_err(Into::into),
    };
    match result {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => failed(&error),
    }
}

/// The whole chain, once. A text that has lines of its own brings its hint with it.
fn failed(error: &anyhow::Error) -> ExitCode {
    let _ = writeln!(std::io::stderr(), "error: {error:#}");
    ExitCode::FAILURE
}
