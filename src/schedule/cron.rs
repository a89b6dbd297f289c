//! When a schedule comes: five fields of cron in a time zone.
//!
//! Pure: it is told what time it is. Invariant: a time matches when the wall clock of the zone shows
//! it, minute by minute. What the clock skips in spring does not come on that day, and what it shows
//! twice in autumn comes twice. Left out: seconds, years, and the words and letters that some crons
//! have beyond POSIX, which are refused by name.

use jiff::{
    SignedDuration,
    civil::{Date, DateTime},
    tz::TimeZone,
};

use crate::{
    clock::Timestamp,
    domain::{Problem, deployment::Schedule},
};

/// Longest expression and zone, in characters.
const CHARS_MAX: usize = 256;

/// Years that are looked through for a time that matches. The 29th of February comes after at most
/// eight, on one day of the week after at most forty.
const YEARS_MAX: i16 = 41;

/// Name, least and greatest value, and names of values, of which the first is the least.
const FIELDS: [(&str, u8, u8, &[&str]); 5] = [
    ("minute", 0, 59, &[]),
    ("hour", 0, 23, &[]),
    ("day of month", 1, 31, &[]),
    ("month", 1, 12, &MONTHS),
    ("day of week", 0, 7, &WEEKDAYS),
];

const MONTHS: [&str; 12] =
    ["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"];
const WEEKDAYS: [&str; 7] = ["sun", "mon", "tue", "wed", "thu", "fri", "sat"];

/// A schedule that can be asked when it comes.
#[derive(Clone, Debug)]
pub struct Cron {
    pub(super) minutes: u64,
    pub(super) hours: u64,
    pub(super) days: u64,
    pub(super) months: u64,
    /// Sunday is 0.
    pub(super) weekdays: u64,
    /// Whether a day has to be in both lists, because one of them is open.
    pub(super) both_days: bool,
    zone: TimeZone,
}

impl Cron {
    /// Reads expression and zone, or says what is wrong with them.
    pub fn parse(schedule: &Schedule) -> Result<Cron, Problem> {
        let zone =
            zone(&schedule.timezone).map_err(|why| Problem::new("schedule.timezone", why))?;
        let wrong = |why| Problem::new("schedule.expression", why);
        let cron = Cron::read(&schedule.expression, zone).map_err(wrong)?;
        let year = Date::constant(2023, 3, 1).to_datetime(jiff::civil::Time::midnight());
        match cron.next_civil(year, true) {
            Some(_) => Ok(cron),
            None => Err(wrong("never comes: no month of these has such a day".to_owned())),
        }
    }

    fn read(expression: &str, zone: TimeZone) -> Result<Cron, String> {
        if expression.chars().count() > CHARS_MAX {
            return Err(format!("is longer than {CHARS_MAX} characters"));
        }
        if expression.trim_start().starts_with('@') {
            return Err("must have five fields; shortcuts such as `@daily` are not supported, \
                        which is `0 0 * * *`"
                .to_owned());
        }
        let fields: Vec<&str> = expression.split_whitespace().collect();
        let Ok(fields) = <[&str; 5]>::try_from(fields.as_slice()) else {
            return Err(format!(
                "has {} fields and must have five: minute, hour, day of month, month, day of week",
                fields.len()
            ));
        };
        let mut sets = [0; 5];
        for (n, text) in fields.iter().enumerate() {
            let (name, ..) = FIELDS[n];
            sets[n] = field(text, FIELDS[n]).map_err(|why| format!("the {name} `{text}` {why}"))?;
        }
        let [minutes, hours, days, months, weekdays] = sets;
        // Both 0 and 7 are Sunday.
        let weekdays = (weekdays | weekdays >> 7) & 0x7f;
        let both_days = fields[2].starts_with('*') || fields[4].starts_with('*');
        Ok(Cron { minutes, hours, days, months, weekdays, both_days, zone })
    }

    /// The first time after this one. None where there is none within the years that computers know.
    pub fn next(&self, after: Timestamp) -> Option<Timestamp> {
        let mut from = jiff::Timestamp::from_millisecond(after.0).ok()?;
        // Whatever comes is on a whole minute later than `after`, but for the change of an offset.
        let mut inclusive = false;
        for _ in 0..4 * usize::from(YEARS_MAX.unsigned_abs()) {
            // Until the next change of its offset the zone's clock goes like any other.
            let offset = self.zone.to_offset(from);
            let until = self.zone.following(from).next().map(|change| change.timestamp());
            let civil = self.next_civil(offset.to_datetime(from), inclusive)?;
            let found = offset.to_timestamp(civil).ok()?;
            match until {
                Some(until) if found >= until => (from, inclusive) = (until, true),
                _ => return Some(Timestamp(found.as_millisecond())),
            }
        }
        None
    }

