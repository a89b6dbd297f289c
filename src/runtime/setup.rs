//! What an environment gives to the programs of a session: variables, and commands that prepare the
//! workspace.
//!
//! Invariant: a command that succeeded in a workspace is not run there again. One that failed, or was
//! cut off, is run again before the next command of the agent. Left out: where programs run, which is
//! the sandbox's.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use secrecy::ExposeSecret as _;

use crate::{
    domain::environment::{Programs, Variable},
    store::Store,
    tool::{self, shell::Handle},
    vault::{self, Place, Vault},
};

/// Bytes of what a failed command said that are told.
const SAID_BYTES_MAX: usize = 4 * 1024;

/// The values of an environment's variables.
pub(super) async fn variables(
    programs: &Programs,
    store: &Store,
    vault: Option<&Vault>,
) -> Result<Vec<(String, String)>, tool::Error> {
    let mut values = Vec::new();
    let needs = programs.variables.values().any(|it| matches!(it, Variable::Secret { .. }));
    let secrets = match needs {
        true => store.secrets().await.map_err(|error| tool::Error::Fatal(error.into()))?,
        false => Vec::new(),
    };
    for (name, variable) in &programs.variables {
        let value = match variable {
            Variable::Plain(value) => value.clone(),
            Variable::Secret { secret } => {
                let newest = secrets.iter().filter(|it| it.name == *secret);
                let newest = newest.max_by_key(|it| it.version);
                let (Some(sealed), Some(vault)) = (newest, vault) else {
                    return Err(tool::Error::Model(format!(
                        "the environment's variable `{name}` names the secret `{secret}`, which is \
                         not there"
                    )));
                };
                let place = Place { kind: "secret", id: secret, version: sealed.version };
                let value = vault.open(place, &sealed.sealed).map_err(|error| {
                    tool::Error::Fatal(anyhow::Error::new(error).context("open a secret"))
                })?;
                value.expose_secret().to_owned()
            }
        };
        values.push((name.clone(), value));
    }
    Ok(values)
}

/// Where it is written down what was done in a workspace: with the session's own files, or, for a
/// directory that sessions share, beside them.
pub(super) fn marks(workspaces: &Path, workspace: &tool::Workspace) -> PathBuf {
    if workspace.path().starts_with(workspace.files()) {
        return workspace.files().join("setup");
    }
    let path = workspace.path().as_os_str().as_encoded_bytes();
    workspaces.join("setup").join(vault::hex(&vault::hash(path)))
}

/// Runs the commands that were not run yet in this workspace.
pub(super) async fn run(
    handle: &Handle,
    programs: &Programs,
    marks: &Path,
) -> Result<(), tool::Error> {
    let broken = |error: std::io::Error| {
        tool::Error::Fatal(anyhow::Error::new(error).context("prepare a workspace"))
    };
    for (number, command) in programs.setup.iter().enumerate() {
        let mark = marks.join(vault::hex(&vault::hash(format!("{number} {command}").as_bytes())));
        if tokio::fs::try_exists(&mark).await.map_err(broken)? {
            continue;
        }
        let mut spec = handle.spec.clone();
        spec.program = ["/bin/bash", "-c", command].map(str::to_owned).into();
        let failed = |what: String| {
            tool::Error::Model(format!("the environment's setup failed: `{command}`: {what}"))
        };
        let running =
            handle.sandbox.spawn(&spec).await.map_err(|error| failed(error.to_string()))?;
        let patience = Duration::from_millis(handle.options.timeout_ms_max);
        let ended = match handle.clock.timeout(patience, running.output()).await {
            Ok(ended) => ended.map_err(|error| failed(error.to_string()))?,
            Err(_) => return Err(failed(format!("it took longer than {patience:?}"))),
        };
        if !ended.status.success() {
            let said = [ended.stdout, ended.stderr].concat();
            let said = String::from_utf8_lossy(&said).into_owned();
            let from = said.ceil_char_boundary(said.len().saturating_sub(SAID_BYTES_MAX));
            return Err(failed(format!("{}\n{}", ended.status, said[from..].trim())));
        }
        tokio::fs::create_dir_all(marks).await.map_err(broken)?;
        tokio::fs::write(&mark, b"").await.map_err(broken)?;
    }
    Ok(())
}
