//! When to ask again: a pure function of the error, of how often it went wrong and for how long, and
//! of a number that is another one for each session.
//!
//! Exponential back-off with full jitter, so that sessions which failed together do not come back
//! together. A provider that names a time is taken at its word, up to a bound. Both the tries and the
//! time that they take are bounded, because one try may take as long as a whole request. Left out: the
//! waiting itself, which is the session's place in the queue, so that it holds no worker and survives
//! one.

use std::time::Duration;

use http::HeaderMap;

use super::{Error, Options, error::Retry};
use crate::clock::Timestamp;

/// Spread over which sessions come back after a time that the provider named.
const SPREAD: f64 = 0.2;

/// Why there is no further try.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum GivenUp {
    #[error("asking again would not help")]
    Useless,
    #[error("given up after {0} further tries; `models.retries_max` may allow more")]
    Tries(u32),
    #[error(
        "given up, because tries and pauses of one turn may take {0} seconds; \
         `models.retry_total_seconds_max` may allow more"
    )]
    Time(u64),
}

/// The pause before the next try. `n_failures` counts this failure and those right before it, `lost`
/// is what failed requests and their pauses took from the turn so far; `jitter` is from 0 to 1.
pub(super) fn pause(
    options: &Options,
    error: &Error,
    n_failures: u32,
    lost: Duration,
    jitter: f64,
) -> Result<Duration, GivenUp> {
    let Retry::Later(named) = error.retry else { return Err(GivenUp::Useless) };
    if n_failures > options.retries_max {
        return Err(GivenUp::Tries(options.retries_max));
    }
    let longest = Duration::from_secs(options.retry_seconds_max);
    let jitter = jitter.clamp(0.0, 1.0);
    let pause = match named {
        Some(named) => named.min(longest).mul_f64(1.0 + SPREAD * jitter),
        None => {
            let first = Duration::from_millis(options.retry_first_ms);
            let doubled = first.saturating_mul(2_u32.saturating_pow(n_failures.saturating_sub(1)));
            doubled.min(longest).mul_f64(jitter)
        }
    };
    if lost + pause > Duration::from_secs(options.retry_total_seconds_max) {
        return Err(GivenUp::Time(options.retry_total_seconds_max));
    }
    Ok(pause)
}

/// What the provider says about asking again, as seconds, milliseconds or a date.
pub(super) fn named_pause(headers: &HeaderMap, now: Timestamp) -> Option<Duration> {
    let text = |name: &str| headers.get(name)?.to_str().ok().map(str::trim);
    let number = |text: &str| text.parse::<f64>().ok().filter(|number| number.is_finite());
    // A day is beyond every bound; without one, absurd numbers would not fit a duration.
    let seconds = |n: f64| Duration::from_secs_f64(n.clamp(0.0, 86_400.0));
    if let Some(ms) = text("retry-after-ms").and_then(number) {
        return Some(seconds(ms / 1000.0));
    }
    let given = text("retry-after")?;
    if let Some(given) = number(given) {
        return Some(seconds(given));
    }
    // Both dates are of the provider's own clock, where it sends them.
    let at = date(given)?;
    let now = text("date").and_then(date).unwrap_or(now);
    Some(at.since(now).min(Duration::from_secs(86_400)))
}

fn date(text: &str) -> Option<Timestamp> {
    let zoned = jiff::fmt::rfc2822::DateTimeParser::new().parse_zoned(text).ok()?;
    Some(Timestamp(zoned.timestamp().as_millisecond()))
}

