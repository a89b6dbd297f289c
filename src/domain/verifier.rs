//! How a caller proves that it is a source: a closed list of shapes, each of them data.
//!
//! The same notation describes a preset, a source of the config file and one of the API, and is
//! checked when it is read. Invariant: a verifier that passed [`Verifier::check`] covers the body, or
//! is a plain secret that says so by its kind; a timestamp that is checked is part of what is
//! signed. Left out: the checking of requests, which is `ingest::gate`.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{
    Problem,
    certified::Certified,
    field::{Pointer, is_header_name},
    is_default,
    nearest::nearest,
    template::{Piece, Template},
};

/// How a caller proves that it is the source.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case", deny_unknown_fields)]
pub enum Verifier {
    /// `Authorization: Bearer <secret>`.
    Bearer {},
    /// `Authorization: Basic`, the secret is the password.
    Basic { username: String },
    /// The secret as the value of a header of the sender's choice.
    Header { header: String },
    /// The box key (`apiKey` of the config file) or a key of scope `ingest:<name>`, as a bearer
    /// token. If the source has a secret, that must come in `X-Webhook-Secret` too.
    Box {},
    /// The secret as a parameter of the query. It is stored nowhere.
    Query { parameter: String },
    /// The secret at a place of the body; where that is in a list, at each of them.
    BodyField { field: Pointer },
    /// A header holds an HMAC, and the secret is its key.
    Hmac(Box<Signature>),
    /// A header holds a signature, and the secret is the public key: hexadecimal, base64 or PEM.
    Ed25519(Box<Signature>),
    /// The same with ECDSA on P-256 and SHA-256; the signature is DER.
    EcdsaP256(Box<Signature>),
    /// The body itself holds an HMAC over some of its fields.
    BodyHmac(Box<BodyHmac>),
    /// A signature by a key whose certificate the request names. The secret is what the sender knows
    /// its customer by.
    Certificate(Box<Certified>),
    /// A header holds a JSON Web Token that is signed with the secret.
    Jwt(Jwt),
    /// The first of several that fits the secret and the request.
    OneOf { one_of: Vec<Alternative> },
}

/// One of several ways.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Alternative {
    /// It is the way of secrets that begin so, and not as another one says that says more.
    #[serde(default, skip_serializing_if = "is_default")]
    pub when_secret: String,
    pub verifier: Verifier,
}

/// The words for `type`.
const TYPES: [&str; 13] = [
    "bearer",
    "basic",
    "header",
    "box",
    "query",
    "body_field",
    "hmac",
    "ed25519",
    "ecdsa_p256",
    "body_hmac",
    "certificate",
    "jwt",
    "one_of",
];

