//! From what the operator pasted to the bytes of a key.

use base64::{
    Engine, alphabet,
    engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig},
};
use zeroize::Zeroizing;

use crate::{
    domain::verifier::{SecretEncoding, Signature},
    vault::unhex,
};

/// Senders write the padding of a secret or leave it out.
const LENIENT: GeneralPurposeConfig =
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent);
const STANDARD: GeneralPurpose = GeneralPurpose::new(&alphabet::STANDARD, LENIENT);
const URL_SAFE: GeneralPurpose = GeneralPurpose::new(&alphabet::URL_SAFE, LENIENT);

/// The key of an HMAC. The reason goes behind the secret's name.
pub(super) fn shared(rule: &Signature, secret: &str) -> Result<Zeroizing<Vec<u8>>, String> {
    let rest = secret.strip_prefix(rule.secret_prefix.as_str()).unwrap_or(secret);
    let (key, what) = match rule.secret_encoding {
        SecretEncoding::Text => (Some(rest.as_bytes().to_vec()), "text"),
        SecretEncoding::Base64 => {
            (STANDARD.decode(rest).or_else(|_| URL_SAFE.decode(rest)).ok(), "base64")
        }
        SecretEncoding::Hex => (unhex(rest), "hexadecimal"),
    };
    match key {
        Some(key) if !key.is_empty() => Ok(Zeroizing::new(key)),
        Some(_) => Err("is empty".to_owned()),
        None => Err(format!("is not {what}")),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::domain::verifier::Verifier;

    #[test]
    fn a_secret_becomes_a_key_as_its_sender_means_it() {
        let check = |encoding: &str, secret: &str, expected: Result<&[u8], &str>| {
            let rule = json!({"type": "hmac", "header": "x", "secret_prefix": "whsec_",
                "secret_encoding": encoding});
            let Verifier::Hmac(rule) = Verifier::read(&rule).unwrap() else { unreachable!() };
            let found = shared(&rule, secret).map(|key| key.to_vec());
            assert_eq!(found, expected.map(<[u8]>::to_vec).map_err(str::to_owned), "{secret}");
        };
        check("text", "whsec_abc", Ok(b"abc"));
        check("text", "abc=", Ok(b"abc="));
        check("base64", "whsec_aGk/", Ok(b"hi?"));
        check("base64", "aGk_", Ok(b"hi?"));
        check("base64", "aGk=", Ok(b"hi"));
        check("base64", "aGk", Ok(b"hi"));
        check("base64", "a b", Err("is not base64"));
        check("base64", "whsec_", Err("is empty"));
        check("hex", "6869", Ok(b"hi"));
        check("hex", "6a6B", Ok(b"jk"));
        check("hex", "686", Err("is not hexadecimal"));
    }
}
