//! Messages in a stream: each is shown twice, waiting and taken.
//!
//! Invariant: whatever comes after the stream opened is shown waiting before it is shown taken, in the
//! order in which it came, also when a worker was faster than the stream. Positions of an inbox have
//! no gaps, and messages are taken in their order, so counting those in the log says which they are.

use bytes::Bytes;

use super::frame;
use crate::{
    domain::event::{Event, EventBody},
    store::LogEnd,
};

#[derive(Debug)]
pub(super) struct Inbox {
    /// The end of the log when the stream opened: what stands before it came before.
    opened_at: i64,
    /// Position of the last message that is in the log, as far as it was looked at.
    taken: i64,
    /// Position of the last message that was shown waiting, or was there before.
    shown: i64,
}

impl Inbox {
    pub(super) fn new(end: &LogEnd) -> Inbox {
        Inbox { opened_at: end.last_seq, taken: end.last_taken, shown: end.last_position }
    }

    pub(super) fn shown(&self) -> i64 {
        self.shown
    }

    /// Nothing up to this position is left to be shown.
    pub(super) fn skip_to(&mut self, position: i64) {
        self.shown = self.shown.max(position);
    }

    /// What is to be shown waiting before these events of the log are shown. `is_whole` is whether
    /// nothing of the log is missing behind them that was taken before `waiting` was looked at.
    pub(super) fn arrived(
        &mut self,
        waiting: &[(i64, Event)],
        log: &[Event],
        is_whole: bool,
    ) -> Vec<Bytes> {
        let mut frames = Vec::new();
        let opened_at = self.opened_at;
        for event in log.iter().filter(|event| is_message(event, opened_at)) {
            self.taken += 1;
            if self.taken > self.shown {
                self.shown = self.taken;
                if is_shown_once(event) {
                    continue;
                }
                let waiting = Event { seq: None, processed_at: None, ..event.clone() };
                frames.push(frame::event(&waiting));
            }
        }
        for (position, event) in waiting {
            if *position <= self.shown {
                continue;
            }
            // The log has one before it, behind what was read.
            if *position > self.shown + 1 && !is_whole {
                break;
            }
            self.shown = *position;
            if !is_shown_once(event) {
                frames.push(frame::event(event));
            }
        }
        frames
    }
}

/// Whether it was in the inbox while the stream was open. An operator's word that came with a result
/// never was, and has nothing private.
fn is_message(event: &Event, opened_at: i64) -> bool {
    let from_inbox = match event.body {
        EventBody::UserMessage { .. } | EventBody::UserDefineOutcome { .. } => true,
        EventBody::SystemMessage { .. } => event.private.is_some(),
        _ => false,
    };
    from_inbox && event.seq.is_some_and(|seq| seq > opened_at)
}

/// What is defined counts as processed on receipt, so there is nothing to be shown twice.
fn is_shown_once(event: &Event) -> bool {
    matches!(event.body, EventBody::UserDefineOutcome { .. })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        clock::Timestamp,
        domain::event::Block,
        id::{EventId, Id},
    };

    fn message(seq: Option<i64>) -> Event {
        let content = vec![Block::text("hi")];
        Event {
            id: EventId::new(Timestamp(0)),
            seq,
            body: EventBody::UserMessage { content, origin: None },
            private: None,
            processed_at: seq.map(|_| Timestamp(0)),
        }
    }

    fn opened() -> Inbox {
        let (last_seq, last_position, last_taken, terminated) = (4, 3, 2, false);
        Inbox::new(&LogEnd { last_seq, last_position, last_taken, terminated })
    }

    #[test]
    fn a_fast_worker_hides_no_message() {
        let mut inbox = opened();
        // The third one waited before; the fourth came and was taken, the fifth waits.
        let log = [message(Some(5)), message(Some(6))];
        let waiting = [(5, message(None))];
        let frames = inbox.arrived(&waiting, &log, true);
        let of =
            |event: &Event| frame::event(&Event { seq: None, processed_at: None, ..event.clone() });
        assert_eq!(frames, [of(&log[1]), of(&waiting[0].1)]);
        assert_eq!(inbox.arrived(&waiting, &[], true), Vec::<Bytes>::new());
        assert_eq!(inbox.arrived(&[], &[message(Some(7))], true).len(), 0, "it was shown waiting");
        assert_eq!(inbox.arrived(&[], &[message(Some(8))], true).len(), 1);
    }

    #[test]
    fn nothing_is_shown_before_what_came_before_it() {
        let mut inbox = opened();
        let waiting = [(5, message(None))];
        assert_eq!(inbox.arrived(&waiting, &[message(Some(5))], false).len(), 0);
        assert_eq!(inbox.arrived(&waiting, &[message(Some(6))], true).len(), 2);
        // What is replayed was taken before.
        assert_eq!(opened().arrived(&[], &[message(Some(4))], true).len(), 0);
    }
}
