//! What senders sign of a URL and of a form, each in its own spelling.

use std::{borrow::Cow, collections::BTreeMap};

use http::{HeaderMap, HeaderValue, header::CONTENT_TYPE};
use subtle::ConstantTimeEq;

use crate::{
    ingest::identify,
    vault::{hash, unhex},
};

/// The URL as it is, and with the scheme's own port where that was left out, or the other way round:
/// some senders sign it the one way and some the other (Twilio does both).
pub(super) fn spellings(url: &str) -> Vec<Cow<'_, str>> {
    let mut out = vec![Cow::Borrowed(url)];
    let Some((scheme, rest)) = url.split_once("://") else { return out };
    let port = if scheme == "https" { ":443" } else { ":80" };
    let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    let (authority, path) = rest.split_at(end);
    let has_port = authority.rsplit_once(':').is_some_and(|(_, port)| {
        !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit())
    });
    let other = match (authority.strip_suffix(port), has_port) {
        (Some(host), _) => format!("{scheme}://{host}{path}"),
        (None, false) => format!("{scheme}://{authority}{port}{path}"),
        (None, true) => return out,
    };
    out.push(Cow::Owned(other));
    out
}

/// What HubSpot decodes in a URL before it signs it.
const DECODED: [(&str, &str); 12] = [
    ("%3A", ":"),
    ("%2F", "/"),
    ("%3F", "?"),
    ("%40", "@"),
    ("%21", "!"),
    ("%24", "$"),
    ("%27", "'"),
    ("%28", "("),
    ("%29", ")"),
    ("%2A", "*"),
    ("%2C", ","),
    ("%3B", ";"),
];

pub(super) fn decoded(url: &str) -> String {
    let mut out = String::with_capacity(url.len());
    let mut rest = url;
    while let Some(at) = rest.find('%') {
        out.push_str(&rest[..at]);
        let code = rest.get(at..at + 3).unwrap_or_default();
        let known = DECODED.iter().find(|(known, _)| known.eq_ignore_ascii_case(code));
        let (text, n) = known.map_or(("%", 1), |(_, char)| (*char, 3));
        out.push_str(text);
        rest = &rest[at + n..];
    }
    out.push_str(rest);
    out
}

/// Fields of a form at most; senders have some dozens.
const FIELDS_MAX: usize = 1000;

/// The parameter in which a sender of JSON puts the body's hash, when it signs only the URL.
pub(in crate::ingest) const BODY_HASH: &str = "bodySHA256";

/// The fields of a form, sorted by name, each as its name and its value; a value that is there
/// twice counts once. A body that is no form is covered by its hash in the URL that is signed.
pub(super) fn form(url: &str, headers: &HeaderMap, body: &[u8]) -> Result<String, String> {
    if let Some(expected) = identify::query(url, BODY_HASH) {
        let expected = unhex(&expected).unwrap_or_default();
        return if bool::from(expected.ct_eq(&hash(body))) {
            Ok(String::new())
        } else {
            Err(format!("the body is not the one of `{BODY_HASH}` in the URL"))
        };
    }
    if !is_form(headers) && !body.is_empty() {
        return Err(format!("the body is no form, and the URL has no `{BODY_HASH}` for it"));
    }
    let mut fields: BTreeMap<Cow<'_, str>, Vec<Cow<'_, str>>> = BTreeMap::new();
    for (n, (name, value)) in form_urlencoded::parse(body).enumerate() {
        if n >= FIELDS_MAX {
            return Err(format!("the form has more than {FIELDS_MAX} fields"));
        }
        fields.entry(name).or_default().push(value);
    }
    let mut out = String::new();
    for (name, values) in &mut fields {
        values.sort_unstable();
        values.dedup();
        for value in values {
            out.push_str(name);
            out.push_str(value);
        }
    }
    Ok(out)
}

/// Whether the request says that its body is a form.
pub(in crate::ingest) fn is_form(headers: &HeaderMap) -> bool {
    let kind = headers.get(CONTENT_TYPE).map(HeaderValue::as_bytes).unwrap_or_default();
    let kind = kind.split(|byte| *byte == b';').next().unwrap_or_default();
    kind.trim_ascii().eq_ignore_ascii_case(b"application/x-www-form-urlencoded")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_may_be_left_out() {
        let check = |url: &str, other: Option<&str>| {
            let found = spellings(url);
            assert_eq!(found[0], url);
            assert_eq!(found.get(1).map(|it| &**it), other, "{url}");
        };
        check("https://a.example/x?y=1", Some("https://a.example:443/x?y=1"));
        check("https://a.example:443/x", Some("https://a.example/x"));
        check("http://a.example?x", Some("http://a.example:80?x"));
        check("https://a.example:8443/x", None);
        check("https://[::1]/x", Some("https://[::1]:443/x"));
        check("https://[::1]:443/x", Some("https://[::1]/x"));
        check("nonsense", None);
    }

    #[test]
    fn only_some_characters_are_decoded() {
        assert_eq!(
            decoded("https://a.example/b?c=%3a%2F%20%25%3F%"),
            "https://a.example/b?c=:/%20%25?%"
        );
        assert_eq!(decoded("a%3"), "a%3");
        assert_eq!(decoded("a%ü"), "a%ü");
    }
}
