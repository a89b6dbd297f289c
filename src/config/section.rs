//! Reads the sections: for each module's `Options`, its keys and the range of each.
//!
//! Every field is named, without `..default`: a new option does not compile until it is read here,
//! and the tests then ask for its line in the example and in the docs.

use std::collections::BTreeMap;

use super::{
    problem::join,
    reader::{Entry, Reader},
    value::{
        absolute_path, base_url, boolean, choice, dollars, list, log_filter, number, secret, text,
    },
};
use crate::{
    agent,
    domain::budget::{Budget, CommonBudgets},
    ingest, metrics,
    model::{self, OpenAiApi, Price},
    outbox,
    runtime::Projects,
    schedule, store, tool, web, worker,
};

const KIB: u64 = 1024;
const MIB: u64 = 1024 * KIB;
const GIB: u64 = 1024 * MIB;

/// What one turn may do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Turns {
    pub limits: agent::Limits,
    /// Seconds that a call waits for somebody to allow it; then it is denied.
    pub approval_seconds_max: u64,
    /// What whoever works may use.
    pub budgets: CommonBudgets,
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
        callback_hops_max: reader.get(
            "limits.callback_hops_max",
            default.callback_hops_max,
            number(0..=100, "callbacks"),
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
        outbox_days: reader.get(
            "retention.outbox_days",
            default.outbox_days,
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
        stop_poll_ms: reader.get(
            "worker.stop_poll_ms",
            default.stop_poll_ms,
            number(10..=60_000, "milliseconds"),
        ),
    }
}

pub(super) fn turns(reader: &mut Reader<'_>) -> Turns {
    let default = agent::Limits::default();
    Turns {
        limits: agent::Limits {
            requests_max: reader.get(
                "turns.requests_max",
                default.requests_max,
                number(1..=100_000, "requests"),
            ),
            repeats_max: reader.get(
                "turns.repeats_max",
                default.repeats_max,
                number(1..=1000, "times"),
            ),
            context_tokens_max: reader.get(
                "turns.context_tokens_max",
                default.context_tokens_max,
                number(1000..=100_000_000, "tokens"),
            ),
        },
        approval_seconds_max: reader.get(
            "turns.approval_seconds_max",
            86_400,
            number(1..=2_592_000, "seconds"),
        ),
        budgets: budgets(reader),
    }
}

macro_rules! budget {
    ($reader:ident, $scope:literal) => {
        Budget {
            cost_usd: $reader.optional(concat!("budgets.", $scope, "_cost_usd"), dollars),
            tokens: $reader
                .optional(concat!("budgets.", $scope, "_tokens"), number(0..=MANY, "tokens")),
            model_calls: $reader.optional(
                concat!("budgets.", $scope, "_model_calls"),
                number(0..=MANY, "requests"),
            ),
            tool_calls: $reader
                .optional(concat!("budgets.", $scope, "_tool_calls"), number(0..=MANY, "calls")),
            seconds: $reader
                .optional(concat!("budgets.", $scope, "_seconds"), number(0..=MANY, "seconds")),
        }
    };
}

const MANY: u64 = 1_000_000_000_000;

fn budgets(reader: &mut Reader<'_>) -> CommonBudgets {
    CommonBudgets {
        turn: budget!(reader, "turn"),
        session: budget!(reader, "session"),
        source_day: budget!(reader, "source_day"),
        agent_day: budget!(reader, "agent_day"),
        day: budget!(reader, "day"),
    }
}

