//! JSON as people read it.
//!
//! Invariant: nothing but the space between values changes. A parser would round numbers, sort keys and
//! merge those that come twice (docs/decisions/0002-reindent-json.md). Left out: JSON that is not valid.

/// Beyond this depth values stay on one line: the indentation of hostile nesting would be larger
/// than the payload by orders of magnitude.
const INDENTED_DEPTH_MAX: usize = 64;

/// Indents valid JSON by two spaces. Keys, numbers and texts stay as the sender wrote them,
/// to the letter: nothing is decoded, rounded, sorted or merged.
pub fn indented(json: &str) -> String {
    let mut out = String::with_capacity(json.len() * 3 / 2);
    let mut depth = 0_usize;
    let json = json.trim_matches([' ', '\t', '\r', '\n']);
    let mut rest = json.char_indices().peekable();
    while let Some((at, char)) = rest.next() {
        match char {
            ' ' | '\t' | '\r' | '\n' => {}
            '"' => {
                let mut end = at + 1;
                while let Some((at, char)) = rest.next() {
                    end = at + char.len_utf8();
                    match char {
                        '\\' => drop(rest.next()),
                        '"' => break,
                        _ => {}
                    }
                }
                out.push_str(&json[at..end]);
            }
            '{' | '[' => {
                out.push(char);
                depth += 1;
                while rest.next_if(|(_, char)| matches!(char, ' ' | '\t' | '\r' | '\n')).is_some() {
                }
                if let Some((_, close)) = rest.next_if(|(_, char)| matches!(char, '}' | ']')) {
                    out.push(close);
                    depth -= 1;
                } else {
                    new_line(&mut out, depth);
                }
            }
            '}' | ']' => {
                depth = depth.saturating_sub(1);
                new_line(&mut out, depth);
                out.push(char);
            }
            ',' => {
                out.push(',');
                new_line(&mut out, depth);
            }
            ':' => out.push_str(": "),
            other => out.push(other),
        }
    }
    out
}

/// Bytes of JSON that is indented, at most: more than there are, for a look that costs next to nothing.
pub fn indented_bytes_max(json: &str) -> usize {
    let marks = json.bytes().filter(|byte| b",:[]{}".contains(byte)).count();
    json.len() + marks * (1 + 2 * INDENTED_DEPTH_MAX)
}

fn new_line(out: &mut String, depth: usize) {
    if depth <= INDENTED_DEPTH_MAX {
        out.push('\n');
        out.extend(std::iter::repeat_n("  ", depth));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pretty_printing_agrees_with_serde_on_ordinary_json() {
        let value =
            serde_json::json!({"b": [1, {"x": null, "y": [[], {}]}], "a": "ü\n", "c": -0.5});
        let json = value.to_string();
        assert_eq!(indented(&json), serde_json::to_string_pretty(&value).unwrap());
        assert!(indented(&json).len() <= indented_bytes_max(&json));
    }

    #[test]
    fn hostile_nesting_stays_small() {
        let body = "[".repeat(100_000) + &"]".repeat(100_000);
        assert!(indented(&body).len() < 2 * body.len());
        for depth in [1, 63, 64, 65, 1_000] {
            let body = "[1,".repeat(depth) + "2" + &"]".repeat(depth);
            assert!(indented(&body).len() <= indented_bytes_max(&body), "{depth}");
        }
    }
}
