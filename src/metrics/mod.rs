//! What this process has counted since it started, and how that is told.
//!
//! The store carries one [`Metrics`] as it carries the clock; whoever has something to count calls a
//! verb here, and names, labels and buckets are nobody else's business. Invariants: counting waits
//! for nobody: numbers are atomics, and a lock is taken only to look up a label, at most once for a
//! model request; a label has a bounded number of values; no secret, no text of a payload and no
//! name that a caller made up is a label. Left out: who may read it.

mod day;
mod histogram;
mod labels;

use std::{sync::Arc, time::Duration};

use prometheus_client::{
    encoding::{EncodeMetric, MetricEncoder, NoLabelSet, text},
    metrics::{
        MetricType, TypedMetric, counter::Counter, family::Family, gauge::Gauge, info::Info,
    },
    registry::{Registry, Unit},
};

pub use self::day::Stretch;
use self::{
    day::Day,
    histogram::Histogram,
    labels::{
        KindLabel, ModelKindLabels, ModelLabel, ModelResultLabels, RequestLabels, ResultLabel,
        SourceLabels, UNKNOWN, Values, VersionLabel,
    },
};
use crate::{
    clock::Timestamp,
    domain::{
        cost::{MicroUsd, Spent},
        event::Usage,
        source::SourceKind,
        turn::TurnEnd,
    },
};

/// Bounds of what is counted apart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// Sources, and models, that are counted under their own names; the rest is `(other)`.
    pub names_max: usize,
}

impl Default for Options {
    fn default() -> Options {
        Options { names_max: 200 }
    }
}

/// What became of a request to a webhook.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Received {
    Accepted,
    Duplicate,
    Filtered,
    Held,
    /// A sender made sure that it talks to us; nothing was stored.
    Handshake,
    /// By the gate: 401, or 404 for those who may know; or 405.
    Refused,
    TooLarge,
    /// The body broke off or took too long.
    Incomplete,
    /// A bound was reached.
    Busy,
    /// The result of the commit is not known.
    Processing,
    Failed,
}

impl Received {
    pub const ALL: [Received; 11] = [
        Received::Accepted,
        Received::Duplicate,
        Received::Filtered,
        Received::Held,
        Received::Handshake,
        Received::Refused,
        Received::TooLarge,
        Received::Incomplete,
        Received::Busy,
        Received::Processing,
        Received::Failed,
    ];

    pub fn as_str(self) -> &'static str {
        match self {
            Received::Accepted => "accepted",
            Received::Duplicate => "duplicate",
            Received::Filtered => "filtered",
            Received::Held => "held",
            Received::Handshake => "handshake",
            Received::Refused => "refused",
            Received::TooLarge => "too_large",
            Received::Incomplete => "incomplete",
            Received::Busy => "busy",
            Received::Processing => "processing",
            Received::Failed => "failed",
        }
    }
}

/// The numbers of one source, looked up once. Clones count the same.
#[derive(Clone, Debug)]
pub struct SourceCounters {
    counters: [Counter; Received::ALL.len()],
    day: Arc<Day>,
}

impl SourceCounters {
    pub fn count(&self, received: Received) {
        let at = Received::ALL.iter().position(|it| *it == received);
        let at = at.expect("all are listed");
        self.counters[at].inc();
        self.day.received(at);
    }
}

/// What waits for one source, found by a look at the database.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Waiting {
    pub kind: SourceKind,
    pub name: String,
    pub sessions: u64,
    /// Of the message that has waited longest; zero when none waits, absent when nobody knows.
    pub oldest: Option<Duration>,
}

/// Seconds within which a sender should have its answer: 10 for most, 1 for the strictest.
const ANSWER: &[f64] =
    &[0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];

/// Seconds that work takes, from a rehearsal to an agent that digs for an hour.
const WORK: &[f64] =
    &[0.01, 0.05, 0.1, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1800.0, 3600.0];

/// Accepts that share a commit.
const ACCEPTS: &[f64] = &[1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0];

/// A family of histograms with one value for each model.
type ByModel = Family<ModelLabel, Histogram, fn() -> Histogram>;

#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    sources: Values,
    models: Values,
    requests: Family<RequestLabels, Counter>,
    accept: Histogram,
    delivery_wait: Histogram,
    turns: Family<ResultLabel, Counter>,
    turn: Histogram,
    turns_running: Gauge,
    retries: Counter,
    leases_lost: Counter,
    model_requests: Family<ModelResultLabels, Counter>,
    model_request: ByModel,
    tokens: Family<ModelKindLabels, Counter>,
    cost: Family<ModelLabel, Dollars>,
    unpriced: Family<ModelLabel, Counter>,
    commit: Histogram,
    commit_accepts: Histogram,
    store_errors: Family<KindLabel, Counter>,
    pruned: Family<KindLabel, Counter>,
    free_disk: Gauge,
    streams_open: Gauge,
    outgoing: Family<ResultLabel, Counter>,
    outgoing_attempt: Histogram,
    outgoing_waiting: Gauge,
    outgoing_oldest: Seconds,
    day: Arc<Day>,
}

