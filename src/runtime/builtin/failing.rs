//! Model requests that fail: tried again later, or given up.

use std::{
    hash::{DefaultHasher, Hash, Hasher},
    ops::ControlFlow,
    time::Duration,
};

use serde_json::json;

use super::{Stopped, Turn};
use crate::{
    domain::event::{EventBody, SessionError},
    id::{EventId, SessionId},
    model,
    store::Beside,
};

impl Turn<'_> {
    /// No answer. The turn is put off where another try may help: the next one is begun by whoever
    /// claims the session then, from the log, and meanwhile it holds no worker.
    pub(super) async fn journal_failure(
        &mut self,
        start_id: EventId,
        error: model::Error,
        took: Duration,
    ) -> Result<ControlFlow<()>, Stopped> {
        let end = self.request_end(start_id, Some(true), error.spent);
        let n_failures = self.transcript.n_failures + 1;
        let lost = self.transcript.lost + took;
        let jitter = jitter(&self.lease.session_id, n_failures);
        let pause = self.runtime.models.pause(&error, n_failures, lost, jitter);
        tracing::warn!(error = %error, n_failures, ?pause, "a model request failed");
        let (kind, mut message, spent) = (error.kind.as_str(), error.message, error.spent);
        let pause = match pause {
            Ok(pause) => pause,
            Err(why) => {
                if why != model::GivenUp::Useless {
                    message = format!("{message} ({why})");
                }
                let error = SessionError::exhausted(kind, message);
                let event = self.runtime.event(EventBody::SessionError { error });
                let beside = Beside { asked: true, ..Beside::default() };
                self.append_with(vec![end, event], spent, beside).await?;
                return Ok(ControlFlow::Continue(()));
            }
        };
        if self.cancel.is_cancelled() {
            return Err(Stopped::Cancelled);
        }
        let error = SessionError::retrying(kind, message);
        let mut rescheduled = self.runtime.event(EventBody::StatusRescheduled);
        rescheduled.private = Some(json!({"lost_ms": whole_ms(took + pause)}));
        let events = vec![end, self.runtime.event(EventBody::SessionError { error }), rescheduled];
        let active = self.active();
        self.runtime.store.reschedule(self.lease, events, spent, pause, active).await?;
        self.runtime.store.metrics().turn_put_off();
        self.runtime.signals.changed(&self.lease.session_id);
        // Not now, but perhaps before the worker would look by itself.
        self.runtime.signals.due();
        Ok(ControlFlow::Break(()))
    }
}

/// From 0 to 1, another one for each session and each failure. It follows from them, so that the same
/// log waits for the same time wherever it is worked on.
fn jitter(session: &SessionId, n_failures: u32) -> f64 {
    let mut hasher = DefaultHasher::new();
    (session, n_failures).hash(&mut hasher);
    (hasher.finish() >> 32) as f64 / f64::from(u32::MAX)
}

fn whole_ms(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{clock::Timestamp, id::Id};

    #[test]
    fn sessions_that_fail_together_come_back_apart() {
        let sessions: Vec<_> = (0..1000).map(|n| SessionId::new(Timestamp(n))).collect();
        let mut tenths = [0; 10];
        for session in &sessions {
            let fraction = jitter(session, 1);
            assert_eq!(fraction, jitter(session, 1));
            assert_ne!(fraction, jitter(session, 2));
            tenths[((fraction * 10.0) as usize).min(9)] += 1;
        }
        assert!(tenths.iter().all(|n| (50..200).contains(n)), "{tenths:?}");
    }
}
