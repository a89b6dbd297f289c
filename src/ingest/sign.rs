//! Signs a request as its sender would: for test deliveries, and for tests of the gate.
//!
//! Pure: the time, the secret and every byte come from the caller. Invariant: what is signed for a
//! verifier passes that verifier, because both make the signed text and the key with the same code;
//! that this code is right is shown by requests that others signed. A request is written twice, the
//! second time with marks where the secret or what only it can make would stand, so nothing that is
//! shown was ever a secret. Left out: shapes with a public key, for which only the sender can sign.

use base64::{
    Engine,
    engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD},
};
use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, header::AUTHORIZATION};
use serde_json::{Value, json};

use super::{
    gate::{fits, key, mac, signature, stamp, url},
    payload::{find, find_mut, scalar},
};
use crate::{
    clock::Timestamp,
    domain::{
        field::Pointer,
        template::Piece,
        verifier::{BodyHmac, Digest, Jwt, Keyed, Separator, Signature, Stamp, Unit, Verifier},
    },
    vault::{hash, hex},
};

/// A request that somebody is about to send.
#[derive(Clone, Debug)]
pub struct Draft {
    pub method: Method,
    /// As the sender calls it.
    pub url: String,
    pub headers: HeaderMap,
    pub body: Bytes,
}

/// What the caller of a source holds.
#[derive(Clone, Copy, Debug, Default)]
pub struct Held<'a> {
    pub secret: Option<&'a str>,
    /// For sources without a verifier of their own.
    pub box_key: Option<&'a str>,
}

/// A request that its source lets in, and the same as it may be shown.
#[derive(Clone, Debug)]
pub struct Signed {
    pub sent: Draft,
    pub shown: Draft,
}

/// Puts into a request what proves its sender; proofs that are there are replaced. `id` goes where
/// the sender signs one and the request has none.
pub fn sign(
    verifier: &Verifier,
    held: Held<'_>,
    draft: &Draft,
    id: &str,
    at: Timestamp,
) -> Result<Signed, String> {
    let write = |shown| {
        let mut pen = Pen { held, shown, at, id, draft: draft.clone() };
        pen.prove(verifier).map(|()| pen.draft)
    };
    Ok(Signed { sent: write(false)?, shown: write(true)? })
}

/// What stands in the place of a secret, and of a signature, in what is shown.
const SECRET: &str = "[redacted]";
const SIGNATURE: &str = "[signature]";

const PUBLIC: &str = "the source has the sender's public key: only the sender can sign for it";

/// Somebody who writes one request.
struct Pen<'a> {
    held: Held<'a>,
    /// Whether marks stand for what nobody else may see.
    shown: bool,
    at: Timestamp,
    id: &'a str,
    draft: Draft,
}

impl<'a> Pen<'a> {
    fn prove(&mut self, verifier: &Verifier) -> Result<(), String> {
        match verifier {
            Verifier::Bearer {} => {
                let secret = self.visible_secret()?;
                self.header(AUTHORIZATION.as_str(), &format!("Bearer {secret}"))
            }
            Verifier::Basic { username } => {
                let value = match self.shown {
                    true => SECRET.to_owned(),
                    false => STANDARD.encode(format!("{username}:{}", self.secret()?)),
                };
                self.header(AUTHORIZATION.as_str(), &format!("Basic {value}"))
            }
            Verifier::Header { header } => {
                let secret = self.visible_secret()?;
                self.header(header, secret)
            }
            Verifier::Box {} => self.box_key(),
            Verifier::Query { parameter } => {
                let secret = self.visible_secret()?;
                self.draft.url = with_parameter(&self.draft.url, parameter, secret);
                Ok(())
            }
            Verifier::BodyField { field } => {
                let secret = Value::from(self.visible_secret()?);
                self.change_body(|tree| put(tree, &field.0, &secret))
            }
            Verifier::Hmac(rule) => self.hmac(rule),
            Verifier::BodyHmac(rule) => self.body_hmac(rule),
            Verifier::Jwt(rule) => self.jwt(rule),
            Verifier::Ed25519(_) | Verifier::EcdsaP256(_) | Verifier::Certificate(_) => {
                Err(PUBLIC.to_owned())
            }
            Verifier::OneOf { one_of } => {
                let secret = self.secret()?;
                let before = self.draft.clone();
                let mut reason = "no secret of the source fits its gate".to_owned();
                for alternative in one_of.iter().filter(|it| fits(one_of, it, secret)) {
                    match self.prove(&alternative.verifier) {
                        Ok(()) => return Ok(()),
                        Err(other) => reason = other,
                    }
                    self.draft = before.clone();
                }
                Err(reason)
            }
        }
    }

