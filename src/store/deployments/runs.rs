//! What a deployment does when it is run, by its schedule or by hand, and what is known of it later.

use super::{archived, locked, read};
use crate::{
    clock::Timestamp,
    domain::{
        Metadata,
        deployment::{Deployment, DeploymentRun, RunError, RunErrorKind, Trigger},
        environment::EnvironmentConfig,
        event::{DEFINE_OUTCOME, EventBody},
        outcome::outcome_of,
    },
    id::{DeploymentId, DeploymentRunId, EventId, Id, SessionId, random_bits},
    store::{
        Change, Error, NewMessage, NewSession, Page, Result, Store, Tried, answers, audit,
        driver::{Lane, Row, Tx, params},
        resources,
        select::Select,
        sessions,
    },
};

/// What is to be done about the times of a schedule that have come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Passed {
    /// The newest of them.
    pub at: Timestamp,
    /// Those before it.
    pub n_skipped: i64,
    /// Whether it came too long ago to start anything now.
    pub too_late: bool,
    /// When it comes next.
    pub next: Option<Timestamp>,
}

/// Which runs a list shows, newest first.
#[derive(Clone, Debug, Default)]
pub struct RunFilter {
    pub deployment_id: Option<DeploymentId>,
    pub has_error: Option<bool>,
    /// Whether by schedule, or by hand.
    pub scheduled: Option<bool>,
    pub created_after: Option<Timestamp>,
    pub created_before: Option<Timestamp>,
    pub cursor: Option<DeploymentRunId>,
    pub limit: usize,
}

const COLUMNS: &str = "id, deployment_id, agent_id, agent_version, session_id, error_type, \
    error_message, scheduled_at, n_skipped, created_at from deployment_runs";

impl Store {
    /// Claims a time of a schedule and does what it asks for. Nothing when somebody else has done so,
    /// or when the deployment was changed meanwhile.
    pub async fn fire_deployment(
        &self,
        id: &DeploymentId,
        due: Timestamp,
        passed: Passed,
    ) -> Result<Option<DeploymentRun>> {
        let (id, at) = (id.clone(), self.clock.now());
        self.driver
            .transaction(Lane::Work, move |tx| {
                // The claim: of two that try, one finds another time here.
                let sql = "update deployments set next_at = $3 where id = $1 and next_at = $2";
                if tx.execute(sql, &params![&id, due, passed.next])? == 0 {
                    return Ok(None);
                }
                // After a clock that was set back: this time has been.
                let sql = "select 1 from deployment_runs where deployment_id = $1 \
                           and scheduled_at = $2";
                if tx.first(sql, &params![&id, passed.at])?.is_some() {
                    return Ok(None);
                }
                let deployment = read(tx, &id)?;
                let outcome = match passed.too_late {
                    true => Err(RunError {
                        kind: RunErrorKind::Unknown,
                        message:
                            "no server was running at this time, and when one was again it was \
                                  too late to catch up"
                                .to_owned(),
                    }),
                    false => start(tx, &deployment, at)?,
                };
                match &outcome {
                    Ok(_) => {
                        let sql = "update deployments set last_run_at = $2 where id = $1";
                        tx.execute(sql, &params![&id, at])?;
                    }
                    Err(error) if error.kind.pauses() => {
                        let sql = "update deployments set paused = $2, next_at = null, \
                                   updated_at = $3 where id = $1";
                        tx.execute(sql, &params![&id, error.kind.as_str(), at])?;
                    }
                    Err(_) => {}
                }
                let trigger = Trigger::Schedule { at: passed.at, n_skipped: passed.n_skipped };
                note(tx, &deployment, trigger, outcome, at).map(Some)
            })
            .await
    }

