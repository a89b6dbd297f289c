//! From what the operator pasted to the bytes of a key.

use base64::{
    Engine, alphabet,
    engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig},
};
use ring::signature::{ECDSA_P256_SHA256_ASN1, ED25519, UnparsedPublicKey, VerificationAlgorithm};
use rustls::pki_types::{SubjectPublicKeyInfoDer, pem::PemObject};
use x509_cert::spki::SubjectPublicKeyInfoRef;
use zeroize::Zeroizing;

use super::signature::Proof;
use crate::{domain::verifier::SecretEncoding, vault::unhex};

/// Senders write the padding of a secret or leave it out.
const LENIENT: GeneralPurposeConfig =
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent);
const STANDARD: GeneralPurpose = GeneralPurpose::new(&alphabet::STANDARD, LENIENT);
const URL_SAFE: GeneralPurpose = GeneralPurpose::new(&alphabet::URL_SAFE, LENIENT);

/// The key of an HMAC. The reason goes behind the secret's name.
pub(in crate::ingest) fn shared(
    prefix: &str,
    encoding: SecretEncoding,
    secret: &str,
) -> Result<Zeroizing<Vec<u8>>, String> {
    let rest = secret.strip_prefix(prefix).unwrap_or(secret);
    let (key, what) = match encoding {
        SecretEncoding::Text => (Some(rest.as_bytes().to_vec()), "text"),
        SecretEncoding::Base64 => (base64(rest), "base64"),
        SecretEncoding::Hex => (unhex(rest), "hexadecimal"),
    };
    match key {
        Some(key) if !key.is_empty() => Ok(Zeroizing::new(key)),
        Some(_) => Err("is empty".to_owned()),
        None => Err(format!("is not {what}")),
    }
}

fn base64(text: &str) -> Option<Vec<u8>> {
    STANDARD.decode(text).or_else(|_| URL_SAFE.decode(text)).ok()
}

/// A sender's public key, in any of the forms in which senders show one: PEM, or the key itself or
/// its SubjectPublicKeyInfo in base64 or hexadecimal. The reason goes behind the secret's name.
pub(super) fn public(proof: Proof, text: &str) -> Result<UnparsedPublicKey<Vec<u8>>, String> {
    let (what, kind, n_bytes, algorithm): (_, _, _, &'static dyn VerificationAlgorithm) =
        match proof {
            Proof::EcdsaP256 => ("a P-256", EC, 65, &ECDSA_P256_SHA256_ASN1),
            Proof::Ed25519 | Proof::Shared => ("an Ed25519", ED25519_OID, 32, &ED25519),
        };
    let text = text.trim();
    let key = if text.starts_with("-----BEGIN") {
        let der = SubjectPublicKeyInfoDer::from_pem_slice(text.as_bytes()).ok();
        der.and_then(|der| bare(&der, kind))
    } else {
        let bytes = unhex(text).or_else(|| base64(text));
        bytes
            .and_then(|bytes| if bytes.len() == n_bytes { Some(bytes) } else { bare(&bytes, kind) })
    };
    let key = key.filter(|key| key.len() == n_bytes);
    key.map(|key| UnparsedPublicKey::new(algorithm, key))
        .ok_or_else(|| format!("is not {what} public key"))
}

const ED25519_OID: &str = "1.3.101.112";
const EC: &str = "1.2.840.10045.2.1";
const P256: &str = "1.2.840.10045.3.1.7";

/// The key inside of a SubjectPublicKeyInfo of this algorithm.
fn bare(der: &[u8], algorithm: &str) -> Option<Vec<u8>> {
    let info = SubjectPublicKeyInfoRef::try_from(der).ok()?;
    let known = info.algorithm.oid.to_string() == algorithm;
    let curve = algorithm != EC
        || info.algorithm.parameters_oid().is_ok_and(|curve| curve.to_string() == P256);
    let key = info.subject_public_key.as_bytes()?;
    (known && curve).then(|| key.to_vec())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_becomes_a_key_as_its_sender_means_it() {
        let check = |encoding: SecretEncoding, secret: &str, expected: Result<&[u8], &str>| {
            let found = shared("whsec_", encoding, secret).map(|key| key.to_vec());
            assert_eq!(found, expected.map(<[u8]>::to_vec).map_err(str::to_owned), "{secret}");
        };
        check(SecretEncoding::Text, "whsec_abc", Ok(b"abc"));
        check(SecretEncoding::Text, "abc=", Ok(b"abc="));
        check(SecretEncoding::Base64, "whsec_aGk/", Ok(b"hi?"));
        check(SecretEncoding::Base64, "aGk_", Ok(b"hi?"));
        check(SecretEncoding::Base64, "aGk=", Ok(b"hi"));
        check(SecretEncoding::Base64, "aGk", Ok(b"hi"));
        check(SecretEncoding::Base64, "a b", Err("is not base64"));
        check(SecretEncoding::Base64, "whsec_", Err("is empty"));
        check(SecretEncoding::Hex, "6869", Ok(b"hi"));
        check(SecretEncoding::Hex, "6a6B", Ok(b"jk"));
        check(SecretEncoding::Hex, "686", Err("is not hexadecimal"));
    }

    /// The two keys of RFC 9421 (appendix B.1.4) and of SendGrid's own tests.
    #[test]
    fn public_keys_are_read_in_every_form() {
        let ed25519 = "MCowBQYDK2VwAyEAJrQLj5P/89iXES9+vFgrIy29clF9CC/oPPsw3c5D0bs=";
        let pem = format!("-----BEGIN PUBLIC KEY-----\n{ed25519}\n-----END PUBLIC KEY-----\n");
        let bare = "JrQLj5P/89iXES9+vFgrIy29clF9CC/oPPsw3c5D0bs=";
        let hex = "26b40b8f93fff3d897112f7ebc582b232dbd72517d082fe83cfb30ddce43d1bb";
        let p256 = "MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAE83T4O/n84iotIvIW4mdBgQ/7dAfSmpqIM8kF9mN1flpVKS3GRqe62gw+2fNNRaINXvVpiglSI8eNEc6wEA3F+g==";
        for text in [ed25519, &pem, bare, hex, &hex.to_ascii_uppercase()] {
            let key = public(Proof::Ed25519, text).map(|key| crate::vault::hex(key.as_ref()));
            assert_eq!(key.as_deref(), Ok(hex));
        }
        assert!(public(Proof::EcdsaP256, p256).is_ok());
        for (proof, text) in [
            (Proof::Ed25519, p256),
            (Proof::EcdsaP256, ed25519),
            (Proof::Ed25519, "whsec_x"),
            (Proof::EcdsaP256, bare),
            (Proof::Ed25519, ""),
        ] {
            assert!(public(proof, text).is_err(), "{text}");
        }
        assert_eq!(public(Proof::EcdsaP256, "x").unwrap_err(), "is not a P-256 public key");
    }
}
