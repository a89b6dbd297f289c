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

pub use crate::domain::text::hex;

const KEY_BYTES: usize = 32;
const KEY_ID_BYTES: usize = 8;
const TAG_BYTES: usize = 16;
/// First byte of everything sealed: the layout below.
const LAYOUT: u8 = 1;
const CANARY: &str = "bellpull";

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    #[error(
        "the vault key must be {KEY_BYTES} bytes in base64, or several such separated by commas"
    )]
    BadKey,
    #[error("sealed with the vault key `{0}`, which is not among those given")]
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

/// One key of the ring.
struct VaultKey {
    key: LessSafeKey,
    id: [u8; KEY_ID_BYTES],
}

impl VaultKey {
    fn new(text: &str) -> Result<VaultKey, Error> {
        let bytes = STANDARD.decode(text.trim()).map_err(|_| Error::BadKey)?;
        let bytes = Zeroizing::new(bytes);
        let unbound = UnboundKey::new(&AES_256_GCM, &bytes).map_err(|_| Error::BadKey)?;
        let hash = digest::digest(&digest::SHA256, &bytes);
        let mut id = [0; KEY_ID_BYTES];
        id.copy_from_slice(&hash.as_ref()[..KEY_ID_BYTES]);
        Ok(VaultKey { key: LessSafeKey::new(unbound), id })
    }
}

/// The key ring. The first key seals; all of them open, so that servers can be given a new key
/// before everything is rewrapped with it.
pub struct Vault {
    keys: Vec<VaultKey>,
    random: SystemRandom,
}

impl std::fmt::Debug for Vault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let ids: Vec<String> = self.keys.iter().map(|key| hex(&key.id)).collect();
        f.debug_struct("Vault").field("key_ids", &ids).finish_non_exhaustive()
    }
}

/// Layout, key id, then the wrapped data key: what rewrapping replaces.
const WRAPPED_BYTES: usize = NONCE_LEN + KEY_BYTES + TAG_BYTES;

impl Vault {
    /// From keys of 32 bytes in base64, separated by commas or white space, the newest first.
    pub fn new(keys: &SecretString) -> Result<Vault, Error> {
        let keys = keys.expose_secret();
        let keys: Vec<VaultKey> = keys
            .split(|char: char| char == ',' || char.is_whitespace())
            .filter(|text| !text.is_empty())
            .map(VaultKey::new)
            .collect::<Result<_, _>>()?;
        if keys.is_empty() {
            return Err(Error::BadKey);
        }
        Ok(Vault { keys, random: SystemRandom::new() })
    }

    /// A new vault key, in base64.
    pub fn generate_key() -> SecretString {
        let mut bytes = Zeroizing::new([0_u8; KEY_BYTES]);
        fill(&SystemRandom::new(), &mut *bytes);
        STANDARD.encode(*bytes).into()
    }

    /// The id of the key that seals.
    pub fn key_id(&self) -> String {
        hex(&self.first().id)
    }

    fn first(&self) -> &VaultKey {
        self.keys.first().expect("a ring has a key")
    }

    /// Seals a value: layout, key id, nonce and wrapped data key, nonce and sealed value.
    pub fn seal(&self, place: Place<'_>, value: &SecretString) -> Bytes {
        let mut data_key = Zeroizing::new([0_u8; KEY_BYTES]);
        fill(&self.random, &mut *data_key);
        let mut out = self.wrap(place, &*data_key);
        let unbound = UnboundKey::new(&AES_256_GCM, &*data_key).expect("a data key has 32 bytes");
        let key = LessSafeKey::new(unbound);
        encrypt(&self.random, &key, place, value.expose_secret().as_bytes(), &mut out);
        out.into()
    }

    pub fn open(&self, place: Place<'_>, sealed: &[u8]) -> Result<SecretString, Error> {
        let (data_key, rest) = self.unwrap(place, sealed)?;
        let unbound = UnboundKey::new(&AES_256_GCM, &data_key).map_err(|_| Error::Tampered)?;
        let value = decrypt(&LessSafeKey::new(unbound), place, rest)?;
        let text = std::str::from_utf8(&value).map_err(|_| Error::Tampered)?;
        Ok(text.into())
    }

    /// The same value under the first key: only the data key's wrapping changes. `None` when it is
    /// under the first key already.
    pub fn rewrap(&self, place: Place<'_>, sealed: &[u8]) -> Result<Option<Bytes>, Error> {
        let (data_key, rest) = self.unwrap(place, sealed)?;
        if sealed[1..].starts_with(&self.first().id) {
            return Ok(None);
        }
        let mut out = self.wrap(place, &data_key);
        out.extend_from_slice(rest);
        Ok(Some(out.into()))
    }

