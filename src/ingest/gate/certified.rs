//! Signatures by a key whose certificate the request names.
//!
//! Invariant: before anything is fetched, the request has everything that a right one has, and the
//! secret where that stands in it: whoever does not know the secret causes no fetch.

use base64::{Engine, engine::general_purpose::STANDARD};
use subtle::Choice;

use super::{MISMATCH, Passed, Watch, handshake, try_each};
use crate::{
    domain::{
        certified::{Certified, Part, Signed},
        field::Place,
        verifier::{Digest, Verifier},
    },
    ingest::{
        Head, Payload, Secrets, certificates::Certificate, payload::scalar, registry::LiveSecret,
    },
};

/// The URL of the certificate that decides about a request, if its gate is of this kind.
pub(in crate::ingest) fn url(
    verifier: &Verifier,
    secrets: &Secrets,
    head: &Head,
    payload: &Payload,
    watch: Watch<'_>,
) -> Result<Option<String>, String> {
    let Verifier::Certificate(rule) = verifier else { return Ok(None) };
    claim(rule, head, payload)?;
    if let Some(place) = &rule.holds_secret {
        holds_secret(&place.0, secrets, payload, watch)?;
    }
    one(&rule.certificate, head, payload).map(Some)
}

pub(super) fn verify(
    rule: &Certified,
    certificate: Option<&Certificate>,
    head: &Head,
    payload: &Payload,
    secrets: &Secrets,
    watch: Watch<'_>,
) -> Result<Passed, String> {
    let certificate = certificate.ok_or("the sender's certificate cannot be had")?;
    let claim = claim(rule, head, payload)?;
    let held = match &rule.holds_secret {
        Some(place) => Some(holds_secret(&place.0, secrets, payload, watch)?),
        None => None,
    };
    let passed = try_each(secrets, watch, MISMATCH, |secret| {
        let text = text(claim.signed, secret.text(), head, payload)?;
        let is_right =
            certificate.verifies(claim.digest, text.as_bytes(), &claim.signature, watch.now)?;
        Ok(Choice::from(u8::from(is_right)))
    })?;
    Ok(held.unwrap_or(passed))
}

struct Claim<'a> {
    digest: Digest,
    signature: Vec<u8>,
    signed: &'a Signed,
}

fn claim<'a>(rule: &'a Certified, head: &Head, payload: &Payload) -> Result<Claim<'a>, String> {
    let algorithm = one(&rule.algorithm, head, payload)?;
    let digest = *rule
        .algorithms
        .get(&algorithm)
        .ok_or_else(|| format!("`{}` names an algorithm that is not known", rule.algorithm))?;
    let signature = STANDARD
        .decode(one(&rule.signature, head, payload)?)
        .map_err(|_| format!("the signature at `{}` is not base64", rule.signature))?;
    let fits = |signed: &&Signed| {
        let says = |(place, text): (&Place, &String)| {
            handshake::value(place, head, payload).as_ref() == Some(text)
        };
        signed.when.iter().all(says)
    };
    let signed = rule.signed.iter().find(fits);
    let signed = signed.ok_or("the request is of no kind that its sender signs")?;
    Ok(Claim { digest, signature, signed })
}

fn holds_secret(
    place: &str,
    secrets: &Secrets,
    payload: &Payload,
    watch: Watch<'_>,
) -> Result<Passed, String> {
    let given = payload.at(place).ok_or_else(|| format!("the body has no text at `{place}`"))?;
    let matches = |secret: &LiveSecret| Ok(secret.is(given.as_bytes()));
    try_each(secrets, watch, &format!("`{place}` is not the source's"), matches)
}

fn one(place: &Place, head: &Head, payload: &Payload) -> Result<String, String> {
    handshake::value(place, head, payload).ok_or_else(|| format!("there is nothing at `{place}`"))
}

fn text(signed: &Signed, secret: &str, head: &Head, payload: &Payload) -> Result<String, String> {
    if !signed.joined.is_empty() {
        let part = |part: &Part| match part {
            Part::Secret => Ok(secret.to_owned()),
            Part::Crc32 => Ok(crc32(&payload.bytes).to_string()),
            Part::Place(place) => match one(place, head, payload)? {
                text if text.contains('|') => Err(format!("there is a `|` at `{place}`")),
                text => Ok(text),
            },
        };
        let parts: Vec<String> = signed.joined.iter().map(part).collect::<Result<_, _>>()?;
        return Ok(parts.join("|"));
    }
    let tree = payload.tree().ok_or("the body is not JSON")?;
    let mut text = String::new();
    for place in &signed.lines {
        if let Some(value) = tree.pointer(&place.0) {
            let value = scalar(value).ok_or_else(|| format!("no text at `{}`", place.0))?;
            let name = place.0.rsplit('/').next().unwrap_or_default();
            text.extend([name, "\n", &value, "\n"]);
        }
    }
    Ok(text)
}

/// CRC-32 as in zlib (reflected, polynomial 0x04C11DB7). A few lines, and no sender needs it fast.
fn crc32(bytes: &[u8]) -> u32 {
    let step = |crc: u32, byte: &u8| {
        let bit = |crc: u32, _| (crc >> 1) ^ (0xedb8_8320 & (crc & 1).wrapping_neg());
        (0..8).fold(crc ^ u32::from(*byte), bit)
    };
    !bytes.iter().fold(u32::MAX, step)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The check value that every description of CRC-32 has, and zlib's of nothing.
    #[test]
    fn the_crc_is_the_usual_one() {
        assert_eq!(crc32(b"123456789"), 0xcbf4_3926);
        assert_eq!(crc32(b""), 0);
    }
}
