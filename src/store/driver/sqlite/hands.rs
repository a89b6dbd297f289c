//! Whoever does the work that is queued: one writer and some readers, each with its connection.
//! Another one copies the log back into the file while the writer goes on: in the writer's own hands
//! that would be time in which nobody's commit goes on, and every few commits a sync of the file.
//!
//! A server gives each of them a thread. Moved by hand, they do what they are told when they are told:
//! that is how a simulation tries the orders in which things can happen.

use std::{
    fmt,
    path::Path,
    sync::{Arc, mpsc},
    thread,
};

use rusqlite::Connection;

use super::{
    super::queue::{Boxed, Operation, Queue},
    AnyTx, Flush, Shared,
    connection::{self, Prepared, Tx},
};
use crate::{
    clock::Clock,
    metrics::Metrics,
    store::{Error, Result},
};

/// Operations that go into one commit at most, by lane. Enough to spread a sync over many callers,
/// few enough that the first of them does not wait long for the last.
const BATCH_INGEST_MAX: usize = 512;
const BATCH_WORK_MAX: usize = 128;

/// Rows that are changed before the log is copied back again: some eight megabytes of small ones.
const COPIED_BACK_AFTER: u64 = 1500;

/// Pages of 8 KiB in the log at which the writer does it alone, for rows that are not small.
const LOG_PAGES_MAX: u32 = 2000;

/// The hands of a store on a file of SQLite. Without them, what is asked of the store waits.
pub struct Hands {
    writer: Writer,
    readers: Vec<Reader>,
    copier: Connection,
}

struct Writer {
    connection: Prepared,
    queue: Arc<Queue>,
    clock: Clock,
    metrics: Arc<Metrics>,
}

struct Reader {
    connection: Prepared,
    queue: Arc<Queue>,
    clock: Clock,
}

impl fmt::Debug for Hands {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Hands")
            .field("waiting_writes", &self.waiting_writes())
            .field("waiting_reads", &self.waiting_reads())
            .finish_non_exhaustive()
    }
}

impl Hands {
    pub(super) fn open(
        path: &Path,
        n_readers: usize,
        clock: &Clock,
        shared: &Shared,
    ) -> Result<Hands> {
        let writer = Writer {
            connection: Prepared::new(connection::open_writer(path)?)?,
            queue: shared.writes.clone(),
            clock: clock.clone(),
            metrics: shared.metrics.clone(),
        };
        let reader = |_| {
            let connection = Prepared::new(connection::open_reader(path)?)?;
            Ok(Reader { connection, queue: shared.reads.clone(), clock: clock.clone() })
        };
        let readers = (0..n_readers.max(1)).map(reader).collect::<Result<_>>()?;
        Ok(Hands { writer, readers, copier: connection::open_checkpointer(path)? })
    }

    /// Writes that nobody has done yet.
    pub fn waiting_writes(&self) -> usize {
        self.writer.queue.len()
    }

    /// Reads that nobody has done yet.
    pub fn waiting_reads(&self) -> usize {
        self.readers.first().map_or(0, |reader| reader.queue.len())
    }

    /// Does up to so many of the waiting writes, in one commit, and answers them.
    pub fn write(&mut self, max: usize) {
        let batch = self.writer.queue.take_now(max);
        if !batch.is_empty() {
            self.writer.commit(batch);
        }
    }

    /// Does one of the waiting reads, and answers it.
    pub fn read(&mut self) {
        if let Some(reader) = self.readers.first_mut() {
            reader.queue.take_now(1).into_iter().for_each(|operation| reader.run(operation));
        }
    }

    /// Gives each of them a thread, which ends when its queue is closed and empty.
    pub(super) fn work(self) -> Result<Vec<thread::JoinHandle<()>>> {
        let mut threads = Vec::new();
        for (index, mut reader) in self.readers.into_iter().enumerate() {
            threads.push(spawn(&format!("sqlite-read-{index}"), move || {
                while let Some(operations) = reader.queue.take(1, 1) {
                    operations.into_iter().for_each(|operation| reader.run(operation));
                }
            })?);
        }
        // One word at a time: more would say the same.
        let (enough, is_enough) = mpsc::sync_channel(1);
        let (copied, is_copied) = mpsc::sync_channel(1);
        let copier = self.copier;
        threads.push(spawn("sqlite-copy", move || {
            while is_enough.recv().is_ok() {
                match connection::copy_back(&copier) {
                    Ok(()) => drop(copied.try_send(())),
                    Err(error) => tracing::warn!(%error, "the log was not copied back"),
                }
            }
        })?);
        let mut writer = self.writer;
        writer.connection.copy_back_at(LOG_PAGES_MAX)?;
        threads.push(spawn("sqlite-write", move || {
            let mut copied_at = 0;
            while let Some(batch) = writer.queue.take(BATCH_INGEST_MAX, BATCH_WORK_MAX) {
                writer.commit(batch);
                let n_changes = writer.connection.n_changes();
                if n_changes - copied_at >= COPIED_BACK_AFTER {
                    copied_at = n_changes;
                    let _ = enough.try_send(());
                }
                // What came meanwhile is little. With nobody writing all of the log is copied, and it
                // is begun anew.
                if is_copied.try_recv().is_ok() {
                    writer.connection.copy_back();
                }
            }
            drop(enough);
            // Leaves a file that needs no recovery when it is opened again.
            let _ = writer.connection.checkpoint();
        })?);
        Ok(threads)
    }
}

