//! Time that passes only when it is told to: the wall clock, the monotonic clock and every wait.

use std::{
    collections::BTreeMap,
    fmt,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, Waker},
    time::Duration,
};

/// Shared by the clones of a simulated clock.
#[derive(Default)]
pub(super) struct Simulated {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// Since the clock was made.
    elapsed: Duration,
    /// Who waits, by when the wait is over and by who came first.
    waiting: BTreeMap<Key, Waker>,
    n_waits: u64,
}

type Key = (Duration, u64);

impl fmt::Debug for Simulated {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = self.lock();
        f.debug_struct("Simulated")
            .field("elapsed", &state.elapsed)
            .field("waiting", &state.waiting.len())
            .finish()
    }
}

impl Simulated {
    pub(super) fn elapsed(&self) -> Duration {
        self.lock().elapsed
    }

    /// Until the first of the waits is over.
    pub(super) fn next_wait(&self) -> Option<Duration> {
        let state = self.lock();
        let ((due, _), _) = state.waiting.first_key_value()?;
        Some(due.saturating_sub(state.elapsed))
    }

    /// Wakes those whose wait is over, in the order of their time.
    pub(super) fn advance(&self, by: Duration) {
        let over = {
            let mut state = self.lock();
            let now = state.elapsed + by;
            state.elapsed = now;
            let later = state.waiting.split_off(&(now, u64::MAX));
            std::mem::replace(&mut state.waiting, later)
        };
        over.into_values().for_each(Waker::wake);
    }

    /// Waits until so much time has passed since the clock was made.
    pub(super) fn wait(self: &Arc<Self>, due: Duration) -> Wait {
        Wait { clock: self.clone(), due, key: None }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

pub(super) struct Wait {
    clock: Arc<Simulated>,
    due: Duration,
    key: Option<Key>,
}

impl Future for Wait {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let this = &mut *self;
        let mut state = this.clock.lock();
        if state.elapsed >= this.due {
            return Poll::Ready(());
        }
        let key = *this.key.get_or_insert_with(|| {
            state.n_waits += 1;
            (this.due, state.n_waits)
        });
        state.waiting.insert(key, cx.waker().clone());
        Poll::Pending
    }
}

impl Drop for Wait {
    fn drop(&mut self) {
        if let Some(key) = &self.key {
            self.clock.lock().waiting.remove(key);
        }
    }
}