/// A signature in a header, over a text that is made of the request.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Signature {
    /// Where it stands. Several headers: each that is there may hold one.
    pub header: Names,
    #[serde(default, skip_serializing_if = "is_default")]
    pub algorithm: Digest,
    /// How the secret goes into the signature.
    #[serde(default, skip_serializing_if = "is_default")]
    pub keyed: Keyed,
    #[serde(default, skip_serializing_if = "is_default")]
    pub encoding: Encoding,
    /// What stands before the signature, such as `sha256=`.
    #[serde(default, skip_serializing_if = "is_default")]
    pub prefix: String,
    /// What separates the entries of a header that holds several.
    #[serde(default, skip_serializing_if = "is_default")]
    pub separator: Option<Separator>,
    /// The entries that count, by their name: the sender's newest scheme and no older one. An entry
    /// is `name=signature`, and `name,signature` in a list with spaces.
    #[serde(default, skip_serializing_if = "is_default")]
    pub scheme: Option<String>,
    /// What is signed.
    #[serde(default, skip_serializing_if = "is_default")]
    pub template: Template,
    /// How the key is made of the secret: what is stripped from its front, and how the rest is read.
    #[serde(default, skip_serializing_if = "is_default")]
    pub secret_prefix: String,
    #[serde(default, skip_serializing_if = "is_default")]
    pub secret_encoding: SecretEncoding,
    #[serde(default, skip_serializing_if = "is_default")]
    pub timestamp: Option<Stamp>,
    /// The header that `{id}` stands for.
    #[serde(default, skip_serializing_if = "is_default")]
    pub id: Option<String>,
    /// The URL that the sender knows, where it is not the one of this server.
    #[serde(default, skip_serializing_if = "is_default")]
    pub url: Option<String>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Digest {
    Sha1,
    #[default]
    Sha256,
    Sha512,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Keyed {
    #[default]
    Hmac,
    /// The plain hash of the secret and then the rest, as HubSpot once did. Whoever sees one can
    /// make another for the same body with more behind it: for senders that know nothing better.
    Prefix,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Encoding {
    /// In capitals or not.
    #[default]
    Hex,
    Base64,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SecretEncoding {
    /// Its bytes as they are.
    #[default]
    Text,
    Base64,
    Hex,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Separator {
    #[serde(rename = ",")]
    Comma,
    #[serde(rename = ";")]
    Semicolon,
    #[serde(rename = " ")]
    Space,
}

impl Separator {
    pub fn char(self) -> char {
        match self {
            Separator::Comma => ',',
            Separator::Semicolon => ';',
            Separator::Space => ' ',
        }
    }
}

/// A signature inside of the body, over some of its fields.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BodyHmac {
    /// Where the signed things are: the first of these that the body has, and all that are there.
    /// Empty: the body itself.
    #[serde(default, skip_serializing_if = "is_default")]
    pub items: Vec<Pointer>,
    /// Places of a signed thing.
    pub signature: Pointer,
    /// What is signed, in this order; one that is not there is an empty text.
    pub fields: Vec<Pointer>,
    /// What stands between the fields.
    #[serde(default, skip_serializing_if = "is_default")]
    pub joint: String,
    #[serde(default, skip_serializing_if = "is_default")]
    pub algorithm: Digest,
    #[serde(default, skip_serializing_if = "is_default")]
    pub encoding: Encoding,
    #[serde(default, skip_serializing_if = "is_default")]
    pub secret_encoding: SecretEncoding,
    /// Only one in the body.
    #[serde(default, skip_serializing_if = "is_default")]
    pub timestamp: Option<Stamp>,
}

/// A token that says who signed it, and with `body_hash` which body it belongs to.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Jwt {
    /// Where it stands, behind `Bearer` or alone.
    pub header: String,
    #[serde(default, skip_serializing_if = "is_default")]
    pub algorithm: Digest,
    #[serde(default, skip_serializing_if = "is_default")]
    pub secret_encoding: SecretEncoding,
    /// What the claim `iss` must be.
    #[serde(default, skip_serializing_if = "is_default")]
    pub issuer: Option<String>,
    /// The claim that holds the SHA-256 of the body, in hexadecimal.
    #[serde(default, skip_serializing_if = "is_default")]
    pub body_hash: Option<String>,
}

/// When the request was made, and how old it may be.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Stamp {
    /// A header of its own.
    #[serde(default, skip_serializing_if = "is_default")]
    pub header: Option<String>,
    /// An entry of the signature's header, by its name.
    #[serde(default, skip_serializing_if = "is_default")]
    pub entry: Option<String>,
    /// A place in the body.
    #[serde(default, skip_serializing_if = "is_default")]
    pub body: Option<Pointer>,
    #[serde(default, skip_serializing_if = "is_default")]
    pub unit: Unit,
    /// Seconds that it may differ from our clock, both ways. Without it any time is fine: the
    /// sender's retries carry the time of the first attempt, or it says nothing about it.
    #[serde(default, skip_serializing_if = "is_default")]
    pub tolerance_seconds: Option<u32>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Unit {
    #[default]
    Seconds,
    Milliseconds,
    Rfc3339,
    /// As in the header `Date`.
    HttpDate,
}

/// One name, or several in a list.
#[derive(Clone, Debug, PartialEq)]
pub struct Names(pub Vec<String>);

impl Serialize for Names {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match &self.0[..] {
            [one] => one.serialize(serializer),
            several => several.serialize(serializer),
        }
    }
}

impl<'de> Deserialize<'de> for Names {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Names, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Shape {
            One(String),
            Several(Vec<String>),
        }
        match Shape::deserialize(deserializer) {
            Ok(Shape::One(name)) => Ok(Names(vec![name])),
            Ok(Shape::Several(names)) => Ok(Names(names)),
            Err(_) => Err(serde::de::Error::custom("`header` is a name or a list of names")),
        }
    }
}

/// Headers in which a signature may stand.
const HEADERS_MAX: usize = 4;

