//! Small charts of days, drawn by the server as SVG.
//!
//! Invariant: what a chart shows it also says in words, and the table beside it has every number.

/// Units of the drawing from the ground to the highest bar.
const HEIGHT: i64 = 100;

/// Units from one bar to the next, and of its width.
const STEP: i64 = 10;
const BAR: i64 = 7;

/// Values day by day, the oldest first.
#[derive(Debug)]
pub(super) struct Chart {
    pub(super) id: &'static str,
    pub(super) title: &'static str,
    /// All days together.
    pub(super) total: String,
    pub(super) width: i64,
    pub(super) bars: Vec<Bar>,
    /// The highest value, at the top of the drawing; none where there is nothing to draw.
    pub(super) most: Option<String>,
    pub(super) first: String,
    pub(super) last: String,
    /// What there is to see.
    pub(super) said: String,
}

#[derive(Debug)]
pub(super) struct Bar {
    pub(super) x: i64,
    pub(super) y: i64,
    pub(super) width: i64,
    pub(super) height: i64,
    /// For the pointer that rests on it.
    pub(super) said: String,
}

/// Draws values of days that are named `2026-11-30`.
pub(super) fn chart(
    id: &'static str,
    title: &'static str,
    values: &[(String, i64)],
    show: impl Fn(i64) -> String,
) -> Chart {
    let highest = values.iter().max_by_key(|(_, value)| *value);
    let most = highest.map_or(0, |(_, value)| *value);
    let bars = values.iter().enumerate().map(|(n, (day, value))| {
        let height = match most {
            0 => 0,
            // What is not nothing can be seen.
            most => (value.saturating_mul(HEIGHT) / most).max(i64::from(*value > 0) * 2),
        };
        Bar {
            x: i64::try_from(n).unwrap_or(0) * STEP,
            y: HEIGHT - height,
            width: BAR,
            height,
            said: format!("{day}: {}", show(*value)),
        }
    });
    let n_days = values.len();
    let n_empty = values.iter().filter(|(_, value)| *value == 0).count();
    let total = show(values.iter().map(|(_, value)| value).sum());
    let said = match highest.filter(|(_, value)| *value > 0) {
        None => format!("{title} by day: nothing in {n_days} days."),
        Some((day, value)) => format!(
            "{title} by day: {total} in {n_days} days, most on {day} with {}; nothing on {n_empty} \
             of them.",
            show(*value)
        ),
    };
    Chart {
        id,
        title,
        total,
        width: i64::try_from(n_days).unwrap_or(0) * STEP - (STEP - BAR),
        bars: bars.collect(),
        most: (most > 0).then(|| show(most)),
        first: values.first().map(|(day, _)| day.clone()).unwrap_or_default(),
        last: values.last().map(|(day, _)| day.clone()).unwrap_or_default(),
        said,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(values: &[i64], heights: &[i64], said: &str) {
        let days: Vec<_> =
            values.iter().enumerate().map(|(n, it)| (format!("d{n}"), *it)).collect();
        let chart = chart("runs", "Runs", &days, |it| it.to_string());
        assert_eq!(chart.bars.iter().map(|bar| bar.height).collect::<Vec<_>>(), heights);
        assert!(chart.bars.iter().all(|bar| bar.y + bar.height == HEIGHT));
        assert_eq!(chart.said, said);
    }

    #[test]
    fn the_highest_bar_fills_the_chart_and_the_lowest_can_be_seen() {
        check(
            &[0, 5_000, 10_000, 1],
            &[0, 50, 100, 2],
            "Runs by day: 15001 in 4 days, most on d2 with 10000; nothing on 1 of them.",
        );
        check(&[0, 0], &[0, 0], "Runs by day: nothing in 2 days.");
        check(&[], &[], "Runs by day: nothing in 0 days.");
    }
}
