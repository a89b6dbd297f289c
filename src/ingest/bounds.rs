//! The bounds of the receive path. Reaching one is an answer (413 or 503), never a silent drop.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use arc_swap::ArcSwap;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::{Entry, Reject};

/// Bounds of the receive path, each with its unit.
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

/// Room for bytes in flight; given back when dropped.
#[derive(Debug, Default)]
pub struct Permit(Option<OwnedSemaphorePermit>);

impl Permit {
    fn merge(&mut self, more: OwnedSemaphorePermit) {
        match &mut self.0 {
            Some(permit) => permit.merge(more),
            None => self.0 = Some(more),
        }
    }
}

/// Bytes that one unit of the semaphore stands for.
const UNIT_BYTES: usize = 1024;

#[derive(Debug)]
pub struct Bounds {
    current: ArcSwap<Current>,
    /// As last measured; unknown counts as enough.
    free_disk_bytes: AtomicU64,
}

/// The options in force and the room that they give.
#[derive(Debug)]
struct Current {
    options: Options,
    in_flight: Arc<Semaphore>,
}

impl Current {
    fn new(options: Options) -> Current {
        let units = options.in_flight_bytes_max.div_ceil(UNIT_BYTES);
        Current { in_flight: Arc::new(Semaphore::new(units.min(Semaphore::MAX_PERMITS))), options }
    }
}

impl Bounds {
    pub(super) fn new(options: Options) -> Bounds {
        let current = ArcSwap::from_pointee(Current::new(options));
        Bounds { current, free_disk_bytes: AtomicU64::new(u64::MAX) }
    }

    pub fn options(&self) -> Options {
        self.current.load().options.clone()
    }

    /// Takes changed options over. What is in flight keeps the room that it was given before.
    pub fn set_options(&self, options: Options) {
        if self.current.load().options != options {
            self.current.store(Arc::new(Current::new(options)));
        }
    }

    /// What is known without the body.
    pub(super) fn check(&self, entry: &Entry) -> Result<(), Reject> {
        let current = self.current.load();
        if self.free_disk_bytes.load(Ordering::Relaxed) < current.options.free_disk_bytes_min {
            return Err(Reject::Busy("the disk is nearly full"));
        }
        if entry.waiting.count() >= current.options.waiting_sessions_max {
            return Err(Reject::Busy("too many sessions of this source wait for work"));
        }
        Ok(())
    }

    /// Room for `more` bytes of a body. Never waits: bodies that wait for each other's room would
    /// wait for ever.
    pub fn reserve(&self, permit: &mut Permit, more: usize) -> Result<(), Reject> {
        let units = u32::try_from(more.div_ceil(UNIT_BYTES)).unwrap_or(u32::MAX);
        let more = self.current.load().in_flight.clone().try_acquire_many_owned(units);
        permit.merge(more.map_err(|_| Reject::Busy("too many bodies are in flight"))?);
        Ok(())
    }

    /// Notes what a look at the disk found.
    pub fn set_free_disk(&self, bytes: u64) {
        self.free_disk_bytes.store(bytes, Ordering::Relaxed);
    }

    pub(super) fn waiting_messages_max(&self) -> i64 {
        i64::try_from(self.current.load().options.waiting_messages_max).unwrap_or(i64::MAX)
    }
}

/// How many sessions of a source wait: counted in the database now and then, and in between by what
/// came in here. Too high for a moment rather than too low.
#[derive(Clone, Debug, Default)]
pub struct Waiting(Arc<AtomicU64>);

impl Waiting {
    pub(super) fn add_one(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    pub fn count(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    pub fn set(&self, count: u64) {
        self.0.store(count, Ordering::Relaxed);
    }
}
