//! The time that a request says it was made at, and whether that is near enough.

use super::Watch;
use crate::{
    clock::Timestamp,
    domain::verifier::{Stamp, Unit},
};

/// Refuses a time that cannot be read, or that is too far from ours.
pub(super) fn check(rule: &Stamp, text: &str, watch: Watch<'_>) -> Result<(), String> {
    watch.notes.begin("timestamp");
    let at = read(rule.unit, text)?;
    let age_ms = watch.now.0.saturating_sub(at);
    let seconds = age_ms.unsigned_abs() / 1000;
    let Some(tolerance) = rule.tolerance_seconds else {
        watch.notes.found(|| format!("{}, of any age", Timestamp(at)));
        return Ok(());
    };
    let tolerance_ms = i64::from(tolerance) * 1000;
    if age_ms > tolerance_ms {
        Err(format!("timestamp {seconds} s old, {tolerance} s are allowed"))
    } else if age_ms < -tolerance_ms {
        Err(format!("timestamp {seconds} s in the future, {tolerance} s are allowed"))
    } else {
        let side = if age_ms < 0 { "in the future" } else { "old" };
        let at = Timestamp(at);
        watch.notes.found(|| format!("{at}, {seconds} s {side}, {tolerance} s are allowed"));
        Ok(())
    }
}

/// A time as a sender writes it.
pub(in crate::ingest) fn write(unit: Unit, at: Timestamp) -> String {
    let date = jiff::Timestamp::from_millisecond(at.0).unwrap_or_default();
    match unit {
        Unit::Seconds => (at.0 / 1000).to_string(),
        Unit::Milliseconds => at.0.to_string(),
        Unit::Rfc3339 => at.to_string(),
        Unit::HttpDate => jiff::fmt::rfc2822::DateTimePrinter::new()
            .timestamp_to_rfc9110_string(&date)
            .unwrap_or_default(),
    }
}

/// Milliseconds since 1970. Numbers are digits and nothing else: no sign, no fraction, no space.
fn read(unit: Unit, text: &str) -> Result<i64, String> {
    let digits = || {
        let plain = (1..=18).contains(&text.len()) && text.bytes().all(|it| it.is_ascii_digit());
        plain.then(|| text.parse::<i64>().ok()).flatten()
    };
    let at = match unit {
        Unit::Seconds => digits().and_then(|seconds| seconds.checked_mul(1000)),
        Unit::Milliseconds => digits(),
        Unit::Rfc3339 => {
            // The grammar is wider than what senders write; more letters than a date needs are odd.
            let is_short = (20..=40).contains(&text.len());
            let at = is_short.then(|| text.parse::<jiff::Timestamp>().ok()).flatten();
            at.map(jiff::Timestamp::as_millisecond)
        }
        Unit::HttpDate => {
            let at = jiff::fmt::rfc2822::DateTimeParser::new().parse_timestamp(text).ok();
            at.map(jiff::Timestamp::as_millisecond)
        }
    };
    at.ok_or_else(|| {
        let wanted = match unit {
            Unit::Seconds => "a whole number of seconds",
            Unit::Milliseconds => "a whole number of milliseconds",
            Unit::Rfc3339 => "a date of RFC 3339",
            Unit::HttpDate => "a date of HTTP",
        };
        format!("the timestamp is not {wanted}")
    })
}

#[cfg(test)]
mod tests {
    use super::{super::Notes, *};

    #[test]
    fn only_plain_times_near_ours_pass() {
        let now = Timestamp(1_616_648_967_000);
        let check = |unit: Unit, text: &str, expected: Result<(), &str>| {
            let rule = Stamp { unit, tolerance_seconds: Some(300), ..Stamp::default() };
            let notes = Notes::none();
            let found = check(&rule, text, Watch { now, notes: &notes });
            assert_eq!(found, expected.map_err(str::to_owned), "{text}");
        };
        check(Unit::Seconds, "1616648967", Ok(()));
        check(Unit::Seconds, "1616648667", Ok(()));
        let old = "timestamp 301 s old, 300 s are allowed";
        check(Unit::Seconds, "1616648666", Err(old));
        check(Unit::Seconds, "1616649267", Ok(()));
        let early = "timestamp 301 s in the future, 300 s are allowed";
        check(Unit::Seconds, "1616649268", Err(early));
        check(Unit::Milliseconds, "1616648967999", Ok(()));
        check(Unit::Rfc3339, "2021-03-25T05:09:27Z", Ok(()));
        check(Unit::Rfc3339, "2021-03-25T06:09:27.5+01:00", Ok(()));
        check(Unit::HttpDate, "Thu, 25 Mar 2021 05:09:27 GMT", Ok(()));
        let seconds = "the timestamp is not a whole number of seconds";
        for text in [
            "",
            "-1",
            "+1616648967",
            " 1616648967",
            "1616648967.0",
            "1e9",
            "0x1",
            "9999999999999999999",
            "١٦",
        ] {
            check(Unit::Seconds, text, Err(seconds));
        }
        check(Unit::Seconds, "999999999999999999", Err(seconds));
        for text in ["", "1616648967", "2021-03-25", "2021-03-25T05:09:27"] {
            check(Unit::Rfc3339, text, Err("the timestamp is not a date of RFC 3339"));
        }
    }

    #[test]
    fn what_is_written_is_read() {
        let at = Timestamp(1_616_648_967_000);
        for unit in [Unit::Seconds, Unit::Milliseconds, Unit::Rfc3339, Unit::HttpDate] {
            assert_eq!(read(unit, &write(unit, at)), Ok(at.0), "{unit:?}");
        }
    }

    #[test]
    fn without_a_tolerance_only_the_form_counts() {
        let rule = Stamp::default();
        let notes = Notes::none();
        let check = |text, now| check(&rule, text, Watch { now, notes: &notes });
        assert_eq!(check("1", Timestamp(i64::MAX)), Ok(()));
        assert!(check("x", Timestamp(0)).is_err());
    }
}
