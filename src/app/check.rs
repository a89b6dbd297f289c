//! `bellpull check`: looks at everything that `serve` would need and names every problem at once.
//!
//! It changes nothing: no directory, key or table is made here. It may run beside a running server.
//! One problem does not hide another: what hangs on a value that is wrong or missing is left out, and
//! everything else is looked at.

mod agents;

use std::{io::Write, path::Path, time::Duration};

use secrecy::ExposeSecret;
use serde_json::json;

use self::agents::Stored;
use super::{
    data_dir::{self, DataDir},
    http, open_files,
    serve::ServeArgs,
};
use crate::{
    clock::Clock,
    config::{self, Config, Inspected},
    store::{Location, Store},
    tool::sandbox::{self, Sandbox, State},
    vault::Vault,
};

/// How long whoever listens on our address may take to say that it is well.
const HEALTHY_WITHIN: Duration = Duration::from_secs(2);

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
    let inspected = config::inspect(&flags);
    let mut warnings = String::new();
    for warning in &inspected.loaded.warnings {
        warnings.push_str(&format!("\nwarning: {}: {}", warning.key, warning.message));
    }
    let result = if inspected.problems.is_empty() {
        Ok(format!("reads without problems{warnings}"))
    } else {
        Err(format!("{}{warnings}", config::Problems(inspected.problems.clone())))
    };
    findings.push(Finding { what: "configuration", result });
    look(&inspected, &mut findings).await;
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

async fn look(inspected: &Inspected, findings: &mut Vec<Finding>) {
    let config = &inspected.loaded.config;
    let is_certain = |key| inspected.is_certain(key);
    let mut found = |what, result| findings.push(Finding { what, result });
    if is_certain("data_dir") {
        let free_min = config.limits.free_disk_bytes_min;
        found("data directory", look_at_directory(&config.data_dir, free_min));
    }
    if is_certain("listen") {
        found("address", look_at_address(config).await);
    }
    found("open files", Ok(open_files::look()));
    found("sandbox", look_at_sandbox(config).await);
    let is_on_postgres = config.database_url.is_some();
    let store = if is_certain("database_url") && (is_on_postgres || is_certain("data_dir")) {
        let opened = open_store(config).await;
        found("database", opened.as_ref().map(|it| said(it.as_ref())).map_err(Clone::clone));
        opened.ok()
    } else {
        None
    };
    let is_given = config.vault_key.is_some();
    let vault = if is_certain("BELLPULL_VAULT_KEY") && (is_given || is_certain("data_dir")) {
        let (vault, result) =
            look_at_vault_key(config, store.as_ref().and_then(Option::as_ref)).await;
        found("vault key", result);
        vault
    } else {
        None
    };
    let stored = match store {
        Some(Some(store)) => Stored::read(store, vault).await,
        Some(None) => Ok(Stored::Nothing),
        None => Ok(Stored::Unknown),
    };
    match stored {
        Ok(stored) => {
            if let Some(result) = agents::look_at_models(inspected, &stored) {
                found("models", result);
            }
            if let Some(result) = agents::look_at_environments(inspected) {
                found("environments", result);
            }
            if let Some(result) = agents::look_at_sources(inspected, &stored) {
                found("sources", result);
            }
        }
        Err(error) => found("sources", Err(format!("{error:#}"))),
    }
}

/// `None` where there is nothing yet and the first start makes it.
async fn open_store(config: &Config) -> Result<Option<Store>, String> {
    let location = match &config.database_url {
        Some(url) => Location::Postgres(url.expose_secret().to_owned()),
        None => {
            let file = data_dir::database(&config.data_dir);
            if !file.exists() {
                return Ok(None);
            }
            Location::Sqlite(file)
        }
    };
    let opened = Store::open(&location, &config.store, Clock::system()).await;
    opened.map(Some).map_err(|error| error.detail())
}

fn said(store: Option<&Store>) -> String {
    match store {
        None => "SQLite; made at the first start".to_owned(),
        Some(store) if store.is_sqlite() => "SQLite opens, and its schema fits".to_owned(),
        Some(_) => "PostgreSQL answers, and its schema fits".to_owned(),
    }
}

fn look_at_directory(path: &Path, free_min: u64) -> Result<String, String> {
    // The nearest directory that exists decides whether the rest can be made.
    let existing = path.ancestors().find(|it| it.exists()).unwrap_or(Path::new("/"));
    if !existing.is_dir() {
        return Err(format!(
            "{} is not a directory\nhint: choose another with `--data-dir`",
            existing.display()
        ));
    }
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

/// Really runs a program in one, with its files in a directory that is gone afterwards.
async fn look_at_sandbox(config: &Config) -> Result<String, String> {
    let place = tempfile::tempdir().map_err(|error| format!("cannot be tried: {error}"))?;
    let (options, clock) = (config.sandbox.clone(), Clock::system());
    let place = place.path().join("sandbox");
    let sandbox = Sandbox::open(options, &place, sandbox::this_binary(), &clock).await;
    let said = sandbox.state().said();
    match sandbox.state() {
        State::Works { .. } | State::Off => Ok(said),
        State::Refused(_) => Err(format!(
            "{said}\n`bash` is refused to agents until it works, or until `sandbox.mode` is \"none\""
        )),
    }
}

async fn look_at_address(config: &Config) -> Result<String, String> {
    match tokio::net::TcpListener::bind(config.listen).await {
        Ok(_) => Ok(format!("{} is free", config.listen)),
        Err(error) if error.kind() == std::io::ErrorKind::AddrInUse => {
            let url = format!("http://{}/healthz", config.listen);
            let healthy = match http::client() {
                Ok(client) => client
                    .get(url)
                    .timeout(HEALTHY_WITHIN)
                    .send()
                    .await
                    .is_ok_and(|it| it.status().is_success()),
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

/// The vault, if its key is good for this database, and what is to be said about it.
async fn look_at_vault_key(
    config: &Config,
    store: Option<&Store>,
) -> (Option<Vault>, Result<String, String>) {
    let key = match &config.vault_key {
        Some(key) => key.clone(),
        None => match std::fs::read_to_string(config.data_dir.join("vault.key")) {
            Ok(text) => text.trim().into(),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                return (None, Ok("made at the first start".to_owned()));
            }
            Err(error) => return (None, Err(format!("`vault.key` cannot be read: {error}"))),
        },
    };
    let vault = match Vault::new(&key) {
        Ok(vault) => vault,
        Err(error) => return (None, Err(error.to_string())),
    };
    let result = match store {
        Some(store) => look_at_canary(store, &vault).await,
        None => Ok("is 32 bytes in base64".to_owned()),
    };
    (result.is_ok().then_some(vault), result)
}

async fn look_at_canary(store: &Store, vault: &Vault) -> Result<String, String> {
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
