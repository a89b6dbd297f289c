//! SQLite: one thread owns the only write connection and commits many operations at once.
//!
//! Group commit is what makes durable writes cheap here: everything that waits when the writer is
//! free goes into one `begin immediate … commit`, each operation in a savepoint of its own, and all
//! are answered after the one sync. A few threads with read-only connections serve reads.
//!
//! Invariant: an operation is answered `Ok` only after the commit that holds it. When SQLite ended
//! the transaction by itself (disk full, I/O error), every operation of the batch fails.

use std::{
    collections::{HashMap, VecDeque},
    fmt,
    panic::{AssertUnwindSafe, catch_unwind},
    path::Path,
    sync::{Arc, Condvar, Mutex, PoisonError},
    thread,
};

use rusqlite::{Connection, ErrorCode, OpenFlags, ToSql, types::ToSqlOutput, types::ValueRef};
use tokio::sync::oneshot;

use super::{
    Lane, Row, Tx as AnyTx,
    value::{Dialect, Value, rewrite},
};
use crate::{
    clock::{Clock, Timestamp},
    metrics::Metrics,
    store::{Error, Options, Result},
};

/// Operations that go into one commit at most, by lane. Enough to spread a sync over many callers,
/// few enough that the first of them does not wait long for the last.
const BATCH_INGEST_MAX: usize = 512;
const BATCH_WORK_MAX: usize = 128;

/// Statements kept prepared on each connection; the crate has about a hundred texts.
const STATEMENTS_CACHED: usize = 256;

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
    pub(crate) fn open(
        path: &Path,
        options: &Options,
        clock: Clock,
        metrics: Arc<Metrics>,
    ) -> Result<Sqlite> {
        let writer = open_writer(path)?;
        let (writes, reads) = (Arc::new(Queue::default()), Arc::new(Queue::default()));
        let mut threads = Vec::new();
        for index in 0..options.readers.max(1) {
            let (reads, clock) = (reads.clone(), clock.clone());
            let connection = open_reader(path)?;
            threads.push(spawn(&format!("sqlite-read-{index}"), move || {
                let mut connection = Prepared::new(connection);
                while let Some(operations) = reads.take(1, 1) {
                    for mut operation in operations {
                        let mut tx = AnyTx::Sqlite(Tx { prepared: &mut connection, clock: &clock });
                        operation.run(&mut tx);
                        operation.answer(None);
                    }
                }
            })?);
        }
        let (queue, counters) = (writes.clone(), metrics.clone());
        threads.push(spawn("sqlite-write", move || {
            let mut connection = Prepared::new(writer);
            while let Some(batch) = queue.take(BATCH_INGEST_MAX, BATCH_WORK_MAX) {
                commit(&mut connection, batch, &clock, &counters);
            }
            // Leaves a file that needs no recovery when it is opened again.
            let _ = connection.connection.execute_batch("pragma wal_checkpoint(truncate)");
        })?);
        let threads = Mutex::new(threads);
        Ok(Sqlite { shared: Arc::new(Shared { writes, reads, threads, metrics }) })
    }

    pub(crate) fn metrics(&self) -> &Arc<Metrics> {
        &self.shared.metrics
    }

    pub(crate) async fn read<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut AnyTx<'_>) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        submit(&self.shared.reads, Lane::Ingest, work).await
    }

    pub(crate) async fn transaction<T: Send + 'static>(
        &self,
        lane: Lane,
        work: impl FnOnce(&mut AnyTx<'_>) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        submit(&self.shared.writes, lane, work).await
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

fn spawn(name: &str, work: impl FnOnce() + Send + 'static) -> Result<thread::JoinHandle<()>> {
    let builder = thread::Builder::new().name(name.to_owned());
    builder.spawn(work).map_err(Error::unavailable)
}

fn open_writer(path: &Path) -> Result<Connection> {
    // One thread has it, so it needs no lock of its own.
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE
        | OpenFlags::SQLITE_OPEN_CREATE
        | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags).map_err(from_sqlite)?;
    // The first two take effect only before the first table.
    let pragmas = "
        pragma page_size = 8192;
        pragma auto_vacuum = incremental;
        pragma journal_mode = wal;
        pragma synchronous = full;
        pragma busy_timeout = 5000;
        pragma temp_store = memory;
        pragma cache_size = -32768;
        pragma journal_size_limit = 67108864;
    ";
    connection.execute_batch(pragmas).map_err(from_sqlite)?;
    Ok(connection)
}

