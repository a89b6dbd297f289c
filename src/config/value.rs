//! One value at a time: from a text (flag, environment) or a JSON value (file) to a checked type.
//!
//! A parser says what is wanted and does not repeat what it was given: the value may be a secret
//! that somebody put into the wrong place. Where it came from is the reader's business.

use std::{
    net::SocketAddr,
    ops::RangeInclusive,
    path::{Path, PathBuf},
};

use secrecy::SecretString;
use serde_json::Value;

use super::problem::Wrong;
use crate::{domain::cost::MicroUsd, vault::Vault};

/// What a setting was given.
#[derive(Clone, Copy)]
pub(super) enum Raw<'a> {
    /// By a flag or a variable: always a text.
    Text(&'a str),
    /// By the file, where a number is a number.
    Value(&'a Value),
}

pub(super) type Parsed<T> = Result<T, Wrong>;

/// A whole number. `unit` is part of the message: `bytes`, `seconds`, or empty for a count.
pub(super) fn number<T: TryFrom<u64>>(
    range: RangeInclusive<u64>,
    unit: &'static str,
) -> impl Fn(Raw<'_>) -> Parsed<T> {
    move |raw| {
        let number = match raw {
            // Groups of digits as TOML writes them, so that a value can be copied from the file.
            Raw::Text(text) => text.replace('_', "").parse::<u64>().ok(),
            Raw::Value(value) => value.as_u64(),
        };
        number
            .filter(|number| range.contains(number))
            .and_then(|it| T::try_from(it).ok())
            .ok_or_else(|| {
                let (from, to) = (grouped(*range.start()), grouped(*range.end()));
                let unit = if unit.is_empty() { String::new() } else { format!(" ({unit})") };
                Wrong::from(format!("must be a whole number from {from} to {to}{unit}"))
            })
    }
}

/// An amount of US dollars, exactly: a text or a number with up to six decimals.
pub(super) fn dollars(raw: Raw<'_>) -> Parsed<MicroUsd> {
    let text = match raw {
        Raw::Text(text) => text.to_owned(),
        Raw::Value(Value::String(text)) => text.clone(),
        // The shortest digits that read as this number are what was written.
        Raw::Value(Value::Number(number)) => match number.as_u64() {
            Some(whole) => whole.to_string(),
            None => number.as_f64().map_or_else(String::new, |number| number.to_string()),
        },
        Raw::Value(_) => String::new(),
    };
    let found = MicroUsd::parse_dollars(text.trim()).filter(|amount| *amount <= DOLLARS_MAX);
    found.ok_or_else(|| "must be dollars from 0 to 1_000_000 with up to six decimals".into())
}

const DOLLARS_MAX: MicroUsd = MicroUsd(1_000_000 * 1_000_000);

/// `1_000_000`: as TOML allows it to be written.
fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut out = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            out.push('_');
        }
        out.push(digit);
    }
    out
}

pub(super) fn boolean(raw: Raw<'_>) -> Parsed<bool> {
    match raw {
        Raw::Text("true") | Raw::Value(Value::Bool(true)) => Ok(true),
        Raw::Text("false") | Raw::Value(Value::Bool(false)) => Ok(false),
        Raw::Text(_) | Raw::Value(_) => Err("must be true or false".into()),
    }
}

/// A text of 1 to `chars_max` characters.
pub(super) fn text(chars_max: usize) -> impl Fn(Raw<'_>) -> Parsed<String> {
    move |raw| {
        let text = any_text(raw)?;
        if text.is_empty() {
            Err("must not be empty".into())
        } else if text.contains('\0') {
            Err("must not contain NUL".into())
        } else if text.chars().count() > chars_max {
            Err(format!("is longer than {chars_max} characters").into())
        } else {
            Ok(text.to_owned())
        }
    }
}

fn any_text<'a>(raw: Raw<'a>) -> Parsed<&'a str> {
    match raw {
        Raw::Text(text) => Ok(text),
        Raw::Value(Value::String(text)) => Ok(text),
        Raw::Value(_) => Err("must be a text".into()),
    }
}

/// One of a closed list of words.
pub(super) fn choice<T: Copy>(
    words: &'static [(&'static str, T)],
) -> impl Fn(Raw<'_>) -> Parsed<T> {
    move |raw| {
        let given = any_text(raw).ok();
        let found = words.iter().find(|(word, _)| Some(*word) == given);
        found.map(|(_, value)| *value).ok_or_else(|| {
            let words: Vec<_> = words.iter().map(|(word, _)| format!("`{word}`")).collect();
            format!("must be {}", words.join(" or ")).into()
        })
    }
}

