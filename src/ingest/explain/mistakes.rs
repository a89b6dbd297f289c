//! The usual mistakes: each is undone, and the gate is asked again.
//!
//! Bounded: so many changes, one at a time, on bodies up to a size; a request that has two mistakes
//! gets no hint about either.

use std::borrow::Cow;

use bytes::Bytes;
use secrecy::ExposeSecret;
use serde_json::Value;

use super::super::{
    Entry, Head, Payload, Secrets, Snapshot,
    gate::{self, Notes, Watch},
};
use crate::{
    clock::Timestamp,
    domain::verifier::{Digest, Encoding, SecretEncoding, Signature, Verifier},
};

/// Larger bodies are not tried again and again.
const BODY_BYTES_MAX: usize = 1024 * 1024;

/// Other sources whose secrets are tried.
const SOURCES_MAX: usize = 100;

/// A request and what it is put to.
#[derive(Clone, Copy)]
struct Case<'a> {
    verifier: &'a Verifier,
    secrets: &'a Secrets,
    head: &'a Head,
    payload: &'a Payload,
    at: Timestamp,
}

impl Case<'_> {
    fn passes(&self) -> bool {
        let watch = Watch { now: self.at, notes: &Notes::none() };
        gate::prove(self.verifier, self.secrets, self.head, self.payload, watch).is_ok()
    }
}

/// What would have opened the gate.
pub(super) fn hints(
    snapshot: &Snapshot,
    entry: &Entry,
    head: &Head,
    payload: &Payload,
    at: Timestamp,
) -> Vec<String> {
    let Ok(sender) = &entry.sender else { return Vec::new() };
    let secrets = &entry.secrets;
    let case = Case { verifier: &sender.verifier, secrets, head, payload, at };
    let mut hints = Vec::new();
    let redacted = head.headers.iter().find(|(_, value)| value.as_bytes() == b"[redacted]");
    if let Some((name, _)) = redacted {
        hints.push(format!(
            "the header `{name}` was redacted when the request was stored: give its real value"
        ));
    }
    if payload.bytes.len() > BODY_BYTES_MAX {
        return hints;
    }
    hints.extend(of_secret(snapshot, case));
    hints.extend(of_body(case));
    hints.extend(of_verifier(case));
    if hints.is_empty() && is_signed(&sender.verifier) && secrets.is_set() {
        hints.push(
            "if header and body are the sender's own bytes, then the secret is not the one it \
             signs with: mind test and live mode, and that each endpoint has its own"
                .to_owned(),
        );
    }
    hints
}

fn is_signed(verifier: &Verifier) -> bool {
    match verifier {
        Verifier::OneOf { one_of } => one_of.iter().any(|it| is_signed(&it.verifier)),
        Verifier::Hmac(_)
        | Verifier::Ed25519(_)
        | Verifier::EcdsaP256(_)
        | Verifier::BodyHmac(_)
        | Verifier::Certificate(_)
        | Verifier::Jwt(_) => true,
        Verifier::Bearer {}
        | Verifier::Basic { .. }
        | Verifier::Header { .. }
        | Verifier::Box {}
        | Verifier::Query { .. }
        | Verifier::BodyField { .. } => false,
    }
}

/// The right secret, badly pasted, or that of another source.
fn of_secret(snapshot: &Snapshot, case: Case<'_>) -> Vec<String> {
    let mut hints = Vec::new();
    type Change = fn(&str) -> String;
    let changes: [(Change, &str); 6] = [
        (|it| it.trim().to_owned(), "without the white space around it"),
        (|it| format!("{it}\n"), "with a line break at its end, so the sender has one there"),
        (|it| it.trim_start_matches("whsec_").to_owned(), "without its `whsec_`"),
        (|it| format!("whsec_{it}"), "with `whsec_` before it, which the sender shows and counts"),
        (|it| it.trim_matches(['"', '\'']).to_owned(), "without the quotes around it"),
        (|it| it.to_ascii_lowercase(), "in lower-case letters"),
    ];
    for (change, how) in changes {
        let is_other = |secret: &str| change(secret) != secret;
        let secrets = case.secrets.filtered(is_other).changed(change);
        if secrets.is_set() && (Case { secrets: &secrets, ..case }).passes() {
            hints.push(format!("the secret opens it {how}: set it so"));
        }
    }
    let own = case.secrets.newest(case.at).map(ExposeSecret::expose_secret);
    for other in snapshot.sources().into_iter().take(SOURCES_MAX) {
        let is_other = other.secrets.newest(case.at).map(ExposeSecret::expose_secret) != own;
        if is_other && (Case { secrets: &other.secrets, ..case }).passes() {
            let name = other.display_name();
            hints.push(format!(
                "it was made with the secret of the source `{name}`: the sender calls the wrong \
                 endpoint, or test and live mode are mixed up"
            ));
        }
    }
    hints
}

