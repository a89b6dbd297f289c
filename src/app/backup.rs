//! `bellpull backup`: a consistent copy of a running SQLite database, opened again to prove it.

use std::{io::Write, path::PathBuf};

use anyhow::bail;

use super::{ServeArgs, data_dir};
use crate::{config, store, vault::Vault};

#[derive(Clone, Debug, clap::Args)]
pub struct BackupArgs {
    /// File to write; it must not exist yet
    #[arg(value_name = "FILE")]
    pub to: PathBuf,
    #[command(flatten)]
    pub serve: ServeArgs,
}

pub async fn backup(args: &BackupArgs, out: &mut dyn Write) -> anyhow::Result<()> {
    let loaded = config::read(&args.serve.flags()).outcome;
    let config = loaded.map_err(|problems| anyhow::anyhow!("{problems}"))?.config;
    if config.database_url.is_some() {
        bail!(
            "this database is PostgreSQL\nhint: back it up with its own tools, such as `pg_dump`"
        );
    }
    let database = data_dir::database(&config.data_dir);
    let to = args.to.clone();
    let copying = tokio::task::spawn_blocking(move || store::backup(&database, &to));
    let report = copying.await?.map_err(|error| anyhow::anyhow!(error.detail()))?;
    writeln!(
        out,
        "{}: {} KiB, {} deliveries, {} sessions, {} events; every page was read back",
        args.to.display(),
        report.bytes / 1024,
        report.deliveries,
        report.sessions,
        report.events
    )?;
    // The rehearsal is complete only if the key at hand opens what is sealed inside.
    let key = config.vault_key.clone().or_else(|| {
        let text = std::fs::read_to_string(config.data_dir.join("vault.key")).ok()?;
        Some(text.into())
    });
    match (report.canary, key.map(|key| Vault::new(&key))) {
        (Some(canary), Some(Ok(vault))) => {
            vault.check_canary(&canary)?;
            writeln!(
                out,
                "the vault key opens its secrets; it is not in the backup, keep it apart"
            )?;
        }
        (Some(_), _) => writeln!(out, "warning: no vault key at hand opens its secrets")?,
        (None, _) => {}
    }
    Ok(())
}
