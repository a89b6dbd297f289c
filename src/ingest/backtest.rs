//! A changed source tried on the deliveries that came: what it would have made of them.
//!
//! The very functions of the receive path decide, so what is told is what would have been. Nothing
//! is written and no agent is asked. Invariants: deliveries are read in slices, one at a time in the
//! order in which they came; what is remembered of all of them is bounded. Left out: what depends on
//! the sessions of that time, such as a target that was archived, and handshakes.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

use anyhow::Context;
use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::{Destination, Entry, Facts, Head, Ingest, Payload, explain, identify, registry, route};
use crate::{
    clock::Timestamp,
    domain::{coalesce::Turns, delivery::Status, source::Source},
    id::{AgentId, DeliveryId, Id, SessionId, SourceId},
    store::{self, Kept, KeptBody, Store, is_whole_slice},
    vault::hash,
};

/// Deliveries that one backtest looks at; what came later is left out.
pub const DELIVERIES_MAX: u64 = 1_000_000;

/// Keys and reasons that are counted one by one.
const COUNTED_MAX: usize = 10_000;

/// What to try, and on which deliveries.
#[derive(Clone, Debug)]
pub struct Trying {
    /// The source as it would be.
    pub source: Source,
    pub since: Timestamp,
    /// Not included.
    pub until: Timestamp,
    /// Deliveries that are shown of those about which it decides differently.
    pub differences_max: usize,
}

/// What came of it.
#[derive(Clone, Debug, Default)]
pub struct Report {
    pub n_deliveries: u64,
    /// Whether there were more than may be looked at.
    pub is_cut: bool,
    /// Erased or past their days: nobody can tell.
    pub n_gone: u64,
    /// That would have been recognised as an earlier one.
    pub n_duplicates: u64,
    pub happened: Verdicts,
    pub would: Verdicts,
    pub agents: Counts<AgentId>,
    pub keys: Counts<String>,
    pub reasons: Counts<(Status, String)>,
    pub n_turns: u64,
    pub n_different: u64,
    pub differences: Vec<Difference>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Verdicts {
    pub accepted: u64,
    pub filtered: u64,
    pub held: u64,
}

impl Verdicts {
    fn count(&mut self, status: Status) {
        match status {
            Status::Accepted => self.accepted += 1,
            Status::Filtered => self.filtered += 1,
            Status::Held => self.held += 1,
        }
    }
}

/// How often each of some things was there, and how many there were of all.
#[derive(Clone, Debug)]
pub struct Counts<T> {
    each: HashMap<T, u64>,
    seen: HashSet<u128>,
}

impl<T> Default for Counts<T> {
    fn default() -> Counts<T> {
        Counts { each: HashMap::new(), seen: HashSet::new() }
    }
}

impl<T: Clone + Ord + std::hash::Hash> Counts<T> {
    fn count(&mut self, what: T, digest: u128) {
        self.seen.insert(digest);
        let has_room = self.each.len() < COUNTED_MAX;
        match self.each.get_mut(&what) {
            Some(n) => *n += 1,
            None if has_room => drop(self.each.insert(what, 1)),
            None => {}
        }
    }

    pub fn n_distinct(&self) -> usize {
        self.seen.len()
    }