    /// The first times after this one, at most so many.
    pub fn upcoming(&self, after: Timestamp, n: usize) -> Vec<Timestamp> {
        let next = |at: &Timestamp| self.next(*at);
        std::iter::successors(self.next(after), next).take(n).collect()
    }

    /// The next minute of a clock without a zone that matches.
    fn next_civil(&self, from: DateTime, inclusive: bool) -> Option<DateTime> {
        let whole = from.second() == 0 && from.subsec_nanosecond() == 0;
        let start = from.with().second(0).subsec_nanosecond(0).build().ok()?;
        let mut at = match whole && inclusive {
            true => start,
            false => start.checked_add(SignedDuration::from_mins(1)).ok()?,
        };
        let last_year = from.year().saturating_add(YEARS_MAX);
        while at.year() <= last_year {
            if !has(self.months, at.month()) {
                at = at.date().last_of_month().tomorrow().ok()?.into();
            } else if !self.matches(at.date()) {
                at = at.date().tomorrow().ok()?.into();
            } else if !has(self.hours, at.hour()) {
                let hour = at.with().minute(0).build().ok()?;
                at = hour.checked_add(SignedDuration::from_hours(1)).ok()?;
            } else if !has(self.minutes, at.minute()) {
                at = at.checked_add(SignedDuration::from_mins(1)).ok()?;
            } else {
                return Some(at);
            }
        }
        None
    }

    /// POSIX: where both kinds of day are given, a day need be in one of the lists only.
    fn matches(&self, date: Date) -> bool {
        let day = has(self.days, date.day());
        let weekday = has(self.weekdays, date.weekday().to_sunday_zero_offset());
        if self.both_days { day && weekday } else { day || weekday }
    }
}

/// As [`Cron::next`], of a schedule that was looked at before: never, if it cannot be read any more.
pub fn next(schedule: &Schedule, after: Timestamp) -> Option<Timestamp> {
    Cron::parse(schedule).ok()?.next(after)
}

fn has(set: u64, value: i8) -> bool {
    u32::try_from(value).is_ok_and(|value| set & (1 << value) != 0)
}

fn zone(name: &str) -> Result<TimeZone, String> {
    let wrong = || {
        "is no time zone of IANA, such as `Europe/Berlin`, `America/Los_Angeles` or `UTC`"
            .to_owned()
    };
    if name.is_empty() || name.chars().count() > CHARS_MAX {
        return Err(wrong());
    }
    TimeZone::get(name).map_err(|_| wrong())
}

/// The values of a field, as bits.
fn field(text: &str, known: (&str, u8, u8, &[&str])) -> Result<u64, String> {
    let (_, least, greatest, _) = known;
    let mut set = 0;
    for part in text.split(',') {
        let (range, step) = match part.split_once('/') {
            None => (part, None),
            Some((range, step)) => {
                let step = step.parse::<u8>().ok().filter(|step| *step > 0);
                let step = step.ok_or("has a step that is no whole number from 1 to 255")?;
                (range, Some(step))
            }
        };
        let (first, last) = match (range, range.split_once('-')) {
            ("*", _) => (least, greatest),
            (_, Some((first, last))) => (value(first, known)?, value(last, known)?),
            (one, None) if step.is_some() => {
                return Err(format!("has a step after `{one}`: say `{one}-{greatest}`"));
            }
            (one, None) => (value(one, known)?, value(one, known)?),
        };
        if first > last {
            return Err(format!("has a range that goes backwards, from {first} to {last}"));
        }
        for value in (first..=last).step_by(usize::from(step.unwrap_or(1))) {
            set |= 1 << value;
        }
    }
    Ok(set)
}

