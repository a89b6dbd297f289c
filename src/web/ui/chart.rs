//! Small charts as SVG, made here: bars on each other, marks on a scale of decades, and days. They need no
//! script, and the colours are classes of the style sheet.
//!
//! Invariant: what a chart shows it also says in words, for whoever cannot see it.

use std::time::Duration;

use super::view::count;
use crate::clock::Timestamp;

/// Of the drawing: what the template writes into `viewBox`.
const WIDTH: f64 = 480.0;
const HEIGHT: f64 = 96.0;

/// What is not nothing can be seen.
const HEIGHT_MIN: f64 = 1.5;

#[derive(Debug)]
pub(super) struct Chart {
    pub(super) title: &'static str,
    /// Beside the title: what it all comes to, or what its height stands for.
    pub(super) total: String,
    pub(super) bars: Vec<Bar>,
    pub(super) keys: Vec<Key>,
    /// The ends of the time that it shows.
    pub(super) axis: (String, String),
    /// What there is to see, as it is spoken.
    pub(super) said: String,
    /// Whether there is nothing to draw; then it is only said.
    pub(super) is_empty: bool,
}

#[derive(Debug)]
pub(super) struct Series {
    pub(super) class: &'static str,
    pub(super) word: &'static str,
    pub(super) values: Vec<u64>,
}

#[derive(Debug)]
pub(super) struct Bar {
    pub(super) class: &'static str,
    pub(super) x: String,
    pub(super) y: String,
    pub(super) width: String,
    pub(super) height: String,
    /// For the pointer that rests on it.
    pub(super) title: String,
}

impl Bar {
    /// The `n`th of so many.
    fn new(
        class: &'static str,
        (n, all): (usize, usize),
        (y, height): (f64, f64),
        title: String,
    ) -> Bar {
        let step = WIDTH / all.max(1) as f64;
        let gap = if all > 40 { 1.0 } else { step * 0.2 };
        Bar {
            class,
            x: format!("{:.1}", n as f64 * step + gap / 2.0),
            y: format!("{y:.1}"),
            width: format!("{:.1}", step - gap),
            height: format!("{height:.1}"),
            title,
        }
    }
}

/// A series in the legend: its class, and what it comes to.
#[derive(Debug)]
pub(super) struct Key {
    pub(super) class: &'static str,
    pub(super) text: String,
}

fn last_day() -> (String, String) {
    ("24 h ago".to_owned(), "now".to_owned())
}

impl Chart {
    /// Values of each stretch of the last day, on each other.
    pub(super) fn stacked(title: &'static str, times: &[Timestamp], series: &[Series]) -> Chart {
        let sum = |n: usize| series.iter().map(|it| it.values[n]).sum::<u64>();
        let most = (0..times.len()).map(sum).max().unwrap_or(0);
        let mut bars = Vec::new();
        for (n, at) in times.iter().enumerate() {
            let mut top = HEIGHT;
            for it in series.iter().filter(|it| it.values[n] > 0) {
                let height = (it.values[n] as f64 / most.max(1) as f64 * HEIGHT).max(HEIGHT_MIN);
                top = (top - height).max(0.0);
                let title = format!("{} {} from {} UTC", it.values[n], it.word, clock_time(*at));
                bars.push(Bar::new(it.class, (n, times.len()), (top, height), title));
            }
        }
        let total = |it: &Series| it.values.iter().sum::<u64>();
        let keys = series
            .iter()
            .filter(|it| total(it) > 0)
            .map(|it| Key { class: it.class, text: format!("{} {}", number(total(it)), it.word) });
        let keys: Vec<Key> = keys.collect();
        let total = format!("at most {} in half an hour", number(most));
        Chart {
            title,
            said: spoken(title, &keys, &total),
            total,
            bars,
            keys,
            axis: last_day(),
            is_empty: most == 0,
        }
    }

    /// Durations in the last day, on a scale of decades.
    pub(super) fn marks(
        title: &'static str,
        times: &[Timestamp],
        series: [(&'static str, &'static str, Vec<Option<Duration>>); 2],
    ) -> Chart {
        let (mut bars, mut keys) = (Vec::new(), Vec::new());
        for (class, word, values) in series {
            let mark = |n: usize, value: Duration| {
                let share = (value.as_secs_f64() / SHORTEST).log10() / (LONGEST / SHORTEST).log10();
                let y = (HEIGHT - 3.0) * (1.0 - share.clamp(0.0, 1.0));
                let title = format!("{word} {} from {} UTC", said(value), clock_time(times[n]));
                Bar::new(class, (n, times.len()), (y, 3.0), title)
            };
            bars.extend(values.iter().enumerate().filter_map(|(n, it)| Some(mark(n, (*it)?))));
            if let Some(newest) = values.iter().rev().flatten().next() {
                keys.push(Key { class, text: format!("{word} {}", said(*newest)) });
            }
        }
        let total = "0.5 ms to 10 s".to_owned();
        Chart {
            title,
            said: spoken(title, &keys, &total),
            total,
            bars,
            is_empty: keys.is_empty(),
            keys,
            axis: last_day(),
        }
    }

