//! Time: the wall clock, as milliseconds since the epoch, the monotonic clock, one between them, and
//! waiting.
//!
//! Invariant: nothing else in the crate asks what time it is, so a test that holds a
//! [`Clock::manual`] decides every timestamp. The worker, the runtime and the models wait here as
//! well, so that under a [`Clock::simulated`] hours of their work pass in no time, and the same way
//! each time. Formatting for people and for JSON is here too, so that one format is used everywhere.
//! Left out: the waits of whoever serves sockets, which happen in real time.

mod simulated;

use std::{
    fmt,
    str::FromStr,
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
    time::Duration,
};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use tokio::time::Instant;

use simulated::Simulated;

/// Wall-clock time in milliseconds since 1970-01-01T00:00:00Z. `bigint` in SQL, RFC 3339 in JSON.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp(pub i64);

impl Timestamp {
    pub fn plus(self, duration: Duration) -> Timestamp {
        let ms = i64::try_from(duration.as_millis()).unwrap_or(i64::MAX);
        Timestamp(self.0.saturating_add(ms))
    }

    pub fn minus(self, duration: Duration) -> Timestamp {
        let ms = i64::try_from(duration.as_millis()).unwrap_or(i64::MAX);
        Timestamp(self.0.saturating_sub(ms))
    }

    /// How long ago `earlier` was; zero when it lies in the future.
    pub fn since(self, earlier: Timestamp) -> Duration {
        Duration::from_millis(u64::try_from(self.0.saturating_sub(earlier.0)).unwrap_or(0))
    }
}

impl fmt::Display for Timestamp {
    /// RFC 3339 in UTC with milliseconds, e.g. `2026-11-21T20:12:00.123Z`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match jiff::Timestamp::from_millisecond(self.0) {
            Ok(timestamp) => write!(f, "{timestamp:.3}"),
            Err(_) => f.write_str("1970-01-01T00:00:00.000Z"),
        }
    }
}

impl FromStr for Timestamp {
    type Err = jiff::Error;

    fn from_str(text: &str) -> Result<Timestamp, jiff::Error> {
        text.parse::<jiff::Timestamp>().map(|timestamp| Timestamp(timestamp.as_millisecond()))
    }
}

impl Serialize for Timestamp {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Timestamp {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Timestamp, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(de::Error::custom)
    }
}

/// A handle on time. Clones show the same time.
#[derive(Clone, Debug)]
pub struct Clock(Kind);

#[derive(Clone, Debug)]
enum Kind {
    /// Where the wall clock stood at a moment of the monotonic one.
    System {
        wall: Timestamp,
        at: Instant,
    },
    Manual(Arc<AtomicI64>),
    Simulated {
        start: Timestamp,
        monotonic: Instant,
        clock: Arc<Simulated>,
    },
}

/// A wait was longer than it was allowed to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("it took too long")]
pub struct Elapsed;

impl Clock {
    /// The machine's own clock.
    pub fn system() -> Clock {
        Clock(Kind::System { wall: wall(), at: monotonic() })
    }

    /// A wall clock that stands still until [`Clock::advance`] moves it. Waits take as long as ever.
    pub fn manual(start: Timestamp) -> Clock {
        Clock(Kind::Manual(Arc::new(AtomicI64::new(start.0))))
    }

    /// A clock of which everything stands still until [`Clock::advance`] moves it, waits included.
    pub fn simulated(start: Timestamp) -> Clock {
        Clock(Kind::Simulated { start, monotonic: monotonic(), clock: Arc::default() })
    }

    pub fn now(&self) -> Timestamp {
        match &self.0 {
            Kind::System { .. } => wall(),
            Kind::Manual(ms) => Timestamp(ms.load(Ordering::SeqCst)),
            Kind::Simulated { start, clock, .. } => start.plus(clock.elapsed()),
        }
    }

    /// The wall clock as it would stand had nobody set it since this clock was made: for times that
    /// are stored and waited for, and must come no sooner and no later when somebody does.
    pub fn steady(&self) -> Timestamp {
        match &self.0 {
            Kind::System { wall, at } => wall.plus(self.monotonic() - *at),
            Kind::Manual(_) | Kind::Simulated { .. } => self.now(),
        }
    }

    /// Moves a manual or a simulated clock; does nothing to the system clock.
    pub fn advance(&self, by: Duration) {
        match &self.0 {
            Kind::System { .. } => {}
            Kind::Manual(ms) => {
                ms.fetch_add(i64::try_from(by.as_millis()).unwrap_or(i64::MAX), Ordering::SeqCst);
            }
            Kind::Simulated { clock, .. } => clock.advance(by),
        }
    }

    /// How far a simulated clock must be moved until somebody who waits on it may go on.
    pub fn next_wait(&self) -> Option<Duration> {
        match &self.0 {
            Kind::System { .. } | Kind::Manual(_) => None,
            Kind::Simulated { clock, .. } => clock.next_wait(),
        }
    }