    /// The most frequent ones.
    pub fn top(&self, n: usize) -> Vec<(T, u64)> {
        let mut all: Vec<_> = self.each.iter().map(|(what, n)| (what.clone(), *n)).collect();
        all.sort_by(|a, b| b.1.cmp(&a.1).then_with(|| a.0.cmp(&b.0)));
        all.truncate(n);
        all
    }
}

/// A delivery about which the changed source decides differently.
#[derive(Clone, Debug)]
pub struct Difference {
    pub delivery: DeliveryId,
    pub received_at: Timestamp,
    pub event_type: Option<String>,
    pub happened: Happened,
    pub would: Destination,
}

#[derive(Clone, Debug)]
pub struct Happened {
    pub status: Status,
    pub reason: Option<String>,
    pub agent_id: Option<AgentId>,
    pub session_id: Option<SessionId>,
}

/// A backtest that is under way. Dropping it ends it.
#[derive(Debug)]
pub struct Backtest {
    store: Store,
    source: SourceId,
    run: Option<Box<Run>>,
    next: Option<Vec<Kept>>,
    before: DeliveryId,
    after: DeliveryId,
    n_done: u64,
    n_all: u64,
    _one: OwnedSemaphorePermit,
}

/// What is known after the deliveries so far.
#[derive(Debug)]
struct Run {
    entry: Entry,
    differences_max: usize,
    identities: HashSet<u128>,
    turns: Turns<u128>,
    report: Report,
}

/// Room for one backtest at a time: it takes a processor.
#[derive(Clone, Debug)]
pub(super) struct Backtests(Arc<Semaphore>);

impl Default for Backtests {
    fn default() -> Backtests {
        Backtests(Arc::new(Semaphore::new(1)))
    }
}

impl Ingest {
    /// Begins a backtest; `None` while another one runs on this server.
    pub async fn backtest(&self, trying: Trying) -> anyhow::Result<Option<Backtest>> {
        let Ok(one) = self.backtests.0.clone().try_acquire_owned() else { return Ok(None) };
        let snapshot = self.registry.snapshot();
        // A paused source holds everything, which says nothing about what it decides.
        let source = Source { paused: false, ..trying.source };
        let entry = registry::resolve(source, &snapshot, &snapshot);
        let (after, before) = (DeliveryId::floor(trying.since), DeliveryId::floor(trying.until));
        let n_max = i64::try_from(DELIVERIES_MAX + 1).unwrap_or(i64::MAX);
        let counted =
            self.store.count_deliveries(&entry.source.id, after.clone(), before.clone(), n_max);
        let n_all = u64::try_from(counted.await.context("count the deliveries")?).unwrap_or(0);
        let report = Report { is_cut: n_all > DELIVERIES_MAX, ..Report::default() };
        let turns = Turns::new(entry.source.definition.pace().debounce);
        let run = Run {
            entry,
            differences_max: trying.differences_max,
            identities: HashSet::new(),
            turns,
            report,
        };
        Ok(Some(Backtest {
            store: self.store.clone(),
            source: run.entry.source.id.clone(),
            n_done: 0,
            run: Some(Box::new(run)),
            next: None,
            after,
            before,
            n_all: n_all.min(DELIVERIES_MAX),
            _one: one,
        }))
    }
}

impl Backtest {
    /// Deliveries that were looked at, and all that will be.
    pub fn progress(&self) -> (u64, u64) {
        (self.n_done, self.n_all)
    }

    /// Looks at one more slice. The report comes with the last.
    pub async fn step(&mut self) -> anyhow::Result<Option<Report>> {
        let slice = match self.next.take() {
            Some(slice) => slice,
            None => self.read().await?,
        };
        self.n_done += slice.len() as u64;
        let is_last = !is_whole_slice(slice.len()) || self.n_done >= self.n_all;
        if let Some(last) = slice.last() {
            self.after = last.id.clone();
        }
        let run = self.run.take().context("the backtest is over")?;
        let mut run = if is_last {
            look_at(&self.store, run, slice).await?
        } else {
            // The next slice is read while this one is looked at.
            let (run, next) = tokio::join!(look_at(&self.store, run, slice), self.read());
            self.next = Some(next?);
            run?
        };
        if is_last {
            run.report.n_turns = run.turns.count();
            return Ok(Some(std::mem::take(&mut run.report)));
        }
        self.run = Some(run);
        Ok(None)
    }

