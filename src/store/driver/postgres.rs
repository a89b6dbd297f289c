//! PostgreSQL: a pool, prepared statements and a timeout on every statement.
//!
//! Closures run on blocking threads and wait there for each statement, at most one thread for each
//! pooled connection. Everything is plain tables and statements: no triggers, advisory locks or
//! extensions, so compatible services work too.

use std::{fmt, future::Future, sync::Arc, time::Duration};

use bytes::{Bytes, BytesMut};
use deadpool_postgres::{
    Hook, HookError, Manager, ManagerConfig, Object, Pool, RecyclingMethod, Runtime,
};
use tokio::runtime::Handle;
use tokio_postgres::{
    Config, Statement,
    config::SslMode,
    error::SqlState,
    types::{IsNull, ToSql, Type, to_sql_checked},
};

use super::{
    Lane, Row, Tx as AnyTx,
    value::{Dialect, Value, rewrite},
};
use crate::{
    clock::{Clock, Timestamp},
    metrics::Metrics,
    store::{Error, Options, Result},
};

/// While one waits for its commit, the next batch is written with the other.
const INGEST_CONNECTIONS: usize = 2;

#[derive(Clone)]
pub(crate) struct Postgres {
    pool: Pool,
    /// Of its own for the receive path, which must not wait behind running turns.
    ingest: Pool,
    statement_timeout: Duration,
    url: Arc<str>,
    clock: Clock,
    metrics: Arc<Metrics>,
}

impl fmt::Debug for Postgres {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Postgres").finish_non_exhaustive()
    }
}

/// TLS by rustls with ring and the system's certificates. `None` when the machine has none and the
/// URL does not insist on TLS.
pub(crate) fn tls(config: &Config) -> Result<Option<tokio_postgres_rustls::MakeRustlsConnect>> {
    if config.get_ssl_mode() == SslMode::Disable {
        return Ok(None);
    }
    // A second installation of the same provider is refused, and that is fine.
    let _ = rustls::crypto::ring::default_provider().install_default();
    match tokio_postgres_rustls::MakeRustlsConnect::with_native_certs() {
        Ok((tls, _)) => Ok(Some(tls)),
        Err(_) if config.get_ssl_mode() == SslMode::Prefer => Ok(None),
        Err(_) => Err(Error::unavailable(anyhow::anyhow!(
            "`sslmode=require` needs the system's CA certificates, and none were found"
        ))),
    }
}

/// The connection settings of a `postgres://` URL, with our bounds filled in.
pub(crate) fn config(url: &str) -> Result<Config> {
    let mut config: Config = url.parse().map_err(Error::unavailable)?;
    if config.get_connect_timeout().is_none() {
        config.connect_timeout(Duration::from_secs(5));
    }
    if config.get_application_name().is_none() {
        config.application_name("bellpull");
    }
    Ok(config)
}

impl Postgres {
    pub(crate) async fn open(
        url: &str,
        options: &Options,
        clock: Clock,
        metrics: Arc<Metrics>,
    ) -> Result<Postgres> {
        let config = config(url)?;
        let timeout = Duration::from_secs(options.statement_seconds_max);
        let pool = open_pool(&config, options.postgres_connections_max, timeout)?;
        let ingest = open_pool(&config, INGEST_CONNECTIONS, timeout)?;
        let statement_timeout = timeout;
        let postgres =
            Postgres { pool, ingest, statement_timeout, url: url.into(), clock, metrics };
        // Fails now, with a reason, rather than at the first delivery.
        postgres.read(|tx| tx.query("select 1", &[])).await?;
        Ok(postgres)
    }

    pub(crate) fn url(&self) -> &str {
        &self.url
    }

    pub(crate) fn metrics(&self) -> &Arc<Metrics> {
        &self.metrics
    }

    pub(crate) async fn read<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut AnyTx<'_>) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        blocking(&self.pool, self.statement_timeout, work).await
    }

    pub(crate) async fn transaction<T: Send + 'static>(
        &self,
        lane: Lane,
        work: impl FnOnce(&mut AnyTx<'_>) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let pool = match lane {
            Lane::Ingest => &self.ingest,
            Lane::Work => &self.pool,
        };
        let (clock, metrics) = (self.clock.clone(), self.metrics.clone());
        blocking(pool, self.statement_timeout, move |tx| {
            let started = clock.monotonic();
            simple(tx, "begin")?;
            match work(tx) {
                Ok(value) => {
                    simple(tx, "commit").map_err(|error| match error {
                        // The server said no: nothing was committed. Anything else: who knows.
                        Error::Constraint(_) | Error::Conflict(_) => error,
                        other => Error::CommitUnknown(anyhow::anyhow!(other.detail())),
                    })?;
                    metrics.committed(clock.monotonic() - started);
                    Ok(value)
                }
                Err(error) => {
                    // Where this fails, the connection is given up, and the reason is the first one.
                    let _ = simple(tx, "rollback");
                    Err(error)
                }
            }
        })
        .await
    }

    pub(crate) fn close(&self) {
        self.pool.close();
        self.ingest.close();
    }
}

