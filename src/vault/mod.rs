//! The vault: secrets at rest.
//!
//! Each value is sealed with a fresh data key (AES-256-GCM, bound to the secret's name and version),
//! and the data key is wrapped by the vault key, whose id is kept beside it: rotating the vault key
//! rewraps data keys and touches no value. Invariants: a sealed value opens only under its own name
//! and version; a wrong vault key is noticed at start by the canary, before anything is sealed with
//! it. Left out: where sealed values are stored, and who may ask for them.

use base64::{Engine, engine::general_purpose::STANDARD};
use bytes::Bytes;
use ring::{
    aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey},
    digest,
    rand::{SecureRandom, SystemRandom},
};
use secrecy::{ExposeSecret, SecretString};
use zeroize::Zeroizing;

const KEY_BYTES: usize = 32;
const KEY_ID_BYTES: usize = 8;
const TAG_BYTES: usize = 16;
/// First byte of everything sealed: the layout below.
const LAYOUT: u8 = 1;
const CANARY: &str = "bellpull";

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    #[error("the vault key must be {KEY_BYTES} bytes in base64")]
    BadKey,
    #[error("sealed with the vault key `{0}`, which is not the one given")]
    OtherKey(String),
    #[error("a sealed value does not open: it was changed, or belongs to another secret")]
    Tampered,
}

/// What a value is sealed for. Moving a sealed value to another place makes it unreadable.
#[derive(Clone, Copy, Debug)]
pub struct Place<'a> {
    pub kind: &'a str,
    pub id: &'a str,
    pub version: i64,
}

impl Place<'_> {
    fn aad(&self) -> Aad<Vec<u8>> {
        Aad::from(format!("{}\n{}\n{}", self.kind, self.id, self.version).into_bytes())
    }
}

/// The key ring: the vault key in use.
pub struct Vault {
    key: LessSafeKey,
    key_id: [u8; KEY_ID_BYTES],
    random: SystemRandom,
}

impl std::fmt::Debug for Vault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Vault").field("key_id", &hex(&self.key_id)).finish_non_exhaustive()
    }
}

impl Vault {
    /// From 32 bytes in base64.
    pub fn new(key: &SecretString) -> Result<Vault, Error> {
        let bytes = STANDARD.decode(key.expose_secret().trim()).map_err(|_| Error::BadKey)?;
        let bytes = Zeroizing::new(bytes);
        let unbound = UnboundKey::new(&AES_256_GCM, &bytes).map_err(|_| Error::BadKey)?;
        let hash = digest::digest(&digest::SHA256, &bytes);
        let mut key_id = [0; KEY_ID_BYTES];
        key_id.copy_from_slice(&hash.as_ref()[..KEY_ID_BYTES]);
        Ok(Vault { key: LessSafeKey::new(unbound), key_id, random: SystemRandom::new() })
    }

    /// A new vault key, in base64.
    pub fn generate_key() -> SecretString {
        let mut bytes = Zeroizing::new([0_u8; KEY_BYTES]);
        fill(&SystemRandom::new(), &mut *bytes);
        STANDARD.encode(*bytes).into()
    }

    /// Seals a value: layout, key id, nonce and wrapped data key, nonce and sealed value.
    pub fn seal(&self, place: Place<'_>, value: &SecretString) -> Bytes {
        let mut data_key = Zeroizing::new([0_u8; KEY_BYTES]);
        fill(&self.random, &mut *data_key);
        let mut out = vec![LAYOUT];
        out.extend_from_slice(&self.key_id);
        encrypt(&self.random, &self.key, place, &*data_key, &mut out);
        let unbound = UnboundKey::new(&AES_256_GCM, &*data_key).expect("a data key has 32 bytes");
        let key = LessSafeKey::new(unbound);
        encrypt(&self.random, &key, place, value.expose_secret().as_bytes(), &mut out);
        out.into()
    }

    pub fn open(&self, place: Place<'_>, sealed: &[u8]) -> Result<SecretString, Error> {
        const WRAPPED: usize = NONCE_LEN + KEY_BYTES + TAG_BYTES;
        let (layout, rest) = sealed.split_first().ok_or(Error::Tampered)?;
        if *layout != LAYOUT || rest.len() < KEY_ID_BYTES + WRAPPED + NONCE_LEN + TAG_BYTES {
            return Err(Error::Tampered);
        }
        let (key_id, rest) = rest.split_at(KEY_ID_BYTES);
        if key_id != self.key_id {
            return Err(Error::OtherKey(hex(key_id)));
        }
        let (wrapped, rest) = rest.split_at(WRAPPED);
        let data_key = decrypt(&self.key, place, wrapped)?;
        let unbound = UnboundKey::new(&AES_256_GCM, &data_key).map_err(|_| Error::Tampered)?;
        let value = decrypt(&LessSafeKey::new(unbound), place, rest)?;
        let text = std::str::from_utf8(&value).map_err(|_| Error::Tampered)?;
        Ok(text.into())
    }

