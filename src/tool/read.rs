//! `read`: a file of the workspace, as text, image or document.
//!
//! Text comes as it is, so that `edit` finds it again. A file over the bound is read in parts, by
//! lines. Left out: other binary files, which are for programs.

use std::{
    fs::File,
    io::{BufRead as _, BufReader, Read as _},
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde::Deserialize;
use serde_json::{Value, json};

use super::{Error, Host, Options, Stop, on_files, text, workspace::Place};
use crate::domain::{conversation::ToolSpec, event::Block};

pub const NAME: &str = "read";

/// Bytes that are read to find the lines of a range.
const SCANNED_BYTES_MAX: u64 = 256 * 1024 * 1024;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Input {
    file_path: String,
    #[serde(default)]
    view_range: Option<Vec<i64>>,
}

pub fn spec() -> ToolSpec {
    ToolSpec {
        name: NAME.to_owned(),
        description:
            "Reads a file of the workspace. Text is answered as it is in the file; images \
            and PDFs are shown. Give `view_range` to read some lines of a long file."
                .to_owned(),
        input_schema: json!({
            "type": "object",
            "properties": {
                "file_path": {"type": "string",
                    "description": "relative to /workspace, or absolute in there"},
                "view_range": {"type": "array", "items": {"type": "integer"}, "minItems": 2,
                    "maxItems": 2,
                    "description": "first and last line, from 1; -1 as the last: to the end"},
            },
            "required": ["file_path"],
            "additionalProperties": false,
        }),
    }
}

pub async fn run(host: &impl Host, given: &Value) -> Result<Vec<Block>, Error> {
    let Input { file_path, view_range } = super::input(given)?;
    let range = view_range.map(|range| lines(&range)).transpose()?;
    let (workspace, options) = (host.workspace().await?, host.options().clone());
    on_files(move |stop| {
        let place = workspace.place(&file_path)?;
        let file = workspace.open_file(&place)?;
        match range {
            None => whole(file, &place, &options),
            Some(range) => part(file, &place, range, &options, stop).map(text),
        }
    })
    .await
}

/// First and last line, from 1.
fn lines(range: &[i64]) -> Result<(u64, u64), Error> {
    let wrong = || {
        let message = "`view_range` is [first, last], with lines from 1, or -1 as the last";
        Error::Model(message.to_owned())
    };
    let [first, last] = range else { return Err(wrong()) };
    let first = u64::try_from(*first).ok().filter(|first| *first > 0).ok_or_else(wrong)?;
    let last = match *last {
        -1 => u64::MAX,
        last => u64::try_from(last).ok().filter(|last| *last >= first).ok_or_else(wrong)?,
    };
    Ok((first, last))
}

fn whole(file: File, place: &Place, options: &Options) -> Result<Vec<Block>, Error> {
    let shown = place.shown();
    let bytes_max = options.read_bytes_max.max(options.media_bytes_max);
    let mut bytes = Vec::new();
    let mut reader = file.take(bytes_max as u64 + 1);
    reader.read_to_end(&mut bytes).map_err(|error| unreadable(&shown, &error))?;
    if let Some(media_type) = media_type(&bytes) {
        if bytes.len() > options.media_bytes_max {
            return Err(Error::Model(format!(
                "`{shown}` ({media_type}) has more than the {} bytes that can be shown",
                options.media_bytes_max
            )));
        }
        let source =
            json!({"type": "base64", "media_type": media_type, "data": STANDARD.encode(&bytes)});
        return Ok(vec![match media_type {
            "application/pdf" => Block::Document { source, context: None, title: Some(shown) },
            _ => Block::Image { source },
        }]);
    }
    if bytes.len() > options.read_bytes_max {
        return Err(Error::Model(format!(
            "`{shown}` has more than {} bytes; give `view_range` to read some of its lines",
            options.read_bytes_max
        )));
    }
    if bytes.is_empty() {
        return Ok(text(format!("[`{shown}` is empty]")));
    }
    as_text(bytes, &shown).map(text)
}

/// What a model can see, by the file's own first bytes.
fn media_type(bytes: &[u8]) -> Option<&'static str> {
    let starts: [(&[u8], &str); 5] = [
        (b"\x89PNG\r\n\x1a\n", "image/png"),
        (b"\xff\xd8\xff", "image/jpeg"),
        (b"GIF87a", "image/gif"),
        (b"GIF89a", "image/gif"),
        (b"%PDF-", "application/pdf"),
    ];
    if bytes.starts_with(b"RIFF") && bytes.get(8..12) == Some(b"WEBP") {
        return Some("image/webp");
    }
    starts.into_iter().find_map(|(start, kind)| bytes.starts_with(start).then_some(kind))
}

/// A text with a note where it is not quite what the file holds.
fn as_text(bytes: Vec<u8>, shown: &str) -> Result<String, Error> {
    if bytes.contains(&0) {
        let n = bytes.len();
        return Err(Error::Model(format!("`{shown}` is no text; it was read for {n} bytes")));
    }
    String::from_utf8(bytes).or_else(|error| {
        let text = String::from_utf8_lossy(error.as_bytes());
        Ok(format!("{text}\n[bytes that are no UTF-8 are shown as \u{fffd}]"))
    })
}

/// Some lines of a file of any length.
fn part(
    file: File,
    place: &Place,
    (first, last): (u64, u64),
    options: &Options,
    stop: &Stop,
) -> Result<String, Error> {
    let shown = place.shown();
    let mut reader = BufReader::new(file.take(SCANNED_BYTES_MAX));
    let (mut found, mut line) = (Vec::new(), 1_u64);
    let mut ended = false;
    while line <= last && !ended {
        if stop.is_set() {
            return Err(Error::Model("it was stopped".to_owned()));
        }
        let available = reader.fill_buf().map_err(|error| unreadable(&shown, &error))?;
        let end = available.iter().position(|byte| *byte == b'\n').map(|at| at + 1);
        let taken = end.unwrap_or(available.len());
        ended = taken == 0;
        if line >= first {
            found.extend_from_slice(&available[..taken]);
            if found.len() > options.read_bytes_max {
                return Err(Error::Model(format!(
                    "the lines {first} to {line} of `{shown}` have more than {} bytes already; \
                     take fewer",
                    options.read_bytes_max
                )));
            }
        }
        reader.consume(taken);
        line += u64::from(end.is_some());
    }
    if found.is_empty() {
        return Err(Error::Model(format!("`{shown}` has no line {first}")));
    }
    let mut text = as_text(found, &shown)?;
    if first > 1 || !ended {
        let to = if ended { "to the last one".to_owned() } else { format!("to {last}") };
        let newline = if text.ends_with('\n') { "" } else { "\n" };
        text.push_str(&format!("{newline}[lines {first} {to} of `{shown}`]"));
    }
    Ok(text)
}

fn unreadable(shown: &str, error: &std::io::Error) -> Error {
    Error::Model(format!("`{shown}` cannot be read: {error}"))
}
