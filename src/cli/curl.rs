//! A call as a line for the shell, for trying out a sender's side.

/// What the caller puts in place of itself; never a real secret.
pub(super) const SECRET: &str = "$SECRET";

/// `curl` posting a small JSON document. `arguments` may hold variables of the shell.
pub(super) fn line(url: &str, arguments: &[String]) -> String {
    let mut line = format!("curl {}", quoted(url));
    for argument in arguments {
        line.push(' ');
        line.push_str(argument);
    }
    line.push_str(" -H 'Content-Type: application/json' -d '{\"hello\":\"bell\"}'");
    line
}

/// A header whose value is a variable of the shell.
pub(super) fn header(name: &str, value: &str) -> String {
    // A header's name is a token, so it holds nothing that the shell would expand.
    format!("-H \"{name}: {value}\"")
}

/// How a caller of a source with this verifier says who it is; `None` where it has to sign.
pub(super) fn credentials(verifier: &serde_json::Value) -> Option<Vec<String>> {
    let text = |field: &str| verifier[field].as_str().unwrap_or_default();
    match text("type") {
        "basic" => Some(vec![format!("-u {}:\"{SECRET}\"", quoted(text("username")))]),
        "header" => Some(vec![header(text("header"), SECRET)]),
        "bearer" | "box" => Some(vec![header("Authorization", &format!("Bearer {SECRET}"))]),
        _ => None,
    }
}

/// The text as one word of a shell.
pub(super) fn quoted(text: &str) -> String {
    let plain = |char: char| char.is_ascii_alphanumeric() || "-_./:@%+=,".contains(char);
    if !text.is_empty() && text.chars().all(plain) {
        return text.to_owned();
    }
    format!("'{}'", text.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use expect_test::expect;
    use serde_json::json;

    use super::*;

    #[test]
    fn words_survive_the_shell() {
        for (text, expected) in [
            ("http://a:1/b", "http://a:1/b"),
            ("", "''"),
            ("a b", "'a b'"),
            ("it's $x", r"'it'\''s $x'"),
            ("a;b", "'a;b'"),
        ] {
            assert_eq!(quoted(text), expected);
        }
    }

    #[test]
    fn a_line_holds_no_secret_but_a_place_for_it() {
        let verifier = json!({"type": "basic", "username": "o'neil"});
        let line =
            line("http://127.0.0.1:4100/api/webhook/stripe", &credentials(&verifier).unwrap());
        expect![[r#"curl http://127.0.0.1:4100/api/webhook/stripe -u 'o'\''neil':"$SECRET" -H 'Content-Type: application/json' -d '{"hello":"bell"}'"#]]
            .assert_eq(&line);
    }
}