    /// Monotonic time for measuring durations and for self-fencing: it does not jump when the wall
    /// clock is set.
    pub fn monotonic(&self) -> Instant {
        match &self.0 {
            Kind::System { .. } | Kind::Manual(_) => monotonic(),
            Kind::Simulated { monotonic, clock, .. } => *monotonic + clock.elapsed(),
        }
    }

    pub async fn sleep(&self, duration: Duration) {
        match &self.0 {
            Kind::System { .. } | Kind::Manual(_) => tokio::time::sleep(duration).await,
            Kind::Simulated { clock, .. } => clock.wait(clock.elapsed() + duration).await,
        }
    }

    pub async fn sleep_until(&self, deadline: Instant) {
        match &self.0 {
            Kind::System { .. } | Kind::Manual(_) => tokio::time::sleep_until(deadline).await,
            Kind::Simulated { monotonic, clock, .. } => {
                clock.wait(deadline.saturating_duration_since(*monotonic)).await;
            }
        }
    }

    /// Waits for a piece of work, and drops it when it takes longer.
    pub async fn timeout<T>(
        &self,
        duration: Duration,
        work: impl Future<Output = T>,
    ) -> Result<T, Elapsed> {
        tokio::select! {
            biased;
            done = work => Ok(done),
            () = self.sleep(duration) => Err(Elapsed),
        }
    }

    /// As [`Clock::timeout`], until a point in monotonic time.
    pub async fn timeout_at<T>(
        &self,
        deadline: Instant,
        work: impl Future<Output = T>,
    ) -> Result<T, Elapsed> {
        tokio::select! {
            biased;
            done = work => Ok(done),
            () = self.sleep_until(deadline) => Err(Elapsed),
        }
    }
}

#[expect(clippy::disallowed_methods, reason = "this is the one place that reads the wall clock")]
fn wall() -> Timestamp {
    Timestamp(jiff::Timestamp::now().as_millisecond())
}

#[expect(
    clippy::disallowed_methods,
    reason = "this is the one place that reads the monotonic clock"
)]
fn monotonic() -> Instant {
    Instant::now()
}

#[cfg(test)]
mod tests {
    use std::task::{Context, Poll, Waker};

    use super::*;

    #[test]
    fn timestamps_round_trip_through_rfc_3339() {
        let timestamp = Timestamp(1_795_292_000_123);
        assert_eq!(timestamp.to_string().parse::<Timestamp>().ok(), Some(timestamp));
        assert_eq!(Timestamp(0).to_string(), "1970-01-01T00:00:00.000Z");
        assert_eq!(
            "2026-01-02T00:00:00+00:00".parse::<Timestamp>().ok(),
            Some(Timestamp(1_767_312_000_000))
        );
    }

    #[test]
    fn a_manual_clock_moves_only_when_told() {
        let clock = Clock::manual(Timestamp(10));
        let copy = clock.clone();
        clock.advance(Duration::from_millis(5));
        assert_eq!((copy.now(), copy.steady()), (Timestamp(15), Timestamp(15)));
        assert_eq!(copy.now().since(Timestamp(20)), Duration::ZERO);
    }

    #[test]
    fn a_steady_clock_begins_as_the_wall_clock_and_goes_as_the_monotonic_one() {
        let clock = Clock::system();
        let (wall, steady, at) = (clock.now(), clock.steady(), clock.monotonic());
        assert!(wall.since(steady) < Duration::from_secs(60));
        while clock.monotonic() - at < Duration::from_millis(5) {
            std::hint::spin_loop();
        }
        assert!(clock.steady().since(steady) >= Duration::from_millis(4));
    }

    /// A future that is polled by calling.
    fn by_hand<T>(future: impl Future<Output = T>) -> impl FnMut() -> Poll<T> {
        let mut future = Box::pin(future);
        move || future.as_mut().poll(&mut Context::from_waker(Waker::noop()))
    }

    #[test]
    fn waits_on_a_simulated_clock_are_over_when_it_is_moved_there() {
        let clock = Clock::simulated(Timestamp(10));
        let (second, minute) = (Duration::from_secs(1), Duration::from_secs(60));
        let started = clock.monotonic();
        let mut sleeping = by_hand(clock.timeout(minute, clock.sleep(second)));
        assert!(sleeping().is_pending());
        assert_eq!(clock.next_wait(), Some(second));
        clock.advance(second / 2);
        assert!(sleeping().is_pending());
        clock.advance(second / 2);
        assert_eq!(sleeping(), Poll::Ready(Ok(())));
        assert_eq!((clock.now(), clock.monotonic() - started), (Timestamp(1010), second));

        let mut late = by_hand(clock.timeout_at(started + minute, std::future::pending::<()>()));
        assert!(late().is_pending());
        assert_eq!(clock.next_wait(), Some(minute - second));
        clock.advance(minute);
        assert_eq!(late(), Poll::Ready(Err(Elapsed)));
        drop((sleeping, late));
        assert_eq!(clock.next_wait(), None, "whoever does not wait any more is forgotten");
    }
}