    /// Runs it by hand, now, paused or not. [`Error::Conflict`] when it is archived. Another try of the
    /// same request gets the run of the first one.
    pub async fn run_deployment(
        &self,
        id: &DeploymentId,
        tried: Tried,
        change: Change,
    ) -> Result<DeploymentRun> {
        let (id, at) = (id.clone(), self.clock.now());
        self.driver
            .transaction(Lane::Work, move |tx| {
                let deployment = locked(tx, &id)?;
                if let Some(before) = answers::earlier(tx, id.as_str(), &tried)? {
                    return one(tx, &before);
                }
                if deployment.archived_at.is_some() {
                    return Err(archived(&id));
                }
                let outcome = start(tx, &deployment, at)?;
                audit::note_only(tx, &change, at)?;
                let run = note(tx, &deployment, Trigger::Manual, outcome, at)?;
                answers::note_answer(tx, id.as_str(), &tried, &run.id)?;
                Ok(run)
            })
            .await
    }

    pub async fn deployment_run(&self, id: &DeploymentRunId) -> Result<DeploymentRun> {
        let id = id.clone();
        self.driver.read(move |tx| one(tx, &id)).await
    }

    pub async fn deployment_runs(&self, filter: RunFilter) -> Result<Page<DeploymentRun>> {
        self.driver
            .read(move |tx| {
                let mut select = Select::new(format!("select {COLUMNS} where 1 = 1"), []);
                select.and_some("deployment_id =", filter.deployment_id.as_ref());
                select.and_some("created_at >=", filter.created_after);
                select.and_some("created_at <=", filter.created_before);
                select.and_some("id <", filter.cursor.as_ref());
                let not = |wanted: bool| if wanted { "not " } else { "" };
                if let Some(wanted) = filter.has_error {
                    select.and_text(&format!("error_type is {}null", not(wanted)));
                }
                if let Some(wanted) = filter.scheduled {
                    select.and_text(&format!("scheduled_at is {}null", not(wanted)));
                }
                let (sql, values) = select.page("id desc", filter.limit);
                let rows = tx.query(&sql, &values)?.into_iter();
                let found = rows.map(from_row).collect::<Result<Vec<_>>>()?;
                Ok(Page::from_rows(found, filter.limit, |run| run.id.to_string()))
            })
            .await
    }
}

fn one(tx: &mut Tx<'_>, id: &DeploymentRunId) -> Result<DeploymentRun> {
    let row = tx.first(&format!("select {COLUMNS} where id = $1"), &params![id])?;
    row.ok_or(Error::NotFound).and_then(from_row)
}

/// A session, or why there is none.
type Outcome = std::result::Result<SessionId, RunError>;

