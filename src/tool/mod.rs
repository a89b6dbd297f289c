//! Tools: what an agent can do, one file per tool.
//!
//! A tool sees the outside only through [`Host`]. Its failures are of two kinds: what the model did
//! wrong is an answer to the model ([`Error::Model`]); only broken machinery ends the turn
//! ([`Error::Fatal`]). What a tool does to the world is declared here, defensively true in doubt.

pub mod bash;
pub mod delivery;
pub mod edit;
pub mod egress;
pub mod glob;
pub mod grep;
mod html;
pub mod mcp;
pub mod output;
pub mod read;
pub mod sandbox;
pub mod settle_effect;
pub mod shell;
mod spool;
mod walk;
pub mod web_fetch;
pub mod workspace;
pub mod write;

use std::{
    future::Future,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use bytes::Bytes;
use serde::de::DeserializeOwned;
use serde_json::Value;

pub use self::workspace::{Mount, Workspace};
use crate::{
    domain::{conversation::ToolSpec, event::Block},
    id::{DeliveryId, SessionId},
};

#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Told to the model, which can do something about it.
    #[error("{0}")]
    Model(String),
    /// The turn cannot go on.
    #[error("{0:#}")]
    Fatal(anyhow::Error),
}

/// A raw payload and what is known about it.
#[derive(Clone, Debug)]
pub struct DeliveredPayload {
    pub delivery_id: DeliveryId,
    pub content_type: Option<String>,
    pub bytes: Bytes,
}

/// Bounds of what one call reads and answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// Text of one answer; of a longer one the middle is in a file.
    pub answer_bytes_max: usize,
    /// Largest file that `read` shows at once, and that `edit` changes.
    pub read_bytes_max: usize,
    /// Largest image or PDF that `read` shows.
    pub media_bytes_max: usize,
    /// Files and directories that one search looks at.
    pub search_entries_max: usize,
    /// Bytes that one search reads; a larger file is passed over.
    pub search_bytes_max: usize,
    /// Bytes of a page that `web_fetch` reads.
    pub page_bytes_max: usize,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            answer_bytes_max: 100_000,
            read_bytes_max: 256 * 1024,
            media_bytes_max: 1024 * 1024,
            search_entries_max: 200_000,
            search_bytes_max: 256 * 1024 * 1024,
            page_bytes_max: 5 * 1024 * 1024,
        }
    }
}

/// The outside, as far as a tool may see it: of one session.
pub trait Host: Send + Sync {
    fn session_id(&self) -> &SessionId;

    fn options(&self) -> &Options;

    /// The payload of a delivery of this session, the newest one unless named.
    fn delivery(
        &self,
        delivery: Option<DeliveryId>,
    ) -> impl Future<Output = Result<DeliveredPayload, Error>> + Send;

    /// A page of the web, if this session may go there.
    fn page(&self, url: &str) -> impl Future<Output = Result<web_fetch::Page, Error>> + Send;

    /// The shell of this session, once nobody else uses it.
    fn shell(&self) -> impl Future<Output = Result<shell::Handle, Error>> + Send {
        async { Err(Error::Model("this session has no shell".to_owned())) }
    }
    /// The files of this session, prepared when they are first asked for.
    fn workspace(&self) -> impl Future<Output = Result<Arc<Workspace>, Error>> + Send;
}

/// What a tool does to the world.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    ReadOnly,
    Idempotent,
    Effect,
}

/// A tool that this server has.
struct Tool {
    name: &'static str,
    kind: Kind,
    spec: fn() -> ToolSpec,
    /// Whether it belongs to `agent_toolset_20260401`; else it is there without being asked for.
    in_toolset: bool,
}

const TOOLS: &[Tool] = &[
    Tool { name: delivery::NAME, kind: Kind::ReadOnly, spec: delivery::spec, in_toolset: false },
    Tool {
        name: settle_effect::NAME,
        kind: Kind::ReadOnly,
        spec: settle_effect::spec,
        in_toolset: false,
    },
    Tool { name: read::NAME, kind: Kind::ReadOnly, spec: read::spec, in_toolset: true },
    Tool { name: write::NAME, kind: Kind::Idempotent, spec: write::spec, in_toolset: true },
    Tool { name: glob::NAME, kind: Kind::ReadOnly, spec: glob::spec, in_toolset: true },
    Tool { name: grep::NAME, kind: Kind::ReadOnly, spec: grep::spec, in_toolset: true },
    // Its second run does not find what the first one replaced.
    Tool { name: edit::NAME, kind: Kind::Effect, spec: edit::spec, in_toolset: true },
    Tool { name: web_fetch::NAME, kind: Kind::ReadOnly, spec: web_fetch::spec, in_toolset: true },
    Tool { name: bash::NAME, kind: Kind::Effect, spec: bash::spec, in_toolset: true },
];

fn find(name: &str) -> Option<&'static Tool> {
    TOOLS.iter().find(|tool| tool.name == name)
}

/// The tools of `agent_toolset_20260401` that this server has, in the order in which they are told.
pub fn toolset() -> impl Iterator<Item = &'static str> {
    TOOLS.iter().filter(|tool| tool.in_toolset).map(|tool| tool.name)
}

/// What a model is told. `None` when there is no such tool.
pub fn spec(name: &str) -> Option<ToolSpec> {
    find(name).map(|tool| (tool.spec)())
}

/// `None` when there is no such tool.
pub fn kind(name: &str) -> Option<Kind> {
    find(name).map(|tool| tool.kind)
}

/// Runs a tool and answers what the model is told. Dropping the future cancels it.
pub async fn run(host: &impl Host, name: &str, input: &Value) -> Result<Vec<Block>, Error> {
    match name {
        bash::NAME => bash::run(host, input).await.map(text),
        delivery::NAME => delivery::run(host, input).await.map(text),
        read::NAME => read::run(host, input).await,
        write::NAME => write::run(host, input).await.map(text),
        edit::NAME => edit::run(host, input).await.map(text),
        web_fetch::NAME => web_fetch::run(host, input).await,
        glob::NAME => glob::run(host, input).await.map(text),
        grep::NAME => grep::run(host, input).await.map(text),
        _ => Err(Error::Model(format!("there is no tool `{name}`"))),
    }
}

fn text(text: String) -> Vec<Block> {
    vec![Block::text(text)]
}

/// The input of a call, as its tool reads it.
fn input<T: DeserializeOwned>(value: &Value) -> Result<T, Error> {
    T::deserialize(value).map_err(|error| Error::Model(format!("the input does not fit: {error}")))
}

/// Whether work on files was given up meanwhile.
#[derive(Clone, Debug, Default)]
struct Stop(Arc<AtomicBool>);

impl Stop {
    fn is_set(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// Sets the flag when the one who waits is gone.
struct StopOnDrop(Stop);

impl Drop for StopOnDrop {
    fn drop(&mut self) {
        self.0.0.store(true, Ordering::Relaxed);
    }
}

/// Works on files where waiting for a disk keeps nobody else waiting. Long work looks at the flag.
async fn on_files<T: Send + 'static>(
    work: impl FnOnce(&Stop) -> Result<T, Error> + Send + 'static,
) -> Result<T, Error> {
    let stop = Stop::default();
    let _guard = StopOnDrop(stop.clone());
    let done = tokio::task::spawn_blocking(move || work(&stop)).await;
    done.map_err(|error| Error::Fatal(anyhow::Error::new(error).context("work on files")))?
}
