//! Signatures of Standard Webhooks: HMAC-SHA256 over id, time and body.
//!
//! While an old secret overlaps with the new one, both sign, so that a receiver may change over at any
//! moment in between.

use base64::{Engine, engine::general_purpose::STANDARD};
use ring::hmac;
use secrecy::{ExposeSecret, SecretString};
use zeroize::Zeroizing;

use crate::clock::Timestamp;

/// What a secret begins with; the rest is the key in base64.
const PREFIX: &str = "whsec_";

/// The values of `webhook-timestamp` and `webhook-signature`. A secret that is none is said by its
/// place among the values, never by itself.
pub(super) fn sign(
    secrets: &[SecretString],
    id: &str,
    at: Timestamp,
    body: &str,
) -> Result<(String, String), String> {
    let timestamp = at.0.div_euclid(1000).to_string();
    let mut signatures = Vec::new();
    for secret in secrets {
        let key = key(secret.expose_secret())?;
        let mut context = hmac::Context::with_key(&hmac::Key::new(hmac::HMAC_SHA256, &key));
        context.update(format!("{id}.{timestamp}.{body}").as_bytes());
        signatures.push(format!("v1,{}", STANDARD.encode(context.sign())));
    }
    Ok((timestamp, signatures.join(" ")))
}

fn key(secret: &str) -> Result<Zeroizing<Vec<u8>>, String> {
    let text = secret.strip_prefix(PREFIX).unwrap_or(secret);
    let key = STANDARD.decode(text).ok().filter(|key| !key.is_empty());
    let wrong = "the secret of the callback is not `whsec_` and base64: have a new one made";
    key.map(Zeroizing::new).ok_or_else(|| wrong.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The example of the specification's own libraries, and the same with a second secret.
    #[test]
    fn the_published_example_is_signed_as_published() {
        let secret: SecretString = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw".into();
        let (id, at) = ("msg_p5jXN8AQM9LWM0D4loKWxJek", Timestamp(1_614_265_330_000));
        let (timestamp, signature) =
            sign(std::slice::from_ref(&secret), id, at, r#"{"test": 2432232314}"#).unwrap();
        assert_eq!(timestamp, "1614265330");
        assert_eq!(signature, "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=");
        let both = [SecretString::from("whsec_b2xkIHNlY3JldCE="), secret];
        let (_, signatures) = sign(&both, id, at, r#"{"test": 2432232314}"#).unwrap();
        assert_eq!(signatures.split(' ').nth(1), Some(signature.as_str()));
        assert!(sign(&["whsec_?".into()], id, at, "").is_err());
    }
}
