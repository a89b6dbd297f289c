//! A schedule in words: `every weekday at 09:00, Europe/Berlin`.
//!
//! Pure, and made from what [`Cron`] understood, so that the words say when it comes and not how it was
//! written. Invariant: nothing of the schedule is left out; what has no short words is listed. Left
//! out: other languages than English.

use jiff::tz::TimeZone;

use super::cron::Cron;
use crate::{clock::Timestamp, domain::deployment::Schedule};

const ALL_MINUTES: u64 = (1 << 60) - 1;
const ALL_HOURS: u64 = (1 << 24) - 1;
const ALL_DAYS: u64 = ((1 << 31) - 1) << 1;
const ALL_MONTHS: u64 = ((1 << 12) - 1) << 1;
const ALL_WEEKDAYS: u64 = (1 << 7) - 1;
/// Monday to Friday, and the rest.
const WORKDAYS: u64 = 0b011_1110;
const WEEKEND: u64 = 0b100_0001;

/// Times of a day that are told one by one.
const TIMES_MAX: usize = 6;

const MONTHS: [&str; 12] = [
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
];

/// From Monday on, as weeks are told.
const WEEKDAYS: [&str; 7] =
    ["Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"];

/// What a schedule says, with its time zone. One that cannot be read is said as it is.
pub fn words(schedule: &Schedule) -> String {
    let said = match Cron::parse(schedule) {
        Ok(cron) => sentence(&cron),
        Err(_) => schedule.expression.clone(),
    };
    format!("{said}, {}", schedule.timezone)
}

/// A time as the clock of the schedule's zone shows it: `Mon 30 Nov 2026, 09:00`.
pub fn local(schedule: &Schedule, at: Timestamp) -> String {
    let zone = TimeZone::get(&schedule.timezone);
    let moment = jiff::Timestamp::from_millisecond(at.0);
    match (zone, moment) {
        (Ok(zone), Ok(moment)) => moment.to_zoned(zone).strftime("%a %-d %b %Y, %H:%M").to_string(),
        _ => at.to_string(),
    }
}

fn sentence(cron: &Cron) -> String {
    let (time, repeats) = time(cron.minutes, cron.hours);
    let day = day(cron);
    match (day, repeats) {
        (None, true) => time,
        (None, false) => format!("every day {time}"),
        (Some(day), true) => format!("{time}, {day}"),
        (Some(day), false) => format!("{day} {time}"),
    }
}

/// The times of a day, and whether they come again and again in it.
fn time(minutes: u64, hours: u64) -> (String, bool) {
    let (m, h) = (values(minutes), values(hours));
    let within = match (hours == ALL_HOURS, is_run(&h)) {
        (true, _) => Some(String::new()),
        // Up to the last minute that comes.
        (false, true) if h.len() > 1 || m.len() > TIMES_MAX => {
            let (first, last) = (clock(h[0], m[0]), clock(h[h.len() - 1], m[m.len() - 1]));
            Some(format!(" from {first} to {last}"))
        }
        (false, _) => None,
    };
    if m.len() * h.len() <= TIMES_MAX {
        let times = h.iter().flat_map(|hour| m.iter().map(|minute| clock(*hour, *minute)));
        return (format!("at {}", list(&times.collect::<Vec<_>>())), false);
    }
    if let Some(within) = within {
        let each = match step(&m, 60) {
            Some(1) => Some("every minute".to_owned()),
            Some(n) => Some(format!("every {n} minutes")),
            None if m == [0] => Some("every hour".to_owned()),
            None if m.len() == 1 && !within.is_empty() => Some("every hour".to_owned()),
            None => None,
        };
        let each = each.unwrap_or_else(|| format!("every hour at {}", minutes_past(&m)));
        return (format!("{each}{within}"), true);
    }
    let at = if m == [0] { String::new() } else { format!(" at {}", minutes_past(&m)) };
    let said = match (step(&h, 24), minutes == ALL_MINUTES) {
        (Some(n), false) => format!("every {n} hours{at}"),
        (_, true) => format!("every minute of the hours {}", list(&hours_of(&h))),
        (None, false) => format!("at {} of the hours {}", minutes_past(&m), list(&hours_of(&h))),
    };
    (said, true)
}

fn hours_of(hours: &[usize]) -> Vec<String> {
    hours.iter().map(|hour| format!("{hour:02}")).collect()
}

fn clock(hour: usize, minute: usize) -> String {
    format!("{hour:02}:{minute:02}")
}