fn open_reader(path: &Path) -> Result<Connection> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags).map_err(from_sqlite)?;
    let pragmas = "pragma busy_timeout = 5000; pragma cache_size = -8192;";
    connection.execute_batch(pragmas).map_err(from_sqlite)?;
    Ok(connection)
}

/// What waits for a connection.
trait Operation: Send {
    /// Runs the closure and keeps its result; tells whether it was `Ok`.
    fn run(&mut self, tx: &mut AnyTx<'_>) -> bool;
    /// Sends the result, or the error that befell the whole batch.
    fn answer(self: Box<Self>, failure: Option<Error>);
}

struct Waiting<T, F> {
    work: Option<F>,
    result: Option<Result<T>>,
    reply: oneshot::Sender<Result<T>>,
}

impl<T: Send, F: FnOnce(&mut AnyTx<'_>) -> Result<T> + Send> Operation for Waiting<T, F> {
    fn run(&mut self, tx: &mut AnyTx<'_>) -> bool {
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
        // The caller may have gone away; the work is done all the same.
        let _ = self.reply.send(result);
    }
}

type Boxed = Box<dyn Operation>;

async fn submit<T: Send + 'static>(
    queue: &Queue,
    lane: Lane,
    work: impl FnOnce(&mut AnyTx<'_>) -> Result<T> + Send + 'static,
) -> Result<T> {
    let (reply, answer) = oneshot::channel();
    let waiting = Waiting { work: Some(work), result: None, reply };
    queue.push(lane, Box::new(waiting))?;
    answer.await.unwrap_or(Err(Error::Bug("the database thread has ended")))
}

/// Two first-in-first-out lanes and a bell.
#[derive(Default)]
struct Queue {
    lanes: Mutex<Lanes>,
    bell: Condvar,
}

#[derive(Default)]
struct Lanes {
    ingest: VecDeque<Boxed>,
    work: VecDeque<Boxed>,
    closed: bool,
}

impl Queue {
    fn push(&self, lane: Lane, operation: Boxed) -> Result<()> {
        let mut lanes = lock(&self.lanes);
        if lanes.closed {
            return Err(Error::unavailable(anyhow::anyhow!("the store is closed")));
        }
        match lane {
            Lane::Ingest => lanes.ingest.push_back(operation),
            Lane::Work => lanes.work.push_back(operation),
        }
        self.bell.notify_one();
        Ok(())
    }

    /// Waits for operations and takes up to so many of each lane; `None` when closed and empty.
    fn take(&self, ingest_max: usize, work_max: usize) -> Option<Vec<Boxed>> {
        let mut lanes = lock(&self.lanes);
        while lanes.ingest.is_empty() && lanes.work.is_empty() {
            if lanes.closed {
                return None;
            }
            lanes = self.bell.wait(lanes).unwrap_or_else(PoisonError::into_inner);
        }
        let (n_ingest, n_work) =
            (lanes.ingest.len().min(ingest_max), lanes.work.len().min(work_max));
        let mut batch = Vec::with_capacity(n_ingest + n_work);
        batch.extend(lanes.ingest.drain(..n_ingest));
        batch.extend(lanes.work.drain(..n_work));
        Some(batch)
    }