fn open_pool(config: &Config, connections_max: usize, timeout: Duration) -> Result<Pool> {
    let manager_config = ManagerConfig { recycling_method: RecyclingMethod::Fast };
    let manager = match tls(config)? {
        None => Manager::from_config(config.clone(), tokio_postgres::NoTls, manager_config),
        Some(tls) => Manager::from_config(config.clone(), tls, manager_config),
    };
    Pool::builder(manager)
        .max_size(connections_max)
        .wait_timeout(Some(timeout))
        .create_timeout(Some(timeout))
        .runtime(Runtime::Tokio1)
        .post_create(Hook::async_fn(|client, _| {
            Box::pin(
                async move { client.batch_execute(WITHOUT_JIT).await.map_err(HookError::Backend) },
            )
        }))
        .build()
        .map_err(Error::unavailable)
}

/// Our statements are short, and those that look at every agent seem so dear that the server would compile
/// them each time, for longer than they run. Services that only speak as PostgreSQL does may not know it.
const WITHOUT_JIT: &str =
    "select set_config('jit', 'off', false) from pg_settings where name = 'jit'";

/// Runs a closure on a thread that may wait, with a connection of a pool.
async fn blocking<T: Send + 'static>(
    pool: &Pool,
    timeout: Duration,
    work: impl FnOnce(&mut AnyTx<'_>) -> Result<T> + Send + 'static,
) -> Result<T> {
    let client = pool.get().await.map_err(Error::unavailable)?;
    let handle = Handle::current();
    let task = tokio::task::spawn_blocking(move || {
        let mut tx = AnyTx::Postgres(Tx { client: Some(client), handle: &handle, timeout });
        work(&mut tx)
    });
    task.await.unwrap_or(Err(Error::Bug("an operation panicked")))
}

fn simple(tx: &mut AnyTx<'_>, sql: &str) -> Result<()> {
    tx.script(sql)
}

pub(crate) struct Tx<'a> {
    /// Gone once a statement timed out or the connection broke: it is not reused.
    client: Option<Object>,
    handle: &'a Handle,
    timeout: Duration,
}

impl fmt::Debug for Tx<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tx").finish_non_exhaustive()
    }
}

impl Drop for Tx<'_> {
    /// A closure that panicked left its transaction open; that connection must not be reused.
    fn drop(&mut self) {
        if std::thread::panicking()
            && let Some(client) = self.client.take()
        {
            drop(Object::take(client));
        }
    }
}

impl Tx<'_> {
    pub(super) fn query(&mut self, sql: &str, params: &[Value<'_>]) -> Result<Vec<Row>> {
        let params: Vec<&(dyn ToSql + Sync)> = params.iter().map(|it| it as _).collect();
        self.rows(sql, &params)
    }

    pub(super) fn execute(&mut self, sql: &str, params: &[Value<'_>]) -> Result<u64> {
        let params: Vec<&(dyn ToSql + Sync)> = params.iter().map(|it| it as _).collect();
        self.run(async |client| {
            let statement = prepare(client, sql).await?;
            client.execute(&statement, &params).await
        })
    }

    pub(super) fn insert(&mut self, sql: &str, rows: &[Vec<Value<'_>>]) -> Result<Vec<Row>> {
        let n_columns = rows.first().map_or(0, Vec::len);
        let columns: Vec<Column<'_>> = (0..n_columns).map(|index| Column { rows, index }).collect();
        let params: Vec<&(dyn ToSql + Sync)> = columns.iter().map(|it| it as _).collect();
        self.rows(sql, &params)
    }

    pub(super) fn script(&mut self, sql: &str) -> Result<()> {
        let sql = rewrite(sql, Dialect::Postgres);
        self.run(async |client| client.batch_execute(&sql).await)
    }

    pub(super) fn now(&mut self) -> Result<Timestamp> {
        let sql = "select (extract(epoch from clock_timestamp()) * 1000)::bigint";
        let mut rows = self.rows(sql, &[])?;
        rows.first_mut().ok_or(Error::Bug("no time"))?.time(0)
    }

    fn rows(&mut self, sql: &str, params: &[&(dyn ToSql + Sync)]) -> Result<Vec<Row>> {
        let rows = self.run(async |client| {
            let statement = prepare(client, sql).await?;
            client.query(&statement, params).await
        })?;
        rows.iter().map(read_row).collect()
    }

    /// Waits for the database with the statement timeout. A connection that did not answer in time
    /// is given up: it may still be busy, and nobody may inherit its transaction.
    fn run<T, F>(&mut self, work: F) -> Result<T>
    where
        F: AsyncFnOnce(&Object) -> std::result::Result<T, tokio_postgres::Error>,
    {
        let Some(client) = &self.client else {
            return Err(Error::unavailable(anyhow::anyhow!("the connection was lost")));
        };
        let error = match wait(self.handle, self.timeout, work(client)) {
            Some(Ok(value)) => return Ok(value),
            Some(Err(error)) if error.as_db_error().is_some() => return Err(from_postgres(error)),
            Some(Err(error)) => from_postgres(error),
            None => Error::unavailable(anyhow::anyhow!("a statement timed out")),
        };
        if let Some(client) = self.client.take() {
            drop(Object::take(client));
        }
        Err(error)
    }
}

fn wait<T>(handle: &Handle, timeout: Duration, work: impl Future<Output = T>) -> Option<T> {
    handle.block_on(async { tokio::time::timeout(timeout, work).await.ok() })
}

async fn prepare(
    client: &Object,
    sql: &str,
) -> std::result::Result<Statement, tokio_postgres::Error> {
    client.prepare_cached(&rewrite(sql, Dialect::Postgres)).await
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
