//! The receive path: from the raw bytes of a request to a committed delivery.

/// Bounds of the receive path. Reaching one answers 413 or 503, never a silent drop.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// Largest request body, in bytes; a larger one is refused with 413.
    pub body_bytes_max: usize,
    /// Bytes of bodies held in memory at once over all requests; 503 beyond.
    pub in_flight_bytes_max: usize,
    /// Seconds a sender may take for its whole body; 408 beyond.
    pub body_seconds_max: u64,
    /// Sessions of one source that wait for work; 503 beyond.
    pub waiting_sessions_max: u64,
    /// Messages that wait in one session; 503 beyond.
    pub waiting_messages_max: u64,
    /// Free bytes on the disk of the data directory; 503 below.
    pub free_disk_bytes_min: u64,
    /// Refused attempts kept to be looked at, over all sources; the oldest go first.
    pub refusals_max: u64,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            body_bytes_max: 25 * 1024 * 1024,
            in_flight_bytes_max: 64 * 1024 * 1024,
            body_seconds_max: 30,
            waiting_sessions_max: 1_000_000,
            waiting_messages_max: 10_000,
            free_disk_bytes_min: 512 * 1024 * 1024,
            refusals_max: 10_000,
        }
    }
}