    /// What to remember when the database is new, so that a wrong key is noticed later.
    pub fn canary(&self) -> String {
        STANDARD.encode(self.seal(CANARY_PLACE, &CANARY.into()))
    }

    /// Whether this is the key that the database's secrets are wrapped with.
    pub fn check_canary(&self, canary: &str) -> Result<(), Error> {
        let sealed = STANDARD.decode(canary).map_err(|_| Error::Tampered)?;
        self.open(CANARY_PLACE, &sealed).map(|_| ())
    }
}

const CANARY_PLACE: Place<'static> = Place { kind: "canary", id: "vault", version: 1 };

fn encrypt(
    random: &SystemRandom,
    key: &LessSafeKey,
    place: Place<'_>,
    value: &[u8],
    out: &mut Vec<u8>,
) {
    let mut nonce = [0; NONCE_LEN];
    fill(random, &mut nonce);
    let mut sealed = value.to_vec();
    key.seal_in_place_append_tag(Nonce::assume_unique_for_key(nonce), place.aad(), &mut sealed)
        .expect("a secret is far below the cipher's limit");
    out.extend_from_slice(&nonce);
    out.extend_from_slice(&sealed);
}

fn decrypt(
    key: &LessSafeKey,
    place: Place<'_>,
    sealed: &[u8],
) -> Result<Zeroizing<Vec<u8>>, Error> {
    let (nonce, sealed) = sealed.split_at(NONCE_LEN);
    let nonce = Nonce::try_assume_unique_for_key(nonce).map_err(|_| Error::Tampered)?;
    let mut buffer = Zeroizing::new(sealed.to_vec());
    let n = key.open_in_place(nonce, place.aad(), &mut buffer).map_err(|_| Error::Tampered)?.len();
    buffer.truncate(n);
    Ok(buffer)
}

fn fill(random: &SystemRandom, bytes: &mut [u8]) {
    random.fill(bytes).expect("the system has randomness");
}

/// Fresh random bytes.
pub fn random<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    fill(&SystemRandom::new(), &mut bytes);
    bytes
}

/// A new token: 32 random bytes in base 64 for URLs, with a prefix that secret scanners can find.
pub fn generate_token(prefix: &str) -> SecretString {
    let mut bytes = Zeroizing::new([0_u8; 32]);
    fill(&SystemRandom::new(), &mut *bytes);
    let text = base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(*bytes);
    format!("{prefix}{text}").into()
}

/// SHA-256, the form in which API keys are kept and secrets are compared.
pub fn hash(bytes: &[u8]) -> [u8; 32] {
    let mut hash = [0; 32];
    hash.copy_from_slice(digest::digest(&digest::SHA256, bytes).as_ref());
    hash
}

pub fn hex(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(2 * bytes.len());
    for byte in bytes {
        text.push(char::from_digit(u32::from(byte >> 4), 16).unwrap_or('0'));
        text.push(char::from_digit(u32::from(byte & 15), 16).unwrap_or('0'));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLACE: Place<'static> = Place { kind: "secret", id: "A", version: 1 };

    fn vault() -> Vault {
        Vault::new(&Vault::generate_key()).unwrap()
    }

    #[test]
    fn a_value_opens_only_in_its_own_place() {
        let vault = vault();
        let sealed = vault.seal(PLACE, &"hunter2 \u{1f511}".into());
        assert_eq!(vault.open(PLACE, &sealed).unwrap().expose_secret(), "hunter2 \u{1f511}");
        for place in [
            Place { id: "B", ..PLACE },
            Place { version: 2, ..PLACE },
            Place { kind: "credential", ..PLACE },
        ] {
            assert_eq!(vault.open(place, &sealed).unwrap_err(), Error::Tampered);
        }
    }

    #[test]
    fn any_flipped_byte_is_noticed() {
        let vault = vault();
        let sealed = vault.seal(PLACE, &"value".into());
        for at in 0..sealed.len() {
            let mut broken = sealed.to_vec();
            broken[at] ^= 1;
            assert!(vault.open(PLACE, &broken).is_err(), "byte {at}");
        }
        for n in 0..sealed.len() {
            assert!(vault.open(PLACE, &sealed[..n]).is_err(), "first {n} bytes");
        }
    }

    #[test]
    fn a_wrong_vault_key_is_noticed_by_the_canary() {
        let (right, wrong) = (vault(), vault());
        let canary = right.canary();
        assert_eq!(right.check_canary(&canary), Ok(()));
        assert!(matches!(wrong.check_canary(&canary), Err(Error::OtherKey(_))));
        assert_eq!(Vault::new(&"too short".into()).unwrap_err(), Error::BadKey);
    }

    #[test]
    fn the_value_is_not_in_the_sealed_bytes_nor_in_debug() {
        let vault = vault();
        let sealed = vault.seal(PLACE, &"correct horse".into());
        assert!(!sealed.windows(7).any(|window| window == b"correct"));
        assert!(!format!("{vault:?}").contains("key:"));
    }
}
