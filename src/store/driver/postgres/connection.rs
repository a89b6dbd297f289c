//! A connection: how it is opened and driven, and how a transaction speaks through it.
//!
//! Invariant: nobody inherits a transaction that was left open, or a statement whose end nobody waited
//! for. A connection that has either is given up, and the next operation opens another one.

use std::{cell::RefCell, fmt, future::Future, io, sync::Arc, time::Duration};

use bytes::{Bytes, BytesMut};
use futures_util::future::join;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    runtime::{Builder, Runtime},
    task::JoinHandle,
};
use tokio_postgres::{
    Client, Config, NoTls, Statement,
    error::SqlState,
    types::{IsNull, ToSql, Type, to_sql_checked},
};

use super::{
    super::{
        Row,
        queue::Boxed,
        value::{ByText, Dialect, Value, rewrite},
    },
    AnyTx,
};
use crate::{
    clock::Timestamp,
    store::{Error, Result},
};

/// Our statements are short, and those that look at every agent seem so dear that the server would compile
/// them each time, for longer than they run. Services that only speak as PostgreSQL does may not know it.
const WITHOUT_JIT: &str =
    "select set_config('jit', 'off', false) from pg_settings where name = 'jit'";

/// How long a server may take to hear that a connection is not needed any more.
const FAREWELL: Duration = Duration::from_secs(1);

/// Where connections lead.
pub(super) struct Access {
    pub(super) config: Config,
    /// `None` where TLS is not wanted, or not to be had.
    pub(super) tls: Option<tokio_postgres_rustls::MakeRustlsConnect>,
    /// For a connection, and for each statement.
    pub(super) patience: Duration,
}

/// A place for a connection, which is opened when it is first needed, and again when it was lost.
pub(super) struct Connection {
    /// Of this thread alone: whoever waits for a statement is woken by its answer.
    runtime: Runtime,
    access: Arc<Access>,
    session: Option<Session>,
}

struct Session {
    client: Client,
    /// Carries bytes between the client and the server, while somebody waits in the runtime.
    courier: JoinHandle<()>,
    statements: RefCell<ByText<Statement>>,
}

type Answer<T> = std::result::Result<T, tokio_postgres::Error>;

impl Connection {
    pub(super) fn new(access: Arc<Access>) -> io::Result<Connection> {
        let runtime = Builder::new_current_thread().enable_all().build()?;
        Ok(Connection { runtime, access, session: None })
    }

    /// Does an operation, and answers it.
    pub(super) fn run(&mut self, mut operation: Boxed) {
        self.notice();
        let mut tx = AnyTx::Postgres(Tx { connection: self, state: State::Outside });
        operation.run(&mut tx);
        // Before anybody goes on: what it left open is given up.
        drop(tx);
        operation.answer(None);
    }

    /// Hears what the server said since the last statement: that the connection has ended, perhaps.
    fn notice(&mut self) {
        let Some(session) = &self.session else { return };
        self.runtime.block_on(async {
            // Once for the socket, and once for the courier that it wakes.
            tokio::task::yield_now().await;
            tokio::task::yield_now().await;
        });
        if session.client.is_closed() {
            self.give_up();
        }
    }

    fn open(&mut self) -> Result<()> {
        let Access { config, tls, patience } = &*self.access;
        let opening = async {
            let (client, courier) = match tls {
                None => connect(config, NoTls).await?,
                Some(tls) => connect(config, tls.clone()).await?,
            };
            client.batch_execute(WITHOUT_JIT).await?;
            Ok(Session { client, courier, statements: RefCell::default() })
        };
        let session = wait(&self.runtime, *patience, opening);
        let session = session.ok_or_else(|| {
            Error::unavailable(anyhow::anyhow!("the database let nobody in before the timeout"))
        })?;
        self.session =
            Some(session.map_err(|error: tokio_postgres::Error| Error::unavailable(error))?);
        Ok(())
    }

