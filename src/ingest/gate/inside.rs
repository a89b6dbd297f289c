//! Proofs inside of the body: a secret in a field, or an HMAC over some fields.
//!
//! These are the only gates that parse a body before they know who sent it; what is parsed is
//! bounded like every body, and nothing but the fields in question is looked at.

use subtle::{Choice, ConstantTimeEq};

use super::{DIFFERENT, MISMATCH, Passed, Watch, key, mac, signature, stamp, try_each};
use crate::{
    domain::{
        field::Pointer,
        verifier::{BodyHmac, Keyed},
    },
    ingest::{
        Payload, Secrets,
        payload::{find, scalar},
    },
};

/// Signed things of one body that are looked at.
const ITEMS_MAX: usize = 100;

/// The secret at a place; where that is in a list, at each of them.
pub(super) fn field(
    place: &Pointer,
    payload: &Payload,
    secrets: &Secrets,
    watch: Watch<'_>,
) -> Result<Passed, String> {
    let tree = payload.tree().ok_or("the body is not JSON")?;
    let found = find(tree, &place.0);
    let texts: Option<Vec<String>> = found.into_iter().map(scalar).collect();
    let texts = texts.filter(|texts| !texts.is_empty());
    let texts = texts.ok_or_else(|| format!("the body has no text at `{}`", place.0))?;
    if texts.len() > ITEMS_MAX {
        return Err(format!("the body has more than {ITEMS_MAX} values at `{}`", place.0));
    }
    watch.notes.found(|| format!("{} values at `{}`", texts.len(), place.0));
    try_each(secrets, watch, DIFFERENT, |secret| {
        let all = |so_far, text: &String| so_far & secret.is(text.as_bytes());
        Ok(texts.iter().fold(Choice::from(1), all))
    })
}

/// An HMAC over fields. Every signed thing of the body must have a right one.
pub(super) fn hmac(
    rule: &BodyHmac,
    payload: &Payload,
    secrets: &Secrets,
    watch: Watch<'_>,
) -> Result<Passed, String> {
    let tree = payload.tree().ok_or("the body is not JSON")?;
    let found = rule.items.iter().map(|place| find(tree, &place.0));
    let items = match found.into_iter().find(|items| !items.is_empty()) {
        Some(items) => items,
        None if rule.items.is_empty() => vec![tree],
        None => return Err("the body has nothing that could be signed".to_owned()),
    };
    if items.len() > ITEMS_MAX {
        return Err(format!("the body has more than {ITEMS_MAX} signed things"));
    }
    let mut signed = Vec::new();
    for item in items {
        let at = |place: &Pointer| find(item, &place.0).first().and_then(|it| scalar(it));
        let signature = at(&rule.signature)
            .ok_or_else(|| format!("the body has no signature at `{}`", rule.signature.0))?;
        let signature = mac::decode(rule.encoding, &signature)
            .map_err(|reason| format!("the signature in the body {reason}"))?;
        let stamp = rule.timestamp.as_ref().and_then(|it| Some((it, it.body.as_ref()?)));
        if let Some((stamp, place)) = stamp {
            stamp::check(stamp, &at(place).unwrap_or_default(), watch)?;
            watch.notes.begin("body");
        }
        let fields: Vec<String> = rule.fields.iter().map(|it| at(it).unwrap_or_default()).collect();
        let text = fields.join(&rule.joint);
        watch.notes.found(|| format!("signed is {}", signature::shown(&[text.as_bytes()])));
        signed.push((signature, text));
    }
    try_each(secrets, watch, MISMATCH, |secret| {
        let key = key::shared("", rule.secret_encoding, secret.text())?;
        let all = |so_far, (signature, text): &(Vec<u8>, String)| {
            let expected = mac::of(Keyed::Hmac, rule.algorithm, &key, &[text.as_bytes()]);
            so_far & signature.ct_eq(&expected)
        };
        Ok(signed.iter().fold(Choice::from(1), all))
    })
}