/// The body is not byte for byte the one that was signed.
fn of_body(case: Case<'_>) -> Option<String> {
    let bytes = &case.payload.bytes;
    let with = |end: &[u8]| Some([bytes, end].concat());
    let without = |end: &[u8]| bytes.strip_suffix(end).map(<[u8]>::to_vec);
    let unix = std::str::from_utf8(bytes).ok().map(|text| text.replace("\r\n", "\n"));
    let dos = unix.as_ref().map(|text| text.replace('\n', "\r\n"));
    let json: Option<Value> = serde_json::from_slice(bytes).ok();
    let compact = json.as_ref().map(|json| json.to_string().into_bytes());
    let pretty = |indent: &[u8]| pretty(json.as_ref()?, indent);
    let written_anew = "the JSON was written anew on the way";
    let changes: [(Option<Vec<u8>>, Cow<'_, str>); 10] = [
        (without(b"\n"), "the body has a line break at its end that was not signed".into()),
        (without(b"\r\n"), "the body has a line break at its end that was not signed".into()),
        (with(b"\n"), "the body lacks the line break at its end that was signed".into()),
        (with(b"\r\n"), "the body lacks the CR LF at its end that was signed".into()),
        (
            unix.map(String::into_bytes),
            "line breaks were LF when it was signed, and are CR LF".into(),
        ),
        (
            dos.map(String::into_bytes),
            "line breaks were CR LF when it was signed, and are LF".into(),
        ),
        (compact.clone(), format!("{written_anew}: it was signed without white space").into()),
        (
            spaced(json.as_ref()),
            format!("{written_anew}: it was signed as Python writes it").into(),
        ),
        (pretty(b"  "), format!("{written_anew}: it was signed with an indent of 2").into()),
        (pretty(b"    "), format!("{written_anew}: it was signed with an indent of 4").into()),
    ];
    // One change is enough to know: writing JSON anew takes a line break away as well.
    let passes = |(body, hint): (Option<Vec<u8>>, Cow<'_, str>)| {
        let body = body.filter(|body| body != bytes)?;
        let payload = Payload::of(case.payload.content_type.clone(), Bytes::from(body));
        let passes = Case { payload: &payload, ..case }.passes();
        passes.then(|| format!("{hint}: keep the bytes as they came"))
    };
    changes.into_iter().find_map(passes)
}

fn pretty(json: &Value, indent: &[u8]) -> Option<Vec<u8>> {
    use serde::Serialize;
    let mut out = Vec::new();
    let formatter = serde_json::ser::PrettyFormatter::with_indent(indent);
    json.serialize(&mut serde_json::Serializer::with_formatter(&mut out, formatter)).ok()?;
    Some(out)
}

/// `{"a": 1, "b": [2, 3]}`, the default of Python's `json`.
fn spaced(json: Option<&Value>) -> Option<Vec<u8>> {
    struct Spaced;
    impl serde_json::ser::Formatter for Spaced {
        fn begin_array_value<W: ?Sized + std::io::Write>(
            &mut self,
            writer: &mut W,
            first: bool,
        ) -> std::io::Result<()> {
            writer.write_all(if first { b"" } else { b", " })
        }

        fn begin_object_key<W: ?Sized + std::io::Write>(
            &mut self,
            writer: &mut W,
            first: bool,
        ) -> std::io::Result<()> {
            writer.write_all(if first { b"" } else { b", " })
        }

        fn begin_object_value<W: ?Sized + std::io::Write>(
            &mut self,
            writer: &mut W,
        ) -> std::io::Result<()> {
            writer.write_all(b": ")
        }
    }
    use serde::Serialize;
    let mut out = Vec::new();
    json?.serialize(&mut serde_json::Serializer::with_formatter(&mut out, Spaced)).ok()?;
    Some(out)
}

/// The source says something else about the signature than the sender does.
fn of_verifier(case: Case<'_>) -> Option<String> {
    let Verifier::Hmac(rule) = case.verifier else { return None };
    let with = |change: &dyn Fn(&mut Signature)| {
        let mut rule = rule.clone();
        change(&mut rule);
        rule
    };
    let mut others: Vec<(Box<Signature>, String)> = Vec::new();
    for algorithm in [Digest::Sha1, Digest::Sha256, Digest::Sha512] {
        for encoding in [Encoding::Hex, Encoding::Base64] {
            let other = with(&|rule| (rule.algorithm, rule.encoding) = (algorithm, encoding));
            others.push((other, format!("`algorithm` {algorithm:?} and `encoding` {encoding:?}")));
        }
    }
    for secret_encoding in [SecretEncoding::Text, SecretEncoding::Base64, SecretEncoding::Hex] {
        for prefix in ["", "whsec_"] {
            let other = with(&|rule| {
                (rule.secret_encoding, rule.secret_prefix) = (secret_encoding, prefix.to_owned());
            });
            let stripped = if prefix.is_empty() { "nothing" } else { "`whsec_`" };
            let how =
                format!("`secret_encoding` {secret_encoding:?} and {stripped} stripped from it");
            others.push((other, how));
        }
    }
    for prefix in ["", "sha1=", "sha256=", "sha512=", "v0=", "v1="] {
        let other = with(&|rule| prefix.clone_into(&mut rule.prefix));
        others.push((other, format!("`prefix` {prefix:?}")));
    }
    if rule.timestamp.is_none() && rule.id.is_none() {
        for template in ["{body}", "{url}{body}", "{body}{url}", "{method}{url}{body}"] {
            let template = template.parse().expect("it is a template");
            let how = format!("`template` \"{template}\"");
            others.push((with(&|rule| rule.template.clone_from(&template)), how));
        }
    }
    others.into_iter().find_map(|(other, how)| {
        let is_other = other != *rule;
        let verifier = Verifier::Hmac(other);
        let passes = is_other && Case { verifier: &verifier, ..case }.passes();
        let how = how.to_lowercase();
        passes.then(|| format!("it would be let in by a `verifier` with {how}"))
    })
}