/// A list in the file; in a variable, `[…]` as JSON or texts separated by `:` as in `PATH`.
pub(super) fn list<T>(
    n_max: usize,
    parse: impl Fn(Raw<'_>) -> Parsed<T>,
) -> impl Fn(Raw<'_>) -> Parsed<Vec<T>> {
    move |raw| {
        let values: Vec<Value> = match raw {
            Raw::Value(Value::Array(list)) => list.clone(),
            Raw::Value(_) => return Err("must be a list".into()),
            Raw::Text(text) if text.trim_start().starts_with('[') => serde_json::from_str(text)
                .map_err(|_| Wrong::from("begins with `[` but is not a JSON list"))?,
            Raw::Text(text) => text.split(':').map(Value::from).collect(),
        };
        if values.len() > n_max {
            return Err(format!("has more than {n_max} entries").into());
        }
        let (mut parsed, mut messages, mut hint) = (Vec::new(), Vec::new(), None);
        for (index, value) in values.iter().enumerate() {
            match parse(Raw::Value(value)) {
                Ok(value) => parsed.push(value),
                Err(wrong) => {
                    messages.push(format!("entry {} {}", index + 1, wrong.message));
                    hint = hint.or(wrong.hint);
                }
            }
        }
        if messages.is_empty() {
            Ok(parsed)
        } else {
            Err(Wrong { message: messages.join("; "), hint })
        }
    }
}

const PATH_CHARS_MAX: usize = 4096;

/// A path; relative ones start at the working directory.
pub(super) fn path(raw: Raw<'_>) -> Parsed<PathBuf> {
    let path = text(PATH_CHARS_MAX)(raw)?;
    if path == "~" || path.starts_with("~/") {
        return Err(Wrong::from("must be a full path").hint("`~` is not expanded here"));
    }
    Ok(PathBuf::from(path))
}

pub(super) fn absolute_path(raw: Raw<'_>) -> Parsed<PathBuf> {
    let path = path(raw)?;
    if path.is_absolute() { Ok(path) } else { Err("must be a full path, from `/`".into()) }
}

/// Where to listen: an IP address and a port.
pub(super) fn address(raw: Raw<'_>) -> Parsed<SocketAddr> {
    let parsed = any_text(raw).ok().and_then(|text| text.parse().ok());
    parsed.ok_or_else(|| {
        Wrong::from("must be an IP address and a port").hint(
            "`127.0.0.1:4100` for this machine only, `0.0.0.0:4100` or `[::]:4100` for every interface",
        )
    })
}

/// Where the server is reached from outside: scheme, host and port, and a path where a proxy serves it
/// below one.
pub(super) fn public_url(raw: Raw<'_>) -> Parsed<String> {
    let is_name = |it: &str| {
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte);
        !it.is_empty() && !it.starts_with('.') && it.bytes().all(plain)
    };
    let is_fine = |url: &String| {
        let mut names = url.split_once("://").map_or("", |(_, rest)| rest).split('/').skip(1);
        names.all(is_name)
    };
    base_url(raw).ok().filter(is_fine).ok_or_else(|| {
        Wrong::from("must be an http or https URL with host and port, and at most a plain path")
            .hint("for instance `https://bell.example.com` or `https://example.com/bellpull`")
    })
}

/// An `http` or `https` URL without a slash at its end.
pub(super) fn base_url(raw: Raw<'_>) -> Parsed<String> {
    let wanted = || Wrong::from("must be an http or https URL without user, query and fragment");
    let url = any_text(raw).ok().map(|text| text.trim_end_matches('/')).ok_or_else(wanted)?;
    let rest = url.strip_prefix("https://").or_else(|| url.strip_prefix("http://"));
    let rest = rest.ok_or_else(wanted)?;
    let authority = rest.split('/').next().unwrap_or_default();
    let (host, port) = match authority.rsplit_once(':') {
        Some((host, port)) if !authority.ends_with(']') => (host, port.parse::<u16>().is_ok()),
        _ => (authority, true),
    };
    let plain = rest.chars().all(|char| char.is_ascii_graphic() && !"?#@\\\"<>`{}".contains(char));
    if host.is_empty() || !port || !plain { Err(wanted()) } else { Ok(url.to_owned()) }
}

/// A PostgreSQL connection URL. It holds a password, so it is a secret as a whole.
pub(super) fn database_url(raw: Raw<'_>) -> Parsed<SecretString> {
    let url = any_text(raw)?;
    if url.starts_with("postgres://") || url.starts_with("postgresql://") {
        return Ok(SecretString::from(url));
    }
    Err(Wrong::from("must begin with `postgres://`")
        .hint("leave it out for SQLite in the data directory"))
}

/// The key of the vault, in base64; the vault says what a key is.
pub(super) fn vault_key(raw: Raw<'_>) -> Parsed<SecretString> {
    let key = secret(raw)?;
    match Vault::new(&key) {
        Ok(_) => Ok(key),
        Err(_) => Err(Wrong::from("must be 32 bytes in base64")
            .hint("make one with `openssl rand -base64 32`")),
    }
}

/// What a log filter looks like is decided by the one that uses it.
pub(super) fn log_filter(raw: Raw<'_>) -> Parsed<String> {
    let filter = text(4096)(raw)?;
    match tracing_subscriber::EnvFilter::builder().parse(&filter) {
        Ok(_) => Ok(filter),
        Err(_) => Err(Wrong::from("is not a log filter")
            .hint("a level (`info`), or levels by module (`info,bellpull::worker=debug`)")),
    }
}

/// A secret in its plain form. Line ends at the end belong to the file it came from, not to it.
pub(super) fn secret(raw: Raw<'_>) -> Parsed<SecretString> {
    let secret = any_text(raw)?.trim_end_matches(['\r', '\n']);
    if secret.is_empty() {
        Err("must not be empty".into())
    } else if secret.contains('\0') {
        Err("must not contain NUL".into())
    } else if secret.len() > crate::domain::secret::VALUE_BYTES_MAX {
        Err("is too long for a secret".into())
    } else {
        Ok(SecretString::from(secret))
    }
}

/// Where things are kept unless told otherwise. Relative values of the two variables are ignored,
/// as the XDG specification asks.
pub fn data_dir_default(environment: &std::collections::BTreeMap<String, String>) -> PathBuf {
    let absolute = |name: &str| {
        environment
            .get(name)
            .map(Path::new)
            .filter(|path| path.is_absolute())
            .map(Path::to_path_buf)
    };
    let data_home = absolute("XDG_DATA_HOME")
        .or_else(|| absolute("HOME").map(|home| home.join(".local/share")));
    data_home.map_or_else(|| PathBuf::from("bellpull-data"), |home| home.join("bellpull"))
}
