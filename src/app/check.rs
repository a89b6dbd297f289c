//! `bellpull check`: looks at everything that `serve` would need and names every problem at once.
//!
//! It changes nothing: no directory, key or table is made here. It may run beside a running server.

use std::{io::Write, path::Path};

use secrecy::ExposeSecret;
use serde_json::json;

use super::{
    data_dir::{self, DataDir},
    http,
    serve::ServeArgs,
};
use crate::{
    clock::Clock,
    config::{self, Config},
    domain::source::SourceKind,
    ingest::{Keys, Registry},
    store::{Location, Store},
    vault::Vault,
};

/// What one look found.
#[derive(Debug)]
struct Finding {
    what: &'static str,
    /// Good news or a problem, in words.
    result: Result<String, String>,
}

/// Prints what was found. `Ok(false)` when anything is wrong.
pub async fn check(args: &ServeArgs, json: bool, out: &mut dyn Write) -> anyhow::Result<bool> {
    let flags = args.flags();
    let mut findings = Vec::new();
    match config::read(&flags).outcome {
        Ok(loaded) => {
            let mut message = "reads without problems".to_owned();
            for warning in &loaded.warnings {
                message.push_str(&format!("\nwarning: {}: {}", warning.key, warning.message));
            }
            findings.push(Finding { what: "configuration", result: Ok(message) });
            look(&loaded.config, &mut findings).await;
        }
        Err(problems) => {
            let result = Err(problems.to_string());
            findings.push(Finding { what: "configuration", result });
        }
    }
    let good = findings.iter().all(|finding| finding.result.is_ok());
    if json {
        let findings: Vec<_> = findings
            .iter()
            .map(|it| {
                let (Ok(message) | Err(message)) = &it.result;
                json!({"what": it.what, "ok": it.result.is_ok(), "message": message})
            })
            .collect();
        writeln!(out, "{}", json!({"ok": good, "findings": findings}))?;
    } else {
        for finding in &findings {
            let (mark, message) = match &finding.result {
                Ok(message) => ("ok  ", message),
                Err(message) => ("FAIL", message),
            };
            writeln!(out, "{mark}  {:<14} {}", finding.what, message.replace('\n', "\n        "))?;
        }
    }
    Ok(good)
}

async fn look(config: &Config, findings: &mut Vec<Finding>) {
    let directory = look_at_directory(&config.data_dir, config.limits.free_disk_bytes_min);
    findings.push(Finding { what: "data directory", result: directory });
    findings.push(Finding { what: "address", result: look_at_address(config).await });
    let vault = look_at_vault_key(config);
    let location = match &config.database_url {
        Some(url) => Some(Location::Postgres(url.expose_secret().to_owned())),
        None => {
            let file = data_dir::database(&config.data_dir);
            file.exists().then_some(Location::Sqlite(file))
        }
    };
    let store = match location {
        None => Ok(None),
        Some(location) => Store::open(&location, &config.store, Clock::system())
            .await
            .map(Some)
            .map_err(|error| error.detail()),
    };
    let result = match &store {
        Ok(None) => Ok("SQLite; made at the first start".to_owned()),
        Ok(Some(store)) if store.is_sqlite() => Ok("SQLite opens, and its schema fits".to_owned()),
        Ok(Some(_)) => Ok("PostgreSQL answers, and its schema fits".to_owned()),
        Err(error) => Err(error.clone()),
    };
    findings.push(Finding { what: "database", result });
    match (vault, store) {
        (Ok(Some(vault)), Ok(Some(store))) => {
            findings
                .push(Finding { what: "vault key", result: look_at_vault(&store, &vault).await });
            look_at_sources(store, vault, findings).await;
        }
        (Ok(Some(_)), _) => {
            let result = Ok("is 32 bytes in base64".to_owned());
            findings.push(Finding { what: "vault key", result });
        }
        (Ok(None), _) => {
            let result = Ok("made at the first start".to_owned());
            findings.push(Finding { what: "vault key", result });
        }
        (Err(error), _) => findings.push(Finding { what: "vault key", result: Err(error) }),
    }
}

