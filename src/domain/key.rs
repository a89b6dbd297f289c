//! What an API key may do.

use std::{fmt, str::FromStr};

use super::Problem;

/// A scope of an API key. A key may have several.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Scope {
    /// Everything on /v1 and /api; no webhook.
    Admin,
    /// Every GET on /v1 and /api, and /metrics.
    Read,
    /// `POST /api/webhook/<name>` of this source, and nothing else.
    Ingest(String),
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Scope::Admin => f.write_str("admin"),
            Scope::Read => f.write_str("read"),
            Scope::Ingest(source) => write!(f, "ingest:{source}"),
        }
    }
}

impl FromStr for Scope {
    type Err = Problem;

    fn from_str(text: &str) -> Result<Scope, Problem> {
        match text {
            "admin" => Ok(Scope::Admin),
            "read" => Ok(Scope::Read),
            _ => match text.strip_prefix("ingest:") {
                Some(source) => {
                    super::source::check_name(source)?;
                    Ok(Scope::Ingest(source.to_owned()))
                }
                None => Err(Problem::new("scopes", "must be `admin`, `read` or `ingest:<source>`")),
            },
        }
    }
}

/// The scopes of one key.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Scopes(pub Vec<Scope>);

impl Scopes {
    pub fn admin() -> Scopes {
        Scopes(vec![Scope::Admin])
    }

    pub fn is_admin(&self) -> bool {
        self.0.contains(&Scope::Admin)
    }

    pub fn may_read(&self) -> bool {
        self.is_admin() || self.0.contains(&Scope::Read)
    }

    pub fn may_ingest(&self, source: &str) -> bool {
        self.0.iter().any(|scope| matches!(scope, Scope::Ingest(name) if name == source))
    }

    /// As stored: scopes separated by spaces.
    pub fn to_text(&self) -> String {
        self.0.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ")
    }

    pub fn parse(text: &str) -> Result<Scopes, Problem> {
        text.split_whitespace().map(str::parse).collect::<Result<_, _>>().map(Scopes)
    }
}
