//! How things look on a terminal: colours, badges, sizes, and how long ago something was.

use crate::clock::Timestamp;

/// Whether to colour. Every method gives its text back as it is when not.
#[derive(Clone, Copy, Debug)]
pub(super) struct Style {
    pub(super) color: bool,
}

/// A look, by what it says and not by its colour.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Look {
    #[default]
    Plain,
    Strong,
    Dim,
    Good,
    Busy,
    Attention,
    Bad,
}

impl Look {
    fn code(self) -> &'static str {
        match self {
            Look::Plain => "",
            Look::Strong => "1",
            Look::Dim => "2",
            Look::Good => "32",
            Look::Busy => "36",
            Look::Attention => "33",
            Look::Bad => "31",
        }
    }
}

impl Style {
    pub(super) fn paint(self, look: Look, text: &str) -> String {
        if !self.color || look == Look::Plain || text.is_empty() {
            return text.to_owned();
        }
        format!("\u{1b}[{}m{text}\u{1b}[0m", look.code())
    }

    pub(super) fn dim(self, text: &str) -> String {
        self.paint(Look::Dim, text)
    }

    pub(super) fn strong(self, text: &str) -> String {
        self.paint(Look::Strong, text)
    }

    pub(super) fn error(self, text: &str) -> String {
        if self.color { format!("\u{1b}[1;31m{text}\u{1b}[0m") } else { text.to_owned() }
    }

    pub(super) fn hint(self, text: &str) -> String {
        if self.color { format!("\u{1b}[1;36m{text}\u{1b}[0m") } else { text.to_owned() }
    }
}

/// The look of a state, whichever noun it is of.
pub(super) fn look(state: &str) -> Look {
    match state {
        "accepted" | "succeeded" | "active" | "yes" => Look::Good,
        "running" | "pending" | "rescheduling" | "duplicate" => Look::Busy,
        "held" | "waiting" | "in_doubt" | "paused" | "processing" | "no" => Look::Attention,
        "failed" | "terminated" | "retired" | "archived" | "broken" => Look::Bad,
        "filtered" | "cancelled" => Look::Dim,
        _ => Look::Plain,
    }
}

/// `3m ago`; the date for what is older than a month.
pub(super) fn relative(now: Timestamp, then: Timestamp) -> String {
    let future = then > now;
    let seconds = if future { then.since(now) } else { now.since(then) }.as_secs();
    let (n, unit) = match seconds {
        0..=4 => return "just now".to_owned(),
        5..=59 => (seconds, "s"),
        60..=3_599 => (seconds / 60, "m"),
        3_600..=86_399 => (seconds / 3_600, "h"),
        86_400..=2_591_999 => (seconds / 86_400, "d"),
        _ => return then.to_string()[..10].to_owned(),
    };
    if future { format!("in {n}{unit}") } else { format!("{n}{unit} ago") }
}

/// `1.2 kB`, in powers of ten.
pub(super) fn size(bytes: u64) -> String {
    let (mut whole, mut unit) = (bytes, 0);
    let mut tenths = 0;
    while whole >= 1_000 && unit < 4 {
        tenths = whole % 1_000 / 100;
        whole /= 1_000;
        unit += 1;
    }
    match (unit, tenths) {
        (0, _) => format!("{whole} B"),
        _ => format!("{whole}.{tenths} {}B", ["", "k", "M", "G", "T"][unit]),
    }
}

/// `12,345`.
pub(super) fn grouped(n: i64) -> String {
    let digits = n.unsigned_abs().to_string();
    let mut text = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    if n < 0 { format!("-{text}") } else { text }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn times_are_relative_until_they_are_old() {
        let now = Timestamp(1_795_292_000_000);
        for (seconds, expected) in [
            (0, "just now"),
            (4, "just now"),
            (59, "59s ago"),
            (60, "1m ago"),
            (7_300, "2h ago"),
            (86_400 * 29, "29d ago"),
            (86_400 * 31, "2026-10-21"),
        ] {
            assert_eq!(relative(now, now.minus(Duration::from_secs(seconds))), expected);
        }
        assert_eq!(relative(now, now.plus(Duration::from_secs(90))), "in 1m");
    }

    #[test]
    fn sizes_and_numbers_are_readable() {
        for (bytes, expected) in [
            (0, "0 B"),
            (999, "999 B"),
            (1_000, "1.0 kB"),
            (1_290, "1.2 kB"),
            (26_214_400, "26.2 MB"),
        ] {
            assert_eq!(size(bytes), expected);
        }
        for (n, expected) in [(0, "0"), (999, "999"), (1_000, "1,000"), (-1_234_567, "-1,234,567")]
        {
            assert_eq!(grouped(n), expected);
        }
    }

    #[test]
    fn without_colour_text_stays_as_it_is() {
        assert_eq!(Style { color: false }.paint(Look::Bad, "x"), "x");
        assert_eq!(Style { color: true }.paint(Look::Bad, "x"), "\u{1b}[31mx\u{1b}[0m");
        assert_eq!(Style { color: true }.paint(Look::Plain, "x"), "x");
    }
}
