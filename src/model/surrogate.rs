//! Characters that a server cut in half.
//!
//! A server that counts in UTF-16 may end one event with half a character and begin the next one with
//! the other half, as `\ud83e` and `\udd80`. No such half is text, and JSON readers refuse it. Here
//! halves are marked so that the event can be read, and put together where pieces meet.

use std::{borrow::Cow, ops::RangeInclusive};

/// Where the halves are put while they are alone: characters for private use.
const MARKED: u32 = 0xF_0000;
const HALVES: RangeInclusive<u32> = 0xD800..=0xDFFF;
const SECOND_HALVES: u32 = 0xDC00;

/// The same JSON with each lone half marked; `None` when there is none.
pub(super) fn mark(json: &str) -> Option<String> {
    let mut out = String::with_capacity(json.len());
    let (mut rest, mut found) = (json, false);
    while let Some(at) = rest.find('\\') {
        out.push_str(&rest[..at]);
        rest = &rest[at..];
        let first = escape(rest);
        let second = first.and_then(|_| escape(rest.get(6..)?));
        let n_bytes = match (first, second) {
            (Some(first), Some(second)) if joined(first, second).is_some() => 12,
            (Some(half), _) if HALVES.contains(&half) => {
                out.extend(char::from_u32(MARKED + half - HALVES.start()));
                found = true;
                rest = &rest[6..];
                continue;
            }
            // Any other escape, which may be of a backslash.
            _ => rest.char_indices().nth(2).map_or(rest.len(), |(end, _)| end),
        };
        out.push_str(&rest[..n_bytes]);
        rest = &rest[n_bytes..];
    }
    out.push_str(rest);
    found.then_some(out)
}

/// The number of an escape such as `\u00e4` at the beginning of a text.
fn escape(text: &str) -> Option<u32> {
    let digits = text.strip_prefix("\\u")?.get(..4)?;
    u32::from_str_radix(digits, 16).ok()
}

fn joined(first: u32, second: u32) -> Option<char> {
    let is_pair = (*HALVES.start()..SECOND_HALVES).contains(&first)
        && (SECOND_HALVES..=*HALVES.end()).contains(&second);
    let bits = || 0x1_0000 + ((first - HALVES.start()) << 10) + (second - SECOND_HALVES);
    if is_pair { char::from_u32(bits()) } else { None }
}

/// The half that a mark stands for.
fn half(char: char) -> Option<u32> {
    let half = u32::from(char).checked_sub(MARKED)? + HALVES.start();
    HALVES.contains(&half).then_some(half)
}

/// Puts halves together where the pieces of one text meet.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Joiner {
    /// The first half that ended the last piece.
    held: Option<u32>,
}

impl Joiner {
    /// The next piece of the text. A half at its end is held back; one that stays alone becomes the
    /// character that stands for what cannot be read.
    pub(super) fn join<'a>(&mut self, piece: &'a str) -> Cow<'a, str> {
        if self.held.is_none() && !piece.contains(|char| half(char).is_some()) {
            return Cow::Borrowed(piece);
        }
        let mut out = String::with_capacity(piece.len() + 4);
        for char in piece.chars() {
            let (before, now) = (self.held.take(), half(char));
            match (before, now) {
                (Some(first), Some(second)) if joined(first, second).is_some() => {
                    out.extend(joined(first, second));
                    continue;
                }
                (Some(_), _) => out.push(char::REPLACEMENT_CHARACTER),
                (None, _) => {}
            }
            match now {
                None => out.push(char),
                Some(first) if first < SECOND_HALVES => self.held = Some(first),
                Some(_) => out.push(char::REPLACEMENT_CHARACTER),
            }
        }
        Cow::Owned(out)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read(json: &str) -> String {
        let marked = mark(json);
        serde_json::from_str(marked.as_deref().unwrap_or(json)).unwrap()
    }

    fn check(pieces: &[&str], expected: &[&str]) {
        let mut joiner = Joiner::default();
        let found: Vec<String> =
            pieces.iter().map(|piece| joiner.join(&read(piece)).into_owned()).collect();
        assert_eq!(found, expected);
    }

    #[test]
    fn halves_meet_where_pieces_do() {
        check(&[r#""crab \ud83e""#, r#""\udd80!""#], &["crab ", "🦀!"]);
        check(&[r#""\uD83E""#, r#""""#, r#""\uDD80\ud83e""#, r#""\udd80""#], &["", "", "🦀", "🦀"]);
    }

    #[test]
    fn a_half_that_stays_alone_is_shown_as_such() {
        check(&[r#""a\udd80b""#], &["a\u{fffd}b"]);
        check(&[r#""a\ud83e""#, r#""b""#], &["a", "\u{fffd}b"]);
        check(&[r#""\ud83e\ud83e\udd80""#], &["\u{fffd}🦀"]);
    }

    #[test]
    fn what_is_whole_stays_as_it_is() {
        for json in
            [r#""\ud83e\udd80 \u00e4 \n \\ud83e \" 世""#, "\"plain\"", r#"{"a":"\\"}"#, "\\"]
        {
            assert_eq!(mark(json), None, "{json}");
        }
        // A backslash that is escaped itself begins no half.
        assert_eq!(read(r#""\\ud83e \ud83e""#), format!("\\ud83e {}", '\u{F003E}'));
    }

    proptest! {
        #[test]
        fn a_text_survives_being_cut_between_any_two_halves(text in "\\PC{0,20}", size in 1_usize..4) {
            let units: Vec<u16> = text.encode_utf16().collect();
            let mut joiner = Joiner::default();
            let mut found = String::new();
            for units in units.chunks(size) {
                let escapes: String = units.iter().map(|unit| format!("\\u{unit:04x}")).collect();
                found.push_str(&joiner.join(&read(&format!("\"{escapes}\""))));
            }
            prop_assert_eq!(found, text);
        }
    }
}
