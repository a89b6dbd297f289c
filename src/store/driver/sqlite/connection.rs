//! A connection: how it is opened, and how a transaction speaks through it.

use std::{collections::HashMap, fmt, path::Path, sync::Arc};

use rusqlite::{
    Connection, ErrorCode, OpenFlags, ToSql,
    config::DbConfig,
    types::{ToSqlOutput, ValueRef},
};

use super::{
    super::value::{ByText, Dialect, Value, repeated, rewrite},
    Row,
};
use crate::{
    clock::{Clock, Timestamp},
    store::{Error, Result},
};

/// Statements kept prepared on each connection; the crate has about a hundred texts.
const STATEMENTS_CACHED: usize = 256;

pub(super) fn open_writer(path: &Path) -> Result<Connection> {
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

/// For whoever copies the log back into the file.
pub(super) fn open_checkpointer(path: &Path) -> Result<Connection> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags).map_err(from_sqlite)?;
    // Pages pass through it once.
    let pragmas = "pragma synchronous = full; pragma cache_size = -256;";
    connection.execute_batch(pragmas).map_err(from_sqlite)?;
    Ok(connection)
}

/// Copies of the log what nobody needs there any more. Waits for nobody.
pub(super) fn copy_back(connection: &Connection) -> Result<()> {
    let pragma = "pragma wal_checkpoint(passive)";
    connection.query_row(pragma, [], |_| Ok(())).map_err(from_sqlite)
}

pub(super) fn open_reader(path: &Path) -> Result<Connection> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags).map_err(from_sqlite)?;
    let pragmas = "pragma busy_timeout = 5000; pragma cache_size = -8192;";
    connection.execute_batch(pragmas).map_err(from_sqlite)?;
    Ok(connection)
}

/// A connection and the texts that were already put into SQLite's words.
pub(super) struct Prepared {
    connection: Connection,
    texts: ByText<Arc<str>>,
    /// Of inserts, by their number of rows.
    row_texts: ByText<HashMap<usize, Arc<str>>>,
    is_synced: bool,
}

impl Prepared {
    pub(super) fn new(connection: Connection) -> Result<Prepared> {
        connection.set_prepared_statement_cache_capacity(STATEMENTS_CACHED);
        // Plans do not depend on parameters. SQLite would else look at some of them, as that of a
        // `limit`, and compile the statement anew each time that one is bound, which took a third of a
        // turn's instructions.
        let stable = DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG;
        connection.set_db_config(stable, true).map_err(from_sqlite)?;
        let (texts, row_texts) = (ByText::default(), ByText::default());
        Ok(Prepared { connection, texts, row_texts, is_synced: true })
    }

    fn text(&mut self, sql: &str) -> Arc<str> {
        if let Some(text) = self.texts.get(sql) {
            return text.clone();
        }
        let text: Arc<str> = rewrite(sql, Dialect::Sqlite).into();
        self.texts.insert(sql.to_owned(), text.clone());
        text
    }

    /// The text that inserts so many rows at once. A row that cannot go in leaves the ones before it
    /// there, which is all one: the operation has failed and is undone as a whole. Otherwise SQLite
    /// would keep a copy of every page that the statement touches.
    fn rows_text(&mut self, sql: &str, n: usize) -> Arc<str> {
        let known = self.row_texts.get(sql).and_then(|texts| texts.get(&n));
        if let Some(text) = known {
            return text.clone();
        }
        let text = rewrite(&repeated(sql, n), Dialect::Sqlite);
        let text: Arc<str> = text.replacen("insert into", "insert or fail into", 1).into();
        self.row_texts.entry(sql.to_owned()).or_default().insert(n, text.clone());
        text
    }

    pub(super) fn batch(&self, sql: &str) -> Result<()> {
        let mut statement = self.connection.prepare_cached(sql).map_err(from_sqlite)?;
        statement.raw_execute().map(|_| ()).map_err(from_sqlite)
    }

    /// Whether the next commits are synced by themselves. Kept, as it is asked for at each of them.
    pub(super) fn set_synced(&mut self, is_synced: bool) -> Result<()> {
        if self.is_synced != is_synced {
            let pragma =
                format!("pragma synchronous = {}", if is_synced { "full" } else { "normal" });
            // Not one of the prepared: it takes effect as it is prepared.
            self.connection.execute_batch(&pragma).map_err(from_sqlite)?;
            self.is_synced = is_synced;
        }
        Ok(())
    }

    /// Pages in the log at which the writer itself copies it back, between two commits.
    pub(super) fn copy_back_at(&self, pages: u32) -> Result<()> {
        let pragma = format!("pragma wal_autocheckpoint = {pages}");
        self.connection.query_row(&pragma, [], |_| Ok(())).map_err(from_sqlite)
    }

    /// Copies of the log what nobody needs there any more. Where that fails, it goes on growing, and
    /// the next commits say why.
    pub(super) fn copy_back(&self) {
        let _ = copy_back(&self.connection);
    }

    /// Rows that were changed since it was opened.
    pub(super) fn n_changes(&self) -> u64 {
        self.connection.total_changes()
    }

    /// Whether no transaction is open.
    pub(super) fn is_autocommit(&self) -> bool {
        self.connection.is_autocommit()
    }

    pub(super) fn checkpoint(&self) -> Result<()> {
        let pragma = "pragma wal_checkpoint(truncate)";
        self.connection.execute_batch(pragma).map_err(from_sqlite)
    }

