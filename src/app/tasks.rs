//! What runs beside requests and turns: looks at the disk, the database and the config file, notes
//! refused callers, tells other nodes. Each is a loop with a named interval; each may fail and tries
//! again; none is needed for correctness at any single moment.

use std::{sync::Arc, time::Duration};

use arc_swap::ArcSwap;
use tokio::sync::mpsc;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{data_dir::DataDir, workspaces};
use crate::{
    ingest::{self, Ingest},
    runtime::shells::Shells,
    signal::{Signals, Told},
    store::{Hint, Pruned, Refusal, Retention, Store},
};

/// Another node's change of configuration takes effect here within twice this.
const REVISION_INTERVAL: Duration = Duration::from_secs(1);
const DISK_INTERVAL: Duration = Duration::from_secs(1);
/// A task rests so many times as long as it worked, up to a minute.
const REST: u32 = 20;
const REST_MAX: Duration = Duration::from_secs(60);
const DAY_INTERVAL: Duration = Duration::from_secs(60);
const GAUGES_INTERVAL: Duration = Duration::from_secs(2);
const MEND_INTERVAL: Duration = Duration::from_secs(60);
const SWEEP_INTERVAL: Duration = Duration::from_secs(600);
const PRUNE_INTERVAL: Duration = Duration::from_secs(60);
const PAYLOADS_INTERVAL: Duration = Duration::from_secs(60);
const SHELLS_INTERVAL: Duration = Duration::from_secs(5);
const PRUNE_PAUSE: Duration = Duration::from_millis(50);
/// Refused callers are written down this often, this many at most.
const REFUSALS_INTERVAL: Duration = Duration::from_secs(1);
const REFUSALS_BATCH: usize = 100;
/// Pause before the connection for hints is made again.
const HINTS_PAUSE: Duration = Duration::from_secs(1);
const HINTS_WAITING: usize = 1024;

/// What the loops work on.
#[derive(Clone, Debug)]
pub(super) struct Tasks {
    pub(super) store: Store,
    pub(super) ingest: Arc<Ingest>,
    pub(super) signals: Signals,
    pub(super) data_dir: std::path::PathBuf,
    pub(super) workspaces: std::path::PathBuf,
    /// Which node this is.
    pub(super) node: String,
    pub(super) retention: Arc<ArcSwap<Retention>>,
    pub(super) tracker: TaskTracker,
    pub(super) stop: CancellationToken,
}

impl Tasks {
    pub(super) fn start(&self, refusals: mpsc::Receiver<Refusal>, told: mpsc::Receiver<Told>) {
        self.every(DISK_INTERVAL, "look at the disk", |tasks| async move {
            if let Some(free) = DataDir::free_bytes(&tasks.data_dir) {
                tasks.ingest.bounds.set_free_disk(free);
                tasks.store.metrics().set_free_disk(free);
            }
            tasks.store.metrics().keep_day(tasks.store.clock().now());
            Ok(())
        });
        self.every(DAY_INTERVAL, "keep what was counted", |tasks| async move {
            tasks.store.keep_day(tasks.node.clone()).await?;
            Ok(tasks.store.look_at_day_of_others(tasks.node).await?)
        });
        self.every(REVISION_INTERVAL, "look for changed configuration", |tasks| async move {
            if tasks.ingest.registry.refresh_if_changed().await? {
                tasks.signals.configured();
                tasks.signals.due_elsewhere();
            }
            Ok(())
        });
        self.every(GAUGES_INTERVAL, "count waiting sessions", |tasks| async move {
            // All of them each time: what came before this process, or by another one, is known to
            // the database only.
            let counted = tasks.store.waiting_sessions().await?;
            for (source, waiting) in ingest::gauges(&tasks.ingest.registry.snapshot()) {
                waiting.set(counted.get(&source).copied().unwrap_or(0));
            }
            Ok(())
        });
        self.every(GAUGES_INTERVAL, "count waiting messages", |tasks| async move {
            let (n_waiting, oldest) = tasks.store.outgoing_backlog().await?;
            let now = tasks.store.clock().now();
            let age = oldest.map_or(Duration::ZERO, |oldest| now.since(oldest));
            tasks.store.metrics().set_outgoing(n_waiting, age);
            Ok(())
        });
        self.every(MEND_INTERVAL, "mend the outbox", |tasks| async move {
            if tasks.store.mend_outbox().await? > 0 {
                tasks.signals.outgoing();
            }
            Ok(())
        });
        self.sweep();
        self.every(PRUNE_INTERVAL, "prune what is past its days", |tasks| async move {
            loop {
                let retention = tasks.retention.load_full();
                let pruned = tasks.store.prune(&retention).await?;
                tasks.store.metrics().pruned("bodies", pruned.bodies);
                tasks.store.metrics().pruned("deliveries", pruned.deliveries);
                tasks.store.metrics().pruned("messages", pruned.outgoing);
                if pruned != Pruned::default() {
                    tracing::info!(
                        bodies = pruned.bodies,
                        deliveries = pruned.deliveries,
                        messages = pruned.outgoing,
                        "pruned what is past its days"
                    );
                }
                if !pruned.is_full() || tasks.stop.is_cancelled() {
                    return Ok(());
                }
                // Room for others between two slices.
                tokio::time::sleep(PRUNE_PAUSE).await;
            }
        });
        self.every(PAYLOADS_INTERVAL, "remove files of erased payloads", |tasks| async move {
            let n = workspaces::sweep(&tasks.store, &tasks.workspaces).await?;
            if n > 0 {
                tracing::info!(files = n, "removed files of payloads that are gone");
            }
            Ok(())
        });
        self.every(PAYLOADS_INTERVAL, "remove workspaces of gone sessions", |tasks| async move {
            let n = workspaces::sweep_sessions(&tasks.store, &tasks.workspaces).await?;
            if n > 0 {
                tracing::info!(workspaces = n, "removed workspaces of sessions that are gone");
            }
            Ok(())
        });
        self.tracker.spawn(self.clone().note_refusals(refusals));
        let (hints, outgoing) = mpsc::channel(HINTS_WAITING);
        self.tracker.spawn(forward(told, hints, self.stop.clone()));
        self.tracker.spawn(self.clone().exchange_hints(outgoing));
    }

