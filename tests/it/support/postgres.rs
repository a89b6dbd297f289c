//! PostgreSQL for tests: one server for the whole run, a database of its own for every test.

use std::{thread, time::Duration};

use tokio_postgres::{NoTls, error::SqlState};

/// The server that `./test` started, as a URL of its maintenance database.
///
/// A test of PostgreSQL has `postgres` in its name or in its module's name: by that
/// `./test --full` selects it for the second major version.
#[expect(clippy::disallowed_methods, reason = "the tests have no config to read the environment")]
pub fn postgres_url() -> String {
    std::env::var("BELLPULL_TEST_POSTGRES_URL").unwrap_or_else(|_| {
        panic!(
            "this test needs PostgreSQL and BELLPULL_TEST_POSTGRES_URL is not set: run ./test, or \
             ./test --postgres in another terminal and export the line that it prints"
        )
    })
}

/// An empty database that exists as long as this value.
///
/// Everything blocks on a thread of its own, so that it works the same in tests with and without a
/// runtime. Dropping it ends the connections that are still open.
#[derive(Debug)]
pub struct TestDatabase {
    server: String,
    name: String,
}

impl TestDatabase {
    pub fn create() -> TestDatabase {
        let server = postgres_url();
        let name = format!("bp_{}", uuid::Uuid::now_v7().simple());
        // template0, because nobody can be connected to it, which would make `create` fail.
        execute(&server, &format!("create database {name} template template0"))
            .unwrap_or_else(|error| panic!("creating the test database {name}: {error:?}"));
        TestDatabase { server, name }
    }

    pub fn url(&self) -> String {
        with_database(&self.server, &self.name)
    }
}

impl Drop for TestDatabase {
    fn drop(&mut self) {
        // Left-overs go with the server; failing here would hide why the test itself failed.
        if let Err(error) =
            execute(&self.server, &format!("drop database {} with (force)", self.name))
        {
            eprintln!("the test database {} stays behind: {error:?}", self.name);
        }
    }
}

/// `url` with its database replaced.
fn with_database(url: &str, database: &str) -> String {
    let (base, parameters) = match url.split_once('?') {
        Some((base, parameters)) => (base, format!("?{parameters}")),
        None => (url, String::new()),
    };
    let authority = base.find("://").map_or(0, |at| at + 3);
    let base = match base[authority..].find('/') {
        Some(at) => &base[..authority + at],
        None => base,
    };
    format!("{base}/{database}{parameters}")
}

/// Runs one statement on a connection of its own. Waits, within a bound, for what passes by itself:
/// a server that is short of connections, and a template that another test is copying.
fn execute(url: &str, statement: &str) -> Result<(), tokio_postgres::Error> {
    const ATTEMPTS_MAX: u32 = 50;
    const PAUSE: Duration = Duration::from_millis(200);
    let attempts = async || {
        let mut attempt = 1;
        loop {
            match execute_once(url, statement).await {
                Err(error) if passes(&error) && attempt < ATTEMPTS_MAX => {
                    attempt += 1;
                    tokio::time::sleep(PAUSE).await;
                }
                result => return result,
            }
        }
    };
    thread::scope(|scope| {
        let thread = scope.spawn(|| {
            tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .expect("a runtime can be built")
                .block_on(attempts())
        });
        thread.join().expect("the thread of the statement does not panic")
    })
}

async fn execute_once(url: &str, statement: &str) -> Result<(), tokio_postgres::Error> {
    let (client, connection) = tokio_postgres::connect(url, NoTls).await?;
    let work = async move { client.batch_execute(statement).await };
    let (result, _) = tokio::join!(work, connection);
    result
}

fn passes(error: &tokio_postgres::Error) -> bool {
    [SqlState::OBJECT_IN_USE, SqlState::TOO_MANY_CONNECTIONS, SqlState::CANNOT_CONNECT_NOW]
        .iter()
        .any(|state| error.code() == Some(state))
}

#[test]
fn the_database_of_a_url_is_replaced() {
    let check = |url: &str, expected: &str| assert_eq!(with_database(url, "new"), expected);
    check("postgres://u@h:1/old", "postgres://u@h:1/new");
    check("postgres://u:p@h:1/old?sslmode=disable", "postgres://u:p@h:1/new?sslmode=disable");
    check("postgres://h", "postgres://h/new");
}

#[tokio::test]
async fn test_databases_are_separate_and_go_away() {
    let n_databases = if super::full() { 16 } else { 3 };
    let databases = thread::scope(|scope| {
        let threads: Vec<_> = (0..n_databases).map(|_| scope.spawn(TestDatabase::create)).collect();
        threads.into_iter().map(|thread| thread.join().expect("created")).collect::<Vec<_>>()
    });
    for database in &databases {
        execute(&database.url(), "create table only_here (n bigint)").expect("each is empty");
    }

    // A connection that is open does not keep its database alive.
    let url = databases[0].url();
    let (client, connection) = tokio_postgres::connect(&url, NoTls).await.expect("connects");
    let work = async {
        client.batch_execute("select n from only_here").await.expect("works while it exists");
        drop(databases);
        client.batch_execute("select n from only_here").await
    };
    let (result, _) = tokio::join!(work, connection);
    assert!(result.is_err(), "the connection was ended");
    let gone = tokio_postgres::connect(&url, NoTls).await.err().expect("the database is gone");
    assert_eq!(gone.code(), Some(&SqlState::INVALID_CATALOG_NAME));
}
