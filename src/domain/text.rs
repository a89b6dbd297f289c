//! Text at the door: what may be stored, and how it is cut for people.

use std::borrow::Cow;

/// Removes NUL, the one character that PostgreSQL cannot store in a text. Every text from outside
/// passes here before it becomes a field of the domain.
pub fn clean(text: &str) -> Cow<'_, str> {
    if text.contains('\0') { Cow::Owned(text.replace('\0', "")) } else { Cow::Borrowed(text) }
}

/// The first `chars_max` characters; tells whether anything was cut.
pub fn first_chars(text: &str, chars_max: usize) -> (&str, bool) {
    // A text has no more characters than bytes.
    if text.len() <= chars_max {
        return (text, false);
    }
    match text.char_indices().nth(chars_max) {
        Some((end, _)) => (&text[..end], true),
        None => (text, false),
    }
}

/// Characters that are invisible or reorder text: they can hide instructions from a person who
/// reads the same payload. Used where text is shown and where it is fenced for a model.
pub fn is_deceptive(char: char) -> bool {
    matches!(char,
        '\u{200B}'..='\u{200F}' | '\u{202A}'..='\u{202E}' | '\u{2060}'..='\u{2064}'
        | '\u{2066}'..='\u{206F}' | '\u{FEFF}' | '\u{00AD}' | '\u{E0000}'..='\u{E007F}')
}

/// For a terminal or a log line: control and reordering characters become visible escapes, so that
/// a payload cannot move the cursor or recolour the screen.
pub fn printable(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for char in text.chars() {
        if char == '\n' || char == '\t' || !(char.is_control() || is_deceptive(char)) {
            out.push(char);
        } else {
            out.extend(char.escape_unicode());
        }
    }
    out
}

/// As [`printable`], in one line: nothing can pretend to be a line of its own. It goes by characters, so
/// the pieces of a text come out as the whole would.
pub fn one_line(text: &str) -> String {
    if is_plain(text) {
        return text.to_owned();
    }
    let text = printable(text);
    if !text.contains(['\n', '\t']) {
        return text;
    }
    text.replace('\n', "\\n").replace('\t', "\\t")
}

/// Whether [`one_line`] leaves it alone, as it does most.
pub fn is_plain(text: &str) -> bool {
    text.bytes().all(|byte| matches!(byte, b' '..=b'~'))
}

/// Bytes as hexadecimal digits.
pub fn hex(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(2 * bytes.len());
    push_hex(&mut text, bytes);
    text
}

/// Appends two hexadecimal digits for each byte. Ids and traces of every accept are written so, hence
/// without the machinery of `format!`.
pub fn push_hex(text: &mut String, bytes: &[u8]) {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    for bytes in bytes.chunks(32) {
        let mut digits = [0; 64];
        for (pair, byte) in digits.chunks_exact_mut(2).zip(bytes) {
            pair[0] = DIGITS[usize::from(byte >> 4)];
            pair[1] = DIGITS[usize::from(byte & 15)];
        }
        let digits = &digits[..2 * bytes.len()];
        text.push_str(std::str::from_utf8(digits).expect("digits are ASCII"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_byte_is_two_digits() {
        let bytes: Vec<u8> = (0..=255).collect();
        let expected: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(hex(&bytes), expected);
        assert_eq!(hex(&[]), "");
    }

    #[test]
    fn cuts_between_characters() {
        assert_eq!(first_chars("héllo", 2), ("hé", true));
        assert_eq!(first_chars("héllo", 5), ("héllo", false));
        assert_eq!(first_chars("", 0), ("", false));
    }

    #[test]
    fn nul_and_control_characters_do_no_harm() {
        assert_eq!(clean("a\0b"), "ab");
        assert_eq!(printable("a\u{1b}[31m\u{202e}"), "a\\u{1b}[31m\\u{202e}");
        assert_eq!(one_line("a\n2026 INFO\tb\u{9b}\r"), "a\\n2026 INFO\\tb\\u{9b}\\u{d}");
    }
}
