//! The worker: claims due sessions and keeps their leases while turns run.
//!
//! Invariants: a session is worked on only under an unexpired lease; a worker that could not renew
//! its lease for two thirds of its length stops that work by its own monotonic clock, before anybody
//! else may claim the session. Signals only make it look sooner; polling finds everything. Left out:
//! what a turn does.

use std::{panic::AssertUnwindSafe, sync::Arc, time::Duration};

use futures_util::FutureExt;
use tokio::{sync::Semaphore, time::Instant};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing::Instrument;

use crate::{
    clock::Clock,
    id::AgentId,
    runtime::{FirstRequest, Runtime, Stopped},
    signal::Signals,
    store::{self, Claimed, Lease, Left, Start, Store},
};

/// How the worker claims and works.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// Turns that this process works on at once.
    pub turns_max: usize,
    /// Seconds that a claim lasts without being renewed.
    pub lease_seconds: u64,
    /// Milliseconds between two looks for due sessions when no signal comes.
    pub poll_ms: u64,
    /// Seconds that a stopping process waits for its turns before it hands them back.
    pub drain_seconds: u64,
    /// Times that a turn may be resumed without getting any further before it fails.
    pub resumes_max: u32,
    /// Milliseconds between two looks whether somebody stops a turn, when no signal comes.
    pub stop_poll_ms: u64,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            turns_max: 64,
            lease_seconds: 30,
            poll_ms: 1000,
            drain_seconds: 10,
            resumes_max: 5,
            stop_poll_ms: 500,
        }
    }
}

impl Options {
    fn lease(&self) -> Duration {
        Duration::from_secs(self.lease_seconds)
    }
}

/// Sessions claimed in one look at most.
const CLAIM_MAX: usize = 64;

/// Pause after the store failed.
const FAILED_PAUSE: Duration = Duration::from_millis(500);

#[derive(Clone, Debug)]
pub struct Worker {
    store: Store,
    runtime: Runtime,
    signals: Signals,
    options: Options,
    /// Written into leases: the node, and which of its lives.
    owner: String,
    clock: Clock,
}

impl Worker {
    /// `node` names this data directory for ever, `boot` this process.
    pub fn new(
        store: Store,
        runtime: Runtime,
        signals: Signals,
        options: Options,
        node: &str,
        boot: &str,
    ) -> Worker {
        let clock = store.clock().clone();
        Worker { store, runtime, signals, options, owner: format!("{node}:{boot}"), clock }
    }

    /// Works until told to stop, then drains: no new claims, a while for running turns to end, and
    /// what is left is handed back.
    pub async fn run(self, stop: CancellationToken) {
        self.void_earlier_leases().await;
        let turns = TaskTracker::new();
        tokio::select! {
            biased;
            () = self.claim_and_drain(stop, &turns) => {}
            () = self.tell_who_shall_stop(&turns) => {}
        }
    }

    /// Rings for those of our turns that somebody stops, whoever it told. Never ends by itself.
    async fn tell_who_shall_stop(&self, turns: &TaskTracker) {
        loop {
            self.clock.sleep(Duration::from_millis(self.options.stop_poll_ms)).await;
            if turns.is_empty() {
                continue;
            }
            match self.store.urgent(self.owner.clone()).await {
                Ok(urgent) => {
                    urgent.iter().for_each(|session| self.signals.changed_elsewhere(session));
                }
                Err(error) => {
                    tracing::debug!(error = %error.detail(), "nobody knows which turns shall stop");
                }
            }
        }
    }

    async fn claim_and_drain(&self, stop: CancellationToken, turns: &TaskTracker) {
        let slots = Arc::new(Semaphore::new(self.options.turns_max));
        let hand_back = CancellationToken::new();
        let mut after = None;
        while !stop.is_cancelled() {
            // Whoever became due during a claim has rung, so there is no need to look again for its sake.
            if self.claim(&slots, turns, &hand_back, &mut after).await == Left::Nothing {
                tokio::select! {
                    biased;
                    () = stop.cancelled() => {}
                    () = self.signals.wait_due() => {}
                    () = self.pause() => {}
                }
            } else if slots.available_permits() == 0 {
                tokio::select! {
                    biased;
                    () = stop.cancelled() => {}
                    _ = slots.acquire() => {}
                }
            }
        }
        turns.close();
        let drain = Duration::from_secs(self.options.drain_seconds);
        if self.clock.timeout(drain, turns.wait()).await.is_err() {
            tracing::info!(turns = turns.len(), "handing back turns that did not end in time");
            hand_back.cancel();
            turns.wait().await;
        }
    }

    /// The lock on the data directory proves that earlier lives of this node are dead.
    async fn void_earlier_leases(&self) {
        let node = self.owner.split(':').next().unwrap_or_default().to_owned();
        match self.store.void_leases(node, self.owner.clone()).await {
            Ok(0) => {}
            Ok(n) => tracing::info!(sessions = n, "taking up what an earlier run left unfinished"),
            // They run out by themselves.
            Err(error) => tracing::warn!(error = %error.detail(), "earlier leases were not voided"),
        }
    }

