//! Why a command did not do what it was asked to, as it is told to a person.
//!
//! First what failed and what the server said, then the request's id, then a hint on what to do. The
//! server's words are made harmless for a terminal here, once.

use std::{
    fmt,
    io::{self, Write},
};

use super::{Exit, style::Style};
use crate::domain::text::printable;

pub(super) type Result<T> = std::result::Result<T, Failure>;

#[derive(Debug)]
pub(super) enum Failure {
    /// Nobody reads our output any more: `bellpull deliveries | head`.
    ClosedPipe,
    Told(Box<Told>),
}

#[derive(Debug)]
pub(super) struct Told {
    pub(super) exit: Exit,
    /// What was tried, as it follows "could not"; empty for wrong use.
    what: String,
    message: String,
    pub(super) status: Option<u16>,
    request_id: Option<String>,
    hint: Option<String>,
    /// A retry of the same may succeed.
    pub(super) is_passing: bool,
}

impl Failure {
    /// Something was tried and failed.
    pub(super) fn new(what: impl Into<String>, message: impl Into<String>) -> Failure {
        Failure::Told(Box::new(Told {
            exit: Exit::Failed,
            what: what.into(),
            message: message.into(),
            status: None,
            request_id: None,
            hint: None,
            is_passing: false,
        }))
    }

    /// What was asked for makes no sense; nothing was tried.
    pub(super) fn wrong(message: impl Into<String>) -> Failure {
        let failure = Failure::new("", message);
        failure.with(|told| told.exit = Exit::WrongUse)
    }

    pub(super) fn passing(self) -> Failure {
        self.with(|told| told.is_passing = true)
    }

    pub(super) fn status(self, status: u16) -> Failure {
        self.with(|told| told.status = Some(status))
    }

    pub(super) fn request_id(self, id: Option<String>) -> Failure {
        self.with(|told| told.request_id = id)
    }

    /// Sets the hint; the one that is set last knows most.
    pub(super) fn hint(self, hint: impl Into<String>) -> Failure {
        self.with(|told| told.hint = Some(hint.into()))
    }

    pub(super) fn has_status(&self, wanted: u16) -> bool {
        matches!(self, Failure::Told(told) if told.status == Some(wanted))
    }

    pub(super) fn is_passing(&self) -> bool {
        matches!(self, Failure::Told(told) if told.is_passing)
    }

    fn with(mut self, change: impl FnOnce(&mut Told)) -> Failure {
        if let Failure::Told(told) = &mut self {
            change(told);
        }
        self
    }

    /// Tells it on `err`, and says what the process exits with.
    pub(super) fn report(&self, err: &mut dyn Write, style: Style) -> Exit {
        let Failure::Told(told) = self else {
            return Exit::Fine;
        };
        // Where even this cannot be written there is nobody to tell.
        let _ = told.write(err, style);
        told.exit
    }
}

impl fmt::Display for Failure {
    /// In one line, for a remark.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Failure::ClosedPipe => f.write_str("the output was closed"),
            Failure::Told(told) => f.write_str(&printable(&told.message)),
        }
    }
}

impl Told {
    fn write(&self, err: &mut dyn Write, style: Style) -> io::Result<()> {
        let message = printable(&self.message);
        let label = style.error("error:");
        match self.what.as_str() {
            "" => writeln!(err, "{label} {message}")?,
            what => writeln!(err, "{label} could not {what}: {message}")?,
        }
        if let Some(id) = &self.request_id {
            writeln!(err, "  request {}", printable(id))?;
        }
        if let Some(hint) = &self.hint {
            writeln!(err, "{} {}", style.hint("hint:"), printable(hint))?;
        }
        Ok(())
    }
}

impl From<io::Error> for Failure {
    /// Everything that commands write goes to a person or a pipe.
    fn from(error: io::Error) -> Failure {
        match error.kind() {
            io::ErrorKind::BrokenPipe => Failure::ClosedPipe,
            _ => Failure::new("write the output", error.to_string()),
        }
    }
}

#[cfg(test)]
mod tests {
    use expect_test::{Expect, expect};

    use super::*;

    fn check(failure: &Failure, exit: Exit, expected: &Expect) {
        let mut err = Vec::new();
        assert_eq!(failure.report(&mut err, Style { color: false }), exit);
        expected.assert_eq(&String::from_utf8(err).unwrap());
    }

    #[test]
    fn failures_say_what_then_why_then_what_to_do() {
        let failure = Failure::new("pause the source `stripe`", "it is declared in the file")
            .status(409)
            .request_id(Some("req_1".to_owned()))
            .hint("change the file instead");
        check(
            &failure,
            Exit::Failed,
            &expect![[r#"
            error: could not pause the source `stripe`: it is declared in the file
              request req_1
            hint: change the file instead
        "#]],
        );
        check(
            &Failure::wrong("`--data` is not JSON"),
            Exit::WrongUse,
            &expect![[r#"
            error: `--data` is not JSON
        "#]],
        );
    }

    #[test]
    fn a_server_cannot_write_on_the_terminal_through_an_error() {
        check(
            &Failure::new("x", "\u{1b}[2Jgone"),
            Exit::Failed,
            &expect![[r#"
            error: could not x: \u{1b}[2Jgone
        "#]],
        );
    }

    #[test]
    fn a_closed_pipe_is_quiet() {
        let failure = Failure::from(io::Error::from(io::ErrorKind::BrokenPipe));
        check(&failure, Exit::Fine, &expect![""]);
    }
}
