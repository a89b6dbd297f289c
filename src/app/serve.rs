//! `bellpull serve`: a server until it is told to stop, with its config file watched.

use std::{path::PathBuf, time::Duration};

use tokio::signal::unix::{SignalKind, signal};

use super::{Server, log, open_files};
use crate::{
    clock::Clock,
    config::{self, Flags, Loaded, watch::Watch},
};

/// How often the config file is looked at. A change takes two looks, so that half a file is not read.
const CONFIG_INTERVAL: Duration = Duration::from_millis(500);

/// Flags of `serve`. Each has a key in the config file and an environment variable, which the
/// configuration reads itself, so that it can say where a value came from.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct ServeArgs {
    /// Config file, TOML or JSON [env: BELLPULL_CONFIG] [default: none]
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Where the database, the keys and the workspaces are [env: BELLPULL_DATA_DIR] [default:
    /// ~/.local/share/bellpull]
    #[arg(long, value_name = "DIR")]
    pub data_dir: Option<PathBuf>,
    /// Address and port to listen on [env: BELLPULL_LISTEN] [default: 127.0.0.1:4100]
    #[arg(long, value_name = "ADDRESS")]
    pub listen: Option<String>,
    /// PostgreSQL instead of the embedded database, `postgres://…` [env: BELLPULL_DATABASE_URL]
    #[arg(long, value_name = "URL")]
    pub database_url: Option<String>,
    /// URL under which senders reach this server [env: BELLPULL_PUBLIC_URL]
    #[arg(long, value_name = "URL")]
    pub public_url: Option<String>,
}

impl ServeArgs {
    pub fn flags(&self) -> Flags {
        Flags {
            config: self.config.clone(),
            data_dir: self.data_dir.clone(),
            listen: self.listen.clone(),
            database_url: self.database_url.clone().map(Into::into),
            public_url: self.public_url.clone(),
        }
    }
}

/// Runs a server until SIGTERM or SIGINT.
pub async fn serve(args: &ServeArgs) -> anyhow::Result<()> {
    let flags = args.flags();
    let config::Read { outcome, mut watch } = config::read(&flags);
    let loaded = outcome.map_err(|problems| anyhow::anyhow!("{problems}"))?;
    let filter = log::start(&loaded.config.log);
    warn(&loaded);
    open_files::raise();
    let (mut terminate, mut hang_up) =
        (signal(SignalKind::terminate())?, signal(SignalKind::hangup())?);
    // A database is waited for, and nobody should have to wait with it.
    let started = tokio::select! {
        started = Server::start(loaded, Clock::system()) => Some(started?),
        _ = terminate.recv() => None,
        _ = tokio::signal::ctrl_c() => None,
    };
    let Some(mut server) = started else {
        tracing::info!("told to stop before the start was complete");
        return Ok(());
    };
    tracing::info!(address = %server.address, url = server.url(), "bellpull is listening");
    if let Some(path) = &server.admin_key_file {
        tracing::info!(file = %path.display(), "the admin key is in this file");
    }
    loop {
        let asked = tokio::select! {
            _ = terminate.recv() => break,
            _ = tokio::signal::ctrl_c() => break,
            _ = hang_up.recv() => true,
            () = tokio::time::sleep(CONFIG_INTERVAL) => false,
        };
        if asked || watch.look() {
            Box::pin(reload(&mut server, &flags, &mut watch, &filter)).await;
        }
    }
    tracing::info!("stopping: open requests and turns get a moment");
    server.stop().await;
    Ok(())
}

fn warn(loaded: &Loaded) {
    for warning in &loaded.warnings {
        tracing::warn!(key = warning.key, "{}", warning.message);
    }
}

/// A bad file is refused as a whole, and what is running stays.
async fn reload(server: &mut Server, flags: &Flags, watch: &mut Watch, filter: &log::LogFilter) {
    let config::Read { outcome, watch: fresh } = config::read(flags);
    *watch = fresh;
    match outcome {
        Ok(loaded) => {
            warn(&loaded);
            let log = loaded.config.log.filter.clone();
            match server.reload(loaded).await {
                Ok(()) => {
                    filter.set(&log);
                    tracing::info!("the configuration was read again");
                }
                Err(error) => {
                    let error = format!("{error:#}");
                    tracing::error!(error, "the new configuration was not taken over completely");
                }
            }
        }
        Err(problems) => {
            for problem in &problems.0 {
                let hint = problem.hint.as_deref();
                tracing::error!(key = problem.key, hint, "{}", problem.message);
            }
            tracing::error!("the changed configuration was refused, the old one stays");
        }
    }
}