/// 30 days: as long as identities are kept unless told otherwise.
const TOLERANCE_SECONDS_MAX: u32 = 30 * 24 * 3600;

impl Verifier {
    /// Reads what somebody wrote. The problem's field is a path below the verifier, and its message
    /// repeats no value: it may be a secret that stands in the wrong place.
    pub fn read(given: &Value) -> Result<Verifier, Problem> {
        if !given.is_object() {
            return Err(Problem::new("", "must be an object with a `type`"));
        }
        let verifier = Verifier::deserialize(given).map_err(|error| problem(&error.to_string()))?;
        verifier.check()?;
        Ok(verifier)
    }

    pub fn needs_secret(&self) -> bool {
        !matches!(self, Verifier::Box {})
    }

    /// Whether the secret makes an HMAC of any text, and a delivery is proved by nothing but one over
    /// its body.
    pub fn makes_macs(&self) -> bool {
        match self {
            Verifier::Hmac(rule) => rule.keyed == Keyed::Hmac && rule.template.has(&Piece::Body),
            _ => false,
        }
    }

    /// What the types do not say.
    fn check(&self) -> Result<(), Problem> {
        match self {
            Verifier::Bearer {} | Verifier::Box {} | Verifier::BodyField { .. } => Ok(()),
            Verifier::Basic { username } => {
                let is_odd = |char: char| char == ':' || char.is_control();
                if username.is_empty() || username.contains(is_odd) {
                    return Err(Problem::new("username", "must not be empty, nor contain `:`"));
                }
                Ok(())
            }
            Verifier::Header { header } => check_header("header", header),
            Verifier::Query { parameter } if is_header_name(parameter) => Ok(()),
            Verifier::Query { .. } => Err(Problem::new("parameter", "is not a plain name")),
            Verifier::Hmac(signature) => signature.check(),
            Verifier::Ed25519(signature) | Verifier::EcdsaP256(signature) => {
                signature.check()?;
                let hmac = [
                    ("algorithm", signature.algorithm == Digest::default()),
                    ("keyed", signature.keyed == Keyed::default()),
                    ("secret_encoding", signature.secret_encoding == SecretEncoding::default()),
                ];
                match hmac.iter().find(|(_, is_absent)| !is_absent) {
                    Some((field, _)) => Err(Problem::new(*field, "belongs to `hmac`")),
                    None => Ok(()),
                }
            }
            Verifier::BodyHmac(rule) => rule.check(),
            Verifier::Certificate(rule) => rule.check(),
            Verifier::Jwt(rule) => check_header("header", &rule.header),
            Verifier::OneOf { one_of } => {
                if !(1..=ALTERNATIVES_MAX).contains(&one_of.len()) {
                    let message = format!("must have 1 to {ALTERNATIVES_MAX} alternatives");
                    return Err(Problem::new("one_of", message));
                }
                for (n, Alternative { verifier, .. }) in one_of.iter().enumerate() {
                    let at = |problem: Problem| {
                        let field = problem.field;
                        Problem::new(format!("one_of[{n}].{field}"), problem.message)
                    };
                    if let Verifier::OneOf { .. } | Verifier::Box {} | Verifier::Certificate(_) =
                        verifier
                    {
                        return Err(at(Problem::new("type", "cannot be an alternative")));
                    }
                    verifier.check().map_err(at)?;
                }
                Ok(())
            }
        }
    }
}

const ALTERNATIVES_MAX: usize = 4;

/// Fields that make one signature.
const FIELDS_MAX: usize = 16;

impl BodyHmac {
    fn check(&self) -> Result<(), Problem> {
        if self.fields.is_empty() || self.fields.len() > FIELDS_MAX {
            return Err(Problem::new("fields", format!("must have 1 to {FIELDS_MAX} places")));
        }
        match &self.timestamp {
            Some(Stamp { body: None, .. }) => {
                Err(Problem::new("timestamp", "must be one of the body"))
            }
            Some(stamp) => stamp.check(false),
            None => Ok(()),
        }
    }
}

fn check_header(field: &str, name: &str) -> Result<(), Problem> {
    if is_header_name(name) { Ok(()) } else { Err(Problem::new(field, "is not a header name")) }
}