    async fn read(&self) -> anyhow::Result<Vec<Kept>> {
        let slice = self.store.slice(&self.source, self.after.clone(), self.before.clone());
        slice.await.context("read deliveries")
    }
}

/// Bytes of bodies that are looked at together.
const BYTES_MAX: usize = 32 * 1024 * 1024;

async fn look_at(store: &Store, mut run: Box<Run>, slice: Vec<Kept>) -> anyhow::Result<Box<Run>> {
    let (mut batch, mut n_bytes) = (Vec::new(), 0);
    let mut slice = slice.into_iter().peekable();
    while let Some(kept) = slice.next() {
        let body = match &kept.body {
            KeptBody::Inline(bytes) => Some(bytes.clone()),
            KeptBody::Gone => None,
            KeptBody::Large => match store.delivery_body(&kept.id).await {
                Ok(stored) => Some(stored.bytes),
                // Erased a moment ago.
                Err(store::Error::NotFound) => None,
                Err(error) => return Err(error).context("read a body"),
            },
        };
        n_bytes += body.as_ref().map_or(0, Bytes::len);
        batch.push((kept, body));
        if n_bytes >= BYTES_MAX || slice.peek().is_none() {
            let batch = std::mem::take(&mut batch);
            n_bytes = 0;
            let looking = tokio::task::spawn_blocking(move || {
                for (kept, body) in batch {
                    run.look_at(kept, body);
                }
                run
            });
            run = looking.await.context("look at deliveries")?;
        }
    }
    Ok(run)
}

impl Run {
    fn look_at(&mut self, kept: Kept, body: Option<Bytes>) {
        let report = &mut self.report;
        report.n_deliveries += 1;
        let (Some(body), Ok(sender)) = (body, &self.entry.sender) else {
            report.n_gone += 1;
            return;
        };
        report.happened.count(kept.status);
        let head = head(&self.entry, &kept);
        let payload = Payload::of(kept.content_type.clone(), body);
        let at = kept.received_at;
        let identified = identify::identify(sender, &head, &payload, at);
        let is_known = |key: &String| self.identities.contains(&digest(key.as_bytes()));
        let is_duplicate =
            is_known(&identified.identity.key) || identified.before.as_ref().is_some_and(is_known);
        self.identities.insert(digest(identified.identity.key.as_bytes()));
        if is_duplicate {
            report.n_duplicates += 1;
            return;
        }
        let event_type = identify::event_type(sender, &head, &payload);
        let named = (self.entry.display_name(), sender);
        let facts = Facts::new(&kept.id, named, event_type.as_deref(), &head, &payload, at);
        let would = explain::destination(route::route(&self.entry, &facts, None));
        let status = status(&would);
        report.would.count(status);
        match &would {
            Destination::Held { reason } | Destination::Filtered { reason } => {
                report.reasons.count((status, reason.clone()), digest(reason.as_bytes()));
            }
            Destination::NewSession { agent_id } => {
                report.agents.count(agent_id.clone(), digest(agent_id.as_str().as_bytes()));
                self.turns.add(at, None);
            }
            Destination::Session { agent_id, session_id } => {
                report.agents.count(agent_id.clone(), digest(agent_id.as_str().as_bytes()));
                self.turns.add(at, Some(digest(session_id.as_str().as_bytes())));
            }
            Destination::Key { agent_id, key } => {
                report.agents.count(agent_id.clone(), digest(agent_id.as_str().as_bytes()));
                let of_key = digest(key.as_bytes());
                report.keys.count(key.clone(), of_key);
                self.turns.add(at, Some(of_key));
            }
        }
        let is_same = status == kept.status
            && agent(&would).is_none_or(|it| Some(it) == kept.agent_id.as_ref());
        if is_same {
            return;
        }
        report.n_different += 1;
        if report.differences.len() < self.differences_max {
            let Kept { id, received_at, status, reason, agent_id, session_id, .. } = kept;
            report.differences.push(Difference {
                delivery: id,
                received_at,
                event_type,
                happened: Happened { status, reason, agent_id, session_id },
                would,
            });
        }
    }
}

/// The request as far as it is kept: without its query, and without the values of headers that
/// carry a secret.
pub(super) fn head(entry: &Entry, kept: &Kept) -> Head {
    let stored: HashMap<String, Vec<String>> =
        serde_json::from_str(&kept.headers).unwrap_or_default();
    let mut headers = HeaderMap::new();
    for (name, values) in stored {
        let Ok(name) = name.parse::<HeaderName>() else { continue };
        for value in values {
            // Texts that were no ASCII are kept as text.
            if let Ok(value) = HeaderValue::from_bytes(value.as_bytes()) {
                headers.append(name.clone(), value);
            }
        }
    }
    let url = entry.source.path();
    let request_id = kept.request_id.clone();
    Head { endpoint: entry.endpoint(), method: Method::POST, url, headers, request_id }
}

pub(super) fn status(destination: &Destination) -> Status {
    match destination {
        Destination::Held { .. } => Status::Held,
        Destination::Filtered { .. } => Status::Filtered,
        Destination::NewSession { .. } | Destination::Session { .. } | Destination::Key { .. } => {
            Status::Accepted
        }
    }
}

fn agent(destination: &Destination) -> Option<&AgentId> {
    match destination {
        Destination::Held { .. } | Destination::Filtered { .. } => None,
        Destination::NewSession { agent_id }
        | Destination::Session { agent_id, .. }
        | Destination::Key { agent_id, .. } => Some(agent_id),
    }
}

/// So many bits of a hash that two of a million are never the same.
fn digest(bytes: &[u8]) -> u128 {
    let hash = hash(bytes);
    u128::from_le_bytes(hash[..16].try_into().expect("a hash has 32 bytes"))
}
