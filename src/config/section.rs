//! Reads the sections: for each module's `Options`, its keys and the range of each.
//!
//! Every field is named, without `..default`: a new option does not compile until it is read here,
//! and the tests then ask for its line in the example and in the docs.

use std::{collections::BTreeMap, path::PathBuf};

use super::{
    problem::join,
    reader::{Entry, Reader},
    value::{
        absolute_path, base_url, boolean, choice, dollars, list, log_filter, number, secret, text,
    },
};
use crate::{
    ingest, metrics,
    model::{self, OpenAiApi, Price},
    store, web, worker,
};

const KIB: u64 = 1024;
const MIB: u64 = 1024 * KIB;
const GIB: u64 = 1024 * MIB;

/// Which directories agents may work in.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Projects {
    /// A source's `project` must lie in one of these.
    pub roots: Vec<PathBuf>,
}

/// Who may read `/metrics`, and what it counts apart.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Metrics {
    /// Without a key; else with one of scope `read`.
    pub public: bool,
    pub counted: metrics::Options,
}

/// What is shown to people and programs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Web {
    /// Streams of events that are open at once; 503 beyond.
    pub streams_max: usize,
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

const OPENAI_APIS: [(&str, OpenAiApi); 3] = [
    ("auto", OpenAiApi::Auto),
    ("chat_completions", OpenAiApi::ChatCompletions),
    ("responses", OpenAiApi::Responses),
];

const PRICE_KEYS: [&str; 4] =
    ["cache_read_per_mtok", "cache_write_per_mtok", "input_per_mtok", "output_per_mtok"];

/// How to reach the providers is under the names that their own tools use.
pub(super) fn models(reader: &mut Reader<'_>) -> model::Options {
    let default = model::Options::default();
    let seconds = || number(1..=86_400, "seconds");
    model::Options {
        anthropic_api_key: reader.hidden_variable("ANTHROPIC_API_KEY", secret),
        anthropic_base_url: reader.variable("ANTHROPIC_BASE_URL", base_url),
        openai_api_key: reader.hidden_variable("OPENAI_API_KEY", secret),
        openai_base_url: reader.variable("OPENAI_BASE_URL", base_url),
        https_proxy: reader.hidden_variable("HTTPS_PROXY", secret),
        no_proxy: reader.variable("NO_PROXY", text(65_536)),
        openai_api: reader.get("models.openai_api", default.openai_api, choice(&OPENAI_APIS)),
        timeout_seconds: reader.get("models.timeout_seconds", default.timeout_seconds, seconds()),
        first_seconds: reader.get("models.first_seconds", default.first_seconds, seconds()),
        idle_seconds: reader.get("models.idle_seconds", default.idle_seconds, seconds()),
        retries_max: reader.get(
            "models.retries_max",
            default.retries_max,
            number(0..=1000, "times"),
        ),
        retry_first_ms: reader.get(
            "models.retry_first_ms",
            default.retry_first_ms,
            number(1..=60_000, "milliseconds"),
        ),
        retry_seconds_max: reader.get(
            "models.retry_seconds_max",
            default.retry_seconds_max,
            seconds(),
        ),
        retry_total_seconds_max: reader.get(
            "models.retry_total_seconds_max",
            default.retry_total_seconds_max,
            number(1..=2_592_000, "seconds"),
        ),
        max_tokens: reader.optional("models.max_tokens", number(1..=1_000_000, "tokens")),
        prices: prices(reader),
    }
}

fn prices(reader: &mut Reader<'_>) -> BTreeMap<String, Price> {
    reader.know("models.prices.<name>", &PRICE_KEYS);
    let mut prices = BTreeMap::new();
    for (name, values) in reader.entries("models.prices") {
        let at = join("models.prices", name);
        let mut entry = Entry { reader, at, values };
        let mut of = |key| entry.get(key, dollars);
        let (input, output) = (of("input_per_mtok"), of("output_per_mtok"));
        let (cache_read, cache_write) = (of("cache_read_per_mtok"), of("cache_write_per_mtok"));
        for key in ["input_per_mtok", "output_per_mtok"] {
            if entry.raw(key).is_none() {
                entry.problem(key, "is required: dollars for a million tokens, 0 for none");
            }
        }
        if let (Some(input), Some(output)) = (input, output) {
            let cache_read = cache_read.unwrap_or(input);
            let cache_write = cache_write.unwrap_or(input);
            prices.insert(name.clone(), Price { input, output, cache_read, cache_write });
        }
    }
    prices
}

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
        unverified_bytes_max: reader.get(
            "limits.unverified_bytes_max",
            default.unverified_bytes_max,
            number(KIB..=64 * GIB, "bytes"),
        ),
        body_seconds_max: reader.get(
            "limits.body_seconds_max",
            default.body_seconds_max,
            number(1..=600, "seconds"),
        ),
        unverified_seconds_max: reader.get(
            "limits.unverified_seconds_max",
            default.unverified_seconds_max,
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
        fetches_per_minute_max: reader.get(
            "limits.fetches_per_minute_max",
            default.fetches_per_minute_max,
            number(0..=10_000, "files"),
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
    let default = Metrics::default();
    Metrics {
        public: reader.get("metrics.public", default.public, boolean),
        counted: metrics::Options {
            names_max: reader.get(
                "metrics.names_max",
                default.counted.names_max,
                number(1..=100_000, "names"),
            ),
        },
    }
}

pub(super) fn web(reader: &mut Reader<'_>) -> Web {
    let default = web::Options::STREAMS_MAX;
    Web { streams_max: reader.get("web.streams_max", default, number(1..=1_000_000, "streams")) }
}

pub(super) fn log(reader: &mut Reader<'_>) -> Log {
    let default = Log::default();
    Log {
        format: reader.get("log.format", default.format, choice(&LOG_FORMATS)),
        filter: reader.get("log.filter", default.filter, log_filter),
    }
}
