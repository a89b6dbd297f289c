//! What the numbers are told apart by, and how many values a label may have.

use std::{
    collections::BTreeSet,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
};

use prometheus_client::encoding::EncodeLabelSet;

use crate::domain::text::{first_chars, printable};

/// Stands for all values beyond the bound. No source has a name with parentheses.
pub(super) const OTHER: &str = "(other)";

/// Stands for sources that do not exist: what a caller made up is never a label.
pub(super) const UNKNOWN: &str = "(unknown)";

const CHARS_MAX: usize = 128;

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct RequestLabels {
    pub(super) kind: &'static str,
    pub(super) source: String,
    pub(super) result: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct SourceLabels {
    pub(super) kind: &'static str,
    pub(super) source: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct ResultLabel {
    pub(super) result: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct KindLabel {
    pub(super) kind: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct ModelLabel {
    pub(super) model: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct ModelResultLabels {
    pub(super) model: String,
    pub(super) result: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct ModelKindLabels {
    pub(super) model: String,
    pub(super) kind: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct VersionLabel {
    pub(super) version: &'static str,
}

/// The values of one label that were seen so far.
#[derive(Debug)]
pub(super) struct Values {
    max: AtomicUsize,
    seen: Mutex<BTreeSet<String>>,
}

impl Values {
    pub(super) fn new(max: usize) -> Values {
        Values { max: AtomicUsize::new(max), seen: Mutex::default() }
    }

    pub(super) fn set_max(&self, max: usize) {
        self.max.store(max, Ordering::Relaxed);
    }

    pub(super) fn max(&self) -> usize {
        self.max.load(Ordering::Relaxed)
    }

    /// The value as a label; beyond the bound it is one of the others.
    pub(super) fn label(&self, value: &str) -> String {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        if !seen.contains(value) {
            if seen.len() >= self.max() {
                return OTHER.to_owned();
            }
            seen.insert(value.to_owned());
        }
        printable(first_chars(value, CHARS_MAX).0)
    }
}
