//! `grep`: lines of the workspace's files that fit a regular expression.
//!
//! Invariant: the time grows with the bytes that are read and not with the expression, and those
//! bytes are bounded. Left out: files that are no text.

use std::io::Read as _;

use regex::bytes::{Regex, RegexBuilder};
use serde::Deserialize;
use serde_json::{Value, json};

use super::{
    Error, Host, Options, Stop, Workspace, on_files, output,
    walk::{End, walk},
    workspace::Place,
};
use crate::domain::conversation::ToolSpec;

pub const NAME: &str = "grep";

/// Lines of one answer.
const HITS_MAX: usize = 500;

/// Of these, lines of one file.
const HITS_OF_A_FILE_MAX: usize = 100;

/// Bytes of a line that are shown.
const LINE_BYTES_MAX: usize = 400;

/// Largest file that is looked at.
const FILE_BYTES_MAX: usize = 16 * 1024 * 1024;

/// Longest expression, and the memory that it may take when it is compiled.
const PATTERN_BYTES_MAX: usize = 1000;
const COMPILED_BYTES_MAX: usize = 4 * 1024 * 1024;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Input {
    pattern: String,
    #[serde(default)]
    path: Option<String>,
}

pub fn spec() -> ToolSpec {
    ToolSpec {
        name: NAME.to_owned(),
        description: "Finds lines in files of the workspace by a regular expression (as in \
            ripgrep: no look-around, no back references; `(?i)` ignores case). Answers `path:line: \
            text`. What `.gitignore` leaves out is not looked at, unless `path` is in it."
            .to_owned(),
        input_schema: json!({
            "type": "object",
            "properties": {
                "pattern": {"type": "string"},
                "path": {"type": "string",
                    "description": "directory or file where to look; /workspace when left out"},
            },
            "required": ["pattern"],
            "additionalProperties": false,
        }),
    }
}

pub async fn run(host: &impl Host, given: &Value) -> Result<String, Error> {
    let input = super::input(given)?;
    let (workspace, options) = (host.workspace().await?, host.options().clone());
    on_files(move |stop| find(&workspace, &input, &options, stop)).await
}

fn find(
    workspace: &Workspace,
    input: &Input,
    options: &Options,
    stop: &Stop,
) -> Result<String, Error> {
    if input.pattern.len() > PATTERN_BYTES_MAX {
        let message = format!("the expression has more than {PATTERN_BYTES_MAX} bytes");
        return Err(Error::Model(message));
    }
    let regex = RegexBuilder::new(&input.pattern)
        .multi_line(true)
        .size_limit(COMPILED_BYTES_MAX)
        .dfa_size_limit(COMPILED_BYTES_MAX)
        .build()
        .map_err(|error| Error::Model(format!("the expression cannot be read: {error}")))?;
    let place = workspace.place(input.path.as_deref().unwrap_or("."))?;
    let mut search = Search {
        regex,
        bytes_left: options.search_bytes_max,
        hits: Vec::new(),
        n_passed_over: 0,
        bytes: Vec::new(),
    };
    let end = match workspace.open_file(&place) {
        Ok(file) => {
            search.file(file, &place);
            End::Whole
        }
        Err(_) => walk(workspace, &place, options.search_entries_max, stop, &mut |entry| {
            if !entry.is_link
                && let Some(file) = entry.open()
            {
                search.file(file, &place.join(entry.path));
            }
            search.goes_on()
        })?,
    };
    let answer = search.answer(end, options, &place);
    output::bounded(workspace, NAME, answer, options.answer_bytes_max)
}

struct Search {
    regex: Regex,
    bytes_left: usize,
    hits: Vec<String>,
    /// Larger than what may be read of one file.
    n_passed_over: usize,
    bytes: Vec<u8>,
}

impl Search {
    fn goes_on(&self) -> bool {
        self.hits.len() < HITS_MAX && self.bytes_left > 0
    }

    fn file(&mut self, file: std::fs::File, place: &Place) {
        let bytes_max = FILE_BYTES_MAX.min(self.bytes_left);
        self.bytes.clear();
        if file.take(bytes_max as u64 + 1).read_to_end(&mut self.bytes).is_err() {
            return;
        }
        self.bytes_left -= self.bytes.len().min(self.bytes_left);
        if self.bytes.len() > bytes_max {
            self.n_passed_over += 1;
            return;
        }
        if self.bytes.contains(&0) {
            return;
        }
        let (mut line, mut counted, mut n_hits) = (1, 0, 0);
        let mut at = 0;
        while let Some(found) = self.regex.find_at(&self.bytes, at) {
            let start = begin_of_line(&self.bytes, found.start());
            let end = end_of_line(&self.bytes, found.start());
            if start == self.bytes.len() && start > 0 {
                break;
            }
            line += self.bytes[counted..start].iter().filter(|byte| **byte == b'\n').count();
            counted = start;
            if n_hits == HITS_OF_A_FILE_MAX {
                self.hits.push(format!("{}: [more lines of this file fit]", place.shown()));
                break;
            }
            let text = shown(&self.bytes[start..end]);
            self.hits.push(format!("{}:{line}: {text}", place.shown()));
            n_hits += 1;
            at = end + 1;
            if at > self.bytes.len() || self.hits.len() >= HITS_MAX {
                break;
            }
        }
    }

    fn answer(self, end: End, options: &Options, place: &Place) -> String {
        let n_hits = self.hits.len();
        let mut answer = match n_hits {
            0 => format!("nothing in `{}` fits", place.shown()),
            _ => self.hits.join("\n"),
        };
        let mut note = |text: String| answer.push_str(&format!("\n[{text}]"));
        if n_hits >= HITS_MAX {
            note(format!("the first {HITS_MAX} lines; there may be more"));
        }
        if self.bytes_left == 0 {
            note(format!("{} bytes were read, and no more may be", options.search_bytes_max));
        }
        if self.n_passed_over > 0 {
            note(format!("{} large files were passed over", self.n_passed_over));
        }
        if end == End::Bound {
            let max = options.search_entries_max;
            note(format!("there are more than {max} entries; give a deeper `path`"));
        }
        answer
    }
}

fn begin_of_line(bytes: &[u8], at: usize) -> usize {
    bytes[..at].iter().rposition(|byte| *byte == b'\n').map_or(0, |newline| newline + 1)
}

fn end_of_line(bytes: &[u8], at: usize) -> usize {
    bytes[at..].iter().position(|byte| *byte == b'\n').map_or(bytes.len(), |offset| at + offset)
}

fn shown(line: &[u8]) -> String {
    let line = String::from_utf8_lossy(line);
    let line = line.trim_end_matches('\r');
    match line.len() > LINE_BYTES_MAX {
        true => format!("{}…", &line[..line.floor_char_boundary(LINE_BYTES_MAX)]),
        false => line.to_owned(),
    }
}
