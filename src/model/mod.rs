//! Models: whoever answers a conversation.
//!
//! One closed enum, so that the runtime treats every model alike. Invariant: a model gets a
//! [`Request`] and nothing else, whatever it is; its partial text is only ever a preview. Left out:
//! retries of a whole turn and the journal, which are the runtime's.

mod rehearsal;

use crate::domain::{
    conversation::{Completion, Request},
    model::{ModelRef, Provider},
};

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Asking again would not help.
    #[error("{message}")]
    Failed {
        /// An error type of the Managed Agents API, such as `model_request_failed_error`.
        kind: &'static str,
        message: String,
    },
}

/// Takes pieces of text as they come: the index of the content block and the piece.
pub trait OnText: Send {
    fn text(&mut self, index: usize, piece: &str);
}

/// The models that this server can reach.
#[derive(Clone, Debug, Default)]
pub struct Models;

impl Models {
    /// Asks a model. Dropping the future cancels the request.
    pub async fn complete(
        &self,
        model: &str,
        request: &Request,
        on_text: &mut dyn OnText,
    ) -> Result<Completion, Error> {
        let model = ModelRef::parse(model, false);
        match model.provider {
            Provider::Rehearsal => Ok(rehearsal::complete(request, on_text).await),
            Provider::Anthropic | Provider::OpenAi => Err(Error::Failed {
                kind: "model_request_failed_error",
                message: format!(
                    "no provider is set up for the model `{}`; the built-in `{}` needs none",
                    model.id,
                    crate::domain::model::REHEARSAL
                ),
            }),
        }
    }
}
