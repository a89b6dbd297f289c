//! Summing up a conversation that comes near the end of the model's window.
//!
//! The model itself is asked, with all that was said, and its summary takes the place of that from the
//! next request on. The log keeps everything: only what the model is told changes.

use serde_json::json;

use super::{Stopped, Turn};
use crate::{
    domain::{
        conversation::{Completion, Message, Request, UserPart},
        event::{Block, EventBody, SessionError, plain_text},
    },
    id::EventId,
    store::Beside,
};

const ASK: &str = "This conversation is about to exceed what you can read at once. Do not go on with \
    the task now and call no tool. Write a summary instead, from which you can go on without having \
    read anything else: the task as it was given, what was found out, what was done and where \
    (paths, ids, commands), what did not work, and what is to be done next.";

/// What is asked instead of an answer.
pub(super) fn ask_for_summary(request: &mut Request) {
    let ask = UserPart::Content(Block::text(ASK));
    match request.messages.last_mut() {
        Some(Message::User { parts }) => parts.push(ask),
        Some(Message::Assistant { .. }) | None => {
            request.messages.push(Message::User { parts: vec![ask] });
        }
    }
}

impl Turn<'_> {
    /// The end of the request, and that the summary stands for what was said, in one append.
    pub(super) async fn journal_summary(
        &mut self,
        start_id: EventId,
        completion: Completion,
    ) -> Result<(), Stopped> {
        let mut summary = plain_text(&completion.content);
        let end = self.request_end(start_id, Some(false), completion.spent);
        let after = match summary.trim().is_empty() {
            false => {
                // The results that named them are summed up too.
                if let Some(doubts) = self.doubts_to_keep() {
                    summary = format!("{summary}\n\nYour calls by their ids: {doubts}");
                }
                let mut compacted = self.runtime.event(EventBody::ContextCompacted);
                compacted.private = Some(json!({"summary": summary}));
                tracing::info!(chars = summary.len(), "a conversation was summed up");
                compacted
            }
            true => {
                let message = "the conversation is too long, and the model gave no summary of it";
                let error = SessionError::exhausted("compaction_limit_reached_error", message);
                self.runtime.event(EventBody::SessionError { error })
            }
        };
        let beside = Beside { asked: true, ..Beside::default() };
        self.append_with(vec![end, after], completion.spent, beside).await
    }
}
