//! Signatures by a key that the sender publishes: the request names the URL of its certificate.
//!
//! Invariants: a certificate comes from hosts that are written here and from nowhere else; what is
//! signed covers the body, and the secret, which tells one customer of the sender from another, is
//! part of it or stands in it. Left out: fetching, and the checking of requests.

use std::{collections::BTreeMap, fmt, str::FromStr};

use serde::{Deserialize, Serialize};

use super::{
    Problem,
    field::{Place, Pointer},
    origin::Origin,
    verifier::Digest,
};

/// An RSA signature (PKCS #1), and where its certificate is.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Certified {
    /// Where the URL of the certificate stands, and what it must look like.
    pub certificate: Place,
    pub from: Origin,
    /// Names, one of which the certificate must have from an authority that this machine trusts.
    /// Empty: it is trusted for where it comes from.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub names: Vec<String>,
    /// Where the signature stands, in base64.
    pub signature: Place,
    /// Where the algorithm is named, and what its names mean.
    pub algorithm: Place,
    pub algorithms: BTreeMap<String, Digest>,
    /// A place of the signed part that must hold the secret.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub holds_secret: Option<Pointer>,
    /// What is signed: the first of these that fits the request.
    pub signed: Vec<Signed>,
}

/// What is signed of one kind of request.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Signed {
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub when: BTreeMap<Place, String>,
    /// Fields of the body, each as a line of its name and a line of its value; one that is not there
    /// is left out.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub lines: Vec<Pointer>,
    /// Or these, with a `|` between them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub joined: Vec<Part>,
}

/// A part of a text that is signed.
#[derive(Clone, Debug, PartialEq)]
pub enum Part {
    Place(Place),
    /// The secret as it is.
    Secret,
    /// The CRC-32 of the body, as a decimal number.
    Crc32,
}

const SECRET: &str = "{secret}";
const CRC32: &str = "{crc32}";

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Part::Place(place) => place.fmt(f),
            Part::Secret => f.write_str(SECRET),
            Part::Crc32 => f.write_str(CRC32),
        }
    }
}

impl FromStr for Part {
    type Err = Problem;

    fn from_str(text: &str) -> Result<Part, Problem> {
        match text {
            SECRET => Ok(Part::Secret),
            CRC32 => Ok(Part::Crc32),
            place => place.parse().map(Part::Place),
        }
    }
}

as_text!(Part);

/// Kinds of request, and pieces of one.
const PIECES_MAX: usize = 16;

impl Certified {
    pub(super) fn check(&self) -> Result<(), Problem> {
        self.from.check().map_err(|it| Problem::new(format!("from.{}", it.field), it.message))?;
        let is_name =
            |name: &String| name.contains('.') && name.bytes().all(|it| it.is_ascii_graphic());
        if self.names.len() > PIECES_MAX || !self.names.iter().all(is_name) {
            return Err(Problem::new("names", "must be names of hosts"));
        }
        if self.algorithms.is_empty() || self.algorithms.values().any(|it| *it == Digest::Sha512) {
            return Err(Problem::new("algorithms", "must name `sha256`, or `sha1`"));
        }
        if self.signed.is_empty() || self.signed.len() > PIECES_MAX {
            return Err(Problem::new("signed", format!("must have 1 to {PIECES_MAX} kinds")));
        }
        for (n, Signed { lines, joined, .. }) in self.signed.iter().enumerate() {
            let at = |name: &str| format!("signed[{n}].{name}");
            if lines.is_empty() == joined.is_empty() || lines.len() + joined.len() > PIECES_MAX {
                return Err(Problem::new(at("lines"), "is needed, or `joined`, and not both"));
            }
            if !joined.is_empty() && !joined.contains(&Part::Crc32) {
                let message = "must have `{crc32}`: the body would not be signed";
                return Err(Problem::new(at("joined"), message));
            }
            let has_secret = match &self.holds_secret {
                Some(place) => lines.contains(place),
                None => joined.contains(&Part::Secret),
            };
            if !has_secret {
                let message = "must have what `holds_secret` names, or `{secret}`: anybody's \
                    deliveries of this sender would pass";
                return Err(Problem::new(at("lines"), message));
            }
        }
        Ok(())
    }
}