/// Makes the session of a run, or says why there is none.
fn start(tx: &mut Tx<'_>, deployment: &Deployment, at: Timestamp) -> Result<Outcome> {
    if let Some(error) = obstacle(tx, deployment, at)? {
        return Ok(Err(error));
    }
    let messages = deployment.initial_events.iter().map(|event| {
        let (mut event, event_id) = (event.clone(), EventId::new(at));
        if event["type"] == DEFINE_OUTCOME {
            event["outcome_id"] = serde_json::json!(outcome_of(&event_id));
        }
        let body: EventBody = serde_json::from_value(event).map_err(Error::corrupt)?;
        // The nonce of the message's fence.
        let nonce = format!("{:020x}", random_bits(at) & ((1 << 80) - 1));
        let private = format!(r#"{{"nonce":"{nonce}"}}"#);
        Ok(NewMessage { event_id, body, private })
    });
    let session = NewSession {
        id: SessionId::new(at),
        agent_id: deployment.agent_id.clone(),
        agent_version: deployment.agent_version,
        overrides: None,
        environment_id: deployment.environment_id.clone(),
        deployment_id: Some(deployment.id.clone()),
        title: Some(deployment.name.clone()),
        metadata: Metadata::new(),
        messages: messages.collect::<Result<_>>()?,
        resources: deployment.resources.clone(),
        vault_ids: deployment.vault_ids.clone(),
        budget: deployment.budget,
    };
    sessions::insert(tx, &session, at)?;
    Ok(Ok(session.id))
}

/// What is in the way of a new session.
fn obstacle(tx: &mut Tx<'_>, deployment: &Deployment, at: Timestamp) -> Result<Option<RunError>> {
    let error = |kind, message: String| Ok(Some(RunError { kind, message }));
    let agent = &deployment.agent_id;
    let row = tx.first("select archived_at from agents where id = $1", &params![agent])?;
    if row.ok_or(Error::NotFound)?.time_or_null(0)?.is_some() {
        return error(RunErrorKind::AgentArchived, format!("the agent {agent} is archived"));
    }
    let environment = &deployment.environment_id;
    let sql = "select archived_at, config from environments where id = $1";
    let Some(mut row) = tx.first(sql, &params![environment])? else {
        let message = format!("the environment {environment} is not there any more");
        return error(RunErrorKind::EnvironmentNotFound, message);
    };
    if row.time_or_null(0)?.is_some() {
        let message = format!("the environment {environment} is archived");
        return error(RunErrorKind::EnvironmentArchived, message);
    }
    if matches!(row.json(1)?, EnvironmentConfig::SelfHosted) && !deployment.resources.is_empty() {
        let message = "files are not mounted in self-hosted environments".to_owned();
        return error(RunErrorKind::SelfHostedResourcesUnsupported, message);
    }
    for vault in &deployment.vault_ids {
        let row = tx.first("select archived_at from vaults where id = $1", &params![vault])?;
        let Some(mut row) = row else {
            let message = format!("the vault {vault} is not there any more");
            return error(RunErrorKind::VaultNotFound, message);
        };
        if row.time_or_null(0)?.is_some() {
            let message = format!("the vault {vault} is archived");
            return error(RunErrorKind::VaultArchived, message);
        }
    }
    let mounted = deployment.resources.iter().map(|mount| mount.file_id.to_string());
    let events = deployment.initial_events.iter();
    let rubrics = events.filter_map(|it| it["rubric"]["file_id"].as_str().map(str::to_owned));
    for file in mounted.chain(rubrics) {
        if !resources::may_mount(tx, &file.parse().map_err(Error::corrupt)?, at)? {
            let message = format!("the file {file} is not there any more");
            return error(RunErrorKind::FileNotFound, message);
        }
    }
    Ok(None)
}

fn note(
    tx: &mut Tx<'_>,
    deployment: &Deployment,
    trigger: Trigger,
    outcome: Outcome,
    at: Timestamp,
) -> Result<DeploymentRun> {
    let run = DeploymentRun {
        id: DeploymentRunId::new(at),
        deployment_id: deployment.id.clone(),
        agent_id: deployment.agent_id.clone(),
        agent_version: deployment.agent_version,
        trigger,
        outcome,
        created_at: at,
    };
    let (scheduled_at, n_skipped) = match trigger {
        Trigger::Manual => (None, 0),
        Trigger::Schedule { at, n_skipped } => (Some(at), n_skipped),
    };
    let error = run.outcome.as_ref().err();
    tx.execute(
        "insert into deployment_runs (id, deployment_id, agent_id, agent_version, session_id, \
         error_type, error_message, scheduled_at, n_skipped, created_at) \
         values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)",
        &params![
            &run.id,
            &run.deployment_id,
            &run.agent_id,
            run.agent_version,
            run.outcome.as_ref().ok(),
            error.map(|error| error.kind.as_str()),
            error.map(|error| &error.message),
            scheduled_at,
            n_skipped,
            at,
        ],
    )?;
    Ok(run)
}

fn from_row(mut row: Row) -> Result<DeploymentRun> {
    let outcome = match (row.id_or_null(4)?, row.text_or_null(5)?, row.text_or_null(6)?) {
        (Some(session), ..) => Ok(session),
        (None, Some(kind), Some(message)) => {
            let kind = RunErrorKind::parse(&kind).ok_or(Error::Bug("an unknown error of a run"))?;
            Err(RunError { kind, message })
        }
        _ => return Err(Error::Bug("a run without an outcome")),
    };
    let trigger = match row.time_or_null(7)? {
        None => Trigger::Manual,
        Some(at) => Trigger::Schedule { at, n_skipped: row.int(8)? },
    };
    Ok(DeploymentRun {
        id: row.id(0)?,
        deployment_id: row.id(1)?,
        agent_id: row.id(2)?,
        agent_version: row.int(3)?,
        trigger,
        outcome,
        created_at: row.time(9)?,
    })
}
