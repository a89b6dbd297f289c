//! Accepts gathered into transactions: what comes while one is being committed shares the next, so
//! that the cost of a commit, a savepoint or a round trip is spread over many.
//!
//! Invariant: a caller hears `Ok` after the commit that holds its delivery, and hears something within
//! its patience, whatever the database does.

use std::{sync::Arc, time::Duration};

use tokio::sync::{Mutex, mpsc, oneshot};

use super::{
    Error,
    accept::{Answer, NewDelivery, accept_all},
    driver::{Driver, Lane},
};
use crate::clock::Clock;

#[derive(Clone, Debug)]
pub(super) struct Batches {
    queue: mpsc::Sender<(NewDelivery, oneshot::Sender<Answer>)>,
    /// How long a caller waits, wherever its delivery is by then.
    patience: Duration,
    clock: Clock,
}

/// Accepts that share a transaction at most.
const BATCH_MAX: usize = 256;

/// Writers: while one waits for its commit, the other gathers.
const WRITERS: usize = 2;

impl Batches {
    #[expect(
        clippy::disallowed_methods,
        reason = "ends by itself when the store is dropped; every caller waits for its answer"
    )]
    pub(super) fn start(driver: &Driver, patience: Duration, clock: Clock) -> Batches {
        let (queue, receiver) = mpsc::channel(4 * BATCH_MAX);
        let receiver = Arc::new(Mutex::new(receiver));
        for _ in 0..WRITERS {
            tokio::spawn(write_batches(driver.clone(), receiver.clone()));
        }
        Batches { queue, patience, clock }
    }

    pub(super) async fn accept(&self, delivery: NewDelivery) -> Answer {
        let (reply, answer) = oneshot::channel();
        let closed = || Error::unavailable(anyhow::anyhow!("the store is closed"));
        let mut queued = false;
        let waiting = async {
            self.queue.send((delivery, reply)).await.map_err(|_| closed())?;
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
}

type Receiver = mpsc::Receiver<(NewDelivery, oneshot::Sender<Answer>)>;

async fn write_batches(driver: Driver, queue: Arc<Mutex<Receiver>>) {
    loop {
        let mut batch = Vec::new();
        // Held only while gathering, so that the other writer gathers while this one commits.
        if queue.lock().await.recv_many(&mut batch, BATCH_MAX).await == 0 {
            return;
        }
        driver.metrics().batched(batch.len());
        let (deliveries, replies): (Vec<_>, Vec<_>) = batch.into_iter().unzip();
        let shared = Arc::new(deliveries);
        let copy = shared.clone();
        let result = driver.transaction(Lane::Ingest, move |tx| accept_all(tx, &copy)).await;
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
                for (delivery, reply) in shared.iter().cloned().zip(replies) {
                    let one = driver.transaction(Lane::Ingest, move |tx| {
                        accept_all(tx, &[delivery])?.pop().ok_or(Error::Bug("no answer"))
                    });
                    let _ = reply.send(one.await);
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