    /// Closes it at once, whatever the server is doing for it.
    fn give_up(&mut self) {
        if let Some(Session { courier, .. }) = self.session.take() {
            courier.abort();
            let _ = self.runtime.block_on(courier);
        }
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        if let Some(Session { client, courier, .. }) = self.session.take() {
            drop(client);
            wait(&self.runtime, FAREWELL, courier);
        }
    }
}

/// On the runtime in which this is waited for.
#[expect(
    clippy::disallowed_methods,
    reason = "ends with its connection, and runs in its runtime only"
)]
async fn connect<T>(config: &Config, tls: T) -> Answer<(Client, JoinHandle<()>)>
where
    T: tokio_postgres::tls::MakeTlsConnect<tokio_postgres::Socket>,
    T::Stream: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (client, connection) = config.connect(tls).await?;
    // Whoever waits for a statement hears of its end.
    let courier = tokio::spawn(async move { drop(connection.await) });
    Ok((client, courier))
}

fn wait<T>(runtime: &Runtime, patience: Duration, work: impl Future<Output = T>) -> Option<T> {
    runtime.block_on(async { tokio::time::timeout(patience, work).await.ok() })
}

/// What the server was told of a transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Of none: each statement is one.
    Outside,
    /// Its beginning goes with its first statement.
    Due,
    Inside,
    /// A statement in it failed, so that it cannot be committed.
    Failed,
    /// It ended with its connection.
    Lost,
}

pub(crate) struct Tx<'a> {
    connection: &'a mut Connection,
    state: State,
}

impl fmt::Debug for Tx<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tx").field("state", &self.state).finish_non_exhaustive()
    }
}

impl Drop for Tx<'_> {
    fn drop(&mut self) {
        if matches!(self.state, State::Inside | State::Failed) {
            self.connection.give_up();
        }
    }
}

fn ours<'a, 'b>(tx: &'a mut AnyTx<'b>) -> Result<&'a mut Tx<'b>> {
    match tx {
        AnyTx::Postgres(tx) => Ok(tx),
        AnyTx::Sqlite(_) => Err(Error::Bug("a transaction of another database")),
    }
}

