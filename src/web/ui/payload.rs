//! Data in the transcript: what a source sent, what a tool was given and answered.
//!
//! It is shown as data: in a block of its own, with invisible and reordering characters made visible,
//! cut at a bound. JSON gets lines, and colours by its letters alone; nothing is decoded, so what is
//! shown is what came, also where it is broken.

use std::borrow::Cow;

use serde_json::value::RawValue;

use crate::domain::{
    indent::indented,
    text::{first_chars, printable},
};

/// Characters of one block.
pub(super) const CHARS_MAX: usize = 20_000;

/// A stretch of text of one colour.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Piece {
    /// Class of the element: `k`ey, `s`tring, `n`umber or word; empty for the rest.
    pub(super) class: &'static str,
    pub(super) text: String,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Payload {
    pub(super) pieces: Vec<Piece>,
    pub(super) is_json: bool,
    pub(super) n_lines: usize,
    /// Characters shown and there, when not all are shown.
    pub(super) cut: Option<(usize, usize)>,
}

impl Payload {
    pub(super) fn new(text: &str) -> Payload {
        // Whole JSON gets lines and indents, and nothing else is changed about it.
        let is_valid = serde_json::from_str::<&RawValue>(text).is_ok();
        let text = if is_valid { Cow::from(indented(text)) } else { Cow::from(text) };
        let (shown, is_cut) = first_chars(&text, CHARS_MAX);
        let cut = is_cut.then(|| (CHARS_MAX, text.chars().count()));
        let shown = printable(shown);
        let is_json = shown.trim_start().starts_with(['{', '[']);
        let plain = || vec![Piece { class: "", text: shown.clone() }];
        let pieces = if is_json { colour(&shown) } else { plain() };
        Payload { pieces, is_json, n_lines: shown.lines().count(), cut }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.pieces.iter().all(|piece| piece.text.is_empty())
    }
}

fn colour(text: &str) -> Vec<Piece> {
    let mut pieces: Vec<Piece> = Vec::new();
    let mut push = |class: &'static str, text: &str| match pieces.last_mut() {
        Some(last) if last.class == class => last.text.push_str(text),
        _ => pieces.push(Piece { class, text: text.to_owned() }),
    };
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let end = match first {
            '"' => string_end(rest),
            _ if is_word(first) => rest.find(|c| !is_word(c)).unwrap_or(rest.len()),
            _ => rest.find(|c| c == '"' || is_word(c)).unwrap_or(rest.len()),
        };
        let (piece, after) = rest.split_at(end);
        let class = match first {
            '"' if after.trim_start().starts_with(':') => "k",
            '"' => "s",
            _ if is_word(first) => "n",
            _ => "",
        };
        push(class, piece);
        rest = after;
    }
    pieces
}

fn is_word(char: char) -> bool {
    char.is_ascii_alphanumeric() || matches!(char, '-' | '+' | '.')
}

/// Where the string at the start ends, its closing quote included.
fn string_end(text: &str) -> usize {
    let mut escaped = false;
    for (at, char) in text.char_indices().skip(1) {
        match char {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            '"' => return at + 1,
            _ => {}
        }
    }
    text.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(text: &str) -> String {
        let pieces = Payload::new(text).pieces;
        pieces.iter().map(|it| format!("{}<{}>", it.class, it.text)).collect()
    }

    #[test]
    fn json_is_coloured_by_its_letters() {
        assert_eq!(
            shown(r#"{"a": "b\"c", "d": [1.5, true]"#),
            r#"<{>k<"a"><: >s<"b\"c"><, >k<"d"><: [>n<1.5><, >n<true><]>"#
        );
        assert_eq!(shown("plain {text}"), "<plain {text}>");
        assert_eq!(shown("[1]"), "<[\n  >n<1><\n]>");
    }

    #[test]
    fn nothing_is_lost_or_made_up_where_it_is_broken() {
        for text in ["{\"a", "[1, \"\\", "{\"a\":: nul", "[\u{e4}\"\u{1F514}\"", "{"] {
            let text_again: String =
                Payload::new(text).pieces.into_iter().map(|piece| piece.text).collect();
            assert_eq!(text_again, text);
        }
    }

    #[test]
    fn long_and_deceptive_texts_are_tamed() {
        let payload = Payload::new(&"x".repeat(CHARS_MAX + 5));
        assert_eq!(payload.cut, Some((CHARS_MAX, CHARS_MAX + 5)));
        assert_eq!(shown("a\u{202e}b\r"), "<a\\u{202e}b\\u{d}>");
    }
}
