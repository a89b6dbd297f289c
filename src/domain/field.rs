//! Where a value of a request is found: in a header, in the query, in the body, or in several of
//! these together.
//!
//! One notation everywhere: `X-Event-Id` is a header, `?code` a parameter of the query, `/data/id` a
//! JSON pointer into the body, in which `*` stands for every element of a list. ` + ` joins places
//! into one: all of them must have a value. Left out: how the values are read; that is `ingest`'s.

use std::{fmt, str::FromStr};

use super::Problem;

/// One place of a request.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Place {
    /// Lower-case name.
    Header(String),
    /// A parameter of the query.
    Query(String),
    /// RFC 6901 with `*` for every element of a list; begins with `/`, or is empty: the whole body.
    Pointer(String),
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Place::Header(text) | Place::Pointer(text) => f.write_str(text),
            Place::Query(name) => write!(f, "?{name}"),
        }
    }
}

/// Longest place, in bytes.
const PLACE_BYTES_MAX: usize = 1024;

impl FromStr for Place {
    type Err = Problem;

    fn from_str(text: &str) -> Result<Place, Problem> {
        let is_short = text.len() <= PLACE_BYTES_MAX;
        if text.starts_with('/') && is_short && !text.contains('\0') {
            return Ok(Place::Pointer(text.to_owned()));
        }
        if let Some(name) = text.strip_prefix('?')
            && is_short
            && is_token(name)
        {
            return Ok(Place::Query(name.to_owned()));
        }
        if is_short && is_token(text) {
            return Ok(Place::Header(text.to_ascii_lowercase()));
        }
        Err(Problem::new("field", "is neither a header name nor a JSON pointer"))
    }
}

/// What names of headers and parameters are made of here.
fn is_token(name: &str) -> bool {
    let valid = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    !name.is_empty() && name.bytes().all(valid)
}

/// Whether a text can name a header.
pub fn is_header_name(name: &str) -> bool {
    name.len() <= 128 && is_token(name)
}

/// One place, or several that make one value together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Field {
    /// Never empty.
    pub places: Vec<Place>,
}

/// Places of one field.
const PLACES_MAX: usize = 8;

const JOINT: &str = " + ";

impl fmt::Display for Field {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (n, place) in self.places.iter().enumerate() {
            write!(f, "{}{place}", if n == 0 { "" } else { JOINT })?;
        }
        Ok(())
    }
}

impl FromStr for Field {
    type Err = Problem;

    fn from_str(text: &str) -> Result<Field, Problem> {
        let places: Vec<Place> = text.split(JOINT).map(str::parse).collect::<Result<_, _>>()?;
        if places.len() > PLACES_MAX {
            return Err(Problem::new("field", format!("joins more than {PLACES_MAX} places")));
        }
        Ok(Field { places })
    }
}

/// A place in the body alone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pointer(pub String);

impl fmt::Display for Pointer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for Pointer {
    type Err = Problem;

    fn from_str(text: &str) -> Result<Pointer, Problem> {
        match text.parse() {
            _ if text.is_empty() => Ok(Pointer(String::new())),
            Ok(Place::Pointer(text)) => Ok(Pointer(text)),
            Ok(Place::Header(_) | Place::Query(_)) | Err(_) => {
                Err(Problem::new("field", "is not a JSON pointer"))
            }
        }
    }
}

as_text!(Place, Field, Pointer);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_field_is_read_and_written_in_one_notation() {
        let check = |text: &str, expected: Option<&str>| {
            let read = text.parse::<Field>().ok().map(|field| field.to_string());
            assert_eq!(read.as_deref(), expected, "{text}");
        };
        check("X-GitHub-Delivery", Some("x-github-delivery"));
        check("/data/id", Some("/data/id"));
        check("?code", Some("?code"));
        check("/*/eventId", Some("/*/eventId"));
        check("X-Event + /action", Some("x-event + /action"));
        check("/a + /b + ?c", Some("/a + /b + ?c"));
        check("", None);
        check("no header", None);
        check("X-A +", None);
        check("?", None);
        check("x:y", None);
        check(&["/a"; 9].join(" + "), None);
        check(&format!("/{}", "a".repeat(1024)), None);
    }
}
