//! Text as it is being generated: a lossy broadcast on this node, never stored.
//!
//! Invariant: nothing depends on a preview. Whoever listens too slowly, or on another node, misses
//! pieces and sees the finished event in the log.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError, Weak},
};

use tokio::sync::broadcast;

use crate::id::{EventId, SessionId};

/// A piece of an event that is not in the log yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Preview {
    /// A model is asked, and these are the events that its answer may have.
    Request { thinking_id: EventId, message_id: EventId },
    /// An `agent.thinking` has begun; it has no text.
    Thinking { event_id: EventId },
    /// An `agent.message` has begun.
    Start { event_id: EventId },
    /// More of its text, for content block `index`.
    Text { event_id: EventId, index: usize, text: String },
}

/// Pieces kept for a slow listener.
const BUFFER: usize = 256;

/// The broadcasts of one node. Clones are the same broadcasts.
#[derive(Clone, Debug, Default)]
pub struct Previews {
    sessions: Arc<Mutex<HashMap<SessionId, Weak<Listeners>>>>,
}

type Listeners = broadcast::Sender<Preview>;

impl Previews {
    pub fn send(&self, session: &SessionId, preview: Preview) {
        let sender = self.lock().get(session).and_then(Weak::upgrade);
        if let Some(sender) = sender {
            let _ = sender.send(preview);
        }
    }

    pub fn listen(&self, session: &SessionId) -> Listener {
        let mut sessions = self.lock();
        sessions.retain(|_, sender| sender.strong_count() > 0);
        let sender = sessions.get(session).and_then(Weak::upgrade).unwrap_or_else(|| {
            let sender = Arc::new(broadcast::channel(BUFFER).0);
            sessions.insert(session.clone(), Arc::downgrade(&sender));
            sender
        });
        Listener { receiver: sender.subscribe(), _sender: sender }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<SessionId, Weak<Listeners>>> {
        self.sessions.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[derive(Debug)]
pub struct Listener {
    receiver: broadcast::Receiver<Preview>,
    _sender: Arc<Listeners>,
}

impl Listener {
    /// The next piece; `None` when pieces were missed. Cancelling loses nothing.
    pub async fn next(&mut self) -> Option<Preview> {
        self.receiver.recv().await.ok()
    }
}
