//! The bounds of the receive path. Reaching one is an answer (413 or 503), never a silent drop.

use std::sync::{
    Arc,
    atomic::{AtomicU64, AtomicUsize, Ordering},
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
    /// Of these, bytes of bodies whose signature is not checked yet; 503 beyond. A source gets a
    /// half at most, or one largest body.
    pub unverified_bytes_max: usize,
    /// Seconds a sender may take for its whole body; 408 beyond.
    pub body_seconds_max: u64,
    /// The same for a body that must be there to check its signature.
    pub unverified_seconds_max: u64,
    /// Sessions of one source that wait for work; 503 beyond.
    pub waiting_sessions_max: u64,
    /// Messages that wait in one session; beyond, 503 to a sender and 429 to a caller of the API.
    pub waiting_messages_max: u64,
    /// Free bytes on the disk of the data directory; 503 below.
    pub free_disk_bytes_min: u64,
    /// Refused attempts kept to be looked at, over all sources; the oldest go first.
    pub refusals_max: u64,
    /// Files that strangers' requests may make the server fetch in one minute (certificates of
    /// senders), and as many for senders that proved themselves; 503 beyond.
    pub fetches_per_minute_max: u32,
    /// Callbacks of a Bellpull through which a delivery may have come; what has come through more is
    /// held, because it goes round.
    pub callback_hops_max: u32,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            body_bytes_max: 25 * 1024 * 1024,
            in_flight_bytes_max: 64 * 1024 * 1024,
            unverified_bytes_max: 48 * 1024 * 1024,
            body_seconds_max: 30,
            unverified_seconds_max: 10,
            waiting_sessions_max: 1_000_000,
            waiting_messages_max: 10_000,
            free_disk_bytes_min: 512 * 1024 * 1024,
            refusals_max: 10_000,
            fetches_per_minute_max: 30,
            callback_hops_max: 3,
        }
    }
}

/// Room for bytes in flight; given back when dropped.
#[derive(Debug, Default)]
pub struct Permit {
    room: Option<OwnedSemaphorePermit>,
    unverified: Option<Unverified>,
    /// Where the body may be no larger than this, in bytes.
    bytes_max: Option<usize>,
}

impl Permit {
    fn merge(&mut self, more: OwnedSemaphorePermit) {
        match &mut self.room {
            Some(room) => room.merge(more),
            None => self.room = Some(more),
        }
    }

    /// Whether the caller has proved itself, so that its word on its body's length counts.
    pub fn is_verified(&self) -> bool {
        self.unverified.is_none()
    }

    /// The same for a body that is of no use when it is larger.
    pub(super) fn at_most(self, bytes_max: usize) -> Permit {
        Permit { bytes_max: Some(bytes_max), ..self }
    }

    /// The caller has proved itself with its body.
    pub(super) fn verified(self) -> Permit {
        Permit { unverified: None, ..self }
    }
}

/// Bytes that callers hold who have not proved themselves. A caller that never will must not take
/// the room of others: what it can hold is a part of the whole, a part of that part by source, and
/// never what the first bytes of everybody's body need, which is all there is of most.
#[derive(Clone, Debug, Default)]
pub struct Lane(Arc<LaneBytes>);

#[derive(Debug, Default)]
struct LaneBytes {
    first: AtomicUsize,
    rest: AtomicUsize,
}

/// What most bodies have at most: their room is apart from that of large ones.
const FIRST_BYTES: usize = 64 * 1024;

/// What one body holds in the lanes of everybody and of its source.
#[derive(Debug)]
struct Unverified {
    lanes: [Lane; 2],
    first: usize,
    rest: usize,
}

impl Unverified {
    /// Takes room in both lanes, or in none.
    fn take(&mut self, more: usize, options: &Options) -> bool {
        let first = more.min(FIRST_BYTES - self.first);
        let rest = more - first;
        let first_max = options.unverified_bytes_max / 4;
        let rest_max = (options.unverified_bytes_max - first_max).max(options.body_bytes_max);
        let of_source = (first_max / 2, (rest_max / 2).max(options.body_bytes_max));
        let maxima = [(first_max, rest_max), of_source];
        let mut fits = true;
        for (lane, (first_max, rest_max)) in self.lanes.iter().zip(maxima) {
            let first_before = lane.0.first.fetch_add(first, Ordering::Relaxed);
            let rest_before = lane.0.rest.fetch_add(rest, Ordering::Relaxed);
            fits &= first == 0 || first_before + first <= first_max;
            fits &= rest == 0 || rest_before + rest <= rest_max;
        }
        self.first += first;
        self.rest += rest;
        if !fits {
            self.give_back(first, rest);
        }
        fits
    }

    fn give_back(&mut self, first: usize, rest: usize) {
        for lane in &self.lanes {
            lane.0.first.fetch_sub(first, Ordering::Relaxed);
            lane.0.rest.fetch_sub(rest, Ordering::Relaxed);
        }
        self.first -= first;
        self.rest -= rest;
    }
}

impl Drop for Unverified {
    fn drop(&mut self) {
        self.give_back(self.first, self.rest);
    }
}

/// Bytes that one unit of the semaphore stands for.
const UNIT_BYTES: usize = 1024;

#[derive(Debug)]
pub struct Bounds {
    current: ArcSwap<Current>,
    /// As last measured; unknown counts as enough.
    free_disk_bytes: AtomicU64,
    unverified: Lane,
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
        let free_disk_bytes = AtomicU64::new(u64::MAX);
        Bounds { current, free_disk_bytes, unverified: Lane::default() }
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

    /// Whether so many bytes more leave the disk as free as it has to be.
    pub fn check_disk(&self, bytes: usize) -> Result<(), Reject> {
        let free = self.free_disk_bytes.load(Ordering::Relaxed);
        let left = free.saturating_sub(bytes.try_into().unwrap_or(u64::MAX));
        match left < self.current.load().options.free_disk_bytes_min {
            true => Err(Reject::Busy("the disk is nearly full")),
            false => Ok(()),
        }
    }

    /// A permit for a body that has to be read before its caller has proved itself.
    pub(super) fn unverified(&self, source: &Lane) -> Permit {
        let lanes = [self.unverified.clone(), source.clone()];
        let unverified = Unverified { lanes, first: 0, rest: 0 };
        Permit { room: None, unverified: Some(unverified), bytes_max: None }
    }

    /// Room for `more` bytes of a body. Never waits: bodies that wait for each other's room would
    /// wait for ever.
    pub fn reserve(&self, permit: &mut Permit, more: usize) -> Result<(), Reject> {
        let current = self.current.load();
        if let Some(unverified) = &mut permit.unverified
            && !unverified.take(more, &current.options)
        {
            return Err(Reject::Busy("too many bodies wait for their signature to be checked"));
        }
        let units = u32::try_from(more.div_ceil(UNIT_BYTES)).unwrap_or(u32::MAX);
        let more = current.in_flight.clone().try_acquire_many_owned(units);
        permit.merge(more.map_err(|_| Reject::Busy("too many bodies are in flight"))?);
        Ok(())
    }

    /// Bytes of one body.
    pub fn bytes_max(&self, permit: &Permit) -> usize {
        let bytes_max = self.current.load().options.body_bytes_max;
        permit.bytes_max.map_or(bytes_max, |it| it.min(bytes_max))
    }

    /// Seconds for a body to arrive.
    pub fn seconds(&self, permit: &Permit) -> u64 {
        let current = self.current.load();
        match permit.unverified {
            None => current.options.body_seconds_max,
            Some(_) => current.options.unverified_seconds_max,
        }
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