    /// Removes what was left, and what is past its time.
    fn sweep(&self) {
        self.every(SWEEP_INTERVAL, "sweep orphaned pieces of bodies", |tasks| async move {
            let n = tasks.store.sweep_orphans().await?;
            if n > 0 {
                tracing::info!(owners = n, "removed pieces of bodies that were never accepted");
            }
            Ok(())
        });
        self.every(SWEEP_INTERVAL, "sweep files", |tasks| async move {
            let n = tasks.store.sweep_files().await?;
            if n > 0 {
                tracing::info!(files = n, "removed files that expired or whose session is gone");
            }
            Ok(())
        });
    }

    /// Ends shells that nobody uses any more.
    pub(super) fn close_idle(&self, shells: Shells) {
        self.every(SHELLS_INTERVAL, "end idle shells", move |_| {
            let n = shells.close_idle();
            if n > 0 {
                tracing::debug!(shells = n, "ended shells that nobody uses");
            }
            std::future::ready(Ok(()))
        });
    }

    fn every<F>(
        &self,
        interval: Duration,
        what: &'static str,
        work: impl Fn(Tasks) -> F + Send + 'static,
    ) where
        F: Future<Output = anyhow::Result<()>> + Send,
    {
        let tasks = self.clone();
        self.tracker.spawn(async move {
            let clock = tasks.store.clock().clone();
            loop {
                let started = clock.monotonic();
                if let Err(error) = work(tasks.clone()).await {
                    tracing::warn!(error = format!("{error:#}"), "failed to {what}");
                }
                // What takes long, as with a million sessions to count, comes less often.
                let rest = REST * (clock.monotonic() - started);
                let pause = interval.max(rest.min(REST_MAX));
                tokio::select! {
                    () = tasks.stop.cancelled() => return,
                    () = tokio::time::sleep(pause) => {}
                }
            }
        });
    }

    async fn note_refusals(self, mut refusals: mpsc::Receiver<Refusal>) {
        loop {
            let mut batch = Vec::new();
            tokio::select! {
                () = self.stop.cancelled() => return,
                n = refusals.recv_many(&mut batch, REFUSALS_BATCH) => if n == 0 { return },
            }
            let keep = self.ingest.bounds.options().refusals_max;
            if let Err(error) = self.store.note_refusals(batch, keep).await {
                tracing::warn!(error = %error.detail(), "refused attempts were not written down");
            }
            tokio::time::sleep(REFUSALS_INTERVAL).await;
        }
    }

    async fn exchange_hints(self, mut outgoing: mpsc::Receiver<Hint>) {
        loop {
            let signals = self.signals.clone();
            let incoming = move |hint| match hint {
                Hint::Due => signals.due_elsewhere(),
                Hint::Changed(session) => signals.changed_elsewhere(&session),
            };
            tokio::select! {
                () = self.stop.cancelled() => return,
                result = self.store.exchange_hints(&mut outgoing, incoming) => match result {
                    Ok(()) => return,
                    Err(error) => tracing::warn!(
                        error = %error.detail(),
                        "no hints between nodes for a moment; polling goes on"
                    ),
                },
            }
            tokio::time::sleep(HINTS_PAUSE).await;
        }
    }
}

/// Puts this node's bells into the store's words.
async fn forward(
    mut told: mpsc::Receiver<Told>,
    hints: mpsc::Sender<Hint>,
    stop: CancellationToken,
) {
    loop {
        let told = tokio::select! {
            () = stop.cancelled() => return,
            told = told.recv() => told,
        };
        let hint = match told {
            Some(Told::Due) => Hint::Due,
            Some(Told::Changed(session)) => Hint::Changed(session),
            None => return,
        };
        // A hint that finds no room is dropped, as hints may be.
        let _ = hints.try_send(hint);
    }
}
