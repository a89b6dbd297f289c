//! Times of schedules: each is one run, whoever fires it, and whatever was missed.

use std::{collections::BTreeSet, time::Duration};

use bellpull::{
    clock::Timestamp,
    domain::{
        budget::Budget,
        deployment::{Deployment, DeploymentRun, Paused, RunErrorKind, Schedule, Trigger},
        resource::FileMount,
    },
    id::{DeploymentId, Id as _},
    schedule::{Options, Schedules, cron},
    signal::Signals,
    store::{DeploymentPatch, Error, RunFilter, Tried},
};
use serde_json::json;

use super::{
    Bench,
    bench::{HOUR, change},
};

on_both!(
    one_time_is_one_run_whoever_fires_it,
    a_time_that_was_claimed_before_a_death_is_as_if_it_was_not,
    what_was_missed_is_caught_up_on_once_if_it_is_not_too_old,
    a_paused_one_does_not_fire_and_makes_up_for_nothing,
    an_error_that_stays_pauses_the_schedule,
    an_archived_agent_takes_its_deployments_along,
    a_changed_schedule_comes_at_its_new_times,
    a_clock_that_is_set_back_repeats_nothing,
);

const MINUTE: Duration = Duration::from_secs(60);

impl Bench {
    async fn deployment(&self, expression: Option<&str>) -> Deployment {
        let at = self.clock.now();
        let schedule = expression.map(|expression| Schedule {
            expression: expression.to_owned(),
            timezone: "UTC".to_owned(),
        });
        let content = json!([{"type": "text", "text": "report"}]);
        let deployment = Deployment {
            id: self.id(),
            name: "nightly".to_owned(),
            description: None,
            agent_id: self.agent.id.clone(),
            agent_version: self.agent.version,
            environment_id: self.environment.id.clone(),
            initial_events: vec![json!({"type": "user.message", "content": content})],
            resources: Vec::new(),
            vault_ids: Vec::new(),
            metadata: Default::default(),
            budget: Budget::default(),
            next_at: schedule.as_ref().and_then(|schedule| cron::next(schedule, at)),
            schedule,
            paused: None,
            last_run_at: None,
            created_at: at,
            updated_at: at,
            archived_at: None,
        };
        self.store.create_deployment(deployment, change("test")).await.expect("it is made")
    }

    fn schedules(&self) -> Schedules {
        Schedules::new(self.store.clone(), Signals::new().0, Options::default())
    }

    async fn look(&self) -> Option<Duration> {
        self.schedules().look().await.expect("the store works")
    }

    /// Newest first.
    async fn runs(&self, id: &DeploymentId) -> Vec<DeploymentRun> {
        let filter =
            RunFilter { deployment_id: Some(id.clone()), limit: 1000, ..RunFilter::default() };
        self.store.deployment_runs(filter).await.unwrap().data
    }

    async fn n_sessions(&self) -> i64 {
        self.place.number("select count(*) from sessions where deployment_id is not null").await
    }

    async fn to(&self, id: &DeploymentId) -> Timestamp {
        let next = self.store.deployment(id).await.unwrap().next_at.expect("it comes");
        self.clock.advance(next.since(self.clock.now()));
        next
    }
}

async fn one_time_is_one_run_whoever_fires_it(bench: Bench) {
    let other = bench.another_node().await;
    let mut ids = Vec::new();
    for _ in 0..10 {
        ids.push(bench.deployment(Some("* * * * *")).await.id);
    }
    for n in 1..=5 {
        bench.to(&ids[0]).await;
        let looks = [&bench, &other, &bench, &other].map(Bench::schedules);
        let looks = looks.map(|it| tokio::spawn(async move { it.look().await }));
        for look in looks {
            look.await.unwrap().unwrap();
        }
        for id in &ids {
            assert_eq!(bench.runs(id).await.len(), n);
        }
    }
    assert_eq!(bench.n_sessions().await, 50);
    let sessions: BTreeSet<_> =
        bench.runs(&ids[3]).await.into_iter().map(|run| run.outcome.unwrap()).collect();
    assert_eq!(sessions.len(), 5);
    // They work at once, with their first message.
    let due = bench.place.number("select count(*) from sessions where next_at is not null").await;
    assert_eq!((due, bench.claim_as("a", HOUR).await.is_empty()), (50, false));
}

