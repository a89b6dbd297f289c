//! How a source decides about its deliveries, read once and asked with each of them.
//!
//! Invariant: what cannot be read is a problem of the source, told of where the source is made, and
//! a source that came to be with one holds its deliveries. Left out: what a delivery's answer comes
//! to; that is `route`'s.

use super::{Facts, condition::Condition, route};
use crate::domain::{
    Problem,
    source::{SourceDefinition, Target},
};

#[derive(Debug)]
pub(super) struct Policy {
    filter: Option<Condition>,
}

impl Policy {
    /// Problems are at the field of the definition.
    pub(super) fn read(definition: &SourceDefinition) -> Result<Policy, Problem> {
        if let Target::Key(template) = &definition.target {
            route::check_key_template(template)?;
        }
        let filter = definition.filter.as_deref().map(Condition::read).transpose();
        Ok(Policy { filter: filter.map_err(|message| Problem::new("filter", message))? })
    }

    /// Whether any agent wants the delivery.
    pub(super) fn wants(&self, facts: &Facts<'_>) -> Result<bool, String> {
        match &self.filter {
            None => Ok(true),
            Some(filter) => {
                filter.holds(facts).map_err(|reason| format!("the filter failed: {reason}"))
            }
        }
    }
}

/// Whether everything that a source says about its deliveries can be read.
pub fn check_policy(definition: &SourceDefinition) -> Result<(), Problem> {
    Policy::read(definition).map(|_| ())
}
