//! What the same HTTP stack does without storage, and with the least that is durable: the yardsticks of
//! the accepts.
//!
//! The same server library with the same settings, the same router, and the work that no receiver
//! can leave out: the bearer token is compared in constant time, the body is read and parsed as JSON
//! and an HMAC-SHA256 is computed over it, the answer is as long as Bellpull's.
//! With a database it also keeps each body as one row of one table and answers after the commit: what
//! this machine lets anybody do who stores with it, with as many rows in a commit as wait for it.

use std::{
    io::{BufRead, BufReader},
    net::SocketAddr,
    path::Path,
    process::{Child, Command, Stdio},
    sync::{Arc, Mutex, PoisonError, mpsc},
};

use axum::{
    Json, Router,
    body::{Body, Bytes, to_bytes},
    extract::{self, Request, State},
    http::{StatusCode, header},
    response::{IntoResponse, Response},
    routing::post,
};
use hyper_util::rt::{TokioIo, TokioTimer};
use ring::{digest, hmac};
use rusqlite::Connection;
use serde_json::{Value, json};
use subtle::ConstantTimeEq;
use tokio::sync::oneshot;
use tower::ServiceExt;

use crate::database::{self, Database};

/// How this program is told to be the baseline.
pub const ARGUMENT: &str = "serve-baseline";

pub const TOKEN: &str = "baseline-token";

/// The baseline as a process of its own, as Bellpull is one.
pub struct Baseline {
    child: Child,
    pub address: SocketAddr,
}

impl Baseline {
    /// Without storage, or with one row for each body in a new database.
    pub fn start(database: Option<&Database>) -> anyhow::Result<Baseline> {
        let place = database.map(|database| match database {
            Database::Sqlite(path) => path.as_os_str(),
            Database::Postgres(url) => url.as_ref(),
        });
        let mut child = Command::new(std::env::current_exe()?)
            .arg(ARGUMENT)
            .args(place)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let mut line = String::new();
        let stdout = child.stdout.take().expect("standard output is a pipe");
        BufReader::new(stdout).read_line(&mut line)?;
        Ok(Baseline { address: line.trim().parse()?, child })
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }
}

impl Drop for Baseline {
    fn drop(&mut self) {
        // Nobody speaks to it any more.
        drop(self.child.stdin.take());
        let _ = self.child.wait();
    }
}

/// A body, and whom to tell that it is committed.
type Row = (Bytes, oneshot::Sender<()>);

/// Serves until its standard input ends, which it does with whoever started it. `database` is the path
/// of one of SQLite, or the URL of one of PostgreSQL.
pub fn serve(database: Option<String>) -> anyhow::Result<()> {
    let keep = |database: String| match database.starts_with("postgres") {
        true => keep_rows_in_postgres(&database),
        false => keep_rows(database.as_ref()),
    };
    let rows = database.map(keep).transpose()?;
    std::thread::spawn(|| {
        let _ = std::io::copy(&mut std::io::stdin(), &mut std::io::sink());
        std::process::exit(0);
    });
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(async {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
        println!("{}", listener.local_addr()?);
        let router = Router::new().route("/api/webhook/{source}", post(receive)).with_state(rows);
        loop {
            let (stream, _) = listener.accept().await?;
            stream.set_nodelay(true)?;
            let router = router.clone();
            let service = hyper::service::service_fn(move |request: Request<_>| {
                router.clone().oneshot(request.map(Body::new))
            });
            let connection = hyper::server::conn::http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(std::time::Duration::from_secs(15))
                .serve_connection(TokioIo::new(stream), service);
            tokio::spawn(connection);
        }
    })
}

