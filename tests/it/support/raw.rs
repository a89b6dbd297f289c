//! SQL behind the product's back: for breaking something on purpose, and for looking at what has no
//! verb. Values come as texts.

use std::{path::Path, time::Duration};

use bellpull::store::Location;

pub type Rows = Vec<Vec<Option<String>>>;

/// Runs several statements.
pub async fn script(location: &Location, sql: &str) {
    match location {
        Location::Sqlite(path) => {
            sqlite(path).execute_batch(sql).expect("the statements work");
        }
        Location::Postgres(url) => drop(postgres_rows(url, sql).await),
    }
}

/// The rows of a statement.
pub async fn sql(location: &Location, sql: &str) -> Rows {
    match location {
        Location::Sqlite(path) => sqlite_rows(path, sql),
        Location::Postgres(url) => postgres_rows(url, sql).await,
    }
}

/// The number that a statement answers.
pub async fn number(location: &Location, text: &str) -> i64 {
    let rows = sql(location, text).await;
    rows[0][0].as_ref().expect("not null").parse().expect("a number")
}

fn sqlite(path: &Path) -> rusqlite::Connection {
    let connection = rusqlite::Connection::open(path).expect("the file is there");
    connection.busy_timeout(Duration::from_secs(10)).expect("a number");
    connection
}

fn sqlite_rows(path: &Path, sql: &str) -> Rows {
    use rusqlite::types::ValueRef;
    let connection = sqlite(path);
    let mut statement = connection.prepare(sql).expect("the statement is right");
    let n_columns = statement.column_count();
    let rows = statement.query_map([], |row| {
        let value = |index| {
            Ok(match row.get_ref(index)? {
                ValueRef::Null => None,
                ValueRef::Integer(int) => Some(int.to_string()),
                ValueRef::Real(real) => Some(real.to_string()),
                ValueRef::Text(text) | ValueRef::Blob(text) => {
                    Some(String::from_utf8_lossy(text).into_owned())
                }
            })
        };
        (0..n_columns).map(value).collect()
    });
    rows.expect("no parameters").collect::<Result<_, _>>().expect("the statement works")
}

async fn postgres_rows(url: &str, sql: &str) -> Rows {
    let (client, connection) =
        tokio_postgres::connect(url, tokio_postgres::NoTls).await.expect("the server is there");
    let work = async move { client.simple_query(sql).await };
    let (messages, _) = tokio::join!(work, connection);
    let messages = messages.expect("the statement works").into_iter();
    messages
        .filter_map(|message| match message {
            tokio_postgres::SimpleQueryMessage::Row(row) => {
                Some((0..row.len()).map(|index| row.get(index).map(str::to_owned)).collect())
            }
            _ => None,
        })
        .collect()
}