    fn secret(&self) -> Result<&'a str, String> {
        self.held.secret.ok_or_else(|| "the source's secret has no value in the vault".to_owned())
    }

    /// The secret where it is sent itself.
    fn visible_secret(&self) -> Result<&'a str, String> {
        let secret = self.secret()?;
        Ok(if self.shown { SECRET } else { secret })
    }

    fn header(&mut self, name: &str, value: &str) -> Result<(), String> {
        let odd = || format!("the value of the `{name}` header cannot stand in a header");
        let name: HeaderName = name.parse().map_err(|_| odd())?;
        let value = HeaderValue::from_str(value).map_err(|_| odd())?;
        self.draft.headers.insert(name, value);
        Ok(())
    }

    fn box_key(&mut self) -> Result<(), String> {
        let key = self.held.box_key.ok_or(
            "the source is opened by the box key, and there is none, or by an API key of scope \
             `ingest`, which is known only to its holder",
        )?;
        let key = if self.shown { SECRET } else { key };
        self.header(AUTHORIZATION.as_str(), &format!("Bearer {key}"))?;
        match self.held.secret {
            Some(_) => {
                let secret = self.visible_secret()?;
                self.header("X-Webhook-Secret", secret)
            }
            None => Ok(()),
        }
    }

    fn hmac(&mut self, rule: &Signature) -> Result<(), String> {
        if let Some((stamp, place)) =
            rule.timestamp.as_ref().and_then(|it| Some((it, it.body.as_ref()?)))
        {
            let time = time_in_body(stamp, self.at);
            self.change_body(|tree| put(tree, &place.0, &time))?;
        }
        let time = rule.timestamp.as_ref().map(|it| stamp::write(it.unit, self.at));
        if let (Some(header), Some(time)) =
            (rule.timestamp.as_ref().and_then(|it| it.header.as_deref()), &time)
        {
            self.header(header, time)?;
        }
        let id = match &rule.id {
            None => None,
            Some(header) => {
                if !self.draft.headers.contains_key(header) {
                    self.header(header, self.id)?;
                }
                let id = self.draft.headers.get(header).and_then(|it| it.to_str().ok());
                Some(id.unwrap_or_default().to_owned())
            }
        };
        self.sign_form(rule)?;
        let secret = self.secret()?;
        let key = key::shared(&rule.secret_prefix, rule.secret_encoding, secret)
            .map_err(|reason| format!("the source's secret {reason}"))?;
        let text = signature::Text {
            method: &self.draft.method,
            url: &self.draft.url,
            headers: &self.draft.headers,
            body: &self.draft.body,
            timestamp: time.as_deref(),
            id: id.as_deref(),
        };
        let contents = signature::contents(rule, &text)?;
        let content = contents.first().ok_or("there is nothing to sign")?;
        let signature = mac::of(rule.keyed, rule.algorithm, &key, content);
        let signature = self.visible(mac::encode(rule.encoding, &signature));
        let value = entries(rule, time.as_deref(), &signature);
        for other in rule.header.0.iter().skip(1) {
            self.draft.headers.remove(other);
        }
        let header = rule.header.0.first().ok_or("the verifier names no header")?;
        self.header(header, &value)
    }

    /// A body that is no form is signed by its hash in the URL, where the sender signs forms.
    fn sign_form(&mut self, rule: &Signature) -> Result<(), String> {
        if !rule.template.has(&Piece::Form)
            || self.draft.body.is_empty()
            || url::is_form(&self.draft.headers)
        {
            return Ok(());
        }
        if rule.url.is_some() {
            return Err("the sender signs a form, and the body is none".to_owned());
        }
        let hash = hex(&hash(&self.draft.body));
        self.draft.url = with_parameter(&self.draft.url, url::BODY_HASH, &hash);
        Ok(())
    }

    fn visible(&self, signature: String) -> String {
        if self.shown { SIGNATURE.to_owned() } else { signature }
    }

    fn body_hmac(&mut self, rule: &BodyHmac) -> Result<(), String> {
        let key = key::shared("", rule.secret_encoding, self.secret()?)
            .map_err(|reason| format!("the source's secret {reason}"))?;
        let (shown, at) = (self.shown, self.at);
        self.change_body(|tree| {
            let place = rule.items.iter().find(|it| !find(tree, &it.0).is_empty());
            let items = match place {
                Some(place) => find_mut(tree, &place.0),
                None if rule.items.is_empty() => vec![tree],
                None => return Err("the body has nothing that could be signed".to_owned()),
            };
            for item in items {
                let stamp = rule.timestamp.as_ref().and_then(|it| Some((it, it.body.as_ref()?)));
                if let Some((stamp, place)) = stamp {
                    put(item, &place.0, &stamp::write(stamp.unit, at).into())?;
                }
                let text = |place: &Pointer| {
                    find(item, &place.0).first().and_then(|it| scalar(it)).unwrap_or_default()
                };
                let fields: Vec<String> = rule.fields.iter().map(text).collect();
                let signed = [fields.join(&rule.joint)];
                let signature = mac::of(Keyed::Hmac, rule.algorithm, &key, &signed);
                let signature = match shown {
                    true => SIGNATURE.to_owned(),
                    false => mac::encode(rule.encoding, &signature),
                };
                put(item, &rule.signature.0, &signature.into())?;
            }
            Ok(())
        })
    }

    fn jwt(&mut self, rule: &Jwt) -> Result<(), String> {
        let algorithm = match rule.algorithm {
            Digest::Sha256 => "HS256",
            Digest::Sha512 => "HS512",
            Digest::Sha1 => return Err("there is no JSON Web Token with SHA-1".to_owned()),
        };
        let seconds = self.at.0 / 1000;
        let mut claims = json!({"iat": seconds, "exp": seconds + TOKEN_SECONDS});
        if let Some(issuer) = &rule.issuer {
            claims["iss"] = json!(issuer);
        }
        if let Some(claim) = &rule.body_hash {
            claims[claim] = json!(hex(&hash(&self.draft.body)));
        }
        let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
        let header = part(&json!({"alg": algorithm, "typ": "JWT"}));
        let signed = format!("{header}.{}", part(&claims));
        let key = key::shared("", rule.secret_encoding, self.secret()?)
            .map_err(|reason| format!("the source's secret {reason}"))?;
        let signature = mac::of(Keyed::Hmac, rule.algorithm, &key, &[&signed]);
        let signature = self.visible(URL_SAFE_NO_PAD.encode(signature));
        self.header(&rule.header, &format!("{signed}.{signature}"))
    }

    fn change_body(
        &mut self,
        change: impl FnOnce(&mut Value) -> Result<(), String>,
    ) -> Result<(), String> {
        let mut tree: Value = serde_json::from_slice(&self.draft.body)
            .map_err(|_| "the proof stands inside of the body, and the body is not JSON")?;
        change(&mut tree)?;
        self.draft.body = tree.to_string().into();
        Ok(())
    }
}

