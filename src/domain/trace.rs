//! Which trace a request belongs to, in the words of W3C Trace Context: what a sender, this server's
//! logs and a model server write down under one id.
//!
//! Invariant: a value is valid, whatever came. A header that is not is ignored, as the standard asks,
//! and a trace of our own begins in its place. `tracestate` is not taken up: it is other vendors'.

use std::{fmt, str::FromStr};

use super::text::push_hex;
use crate::{clock::Timestamp, id};

/// A place in a trace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TraceContext {
    trace_id: u128,
    span_id: u64,
    flags: u8,
}

/// Recorded by the caller, and with a random id: the bits that are passed on.
const FLAGS_KNOWN: u8 = 0b11;

/// Not a valid `traceparent`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Invalid;

impl TraceContext {
    /// A trace that begins here. Whether anybody records it is for others to say.
    pub fn new(now: Timestamp) -> TraceContext {
        TraceContext { trace_id: id::random_bits(now), span_id: new_span(now), flags: 0 }
    }

    /// The same trace, one step further.
    pub fn child(self, now: Timestamp) -> TraceContext {
        TraceContext { span_id: new_span(now), ..self }
    }

    /// The 32 digits that a trace is looked for by.
    pub fn trace_id(self) -> String {
        let mut text = String::with_capacity(32);
        push_hex(&mut text, &self.trace_id.to_be_bytes());
        text
    }

    /// The `traceparent` that says it.
    pub fn to_text(self) -> String {
        let mut text = String::with_capacity(55);
        text.push_str("00-");
        push_hex(&mut text, &self.trace_id.to_be_bytes());
        text.push('-');
        push_hex(&mut text, &self.span_id.to_be_bytes());
        text.push('-');
        push_hex(&mut text, &[self.flags]);
        text
    }
}

/// The random end of the bits of an id.
fn new_span(now: Timestamp) -> u64 {
    u64::try_from(id::random_bits(now) & u128::from(u64::MAX)).unwrap_or(1)
}

impl fmt::Display for TraceContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.to_text())
    }
}

impl FromStr for TraceContext {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<TraceContext, Invalid> {
        let mut parts = text.splitn(4, '-');
        let mut next = || parts.next().ok_or(Invalid);
        let (version, trace_id, span_id, rest) = (next()?, next()?, next()?, next()?);
        // A later version may have more behind the flags, this one has not.
        let (flags, more) = rest.split_at_checked(2).ok_or(Invalid)?;
        let version = hex(version, 2)?;
        if version == 0xff || !more.is_empty() && (version == 0 || !more.starts_with('-')) {
            return Err(Invalid);
        }
        let (trace_id, span_id) = (hex(trace_id, 32)?, hex(span_id, 16)?);
        let (span_id, flags) = (u64::try_from(span_id), u8::try_from(hex(flags, 2)?));
        match (trace_id, span_id, flags) {
            (0, _, _) | (_, Ok(0) | Err(_), _) | (_, _, Err(_)) => Err(Invalid),
            (trace_id, Ok(span_id), Ok(flags)) => {
                Ok(TraceContext { trace_id, span_id, flags: flags & FLAGS_KNOWN })
            }
        }
    }
}

/// So many hexadecimal digits, in lower case.
fn hex(text: &str, n_digits: usize) -> Result<u128, Invalid> {
    let is_digit = |byte: u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
    if text.len() != n_digits || !text.bytes().all(is_digit) {
        return Err(Invalid);
    }
    u128::from_str_radix(text, 16).map_err(|_| Invalid)
}

#[cfg(test)]
mod tests {
    use super::*;

    const GIVEN: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

    #[test]
    fn what_is_valid_is_taken_up_and_said_again() {
        let check = |text: &str, said: &str| {
            assert_eq!(text.parse::<TraceContext>().map(|it| it.to_string()), Ok(said.to_owned()));
        };
        check(GIVEN, GIVEN);
        check(&GIVEN.replace("-01", "-03"), &GIVEN.replace("-01", "-03"));
        // Bits that nobody knows are not passed on.
        check(&GIVEN.replace("-01", "-ff"), &GIVEN.replace("-01", "-03"));
        // Later versions are read as far as this one goes.
        check(&format!("cc{}-what-comes", &GIVEN[2..]), GIVEN);
        check(&format!("cc{}", &GIVEN[2..]), GIVEN);
    }

    #[test]
    fn what_is_not_valid_is_nothing() {
        for text in [
            "",
            "00",
            &GIVEN.to_uppercase(),
            &GIVEN[..54],
            &format!("{GIVEN}-"),
            &format!("{GIVEN}0"),
            &format!("ff{}", &GIVEN[2..]),
            &format!("cc{}0", &GIVEN[2..]),
            &format!("0x{}", &GIVEN[2..]),
            &format!(" {GIVEN}"),
            &GIVEN.replace("0af7651916cd43dd8448eb211c80319c", &"0".repeat(32)),
            &GIVEN.replace("b7ad6b7169203331", &"0".repeat(16)),
            &GIVEN.replace("0af7", "+af7"),
            &GIVEN.replace("-01", "-0g"),
            &GIVEN.replace("-01", "-é"),
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331",
        ] {
            assert_eq!(text.parse::<TraceContext>(), Err(Invalid), "{text:?}");
        }
    }

    #[test]
    fn a_step_keeps_the_trace_and_has_a_span_of_its_own() {
        let now = Timestamp(1_800_000_000_000);
        let given: TraceContext = GIVEN.parse().unwrap();
        let child = given.child(now);
        assert_eq!(child.trace_id(), "0af7651916cd43dd8448eb211c80319c");
        assert!(child.span_id != given.span_id && child.span_id != given.child(now).span_id);
        assert_eq!(child.to_string().parse(), Ok(child));
        let (one, two) = (TraceContext::new(now), TraceContext::new(now));
        assert_ne!(one.trace_id, two.trace_id);
        assert_eq!(one.to_string().parse(), Ok(one));
    }
}
