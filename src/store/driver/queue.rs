//! What waits for a connection: operations, in two first-in-first-out lanes, and hands that wait for
//! them. Hands are threads, each with a connection of its own.

use std::{
    collections::VecDeque,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Condvar, Mutex, PoisonError},
};

use tokio::sync::oneshot;

use super::{Flush, Lane, Tx};
use crate::store::{Error, Result, lock};

/// A piece of work, and whoever waits for it.
pub(super) trait Operation: Send {
    /// Runs the closure and keeps its result; tells whether it was `Ok`.
    fn run(&mut self, tx: &mut Tx<'_>) -> bool;
    /// Sends the result, or the error that befell the whole batch.
    fn answer(self: Box<Self>, failure: Option<Error>);
    /// Whether the commit that holds it has to be on the disk before the answer.
    fn flush(&self) -> Flush;
}

struct Waiting<T, F, R> {
    work: Option<F>,
    result: Option<Result<T>>,
    then: R,
    flush: Flush,
}

impl<T, F, R> Operation for Waiting<T, F, R>
where
    T: Send,
    F: FnOnce(&mut Tx<'_>) -> Result<T> + Send,
    R: FnOnce(Result<T>) + Send,
{
    fn run(&mut self, tx: &mut Tx<'_>) -> bool {
        let Some(work) = self.work.take() else { return false };
        // A bug in one operation must not take the writer down, and with it everybody else's.
        let result = catch_unwind(AssertUnwindSafe(|| work(tx)))
            .unwrap_or_else(|_| Err(Error::Bug("an operation panicked")));
        let ok = result.is_ok();
        self.result = Some(result);
        ok
    }

    fn answer(self: Box<Self>, failure: Option<Error>) {
        let result = match (self.result, failure) {
            (Some(Ok(_)), Some(failure)) => Err(failure),
            (Some(result), _) => result,
            (None, failure) => Err(failure.unwrap_or(Error::Bug("an operation was not run"))),
        };
        (self.then)(result);
    }

    fn flush(&self) -> Flush {
        self.flush
    }
}

pub(super) type Boxed = Box<dyn Operation>;

/// Queues an operation and waits for its result.
pub(super) async fn submit<T: Send + 'static>(
    queue: &Queue,
    lane: Lane,
    flush: Flush,
    work: impl FnOnce(&mut Tx<'_>) -> Result<T> + Send + 'static,
) -> Result<T> {
    let (reply, answer) = oneshot::channel();
    // The caller may have gone away; the work is done all the same.
    submit_then(queue, lane, flush, work, |result| drop(reply.send(result)));
    answer.await.unwrap_or(Err(Error::Bug("the database thread has ended")))
}

/// Queues an operation whose result is told to `then`, on the thread that has the connection: while it
/// runs nothing else is done with that. Tells whether more hands would help.
pub(super) fn submit_then<T: Send + 'static>(
    queue: &Queue,
    lane: Lane,
    flush: Flush,
    work: impl FnOnce(&mut Tx<'_>) -> Result<T> + Send + 'static,
    then: impl FnOnce(Result<T>) + Send + 'static,
) -> bool {
    queue.push(lane, Box::new(Waiting { work: Some(work), result: None, then, flush }))
}

/// Two first-in-first-out lanes and a bell.
#[derive(Default)]
pub(super) struct Queue {
    lanes: Mutex<Lanes>,
    bell: Condvar,
}

#[derive(Default)]
struct Lanes {
    ingest: VecDeque<Boxed>,
    work: VecDeque<Boxed>,
    closed: bool,
    /// Hands that wait for an operation.
    n_idle: usize,
}

impl Lanes {
    fn len(&self) -> usize {
        self.ingest.len() + self.work.len()
    }

    fn drain(&mut self, ingest_max: usize, work_max: usize) -> Vec<Boxed> {
        let (n_ingest, n_work) = (self.ingest.len().min(ingest_max), self.work.len().min(work_max));
        let mut batch = Vec::with_capacity(n_ingest + n_work);
        batch.extend(self.ingest.drain(..n_ingest));
        batch.extend(self.work.drain(..n_work));
        batch
    }
}

impl Queue {
    /// An operation that comes too late is answered at once. Tells whether more operations wait than
    /// hands wait for some.
    fn push(&self, lane: Lane, operation: Boxed) -> bool {
        let mut lanes = lock(&self.lanes);
        if lanes.closed {
            drop(lanes);
            let closed = Error::unavailable(anyhow::anyhow!("the store is closed"));
            operation.answer(Some(closed));
            return false;
        }
        match lane {
            Lane::Ingest => lanes.ingest.push_back(operation),
            Lane::Work => lanes.work.push_back(operation),
        }
        let is_short = lanes.len() > lanes.n_idle;
        // Whoever is woken needs the lanes.
        drop(lanes);
        self.bell.notify_one();
        is_short
    }

    /// Waits for operations and takes up to so many of each lane; `None` when closed and empty.
    pub(super) fn take(&self, ingest_max: usize, work_max: usize) -> Option<Vec<Boxed>> {
        let mut lanes = lock(&self.lanes);
        while lanes.len() == 0 {
            if lanes.closed {
                return None;
            }
            lanes.n_idle += 1;
            lanes = self.bell.wait(lanes).unwrap_or_else(PoisonError::into_inner);
            lanes.n_idle -= 1;
        }
        Some(lanes.drain(ingest_max, work_max))
    }

    /// Takes up to so many, without waiting for any.
    pub(super) fn take_now(&self, max: usize) -> Vec<Boxed> {
        let mut lanes = lock(&self.lanes);
        let n_work = max.saturating_sub(lanes.ingest.len());
        lanes.drain(max, n_work)
    }

    pub(super) fn len(&self) -> usize {
        lock(&self.lanes).len()
    }

    pub(super) fn close(&self) {
        lock(&self.lanes).closed = true;
        self.bell.notify_all();
    }
}
