//! PostgreSQL: hands with a connection each, prepared statements and a timeout on every statement.
//!
//! Everything is plain tables and statements: no triggers, advisory locks or extensions, so compatible
//! services work too.

mod connection;
mod hands;

use std::{fmt, sync::Arc, time::Duration};

use tokio_postgres::{Config, config::SslMode};

use super::{Lane, Tx as AnyTx};
use crate::{
    clock::Clock,
    metrics::Metrics,
    store::{Error, Options, Result},
};
use connection::Access;
pub(crate) use connection::Tx;
use hands::Crew;

/// While one waits for its commit, the next batch is written with the other.
const INGEST_CONNECTIONS: usize = 2;

#[derive(Clone)]
pub(crate) struct Postgres {
    crew: Arc<Crew>,
    /// Of its own for the receive path, which must not wait behind running turns.
    ingest: Arc<Crew>,
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
        let patience = Duration::from_secs(options.statement_seconds_max);
        let access = Arc::new(Access { tls: tls(&config)?, config, patience });
        let crew = Crew::new("postgres", options.postgres_connections_max, &access);
        let ingest = Crew::new("postgres-ingest", INGEST_CONNECTIONS, &access);
        let postgres = Postgres { crew, ingest, url: url.into(), clock, metrics };
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
        self.crew.run(work).await
    }

    pub(crate) async fn transaction<T: Send + 'static>(
        &self,
        lane: Lane,
        work: impl FnOnce(&mut AnyTx<'_>) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let crew = match lane {
            Lane::Ingest => &self.ingest,
            Lane::Work => &self.crew,
        };
        let (clock, metrics) = (self.clock.clone(), self.metrics.clone());
        crew.run(move |tx| {
            let started = clock.monotonic();
            let value = connection::transaction(tx, work)?;
            metrics.committed(clock.monotonic() - started);
            Ok(value)
        })
        .await
    }

    /// What waits is still done; nothing more is taken.
    pub(crate) fn close(&self) {
        self.crew.close();
        self.ingest.close();
    }
}
