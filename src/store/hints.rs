//! Hints between nodes: LISTEN/NOTIFY on one connection per node.
//!
//! A hint says only that a look may be worth while; polling finds the same things a moment later, so
//! a lost or doubled hint changes nothing but the delay. Hints are gathered for a moment and never
//! sent inside the transactions that write, where they would cost most of the throughput.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use futures_util::{StreamExt, stream};
use tokio::sync::mpsc;
use tokio_postgres::AsyncMessage;

use super::{
    Error, Result, Store,
    driver::{Driver, postgres},
};
use crate::id::SessionId;

/// Where to look.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Hint {
    /// Some session is due.
    Due,
    /// This session's log or inbox has grown.
    Changed(SessionId),
}

const CHANNEL: &str = "bellpull";

/// How long hints are gathered before they are sent together.
const GATHER: Duration = Duration::from_millis(2);

/// More than this and "look everywhere" says it shorter. A payload may have 8000 bytes.
const HINTS_MAX: usize = 100;

impl Store {
    /// Exchanges hints with the other nodes until the connection breaks; the caller calls again.
    /// On SQLite there are no other nodes, and this never returns.
    pub async fn exchange_hints(
        &self,
        outgoing: &mut mpsc::Receiver<Hint>,
        incoming: impl Fn(Hint) + Send,
    ) -> Result<()> {
        let Driver::Postgres(database) = &self.driver else {
            while outgoing.recv().await.is_some() {}
            return std::future::pending().await;
        };
        let config = postgres::config(database.url())?;
        match postgres::tls(&config)? {
            None => {
                let (client, connection) =
                    config.connect(tokio_postgres::NoTls).await.map_err(Error::unavailable)?;
                run(client, connection, outgoing, incoming).await
            }
            Some(tls) => {
                let (client, connection) = config.connect(tls).await.map_err(Error::unavailable)?;
                run(client, connection, outgoing, incoming).await
            }
        }
    }
}

async fn run<S, T>(
    client: tokio_postgres::Client,
    mut connection: tokio_postgres::Connection<S, T>,
    outgoing: &mut mpsc::Receiver<Hint>,
    incoming: impl Fn(Hint) + Send,
) -> Result<()>
where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin,
    T: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin,
{
    let client = Arc::new(client);
    let mut messages = stream::poll_fn(move |context| connection.poll_message(context));
    let receive = async {
        while let Some(message) = messages.next().await {
            match message {
                Ok(AsyncMessage::Notification(note)) => read(note.payload()).for_each(&incoming),
                Ok(_) => {}
                Err(error) => return Err(Error::unavailable(error)),
            }
        }
        Err(Error::unavailable(anyhow::anyhow!("the connection for hints was closed")))
    };
    let send = async {
        client.batch_execute(&format!("listen {CHANNEL}")).await.map_err(Error::unavailable)?;
        while let Some(first) = outgoing.recv().await {
            tokio::time::sleep(GATHER).await;
            let mut hints = BTreeSet::from([first]);
            while hints.len() < HINTS_MAX
                && let Ok(hint) = outgoing.try_recv()
            {
                hints.insert(hint);
            }
            let payload = hints.iter().map(write).collect::<Vec<_>>().join(" ");
            let statement = "select pg_notify($1, $2)";
            client.execute(statement, &[&CHANNEL, &payload]).await.map_err(Error::unavailable)?;
        }
        // The node is stopping.
        Ok(())
    };
    tokio::select! {
        result = receive => result,
        result = send => result,
    }
}

fn write(hint: &Hint) -> String {
    match hint {
        Hint::Due => "due".to_owned(),
        Hint::Changed(session) => session.to_string(),
    }
}

/// Unknown words are another version's; they are passed over.
fn read(payload: &str) -> impl Iterator<Item = Hint> {
    payload.split(' ').filter_map(|word| match word {
        "due" => Some(Hint::Due),
        word => word.parse().ok().map(Hint::Changed),
    })
}