impl Signature {
    fn check(&self) -> Result<(), Problem> {
        if self.header.0.is_empty() || self.header.0.len() > HEADERS_MAX {
            let message = format!("must be a name, or a list of up to {HEADERS_MAX}");
            return Err(Problem::new("header", message));
        }
        for name in &self.header.0 {
            check_header("header", name)?;
        }
        if let Some(id) = &self.id {
            check_header("id", id)?;
        }
        if !self.template.covers_body() {
            let message = "must have `{body}` or `{form}`: the body would not be signed";
            return Err(Problem::new("template", message));
        }
        if self.id.is_some() != self.template.has(&Piece::Id) {
            let message = "names the header of `{id}` in the template: give both or neither";
            return Err(Problem::new("id", message));
        }
        if let Some(stamp) = &self.timestamp {
            stamp.check(self.separator.is_some())?;
        }
        match (&self.timestamp, self.template.has(&Piece::Timestamp)) {
            (None, true) => {
                let message = "is required: the template has `{timestamp}`";
                return Err(Problem::new("timestamp", message));
            }
            // One in the body is signed with the body.
            (Some(stamp), false) if stamp.body.is_none() => {
                let message = "is not signed: the template has no `{timestamp}`";
                return Err(Problem::new("timestamp", message));
            }
            (Some(_), _) | (None, false) => {}
        }
        if let Some(url) = &self.url
            && !(url.starts_with("https://") || url.starts_with("http://"))
        {
            return Err(Problem::new("url", "must be an http or https URL"));
        }
        Ok(())
    }
}

impl Stamp {
    fn check(&self, has_entries: bool) -> Result<(), Problem> {
        let n_given = [self.header.is_some(), self.entry.is_some(), self.body.is_some()];
        if n_given.iter().filter(|it| **it).count() != 1 {
            let message = "needs one of `header`, `entry` and `body`";
            return Err(Problem::new("timestamp", message));
        }
        if let Some(header) = &self.header {
            check_header("timestamp.header", header)?;
        }
        if self.entry.is_some() && !has_entries {
            let message = "needs a `separator`, which makes entries of the header";
            return Err(Problem::new("timestamp.entry", message));
        }
        match self.tolerance_seconds {
            Some(seconds) if !(1..=TOLERANCE_SECONDS_MAX).contains(&seconds) => {
                let message = format!("must be from 1 to {TOLERANCE_SECONDS_MAX}");
                Err(Problem::new("timestamp.tolerance_seconds", message))
            }
            Some(_) | None => Ok(()),
        }
    }
}

/// What serde says, without the values that it quotes.
fn problem(error: &str) -> Problem {
    let name = |prefix: &str| error.strip_prefix(prefix)?.split('`').nth(1);
    // What serde expected comes last, so that nothing of what was given can pass for it.
    let expected = error.rsplit_once(", expected ").map_or("", |(_, expected)| expected);
    let known: Vec<&str> = expected.split('`').skip(1).step_by(2).collect();
    if let Some(field) = name("missing field ") {
        return Problem::new(field, "is required");
    }
    if let Some(field) = name("unknown field ") {
        let hint = nearest(field, known).map(|near| format!(": did you mean `{near}`?"));
        let message = format!("is not a field of this verifier{}", hint.unwrap_or_default());
        return Problem::new(field, message);
    }
    if error.starts_with("unknown variant ") {
        let field = if known == TYPES { "type" } else { "" };
        return Problem::new(field, format!("must be {expected}"));
    }
    if error.starts_with("invalid ") || !expected.is_empty() {
        return Problem::new("", "has a field of the wrong kind");
    }
    Problem::new("", error)
}

#[cfg(test)]
mod tests {
    use expect_test::expect;
    use serde_json::json;

    use super::*;