/// All of it is one transaction: what did not come to its end is not there at all.
async fn a_time_that_was_claimed_before_a_death_is_as_if_it_was_not(bench: Bench) {
    let deployment = bench.deployment(Some("* * * * *")).await;
    bench.to(&deployment.id).await;
    // In the place of a death: the last write of the transaction cannot be made.
    bench.place.script("alter table deployment_runs rename to gone").await;
    assert_eq!(bench.look().await, Some(Duration::from_secs(1)), "it looks again soon");
    assert_eq!(bench.n_sessions().await, 0);
    assert_eq!(bench.store.deployment(&deployment.id).await.unwrap(), deployment);
    bench.place.script("alter table gone rename to deployment_runs").await;
    bench.look().await;
    assert_eq!((bench.n_sessions().await, bench.runs(&deployment.id).await.len()), (1, 1));
}

async fn what_was_missed_is_caught_up_on_once_if_it_is_not_too_old(bench: Bench) {
    let often = bench.deployment(Some("*/10 * * * *")).await.id;
    let daily = bench.deployment(Some("0 0 * * *")).await.id;
    let (first, midnight) = (bench.to(&often).await, bench.to(&daily).await);
    bench.clock.advance(25 * MINUTE);
    bench.look().await;
    let caught = bench.runs(&often).await;
    let missed = i64::try_from(midnight.since(first).as_secs() / 600).unwrap() + 2;
    let at = midnight.plus(20 * MINUTE);
    assert_eq!(caught.len(), 1);
    assert_eq!(caught[0].trigger, Trigger::Schedule { at, n_skipped: missed });
    assert!(caught[0].outcome.is_ok() && bench.runs(&daily).await[0].outcome.is_ok());

    let midnight = bench.to(&daily).await;
    bench.clock.advance(HOUR + MINUTE);
    bench.look().await;
    let late = bench.runs(&daily).await.remove(0);
    assert_eq!(late.trigger, Trigger::Schedule { at: midnight, n_skipped: 0 });
    assert_eq!(late.outcome.unwrap_err().kind, RunErrorKind::Unknown);
    let after = bench.store.deployment(&daily).await.unwrap();
    assert_eq!((after.paused, after.next_at), (None, Some(midnight.plus(24 * HOUR))));
}

/// A first try of a request.
fn try_of(hash: &str) -> Tried {
    Tried { n: 0, came_at: Timestamp(0), hash: hash.to_owned() }
}

async fn a_paused_one_does_not_fire_and_makes_up_for_nothing(bench: Bench) {
    let id = bench.deployment(Some("0 * * * *")).await.id;
    let paused = bench.store.pause_deployment(&id, change("test")).await.unwrap();
    assert_eq!((paused.paused, paused.next_at), (Some(Paused::Manual), None));
    bench.clock.advance(3 * HOUR);
    assert_eq!(bench.look().await, None);
    assert!(bench.runs(&id).await.is_empty());
    bench.store.run_deployment(&id, try_of("one"), change("test")).await.unwrap().outcome.unwrap();
    let active = bench.store.unpause_deployment(&id, cron::next, change("test")).await.unwrap();
    assert!(active.next_at > Some(bench.clock.now()));
    bench.look().await;
    assert_eq!(bench.runs(&id).await.len(), 1, "only the one by hand");
    let last_run_at = bench.store.deployment(&id).await.unwrap().last_run_at;
    assert_eq!(last_run_at, None, "which counts for no schedule");
    bench.to(&id).await;
    bench.look().await;
    assert_eq!(bench.runs(&id).await.len(), 2);
    let archived = bench.store.archive_deployment(&id, change("test")).await.unwrap();
    assert!(archived.archived_at.is_some() && archived.last_run_at.is_some());
    bench.clock.advance(3 * HOUR);
    assert_eq!(bench.look().await, None);
    assert_fails!(
        bench.store.run_deployment(&id, try_of("one"), change("test")).await,
        Error::Conflict(_)
    );
}

