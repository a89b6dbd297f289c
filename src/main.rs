//! The `bellpull` binary: reads the command line and hands over.

use std::{io::Write, process::ExitCode};

use bellpull::{app, cli, config, tool};
use clap::{Parser, Subcommand};

/// Debug builds keep the system's allocator: what stands in front of it there, as libfaketime in the
/// tests or a memory checker, does not go together with another one.
#[cfg(not(debug_assertions))]
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

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
    /// Run a server in a temporary directory and watch real-shaped webhooks arrive
    Demo(app::DemoArgs),
    /// Copy the database of a running server, and read the copy back
    Backup(app::BackupArgs),
    /// Manage the key that secrets are sealed with
    #[command(subcommand)]
    Vault(app::VaultCommand),
    /// Look at everything that `serve` would need, and name every problem at once
    Check {
        #[command(flatten)]
        serve: app::ServeArgs,
        /// Print the findings as JSON
        #[arg(long)]
        json: bool,
    },
    #[command(flatten)]
    Client(cli::Command),
    /// Print the version
    Version,
}

fn main() -> ExitCode {
    // In a sandbox this binary is something else.
    if let Some(code) = tool::sandbox::enter(std::env::args_os()) {
        return code;
    }
    // Two megabytes for each corner that the allocator touches: a server at rest was twice as large.
    let _ = rustix::thread::disable_transparent_huge_pages(true);
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
        Command::Serve(args) => Box::pin(app::serve(&args)).await.map(|()| true),
        Command::Demo(args) => Box::pin(app::demo(&args, &mut out)).await.map(|()| true),
        Command::Backup(args) => app::backup(&args, &mut out).await.map(|()| true),
        Command::Vault(command) => app::vault(&command, &mut out).await.map(|()| true),
        Command::Check { serve, json } => app::check(&serve, json, &mut out).await,
        Command::Version => writeln!(out, "bellpull {}", env!("CARGO_PKG_VERSION"))
            .map(|()| true)
            .map_err(Into::into),
        Command::Client(command) => {
            let environment = config::environment();
            let data_dir = config::data_dir_default(&environment);
            let mut io = cli::Io::process(&environment);
            return cli::run(command, &environment, data_dir, &mut io).await.into();
        }
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
