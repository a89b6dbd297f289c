//! What a program is kept from beside its namespaces: Landlock and seccomp, where the kernel has them.
//!
//! Invariant: neither is needed for what a sandbox promises; each closes once more what namespaces and
//! mounts have closed.

use std::path::PathBuf;

use landlock::{
    ABI, Access as _, AccessFs, CompatLevel, Compatible as _, PathBeneath, PathFd, Ruleset,
    RulesetAttr as _, RulesetCreatedAttr as _, RulesetStatus,
};

use super::seccomp;

/// What was known of Landlock when this was written; less is taken where the kernel knows less.
const KNOWN: ABI = ABI::V5;

/// For this thread and all that comes after it.
pub(super) fn confine(writable: &[PathBuf]) -> anyhow::Result<()> {
    restrict_files(writable)?;
    seccomp::restrict_calls()
}

/// Everything may be read and executed, and written only what is listed.
fn restrict_files(writable: &[PathBuf]) -> anyhow::Result<RulesetStatus> {
    let mut rules = Ruleset::default()
        .set_compatibility(CompatLevel::BestEffort)
        .handle_access(AccessFs::from_all(KNOWN))?
        .create()?
        .add_rule(PathBeneath::new(PathFd::new("/")?, AccessFs::from_read(KNOWN)))?;
    for path in writable {
        rules = rules.add_rule(PathBeneath::new(PathFd::new(path)?, AccessFs::from_all(KNOWN)))?;
    }
    Ok(rules.restrict_self()?.ruleset)
}

/// Whether the kernel takes a rule, which this thread then follows.
pub(super) fn has_landlock() -> bool {
    restrict_files(&[]).is_ok_and(|status| status != RulesetStatus::NotEnforced)
}