/// Both big providers say in a header of their own when their status does not tell.
pub(super) fn should_retry(headers: &HeaderMap) -> Option<bool> {
    match headers.get("x-should-retry")?.as_bytes() {
        b"true" => Some(true),
        b"false" => Some(false),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options() -> Options {
        Options { retries_max: 3, retry_first_ms: 500, retry_seconds_max: 60, ..Options::default() }
    }

    #[test]
    fn pauses_double_up_to_a_bound_and_are_spread_from_zero() {
        let options = Options { retries_max: 20, ..options() };
        let error = Error::passing("cut");
        let ms =
            |n, jitter| pause(&options, &error, n, Duration::ZERO, jitter).unwrap().as_millis();
        assert_eq!((1..=4).map(|n| ms(n, 1.0)).collect::<Vec<_>>(), [500, 1000, 2000, 4000]);
        assert_eq!(ms(20, 1.0), 60_000);
        assert_eq!((ms(4, 0.0), ms(4, 0.25)), (0, 1000));
    }

    #[test]
    fn tries_end() {
        let (error, none) = (Error::passing("cut"), Duration::ZERO);
        let given_up = |options: &Options, error: &Error, n_failures, lost| {
            pause(options, error, n_failures, lost, 0.5).err()
        };
        assert_eq!(given_up(&options(), &error, 3, none), None);
        assert_eq!(given_up(&options(), &error, 4, none), Some(GivenUp::Tries(3)));
        assert_eq!(given_up(&options(), &Error::never("no"), 1, none), Some(GivenUp::Useless));
        let never = Options { retries_max: 0, ..options() };
        assert_eq!(given_up(&never, &error, 1, none), Some(GivenUp::Tries(0)));
    }

    #[test]
    fn the_time_of_all_tries_ends_too() {
        let options = Options { retry_total_seconds_max: 100, ..options() };
        let named =
            Error { retry: Retry::Later(Some(Duration::from_secs(10))), ..Error::passing("busy") };
        let after = |lost| pause(&options, &named, 1, Duration::from_secs(lost), 0.0);
        assert_eq!(after(90), Ok(Duration::from_secs(10)));
        assert_eq!(after(91), Err(GivenUp::Time(100)));
    }

    #[test]
    fn a_named_time_is_kept_up_to_a_bound() {
        let after = |seconds| Error {
            retry: Retry::Later(Some(Duration::from_secs(seconds))),
            ..Error::passing("busy")
        };
        let seconds = |named, jitter| {
            let pause = pause(&options(), &after(named), 1, Duration::ZERO, jitter);
            pause.unwrap().as_secs_f64()
        };
        assert_eq!(seconds(7, 0.0), 7.0);
        assert_eq!(seconds(7, 1.0), 8.4);
        assert_eq!(seconds(3600, 0.0), 60.0);
    }

    #[test]
    fn the_time_is_named_in_seconds_in_milliseconds_or_as_a_date() {
        let check = |headers: &[(&'static str, &str)], expected: Option<u64>| {
            let mut map = HeaderMap::new();
            for (name, value) in headers {
                map.insert(*name, value.parse().unwrap());
            }
            let now = "1994-11-06T08:49:30Z".parse().unwrap();
            let found = named_pause(&map, now).map(|it| u64::try_from(it.as_millis()).unwrap());
            assert_eq!(found, expected, "{headers:?}");
        };
        check(&[], None);
        check(&[("retry-after", "20")], Some(20_000));
        check(&[("retry-after", "0.5")], Some(500));
        check(&[("retry-after", "-1")], Some(0));
        check(&[("retry-after", "1e300")], Some(86_400_000));
        check(&[("retry-after", "NaN")], None);
        check(&[("retry-after", "soon")], None);
        check(&[("retry-after-ms", "1500"), ("retry-after", "20")], Some(1500));
        check(&[("retry-after", "Sun, 06 Nov 1994 08:49:37 GMT")], Some(7000));
        let dates = [
            ("retry-after", "Sun, 06 Nov 1994 08:49:37 GMT"),
            ("date", "Sun, 06 Nov 1994 08:49:35 GMT"),
        ];
        check(&dates, Some(2000));
        check(&[("retry-after", "Sun, 06 Nov 1994 08:49:07 GMT")], Some(0));
    }
}
