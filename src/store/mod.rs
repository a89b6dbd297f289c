//! Storage.

/// How the store uses its database.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// Read-only connections of SQLite.
    pub readers: usize,
    /// Connections of the PostgreSQL pool.
    pub postgres_connections_max: usize,
    /// Seconds after which the client gives up on a PostgreSQL statement.
    pub statement_seconds_max: u64,
}

impl Default for Options {
    fn default() -> Options {
        Options { readers: 3, postgres_connections_max: 16, statement_seconds_max: 15 }
    }
}

/// How long what is finished stays. Nothing with an open outcome is pruned.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Retention {
    /// Days that raw bodies and headers are kept.
    pub bodies_days: u32,
    /// Days that deliveries, and with them their identities, are kept.
    pub identities_days: u32,
}

impl Default for Retention {
    fn default() -> Retention {
        Retention { bodies_days: 7, identities_days: 30 }
    }
}
