//! What is shown once after a form: kept on the server between the redirect and the page.
//!
//! Invariant: it is the visitor's own, and gone when it was shown, so no secret stands in an address, in
//! a browser's history or in a page that is loaded again.

use std::{collections::VecDeque, fmt};

use axum::response::Response;

use super::{
    super::App,
    guard::{Fields, Visitor},
    place,
    source::Report,
    visitors::random_text,
};

/// Of one visitor, that were not looked at yet; the oldest goes first.
const SHOWN_MAX: usize = 4;

/// What came of a form, in words and in what the page has a place for.
#[derive(Debug, Default)]
pub(super) struct Shown {
    pub(super) notice: Option<String>,
    pub(super) problem: Option<String>,
    /// A secret that was made just now, with its name.
    pub(super) made: Option<(String, String)>,
    /// What was typed, where the form is not done with.
    pub(super) typed: Option<String>,
    /// What a changed source would have made of what came.
    pub(super) report: Option<Report>,
}

impl Shown {
    pub(super) fn notice(text: impl Into<String>) -> Shown {
        Shown { notice: Some(text.into()), ..Shown::default() }
    }

    pub(super) fn problem(text: impl Into<String>) -> Shown {
        Shown { problem: Some(text.into()), ..Shown::default() }
    }

    pub(super) fn made(name: impl Into<String>, value: impl Into<String>) -> Shown {
        Shown { made: Some((name.into(), value.into())), ..Shown::default() }
    }
}

/// What waits to be shown, by a name that only the address of the page has.
#[derive(Debug, Default)]
pub(super) struct Waiting(VecDeque<(String, Shown)>);

impl Waiting {
    pub(super) fn put(&mut self, shown: Shown) -> String {
        if self.0.len() >= SHOWN_MAX {
            self.0.pop_front();
        }
        let name = random_text();
        self.0.push_back((name.clone(), shown));
        name
    }

    pub(super) fn take(&mut self, name: &str) -> Option<Shown> {
        let at = self.0.iter().position(|(known, _)| known == name)?;
        self.0.remove(at).map(|(_, shown)| shown)
    }
}

/// Sends the browser to a page that shows it.
pub(super) fn show(app: &App, visitor: &Visitor, to: impl fmt::Display, shown: Shown) -> Response {
    place::to(to, "shown", &app.visitors.keep(&visitor.entry, shown))
}

/// What the address of this page has to show; nothing when it is loaded again.
pub(super) fn take(app: &App, visitor: &Visitor, query: &Fields) -> Shown {
    let name = query.text("shown").unwrap_or_default();
    app.visitors.take(&visitor.entry, name).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_shown_once_and_bounded() {
        let mut waiting = Waiting::default();
        let names: Vec<String> =
            (0..=SHOWN_MAX).map(|n| waiting.put(Shown::notice(n.to_string()))).collect();
        assert!(waiting.take(&names[0]).is_none(), "the oldest went");
        let shown = waiting.take(&names[2]);
        assert_eq!(shown.and_then(|it| it.notice).as_deref(), Some("2"));
        assert!(waiting.take(&names[2]).is_none() && waiting.take("").is_none());
    }
}