    pub(super) fn roll_back(&self) {
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

impl<'a> Tx<'a> {
    pub(super) fn new(prepared: &'a mut Prepared, clock: &'a Clock) -> Tx<'a> {
        Tx { prepared, clock }
    }
}

impl fmt::Debug for Tx<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tx").finish_non_exhaustive()
    }
}

impl Tx<'_> {
    pub(in crate::store::driver) fn query(
        &mut self,
        sql: &str,
        params: &[Value<'_>],
    ) -> Result<Vec<Row>> {
        let text = self.prepared.text(sql);
        let mut statement = self.prepared.connection.prepare_cached(&text).map_err(from_sqlite)?;
        let mut out = Vec::new();
        collect(&mut statement, params, &mut out)?;
        Ok(out)
    }

    pub(in crate::store::driver) fn execute(
        &mut self,
        sql: &str,
        params: &[Value<'_>],
    ) -> Result<u64> {
        let text = self.prepared.text(sql);
        let mut statement = self.prepared.connection.prepare_cached(&text).map_err(from_sqlite)?;
        let n = statement.execute(rusqlite::params_from_iter(params)).map_err(from_sqlite)?;
        Ok(n as u64)
    }

    pub(in crate::store::driver) fn insert(
        &mut self,
        sql: &str,
        rows: &[Vec<Value<'_>>],
    ) -> Result<()> {
        groups(rows).try_for_each(|group| self.insert_group(sql, group).map(drop))
    }

    /// Tells of each row whether it went in. Not by `returning`, for which SQLite builds a table of
    /// its own for every row: where some of a group did not, `look` is asked for each.
    pub(in crate::store::driver) fn insert_new(
        &mut self,
        sql: &str,
        look: &str,
        rows: &[Vec<Value<'_>>],
    ) -> Result<Vec<bool>> {
        let mut is_new = Vec::with_capacity(rows.len());
        for group in groups(rows) {
            let n_new = self.insert_group(sql, group)?;
            if n_new == 0 || n_new == group.len() {
                is_new.extend(group.iter().map(|_| n_new > 0));
                continue;
            }
            let text = self.prepared.text(look);
            let mut look = self.prepared.connection.prepare_cached(&text).map_err(from_sqlite)?;
            for row in group {
                let key = row.iter().take(look.parameter_count());
                let found = look.exists(rusqlite::params_from_iter(key)).map_err(from_sqlite)?;
                is_new.push(found);
            }
        }
        Ok(is_new)
    }

    /// Rows that one statement inserts; the number of those that went in.
    fn insert_group(&mut self, sql: &str, rows: &[Vec<Value<'_>>]) -> Result<usize> {
        let text = self.prepared.rows_text(sql, rows.len());
        let mut statement = self.prepared.connection.prepare_cached(&text).map_err(from_sqlite)?;
        statement.execute(rusqlite::params_from_iter(rows.iter().flatten())).map_err(from_sqlite)
    }

    pub(in crate::store::driver) fn script(&mut self, sql: &str) -> Result<()> {
        let text = rewrite(sql, Dialect::Sqlite);
        self.prepared.connection.execute_batch(&text).map_err(from_sqlite)
    }

    pub(in crate::store::driver) fn now(&self) -> Timestamp {
        self.clock.steady()
    }
}

/// Rows that one statement inserts at most. While it runs, its cursors stay where they are, which for
/// keys that grow is where the next row goes.
const GROUP_MAX: usize = 16;

/// In groups of powers of two, so that their statements are few and stay prepared.
fn groups<T>(rows: &[T]) -> impl Iterator<Item = &[T]> {
    let mut rest = rows;
    std::iter::from_fn(move || {
        let n = (rest.len().checked_ilog2().map_or(0, |log| 1 << log)).min(GROUP_MAX);
        let (group, others) = rest.split_at(n);
        rest = others;
        (n > 0).then_some(group)
    })
}

fn collect(
    statement: &mut rusqlite::Statement<'_>,
    params: &[Value<'_>],
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
                    String::from_utf8(text.to_vec()).map_err(Error::corrupt)?.into()
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

impl ToSql for Value<'_> {
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

    #[test]
    fn groups_are_powers_of_two_and_lose_nothing() {
        let rows: Vec<usize> = (0..53).collect();
        let sizes: Vec<usize> = groups(&rows).map(<[usize]>::len).collect();
        assert_eq!(sizes, [16, 16, 16, 4, 1]);
        assert_eq!(groups(&rows).flatten().copied().collect::<Vec<_>>(), rows);
        assert_eq!(groups::<usize>(&[]).count(), 0);
    }

    /// Only its speed would tell otherwise.
    #[test]
    fn a_statement_is_compiled_once_whatever_the_values() {
        let directory = tempfile::tempdir().unwrap();
        let connection = open_writer(&directory.path().join("bellpull.db")).unwrap();
        let connection = Prepared::new(connection).unwrap().connection;
        let schema = "create table due (id integer primary key, at integer);
            create index by_time on due (at) where at is not null;";
        connection.execute_batch(schema).unwrap();
        let select = "select id from due where at <= ?1 order by at limit ?2";
        let mut due = connection.prepare(select).unwrap();
        for at in 0..3 {
            assert!(!due.exists([at, 9]).unwrap());
        }
        assert_eq!(due.get_status(rusqlite::StatementStatus::RePrepare), 0);
        let explain = format!("explain query plan {select}");
        let plan: String = connection.query_row(&explain, [0, 9], |row| row.get(3)).unwrap();
        assert!(plan.contains("by_time"), "{plan}");
    }

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
