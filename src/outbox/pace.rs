//! When a message is sent again, and when no more.

use std::{
    hash::{DefaultHasher, Hash, Hasher},
    time::Duration,
};

use http::{HeaderMap, StatusCode, header};

use super::Options;
use crate::{clock::Timestamp, fetch::Failure, id::OutgoingId, store::Attempted};

/// What an answer means.
pub(super) fn answered(
    status: StatusCode,
    headers: &HeaderMap,
    id: &OutgoingId,
    n_tries: i64,
    now: Timestamp,
    options: &Options,
) -> Attempted {
    let code = status.as_u16();
    if status.is_success() {
        return Attempted::Sent { code };
    }
    if status == StatusCode::GONE {
        return Attempted::Gone { code };
    }
    let why = match status.is_redirection() {
        true => format!("the receiver answered {code}: redirects are not followed"),
        false => format!("the receiver answered {code}"),
    };
    let asked = named_pause(headers, now);
    let asked = asked.map(|it| it.min(Duration::from_secs(options.retry_after_seconds_max)));
    failed(Some(code), why, asked, id, n_tries, options)
}

/// What no answer means.
pub(super) fn unanswered(
    failure: Failure,
    id: &OutgoingId,
    n_tries: i64,
    options: &Options,
) -> Attempted {
    match failure {
        Failure::Forbidden(why) => Attempted::Dead { code: None, why },
        Failure::Failed(why) => failed(None, why, None, id, n_tries, options),
    }
}

/// A failure after which another attempt may help, unless there were enough.
pub(super) fn failed(
    code: Option<u16>,
    why: String,
    asked: Option<Duration>,
    id: &OutgoingId,
    n_tries: i64,
    options: &Options,
) -> Attempted {
    if n_tries >= i64::from(options.attempts_max) {
        return Attempted::Dead { code, why: format!("{why}; given up after {n_tries} attempts") };
    }
    let pause = pause(options, n_tries, jitter(id, n_tries));
    let pause = asked.map_or(pause, |asked| asked.max(pause));
    Attempted::Failed { code, why, pause, pause_all: asked }
}

/// Doubles with each attempt up to a bound, and lies between half of that and all of it.
fn pause(options: &Options, n_tries: i64, jitter: f64) -> Duration {
    let doublings = u32::try_from(n_tries - 1).unwrap_or(0).min(30);
    let whole = options.retry_first_ms.saturating_mul(1 << doublings);
    let whole = Duration::from_millis(whole).min(Duration::from_secs(options.retry_seconds_max));
    whole.mul_f64(0.5 + jitter / 2.0)
}

/// From 0 to 1, another one for each message and each attempt.
fn jitter(id: &OutgoingId, n_tries: i64) -> f64 {
    let mut hasher = DefaultHasher::new();
    (id, n_tries).hash(&mut hasher);
    (hasher.finish() >> 32) as f64 / f64::from(u32::MAX)
}

/// `Retry-After`, as seconds or as a date.
fn named_pause(headers: &HeaderMap, now: Timestamp) -> Option<Duration> {
    let text = headers.get(header::RETRY_AFTER)?.to_str().ok()?.trim();
    if let Ok(seconds) = text.parse::<u64>() {
        return Some(Duration::from_secs(seconds));
    }
    let at = jiff::fmt::rfc2822::DateTimeParser::new().parse_timestamp(text).ok()?;
    Some(Timestamp(at.as_millisecond()).since(now))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::Id;

    const NOW: Timestamp = Timestamp(784_111_770_000);

    fn after(status: u16, n_tries: i64, retry_after: Option<&'static str>) -> Attempted {
        let options = Options {
            retry_first_ms: 1000,
            retry_seconds_max: 60,
            retry_after_seconds_max: 600,
            attempts_max: 8,
            ..Options::default()
        };
        let mut headers = HeaderMap::new();
        if let Some(value) = retry_after {
            headers.insert(header::RETRY_AFTER, value.parse().unwrap());
        }
        let status = StatusCode::from_u16(status).unwrap();
        answered(status, &headers, &OutgoingId::new(NOW), n_tries, NOW, &options)
    }

    #[test]
    fn pauses_double_up_to_a_bound_and_are_spread() {
        for (n_tries, whole_ms) in [(1, 1000), (2, 2000), (3, 4000), (7, 60_000)] {
            let Attempted::Failed { pause, pause_all, .. } = after(500, n_tries, None) else {
                panic!("it is tried again");
            };
            assert!((whole_ms / 2..=whole_ms).contains(&pause.as_millis()), "{n_tries}: {pause:?}");
            assert_eq!(pause_all, None);
        }
        assert!(matches!(after(500, 8, None), Attempted::Dead { code: Some(500), .. }));
    }

    #[test]
    fn what_the_receiver_asks_for_is_honoured_within_a_bound() {
        let asked = |text| match after(429, 1, Some(text)) {
            Attempted::Failed { pause, pause_all, .. } => {
                assert!(pause_all.is_none_or(|all| pause >= all));
                pause_all.map(|pause| pause.as_secs())
            }
            other => panic!("{other:?}"),
        };
        assert_eq!(asked("120"), Some(120));
        assert_eq!(asked("999999999999"), Some(600));
        assert_eq!(asked("Sun, 06 Nov 1994 08:49:37 GMT"), Some(7));
        assert_eq!(asked("Sun, 06 Nov 1994 08:00:00 GMT"), Some(0));
        assert_eq!(asked("soon"), None);
        assert_eq!(asked("-1"), None);
    }

    #[test]
    fn an_answer_means_what_it_says() {
        for status in [200, 202, 204] {
            assert_eq!(after(status, 1, None), Attempted::Sent { code: status });
        }
        assert_eq!(after(410, 1, None), Attempted::Gone { code: 410 });
        for status in [301, 302, 307, 400, 401, 404, 408, 429, 500, 503] {
            assert!(matches!(after(status, 1, None), Attempted::Failed { .. }), "{status}");
        }
    }
}