fn minutes_past(minutes: &[usize]) -> String {
    let word = if minutes.len() == 1 { "minute" } else { "minutes" };
    format!("{word} {}", ranges(minutes, |it| it.to_string()))
}

/// The days; none where every day is meant.
fn day(cron: &Cron) -> Option<String> {
    let weekday = (cron.weekdays != ALL_WEEKDAYS).then(|| weekdays(cron.weekdays));
    let date = (cron.days != ALL_DAYS).then(|| dates(cron.days));
    let months = (cron.months != ALL_MONTHS).then(|| months(cron.months));
    let of = months.as_deref().unwrap_or("every month");
    match (date, weekday) {
        (None, None) => months.map(|months| format!("every day in {months}")),
        (None, Some(weekday)) => Some(match months {
            Some(months) => format!("{weekday} in {months}"),
            None => weekday,
        }),
        (Some(date), None) => Some(format!("on the {date} of {of}")),
        (Some(date), Some(weekday)) if cron.both_days => {
            Some(format!("on the {date} of {of}, where that is in “{weekday}”"))
        }
        (Some(date), Some(weekday)) => Some(match &months {
            Some(months) => format!("on the {date} of {of} and {weekday} in {months}"),
            None => format!("on the {date} of {of} and {weekday}"),
        }),
    }
}

fn weekdays(set: u64) -> String {
    match set {
        WORKDAYS => "every weekday".to_owned(),
        WEEKEND => "every Saturday and Sunday".to_owned(),
        _ => {
            let from_monday = |at: &usize| set & (1 << ((at + 1) % 7)) != 0;
            let at: Vec<usize> = (0..7).filter(from_monday).collect();
            format!("every {}", ranges(&at, |at| WEEKDAYS[at].to_owned()))
        }
    }
}

fn dates(set: u64) -> String {
    ranges(&values(set), |day| {
        let ending = match (day % 10, day / 10) {
            (1, 0 | 2 | 3) => "st",
            (2, 0 | 2) => "nd",
            (3, 0 | 2) => "rd",
            _ => "th",
        };
        format!("{day}{ending}")
    })
}

fn months(set: u64) -> String {
    ranges(&values(set), |month| MONTHS[month - 1].to_owned())
}

fn values(set: u64) -> Vec<usize> {
    (0..64).filter(|at| set & (1 << at) != 0).collect()
}

/// Whether each value is one more than the one before.
fn is_run(values: &[usize]) -> bool {
    values.windows(2).all(|pair| pair[1] == pair[0] + 1)
}

/// The distance between values that go evenly round a clock, from 0.
fn step(values: &[usize], round: usize) -> Option<usize> {
    let (first, second) = (*values.first()?, *values.get(1)?);
    let step = second - first;
    let even = values.windows(2).all(|pair| pair[1] - pair[0] == step);
    (first == 0 && even && step * values.len() == round).then_some(step)
}

/// Values as a list, three and more in a row as a range.
fn ranges(values: &[usize], name: impl Fn(usize) -> String) -> String {
    let mut parts: Vec<String> = Vec::new();
    let mut at = 0;
    while at < values.len() {
        let mut end = at;
        while end + 1 < values.len() && values[end + 1] == values[end] + 1 {
            end += 1;
        }
        if end - at >= 2 {
            parts.push(format!("{} to {}", name(values[at]), name(values[end])));
            at = end + 1;
        } else {
            parts.push(name(values[at]));
            at += 1;
        }
    }
    list(&parts)
}

