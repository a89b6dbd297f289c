//! What the templates share: the frame of a page, times, sizes and finished HTML.

use std::{fmt, time::Duration};

use askama::Template;

use super::{
    assets,
    fault::Fault,
    guard::Visitor,
    navigation::{GROUPS, Place},
    theme::Theme,
};
use crate::{clock::Timestamp, domain::cost::MicroUsd};

/// The frame of every page of a signed-in visitor.
#[derive(Debug)]
pub(super) struct Shell {
    pub(super) assets: &'static str,
    pub(super) visitor: Visitor,
    /// Which entry of the navigation the page belongs to.
    pub(super) at: &'static str,
    /// By the server's clock, so that a wrong one in the browser makes nothing old or new.
    pub(super) now: Timestamp,
    pub(super) groups: &'static [(&'static str, &'static [Place])],
    pub(super) themes: [Theme; 3],
}

impl Shell {
    pub(super) fn new(visitor: Visitor, at: &'static str, now: Timestamp) -> Shell {
        let assets = assets::base();
        Shell { assets, visitor, at, now, groups: &GROUPS, themes: Theme::ALL }
    }
}

/// HTML that is finished. There are three ways to make it: a template, which escapes, `markdown`, and
/// [`ticked`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Markup(String);

impl Markup {
    pub(super) fn render(template: &impl Template) -> Result<Markup, Fault> {
        template.render().map(Markup).map_err(|error| Fault::internal(format!("a page: {error}")))
    }

    pub(super) fn of_markdown(text: &str) -> Markup {
        Markup(super::markdown::to_html(text))
    }

    /// This one, then another.
    pub(super) fn and(mut self, other: &Markup) -> Markup {
        self.0.push_str(&other.0);
        self
    }

    pub(super) fn as_str(&self) -> &str {
        &self.0
    }

    pub(super) fn into_text(self) -> String {
        self.0
    }
}

impl fmt::Display for Markup {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl askama::filters::HtmlSafe for Markup {}

/// What the server says: plain text, in which names of things stand between backticks.
pub(super) fn ticked(text: impl fmt::Display) -> Markup {
    let text = text.to_string();
    let pieces: Vec<&str> = text.split('`').collect();
    let mut html = String::with_capacity(text.len() + 16);
    for (n, piece) in pieces.iter().enumerate() {
        let Ok(piece) = askama::filters::escape(piece, askama::filters::Html);
        let (is_name, is_closed) = (n % 2 == 1, n + 1 < pieces.len());
        html.push_str(&match (is_name, is_closed) {
            (false, _) => piece.to_string(),
            (true, true) => format!("<code>{piece}</code>"),
            (true, false) => format!("`{piece}"),
        });
    }
    Markup(html)
}

/// A moment, as people say it and exactly. A script keeps the first one true as time passes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Moment {
    /// RFC 3339.
    pub(super) exact: String,
    pub(super) shown: String,
    /// For the pointer that rests on it.
    pub(super) title: String,
}

impl Moment {
    pub(super) fn new(at: Timestamp, now: Timestamp) -> Moment {
        let exact = at.to_string();
        let title = format!("{} UTC", exact.trim_end_matches('Z').replace('T', " "));
        Moment { shown: distance(at, now), exact, title }
    }
}

const MINUTE: u64 = 60;
const HOUR: u64 = 60 * MINUTE;
const DAY: u64 = 24 * HOUR;

/// How long something took.
pub(super) fn duration(took: Duration) -> String {
    let ms = took.as_millis();
    match ms {
        ..1000 => format!("{ms} ms"),
        1000..60_000 => format!("{}.{} s", ms / 1000, ms % 1000 / 100),
        _ => format!("{} min {} s", ms / 60_000, ms % 60_000 / 1000),
    }
}