    #[test]
    fn what_is_wrong_is_said_without_values() {
        let wrong = [
            json!("s3cret"),
            json!({"type": "s3cret"}),
            json!({"type": "s3cret`, expected `x"}),
            json!({"type": "bearer", "x": 1}),
            json!({"type": "basic"}),
            json!({"type": "basic", "username": "a:b"}),
            json!({"type": "basic", "usrname": "a"}),
            json!({"type": "header", "header": "X Y"}),
            json!({"type": "hmac", "header": 5}),
            json!({"type": "hmac", "header": []}),
            json!({"type": "hmac", "header": "X", "algorithm": "s3cret"}),
            json!({"type": "hmac", "header": "X", "prefix": {"s3cret": 1}}),
            json!({"type": "hmac", "header": "X", "template": "{s3cret}"}),
            json!({"type": "hmac", "header": "X", "template": "{url}"}),
            json!({"type": "hmac", "header": "X", "template": "{id}{body}"}),
            json!({"type": "hmac", "header": "X", "template": "{timestamp}{body}"}),
            json!({"type": "hmac", "header": "X", "timestamp": {"header": "X-T"}}),
            json!({"type": "hmac", "header": "X", "timestamp": {"unit": "seconds"}}),
            json!({"type": "hmac", "header": "X", "timestamp": {"body": "s3cret"}}),
            json!({"type": "hmac", "header": "X", "template": "{timestamp}{body}",
                "timestamp": {"entry": "t"}}),
            json!({"type": "hmac", "header": "X", "timestamp": {"body": "/t", "tolerance_seconds": 0}}),
            json!({"type": "hmac", "header": "X", "url": "bell.example"}),
            json!({"type": "query", "parameter": "a b"}),
            json!({"type": "ed25519", "header": "X", "algorithm": "sha1"}),
            json!({"type": "body_hmac", "signature": "/s", "fields": []}),
            json!({"type": "body_hmac", "signature": "/s", "fields": ["/a"],
                "timestamp": {"header": "X"}}),
            json!({"type": "jwt", "header": "X Y"}),
            json!({"type": "one_of", "one_of": []}),
            json!({"type": "one_of", "one_of": [{"verifier": {"type": "box"}}]}),
            json!({"type": "one_of", "one_of": [{"verifier": {"type": "jwt", "header": "s3cret!"}}]}),
        ];
        let found = wrong.map(|given| Verifier::read(&given).unwrap_err().to_string());
        assert!(!found.join("\n").contains("s3cret"));
        expect![[r#"
            : must be an object with a `type`
            type: must be one of `bearer`, `basic`, `header`, `box`, `query`, `body_field`, `hmac`, `ed25519`, `ecdsa_p256`, `body_hmac`, `certificate`, `jwt`, `one_of`
            type: must be one of `bearer`, `basic`, `header`, `box`, `query`, `body_field`, `hmac`, `ed25519`, `ecdsa_p256`, `body_hmac`, `certificate`, `jwt`, `one_of`
            x: is not a field of this verifier
            username: is required
            username: must not be empty, nor contain `:`
            usrname: is not a field of this verifier: did you mean `username`?
            header: is not a header name
            : `header` is a name or a list of names
            header: must be a name, or a list of up to 4
            : must be one of `sha1`, `sha256`, `sha512`
            : has a field of the wrong kind
            : the template has a placeholder that is none of {body}, {timestamp}, {id}, {url}, {decoded_url}, {method}, {form}
            template: must have `{body}` or `{form}`: the body would not be signed
            id: names the header of `{id}` in the template: give both or neither
            timestamp: is required: the template has `{timestamp}`
            timestamp: is not signed: the template has no `{timestamp}`
            timestamp: needs one of `header`, `entry` and `body`
            : is not a JSON pointer
            timestamp.entry: needs a `separator`, which makes entries of the header
            timestamp.tolerance_seconds: must be from 1 to 2592000
            url: must be an http or https URL
            parameter: is not a plain name
            algorithm: belongs to `hmac`
            fields: must have 1 to 16 places
            timestamp: must be one of the body
            header: is not a header name
            one_of: must have 1 to 4 alternatives
            one_of[0].type: cannot be an alternative
            one_of[0].header: is not a header name"#]].assert_eq(&found.join("\n"));
    }

    #[test]
    fn defaults_are_not_written() {
        let given = json!({"type": "hmac", "header": "X-Signature"});
        assert_eq!(json!(Verifier::read(&given).unwrap()), given);
        let given = json!({"type": "hmac", "header": ["A", "B"], "algorithm": "sha1",
            "encoding": "base64", "prefix": "x", "separator": ";", "scheme": "v1",
            "template": "{timestamp}.{body}", "secret_prefix": "whsec_",
            "secret_encoding": "base64",
            "timestamp": {"entry": "t", "unit": "milliseconds", "tolerance_seconds": 300},
            "url": "https://bell.example/x"});
        assert_eq!(json!(Verifier::read(&given).unwrap()), given);
    }
}
