//! Accepts gathered into transactions: what comes while one is being committed shares the next, so
//! that the cost of a commit, a savepoint or a round trip is spread over many.
//!
//! A transaction takes what waits when it begins and not when it is asked for: the longer the
//! database is busy, the more share the next commit. Invariant: a caller hears `Ok` after the commit
//! that holds its delivery, and hears something within its patience, whatever the database does.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};

use super::{
    Error, Result,
    accept::{Answer, NewDelivery, One, accept_all},
    driver::{Driver, Lane, Tx},
    lock,
};
use crate::clock::Clock;

#[derive(Clone, Debug)]
pub(super) struct Batches {
    driver: Driver,
    arrivals: Arc<Mutex<Arrivals>>,
    /// For those that wait, so that a database that hangs does not gather callers without end.
    room: Arc<Semaphore>,
    /// How long a caller waits, wherever its delivery is by then.
    patience: Duration,
    clock: Clock,
}

/// Accepts that share a transaction at most.
const BATCH_MAX: usize = 256;

#[derive(Debug, Default)]
struct Arrivals {
    waiting: Vec<Arrival>,
    /// Whether a transaction has been asked for that has not begun: it will take what waits.
    is_asked_for: bool,
}

#[derive(Debug)]
struct Arrival {
    /// It is large, and goes through many hands on its way here.
    delivery: Box<NewDelivery>,
    reply: oneshot::Sender<Answer>,
    _room: OwnedSemaphorePermit,
}

/// What one transaction took.
type Batch = (Arc<Vec<NewDelivery>>, Vec<oneshot::Sender<Answer>>);

impl Arrivals {
    fn take(&mut self) -> Batch {
        self.is_asked_for = false;
        let n = self.waiting.len().min(BATCH_MAX);
        let taken = self.waiting.drain(..n).map(|it| (*it.delivery, it.reply));
        let (deliveries, replies) = taken.unzip();
        (Arc::new(deliveries), replies)
    }

    /// Whether somebody has to ask for a transaction; whoever hears `true` does.
    fn ask(&mut self) -> bool {
        let wanted = !self.is_asked_for && !self.waiting.is_empty();
        self.is_asked_for |= wanted;
        wanted
    }
}

impl Batches {
    pub(super) fn new(driver: &Driver, patience: Duration, clock: Clock) -> Batches {
        let room = Arc::new(Semaphore::new(4 * BATCH_MAX));
        Batches { driver: driver.clone(), arrivals: Arc::default(), room, patience, clock }
    }

    pub(super) async fn accept(&self, delivery: Box<NewDelivery>) -> Answer {
        let (reply, answer) = oneshot::channel();
        let closed = || Error::unavailable(anyhow::anyhow!("the store is closed"));
        let mut queued = false;
        let waiting = async {
            let room = self.room.clone().acquire_owned().await.map_err(|_| closed())?;
            self.put(Arrival { delivery, reply, _room: room });
            queued = true;
            answer.await.map_err(|_| closed())?
        };
        match self.clock.timeout(self.patience, waiting).await {
            Ok(answer) => answer,
            // It may still be written, some time.
            Err(_) if queued => {
                Err(Error::CommitUnknown(anyhow::anyhow!("the database does not answer")))
            }
            Err(_) => Err(Error::unavailable(anyhow::anyhow!("too many accepts wait"))),
        }
    }

    fn put(&self, arrival: Arrival) {
        let is_asked = {
            let mut arrivals = lock(&self.arrivals);
            arrivals.waiting.push(arrival);
            arrivals.ask()
        };
        if is_asked {
            self.write();
        }
    }

    /// Asks for a transaction, and after it for another one if there is something to take by then that
    /// nobody else was asked to.
    fn write(&self) {
        let taken = Arc::new(Mutex::new(None));
        let (slot, arrivals) = (taken.clone(), self.arrivals.clone());
        let metrics = self.driver.metrics().clone();
        let work = move |tx: &mut Tx<'_>| {
            let (deliveries, replies) = lock(&arrivals).take();
            *lock(&slot) = Some((deliveries.clone(), replies));
            metrics.batched(deliveries.len());
            accept_all(tx, &deliveries)
        };
        let batches = self.clone();
        self.driver.transaction_then(Lane::Ingest, work, move |result| {
            let batch = lock(&taken).take();
            // Without a connection it never began, and those who wait hear why.
            let (deliveries, replies) = batch.unwrap_or_else(|| lock(&batches.arrivals).take());
            let is_asked = lock(&batches.arrivals).ask();
            batches.answer(result, &deliveries, replies);
            if is_asked {
                batches.write();
            }
        });
    }

    fn answer(
        &self,
        result: Result<Vec<One>>,
        deliveries: &[NewDelivery],
        replies: Vec<oneshot::Sender<Answer>>,
    ) {
        match result {
            Ok(answers) => {
                for (reply, answer) in replies.into_iter().zip(answers) {
                    let _ = reply.send(Ok(answer));
                }
            }
            // One that cannot be stored must not fail its neighbours: each gets its own try. Where
            // the database itself fails, another try helps nobody.
            Err(error)
                if replies.len() > 1
                    && !matches!(error, Error::CommitUnknown(_) | Error::Unavailable(_)) =>
            {
                for (delivery, reply) in deliveries.iter().cloned().zip(replies) {
                    let work = move |tx: &mut Tx<'_>| {
                        accept_all(tx, &[delivery])?.pop().ok_or(Error::Bug("no answer"))
                    };
                    let then = |result| drop(reply.send(result));
                    self.driver.transaction_then(Lane::Ingest, work, then);
                }
            }
            Err(error) => {
                for reply in replies {
                    let _ = reply.send(Err(error.again()));
                }
            }
        }
    }
}
