//! The runtime: carries out turns.
//!
//! [`Runtime::drive`] is the loop: take the inbox into the log, ask the pure [`step`](agent::step)
//! what is next, journal the intent, act, journal the outcome, step again. Invariant: no append, no
//! act; a lost lease ends the work without another write. Left out: which session is worked on and
//! for how long, which is the worker's.

mod builtin;
mod host;

use std::{path::PathBuf, sync::Arc};

use crate::{
    agent, clock::Clock, model::Models, preview::Previews, signal::Signals, store, store::Store,
};

/// Bounds of a turn and where its files are.
#[derive(Clone, Debug)]
pub struct Options {
    /// One directory for each session is made in here.
    pub workspaces: PathBuf,
    /// Times that a turn may be resumed without getting any further.
    pub resumes_max: u32,
    pub limits: agent::Limits,
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
        Runtime { store, signals, previews, models, options: Arc::new(options), clock }
    }
}
