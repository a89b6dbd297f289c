//! Secrets taken out of texts that come from whoever was told them: a server may say them back.
//!
//! Invariant: a secret is found as it is and as forms and JSON write it, also where only its beginning
//! is left, as at a cut. Left out: what somebody hides on purpose; who was told a secret can always
//! tell it in other words.

use super::text::clean;

const REDACTED: &str = "[redacted]";

/// Stands for it until all secrets are out, so that none of them is found in the word itself. Texts that
/// are kept have no such character.
const MARK: &str = "\0";

/// So much of a secret tells whose beginning it is. Fewer characters stand in other words, too.
const TELLING_CHARS: usize = 8;

/// The text without these secrets.
pub fn without<'a>(text: &str, secrets: impl IntoIterator<Item = &'a str>) -> String {
    let mut text = clean(text).into_owned();
    for secret in secrets.into_iter().filter(|secret| !secret.is_empty()) {
        let form: String = form_urlencoded::byte_serialize(secret.as_bytes()).collect();
        let json = serde_json::Value::from(secret).to_string();
        for written in [secret, form.as_str(), &json[1..json.len() - 1]] {
            text = text.replace(written, MARK);
            text = without_beginnings(&text, written);
        }
    }
    text.replace(MARK, REDACTED)
}

/// Wherever the secret begins, as far as it goes.
fn without_beginnings(text: &str, secret: &str) -> String {
    let Some((telling, _)) = secret.char_indices().nth(TELLING_CHARS) else {
        return text.to_owned();
    };
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find(&secret[..telling]) {
        let found = &rest[at..];
        let same = found.chars().zip(secret.chars()).take_while(|(a, b)| a == b);
        let n_bytes: usize = same.map(|(char, _)| char.len_utf8()).sum();
        out.push_str(&rest[..at]);
        out.push_str(MARK);
        rest = &found[n_bytes..];
    }
    out + rest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_found_as_it_is_written_and_where_it_is_cut() {
        let secret = "tkn/+\"very-secret";
        for (text, wanted) in [
            ("it is tkn/+\"very-secret.", "it is [redacted]."),
            ("a=tkn%2F%2B%22very-secret&b", "a=[redacted]&b"),
            (r#"{"a":"tkn/+\"very-secret"}"#, r#"{"a":"[redacted]"}"#),
            ("cut: tkn/+\"very-se", "cut: [redacted]"),
            ("cut: tkn/+\"ve, and on", "cut: [redacted], and on"),
            ("a=tkn%2F%2B%2", "a=[redacted]"),
            ("tkn/+ is its kind", "tkn/+ is its kind"),
        ] {
            assert_eq!(without(text, [secret]), wanted, "{text}");
        }
        assert_eq!(without("ab\0c", ["a", "", "red"]), "[redacted]bc");
        assert_eq!(without("ü", [""]), "ü");
    }
}