impl Metrics {
    pub fn new(started: Timestamp) -> Arc<Metrics> {
        let names_max = Options::default().names_max;
        let mut metrics = Metrics {
            registry: Registry::default(),
            sources: Values::new(names_max),
            models: Values::new(names_max),
            requests: Family::default(),
            accept: Histogram::of_durations(ANSWER),
            delivery_wait: Histogram::of_durations(WORK),
            turns: Family::default(),
            turn: Histogram::of_durations(WORK),
            turns_running: Gauge::default(),
            retries: Counter::default(),
            leases_lost: Counter::default(),
            model_requests: Family::default(),
            model_request: Family::new_with_constructor(|| Histogram::of_durations(WORK)),
            tokens: Family::default(),
            cost: Family::default(),
            unpriced: Family::default(),
            commit: Histogram::of_durations(ANSWER),
            commit_accepts: Histogram::of_numbers(ACCEPTS),
            store_errors: Family::default(),
            pruned: Family::default(),
            free_disk: Gauge::default(),
            streams_open: Gauge::default(),
            outgoing: Family::default(),
            outgoing_attempt: Histogram::of_durations(ANSWER),
            outgoing_waiting: Gauge::default(),
            outgoing_oldest: Seconds::default(),
            day: Arc::default(),
        };
        metrics.registry = metrics.register(started);
        Arc::new(metrics)
    }

    /// Takes changed bounds over; what has a name already keeps it.
    pub fn set_options(&self, options: &Options) {
        self.sources.set_max(options.names_max);
        self.models.set_max(options.names_max);
    }

    /// The numbers of a source that exists.
    pub fn source(&self, kind: &SourceKind, name: &str) -> SourceCounters {
        self.counters(word(kind), &self.sources.label(name))
    }

    /// The numbers of all sources that do not exist.
    pub fn unknown_source(&self, is_agent: bool) -> SourceCounters {
        self.counters(if is_agent { AGENT } else { NAMED }, UNKNOWN)
    }

    fn counters(&self, kind: &'static str, source: &str) -> SourceCounters {
        let counters = Received::ALL.map(|received| {
            self.requests.get_or_create_owned(&RequestLabels {
                kind,
                source: source.to_owned(),
                result: received.as_str(),
            })
        });
        SourceCounters { counters, day: self.day.clone() }
    }

    /// A delivery was taken, so long after the head of its request had come.
    pub fn answered(&self, after: Duration) {
        self.accept.observe(after);
        self.day.answered(after);
    }

    /// A turn took a message that had waited so long.
    pub fn taken(&self, waited: Duration) {
        self.delivery_wait.observe(waited);
    }

    /// A turn is worked on for as long as the answer lives.
    pub fn turn_runs(&self) -> Running {
        Running::new(&self.turns_running)
    }

    pub fn turn_ended(&self, end: TurnEnd, duration: Duration) {
        self.turns.get_or_create(&ResultLabel { result: end.as_str() }).inc();
        self.turn.observe(duration);
        self.day.turn_ended(end);
    }

    /// A turn was put off because its model could not answer.
    pub fn turn_put_off(&self) {
        self.retries.inc();
    }

    pub fn lease_lost(&self) {
        self.leases_lost.inc();
    }

    /// A model request came to an end; `result` is `ok` or the type of its error.
    pub fn model_asked(&self, model: &str, result: &'static str, took: Duration, spent: &Spent) {
        let model = self.models.label(model);
        let labels = ModelResultLabels { model: model.clone(), result };
        self.model_requests.get_or_create(&labels).inc();
        self.model_request.get_or_create(&ModelLabel { model: model.clone() }).observe(took);
        let Spent { usage, cost } = spent;
        for (kind, n) in [
            ("input", usage.input_tokens),
            ("output", usage.output_tokens),
            ("cache_read", usage.cache_read_input_tokens),
            ("cache_write", usage.cache_creation_input_tokens),
        ] {
            let labels = ModelKindLabels { model: model.clone(), kind };
            self.tokens.get_or_create(&labels).inc_by(u64::try_from(n).unwrap_or(0));
        }
        let labels = ModelLabel { model };
        match cost {
            Some(cost) => self.cost.get_or_create(&labels).add(*cost),
            None if *usage != Usage::default() => {
                self.unpriced.get_or_create(&labels).inc();
            }
            None => {}
        }
    }

    /// A transaction was committed.
    pub fn committed(&self, took: Duration) {
        self.commit.observe(took);
    }

