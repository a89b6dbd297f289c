//! A point in time as a person gives it: how long ago, or exactly.

use std::time::Duration;

use crate::clock::Timestamp;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Moment {
    Ago(Duration),
    At(Timestamp),
}

impl Moment {
    pub(super) fn of(self, now: Timestamp) -> Timestamp {
        match self {
            Moment::Ago(duration) => now.minus(duration),
            Moment::At(time) => time,
        }
    }
}

pub(super) fn moment(text: &str) -> Result<Moment, String> {
    let wrong = || "must be as `7d`, `12h`, `30m` and `10s`, or a time of RFC 3339".to_owned();
    match duration(text) {
        Ok(duration) => Ok(Moment::Ago(duration)),
        Err(_) => text.parse().map(Moment::At).map_err(|_| wrong()),
    }
}

pub(super) fn duration(text: &str) -> Result<Duration, String> {
    let wrong = || "must be a number and `d`, `h`, `m` or `s`, such as 7d".to_owned();
    let unit = text.chars().last().ok_or_else(wrong)?;
    let n: u64 = text.strip_suffix(unit).and_then(|n| n.parse().ok()).ok_or_else(wrong)?;
    let seconds = match unit {
        'd' => 24 * 3600,
        'h' => 3600,
        'm' => 60,
        's' => 1,
        _ => return Err(wrong()),
    };
    n.checked_mul(seconds).map(Duration::from_secs).ok_or_else(wrong)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_are_said_in_two_ways() {
        let now = Timestamp(1_800_000_000_000);
        let check = |text: &str, expected: Option<i64>| {
            let read = moment(text).ok().map(|it| it.of(now).0 - now.0);
            assert_eq!(read, expected, "{text}");
        };
        check("7d", Some(-7 * 24 * 3_600_000));
        check("90s", Some(-90_000));
        check("2027-01-15T08:00:01Z", Some(1000));
        for wrong in ["", "7", "d", "7w", "-1d", "yesterday", "2027-01-15"] {
            check(wrong, None);
        }
    }
}
