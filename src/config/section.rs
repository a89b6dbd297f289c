//! Reads the sections: for each module's `Options`, its keys and the range of each.
//!
//! Every field is named, without `..default`: a new option does not compile until it is read here,
//! and the tests then ask for its line in the example and in the docs.

use std::path::PathBuf;

use super::{
    reader::Reader,
    value::{absolute_path, boolean, choice, list, log_filter, number},
};
use crate::{ingest, store, worker};

const KIB: u64 = 1024;
const MIB: u64 = 1024 * KIB;
const GIB: u64 = 1024 * MIB;

/// Which directories agents may work in.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Projects {
    /// A source's `project` must lie in one of these.
    pub roots: Vec<PathBuf>,
}

/// Who may read `/metrics`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Metrics {
    /// Without a key; else with one of scope `read`.
    pub public: bool,
}

/// What is written to standard error.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Log {
    pub format: LogFormat,
    /// Levels, by module where wanted, e.g. `info,bellpull::worker=debug`.
    pub filter: String,
}

impl Default for Log {
    fn default() -> Log {
        Log { format: LogFormat::Text, filter: "info".to_owned() }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum LogFormat {
    /// For people.
    Text,
    /// One object per line.
    Json,
}

const LOG_FORMATS: [(&str, LogFormat); 2] = [("text", LogFormat::Text), ("json", LogFormat::Json)];

pub(super) fn limits(reader: &mut Reader<'_>) -> ingest::Options {
    let default = ingest::Options::default();
    let options = ingest::Options {
        body_bytes_max: reader.get(
            "limits.body_bytes_max",
            default.body_bytes_max,
            number(KIB..=512 * MIB, "bytes"),
        ),
        in_flight_bytes_max: reader.get(
            "limits.in_flight_bytes_max",
            default.in_flight_bytes_max,
            number(KIB..=64 * GIB, "bytes"),
        ),
        body_seconds_max: reader.get(
            "limits.body_seconds_max",
            default.body_seconds_max,
            number(1..=600, "seconds"),
        ),
        waiting_sessions_max: reader.get(
            "limits.waiting_sessions_max",
            default.waiting_sessions_max,
            number(1..=1_000_000_000, "sessions"),
        ),
        waiting_messages_max: reader.get(
            "limits.waiting_messages_max",
            default.waiting_messages_max,
            number(1..=1_000_000_000, "messages"),
        ),
        free_disk_bytes_min: reader.get(
            "limits.free_disk_bytes_min",
            default.free_disk_bytes_min,
            number(0..=1024 * GIB, "bytes"),
        ),
        refusals_max: reader.get(
            "limits.refusals_max",
            default.refusals_max,
            number(0..=10_000_000, "attempts"),
        ),
    };
    if options.in_flight_bytes_max < options.body_bytes_max {
        reader.problem(
            "limits.in_flight_bytes_max",
            "must be at least `limits.body_bytes_max`, or the largest body never fits",
        );
    }
    options
}

pub(super) fn store(reader: &mut Reader<'_>) -> store::Options {
    let default = store::Options::default();
    store::Options {
        readers: reader.get("store.readers", default.readers, number(1..=64, "connections")),
        postgres_connections_max: reader.get(
            "store.postgres_connections_max",
            default.postgres_connections_max,
            number(4..=1000, "connections"),
        ),
        statement_seconds_max: reader.get(
            "store.statement_seconds_max",
            default.statement_seconds_max,
            number(1..=600, "seconds"),
        ),
    }
}

pub(super) fn retention(reader: &mut Reader<'_>) -> store::Retention {
    let default = store::Retention::default();
    let retention = store::Retention {
        bodies_days: reader.get(
            "retention.bodies_days",
            default.bodies_days,
            number(1..=36_500, "days"),
        ),
        identities_days: reader.get(
            "retention.identities_days",
            default.identities_days,
            number(1..=36_500, "days"),
        ),
    };
    if retention.identities_days < retention.bodies_days {
        reader.problem(
            "retention.identities_days",
            "must be at least `retention.bodies_days`: a body goes with its delivery",
        );
    }
    retention
}

pub(super) fn worker(reader: &mut Reader<'_>) -> worker::Options {
    let default = worker::Options::default();
    worker::Options {
        turns_max: reader.get("worker.turns_max", default.turns_max, number(1..=4096, "turns")),
        lease_seconds: reader.get(
            "worker.lease_seconds",
            default.lease_seconds,
            number(5..=3600, "seconds"),
        ),
        poll_ms: reader.get("worker.poll_ms", default.poll_ms, number(10..=60_000, "milliseconds")),
        drain_seconds: reader.get(
            "worker.drain_seconds",
            default.drain_seconds,
            number(0..=3600, "seconds"),
        ),
        resumes_max: reader.get(
            "worker.resumes_max",
            default.resumes_max,
            number(0..=1000, "times"),
        ),
    }
}

pub(super) fn projects(reader: &mut Reader<'_>) -> Projects {
    Projects { roots: reader.get("projects.roots", Vec::new(), list(256, absolute_path)) }
}

pub(super) fn metrics(reader: &mut Reader<'_>) -> Metrics {
    Metrics { public: reader.get("metrics.public", Metrics::default().public, boolean) }
}

pub(super) fn log(reader: &mut Reader<'_>) -> Log {
    let default = Log::default();
    Log {
        format: reader.get("log.format", default.format, choice(&LOG_FORMATS)),
        filter: reader.get("log.filter", default.filter, log_filter),
    }
}