    /// So many accepts shared a commit.
    pub fn batched(&self, n_accepts: usize) {
        self.commit_accepts.observe_number(n_accepts);
    }

    pub fn store_failed(&self, kind: &'static str) {
        self.store_errors.get_or_create(&KindLabel { kind }).inc();
    }

    /// Retention removed so many of a kind.
    pub fn pruned(&self, kind: &'static str, n: u64) {
        self.pruned.get_or_create(&KindLabel { kind }).inc_by(n);
    }

    /// An attempt to send a message came to an end: `sent`, `failed`, `dead` or `dropped`.
    pub fn message_sent(&self, result: &'static str, took: Duration) {
        self.outgoing.get_or_create(&ResultLabel { result }).inc();
        self.outgoing_attempt.observe(took);
    }

    /// So many messages wait to be sent, and the oldest for so long.
    pub fn set_outgoing(&self, n_waiting: u64, oldest: Duration) {
        self.outgoing_waiting.set(i64::try_from(n_waiting).unwrap_or(i64::MAX));
        self.outgoing_oldest.set(oldest.as_secs_f64());
    }

    pub fn set_free_disk(&self, bytes: u64) {
        self.free_disk.set(i64::try_from(bytes).unwrap_or(i64::MAX));
    }

    /// A stream is open for as long as the answer lives.
    pub fn stream_opens(&self) -> Running {
        Running::new(&self.streams_open)
    }

    /// Puts what was counted into the half hour that it is; to be called now and then.
    pub fn keep_day(&self, now: Timestamp) {
        self.day.keep(now);
    }

    /// What this node counted before this process, which is to be told before it counts.
    pub fn take_up_day(&self, earlier: Vec<Stretch>) {
        self.day.take_up(earlier);
    }

    /// What of the day is not written down as it is by now, until [`Metrics::wrote_day`] says so.
    pub fn unwritten_day(&self, now: Timestamp) -> Vec<Stretch> {
        self.day.unwritten(now)
    }

    pub fn wrote_day(&self, stretches: &[Stretch]) {
        self.day.wrote(stretches);
    }

    /// What other nodes have counted.
    pub fn set_day_of_others(&self, others: Vec<Stretch>) {
        self.day.set_others(others);
    }

    /// The last day in half hours, oldest first.
    pub fn day(&self, now: Timestamp) -> Vec<Stretch> {
        self.day.stretches(now)
    }

    /// Turns that this process works on.
    pub fn n_turns_running(&self) -> i64 {
        self.turns_running.get()
    }

    /// Sources that may be told apart.
    pub fn names_max(&self) -> usize {
        self.sources.max()
    }

    /// Everything, in the OpenMetrics text format.
    pub fn text(&self, waiting: &[Waiting]) -> String {
        let mut out = String::new();
        let written = text::encode_registry(&mut out, &self.registry)
            .and_then(|()| text::encode_registry(&mut out, &self.registry_of(waiting)))
            .and_then(|()| text::encode_eof(&mut out));
        written.expect("a string takes all that is written");
        out
    }

    fn registry_of(&self, waiting: &[Waiting]) -> Registry {
        let sessions = Family::<SourceLabels, Gauge>::default();
        let oldest = Family::<SourceLabels, Seconds>::default();
        for source in waiting.iter().take(self.names_max()) {
            let (kind, name) = (word(&source.kind), source.name.clone());
            let labels = SourceLabels { kind, source: name };
            let n = i64::try_from(source.sessions).unwrap_or(i64::MAX);
            sessions.get_or_create(&labels).set(n);
            if let Some(age) = source.oldest {
                oldest.get_or_create(&labels).set(age.as_secs_f64());
            }
        }
        let mut registry = Registry::with_prefix(PREFIX);
        registry.register("waiting_sessions", "Sessions of a source that want work", sessions);
        registry.register_with_unit(
            "oldest_waiting",
            "Age of the message of a source that has waited longest for its turn",
            Unit::Seconds,
            oldest,
        );
        registry
    }

    fn register(&self, started: Timestamp) -> Registry {
        let mut registry = Registry::default();
        let seconds = Gauge::<f64, std::sync::atomic::AtomicU64>::default();
        seconds.set(started.0 as f64 / 1000.0);
        registry.register_with_unit(
            "process_start_time",
            "When this process started, in seconds since 1970",
            Unit::Seconds,
            seconds,
        );
        let ours = registry.sub_registry_with_prefix(PREFIX);
        let version = VersionLabel { version: env!("CARGO_PKG_VERSION") };
        ours.register("build", "What is running", Info::new(version));
        self.register_receiving(ours);
        self.register_work(ours);
        self.register_models(ours);
        self.register_store(ours);
        self.register_outbox(ours);
        registry
    }

