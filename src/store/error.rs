//! What can go wrong with storage, by what a caller does about it.

use crate::domain::Problem;

pub type Result<T> = std::result::Result<T, Error>;

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("there is no such thing")]
    NotFound,
    /// What was given cannot be; found inside the transaction that needed the stored state.
    #[error("{0}")]
    Invalid(Problem),
    /// The state of the thing forbids it; the text says what to change.
    #[error("{0}")]
    Conflict(String),
    /// A bound was reached; the text says which. Nothing was written; it may work later.
    #[error("{0}")]
    Full(String),
    /// The lease is another worker's now: stop, and change nothing any more.
    #[error("the lease was lost")]
    Fenced,
    /// A constraint of the schema said no. Verbs turn the ones they expect into something better.
    #[error("a constraint was violated")]
    Constraint(String),
    /// Nothing was written; it may work later.
    #[error("the database is not available")]
    Unavailable(#[source] anyhow::Error),
    /// The connection broke during the commit: it may or may not have happened.
    #[error("the result of the commit is unknown")]
    CommitUnknown(#[source] anyhow::Error),
    /// What is stored cannot be read by this version.
    #[error("stored data cannot be read")]
    Corrupt(#[source] anyhow::Error),
    #[error("bug: {0}")]
    Bug(&'static str),
}

impl Error {
    pub(crate) fn unavailable(error: impl Into<anyhow::Error>) -> Error {
        Error::Unavailable(error.into())
    }

    pub(crate) fn corrupt(error: impl Into<anyhow::Error>) -> Error {
        Error::Corrupt(error.into())
    }

    /// The same error for another caller of the same failed batch.
    pub(crate) fn again(&self) -> Error {
        let detail = || anyhow::anyhow!(self.detail());
        match self {
            Error::NotFound => Error::NotFound,
            Error::Invalid(problem) => Error::Invalid(problem.clone()),
            Error::Conflict(text) => Error::Conflict(text.clone()),
            Error::Full(text) => Error::Full(text.clone()),
            Error::Fenced => Error::Fenced,
            Error::Constraint(text) => Error::Constraint(text.clone()),
            Error::Unavailable(_) => Error::Unavailable(detail()),
            Error::CommitUnknown(_) => Error::CommitUnknown(detail()),
            Error::Corrupt(_) => Error::Corrupt(detail()),
            Error::Bug(text) => Error::Bug(text),
        }
    }

    /// What failed, in a word, if it was no fault of the caller and no loss of a race.
    pub(crate) fn failure(&self) -> Option<&'static str> {
        match self {
            Error::Unavailable(_) => Some("unavailable"),
            Error::CommitUnknown(_) => Some("commit_unknown"),
            Error::Corrupt(_) => Some("corrupt"),
            Error::Bug(_) => Some("bug"),
            Error::NotFound
            | Error::Invalid(_)
            | Error::Conflict(_)
            | Error::Full(_)
            | Error::Fenced
            | Error::Constraint(_) => None,
        }
    }

    /// The whole chain in one line, for the log.
    pub fn detail(&self) -> String {
        match self {
            Error::Unavailable(source) | Error::CommitUnknown(source) | Error::Corrupt(source) => {
                format!("{self}: {source:#}")
            }
            Error::Constraint(text) => format!("{self}: {text}"),
            Error::NotFound
            | Error::Invalid(_)
            | Error::Conflict(_)
            | Error::Full(_)
            | Error::Fenced
            | Error::Bug(_) => self.to_string(),
        }
    }
}