    fn wrap(&self, place: Place<'_>, data_key: &[u8]) -> Vec<u8> {
        let mut out = vec![LAYOUT];
        out.extend_from_slice(&self.first().id);
        encrypt(&self.random, &self.first().key, place, data_key, &mut out);
        out
    }

    /// The data key, and what is sealed with it.
    fn unwrap<'a>(
        &self,
        place: Place<'_>,
        sealed: &'a [u8],
    ) -> Result<(Zeroizing<Vec<u8>>, &'a [u8]), Error> {
        let (layout, rest) = sealed.split_first().ok_or(Error::Tampered)?;
        let bytes_min = KEY_ID_BYTES + WRAPPED_BYTES + NONCE_LEN + TAG_BYTES;
        if *layout != LAYOUT || rest.len() < bytes_min {
            return Err(Error::Tampered);
        }
        let (id, rest) = rest.split_at(KEY_ID_BYTES);
        let key = self.keys.iter().find(|key| key.id == id);
        let key = key.ok_or_else(|| Error::OtherKey(hex(id)))?;
        let (wrapped, rest) = rest.split_at(WRAPPED_BYTES);
        Ok((decrypt(&key.key, place, wrapped)?, rest))
    }

    /// What to remember when the database is new, so that a wrong key is noticed later.
    pub fn canary(&self) -> String {
        STANDARD.encode(self.seal(CANARY_PLACE, &CANARY.into()))
    }

    /// The canary under the first key; `None` when it is already.
    pub fn rewrap_canary(&self, canary: &str) -> Result<Option<String>, Error> {
        let sealed = STANDARD.decode(canary).map_err(|_| Error::Tampered)?;
        Ok(self.rewrap(CANARY_PLACE, &sealed)?.map(|sealed| STANDARD.encode(sealed)))
    }

    /// Whether one of these keys is what the database's secrets are wrapped with.
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

/// A new signing secret as Standard Webhooks has it: 32 random bytes in base64 behind `whsec_`.
pub fn generate_signing_secret() -> SecretString {
    let mut bytes = Zeroizing::new([0_u8; 32]);
    fill(&SystemRandom::new(), &mut *bytes);
    format!("whsec_{}", STANDARD.encode(*bytes)).into()
}

/// SHA-256, the form in which API keys are kept and secrets are compared.
pub fn hash(bytes: &[u8]) -> [u8; 32] {
    let mut hash = [0; 32];
    hash.copy_from_slice(digest::digest(&digest::SHA256, bytes).as_ref());
    hash
}

/// Pairs of hexadecimal digits, in capitals or not.
pub fn unhex(text: &str) -> Option<Vec<u8>> {
    let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|it| u8::try_from(it).ok());
    let pairs = text.as_bytes().chunks(2);
    pairs
        .map(|pair| match pair {
            [high, low] => Some(digit(*high)? << 4 | digit(*low)?),
            _ => None,
        })
        .collect()
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
    fn a_ring_opens_with_every_key_and_rewraps_to_the_first() {
        let (old, new) = (Vault::generate_key(), Vault::generate_key());
        let ring = format!("{},\n{}", new.expose_secret(), old.expose_secret());
        let (old, new, ring) = (
            Vault::new(&old).unwrap(),
            Vault::new(&new).unwrap(),
            Vault::new(&ring.into()).unwrap(),
        );
        let sealed = old.seal(PLACE, &"value".into());
        assert_eq!(ring.open(PLACE, &sealed).unwrap().expose_secret(), "value");
        assert!(new.open(PLACE, &sealed).is_err());
        let rewrapped = ring.rewrap(PLACE, &sealed).unwrap().unwrap();
        assert_eq!(new.open(PLACE, &rewrapped).unwrap().expose_secret(), "value");
        assert!(old.open(PLACE, &rewrapped).is_err());
        assert_eq!(ring.rewrap(PLACE, &rewrapped).unwrap(), None);
        let canary = ring.rewrap_canary(&old.canary()).unwrap().unwrap();
        assert_eq!(new.check_canary(&canary), Ok(()));
    }

    #[test]
    fn the_value_is_not_in_the_sealed_bytes_nor_in_debug() {
        let vault = vault();
        let sealed = vault.seal(PLACE, &"correct horse".into());
        assert!(!sealed.windows(7).any(|window| window == b"correct"));
        assert_eq!(
            format!("{vault:?}"),
            format!("Vault {{ key_ids: [\"{}\"], .. }}", vault.key_id())
        );
    }
}