    fn register_receiving(&self, registry: &mut Registry) {
        registry.register(
            "webhook_requests",
            "Requests to webhooks by what became of them",
            self.requests.clone(),
        );
        registry.register_with_unit(
            "accept_duration",
            "From the head of a webhook's request to its answer, where a delivery was taken",
            Unit::Seconds,
            self.accept.clone(),
        );
        registry.register("streams_open", "Event streams that are open", self.streams_open.clone());
    }

    fn register_work(&self, registry: &mut Registry) {
        registry.register_with_unit(
            "delivery_wait",
            "How long messages had waited when a turn took them",
            Unit::Seconds,
            self.delivery_wait.clone(),
        );
        registry.register("turns", "Turns that ended, by how", self.turns.clone());
        registry.register_with_unit(
            "turn_duration",
            "From the beginning of a turn to its end, waiting and restarts included",
            Unit::Seconds,
            self.turn.clone(),
        );
        registry.register(
            "turns_running",
            "Turns that this process works on",
            self.turns_running.clone(),
        );
        registry.register(
            "turn_retries",
            "Times that a turn was put off because its model could not answer",
            self.retries.clone(),
        );
        registry.register(
            "leases_lost",
            "Times that work stopped because its lease was another worker's or had run out",
            self.leases_lost.clone(),
        );
    }

    fn register_models(&self, registry: &mut Registry) {
        registry.register(
            "model_requests",
            "Requests to models by what came back",
            self.model_requests.clone(),
        );
        registry.register_with_unit(
            "model_request_duration",
            "From a request to a model to the end of its answer",
            Unit::Seconds,
            self.model_request.clone(),
        );
        registry.register("model_tokens", "Tokens as models counted them", self.tokens.clone());
        registry.register(
            "model_cost_dollars",
            "What the tokens of models with a price cost, in US dollars",
            self.cost.clone(),
        );
        registry.register(
            "model_unpriced_requests",
            "Requests with tokens whose model has no price",
            self.unpriced.clone(),
        );
    }

    fn register_outbox(&self, registry: &mut Registry) {
        registry.register(
            "outbox_attempts",
            "Attempts to send a message by what became of the message",
            self.outgoing.clone(),
        );
        registry.register_with_unit(
            "outbox_attempt_duration",
            "From the claim of a message to the receiver's answer or the end of patience",
            Unit::Seconds,
            self.outgoing_attempt.clone(),
        );
        registry.register(
            "outbox_waiting",
            "Messages that wait to be sent, on all nodes",
            self.outgoing_waiting.clone(),
        );
        registry.register_with_unit(
            "outbox_oldest",
            "Age of the message that has waited longest to be sent",
            Unit::Seconds,
            self.outgoing_oldest.clone(),
        );
    }

    fn register_store(&self, registry: &mut Registry) {
        registry.register_with_unit(
            "store_commit_duration",
            "From the beginning of a transaction to its commit",
            Unit::Seconds,
            self.commit.clone(),
        );
        registry.register(
            "store_commit_accepts",
            "Accepts that shared a commit",
            self.commit_accepts.clone(),
        );
        registry.register(
            "store_errors",
            "Operations of the store that failed by no fault of the caller",
            self.store_errors.clone(),
        );
        registry.register("pruned_rows", "Rows that retention removed", self.pruned.clone());
        registry.register_with_unit(
            "free_disk",
            "Free space on the disk of the data directory",
            Unit::Bytes,
            self.free_disk.clone(),
        );
    }
}

const PREFIX: &str = "bellpull";
const AGENT: &str = "agent";
const NAMED: &str = "named";

fn word(kind: &SourceKind) -> &'static str {
    match kind {
        SourceKind::Agent(_) => AGENT,
        SourceKind::Named => NAMED,
    }
}

type Seconds = Gauge<f64, std::sync::atomic::AtomicU64>;

/// Counted as one more until it is dropped.
#[derive(Debug)]
pub struct Running(Gauge);

impl Running {
    fn new(gauge: &Gauge) -> Running {
        gauge.inc();
        Running(gauge.clone())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.0.dec();
    }
}

/// Money: whole millionths inside, dollars where it is shown.
#[derive(Clone, Debug, Default)]
struct Dollars(Counter);

impl Dollars {
    fn add(&self, cost: MicroUsd) {
        self.0.inc_by(u64::try_from(cost.0).unwrap_or(0));
    }
}

impl TypedMetric for Dollars {
    const TYPE: MetricType = MetricType::Counter;
}

impl EncodeMetric for Dollars {
    fn encode(&self, mut encoder: MetricEncoder<'_>) -> Result<(), std::fmt::Error> {
        let dollars = self.0.get() as f64 / 1e6;
        encoder.encode_counter::<NoLabelSet, _, f64>(&dollars, None)
    }

    fn metric_type(&self) -> MetricType {
        MetricType::Counter
    }
}

#[cfg(test)]
mod tests;