/// How long a token is good.
const TOKEN_SECONDS: i64 = 300;

/// The value of a signature's header, with the entries that the sender writes.
fn entries(rule: &Signature, time: Option<&str>, signature: &str) -> String {
    // Lists with spaces write `name,value`, all others `name=value`.
    let assign = if rule.separator == Some(Separator::Space) { ',' } else { '=' };
    let signature = format!("{}{signature}", rule.prefix);
    let signature = match &rule.scheme {
        Some(scheme) => format!("{scheme}{assign}{signature}"),
        None => signature,
    };
    let entry = rule.timestamp.as_ref().and_then(|it| it.entry.as_deref());
    match (entry, time, rule.separator) {
        (Some(entry), Some(time), Some(separator)) => {
            format!("{entry}{assign}{time}{}{signature}", separator.char())
        }
        _ => signature,
    }
}

fn time_in_body(stamp: &Stamp, at: Timestamp) -> Value {
    match stamp.unit {
        Unit::Seconds => (at.0 / 1000).into(),
        Unit::Milliseconds => at.0.into(),
        Unit::Rfc3339 | Unit::HttpDate => stamp::write(stamp.unit, at).into(),
    }
}

/// The URL with this parameter once.
fn with_parameter(url: &str, name: &str, value: &str) -> String {
    let (path, query) = url.split_once('?').unwrap_or((url, ""));
    let is_other = |it: &&str| {
        let key = form_urlencoded::parse(it.as_bytes()).next();
        !it.is_empty() && key.is_none_or(|(key, _)| key != name)
    };
    let mut parts: Vec<String> = query.split('&').filter(is_other).map(str::to_owned).collect();
    let value: String = match value {
        SECRET => value.to_owned(),
        value => form_urlencoded::byte_serialize(value.as_bytes()).collect(),
    };
    parts.push(format!("{name}={value}"));
    format!("{path}?{}", parts.join("&"))
}

