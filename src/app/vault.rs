//! `bellpull vault rotate`: a new vault key for everything that is sealed.
//!
//! Only the wrapping of data keys changes, in one transaction. With a key file the order is: the file
//! gets the new key beside the old one, everything is rewrapped, the old key leaves the file; a crash
//! at any point leaves a ring that opens everything.

use std::io::Write;

use anyhow::{Context, bail};
use secrecy::{ExposeSecret, SecretString};
use serde_json::json;

use super::{ServeArgs, data_dir::DataDir, server};
use crate::{
    clock::Clock,
    config,
    store::{self, Change, Store},
    vault::{Place, Vault},
};

#[derive(Clone, Debug, clap::Subcommand)]
pub enum VaultCommand {
    /// Rewrap every secret with a new vault key
    ///
    /// With the key in the data directory's `vault.key`, a new one is made; the server must be
    /// stopped. With `BELLPULL_VAULT_KEY`, give the new key and the old one, separated by a comma,
    /// the new one first, to every server and to this command; when it is done, drop the old one.
    Rotate(ServeArgs),
}

pub async fn vault(command: &VaultCommand, out: &mut dyn Write) -> anyhow::Result<()> {
    let VaultCommand::Rotate(args) = command;
    let loaded = config::read(&args.flags()).outcome;
    let loaded = loaded.map_err(|problems| anyhow::anyhow!("{problems}"))?;
    let config = loaded.config;
    match &config.vault_key {
        Some(ring) => {
            let vault = Vault::new(ring).context("read `BELLPULL_VAULT_KEY`")?;
            let store = server::open_database(&config, Clock::system()).await?;
            let n = rewrap(&store, vault).await?;
            writeln!(out, "{n} secrets rewrapped; the old key may leave `BELLPULL_VAULT_KEY` now")?;
        }
        None => {
            let data_dir = DataDir::open(&config.data_dir)?;
            let old = data_dir.read("vault.key")?;
            let new = Vault::generate_key();
            let ring = ring_of(&new, &old);
            data_dir.replace("vault.key", &ring)?;
            let store = server::open_database(&config, Clock::system()).await?;
            let n = rewrap(&store, Vault::new(&ring)?).await?;
            data_dir.replace("vault.key", &new)?;
            writeln!(
                out,
                "{n} secrets rewrapped; `vault.key` holds the new key, keep a copy of it"
            )?;
        }
    }
    Ok(())
}

/// The new key first, and whatever opened things until now.
fn ring_of(new: &SecretString, old: &SecretString) -> SecretString {
    format!("{}\n{}", new.expose_secret(), old.expose_secret()).into()
}

async fn rewrap(store: &Store, vault: Vault) -> anyhow::Result<u64> {
    let Some(canary) = store.recall("vault_canary").await? else {
        bail!("nothing was ever sealed in this database\nhint: start the server once");
    };
    vault.check_canary(&canary).context("open what is sealed with the old key")?;
    let change = Change {
        actor: "bellpull vault rotate".to_owned(),
        action: "vault.rotate",
        target: vault.key_id(),
        details: json!({}),
    };
    let vault = std::sync::Arc::new(vault);
    let ring = vault.clone();
    let broken = |error: crate::vault::Error| store::Error::Conflict(error.to_string());
    let n = store
        .rewrap_secrets(
            move |sealed_for, name, version, sealed| {
                let place = Place { kind: sealed_for.kind(), id: name, version };
                ring.rewrap(place, sealed).map_err(broken)
            },
            move |canary| vault.rewrap_canary(canary).map_err(broken),
            change,
        )
        .await;
    let n = n.map_err(|error| anyhow::anyhow!(error.detail())).context("rewrap the secrets")?;
    store.close().await;
    Ok(n)
}