    /// Values of days that are named `2026-11-30`, the oldest first.
    pub(super) fn days(
        title: &'static str,
        values: &[(String, i64)],
        show: impl Fn(i64) -> String,
    ) -> Chart {
        let highest = values.iter().max_by_key(|(_, value)| *value);
        let most = highest.map_or(0, |(_, value)| *value);
        let bars = values.iter().enumerate().map(|(n, (day, value))| {
            let height = match *value {
                ..=0 => 0.0,
                value => (value as f64 / most as f64 * HEIGHT).max(HEIGHT_MIN),
            };
            let title = format!("{day}: {}", show(*value));
            Bar::new("brass", (n, values.len()), (HEIGHT - height, height), title)
        });
        let n_days = values.len();
        let n_empty = values.iter().filter(|(_, value)| *value == 0).count();
        let total = show(values.iter().map(|(_, value)| value).sum());
        let said = match highest.filter(|(_, value)| *value > 0) {
            None => format!("{title} by day: nothing in {n_days} days."),
            Some((day, value)) => format!(
                "{title} by day: {total} in {n_days} days, most on {day} with {}; nothing on \
                 {n_empty} of them.",
                show(*value)
            ),
        };
        let end = |it: Option<&(String, i64)>| it.map(|(day, _)| day.clone()).unwrap_or_default();
        Chart {
            title,
            total,
            bars: bars.collect(),
            keys: Vec::new(),
            axis: (end(values.first()), end(values.last())),
            said,
            // Days without anything are shown as such: the table below has them too.
            is_empty: false,
        }
    }
}

/// A chart of the last day in a sentence.
fn spoken(title: &str, keys: &[Key], total: &str) -> String {
    if keys.is_empty() {
        return format!("{title}: none in the last 24 hours.");
    }
    let keys: Vec<&str> = keys.iter().map(|key| &*key.text).collect();
    format!("{title} in the last 24 hours: {}; {total}.", keys.join(", "))
}

fn number(n: u64) -> String {
    count(i64::try_from(n).unwrap_or(i64::MAX))
}

/// The ends of the scale, in seconds.
const SHORTEST: f64 = 0.0005;
const LONGEST: f64 = 10.0;

fn said(duration: Duration) -> String {
    match duration.as_secs_f64() {
        seconds if seconds < 1.0 => format!("{} ms", seconds * 1000.0),
        seconds => format!("{seconds} s"),
    }
}

/// `14:30` of an exact time.
fn clock_time(at: Timestamp) -> String {
    at.to_string().chars().skip(11).take(5).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bars_stand_on_each_other_and_are_said() {
        let times = [Timestamp(1_795_291_200_000), Timestamp(1_795_293_000_000)];
        let series = |class, values: [u64; 2]| Series { class, word: class, values: values.into() };
        let chart = Chart::stacked("Turns", &times, &[series("x", [3, 0]), series("y", [1, 2])]);
        let shown: Vec<_> = chart.bars.iter().map(|it| (it.class, &*it.y, &*it.height)).collect();
        assert_eq!(shown, [("x", "24.0", "72.0"), ("y", "0.0", "24.0"), ("y", "48.0", "48.0")]);
        assert_eq!(chart.said, "Turns in the last 24 hours: 3 x, 3 y; at most 4 in half an hour.");
        let chart = Chart::stacked("Turns", &times, &[series("x", [0, 0])]);
        assert!(chart.is_empty && chart.said == "Turns: none in the last 24 hours.");
    }

    #[test]
    fn the_highest_day_fills_the_chart_and_the_lowest_can_be_seen() {
        let check = |values: &[i64], heights: &[&str], said: &str| {
            let days: Vec<_> =
                values.iter().enumerate().map(|(n, it)| (format!("d{n}"), *it)).collect();
            let chart = Chart::days("Runs", &days, |it| it.to_string());
            assert_eq!(chart.bars.iter().map(|bar| &*bar.height).collect::<Vec<_>>(), heights);
            assert_eq!(chart.said, said);
        };
        check(
            &[0, 5_000, 10_000, 1],
            &["0.0", "48.0", "96.0", "1.5"],
            "Runs by day: 15001 in 4 days, most on d2 with 10000; nothing on 1 of them.",
        );
        check(&[0, 0], &["0.0", "0.0"], "Runs by day: nothing in 2 days.");
        check(&[], &[], "Runs by day: nothing in 0 days.");
    }
}
