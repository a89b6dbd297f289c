//! The commands that talk to a running server, over its own HTTP API.
//!
//! [`Command`] is what `main` puts beside `serve` and the others, [`run`] is the door. Invariants:
//! everything a person can do here goes through the public API; text that came from outside is made
//! harmless before it reaches a terminal; `--json` prints what the API answered. Left out: anything
//! that touches the server's files, except for reading the key that it left for its operator.

mod agents;
mod answers;
mod backtest;
mod budgets;
mod captured;
mod client;
mod connection;
mod context;
mod curl;
mod deliveries;
mod deployments;
mod effects;
mod environments;
mod failure;
mod follow;
mod io;
mod keys;
mod listen;
mod moment;
mod outbox;
mod replay;
mod secrets;
mod send;
mod sessions;
mod sources;
mod sse;
mod style;
mod table;
mod tail;
mod transcript;
mod trials;
mod watch;

use std::{collections::BTreeMap, path::PathBuf, process::ExitCode};

use self::{client::Client, connection::Connection, context::Context, style::Style};
pub use self::{connection::Global, io::Io};

/// How a command ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    Fine,
    /// It was tried and failed; for a session that was followed, the agent's turn failed.
    Failed,
    /// What was asked for makes no sense.
    WrongUse,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> ExitCode {
        match exit {
            Exit::Fine => ExitCode::SUCCESS,
            Exit::Failed => ExitCode::FAILURE,
            Exit::WrongUse => ExitCode::from(2),
        }
    }
}

/// A command's own arguments, and those that all have.
#[derive(Debug, clap::Args)]
pub struct With<A: clap::Args> {
    #[command(flatten)]
    pub args: A,
    #[command(flatten)]
    pub global: Global,
}

// No documentation of its own: clap would make it the text above the commands of whoever flattens it.
#[derive(Debug, clap::Subcommand)]
pub enum Command {
    /// Send an event to an agent or a source, or a message to a session
    #[command(after_help = send::EXAMPLES)]
    Send(Box<With<send::Args>>),
    /// Follow a session's transcript, or the newest deliveries and sessions
    #[command(after_help = tail::EXAMPLES)]
    Tail(Box<With<tail::Args>>),
    /// List deliveries; show, inspect and erase one
    #[command(after_help = deliveries::EXAMPLES)]
    Deliveries(Box<With<deliveries::Args>>),
    /// Replay deliveries, one by one or those of a source that fit
    #[command(after_help = replay::EXAMPLES)]
    Replay(Box<With<replay::Args>>),
    /// Forward the deliveries of a source to a local URL, for development
    #[command(after_help = listen::EXAMPLES)]
    Listen(Box<With<listen::Args>>),
    /// List messages that left or wait to; send one again, test a callback
    #[command(after_help = outbox::EXAMPLES)]
    Outbox(Box<With<outbox::Args>>),
    /// List sessions; show or create one
    #[command(after_help = sessions::EXAMPLES)]
    Sessions(Box<With<sessions::Args>>),
    /// Allow calls that a session waits for
    #[command(after_help = answers::APPROVE_EXAMPLES)]
    Approve(Box<With<answers::Approve>>),
    /// Deny calls that a session waits for
    #[command(after_help = answers::DENY_EXAMPLES)]
    Deny(Box<With<answers::Deny>>),
    /// Stop a session's turn
    #[command(after_help = answers::INTERRUPT_EXAMPLES)]
    Interrupt(Box<With<answers::Interrupt>>),
    /// List what agents did outside; settle what is in doubt
    #[command(after_help = effects::EXAMPLES)]
    Effects(Box<With<effects::Args>>),
    /// Show and set what agents and sources may use
    #[command(after_help = budgets::EXAMPLES)]
    Budgets(Box<With<budgets::Args>>),
    /// List what starts sessions by a schedule; run, pause and unpause it, list its runs
    #[command(after_help = deployments::EXAMPLES)]
    Deployments(Box<With<deployments::Args>>),
    /// List agents; create, change, pause and archive them
    #[command(after_help = agents::EXAMPLES)]
    Agents(Box<With<agents::Args>>),
    /// List environments, where the tools of agents run; create, change, archive and delete them
    #[command(after_help = environments::EXAMPLES)]
    Environments(Box<With<environments::Args>>),
    /// List the systems that may call in; create, pause and remove them
    #[command(after_help = sources::EXAMPLES)]
    Sources(Box<With<sources::Args>>),
    /// List the secrets' names; set, generate and delete values
    #[command(after_help = secrets::EXAMPLES)]
    Secrets(Box<With<secrets::Args>>),
    /// List API keys; create and revoke them
    #[command(after_help = keys::EXAMPLES)]
    Keys(Box<With<keys::Args>>),
}

