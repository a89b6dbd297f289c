//! Wake-ups: "look again", with no data.
//!
//! Invariant: dropping every signal only adds latency, because whoever waits for one also polls. A
//! waiter registers before it looks, so that a signal between the look and the wait is not lost.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError, Weak},
};

use tokio::sync::{Notify, mpsc, watch};

use crate::id::SessionId;

/// What is told to the other nodes, if there are any.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Told {
    Due,
    Changed(SessionId),
}

/// The bells of one node. Clones ring the same bells.
#[derive(Clone, Debug)]
pub struct Signals {
    due: Arc<Notify>,
    outgoing: Arc<Notify>,
    config: watch::Sender<u64>,
    sessions: Arc<Mutex<HashMap<SessionId, Weak<watch::Sender<u64>>>>>,
    others: mpsc::Sender<Told>,
}

/// Hints for other nodes that may wait to be sent; more are dropped, which is allowed.
const TOLD_MAX: usize = 1024;

/// Watched sessions after which those that nobody watches any more are forgotten.
const SWEEP_AT: usize = 1024;

impl Signals {
    /// The bells, and what should be told to other nodes.
    pub fn new() -> (Signals, mpsc::Receiver<Told>) {
        let (others, told) = mpsc::channel(TOLD_MAX);
        let (config, _) = watch::channel(0);
        let (due, outgoing, sessions) = (Arc::default(), Arc::default(), Arc::default());
        (Signals { due, outgoing, config, sessions, others }, told)
    }

    /// A session may be due.
    pub fn due(&self) {
        self.due.notify_one();
        let _ = self.others.try_send(Told::Due);
    }

    /// As [`Signals::due`], when another node said it.
    pub fn due_elsewhere(&self) {
        self.due.notify_one();
    }

    /// Resolves when a session may be due.
    pub async fn wait_due(&self) {
        self.due.notified().await;
    }

    /// A message may be due that leaves. Other nodes need not know: one sender is enough.
    pub fn outgoing(&self) {
        self.outgoing.notify_one();
    }

    /// Resolves when a message may be due that leaves.
    pub async fn wait_outgoing(&self) {
        self.outgoing.notified().await;
    }

    /// A session's log or inbox has grown.
    pub fn changed(&self, session: &SessionId) {
        self.changed_elsewhere(session);
        let _ = self.others.try_send(Told::Changed(session.clone()));
    }

    /// As [`Signals::changed`], when another node said it.
    pub fn changed_elsewhere(&self, session: &SessionId) {
        let sender = self.lock().get(session).and_then(Weak::upgrade);
        if let Some(sender) = sender {
            sender.send_modify(|n| *n += 1);
        }
    }

    /// Registers for changes of a session. Register, look, then wait.
    pub fn watch(&self, session: &SessionId) -> Changes {
        let mut sessions = self.lock();
        if sessions.len() >= SWEEP_AT {
            sessions.retain(|_, sender| sender.strong_count() > 0);
        }
        let sender = sessions.get(session).and_then(Weak::upgrade).unwrap_or_else(|| {
            let sender = Arc::new(watch::channel(0).0);
            sessions.insert(session.clone(), Arc::downgrade(&sender));
            sender
        });
        let receiver = sender.subscribe();
        let known = *receiver.borrow();
        Changes { receiver, known, _sender: sender }
    }

    /// Configuration in the database has changed.
    pub fn configured(&self) {
        self.config.send_modify(|n| *n += 1);
    }

    pub fn watch_config(&self) -> watch::Receiver<u64> {
        self.config.subscribe()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<SessionId, Weak<watch::Sender<u64>>>> {
        self.sessions.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A registration for a session's changes.
#[derive(Debug)]
pub struct Changes {
    receiver: watch::Receiver<u64>,
    /// Changes that are no news.
    known: u64,
    _sender: Arc<watch::Sender<u64>>,
}

impl Changes {
    /// Resolves when something changed since the last call. Cancelling loses nothing.
    pub async fn wait(&mut self) {
        let known = self.known;
        // The sender lives as long as this registration.
        if let Ok(n) = self.receiver.wait_for(|&n| n > known).await {
            self.known = *n;
        }
    }

    /// One of the changes since then is the caller's own, which it need not be told of. Others, also
    /// those that came before it, are told as ever.
    pub fn made_one(&mut self) {
        self.known += 1;
    }
}

#[cfg(test)]
mod tests {
    use std::{pin::pin, time::Duration};

    use futures_util::poll;

    use super::*;
    use crate::{clock::Timestamp, id::Id};

    #[tokio::test]
    async fn a_signal_between_look_and_wait_is_not_lost() {
        let (signals, _told) = Signals::new();
        let session = SessionId::new(Timestamp(0));
        let mut changes = signals.watch(&session);
        signals.changed(&session);
        tokio::time::timeout(Duration::from_secs(5), changes.wait()).await.unwrap();
        signals.due();
        tokio::time::timeout(Duration::from_secs(5), signals.wait_due()).await.unwrap();
    }

    #[tokio::test]
    async fn whoever_makes_a_change_hears_of_those_of_others_only() {
        let (signals, _told) = Signals::new();
        let session = SessionId::new(Timestamp(0));
        let mut changes = signals.watch(&session);
        signals.changed(&session);
        changes.made_one();
        assert!(poll!(pin!(changes.wait())).is_pending());
        // Whatever the order, and however many there were.
        for n_others in [1, 3] {
            signals.changed(&session);
            (0..n_others).for_each(|_| signals.changed(&session));
            changes.made_one();
            assert!(poll!(pin!(changes.wait())).is_ready());
            assert!(poll!(pin!(changes.wait())).is_pending());
        }
    }

    #[tokio::test]
    async fn sessions_that_nobody_watches_are_forgotten() {
        let (signals, _told) = Signals::new();
        for n in 0..3 * SWEEP_AT {
            drop(signals.watch(&SessionId::new(Timestamp(n as i64))));
        }
        assert!(signals.lock().len() <= SWEEP_AT);
    }
}
