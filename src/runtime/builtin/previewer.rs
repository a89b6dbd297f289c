//! Text as it comes from a model, told to whoever looks on.
//!
//! Invariant: a preview names the id that its event will have in the log, and nothing is told of what
//! is for nobody else.

use super::{Lease, Runtime};
use crate::{id::EventId, model::OnText, preview::Preview};

/// The ids that the events of an answer will have, if it has them.
pub(super) struct AnswerIds {
    pub(super) thinking: EventId,
    pub(super) message: EventId,
}

/// Broadcasts text as it comes.
pub(super) struct Previewer<'a> {
    runtime: &'a Runtime,
    session: &'a Lease,
    ids: &'a AnswerIds,
    has_thought: bool,
    has_spoken: bool,
    /// Whether it is nobody else's.
    is_silent: bool,
}

impl<'a> Previewer<'a> {
    pub(super) fn new(
        runtime: &'a Runtime,
        session: &'a Lease,
        ids: &'a AnswerIds,
        is_silent: bool,
    ) -> Previewer<'a> {
        let (has_thought, has_spoken) = (false, false);
        let previewer = Previewer { runtime, session, ids, has_thought, has_spoken, is_silent };
        let (thinking_id, message_id) = (ids.thinking.clone(), ids.message.clone());
        previewer.send(Preview::Request { thinking_id, message_id });
        previewer
    }

    fn send(&self, preview: Preview) {
        if !self.is_silent {
            self.runtime.previews.send(&self.session.session_id, preview);
        }
    }
}

impl OnText for Previewer<'_> {
    fn text(&mut self, index: usize, piece: &str) {
        let event_id = self.ids.message.clone();
        if !self.has_spoken {
            self.has_spoken = true;
            self.send(Preview::Start { event_id: event_id.clone() });
        }
        self.send(Preview::Text { event_id, index, text: piece.to_owned() });
    }

    fn thinking(&mut self) {
        if !self.has_thought {
            self.has_thought = true;
            self.send(Preview::Thinking { event_id: self.ids.thinking.clone() });
        }
    }
}
