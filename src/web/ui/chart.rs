//! Small charts as SVG, made here: bars on each other, and lines. They need no script, and the colours
//! are classes of the style sheet.
//!
//! Invariant: what a chart shows is said in words beside it, for whoever cannot see it.

use std::time::Duration;

use super::view::count;
use crate::clock::Timestamp;

/// Of the drawing: what the template writes into `viewBox`.
const WIDTH: f64 = 480.0;
const HEIGHT: f64 = 96.0;

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

/// A series in the legend: its class, its word, and what it comes to.
#[derive(Debug)]
pub(super) struct Key {
    pub(super) class: &'static str,
    pub(super) word: &'static str,
    pub(super) text: String,
}

/// Values of each stretch of time, stacked.
#[derive(Debug)]
pub(super) struct Bars {
    pub(super) title: &'static str,
    pub(super) bars: Vec<Bar>,
    pub(super) keys: Vec<Key>,
    /// What the highest bar stands for.
    pub(super) most: String,
    pub(super) is_empty: bool,
}

impl Bars {
    pub(super) fn new(title: &'static str, times: &[Timestamp], series: Vec<Series>) -> Bars {
        let sum = |n: usize| series.iter().map(|it| it.values[n]).sum::<u64>();
        let most = (0..times.len()).map(sum).max().unwrap_or(0);
        let step = WIDTH / times.len().max(1) as f64;
        let mut bars = Vec::new();
        for (n, at) in times.iter().enumerate() {
            let mut top = HEIGHT;
            for it in series.iter().filter(|it| it.values[n] > 0) {
                // Few among many are still seen.
                let height = (it.values[n] as f64 / most.max(1) as f64 * HEIGHT).max(1.5);
                top = (top - height).max(0.0);
                bars.push(Bar {
                    class: it.class,
                    x: format!("{:.1}", n as f64 * step + 0.5),
                    y: format!("{top:.1}"),
                    width: format!("{:.1}", step - 1.0),
                    height: format!("{height:.1}"),
                    title: format!("{} {} from {} UTC", it.values[n], it.word, clock_time(*at)),
                });
            }
        }
        let total = |it: &Series| it.values.iter().sum::<u64>();
        let keys = series.iter().filter(|it| total(it) > 0).map(|it| Key {
            class: it.class,
            word: it.word,
            text: count(i64::try_from(total(it)).unwrap_or(i64::MAX)),
        });
        let most_text = count(i64::try_from(most).unwrap_or(i64::MAX));
        Bars { title, bars, keys: keys.collect(), most: most_text, is_empty: most == 0 }
    }
}

/// Durations over time, on a scale of decades.
#[derive(Debug)]
pub(super) struct Lines {
    pub(super) title: &'static str,
    pub(super) lines: Vec<(&'static str, Vec<Bar>)>,
    pub(super) keys: Vec<Key>,
    pub(super) is_empty: bool,
}

/// The ends of the scale, in seconds.
const SHORTEST: f64 = 0.0005;
const LONGEST: f64 = 10.0;

impl Lines {
    pub(super) fn new(
        title: &'static str,
        times: &[Timestamp],
        series: [(&'static str, &'static str, Vec<Option<Duration>>); 2],
    ) -> Lines {
        let step = WIDTH / times.len().max(1) as f64;
        let (mut lines, mut keys) = (Vec::new(), Vec::new());
        for (class, word, values) in series {
            let place = |n: usize, value: Duration| {
                let share = (value.as_secs_f64() / SHORTEST).log10() / (LONGEST / SHORTEST).log10();
                Bar {
                    class,
                    x: format!("{:.1}", n as f64 * step + 0.5),
                    y: format!("{:.1}", (HEIGHT - 3.0) * (1.0 - share.clamp(0.0, 1.0))),
                    width: format!("{:.1}", step - 1.0),
                    height: "3".to_owned(),
                    title: format!("{word} {} from {} UTC", said(value), clock_time(times[n])),
                }
            };
            let bars = values.iter().enumerate().filter_map(|(n, it)| Some(place(n, (*it)?)));
            lines.push((class, bars.collect()));
            if let Some(newest) = values.iter().rev().flatten().next() {
                keys.push(Key { class, word, text: said(*newest) });
            }
        }
        Lines { title, lines, is_empty: keys.is_empty(), keys }
    }
}

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
    fn bars_stand_on_each_other() {
        let times = [Timestamp(1_795_291_200_000), Timestamp(1_795_293_000_000)];
        let series = |class, values: [u64; 2]| Series { class, word: class, values: values.into() };
        let bars = Bars::new("a", &times, vec![series("x", [3, 0]), series("y", [1, 2])]);
        let shown: Vec<_> = bars.bars.iter().map(|it| (it.class, &*it.y, &*it.height)).collect();
        assert_eq!(shown, [("x", "24.0", "72.0"), ("y", "0.0", "24.0"), ("y", "48.0", "48.0")]);
        assert_eq!((bars.most.as_str(), bars.keys.len()), ("4", 2));
        assert!(Bars::new("a", &times, vec![series("x", [0, 0])]).is_empty);
    }
}
