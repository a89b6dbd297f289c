//! Server-sent events: bytes in, frames out.
//!
//! Invariant: it does not matter where the network cut the bytes. A line is decoded only when it is
//! whole, so a character that arrives in two pieces stays one character. What it leaves out: the
//! connection, and what a frame means.

use std::collections::VecDeque;

/// Room for the event of the largest payload a server takes, pretty-printed and escaped; a stream
/// that sends more without an empty line is not one of ours.
const FRAME_BYTES_MAX: usize = 256 * 1024 * 1024;

/// What arrived.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Item {
    Frame(Frame),
    /// A line that only keeps the connection alive.
    Comment,
    /// `retry:`, the server's wish for the wait before the next connection.
    RetryMs(u64),
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Frame {
    /// `message` when the server does not say.
    pub(super) event: String,
    pub(super) data: String,
    /// The last `id:` so far, on this frame or an earlier one of the connection.
    pub(super) id: Option<String>,
}

/// The stream sent a frame that does not end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("an event is larger than {FRAME_BYTES_MAX} bytes")]
pub(super) struct TooLarge;

/// Reads one connection.
#[derive(Debug, Default)]
pub(super) struct Parser {
    /// The line that is not whole yet.
    line: Vec<u8>,
    /// The last byte was a carriage return, so a line feed that follows ends nothing.
    after_return: bool,
    any_line: bool,
    event: String,
    data: Option<String>,
    id: Option<String>,
    items: VecDeque<Item>,
}

impl Parser {
    /// Takes what arrived; [`Parser::next`] has what it completed.
    pub(super) fn feed(&mut self, bytes: &[u8]) -> Result<(), TooLarge> {
        let mut rest = bytes;
        if self.after_return && !rest.is_empty() {
            self.after_return = false;
            rest = rest.strip_prefix(b"\n").unwrap_or(rest);
        }
        while let Some(end) = rest.iter().position(|byte| matches!(byte, b'\n' | b'\r')) {
            self.line.extend_from_slice(&rest[..end]);
            let line = std::mem::take(&mut self.line);
            self.take(&line);
            let returned = rest[end] == b'\r';
            rest = &rest[end + 1..];
            if returned {
                self.after_return = rest.is_empty();
                rest = rest.strip_prefix(b"\n").unwrap_or(rest);
            }
        }
        self.line.extend_from_slice(rest);
        let n_bytes = self.line.len() + self.data.as_ref().map_or(0, String::len);
        if n_bytes > FRAME_BYTES_MAX { Err(TooLarge) } else { Ok(()) }
    }

    pub(super) fn next(&mut self) -> Option<Item> {
        self.items.pop_front()
    }

    fn take(&mut self, line: &[u8]) {
        let text = String::from_utf8_lossy(line);
        let mut text = text.as_ref();
        if !std::mem::replace(&mut self.any_line, true) {
            text = text.strip_prefix('\u{FEFF}').unwrap_or(text);
        }
        if text.is_empty() {
            return self.dispatch();
        }
        let (field, value) = text.split_once(':').unwrap_or((text, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match field {
            "" => self.items.push_back(Item::Comment),
            "event" => value.clone_into(&mut self.event),
            "data" => match &mut self.data {
                Some(data) => {
                    data.push('\n');
                    data.push_str(value);
                }
                None => self.data = Some(value.to_owned()),
            },
            "id" if !value.contains('\0') => {
                self.id = Some(value.to_owned()).filter(|id| !id.is_empty());
            }
            "retry" => self.items.extend(value.parse().ok().map(Item::RetryMs)),
            _ => {}
        }
    }

    fn dispatch(&mut self) {
        let event = std::mem::take(&mut self.event);
        let Some(data) = self.data.take() else {
            return;
        };
        let event = if event.is_empty() { "message".to_owned() } else { event };
        self.items.push_back(Item::Frame(Frame { event, data, id: self.id.clone() }));
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn parse<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> Vec<Item> {
        let mut parser = Parser::default();
        for piece in pieces {
            parser.feed(piece).unwrap();
        }
        std::iter::from_fn(|| parser.next()).collect()
    }

    fn frame(event: &str, data: &str, id: Option<&str>) -> Item {
        Item::Frame(Frame {
            event: event.to_owned(),
            data: data.to_owned(),
            id: id.map(str::to_owned),
        })
    }

    #[test]
    fn the_standard_is_followed() {
        let check = |text: &str, expected: &[Item]| {
            assert_eq!(parse([text.as_bytes()]), expected, "{text:?}");
        };
        check("event: a\nid: 7\ndata: x\n\n", &[frame("a", "x", Some("7"))]);
        check("data:x\r\ndata: y\r\n\r\n", &[frame("message", "x\ny", None)]);
        check(
            "id: 1\rdata: x\r\rdata: y\r\r",
            &[frame("message", "x", Some("1")), frame("message", "y", Some("1"))],
        );
        check(": ping\n\nretry: 250\nretry: soon\n\n", &[Item::Comment, Item::RetryMs(250)]);
        check("\u{FEFF}data: x\n\n", &[frame("message", "x", None)]);
        check("event: a\n\ndata: x\n\n", &[frame("message", "x", None)]);
        check("data\n\n", &[frame("message", "", None)]);
        check("id: 1\nid\ndata: x\n\n", &[frame("message", "x", None)]);
        check("data: no empty line follows\n", &[]);
        check("unknown: field\n\n", &[]);
    }

    #[test]
    fn a_character_in_two_pieces_stays_one() {
        let text = "data: héllo 🔔\n\n".as_bytes();
        for at in 0..text.len() {
            let (left, right) = text.split_at(at);
            assert_eq!(parse([left, right]), [frame("message", "héllo 🔔", None)], "{at}");
        }
    }

    proptest! {
        #[test]
        fn cuts_change_nothing(
            lines in prop::collection::vec("(data|event|id|retry|x)?:? ?[a-zé🔔0-9]{0,6}", 0..20),
            ends in prop::collection::vec(prop::sample::select(vec!["\n", "\r\n", "\r"]), 20),
            cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..12),
        ) {
            let text: String =
                lines.iter().zip(&ends).flat_map(|(line, end)| [line.as_str(), end]).collect();
            let bytes = text.as_bytes();
            let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut.index(bytes.len() + 1)).collect();
            cuts.extend([0, bytes.len()]);
            cuts.sort_unstable();
            let pieces = cuts.windows(2).map(|pair| &bytes[pair[0]..pair[1]]);
            prop_assert_eq!(parse(pieces), parse([bytes]));
        }
    }
}
