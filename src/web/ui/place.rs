//! Places of this server that a form or an address names: where to come back to.
//!
//! Invariant: nobody is sent to another site, and no text from an address is shown.

use std::fmt;

use axum::response::{IntoResponse, Redirect, Response};

use super::guard::Fields;

/// Longer places are nobody's that a page of ours has named.
const CHARS_MAX: usize = 2_048;

/// A path of this server, and not the beginning of another one's address.
pub(super) fn is_ours(place: &str) -> bool {
    place.starts_with('/')
        && !place.starts_with("//")
        && place.len() <= CHARS_MAX
        && place.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'\\')
}

/// Where a form wants to come back to, or where it would go otherwise.
pub(super) fn back<'a>(fields: &'a Fields, otherwise: &'a str) -> &'a str {
    fields.text("back").filter(|it| is_ours(it)).unwrap_or(otherwise)
}

/// Sends the browser to a page that says what was done. The address carries a word and no text.
pub(super) fn done(place: impl fmt::Display, word: &str) -> Response {
    to(place, "done", word)
}

/// Sends the browser to a place with one more word in its query.
pub(super) fn to(place: impl fmt::Display, name: &str, word: &str) -> Response {
    let place = place.to_string();
    let (place, part) = place.split_at(place.find('#').unwrap_or(place.len()));
    let sign = if place.contains('?') { '&' } else { '?' };
    Redirect::to(&format!("{place}{sign}{name}={word}{part}")).into_response()
}

/// What was done, as the page after it says it.
pub(super) fn notice(query: &Fields) -> Option<&'static str> {
    const NOTICES: [(&str, &str); 19] = [
        ("made", "It is made."),
        ("saved", "The change is saved."),
        ("archived", "It is archived."),
        ("deleted", "It is deleted."),
        ("revoked", "The key is revoked: it opens nothing any more."),
        ("stored", "The value is stored. Nobody sees it again."),
        ("rotated", "The new value counts from now on."),
        ("valid", "The credential was tried, and its server took it."),
        ("paused", "It is paused: its schedule rests until somebody goes on."),
        ("unpaused", "Its schedule goes on."),
        ("ran", "It was started: the newest run below leads to its session."),
        ("budgets", "The budgets are set and count from the next model request on."),
        ("uploaded", "The file is here."),
        ("allowed", "The call is allowed: its session goes on."),
        ("denied", "The call is denied, and its agent is told."),
        ("settled", "What you found is written down."),
        ("again", "It is sent again."),
        ("replayed", "The delivery was replayed."),
        ("removed", "The source is removed. What it sent stays."),
    ];
    let word = query.text("done")?;
    NOTICES.iter().find(|(known, _)| *known == word).map(|(_, text)| *text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_is_sent_to_another_site() {
        for place in ["/", "/sessions/sesn_1?before=3", "/agents"] {
            assert!(is_ours(place), "{place}");
        }
        for place in ["", "//evil.example", "/\\evil.example", "https://evil.example", "/a\nb"] {
            assert!(!is_ours(place), "{place}");
        }
        assert!(!is_ours(&format!("/{}", "a".repeat(CHARS_MAX))));
    }

    #[test]
    fn what_was_done_goes_into_the_query() {
        let check = |place: &str, expected: &str| {
            let response = done(place, "saved");
            assert_eq!(response.headers()["location"], expected);
        };
        check("/keys", "/keys?done=saved");
        check("/needs?kind=held", "/needs?kind=held&done=saved");
        check("/sessions/sesn_1#doubts", "/sessions/sesn_1?done=saved#doubts");
    }
}