fn value(text: &str, (_, least, greatest, names): (&str, u8, u8, &[&str])) -> Result<u8, String> {
    let lower = text.to_ascii_lowercase();
    if let Some(at) = names.iter().position(|name| *name == lower) {
        return Ok(least + u8::try_from(at).unwrap_or(0));
    }
    if text.is_empty() {
        return Err("has an empty part".to_owned());
    }
    if text.bytes().all(|byte| byte.is_ascii_digit()) {
        return match text.parse::<u8>() {
            Ok(value) if (least..=greatest).contains(&value) => Ok(value),
            _ => Err(format!("goes from {least} to {greatest}, and {text} is not among them")),
        };
    }
    let (shown, _) = crate::domain::text::first_chars(text, 20);
    if text.contains(['L', 'W', '#', '?', 'l', 'w']) && names.is_empty()
        || text.contains(['#', '?'])
    {
        return Err("has one of `L`, `W`, `#` and `?`, which are not supported".to_owned());
    }
    Err(format!("has `{shown}`, which is no value from {least} to {greatest}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cron(expression: &str, timezone: &str) -> Result<Cron, Problem> {
        let (expression, timezone) = (expression.to_owned(), timezone.to_owned());
        Cron::parse(&Schedule { expression, timezone })
    }

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    fn check(expression: &str, timezone: &str, after: &str, expected: &[&str]) {
        let found = cron(expression, timezone).unwrap().upcoming(at(after), expected.len());
        let expected: Vec<Timestamp> = expected.iter().map(|text| at(text)).collect();
        assert_eq!(found, expected, "{expression} in {timezone}");
    }

    #[test]
    fn times_come_by_the_wall_clock_of_the_zone() {
        let weekdays = ["2026-11-30T08:00:00Z", "2026-12-01T08:00:00Z"];
        check("0 9 * * 1-5", "Europe/Berlin", "2026-11-27T08:00:00Z", &weekdays);
        check("0 9 * * mon-FRI", "Europe/Berlin", "2026-11-27T09:00:00Z", &weekdays);
        let quarters = ["2026-01-01T00:15:00Z", "2026-01-01T00:30:00Z", "2026-01-01T00:45:00Z"];
        check("*/15 * * * *", "UTC", "2026-01-01T00:00:00.001Z", &quarters);
        check("15,30-45/15 0 * * *", "UTC", "2026-01-01T00:00:00Z", &quarters);
        check("0 0 29 2 *", "UTC", "2026-01-01T00:00:00Z", &["2028-02-29T00:00:00Z"]);
        check("30 5 * * *", "Asia/Kathmandu", "2026-01-01T00:00:00Z", &["2026-01-01T23:45:00Z"]);
        // Before 1970 and in whatever comes.
        check("0 0 1 1 *", "UTC", "1969-12-31T23:59:59Z", &["1970-01-01T00:00:00Z"]);
    }

    #[test]
    fn a_day_is_in_one_of_two_lists_or_in_the_only_one() {
        // Friday, and the 13th.
        check(
            "0 0 13 * 5",
            "UTC",
            "2026-03-07T00:00:00Z",
            &[
                "2026-03-13T00:00:00Z",
                "2026-03-20T00:00:00Z",
                "2026-03-27T00:00:00Z",
                "2026-04-03T00:00:00Z",
                "2026-04-10T00:00:00Z",
                "2026-04-13T00:00:00Z",
            ],
        );
        check("0 0 * * 7", "UTC", "2026-03-07T00:00:00Z", &["2026-03-08T00:00:00Z"]);
        check("0 0 * * 0", "UTC", "2026-03-07T00:00:00Z", &["2026-03-08T00:00:00Z"]);
        // An open list with a step is open.
        check("0 0 */2 * 1", "UTC", "2026-03-01T00:00:00Z", &["2026-03-09T00:00:00Z"]);
    }

    #[test]
    fn what_the_clock_skips_does_not_come_and_what_it_shows_twice_comes_twice() {
        let berlin = "Europe/Berlin";
        // 2026-03-29: 01:59:59+01 is followed by 03:00:00+02.
        check(
            "30 2 * * *",
            berlin,
            "2026-03-28T00:00:00Z",
            &["2026-03-28T01:30:00Z", "2026-03-30T00:30:00Z"],
        );
        check(
            "*/30 1-3 29 3 *",
            berlin,
            "2026-03-28T12:00:00Z",
            &[
                "2026-03-29T00:00:00Z",
                "2026-03-29T00:30:00Z",
                "2026-03-29T01:00:00Z",
                "2026-03-29T01:30:00Z",
                "2027-03-28T23:00:00Z",
            ],
        );
        // 2026-10-25: 02:59:59+02 is followed by 02:00:00+01.
        check(
            "30 2 25 10 *",
            berlin,
            "2026-10-24T00:00:00Z",
            &["2026-10-25T00:30:00Z", "2026-10-25T01:30:00Z", "2027-10-25T00:30:00Z"],
        );
        check(
            "0 2 25 10 *",
            berlin,
            "2026-10-24T00:00:00Z",
            &["2026-10-25T00:00:00Z", "2026-10-25T01:00:00Z"],
        );
        // Half an hour, in the other half of the year.
        check(
            "45 1 4 10 *",
            "Australia/Lord_Howe",
            "2026-10-03T00:00:00Z",
            &["2026-10-03T15:15:00Z"],
        );
        check(
            "15 2 4 10 *",
            "Australia/Lord_Howe",
            "2026-10-03T00:00:00Z",
            &["2027-10-03T15:15:00Z"],
        );
        // A whole day that was not: Samoa went from the 29th to the 31st.
        check("0 12 30 12 *", "Pacific/Apia", "2011-12-01T00:00:00Z", &["2012-12-29T22:00:00Z"]);
    }

    #[test]
    fn a_minute_that_was_looked_for_step_by_step_is_the_same() {
        for (expression, timezone, start) in [
            ("7-59/13 */5 * * *", "America/New_York", "2026-03-07T00:00:00Z"),
            ("0 1 * * *", "America/New_York", "2026-10-31T00:00:00Z"),
            ("*/7 0-4 1,8 3,11 *", "America/New_York", "2026-03-07T00:00:00Z"),
            ("59 23 31 12 4", "Europe/Dublin", "2026-12-01T00:00:00Z"),
        ] {
            let cron = cron(expression, timezone).unwrap();
            let start = at(start);
            let minutes = (1..=4 * 24 * 60).map(|n| Timestamp(start.0 + n * 60_000));
            let shows = |at: &Timestamp| {
                let civil = cron.zone.to_datetime(jiff::Timestamp::from_millisecond(at.0).unwrap());
                has(cron.months, civil.month())
                    && cron.matches(civil.date())
                    && has(cron.hours, civil.hour())
                    && has(cron.minutes, civil.minute())
            };
            let slow: Vec<Timestamp> = minutes.filter(shows).collect();
            assert_eq!(cron.upcoming(start, slow.len()), slow, "{expression} in {timezone}");
        }
    }

    #[test]
    fn mistakes_are_said_in_words() {
        for (expression, timezone, said) in [
            ("", "UTC", "schedule.expression: has 0 fields and must have five"),
            ("0 9 * *", "UTC", "has 4 fields"),
            ("0 0 9 * * 1", "UTC", "has 6 fields"),
            ("@daily", "UTC", "`0 0 * * *`"),
            ("60 * * * *", "UTC", "the minute `60` goes from 0 to 59"),
            ("0 24 * * *", "UTC", "the hour `24` goes from 0 to 23"),
            ("0 0 0 * *", "UTC", "the day of month `0` goes from 1 to 31"),
            ("0 0 L * *", "UTC", "the day of month `L` has one of `L`, `W`, `#` and `?`"),
            ("0 0 ? * 1", "UTC", "not supported"),
            ("0 0 * * 5#2", "UTC", "not supported"),
            ("0 0 15W * *", "UTC", "not supported"),
            ("0 0 * 13 *", "UTC", "the month `13`"),
            ("0 0 * * fry", "UTC", "the day of week `fry` has `fry`"),
            ("*/0 * * * *", "UTC", "has a step that is no whole number"),
            ("5/10 * * * *", "UTC", "say `5-59`"),
            ("30-10 * * * *", "UTC", "goes backwards, from 30 to 10"),
            ("1,,2 * * * *", "UTC", "has an empty part"),
            ("-1 * * * *", "UTC", "has an empty part"),
            ("+1 * * * *", "UTC", "has `+1`"),
            ("0 0 30 2 *", "UTC", "never comes"),
            ("0 0 31 4,6 *", "UTC", "never comes"),
            ("* * * * *", "", "schedule.timezone: is no time zone of IANA"),
            ("* * * * *", "Berlin", "is no time zone"),
            ("* * * * *", "../../etc/passwd", "is no time zone"),
        ] {
            let problem = cron(expression, timezone).unwrap_err().to_string();
            assert!(problem.contains(said), "{expression} {timezone}: {problem}");
        }
    }
}