/// Runs one command and says how it ended; what went wrong has been told on `io.err` then.
///
/// `environment` is [`crate::config::environment`]'s, `data_dir_default` is
/// [`crate::config::data_dir_default`]'s: the variables are read in one place only.
pub async fn run(
    command: Command,
    environment: &BTreeMap<String, String>,
    data_dir_default: PathBuf,
    io: &mut Io,
) -> Exit {
    let style = Style { color: io.err_color };
    let outcome = match context(&command, environment, data_dir_default, io) {
        Ok(mut context) => dispatch(command, &mut context).await,
        Err(failure) => Err(failure),
    };
    let outcome = match (outcome, io.out.flush()) {
        (Ok(_), Err(error)) => Err(error.into()),
        (outcome, _) => outcome,
    };
    outcome.unwrap_or_else(|failure| failure.report(&mut io.err, style))
}

fn context<'a>(
    command: &Command,
    environment: &BTreeMap<String, String>,
    data_dir_default: PathBuf,
    io: &'a mut Io,
) -> failure::Result<Context<'a>> {
    let global = command.global();
    let connection = Connection::new(global, environment, data_dir_default)?;
    Ok(Context { client: Client::new(connection)?, json: global.json, io })
}

async fn dispatch(command: Command, context: &mut Context<'_>) -> failure::Result<Exit> {
    // Boxed, because each of them is a large future and only one runs.
    match command {
        Command::Send(with) => Box::pin(send::run(with.args, context)).await,
        Command::Tail(with) => Box::pin(tail::run(with.args, context)).await,
        Command::Deliveries(with) => Box::pin(deliveries::run(with.args, context)).await,
        Command::Replay(with) => Box::pin(replay::run(with.args, context)).await,
        Command::Listen(with) => Box::pin(listen::run(with.args, context)).await,
        Command::Outbox(with) => Box::pin(outbox::run(with.args, context)).await,
        Command::Sessions(with) => Box::pin(sessions::run(with.args, context)).await,
        Command::Approve(with) => Box::pin(answers::approve(with.args, context)).await,
        Command::Deny(with) => Box::pin(answers::deny(with.args, context)).await,
        Command::Interrupt(with) => Box::pin(answers::interrupt(with.args, context)).await,
        Command::Effects(with) => Box::pin(effects::run(with.args, context)).await,
        Command::Budgets(with) => Box::pin(budgets::run(with.args, context)).await,
        Command::Deployments(with) => Box::pin(deployments::run(with.args, context)).await,
        Command::Agents(with) => Box::pin(agents::run(with.args, context)).await,
        Command::Environments(with) => Box::pin(environments::run(with.args, context)).await,
        Command::Sources(with) => Box::pin(sources::run(with.args, context)).await,
        Command::Secrets(with) => Box::pin(secrets::run(with.args, context)).await,
        Command::Keys(with) => Box::pin(keys::run(with.args, context)).await,
    }
}

impl Command {
    fn global(&self) -> &Global {
        match self {
            Command::Send(with) => &with.global,
            Command::Tail(with) => &with.global,
            Command::Deliveries(with) => &with.global,
            Command::Replay(with) => &with.global,
            Command::Listen(with) => &with.global,
            Command::Outbox(with) => &with.global,
            Command::Sessions(with) => &with.global,
            Command::Approve(with) => &with.global,
            Command::Deny(with) => &with.global,
            Command::Interrupt(with) => &with.global,
            Command::Effects(with) => &with.global,
            Command::Budgets(with) => &with.global,
            Command::Deployments(with) => &with.global,
            Command::Agents(with) => &with.global,
            Command::Environments(with) => &with.global,
            Command::Sources(with) => &with.global,
            Command::Secrets(with) => &with.global,
            Command::Keys(with) => &with.global,
        }
    }
}

#[cfg(test)]
mod tests;
