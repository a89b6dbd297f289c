//! What a sender signs: a text with placeholders, as its documentation writes it.
//!
//! `v0:{timestamp}:{body}` is three pieces and a colon. The list of placeholders is closed, so a
//! template that is read is one that can be filled in.

use std::{fmt, str::FromStr};

use super::Problem;

/// A part of what is signed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Piece {
    Text(String),
    /// The raw bytes of the body.
    Body,
    /// The timestamp as the request writes it.
    Timestamp,
    /// The value of the header that `id` names.
    Id,
    /// The URL as the sender calls it, with its query.
    Url,
    /// The same with the characters back that HubSpot decodes before it signs.
    DecodedUrl,
    /// `POST`.
    Method,
    /// The fields of a form, sorted by name, each as its name and its value.
    Form,
}

const PLACEHOLDERS: [(&str, Piece); 7] = [
    ("body", Piece::Body),
    ("timestamp", Piece::Timestamp),
    ("id", Piece::Id),
    ("url", Piece::Url),
    ("decoded_url", Piece::DecodedUrl),
    ("method", Piece::Method),
    ("form", Piece::Form),
];

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Template(Vec<Piece>);

impl Template {
    pub fn pieces(&self) -> &[Piece] {
        &self.0
    }

    pub fn has(&self, piece: &Piece) -> bool {
        self.0.contains(piece)
    }

    /// Whether what is signed says anything about the body.
    pub fn covers_body(&self) -> bool {
        self.has(&Piece::Body) || self.has(&Piece::Form)
    }
}

impl Default for Template {
    fn default() -> Template {
        Template(vec![Piece::Body])
    }
}

impl fmt::Display for Template {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for piece in &self.0 {
            match PLACEHOLDERS.iter().find(|(_, known)| known == piece) {
                Some((name, _)) => write!(f, "{{{name}}}")?,
                None => {
                    if let Piece::Text(text) = piece {
                        f.write_str(text)?;
                    }
                }
            }
        }
        Ok(())
    }
}

/// Longest template, in bytes.
const BYTES_MAX: usize = 256;

impl FromStr for Template {
    type Err = Problem;

    fn from_str(text: &str) -> Result<Template, Problem> {
        let names = || PLACEHOLDERS.map(|(name, _)| format!("{{{name}}}")).join(", ");
        let problem = |message: String| Problem::new("template", format!("the template {message}"));
        if text.is_empty() || text.len() > BYTES_MAX {
            return Err(problem(format!("must have 1 to {BYTES_MAX} bytes")));
        }
        let mut pieces: Vec<Piece> = Vec::new();
        let mut rest = text;
        while !rest.is_empty() {
            let (literal, after) = match rest.find(['{', '}']) {
                None => (rest, None),
                Some(at) => (&rest[..at], Some(&rest[at..])),
            };
            if !literal.is_empty() {
                pieces.push(Piece::Text(literal.to_owned()));
            }
            let Some(after) = after else { break };
            let inside = after.strip_prefix('{').and_then(|it| it.split_once('}'));
            let Some((name, left)) = inside else {
                return Err(problem("has a brace without its other one".to_owned()));
            };
            let Some((_, piece)) = PLACEHOLDERS.iter().find(|(known, _)| *known == name) else {
                return Err(problem(format!("has a placeholder that is none of {}", names())));
            };
            if pieces.contains(piece) {
                return Err(problem(format!("has `{{{name}}}` twice")));
            }
            pieces.push(piece.clone());
            rest = left;
        }
        Ok(Template(pieces))
    }
}

as_text!(Template);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn templates_are_read_and_written() {
        for text in ["{body}", "v0:{timestamp}:{body}", "{id}.{timestamp}.{body}", "{url}{form}!"] {
            assert_eq!(text.parse::<Template>().unwrap().to_string(), text);
        }
        for text in ["", "{", "}", "{body", "{nobody}", "{body}{body}", "{{body}}", "{ body }"] {
            assert!(text.parse::<Template>().is_err(), "{text}");
        }
        assert!("{url}{form}".parse::<Template>().unwrap().covers_body());
        assert!(!"{url}{timestamp}".parse::<Template>().unwrap().covers_body());
    }
}