    fn close(&self) {
        lock(&self.lanes).closed = true;
        self.bell.notify_all();
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// One batch: begin, each operation in a savepoint, commit, answer.
fn commit(connection: &mut Prepared, batch: Vec<Boxed>, clock: &Clock, metrics: &Metrics) {
    let started = clock.monotonic();
    if let Err(error) = connection.batch("begin immediate") {
        return fail(batch, &error);
    }
    let alone = batch.len() == 1;
    let mut done = Vec::with_capacity(batch.len());
    let mut waiting = batch.into_iter();
    while let Some(mut operation) = waiting.next() {
        let result = if alone {
            transaction(connection, operation.as_mut(), clock)
        } else {
            savepoint(connection, operation.as_mut(), clock)
        };
        done.push(operation);
        if let Err(error) = result {
            // The transaction is gone, and with it what the others wrote.
            connection.roll_back();
            done.extend(waiting);
            return fail(done, &error);
        }
    }
    // An operation that was alone and failed has undone everything already.
    if connection.connection.is_autocommit() {
        return done.into_iter().for_each(|operation| operation.answer(None));
    }
    match connection.batch("commit") {
        Ok(()) => {
            metrics.committed(clock.monotonic() - started);
            done.into_iter().for_each(|operation| operation.answer(None));
        }
        Err(error) => {
            connection.roll_back();
            fail(done, &error);
        }
    }
}

/// Runs the only operation of a batch. It needs no savepoint, for which SQLite would copy every page
/// that is touched. An error from here means that SQLite has ended the transaction.
fn transaction(
    connection: &mut Prepared,
    operation: &mut dyn Operation,
    clock: &Clock,
) -> Result<()> {
    let ok = operation.run(&mut AnyTx::Sqlite(Tx { prepared: connection, clock }));
    if connection.connection.is_autocommit() {
        return Err(Error::unavailable(anyhow::anyhow!("SQLite ended the transaction")));
    }
    if ok { Ok(()) } else { connection.batch("rollback") }
}

/// Runs an operation so that its failure undoes its own writes only. An error from here means that
/// the whole transaction has ended.
fn savepoint(
    connection: &mut Prepared,
    operation: &mut dyn Operation,
    clock: &Clock,
) -> Result<()> {
    connection.batch("savepoint operation")?;
    let ok = operation.run(&mut AnyTx::Sqlite(Tx { prepared: connection, clock }));
    if connection.connection.is_autocommit() {
        return Err(Error::unavailable(anyhow::anyhow!("SQLite ended the transaction")));
    }
    if !ok {
        connection.batch("rollback to operation")?;
    }
    connection.batch("release operation")
}

fn fail(batch: Vec<Boxed>, error: &Error) {
    tracing::error!(error = %error, operations = batch.len(), "a commit failed");
    for operation in batch {
        operation.answer(Some(error.again()));
    }
}

/// A connection and the texts that were already put into SQLite's words.
struct Prepared {
    connection: Connection,
    texts: HashMap<String, Arc<str>>,
}

impl Prepared {
    fn new(connection: Connection) -> Prepared {
        connection.set_prepared_statement_cache_capacity(STATEMENTS_CACHED);
        Prepared { connection, texts: HashMap::new() }
    }

    fn text(&mut self, sql: &str) -> Arc<str> {
        if let Some(text) = self.texts.get(sql) {
            return text.clone();
        }
        let text: Arc<str> = rewrite(sql, Dialect::Sqlite).into();
        self.texts.insert(sql.to_owned(), text.clone());
        text
    }

    fn batch(&self, sql: &str) -> Result<()> {
        let mut statement = self.connection.prepare_cached(sql).map_err(from_sqlite)?;
        statement.raw_execute().map(|_| ()).map_err(from_sqlite)
    }

    fn roll_back(&self) {
        if !self.connection.is_autocommit() {
            // If even this fails, the next `begin` will, and say so.
            let _ = self.connection.execute_batch("rollback");
        }
    }
}

pub(crate) struct Tx<'a> {
    prepared: &'a mut Prepared,
    clock: &'a Clock,
}

impl fmt::Debug for Tx<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tx").finish_non_exhaustive()
    }
}

