//! Server-sent events out of bytes as they come.
//!
//! Invariant: bytes become text a whole line at a time, so a character that two chunks share is
//! never torn; a line or an event beyond its bound is an error and not memory. Left out: ids and
//! retry times, which are for connections that are made again.

/// Bytes of one event at most. A whole answer may come as one.
const EVENT_BYTES_MAX: usize = 16 * 1024 * 1024;

/// The data of one event. The formats here repeat its name inside.
pub(super) type Data = String;

/// Why the bytes are no stream of events.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Broken {
    NotUtf8,
    TooLong,
}

#[derive(Debug, Default)]
pub(super) struct Decoder {
    /// A line without its end.
    line: Vec<u8>,
    /// The `data` lines of an event without its end.
    data: Option<String>,
    /// Whether the last byte was a carriage return, which a line feed may complete.
    after_return: bool,
    begun: bool,
}

impl Decoder {
    /// Takes in a chunk and hands out the events that it completes.
    pub(super) fn push(&mut self, mut bytes: &[u8]) -> Result<Vec<Data>, Broken> {
        let mut events = Vec::new();
        while let Some(end) = bytes.iter().position(|byte| matches!(byte, b'\n' | b'\r')) {
            let (line, rest) = (&bytes[..end], &bytes[end + 1..]);
            let is_second_half = bytes[end] == b'\n' && self.after_return && end == 0;
            self.after_return = bytes[end] == b'\r';
            bytes = rest;
            if !is_second_half {
                self.extend(line)?;
                events.extend(self.end_line()?);
            }
        }
        if !bytes.is_empty() {
            self.after_return = false;
            self.extend(bytes)?;
        }
        Ok(events)
    }

    /// What the end of the stream completes. The standard drops an event without the empty line at
    /// its end; there are servers that leave that line out.
    pub(super) fn finish(&mut self) -> Result<Option<Data>, Broken> {
        if !self.line.is_empty() {
            let event = self.end_line()?;
            if event.is_some() {
                return Ok(event);
            }
        }
        Ok(self.data.take())
    }

    fn extend(&mut self, bytes: &[u8]) -> Result<(), Broken> {
        let held = self.line.len() + self.data.as_ref().map_or(0, String::len);
        if held + bytes.len() > EVENT_BYTES_MAX {
            return Err(Broken::TooLong);
        }
        self.line.extend_from_slice(bytes);
        Ok(())
    }

    fn end_line(&mut self) -> Result<Option<Data>, Broken> {
        let bytes = std::mem::take(&mut self.line);
        let line = std::str::from_utf8(&bytes).map_err(|_| Broken::NotUtf8)?;
        let line = if self.begun { line } else { line.trim_start_matches('\u{feff}') };
        self.begun = true;
        if line.is_empty() {
            return Ok(self.data.take());
        }
        let (field, value) = line.split_once(':').unwrap_or((line, ""));
        if field == "data" {
            let value = value.strip_prefix(' ').unwrap_or(value);
            match &mut self.data {
                Some(data) => {
                    data.push('\n');
                    data.push_str(value);
                }
                None => self.data = Some(value.to_owned()),
            }
        }
        Ok(None)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn decode(chunks: &[&[u8]]) -> Vec<Data> {
        let mut decoder = Decoder::default();
        let mut events = Vec::new();
        for chunk in chunks {
            events.extend(decoder.push(chunk).unwrap());
        }
        events.extend(decoder.finish().unwrap());
        events
    }

    #[test]
    fn events_end_with_an_empty_line_of_any_kind() {
        for end in ["\n", "\r\n", "\r"] {
            let text =
                ["\u{feff}event: a", ": hello", "data: 1", "data:2", "", "data", "", "data:x"];
            assert_eq!(decode(&[text.join(end).as_bytes()]), ["1\n2", "", "x"], "{end:?}");
        }
        assert_eq!(decode(&[b": nothing but a comment\n\n", b"\n\n"]), Vec::<String>::new());
    }

    #[test]
    fn what_is_no_text_or_never_ends_is_refused() {
        assert_eq!(Decoder::default().push(b"data: \xff\n"), Err(Broken::NotUtf8));
        let mut decoder = Decoder::default();
        let chunk = vec![b'x'; EVENT_BYTES_MAX / 2];
        assert_eq!(decoder.push(&chunk), Ok(Vec::new()));
        assert_eq!(decoder.push(&chunk), Ok(Vec::new()));
        assert_eq!(decoder.push(b"x"), Err(Broken::TooLong));
    }

    proptest! {
        #[test]
        fn the_same_events_come_however_the_bytes_are_cut(
            texts in prop::collection::vec("[^\r\n]{0,12}", 1..5),
            end in prop::sample::select(vec!["\n", "\r\n", "\r"]),
            sizes in prop::collection::vec(1_usize..5, 1..40),
        ) {
            let stream: String =
                texts.iter().map(|text| format!("event: e{end}data: {text}{end}{end}")).collect();
            let mut rest = stream.as_bytes();
            let mut chunks = Vec::new();
            for size in sizes.iter().cycle() {
                if rest.is_empty() {
                    break;
                }
                let (chunk, after) = rest.split_at(rest.len().min(*size));
                chunks.push(chunk);
                rest = after;
            }
            prop_assert_eq!(decode(&chunks), texts);
        }
    }
}
