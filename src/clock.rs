//! Time: the wall clock, as milliseconds since the epoch, the monotonic clock, and one between them.
//!
//! Invariant: nothing else in the crate asks what time it is, so a test or a simulation that holds
//! a [`Clock::manual`] decides every timestamp. Formatting for people and for JSON is here as well,
//! so that one format is used everywhere. Waiting (`tokio::time::sleep`) is not: it is not a
//! question about the time of day.

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
}

impl Clock {
    /// The machine's own clock.
    pub fn system() -> Clock {
        Clock(Kind::System { wall: wall(), at: monotonic() })
    }

    /// A clock that stands still until [`Clock::advance`] moves it.
    pub fn manual(start: Timestamp) -> Clock {
        Clock(Kind::Manual(Arc::new(AtomicI64::new(start.0))))
    }

    pub fn now(&self) -> Timestamp {
        match &self.0 {
            Kind::System { .. } => wall(),
            Kind::Manual(ms) => Timestamp(ms.load(Ordering::SeqCst)),
        }
    }

    /// The wall clock as it would stand had nobody set it since this clock was made: for times that
    /// are stored and waited for, and must come no sooner and no later when somebody does.
    pub fn steady(&self) -> Timestamp {
        match &self.0 {
            Kind::System { wall, at } => wall.plus(self.monotonic() - *at),
            Kind::Manual(_) => self.now(),
        }
    }

    /// Moves a manual clock; does nothing to the system clock.
    pub fn advance(&self, by: Duration) {
        if let Kind::Manual(ms) = &self.0 {
            ms.fetch_add(i64::try_from(by.as_millis()).unwrap_or(i64::MAX), Ordering::SeqCst);
        }
    }

    /// Monotonic time for measuring durations and for self-fencing: it does not jump when the wall
    /// clock is set. Follows tokio's clock, which a paused runtime advances by itself.
    pub fn monotonic(&self) -> Instant {
        monotonic()
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
}