fn look_at_directory(path: &Path, free_min: u64) -> Result<String, String> {
    // The nearest directory that exists decides whether the rest can be made.
    let existing = path.ancestors().find(|it| it.exists()).unwrap_or(Path::new("/"));
    let writable = rustix::fs::access(existing, rustix::fs::Access::WRITE_OK);
    if let Err(error) = writable {
        return Err(format!(
            "{} cannot be written: {error}\nhint: choose another with `--data-dir`",
            existing.display()
        ));
    }
    match DataDir::free_bytes(existing) {
        Some(free) if free < free_min => Err(format!(
            "{} has {} MiB free, less than the {} MiB below which nothing is accepted\n\
             hint: make room, or lower `limits.free_disk_bytes_min`",
            existing.display(),
            free >> 20,
            free_min >> 20
        )),
        Some(free) => Ok(format!("{}, {} MiB free", path.display(), free >> 20)),
        None => Ok(path.display().to_string()),
    }
}

async fn look_at_address(config: &Config) -> Result<String, String> {
    match tokio::net::TcpListener::bind(config.listen).await {
        Ok(_) => Ok(format!("{} is free", config.listen)),
        Err(error) if error.kind() == std::io::ErrorKind::AddrInUse => {
            let url = format!("http://{}/healthz", config.listen);
            let healthy = match http::client() {
                Ok(client) => client.get(url).send().await.is_ok_and(|it| it.status().is_success()),
                Err(_) => false,
            };
            if healthy {
                Ok(format!("{} is in use by a server that is well", config.listen))
            } else {
                Err(format!(
                    "{} is in use by something else\nhint: choose another with `--listen`",
                    config.listen
                ))
            }
        }
        Err(error) => Err(format!("{} cannot be listened on: {error}", config.listen)),
    }
}

/// `None` when there is none yet and one would be made.
fn look_at_vault_key(config: &Config) -> Result<Option<Vault>, String> {
    let key = match &config.vault_key {
        Some(key) => key.clone(),
        None => match std::fs::read_to_string(config.data_dir.join("vault.key")) {
            Ok(text) => text.trim().into(),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(format!("`vault.key` cannot be read: {error}")),
        },
    };
    Vault::new(&key).map(Some).map_err(|error| error.to_string())
}

async fn look_at_vault(store: &Store, vault: &Vault) -> Result<String, String> {
    let canary = store.recall("vault_canary").await.map_err(|error| error.detail())?;
    match canary.map(|canary| vault.check_canary(&canary)) {
        None => Ok("is 32 bytes in base64".to_owned()),
        Some(Ok(())) => Ok("opens this database's secrets".to_owned()),
        Some(Err(error)) => Err(format!(
            "does not open this database's secrets: {error}\n\
             hint: give the right one in `BELLPULL_VAULT_KEY`, or restore `vault.key`"
        )),
    }
}

/// Sources that would hold what comes in, or let nobody in.
async fn look_at_sources(store: Store, vault: Vault, findings: &mut Vec<Finding>) {
    let registry = match Registry::open(store, vault.into(), Keys::default()).await {
        Ok(registry) => registry,
        Err(error) => {
            findings.push(Finding { what: "sources", result: Err(format!("{error:#}")) });
            return;
        }
    };
    let snapshot = registry.snapshot();
    let mut problems = Vec::new();
    let mut n = 0;
    for entry in snapshot.sources() {
        if matches!(entry.source.kind, SourceKind::Agent(_)) {
            continue;
        }
        n += 1;
        let name = &entry.source.name;
        if let Some(reason) = entry.broken() {
            problems.push(format!("`{name}` holds its deliveries: {reason}"));
        }
        if entry.secrets.is_wanted() && !entry.secrets.is_set() {
            problems.push(format!(
                "`{name}` lets nobody in: its secret `{}` has no value\nhint: `bellpull secrets set {}`",
                crate::ingest::secret_key(&entry.source),
                crate::ingest::secret_key(&entry.source),
            ));
        }
    }
    let result = if problems.is_empty() {
        Ok(format!("{n} in the database, all in order"))
    } else {
        Err(problems.join("\n"))
    };
    findings.push(Finding { what: "sources", result });
}
