//! Whoever does the work that is queued: threads, each with a connection that it drives by itself. It
//! sends a statement and sleeps until the answer wakes it. Where tasks of a common runtime drive the
//! connections, each statement wakes other threads on its way there and back.
//!
//! There are no more hands than were needed at once so far.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    thread,
};

use tokio::sync::oneshot;

use super::{
    super::{
        Flush, Lane,
        queue::{Queue, submit_then},
    },
    AnyTx,
    connection::{Access, Connection},
};
use crate::store::{Error, Result, lock};

/// Hands that share a queue. They end when it is dropped, after what waits.
pub(super) struct Crew {
    name: &'static str,
    queue: Arc<Queue>,
    access: Arc<Access>,
    n_hands_max: usize,
    n_hands: Arc<Mutex<usize>>,
}

impl Drop for Crew {
    fn drop(&mut self) {
        self.queue.close();
    }
}

/// Work that was asked for: of the hand that would begin it and the caller who would wait no longer, the
/// first one has it.
#[derive(Default)]
struct Claim(AtomicBool);

impl Claim {
    fn take(&self) -> bool {
        !self.0.swap(true, Ordering::AcqRel)
    }
}

impl Crew {
    pub(super) fn new(name: &'static str, n_hands_max: usize, access: &Arc<Access>) -> Arc<Crew> {
        let (queue, n_hands) = (Arc::default(), Arc::default());
        Arc::new(Crew { name, queue, access: access.clone(), n_hands_max, n_hands })
    }

    /// Runs a closure with a connection. It goes on to its end when the caller stops waiting, and is not
    /// begun once the caller has waited for a connection as long as for a statement.
    pub(super) async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut AnyTx<'_>) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let busy = || Error::unavailable(anyhow::anyhow!("every connection is busy"));
        let claim = Arc::new(Claim::default());
        let begun = claim.clone();
        let work = move |tx: &mut AnyTx<'_>| if begun.take() { work(tx) } else { Err(busy()) };
        let (reply, mut answer) = oneshot::channel();
        let then = move |result| drop(reply.send(result));
        if submit_then(&self.queue, Lane::Work, Flush::Now, work, then) {
            self.hire();
        }
        let answer = match tokio::time::timeout(self.access.patience, &mut answer).await {
            Ok(answer) => answer,
            Err(_) if claim.take() => return Err(busy()),
            Err(_) => answer.await,
        };
        answer.unwrap_or(Err(Error::Bug("the database thread has ended")))
    }

    /// One more hand, if there may be more.
    fn hire(&self) {
        let mut n_hands = lock(&self.n_hands);
        if *n_hands == self.n_hands_max {
            return;
        }
        let (queue, access, hands) =
            (self.queue.clone(), self.access.clone(), self.n_hands.clone());
        let name = format!("{}-{n_hands}", self.name);
        // Where there is none, what waits is left to the others, and to those who ask next.
        let work = move || match Connection::new(access) {
            Ok(connection) => work(&queue, connection),
            Err(error) => {
                *lock(&hands) -= 1;
                tracing::warn!(%error, "nothing left for one more connection");
            }
        };
        match thread::Builder::new().name(name).spawn(work) {
            Ok(_) => *n_hands += 1,
            Err(error) => tracing::warn!(%error, "no thread for one more connection"),
        }
    }

    pub(super) fn close(&self) {
        self.queue.close();
    }
}

/// Until the queue is closed and empty.
fn work(queue: &Queue, mut connection: Connection) {
    while let Some(operations) = queue.take(1, 1) {
        operations.into_iter().for_each(|operation| connection.run(operation));
    }
}