    /// Until the next look: the poll interval, or less when something is due before.
    async fn pause(&self) {
        // Whatever was just claimed comes first.
        tokio::task::yield_now().await;
        let poll = Duration::from_millis(self.options.poll_ms);
        let due = self.store.next_due().await.ok().flatten();
        let wait = due.map_or(poll, |due| due.min(poll));
        // Sessions of this node's own running turns are due at the end of their lease: not before.
        self.clock.sleep(wait.max(Duration::from_millis(20).min(poll))).await;
    }

    /// Claims as many sessions as there is room for, begins the work on them, and tells whether to look
    /// again at once.
    async fn claim(
        &self,
        slots: &Arc<Semaphore>,
        turns: &TaskTracker,
        hand_back: &CancellationToken,
        after: &mut Option<AgentId>,
    ) -> Left {
        // Nobody else takes any, so those that are there now are there in a moment.
        let n_free = slots.available_permits().min(CLAIM_MAX);
        if n_free == 0 {
            return Left::Perhaps;
        }
        let n_permits = u32::try_from(n_free).unwrap_or(u32::MAX);
        let free = slots.clone().try_acquire_many_owned(n_permits);
        let Ok(mut permits) = free else { return Left::Perhaps };
        let lease = self.options.lease();
        // The leases run from the commit, which no answer tells and which comes after this.
        let asked = self.clock.monotonic();
        let claiming = self.store.claim_and_begin(
            self.owner.clone(),
            lease,
            n_free,
            after.clone(),
            self.runtime.beginning(),
            self.runtime.first_request(),
        );
        let (claimed, left, mut start) = match claiming.await {
            Ok(claimed) => claimed,
            Err(error) => {
                tracing::warn!(error = %error.detail(), "no session could be claimed");
                self.clock.sleep(FAILED_PAUSE).await;
                return Left::Nothing;
            }
        };
        if let Some(last) = claimed.last() {
            *after = Some(last.agent_id.clone());
        }
        for claimed in claimed {
            let Some(permit) = permits.split(1) else { break };
            let (worker, hand_back) = (self.clone(), hand_back.child_token());
            // Whatever is said about a session's work is said with its id.
            let span = tracing::error_span!("session", session_id = %claimed.lease.session_id);
            // Whoever has one is alone.
            let start = start.take();
            let working = async move {
                worker.work(claimed, start, asked, hand_back).await;
                drop(permit);
            };
            turns.spawn(working.instrument(span));
        }
        left
    }

    /// One claimed session: the turn and its heartbeat, whichever ends first ends both.
    async fn work(
        &self,
        claimed: Claimed,
        start: Option<Box<Start<FirstRequest>>>,
        asked: Instant,
        hand_back: CancellationToken,
    ) {
        let lease = claimed.lease;
        let stop = hand_back.child_token();
        let driving = AssertUnwindSafe(self.runtime.drive(&lease, start, &stop)).catch_unwind();
        let result = tokio::select! {
            // First of all whether the work may go on.
            biased;
            () = self.keep(&lease, asked) => {
                self.store.metrics().lease_lost();
                // Fenced or out of time: not a single write more. Dropping the turn kills its work.
                stop.cancel();
                tracing::warn!("the lease was lost; the work stops");
                Ok(Err(Stopped::Cancelled))
            }
            result = driving => result,
        };
        match result {
            Ok(Ok(())) => {}
            Ok(Err(Stopped::Cancelled)) => self.hand_back(&lease).await,
            Ok(Err(Stopped::Store(store::Error::Fenced))) => {
                self.store.metrics().lease_lost();
                tracing::warn!("another worker has this session");
            }
            Ok(Err(Stopped::Store(error))) => {
                // The lease runs out, and whoever claims the session goes on from the log.
                tracing::error!(error = %error.detail(), "a turn stopped because of the store");
            }
            Err(_) => {
                tracing::error!("a turn panicked");
                if let Err(error) = self.runtime.give_up(&lease).await {
                    tracing::error!(%error, "it stays unfinished");
                }
            }
        }
    }

    /// Renews the lease each third of its length, sooner after a failure. Returns when the work must
    /// stop. `renewed` is when the lease was asked for: the answer may have taken its time.
    async fn keep(&self, lease: &Lease, mut renewed: Instant) {
        let length = self.options.lease();
        let mut ask_at = renewed + length / 3;
        loop {
            self.clock.sleep_until(ask_at).await;
            let deadline = renewed + length * 2 / 3;
            let asked = self.clock.monotonic();
            // This process slept: whose lease it is by now is not for it to renew.
            if asked >= deadline {
                return;
            }
            let renewing = self.store.renew(lease, length);
            match self.clock.timeout_at(deadline, renewing).await {
                Ok(Ok(())) => {
                    renewed = asked;
                    ask_at = renewed + length / 3;
                    continue;
                }
                Ok(Err(store::Error::Fenced)) | Err(_) => return,
                Ok(Err(error)) => {
                    tracing::warn!(error = %error.detail(), "a lease was not renewed");
                }
            }
            ask_at = deadline.min(self.clock.monotonic() + length / 12);
        }
    }

    /// After this the turn goes on elsewhere, or here. Nothing to do where it does already.
    async fn hand_back(&self, lease: &Lease) {
        match self.store.release(lease).await {
            Ok(()) => self.signals.due(),
            Err(store::Error::Fenced) => {}
            Err(error) => tracing::warn!(
                error = %error.detail(),
                "a session was not handed back; its lease runs out"
            ),
        }
    }
}