pub(super) fn outbox(reader: &mut Reader<'_>) -> outbox::Options {
    let default = outbox::Options::default();
    let seconds = |max| number(1..=max, "seconds");
    outbox::Options {
        allowed_private_hosts: reader.get(
            "outbox.allowed_private_hosts",
            default.allowed_private_hosts,
            list(256, text(256)),
        ),
        sends_max: reader.get("outbox.sends_max", default.sends_max, number(1..=4096, "messages")),
        sends_per_receiver_max: reader.get(
            "outbox.sends_per_receiver_max",
            default.sends_per_receiver_max,
            number(1..=4096, "messages"),
        ),
        attempt_seconds_max: reader.get(
            "outbox.attempt_seconds_max",
            default.attempt_seconds_max,
            seconds(600),
        ),
        attempts_max: reader.get(
            "outbox.attempts_max",
            default.attempts_max,
            number(1..=1000, "attempts"),
        ),
        retry_first_ms: reader.get(
            "outbox.retry_first_ms",
            default.retry_first_ms,
            number(1..=3_600_000, "milliseconds"),
        ),
        retry_seconds_max: reader.get(
            "outbox.retry_seconds_max",
            default.retry_seconds_max,
            seconds(86_400),
        ),
        retry_after_seconds_max: reader.get(
            "outbox.retry_after_seconds_max",
            default.retry_after_seconds_max,
            seconds(2_592_000),
        ),
        poll_ms: reader.get("outbox.poll_ms", default.poll_ms, number(10..=60_000, "milliseconds")),
        drain_seconds: reader.get(
            "outbox.drain_seconds",
            default.drain_seconds,
            number(0..=3600, "seconds"),
        ),
    }
}

pub(super) fn projects(reader: &mut Reader<'_>) -> Projects {
    let default = Projects::default();
    Projects {
        roots: reader.get("projects.roots", default.roots, list(256, absolute_path)),
        copy_bytes_max: reader.get(
            "projects.copy_bytes_max",
            default.copy_bytes_max,
            number(MIB..=1024 * GIB, "bytes"),
        ),
        copy_entries_max: reader.get(
            "projects.copy_entries_max",
            default.copy_entries_max,
            number(100..=10_000_000, "entries"),
        ),
    }
}

pub(super) fn tools(reader: &mut Reader<'_>) -> tool::Options {
    let default = tool::Options::default();
    tool::Options {
        answer_bytes_max: reader.get(
            "tools.answer_bytes_max",
            default.answer_bytes_max,
            number(1_000..=10_000_000, "bytes"),
        ),
        read_bytes_max: reader.get(
            "tools.read_bytes_max",
            default.read_bytes_max,
            number(1_000..=10_000_000, "bytes"),
        ),
        media_bytes_max: reader.get(
            "tools.media_bytes_max",
            default.media_bytes_max,
            number(1_000..=10_000_000, "bytes"),
        ),
        search_entries_max: reader.get(
            "tools.search_entries_max",
            default.search_entries_max,
            number(100..=10_000_000, "entries"),
        ),
        search_bytes_max: reader.get(
            "tools.search_bytes_max",
            default.search_bytes_max,
            number(MIB..=16 * GIB, "bytes"),
        ),
        page_bytes_max: reader.get(
            "tools.page_bytes_max",
            default.page_bytes_max,
            number(1_000..=100_000_000, "bytes"),
        ),
    }
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

pub(super) fn schedule(reader: &mut Reader<'_>) -> schedule::Options {
    let default = schedule::Options::default();
    schedule::Options {
        catch_up_seconds_max: reader.get(
            "schedule.catch_up_seconds_max",
            default.catch_up_seconds_max,
            number(0..=2_592_000, "seconds"),
        ),
    }
}

pub(super) fn files(reader: &mut Reader<'_>) -> web::Files {
    let default = web::Files::default();
    web::Files {
        bytes_max: reader.get("files.bytes_max", default.bytes_max, number(1..=64 * GIB, "bytes")),
        total_bytes_max: reader.get(
            "files.total_bytes_max",
            default.total_bytes_max,
            number(0..=1024 * 1024 * GIB, "bytes"),
        ),
        // What is under way for longer may be taken for left over, and swept.
        upload_seconds_max: reader.get(
            "files.upload_seconds_max",
            default.upload_seconds_max,
            number(1..=3000, "seconds"),
        ),
    }
}

pub(super) fn log(reader: &mut Reader<'_>) -> Log {
    let default = Log::default();
    Log {
        format: reader.get("log.format", default.format, choice(&LOG_FORMATS)),
        filter: reader.get("log.filter", default.filter, log_filter),
    }
}
