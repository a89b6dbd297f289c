//! The worker.

/// How the worker claims and works.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// Turns that this process works on at once.
    pub turns_max: usize,
    /// Seconds that a claim lasts without being renewed.
    pub lease_seconds: u64,
    /// Milliseconds between two looks for due sessions when no signal comes.
    pub poll_ms: u64,
    /// Seconds that a stopping process waits for its turns before it hands them back.
    pub drain_seconds: u64,
    /// Times that a turn may be resumed without getting any further before it fails.
    pub resumes_max: u32,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            turns_max: 64,
            lease_seconds: 30,
            poll_ms: 1000,
            drain_seconds: 10,
            resumes_max: 5,
        }
    }
}