/// Runs a closure as one transaction.
pub(super) fn transaction<T>(
    tx: &mut AnyTx<'_>,
    work: impl FnOnce(&mut AnyTx<'_>) -> Result<T>,
) -> Result<T> {
    ours(tx)?.state = State::Due;
    let result = work(tx);
    let tx = ours(tx)?;
    match result {
        Ok(value) => tx.commit().map(|()| value),
        Err(error) => {
            tx.roll_back();
            Err(error)
        }
    }
}

impl Tx<'_> {
    fn commit(&mut self) -> Result<()> {
        match self.state {
            State::Outside | State::Due => self.state = State::Outside,
            State::Inside => {
                let committed = self.run(async |it| it.client.batch_execute("commit").await);
                // Whatever the server said, it has ended the transaction.
                self.state = if self.state == State::Lost { State::Lost } else { State::Outside };
                committed.map_err(|error| match error {
                    // The server said no: nothing was committed. Anything else: who knows.
                    Error::Constraint(_) | Error::Conflict(_) => error,
                    other => Error::CommitUnknown(anyhow::anyhow!(other.detail())),
                })?;
            }
            State::Failed => return Err(Error::Bug("a statement failed and nobody said so")),
            State::Lost => return Err(lost()),
        }
        Ok(())
    }

    /// Where this fails, the connection is given up, and what its caller says is why it was tried.
    fn roll_back(&mut self) {
        match self.state {
            State::Inside | State::Failed => {
                let ended =
                    self.run(async |session| session.client.batch_execute("rollback").await);
                if ended.is_ok() {
                    self.state = State::Outside;
                }
            }
            State::Outside | State::Due | State::Lost => self.state = State::Outside,
        }
    }

    pub(in crate::store::driver) fn query(
        &mut self,
        sql: &str,
        params: &[Value<'_>],
    ) -> Result<Vec<Row>> {
        let params: Vec<&(dyn ToSql + Sync)> = params.iter().map(|it| it as _).collect();
        self.rows(sql, &params)
    }

    pub(in crate::store::driver) fn execute(
        &mut self,
        sql: &str,
        params: &[Value<'_>],
    ) -> Result<u64> {
        let params: Vec<&(dyn ToSql + Sync)> = params.iter().map(|it| it as _).collect();
        self.run(async |session| {
            let statement = session.prepare(sql).await?;
            session.client.execute(&statement, &params).await
        })
    }

    pub(in crate::store::driver) fn insert(
        &mut self,
        sql: &str,
        rows: &[Vec<Value<'_>>],
    ) -> Result<Vec<Row>> {
        let n_columns = rows.first().map_or(0, Vec::len);
        let columns: Vec<Column<'_>> = (0..n_columns).map(|index| Column { rows, index }).collect();
        let params: Vec<&(dyn ToSql + Sync)> = columns.iter().map(|it| it as _).collect();
        self.rows(sql, &params)
    }

    pub(in crate::store::driver) fn script(&mut self, sql: &str) -> Result<()> {
        let sql = rewrite(sql, Dialect::Postgres);
        self.run(async |session| session.client.batch_execute(&sql).await)
    }

    pub(in crate::store::driver) fn now(&mut self) -> Result<Timestamp> {
        let sql = "select (extract(epoch from clock_timestamp()) * 1000)::bigint";
        let mut rows = self.rows(sql, &[])?;
        rows.first_mut().ok_or(Error::Bug("no time"))?.time(0)
    }

    fn rows(&mut self, sql: &str, params: &[&(dyn ToSql + Sync)]) -> Result<Vec<Row>> {
        let query = async |session: &Session| {
            let statement = session.prepare(sql).await?;
            session.client.query(&statement, params).await
        };
        let rows =
            if sql.starts_with("select") { self.begin_with(query) } else { self.run(query) }?;
        rows.iter().map(read_row).collect()
    }

    /// Waits for the database, once the transaction has begun where it is to.
    fn run<T, F>(&mut self, work: F) -> Result<T>
    where
        F: AsyncFnOnce(&Session) -> Answer<T>,
    {
        if self.state == State::Due {
            self.begin_with(async |_| Ok(()))?;
        }
        self.begin_with(work)
    }

    /// Waits for the database. Where the transaction is to begin, that is sent along: for work that changes
    /// nothing, as nobody would undo what it did if its transaction did not begin.
    fn begin_with<T, F>(&mut self, work: F) -> Result<T>
    where
        F: AsyncFnOnce(&Session) -> Answer<T>,
    {
        if self.state == State::Lost {
            return Err(lost());
        }
        if self.connection.session.is_none() {
            self.connection.open()?;
        }
        let Connection { runtime, access, session } = &*self.connection;
        let Some(session) = session else { return Err(lost()) };
        let is_due = self.state == State::Due;
        let answer = wait(runtime, access.patience, async {
            if !is_due {
                return Ok(work(session).await);
            }
            let (begun, answer) = join(session.client.batch_execute("begin"), work(session)).await;
            begun.map(|()| answer)
        });
        match answer {
            Some(Ok(Ok(value))) => {
                self.state = if is_due { State::Inside } else { self.state };
                return Ok(value);
            }
            Some(Ok(Err(error))) if error.as_db_error().is_some() => {
                let is_outside = self.state == State::Outside;
                self.state = if is_outside { State::Outside } else { State::Failed };
                return Err(from_postgres(error));
            }
            _ => {}
        }
        // It may still be busy, and nobody may inherit its transaction.
        self.state = State::Lost;
        self.connection.give_up();
        Err(match answer {
            Some(Ok(Err(error)) | Err(error)) => from_postgres(error),
            _ => Error::unavailable(anyhow::anyhow!("a statement timed out")),
        })
    }
}

fn lost() -> Error {
    Error::unavailable(anyhow::anyhow!("the connection was lost"))
}

impl Session {
    async fn prepare(&self, sql: &str) -> Answer<Statement> {
        let known = self.statements.borrow().get(sql).cloned();
        if let Some(statement) = known {
            return Ok(statement);
        }
        let statement = self.client.prepare(&rewrite(sql, Dialect::Postgres)).await?;
        self.statements.borrow_mut().insert(sql.to_owned(), statement.clone());
        Ok(statement)
    }
}

fn read_row(row: &tokio_postgres::Row) -> Result<Row> {
    let value = |index: usize, kind: &Type| -> std::result::Result<_, tokio_postgres::Error> {
        Ok(match *kind {
            Type::TEXT | Type::VARCHAR | Type::NAME => {
                row.try_get::<_, Option<String>>(index)?.into()
            }
            Type::INT8 => row.try_get::<_, Option<i64>>(index)?.map_or(Value::Null, Value::Int),
            Type::INT4 => row
                .try_get::<_, Option<i32>>(index)?
                .map_or(Value::Null, |int| Value::Int(i64::from(int))),
            Type::BOOL => row
                .try_get::<_, Option<bool>>(index)?
                .map_or(Value::Null, |flag| Value::Int(i64::from(flag))),
            _ => row
                .try_get::<_, Option<Vec<u8>>>(index)?
                .map_or(Value::Null, |bytes| Value::Bytes(Bytes::from(bytes))),
        })
    };
    let values =
        row.columns().iter().enumerate().map(|(index, column)| value(index, column.type_()));
    values.collect::<std::result::Result<Vec<_>, _>>().map(Row).map_err(Error::corrupt)
}

type Encoded = std::result::Result<IsNull, Box<dyn std::error::Error + Sync + Send>>;

impl ToSql for Value<'_> {
    fn to_sql(&self, kind: &Type, out: &mut BytesMut) -> Encoded {
        match self {
            Value::Null => Ok(IsNull::Yes),
            Value::Text(text) => text.to_sql(kind, out),
            Value::Int(int) if *kind == Type::INT4 => i32::try_from(*int)?.to_sql(kind, out),
            Value::Int(int) => int.to_sql(kind, out),
            Value::Bytes(bytes) => bytes.as_ref().to_sql(kind, out),
        }
    }

    fn accepts(_kind: &Type) -> bool {
        true
    }

    to_sql_checked!();
}

/// One column of many rows, sent as an array.
#[derive(Debug)]
struct Column<'a> {
    rows: &'a [Vec<Value<'a>>],
    index: usize,
}

impl ToSql for Column<'_> {
    fn to_sql(&self, kind: &Type, out: &mut BytesMut) -> Encoded {
        let values: Vec<&Value> = self.rows.iter().map(|row| &row[self.index]).collect();
        values.to_sql(kind, out)
    }

    fn accepts(_kind: &Type) -> bool {
        true
    }

    to_sql_checked!();
}

/// What an error of PostgreSQL means to a caller.
fn from_postgres(error: tokio_postgres::Error) -> Error {
    let Some(database) = error.as_db_error() else {
        return Error::unavailable(error);
    };
    let code = database.code();
    if code.code().starts_with("23") {
        let constraint = database.constraint().unwrap_or_default();
        return Error::Constraint(format!("{}: {constraint}", database.message()));
    }
    // Operator intervention, insufficient resources, connection trouble, deadlock: try later.
    let transient = ["57", "53", "08", "40", "25", "55", "58"];
    if transient.iter().any(|class| code.code().starts_with(class))
        || *code == SqlState::READ_ONLY_SQL_TRANSACTION
    {
        return Error::unavailable(anyhow::anyhow!("{}: {}", code.code(), database.message()));
    }
    Error::corrupt(anyhow::anyhow!("{}: {}", code.code(), database.message()))
}
