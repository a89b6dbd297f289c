//! SQLite: one thread owns the only write connection and commits many operations at once.
//!
//! Group commit is what makes durable writes cheap here: everything that waits when the writer is
//! free goes into one `begin immediate … commit`, each operation but the first in a savepoint of its
//! own, and all are answered after the one sync. A few threads with read-only connections serve reads.
//!
//! Invariant: an operation is answered `Ok` only after the commit that holds it, and after the sync of
//! that commit unless all of its operations can do without. When SQLite ended the transaction by itself
//! (disk full, I/O error), every operation of the batch fails.

mod connection;
mod hands;

use std::{
    fmt,
    path::Path,
    sync::{Arc, Mutex},
    thread,
};

pub(crate) use connection::Tx;
pub use hands::Hands;

use super::{
    Flush, Lane, Row, Tx as AnyTx,
    queue::{Queue, submit, submit_then},
};
use crate::{
    clock::Clock,
    metrics::Metrics,
    store::{Options, Result, lock},
};

#[derive(Clone)]
pub(crate) struct Sqlite {
    shared: Arc<Shared>,
}

impl fmt::Debug for Sqlite {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sqlite").finish_non_exhaustive()
    }
}

/// Dropped with the last handle: the threads finish what waits and end.
struct Shared {
    writes: Arc<Queue>,
    reads: Arc<Queue>,
    threads: Mutex<Vec<thread::JoinHandle<()>>>,
    metrics: Arc<Metrics>,
}

impl Drop for Shared {
    fn drop(&mut self) {
        self.writes.close();
        self.reads.close();
    }
}

impl Sqlite {
    /// The file, and the hands that its work waits for.
    pub(crate) fn open(
        path: &Path,
        options: &Options,
        clock: &Clock,
        metrics: Arc<Metrics>,
    ) -> Result<(Sqlite, Hands)> {
        let (writes, reads) = (Arc::new(Queue::default()), Arc::new(Queue::default()));
        let shared = Arc::new(Shared { writes, reads, threads: Mutex::default(), metrics });
        let hands = Hands::open(path, options.readers, clock, &shared)?;
        Ok((Sqlite { shared }, hands))
    }

    pub(crate) fn metrics(&self) -> &Arc<Metrics> {
        &self.shared.metrics
    }

    /// Gives the hands threads of their own.
    pub(crate) fn employ(&self, hands: Hands) -> Result<()> {
        *lock(&self.shared.threads) = hands.work()?;
        Ok(())
    }

    pub(crate) async fn read<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut AnyTx<'_>) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        submit(&self.shared.reads, Lane::Ingest, Flush::Later, work).await
    }

    pub(crate) async fn transaction<T: Send + 'static>(
        &self,
        lane: Lane,
        flush: Flush,
        work: impl FnOnce(&mut AnyTx<'_>) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        submit(&self.shared.writes, lane, flush, work).await
    }

    pub(crate) fn transaction_then<T: Send + 'static>(
        &self,
        lane: Lane,
        work: impl FnOnce(&mut AnyTx<'_>) -> Result<T> + Send + 'static,
        then: impl FnOnce(Result<T>) + Send + 'static,
    ) {
        submit_then(&self.shared.writes, lane, Flush::Now, work, then);
    }

    pub(crate) async fn close(&self) {
        self.shared.writes.close();
        self.shared.reads.close();
        let threads = std::mem::take(&mut *lock(&self.shared.threads));
        let joined = tokio::task::spawn_blocking(move || {
            for thread in threads {
                let _ = thread.join();
            }
        });
        let _ = joined.await;
    }
}
