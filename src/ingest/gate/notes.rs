//! What the gate looked at, step by step, for its owner who asks why a request is let in or not.
//!
//! The gate itself writes them while it decides, so they cannot say anything that it did not do.
//! Where nobody asks, nothing is written and nothing is made for it. Invariant: a note holds no
//! secret, and no signature that would have been right.

use std::cell::{Cell, RefCell};

use serde::Serialize;

use crate::clock::Timestamp;

/// One thing that the gate looked at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Step {
    /// What: `source`, `gate`, `header`, `timestamp`, `text`, `secret` and the like.
    pub step: &'static str,
    pub ok: bool,
    pub detail: String,
}

#[derive(Debug, Default)]
pub(in crate::ingest) struct Notes {
    steps: Option<RefCell<Vec<Step>>>,
    /// What is being looked at: what a reason to refuse is about.
    now: Cell<&'static str>,
}

/// Steps at most: secrets and alternatives are few.
const STEPS_MAX: usize = 100;

impl Notes {
    /// For whoever only wants to know whether.
    pub(in crate::ingest) fn none() -> Notes {
        Notes::default()
    }

    pub(in crate::ingest) fn kept() -> Notes {
        Notes { steps: Some(RefCell::default()), now: Cell::default() }
    }

    /// What the gate turns to.
    pub(super) fn begin(&self, step: &'static str) {
        self.now.set(step);
    }

    /// What it found there; made only where somebody reads it.
    pub(super) fn found(&self, detail: impl FnOnce() -> String) {
        self.write(true, detail);
    }

    /// Why it went no further.
    pub(in crate::ingest) fn refused(&self, detail: impl FnOnce() -> String) {
        self.write(false, detail);
    }

    fn write(&self, ok: bool, detail: impl FnOnce() -> String) {
        if let Some(steps) = &self.steps {
            let step = Step { step: self.now.get(), ok, detail: detail() };
            let mut steps = steps.borrow_mut();
            // What can be said without the body is looked at again with it.
            if steps.len() < STEPS_MAX && !steps.contains(&step) {
                steps.push(step);
            }
        }
    }

    pub(in crate::ingest) fn into_steps(self) -> Vec<Step> {
        self.steps.map(RefCell::into_inner).unwrap_or_default()
    }
}

/// As of when a request is looked at, and who writes down what is seen.
#[derive(Clone, Copy, Debug)]
pub(in crate::ingest) struct Watch<'a> {
    pub(in crate::ingest) now: Timestamp,
    pub(in crate::ingest) notes: &'a Notes,
}
