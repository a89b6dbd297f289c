//! How many files this process may have open: each connection, stream and sandbox is some of them.
//!
//! The soft limit that most systems begin with is small for the sake of old programs, and the hard one
//! is what the operator means. What agents run has a limit of its own (`sandbox.open_files_max`).

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Fewer are too few for a server with many streams.
const FEW: u64 = 4096;

/// Raises the soft limit to the hard one, and says how it stands.
pub(super) fn raise() {
    let before = getrlimit(Resource::Nofile);
    if before.current == before.maximum {
        tracing::info!(limit = shown(before.current), "the limit of open files");
        return;
    }
    let wanted = Rlimit { current: before.maximum, maximum: before.maximum };
    match setrlimit(Resource::Nofile, wanted) {
        Ok(()) => tracing::info!(
            limit = shown(before.maximum),
            before = shown(before.current),
            "the limit of open files was raised"
        ),
        Err(error) => {
            let limit = shown(before.current);
            tracing::warn!(%error, limit, "the limit of open files cannot be raised");
        }
    }
}

/// What a server started here could have.
pub(super) fn look() -> String {
    let limit = getrlimit(Resource::Nofile).maximum;
    match limit {
        Some(n) if n < FEW => format!(
            "{n} at most\nwarning: with fewer than {FEW} many streams and shells at once fail; raise \
             the hard limit, such as with `LimitNOFILE=65536` of systemd or `ulimit -Hn`"
        ),
        limit => format!("{} at most", shown(limit)),
    }
}

fn shown(limit: Option<u64>) -> String {
    limit.map_or_else(|| "any number".to_owned(), |n| n.to_string())
}