impl Tx<'_> {
    pub(super) fn query(&mut self, sql: &str, params: &[Value]) -> Result<Vec<Row>> {
        let text = self.prepared.text(sql);
        let mut statement = self.prepared.connection.prepare_cached(&text).map_err(from_sqlite)?;
        let mut out = Vec::new();
        collect(&mut statement, params, &mut out)?;
        Ok(out)
    }

    pub(super) fn execute(&mut self, sql: &str, params: &[Value]) -> Result<u64> {
        let text = self.prepared.text(sql);
        let mut statement = self.prepared.connection.prepare_cached(&text).map_err(from_sqlite)?;
        let n = statement.execute(rusqlite::params_from_iter(params)).map_err(from_sqlite)?;
        Ok(n as u64)
    }

    /// Tells of each row whether it went in. Not by `returning`: that makes SQLite build a table of
    /// its own for every row.
    pub(super) fn insert(&mut self, sql: &str, rows: &[Vec<Value>]) -> Result<Vec<bool>> {
        let text = self.prepared.text(sql);
        let mut statement = self.prepared.connection.prepare_cached(&text).map_err(from_sqlite)?;
        let insert = |row: &Vec<Value>| {
            let n = statement.execute(rusqlite::params_from_iter(row)).map_err(from_sqlite)?;
            Ok(n == 1)
        };
        rows.iter().map(insert).collect()
    }

    pub(super) fn script(&mut self, sql: &str) -> Result<()> {
        let text = rewrite(sql, Dialect::Sqlite);
        self.prepared.connection.execute_batch(&text).map_err(from_sqlite)
    }

    pub(super) fn now(&self) -> Timestamp {
        self.clock.steady()
    }
}

fn collect(
    statement: &mut rusqlite::Statement<'_>,
    params: &[Value],
    out: &mut Vec<Row>,
) -> Result<()> {
    let n_columns = statement.column_count();
    let mut rows = statement.query(rusqlite::params_from_iter(params)).map_err(from_sqlite)?;
    while let Some(row) = rows.next().map_err(from_sqlite)? {
        let mut values = Vec::with_capacity(n_columns);
        for index in 0..n_columns {
            values.push(match row.get_ref(index).map_err(from_sqlite)? {
                ValueRef::Null => Value::Null,
                ValueRef::Integer(int) => Value::Int(int),
                ValueRef::Text(text) => {
                    Value::Text(String::from_utf8(text.to_vec()).map_err(Error::corrupt)?)
                }
                ValueRef::Blob(bytes) => Value::Bytes(bytes.to_vec().into()),
                ValueRef::Real(_) => {
                    return Err(Error::corrupt(anyhow::anyhow!("a column holds a real number")));
                }
            });
        }
        out.push(Row(values));
    }
    Ok(())
}

impl ToSql for Value {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(ToSqlOutput::Borrowed(match self {
            Value::Null => ValueRef::Null,
            Value::Text(text) => ValueRef::Text(text.as_bytes()),
            Value::Int(int) => ValueRef::Integer(*int),
            Value::Bytes(bytes) => ValueRef::Blob(bytes),
        }))
    }
}

/// What an error of SQLite means to a caller.
fn from_sqlite(error: rusqlite::Error) -> Error {
    match error.sqlite_error_code() {
        Some(ErrorCode::ConstraintViolation) => Error::Constraint(error.to_string()),
        Some(
            ErrorCode::DiskFull
            | ErrorCode::SystemIoFailure
            | ErrorCode::CannotOpen
            | ErrorCode::ReadOnly
            | ErrorCode::DatabaseBusy
            | ErrorCode::DatabaseLocked
            | ErrorCode::OutOfMemory,
        ) => Error::unavailable(error),
        Some(_) | None => Error::corrupt(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// No kill of the process can tell whether a commit was synced; only a cut of the power could.
    #[test]
    fn commits_are_synced() {
        let directory = tempfile::tempdir().unwrap();
        let connection = open_writer(&directory.path().join("bellpull.db")).unwrap();
        let pragma = |name: &str| {
            connection.pragma_query_value(None, name, |row| row.get::<_, rusqlite::types::Value>(0))
        };
        // 2 is `full`: the log is synced with every commit.
        assert_eq!(pragma("synchronous").unwrap(), 2.into());
        assert_eq!(pragma("journal_mode").unwrap(), "wal".to_owned().into());
    }
}