/// Sets a value at a pointer, at every element where that has a `*`; objects on the way are made.
fn put(tree: &mut Value, pointer: &str, value: &Value) -> Result<(), String> {
    let missing = || format!("the body has no place for `{pointer}`");
    let Some((parent, word)) = pointer.rsplit_once('/') else { return Err(missing()) };
    make(tree, parent);
    let word = word.replace("~1", "/").replace("~0", "~");
    let places = find_mut(tree, parent);
    if places.is_empty() {
        return Err(missing());
    }
    for place in places {
        match place {
            Value::Object(map) => drop(map.insert(word.clone(), value.clone())),
            Value::Array(list) if word == "*" => list.fill(value.clone()),
            _ => return Err(missing()),
        }
    }
    Ok(())
}

/// Makes the objects that a pointer leads through, as far as they are missing.
fn make(tree: &mut Value, pointer: &str) {
    let mut before = String::new();
    for word in pointer.split('/').skip(1) {
        let key = word.replace("~1", "/").replace("~0", "~");
        for place in find_mut(tree, &before) {
            if let Value::Object(map) = place
                && !map.contains_key(&key)
            {
                map.insert(key.clone(), json!({}));
            }
        }
        before.push('/');
        before.push_str(word);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_parameter_is_there_once() {
        let check = |url: &str, expected: &str| {
            assert_eq!(with_parameter(url, "code", "a b"), expected);
        };
        check("https://a.example/x", "https://a.example/x?code=a+b");
        check("https://a.example/x?a=1&code=2&b", "https://a.example/x?a=1&b&code=a+b");
        assert_eq!(with_parameter("/x?code=1", "code", SECRET), "/x?code=[redacted]");
    }

    #[test]
    fn a_value_is_put_where_the_pointer_leads() {
        let check = |body: Value, pointer: &str, expected: Option<Value>| {
            let mut tree = body;
            let done = put(&mut tree, pointer, &json!("v"));
            assert_eq!(done.is_ok().then_some(tree), expected, "{pointer}");
        };
        check(json!({"a": 1}), "/b", Some(json!({"a": 1, "b": "v"})));
        check(json!({}), "/a/b~1c", Some(json!({"a": {"b/c": "v"}})));
        check(json!({"l": [{}, {"c": 1}]}), "/l/*/c", Some(json!({"l": [{"c": "v"}, {"c": "v"}]})));
        check(json!([{}]), "/*/c", Some(json!([{"c": "v"}])));
        check(json!({"a": 1}), "/a/b", None);
        check(json!({"l": []}), "/l/*/c", None);
        check(json!([1]), "/x", None);
        check(json!({}), "", None);
    }
}
