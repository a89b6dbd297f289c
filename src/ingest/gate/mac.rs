//! Hashes with a key, and how they are written.

use base64::{Engine, engine::general_purpose::STANDARD};
use ring::{digest, hmac};

use crate::{
    domain::verifier::{Digest, Encoding, Keyed},
    vault::{hex, unhex},
};

pub(super) fn algorithm(digest: Digest) -> hmac::Algorithm {
    match digest {
        Digest::Sha1 => hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY,
        Digest::Sha256 => hmac::HMAC_SHA256,
        Digest::Sha512 => hmac::HMAC_SHA512,
    }
}

/// The hash of a text that comes in pieces.
pub(in crate::ingest) fn of<T: AsRef<[u8]>>(
    keyed: Keyed,
    digest: Digest,
    key: &[u8],
    pieces: &[T],
) -> Vec<u8> {
    match keyed {
        Keyed::Hmac => {
            let key = hmac::Key::new(algorithm(digest), key);
            let mut context = hmac::Context::with_key(&key);
            for piece in pieces {
                context.update(piece.as_ref());
            }
            context.sign().as_ref().to_vec()
        }
        Keyed::Prefix => {
            let mut context = digest::Context::new(algorithm(digest).digest_algorithm());
            context.update(key);
            for piece in pieces {
                context.update(piece.as_ref());
            }
            context.finish().as_ref().to_vec()
        }
    }
}

/// The bytes of a signature. Base64 in its one canonical form, so that no two texts are the same
/// signature but for the capitals of hexadecimal.
pub(super) fn decode(encoding: Encoding, text: &str) -> Result<Vec<u8>, String> {
    let (bytes, what) = match encoding {
        Encoding::Hex => (unhex(text), "hexadecimal"),
        Encoding::Base64 => (STANDARD.decode(text).ok(), "base64"),
    };
    bytes.ok_or_else(|| format!("is not {what}"))
}

/// As [`decode`] reads it.
pub(in crate::ingest) fn encode(encoding: Encoding, bytes: &[u8]) -> String {
    match encoding {
        Encoding::Hex => hex(bytes),
        Encoding::Base64 => STANDARD.encode(bytes),
    }
}