fn spawn(name: &str, work: impl FnOnce() + Send + 'static) -> Result<thread::JoinHandle<()>> {
    let builder = thread::Builder::new().name(name.to_owned());
    builder.spawn(work).map_err(Error::unavailable)
}

impl Reader {
    fn run(&mut self, mut operation: Boxed) {
        let mut tx = AnyTx::Sqlite(Tx::new(&mut self.connection, &self.clock));
        operation.run(&mut tx);
        operation.answer(None);
    }
}

impl Writer {
    /// One batch: begin, run the operations, commit, answer.
    fn commit(&mut self, batch: Vec<Boxed>) {
        let started = self.clock.monotonic();
        let is_synced = batch.iter().any(|operation| operation.flush() == Flush::Now);
        let begun = self.connection.set_synced(is_synced);
        if let Err(error) = begun.and_then(|()| self.connection.batch("begin immediate")) {
            return fail(batch, &error);
        }
        let mut done = Vec::with_capacity(batch.len());
        let mut waiting = batch.into_iter();
        let mut is_first = true;
        while let Some(mut operation) = waiting.next() {
            let result = if is_first {
                self.first(operation.as_mut(), waiting.len() > 0).map(|ok| is_first = !ok)
            } else {
                self.savepoint(operation.as_mut())
            };
            done.push(operation);
            if let Err(error) = result {
                // The transaction is gone, and with it what the others wrote.
                self.connection.roll_back();
                done.extend(waiting);
                return fail(done, &error);
            }
        }
        // Where none came to a good end, everything is undone already.
        if self.connection.is_autocommit() {
            return done.into_iter().for_each(|operation| operation.answer(None));
        }
        match self.connection.batch("commit") {
            Ok(()) => {
                self.metrics.committed(self.clock.monotonic() - started);
                done.into_iter().for_each(|operation| operation.answer(None));
            }
            Err(error) => {
                self.connection.roll_back();
                fail(done, &error);
            }
        }
    }

    /// Runs an operation before which nothing was written in this transaction, and tells whether it came
    /// to a good end. If not, the transaction is undone, and begun again where more are to come. So it
    /// needs no savepoint, for which SQLite would copy every page that is touched: accepts come first, and
    /// touch most. An error from here means that the whole transaction has ended.
    fn first(&mut self, operation: &mut dyn Operation, more: bool) -> Result<bool> {
        let ok = self.run(operation)?;
        if !ok {
            self.connection.batch("rollback")?;
            if more {
                self.connection.batch("begin immediate")?;
            }
        }
        Ok(ok)
    }

    /// Runs an operation so that its failure undoes its own writes only. An error from here means
    /// that the whole transaction has ended.
    fn savepoint(&mut self, operation: &mut dyn Operation) -> Result<()> {
        self.connection.batch("savepoint operation")?;
        if !self.run(operation)? {
            self.connection.batch("rollback to operation")?;
        }
        self.connection.batch("release operation")
    }

    /// Tells whether the operation came to a good end.
    fn run(&mut self, operation: &mut dyn Operation) -> Result<bool> {
        let tx = Tx::new(&mut self.connection, &self.clock);
        let ok = operation.run(&mut AnyTx::Sqlite(tx));
        if self.connection.is_autocommit() {
            return Err(Error::unavailable(anyhow::anyhow!("SQLite ended the transaction")));
        }
        Ok(ok)
    }
}

fn fail(batch: Vec<Boxed>, error: &Error) {
    tracing::error!(error = %error, operations = batch.len(), "a commit failed");
    for operation in batch {
        operation.answer(Some(error.again()));
    }
}

#[cfg(test)]
mod tests {
    use futures_util::{future::join_all, poll};

    use super::*;
    use crate::{
        clock::Timestamp,
        store::{
            Options,
            driver::{Lane, params, sqlite::Sqlite},
        },
    };

    #[tokio::test]
    async fn an_operation_that_fails_undoes_its_own_writes_and_no_others() {
        let directory = tempfile::tempdir().unwrap();
        for case in 0..8 {
            let path = directory.path().join(format!("{case}.db"));
            let clock = Clock::manual(Timestamp(0));
            let options = Options::default();
            let (sqlite, mut hands) =
                Sqlite::open(&path, &options, &clock, Metrics::new(clock.now())).unwrap();
            hands.writer.connection.batch("create table done (n integer not null)").unwrap();
            let succeeds = move |n: i64| case >> n & 1 == 1;
            let mut operations = Box::pin(join_all((0..3).map(|n| {
                sqlite.transaction(Lane::Work, Flush::Now, move |tx| {
                    tx.execute("insert into done (n) values ($1)", &params![n])?;
                    if succeeds(n) { Ok(()) } else { Err(Error::NotFound) }
                })
            })));
            assert!(poll!(&mut operations).is_pending());
            hands.write(3);
            let told: Vec<bool> = operations.await.iter().map(Result::is_ok).collect();
            assert_eq!(told, (0..3).map(succeeds).collect::<Vec<_>>());

            let read = sqlite.read(|tx| tx.query("select n from done order by n", &[]));
            let mut read = Box::pin(read);
            assert!(poll!(&mut read).is_pending());
            hands.read();
            let rows = read.await.unwrap();
            let rows: Vec<i64> = rows.into_iter().map(|mut row| row.int(0).unwrap()).collect();
            assert_eq!(rows, (0..3).filter(|&n| succeeds(n)).collect::<Vec<_>>());
        }
    }
}
