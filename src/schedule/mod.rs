//! The schedules of deployments: starts sessions when their time has come.
//!
//! [`cron`] says when that is, the store does what a time asks for in one transaction. Invariant: each
//! time of a schedule is one run, whatever the number of nodes, and whenever one of them dies. A loop
//! sleeps until the next time, and looks again when the configuration changes. Times that nobody was
//! there for are caught up on once, with the newest of them, if it is not too old. Left out: what a
//! session does then, which is the worker's.

pub mod cron;
pub mod words;

use std::time::Duration;

use tokio_util::sync::CancellationToken;

use self::cron::Cron;
use crate::{
    clock::{Clock, Timestamp},
    signal::Signals,
    store::{DueDeployment, Error, Passed, Store},
};

/// How schedules are kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// Seconds after its time within which a run is still started.
    pub catch_up_seconds_max: u64,
}

impl Default for Options {
    fn default() -> Options {
        Options { catch_up_seconds_max: 3600 }
    }
}

/// Longest sleep. The wall clock may have been set meanwhile, and a signal lost.
const SLEEP_MAX: Duration = Duration::from_secs(60);

/// Pause after the store failed, or when what is due could not be done.
const FAILED_PAUSE: Duration = Duration::from_secs(1);

/// Deployments that one look takes on.
const LOOK_MAX: usize = 100;

/// Times before the newest one that are counted; more are this many.
const SKIPPED_MAX: i64 = 10_000;

/// Starts what is due. Clones are the same.
#[derive(Clone, Debug)]
pub struct Schedules {
    store: Store,
    signals: Signals,
    options: Options,
    clock: Clock,
}

impl Schedules {
    pub fn new(store: Store, signals: Signals, options: Options) -> Schedules {
        let clock = store.clock().clone();
        Schedules { store, signals, options, clock }
    }

    /// Starts what is due until told to stop.
    pub async fn run(self, stop: CancellationToken) {
        let mut changes = self.signals.watch_config();
        while !stop.is_cancelled() {
            changes.borrow_and_update();
            let wait = match self.look().await {
                Ok(wait) => wait.unwrap_or(SLEEP_MAX).min(SLEEP_MAX),
                Err(error) => {
                    tracing::warn!(error = %error.detail(), "schedules could not be looked at");
                    FAILED_PAUSE
                }
            };
            tokio::select! {
                biased;
                () = stop.cancelled() => {}
                _ = changes.changed() => {}
                () = self.clock.sleep(wait) => {}
            }
        }
    }

    /// Starts what is due, and answers how long nothing more will be.
    pub async fn look(&self) -> Result<Option<Duration>, Error> {
        loop {
            let due = self.store.due_deployments(LOOK_MAX).await?;
            let n = due.len();
            let mut failed = false;
            for due in due {
                failed |= !self.fire(due).await;
            }
            if failed {
                return Ok(Some(FAILED_PAUSE));
            }
            if n < LOOK_MAX {
                break;
            }
        }
        let next = self.store.next_deployment().await?;
        Ok(next.map(|next| next.since(self.clock.now())))
    }

    /// One deployment whose time has come. Answers whether that is done with.
    async fn fire(&self, due: DueDeployment) -> bool {
        let now = self.clock.now();
        let passed = passed(&due, now, Duration::from_secs(self.options.catch_up_seconds_max));
        let run = match self.store.fire_deployment(&due.id, due.at, passed).await {
            Ok(Some(run)) => run,
            Ok(None) => return true,
            Err(error) => {
                let (deployment_id, error) = (due.id, error.detail());
                tracing::error!(%deployment_id, error, "a schedule's time has come in vain so far");
                return false;
            }
        };
        let (run_id, deployment_id) = (&run.id, &run.deployment_id);
        let late_ms = now.since(passed.at).as_millis();
        let n_skipped = passed.n_skipped;
        match &run.outcome {
            Ok(session_id) => {
                self.signals.due();
                self.signals.changed(session_id);
                tracing::info!(
                    %run_id, %deployment_id, %session_id, late_ms, n_skipped,
                    "a deployment has started a session"
                );
            }
            Err(error) => {
                let (kind, message) = (error.kind.as_str(), &error.message);
                tracing::warn!(
                    %run_id, %deployment_id, kind, message, late_ms, n_skipped,
                    "a deployment has not started a session"
                );
            }
        }
        true
    }
}

/// What the times are that have come, of which the first is known.
fn passed(due: &DueDeployment, now: Timestamp, bound: Duration) -> Passed {
    let Ok(cron) = Cron::parse(&due.schedule) else {
        // It was looked at when it was stored; a zone may be gone from a newer list.
        return Passed { at: due.at, n_skipped: 0, too_late: false, next: None };
    };
    let until_now = |at: &Timestamp| cron.next(*at).filter(|next| *next <= now);
    let mut n_skipped = -1;
    let mut at = due.at;
    for time in std::iter::successors(Some(due.at), until_now) {
        (at, n_skipped) = (time, n_skipped + 1);
        if n_skipped == SKIPPED_MAX {
            // Years of minutes: from here on only the newest is looked for.
            let recent = now.minus(bound).max(time);
            at = std::iter::successors(until_now(&recent), until_now).last().unwrap_or(time);
            break;
        }
    }
    let too_late = now.since(at) > bound;
    Passed { at, n_skipped, too_late, next: cron.next(now.max(at)) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        domain::deployment::Schedule,
        id::{DeploymentId, Id},
    };

    const HOUR: Duration = Duration::from_secs(3600);

    fn check(expression: &str, due: &str, now: &str, expected: (&str, i64, bool, &str)) {
        let at = |text: &str| text.parse::<Timestamp>().unwrap();
        let schedule = Schedule { expression: expression.to_owned(), timezone: "UTC".to_owned() };
        let due = DueDeployment { id: DeploymentId::new(at(due)), at: at(due), schedule };
        let (newest, n_skipped, too_late, next) = expected;
        let expected = Passed { at: at(newest), n_skipped, too_late, next: Some(at(next)) };
        assert_eq!(passed(&due, at(now), HOUR), expected, "{expression} {now}");
    }

    #[test]
    fn of_the_times_that_passed_the_newest_is_caught_up_on() {
        let (first, second) = ("2026-01-01T00:00:00Z", "2026-01-02T00:00:00Z");
        check("0 0 * * *", first, "2026-01-01T00:00:00.5Z", (first, 0, false, second));
        check("0 0 * * *", first, "2026-01-01T01:00:00Z", (first, 0, false, second));
        check("0 0 * * *", first, "2026-01-01T01:00:01Z", (first, 0, true, second));
        let third = "2026-01-03T00:00:00Z";
        check("0 0 * * *", first, "2026-01-02T00:30:00Z", (second, 1, false, third));
        let (hour, newest) = ("2026-01-01T01:00:30Z", "2026-01-01T01:00:00Z");
        check("* * * * *", first, hour, (newest, 60, false, "2026-01-01T01:01:00Z"));
        // More than are counted.
        let (year, newest) = ("2027-01-01T00:00:30Z", "2027-01-01T00:00:00Z");
        check("* * * * *", first, year, (newest, SKIPPED_MAX, false, "2027-01-01T00:01:00Z"));
    }
}
