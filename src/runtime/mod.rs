//! The runtime: carries out turns.
//!
//! [`Runtime::drive`] is the loop: take the inbox into the log, ask the pure [`step`](agent::step)
//! what is next, journal the intent, act, journal the outcome, step again. Invariant: no append, no
//! act; a lost lease ends the work without another write. Left out: which session is worked on and
//! for how long, which is the worker's.

mod builtin;
mod credentials;
mod host;
pub mod mcp;
mod setup;
pub mod shells;
mod workspaces;

use std::{path::PathBuf, sync::Arc};

use arc_swap::ArcSwap;

pub use self::{
    builtin::FirstRequest,
    workspaces::{Projects, outputs::Outputs},
};
use self::{mcp::Mcp, shells::Shells};
use crate::{
    agent,
    clock::Clock,
    domain::budget::CommonBudgets,
    fetch::pages::{Page, Web},
    model::Models,
    preview::Previews,
    signal::Signals,
    store,
    store::Store,
    tool,
    vault::Vault,
};

/// Bounds of a turn and where its files are.
#[derive(Clone, Debug)]
pub struct Options {
    /// One directory for each session is made in here.
    pub workspaces: PathBuf,
    /// Times that a turn may be resumed without getting any further.
    pub resumes_max: u32,
    pub limits: agent::Limits,
    /// Seconds that a call waits for somebody to allow it; then it is denied.
    pub approval_seconds_max: u64,
    pub tools: tool::Options,
    /// They change while the server runs.
    pub projects: Arc<ArcSwap<Projects>>,
    pub pages: Pages,
    /// What whoever works may use.
    pub budgets: CommonBudgets,
    /// How much is kept of what agents hand in.
    pub outputs: Outputs,
}

/// How pages of the web are fetched, if at all.
#[derive(Clone, Debug, Default)]
pub struct Pages(Option<Arc<dyn Web>>);

impl Pages {
    pub fn of(web: Arc<dyn Web>) -> Pages {
        Pages(Some(web))
    }

    async fn get(
        &self,
        url: &str,
        bytes_max: usize,
        may: impl Fn(&str) -> Result<(), String> + Send + Sync,
    ) -> Result<Page, String> {
        match &self.0 {
            Some(web) => web.get(url, bytes_max, &may).await,
            None => Err("this server has no way to the web".to_owned()),
        }
    }
}

/// What turns need. Clones share everything.
#[derive(Clone, Debug)]
pub struct Runtime {
    store: Store,
    signals: Signals,
    previews: Previews,
    models: Models,
    options: Arc<Options>,
    clock: Clock,
    /// Where there are none, nothing runs that an agent asks for.
    shells: Option<Shells>,
    vault: Option<Arc<Vault>>,
    /// The way to MCP servers.
    mcp: Option<Mcp>,
}

/// Why a turn is not worked on any more although it did not end.
#[derive(Debug, thiserror::Error)]
pub enum Stopped {
    /// The worker wants the session back: the lease ran out, or the process is stopping.
    #[error("told to stop")]
    Cancelled,
    #[error(transparent)]
    Store(#[from] store::Error),
}

impl Runtime {
    pub fn new(
        store: Store,
        signals: Signals,
        previews: Previews,
        models: Models,
        options: Options,
    ) -> Runtime {
        let clock = store.clock().clone();
        let (options, shells, vault, mcp) = (Arc::new(options), None, None, None);
        Runtime { store, signals, previews, models, options, clock, shells, vault, mcp }
    }

    /// With the secrets that environments name.
    pub fn with_vault(mut self, vault: Arc<Vault>) -> Runtime {
        self.vault = Some(vault);
        self
    }

    /// With a way to MCP servers.
    pub fn with_mcp(mut self, mcp: Mcp) -> Runtime {
        self.mcp = Some(mcp);
        self
    }

    /// With shells for what agents run.
    pub fn with_shells(mut self, shells: Shells) -> Runtime {
        self.shells = Some(shells);
        self
    }
}