async fn an_error_that_stays_pauses_the_schedule(bench: Bench) {
    let id = bench.deployment(Some("0 * * * *")).await.id;
    let file = FileMount { file_id: bench.id(), mount_path: None };
    let resources = DeploymentPatch { resources: Some(vec![file]), ..DeploymentPatch::default() };
    bench.store.update_deployment(&id, resources, cron::next, change("test")).await.unwrap();
    bench.to(&id).await;
    bench.look().await;
    let error = bench.runs(&id).await.remove(0).outcome.unwrap_err();
    assert_eq!(error.kind, RunErrorKind::FileNotFound);
    let paused = bench.store.deployment(&id).await.unwrap();
    assert_eq!(paused.paused, Some(Paused::Error(RunErrorKind::FileNotFound)));
    assert_eq!((paused.next_at, bench.n_sessions().await), (None, 0));
    let shown = paused.to_json(&[]);
    let reason = json!({"type": "error", "error": {"type": "file_not_found_error"}});
    assert_eq!((&shown["status"], &shown["paused_reason"]), (&json!("paused"), &reason));

    let mended = DeploymentPatch { resources: Some(Vec::new()), ..DeploymentPatch::default() };
    bench.store.update_deployment(&id, mended, cron::next, change("test")).await.unwrap();
    bench.store.unpause_deployment(&id, cron::next, change("test")).await.unwrap();
    for (sql, kind) in [
        ("update environments set archived_at = 1", RunErrorKind::EnvironmentArchived),
        ("update environments set id = 'env_gone'", RunErrorKind::EnvironmentNotFound),
        ("update agents set archived_at = 1", RunErrorKind::AgentArchived),
    ] {
        bench.place.script(sql).await;
        bench.to(&id).await;
        bench.look().await;
        assert_eq!(bench.runs(&id).await.remove(0).outcome.unwrap_err().kind, kind);
        assert_eq!(bench.store.deployment(&id).await.unwrap().paused, Some(Paused::Error(kind)));
        bench.store.unpause_deployment(&id, cron::next, change("test")).await.unwrap();
    }
}

async fn an_archived_agent_takes_its_deployments_along(bench: Bench) {
    let (one, two) = (bench.deployment(Some("* * * * *")).await, bench.deployment(None).await);
    bench.store.archive_agent(&bench.agent.id, change("test")).await.unwrap();
    for id in [&one.id, &two.id] {
        assert!(bench.store.deployment(id).await.unwrap().archived_at.is_some());
    }
    bench.clock.advance(HOUR);
    assert_eq!((bench.look().await, bench.n_sessions().await), (None, 0));
    let again = bench.store.create_deployment(two, change("test")).await;
    assert_fails!(again, Error::Invalid(_));
}

async fn a_changed_schedule_comes_at_its_new_times(bench: Bench) {
    let id = bench.deployment(Some("0 * * * *")).await.id;
    let due = bench.store.due_deployments(10).await.unwrap();
    assert_eq!(due, []);
    let to = |expression: Option<&str>| DeploymentPatch {
        schedule: Some(expression.map(|expression| Schedule {
            expression: expression.to_owned(),
            timezone: "Europe/Berlin".to_owned(),
        })),
        ..DeploymentPatch::default()
    };
    let later =
        bench.store.update_deployment(&id, to(Some("30 3 * * *")), cron::next, change("test"));
    let later = later.await.unwrap();
    let next = later.next_at.unwrap();
    assert!(next.since(bench.clock.now()) > HOUR);
    bench.clock.advance(HOUR);
    assert_eq!(bench.look().await, Some(next.since(bench.clock.now())));
    assert!(bench.runs(&id).await.is_empty());
    let by_hand = bench.store.update_deployment(&id, to(None), cron::next, change("test")).await;
    assert_eq!(by_hand.unwrap().next_at, None);
    assert_eq!(bench.look().await, None);
}

async fn a_clock_that_is_set_back_repeats_nothing(bench: Bench) {
    let id = bench.deployment(Some("* * * * *")).await.id;
    let time = bench.to(&id).await;
    bench.look().await;
    // As after a pause in a minute that comes again.
    bench.place.script(&format!("update deployments set next_at = {}", time.0)).await;
    bench.look().await;
    assert_eq!((bench.runs(&id).await.len(), bench.n_sessions().await), (1, 1));
    assert!(bench.store.deployment(&id).await.unwrap().next_at > Some(time));
    assert!(id.as_str().starts_with("depl_"));
}