/// Opens the database, whose one writer takes what waits into each commit.
fn keep_rows(file: &Path) -> anyhow::Result<mpsc::Sender<Row>> {
    let connection = Connection::open(file)?;
    connection.execute_batch(
        "pragma page_size = 8192; pragma journal_mode = wal; pragma synchronous = full; \
         create table bodies (n integer primary key, body blob not null)",
    )?;
    let (sender, receiver) = mpsc::channel::<Row>();
    std::thread::spawn(move || -> rusqlite::Result<()> {
        while let Ok(first) = receiver.recv() {
            let (bodies, callers): (Vec<Bytes>, Vec<_>) =
                std::iter::once(first).chain(receiver.try_iter()).unzip();
            connection.execute_batch("begin immediate")?;
            let mut insert = connection.prepare_cached("insert into bodies (body) values (?1)")?;
            for body in &bodies {
                insert.execute([&body[..]])?;
            }
            connection.execute_batch("commit")?;
            for caller in callers {
                let _ = caller.send(());
            }
        }
        Ok(())
    });
    Ok(sender)
}

/// Connections that commit at once: as many as Bellpull accepts with.
const POSTGRES_CONNECTIONS: usize = 2;

/// Each connection takes what waits when it is free.
fn keep_rows_in_postgres(url: &str) -> anyhow::Result<mpsc::Sender<Row>> {
    let (sender, receiver) = mpsc::channel::<Row>();
    let receiver = Arc::new(Mutex::new(receiver));
    for n in 0..POSTGRES_CONNECTIONS {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let client = runtime.block_on(database::connect(url))?;
        if n == 0 {
            let table = "create table bodies (n bigserial primary key, body bytea not null)";
            runtime.block_on(client.batch_execute(table))?;
        }
        let insert = "insert into bodies (body) select unnest($1::bytea[])";
        let insert = runtime.block_on(client.prepare(insert))?;
        let receiver = receiver.clone();
        std::thread::spawn(move || -> anyhow::Result<()> {
            loop {
                let (bodies, callers): (Vec<Bytes>, Vec<_>) = {
                    let receiver = receiver.lock().unwrap_or_else(PoisonError::into_inner);
                    std::iter::once(receiver.recv()?).chain(receiver.try_iter()).unzip()
                };
                let bodies: Vec<&[u8]> = bodies.iter().map(|body| &body[..]).collect();
                runtime.block_on(client.execute(&insert, &[&bodies]))?;
                for caller in callers {
                    let _ = caller.send(());
                }
            }
        });
    }
    Ok(sender)
}

async fn receive(
    State(rows): State<Option<mpsc::Sender<Row>>>,
    extract::Path(source): extract::Path<String>,
    request: Request,
) -> Response {
    let (parts, body) = request.into_parts();
    let given = parts.headers.get(header::AUTHORIZATION).and_then(|it| it.to_str().ok());
    let token = given.and_then(|it| it.strip_prefix("Bearer ")).unwrap_or_default();
    let hash = |text: &str| digest::digest(&digest::SHA256, text.as_bytes());
    if !bool::from(hash(token).as_ref().ct_eq(hash(TOKEN).as_ref())) {
        return StatusCode::UNAUTHORIZED.into_response();
    }
    let Ok(body) = to_bytes(body, 25 * 1024 * 1024).await else {
        return StatusCode::PAYLOAD_TOO_LARGE.into_response();
    };
    let Ok(payload) = serde_json::from_slice::<Value>(&body) else {
        return StatusCode::BAD_REQUEST.into_response();
    };
    let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, TOKEN.as_bytes()), &body);
    if let Some(rows) = rows {
        let (sender, committed) = oneshot::channel();
        if rows.send((body, sender)).is_err() || committed.await.is_err() {
            return StatusCode::INTERNAL_SERVER_ERROR.into_response();
        }
    }
    let answer = json!({
        "status": "accepted",
        "agent_id": "agent_00000000000000000000000000",
        "session_id": format!("sesn_{:02x}{:022}", tag.as_ref()[0], 0),
        "delivery_id": format!("dlv_{:024}", payload.as_object().map_or(0, serde_json::Map::len)),
        "request_id": format!("webhook_{source:024}"),
    });
    (StatusCode::ACCEPTED, Json(answer)).into_response()
}
