//! What a command reads and writes, and what it may assume about the other end.
//!
//! Commands get an [`Io`] and never touch the process's own streams, so a test reads what they wrote.
//! Invariant: colour and prompts only where a person looks; a reader that went away is no error.

use std::{
    collections::BTreeMap,
    fmt,
    io::{self, IsTerminal as _, Read, Write},
};

use rustix::termios;
use serde_json::Value;

use super::{failure::Failure, style::Style};
use crate::{clock::Clock, domain::text::is_deceptive};

/// The streams of a command.
pub struct Io {
    pub out: Box<dyn Write + Send>,
    pub err: Box<dyn Write + Send>,
    pub input: Box<dyn Read + Send>,
    /// Whether a person looks at `out`; then text is shown as it comes, and made harmless.
    pub out_is_terminal: bool,
    /// Whether a person types `input`, and so can be asked.
    pub input_is_terminal: bool,
    /// Whether to colour `out`.
    pub out_color: bool,
    pub err_color: bool,
    /// Columns of the terminal behind `out`; tables are as wide as they need without one.
    pub width: Option<usize>,
    pub clock: Clock,
}

impl fmt::Debug for Io {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Io").field("width", &self.width).finish_non_exhaustive()
    }
}

impl Io {
    /// The streams of this process.
    pub fn process(environment: &BTreeMap<String, String>) -> Io {
        let is_set = |name: &str| environment.get(name).is_some_and(|value| !value.is_empty());
        let is_dumb = environment.get("TERM").is_some_and(|term| term == "dumb");
        let plain = is_set("NO_COLOR") || is_dumb;
        let (out, err) = (io::stdout(), io::stderr());
        let out_is_terminal = out.is_terminal();
        let size = termios::tcgetwinsize(&out).ok().map(|size| usize::from(size.ws_col));
        Io {
            out_is_terminal,
            input_is_terminal: io::stdin().is_terminal(),
            out_color: out_is_terminal && !plain,
            err_color: err.is_terminal() && !plain,
            width: size.filter(|columns| out_is_terminal && *columns > 0),
            out: Box::new(out),
            err: Box::new(err),
            input: Box::new(io::stdin()),
            clock: Clock::system(),
        }
    }

    /// Streams that nobody looks at.
    pub fn plain(
        input: impl Read + Send + 'static,
        out: impl Write + Send + 'static,
        err: impl Write + Send + 'static,
    ) -> Io {
        Io {
            out: Box::new(out),
            err: Box::new(err),
            input: Box::new(input),
            out_is_terminal: false,
            input_is_terminal: false,
            out_color: false,
            err_color: false,
            width: None,
            clock: Clock::system(),
        }
    }

    pub(super) fn style(&self) -> Style {
        Style { color: self.out_color }
    }

    pub(super) fn line(&mut self, text: impl fmt::Display) -> Result<(), Failure> {
        Ok(writeln!(self.out, "{text}")?)
    }

    /// One JSON document.
    pub(super) fn json(&mut self, value: &Value) -> Result<(), Failure> {
        let text = serde_json::to_string_pretty(value).expect("a JSON value is printable");
        self.line(harmless_json(&text))
    }

    /// One JSON document of many, each on its line.
    pub(super) fn json_line(&mut self, value: &Value) -> Result<(), Failure> {
        self.line(harmless_json(&value.to_string()))?;
        Ok(self.out.flush()?)
    }

    /// A remark for the person, which is not part of the answer.
    pub(super) fn note(&mut self, text: impl fmt::Display) -> Result<(), Failure> {
        let style = Style { color: self.err_color };
        let text = text.to_string();
        Ok(writeln!(self.err, "{}", style.dim(&text))?)
    }

    /// All of the input, at most `bytes_max` of it.
    pub(super) fn read_input(&mut self, bytes_max: usize) -> Result<Vec<u8>, Failure> {
        let mut bytes = Vec::new();
        let read = (&mut self.input).take(bytes_max as u64 + 1).read_to_end(&mut bytes);
        read.map_err(|error| Failure::new("read the input", error.to_string()))?;
        if bytes.len() > bytes_max {
            return Err(Failure::wrong(format!("the input is larger than {bytes_max} bytes")));
        }
        Ok(bytes)
    }

    /// Whether the person wants it. Where nobody can be asked, whoever wrote the command does.
    pub(super) fn confirm(&mut self, question: &str) -> Result<bool, Failure> {
        if !self.input_is_terminal {
            return Ok(true);
        }
        write!(self.err, "{question} [y/N] ")?;
        self.err.flush()?;
        let answer = self.read_line()?;
        Ok(matches!(answer.trim().to_ascii_lowercase().as_str(), "y" | "yes"))
    }

    /// A line that does not show while it is typed.
    pub(super) fn read_hidden(&mut self, prompt: &str) -> Result<String, Failure> {
        write!(self.err, "{prompt}")?;
        self.err.flush()?;
        let hidden = Hidden::start();
        let line = self.read_line();
        drop(hidden);
        writeln!(self.err)?;
        line
    }

    /// Byte by byte, so that nothing behind the line is taken.
    fn read_line(&mut self) -> Result<String, Failure> {
        let mut line = Vec::new();
        let mut byte = [0];
        while line.len() < LINE_BYTES_MAX {
            let n = self.input.read(&mut byte);
            match n.map_err(|error| Failure::new("read the input", error.to_string()))? {
                0 => break,
                _ if byte[0] == b'\n' => break,
                _ => line.push(byte[0]),
            }
        }
        let line = String::from_utf8(line);
        let line = line.map_err(|_| Failure::wrong("what was typed is not valid UTF-8"))?;
        Ok(line.trim_end_matches('\r').to_owned())
    }
}

/// The longest secret fits.
const LINE_BYTES_MAX: usize = 64 * 1024;

/// Switches the terminal's echo off, and on again at the end.
struct Hidden {
    before: Option<termios::Termios>,
}

impl Hidden {
    fn start() -> Hidden {
        let input = io::stdin();
        let before = termios::tcgetattr(&input).ok();
        if let Some(before) = &before {
            let mut hidden = before.clone();
            hidden.local_modes.remove(termios::LocalModes::ECHO);
            let _ = termios::tcsetattr(&input, termios::OptionalActions::Flush, &hidden);
        }
        Hidden { before }
    }
}

impl Drop for Hidden {
    fn drop(&mut self) {
        if let Some(before) = &self.before {
            let _ = termios::tcsetattr(io::stdin(), termios::OptionalActions::Flush, before);
        }
    }
}

/// JSON escapes only the oldest control characters; here every character that a terminal might obey
/// or that reorders text is. They stand inside texts only, so it is the same JSON.
fn harmless_json(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for char in text.chars() {
        if char == '\n' || !(char.is_control() || is_deceptive(char)) {
            out.push(char);
        } else {
            for unit in char.encode_utf16(&mut [0; 2]) {
                out.push_str(&format!("\\u{unit:04x}"));
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_for_a_terminal_is_the_same_json() {
        let value = serde_json::json!({"a": "x\u{9b}31m\u{202e}\u{e0041}é\n"});
        let text = harmless_json(&value.to_string());
        assert!(text.chars().all(|char| !char.is_control() && !is_deceptive(char)), "{text}");
        assert_eq!(serde_json::from_str::<Value>(&text).unwrap(), value);
    }
}