/// `assets/app.mjs` says the same in the browser.
fn distance(at: Timestamp, now: Timestamp) -> String {
    if at > now {
        let seconds = at.since(now).as_secs();
        return match seconds {
            0..10 => "now".to_owned(),
            10..MINUTE => format!("in {seconds} s"),
            MINUTE..HOUR => format!("in {} min", seconds / MINUTE),
            HOUR..DAY => format!("in {} h", seconds / HOUR),
            _ => format!("in {} d", seconds / DAY),
        };
    }
    let seconds = now.since(at).as_secs();
    match seconds {
        0..10 => "just now".to_owned(),
        10..MINUTE => format!("{seconds} s ago"),
        MINUTE..HOUR => format!("{} min ago", seconds / MINUTE),
        HOUR..DAY => format!("{} h ago", seconds / HOUR),
        _ if seconds < 30 * DAY => format!("{} d ago", seconds / DAY),
        _ => at.to_string().chars().take(10).collect(),
    }
}

/// `12345` as `12,345`.
pub(super) fn count(n: i64) -> String {
    let digits = n.unsigned_abs().to_string();
    let mut out = String::from(if n < 0 { "-" } else { "" });
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// A number of things, in the words for one and for more.
pub(super) fn counted(n: i64, one: &str, more: &str) -> String {
    format!("{} {}", count(n), if n == 1 { one } else { more })
}

/// An amount of money in cents; below a dollar, where most requests are, in hundredths of one where that
/// says something.
pub(super) fn dollars(amount: MicroUsd) -> String {
    match amount.0 {
        ..=0 => "$0".to_owned(),
        1..100 => "under $0.0001".to_owned(),
        n @ 100..999_950 => {
            let text = format!("$0.{:04}", (n + 50) / 100);
            text.strip_suffix("00").map_or(text.clone(), str::to_owned)
        }
        n => {
            let cents = n.saturating_add(5_000) / 10_000;
            format!("${}.{:02}", cents / 100, cents % 100)
        }
    }
}

/// A size as people say it.
pub(super) fn bytes(n: i64) -> String {
    match n {
        1 => "1 byte".to_owned(),
        ..1_000 => format!("{n} bytes"),
        1_000..1_000_000 => format!("{}.{} kB", n / 1_000, n % 1_000 / 100),
        _ => format!("{}.{} MB", n / 1_000_000, n % 1_000_000 / 100_000),
    }
}

/// The end of an id: enough to tell two apart by eye.
pub(super) fn short(id: &str) -> String {
    let (prefix, rest) = id.split_once('_').unwrap_or(("", id));
    let tail: Vec<char> = rest.chars().rev().take(6).collect();
    format!("{prefix}_…{}", tail.iter().rev().collect::<String>())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_between_backticks_are_set_as_code() {
        let check = |text: &str, html: &str| {
            assert_eq!(ticked(text).as_str(), html, "{text}");
        };
        check("set `a.<b>` or `c`", "set <code>a.&#60;b&#62;</code> or <code>c</code>");
        check("one ` alone & more", "one ` alone &#38; more");
        check("", "");
    }

    #[test]
    fn distances_are_said_as_people_do() {
        let check = |seconds: i64, expected: &str| {
            let now = Timestamp(1_795_292_000_000);
            assert_eq!(Moment::new(Timestamp(now.0 - seconds * 1000), now).shown, expected);
        };
        check(3, "just now");
        check(59, "59 s ago");
        check(61, "1 min ago");
        check(7200, "2 h ago");
        check(200_000, "2 d ago");
        check(90 * 86_400, "2026-08-23");
        check(-3, "now");
        check(-90, "in 1 min");
    }

    #[test]
    fn numbers_are_readable() {
        assert_eq!([count(0), count(999), count(-1_234_567)], ["0", "999", "-1,234,567"]);
        assert_eq!([bytes(1), bytes(999), bytes(4_212)], ["1 byte", "999 bytes", "4.2 kB"]);
        let amounts = [0, 40, 100, 500_000, 123_456, 999_949, 999_950, 1_234_567];
        let wanted =
            ["$0", "under $0.0001", "$0.0001", "$0.50", "$0.1235", "$0.9999", "$1.00", "$1.23"];
        assert_eq!(amounts.map(|amount| dollars(MicroUsd(amount))), wanted);
        assert_eq!(short("sesn_0123456789"), "sesn_…456789");
    }
}