fn list(parts: &[String]) -> String {
    match parts {
        [] => String::new(),
        [one] => one.clone(),
        [first @ .., last] => format!("{} and {last}", first.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(expression: &str, expected: &str) {
        let (expression, timezone) = (expression.to_owned(), "Europe/Berlin".to_owned());
        let said = words(&Schedule { expression: expression.clone(), timezone });
        assert_eq!(said, format!("{expected}, Europe/Berlin"), "{expression}");
    }

    #[test]
    fn times_of_a_day() {
        check("0 9 * * *", "every day at 09:00");
        check("30 6,18 * * *", "every day at 06:30 and 18:30");
        check("0,30 9-11 * * *", "every day at 09:00, 09:30, 10:00, 10:30, 11:00 and 11:30");
        check("0 0 * * *", "every day at 00:00");
        check("1-3 4 * * *", "every day at 04:01, 04:02 and 04:03");
    }

    #[test]
    fn times_that_come_again_and_again() {
        check("* * * * *", "every minute");
        check("*/5 * * * *", "every 5 minutes");
        check("0,30 * * * *", "every 30 minutes");
        check("0-59/20 * * * *", "every 20 minutes");
        check("0 * * * *", "every hour");
        check("7 * * * *", "every hour at minute 7");
        check("5,20-22 * * * *", "every hour at minutes 5 and 20 to 22");
        check("0 */2 * * *", "every 2 hours");
        check("15 */3 * * *", "every 3 hours at minute 15");
        check("0 8-18 * * *", "every hour from 08:00 to 18:00");
        check("30 8-18 * * *", "every hour from 08:30 to 18:30");
        check("*/15 9-17 * * *", "every 15 minutes from 09:00 to 17:45");
        check("* 9 * * *", "every minute from 09:00 to 09:59");
        check("*/10 9-10 * * *", "every 10 minutes from 09:00 to 10:50");
        // Not evenly round the clock: said one by one.
        check("*/40 * * * *", "every hour at minutes 0 and 40");
        check("10,40 9-17 * * *", "every hour at minutes 10 and 40 from 09:10 to 17:40");
        check("0 1,2,4,5,7,8,23 * * *", "at minute 0 of the hours 01, 02, 04, 05, 07, 08 and 23");
        check("* 1,3 * * *", "every minute of the hours 01 and 03");
    }

    #[test]
    fn days_of_the_week() {
        check("0 9 * * 1-5", "every weekday at 09:00");
        check("0 9 * * mon-fri", "every weekday at 09:00");
        check("0 9 * * 0,6", "every Saturday and Sunday at 09:00");
        check("0 9 * * 6-7", "every Saturday and Sunday at 09:00");
        check("0 9 * * 0", "every Sunday at 09:00");
        check("0 9 * * 7", "every Sunday at 09:00");
        check("0 9 * * 1,4", "every Monday and Thursday at 09:00");
        check("0 9 * * 1-4", "every Monday to Thursday at 09:00");
        check("0 9 * * 0-6", "every day at 09:00");
        check("*/15 9-17 * * 1-5", "every 15 minutes from 09:00 to 17:45, every weekday");
        check("0 * * * 1", "every hour, every Monday");
    }

    #[test]
    fn days_of_the_month_and_months() {
        check("0 6 1 * *", "on the 1st of every month at 06:00");
        check("0 6 1,15 * *", "on the 1st and 15th of every month at 06:00");
        check(
            "0 6 2-4,11-13,21,22,23,31 * *",
            "on the 2nd to 4th, 11th to 13th, 21st to 23rd and 31st of every month at 06:00",
        );
        check("0 0 1 1 *", "on the 1st of January at 00:00");
        check("0 0 29 2 *", "on the 29th of February at 00:00");
        check("0 0 1 1,7 *", "on the 1st of January and July at 00:00");
        check("0 9 * 3-10 *", "every day in March to October at 09:00");
        check("0 9 * 12 1-5", "every weekday in December at 09:00");
        check("0 * 24 12 *", "every hour, on the 24th of December");
    }

    #[test]
    fn two_kinds_of_day() {
        check("0 0 13 * 5", "on the 13th of every month and every Friday at 00:00");
        check("0 0 13 5 5", "on the 13th of May and every Friday in May at 00:00");
        // An open list with a step narrows the other one.
        check(
            "0 0 */10 * 1",
            "on the 1st, 11th, 21st and 31st of every month, where that is in “every Monday” at 00:00",
        );
    }

    #[test]
    fn a_time_is_shown_by_the_clock_of_the_zone() {
        let check = |timezone: &str, expected: &str| {
            let (expression, timezone) = ("0 9 * * *".to_owned(), timezone.to_owned());
            let at = "2026-11-30T23:00:00Z".parse().unwrap();
            assert_eq!(local(&Schedule { expression, timezone }, at), expected);
        };
        check("Europe/Berlin", "Tue 1 Dec 2026, 00:00");
        check("UTC", "Mon 30 Nov 2026, 23:00");
        check("Mars/Base", "2026-11-30T23:00:00.000Z");
    }

    #[test]
    fn what_cannot_be_read_is_said_as_it_is() {
        check("whenever", "whenever");
        let unknown = Schedule { expression: "0 9 * * *".into(), timezone: "Mars/Base".into() };
        assert_eq!(words(&unknown), "0 9 * * *, Mars/Base");
    }
}
