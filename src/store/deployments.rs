//! Deployments, and the record of what they started.
//!
//! Invariant: whoever moves a deployment's next time on has claimed the time that it was, and does
//! everything that this time asks for in the same transaction: the session with its first messages,
//! the record of the run, and the next time. So no time is lost or comes twice, whoever dies. Left
//! out: when the next time is, which callers know.

mod runs;

use std::collections::BTreeMap;

pub use runs::{Passed, RunFilter};

use super::{
    Change, Error, Page, Result, Store, audit,
    driver::{Row, Tx, params},
    select::Select,
};
use crate::{
    clock::Timestamp,
    domain::{
        Problem,
        budget::Budget,
        check_metadata,
        deployment::{Deployment, Paused, Schedule},
        patch_metadata,
        resource::FileMount,
    },
    id::{AgentId, DeploymentId, EnvironmentId, Id},
};

/// When a schedule comes first after a time.
pub type NextTime = fn(&Schedule, Timestamp) -> Option<Timestamp>;

/// Deployments that are not archived.
const DEPLOYMENTS_MAX: i64 = 1000;

/// What changes; what is absent stays.
#[derive(Clone, Debug, Default)]
pub struct DeploymentPatch {
    pub name: Option<String>,
    pub description: Option<Option<String>>,
    pub agent: Option<(AgentId, i64)>,
    pub environment_id: Option<EnvironmentId>,
    pub initial_events: Option<Vec<serde_json::Value>>,
    pub resources: Option<Vec<FileMount>>,
    pub vault_ids: Option<Vec<String>>,
    /// A text upserts, null deletes.
    pub metadata: BTreeMap<String, Option<String>>,
    pub budget: Option<Budget>,
    pub schedule: Option<Option<Schedule>>,
}

/// Which deployments a list shows, newest first.
#[derive(Clone, Debug, Default)]
pub struct DeploymentFilter {
    pub agent_id: Option<AgentId>,
    pub paused: Option<bool>,
    pub include_archived: bool,
    pub created_after: Option<Timestamp>,
    pub created_before: Option<Timestamp>,
    pub cursor: Option<DeploymentId>,
    pub limit: usize,
    /// Of the events of all that a page shows, unless it shows one: any may be as large as a body.
    pub bytes_max: usize,
}

/// A deployment whose time has come.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DueDeployment {
    pub id: DeploymentId,
    pub at: Timestamp,
    pub schedule: Schedule,
}

const COLUMNS: &str = "id, name, description, agent_id, agent_version, environment_id, \
    initial_events, resources, vault_ids, metadata, limits, expression, timezone, paused, next_at, \
    last_run_at, created_at, updated_at, archived_at from deployments";

impl Store {
    /// [`Error::Conflict`] when there are as many as there may be.
    pub async fn create_deployment(
        &self,
        deployment: Deployment,
        change: Change,
    ) -> Result<Deployment> {
        self.configure(move |tx| {
            let n = tx.first("select count(*) from deployments where archived_at is null", &[])?;
            if n.ok_or(Error::Bug("no count"))?.int(0)? >= DEPLOYMENTS_MAX {
                let text = format!("there are {DEPLOYMENTS_MAX} deployments; archive some first");
                return Err(Error::Conflict(text));
            }
            agent_lives(tx, &deployment.agent_id)?;
            tx.execute(
                "insert into deployments (id, name, agent_id, agent_version, environment_id, \
                 initial_events, resources, vault_ids, metadata, limits, created_at, updated_at) \
                 values ($1, '', '', 0, '', '', '', '', '', '', $2, $2)",
                &params![&deployment.id, deployment.created_at],
            )?;
            write(tx, &deployment)?;
            audit::note(tx, &change, deployment.created_at)?;
            Ok(deployment)
        })
        .await
    }

    /// [`Error::Conflict`] when it is archived.
    pub async fn update_deployment(
        &self,
        id: &DeploymentId,
        patch: DeploymentPatch,
        next: NextTime,
        change: Change,
    ) -> Result<Deployment> {
        let (id, at) = (id.clone(), self.clock.now());
        self.configure(move |tx| {
            let before = living(tx, &id)?;
            let mut deployment = before.clone();
            apply(&mut deployment, patch)?;
            if deployment.agent_id != before.agent_id
                || deployment.agent_version != before.agent_version
            {
                agent_lives(tx, &deployment.agent_id)?;
            }
            if deployment.schedule != before.schedule {
                let schedule = deployment.schedule.as_ref();
                let schedule = schedule.filter(|_| deployment.paused.is_none());
                deployment.next_at = schedule.and_then(|schedule| next(schedule, at));
            }
            if deployment != before {
                deployment.updated_at = at;
                write(tx, &deployment)?;
                audit::note(tx, &change, at)?;
            }
            Ok(deployment)
        })
        .await
    }

    /// Its schedule rests until somebody says otherwise. It may still be run by hand.
    pub async fn pause_deployment(&self, id: &DeploymentId, change: Change) -> Result<Deployment> {
        let (id, at) = (id.clone(), self.clock.now());
        self.configure(move |tx| {
            let mut deployment = living(tx, &id)?;
            if deployment.paused.is_none() {
                deployment.paused = Some(Paused::Manual);
                (deployment.next_at, deployment.updated_at) = (None, at);
                write(tx, &deployment)?;
                audit::note(tx, &change, at)?;
            }
            Ok(deployment)
        })
        .await
    }

    /// Its schedule goes on with the next time from now; what passed meanwhile is not made up for.
    pub async fn unpause_deployment(
        &self,
        id: &DeploymentId,
        next: NextTime,
        change: Change,
    ) -> Result<Deployment> {
        let (id, at) = (id.clone(), self.clock.now());
        self.configure(move |tx| {
            let mut deployment = living(tx, &id)?;
            if deployment.paused.take().is_some() {
                let schedule = deployment.schedule.as_ref();
                deployment.next_at = schedule.and_then(|schedule| next(schedule, at));
                deployment.updated_at = at;
                write(tx, &deployment)?;
                audit::note(tx, &change, at)?;
            }
            Ok(deployment)
        })
        .await
    }

    /// Permanent: it starts nothing any more.
    pub async fn archive_deployment(
        &self,
        id: &DeploymentId,
        change: Change,
    ) -> Result<Deployment> {
        let (id, at) = (id.clone(), self.clock.now());
        self.configure(move |tx| {
            if locked(tx, &id)?.archived_at.is_none() {
                archive(tx, "id", id.as_str(), at)?;
                audit::note(tx, &change, at)?;
            }
            read(tx, &id)
        })
        .await
    }

    pub async fn deployment(&self, id: &DeploymentId) -> Result<Deployment> {
        let id = id.clone();
        self.driver.read(move |tx| read(tx, &id)).await
    }

    pub async fn deployments(&self, filter: DeploymentFilter) -> Result<Page<Deployment>> {
        self.driver
            .read(move |tx| {
                // Which these are and how large they are is looked at first.
                let sizes = "select id, octet_length(initial_events) from deployments where 1 = 1";
                let mut select = Select::new(sizes, []);
                select.and_some("agent_id =", filter.agent_id.as_ref());
                select.and_some("created_at >=", filter.created_after);
                select.and_some("created_at <=", filter.created_before);
                select.and_some("id <", filter.cursor.as_ref());
                if !filter.include_archived {
                    select.and_text("archived_at is null");
                }
                match filter.paused {
                    None => {}
                    Some(true) => select.and_text("paused is not null"),
                    Some(false) => select.and_text("paused is null"),
                }
                let (sql, values) = select.page("id desc", filter.limit);
                let (mut ids, mut bytes, mut has_more) = (Vec::<DeploymentId>::new(), 0, false);
                for mut row in tx.query(&sql, &values)? {
                    bytes += usize::try_from(row.int(1)?).unwrap_or(usize::MAX);
                    has_more =
                        ids.len() >= filter.limit || bytes > filter.bytes_max && !ids.is_empty();
                    if has_more {
                        break;
                    }
                    ids.push(row.id(0)?);
                }
                if ids.is_empty() {
                    return Ok(Page { data: Vec::new(), next: None });
                }
                let mut select = Select::new(format!("select {COLUMNS} where 1 = 1"), []);
                select.and_among("id", &ids);
                let (sql, values) = select.into_parts();
                let rows = tx.query(&format!("{sql} order by id desc"), &values)?.into_iter();
                let data = rows.map(from_row).collect::<Result<Vec<_>>>()?;
                let next = ids.last().filter(|_| has_more).map(ToString::to_string);
                Ok(Page { data, next })
            })
            .await
    }

    /// The earliest time that any deployment comes.
    pub async fn next_deployment(&self) -> Result<Option<Timestamp>> {
        let sql = "select min(next_at) from deployments where next_at is not null";
        self.driver
            .read(move |tx| match tx.first(sql, &[])? {
                Some(mut row) => row.time_or_null(0),
                None => Ok(None),
            })
            .await
    }

    /// Those whose time has come, the longest overdue first.
    pub async fn due_deployments(&self, limit: usize) -> Result<Vec<DueDeployment>> {
        let now = self.clock.now();
        self.driver
            .read(move |tx| {
                let sql = "select id, next_at, expression, timezone from deployments \
                           where next_at is not null and next_at <= $1 order by next_at, id limit $2";
                let rows = tx.query(sql, &params![now, limit as i64])?.into_iter();
                let due = rows.map(|mut row| {
                    let schedule = Schedule { expression: row.text(2)?, timezone: row.text(3)? };
                    Ok(DueDeployment { id: row.id(0)?, at: row.time(1)?, schedule })
                });
                due.collect()
            })
            .await
    }
}

/// What is archived with an agent.
pub(super) fn archive_of_agent(tx: &mut Tx<'_>, agent: &AgentId, at: Timestamp) -> Result<()> {
    archive(tx, "agent_id", agent.as_str(), at)
}

/// Archives those of which a column, which is no word from outside, has a value.
fn archive(tx: &mut Tx<'_>, column: &'static str, value: &str, at: Timestamp) -> Result<()> {
    let sql = format!(
        "update deployments set archived_at = $2, updated_at = $2, next_at = null \
         where {column} = $1 and archived_at is null"
    );
    tx.execute(&sql, &params![value, at])?;
    Ok(())
}

fn apply(deployment: &mut Deployment, patch: DeploymentPatch) -> Result<()> {
    let DeploymentPatch {
        name,
        description,
        agent,
        environment_id,
        initial_events,
        resources,
        vault_ids,
        metadata,
        budget,
        schedule,
    } = patch;
    fn put<T>(to: &mut T, from: Option<T>) {
        if let Some(from) = from {
            *to = from;
        }
    }
    put(&mut deployment.name, name);
    put(&mut deployment.description, description);
    put(&mut deployment.environment_id, environment_id);
    put(&mut deployment.initial_events, initial_events);
    put(&mut deployment.resources, resources);
    put(&mut deployment.vault_ids, vault_ids);
    put(&mut deployment.budget, budget);
    put(&mut deployment.schedule, schedule);
    if let Some((id, version)) = agent {
        (deployment.agent_id, deployment.agent_version) = (id, version);
    }
    patch_metadata(&mut deployment.metadata, metadata);
    check_metadata(&deployment.metadata).map_err(Error::Invalid)?;
    Ok(())
}

/// Looked at under the lock that an agent is archived under.
fn agent_lives(tx: &mut Tx<'_>, agent: &AgentId) -> Result<()> {
    let row = tx.first("select archived_at from agents where id = $1", &params![agent])?;
    match row.ok_or(Error::NotFound)?.time_or_null(0)? {
        None => Ok(()),
        Some(_) => {
            let message = "names an archived agent, which takes no new sessions";
            Err(Error::Invalid(Problem::new("agent", message)))
        }
    }
}

fn read(tx: &mut Tx<'_>, id: &DeploymentId) -> Result<Deployment> {
    let row = tx.first(&format!("select {COLUMNS} where id = $1"), &params![id])?;
    row.ok_or(Error::NotFound).and_then(from_row)
}

/// With its row locked for the rest of the transaction.
fn locked(tx: &mut Tx<'_>, id: &DeploymentId) -> Result<Deployment> {
    let row = tx.first(&format!("select {COLUMNS} where id = $1 {{wait}}"), &params![id])?;
    row.ok_or(Error::NotFound).and_then(from_row)
}

fn living(tx: &mut Tx<'_>, id: &DeploymentId) -> Result<Deployment> {
    let deployment = locked(tx, id)?;
    match deployment.archived_at {
        None => Ok(deployment),
        Some(_) => Err(archived(id)),
    }
}

fn archived(id: &DeploymentId) -> Error {
    Error::Conflict(format!("{id} is archived: it can be neither changed nor run"))
}

fn write(tx: &mut Tx<'_>, deployment: &Deployment) -> Result<()> {
    let schedule = deployment.schedule.as_ref();
    tx.execute(
        "update deployments set name = $2, description = $3, agent_id = $4, agent_version = $5, \
         environment_id = $6, initial_events = $7, resources = $8, vault_ids = $9, metadata = $10, \
         limits = $11, expression = $12, timezone = $13, paused = $14, next_at = $15, \
         updated_at = $16 where id = $1",
        &params![
            &deployment.id,
            &deployment.name,
            deployment.description.as_ref(),
            &deployment.agent_id,
            deployment.agent_version,
            &deployment.environment_id,
            super::to_json(&deployment.initial_events),
            super::to_json(&deployment.resources),
            super::to_json(&deployment.vault_ids),
            super::to_json(&deployment.metadata),
            super::to_json(&deployment.budget),
            schedule.map(|schedule| &schedule.expression),
            schedule.map(|schedule| &schedule.timezone),
            deployment.paused.map(Paused::as_str),
            deployment.next_at,
            deployment.updated_at,
        ],
    )?;
    Ok(())
}

fn from_row(mut row: Row) -> Result<Deployment> {
    let schedule = match (row.text_or_null(11)?, row.text_or_null(12)?) {
        (Some(expression), Some(timezone)) => Some(Schedule { expression, timezone }),
        _ => None,
    };
    let paused = row.text_or_null(13)?.map(|text| {
        Paused::parse(&text).ok_or(Error::Bug("an unknown reason of a deployment's pause"))
    });
    Ok(Deployment {
        id: row.id(0)?,
        name: row.text(1)?,
        description: row.text_or_null(2)?,
        agent_id: row.id(3)?,
        agent_version: row.int(4)?,
        environment_id: row.id(5)?,
        initial_events: row.json(6)?,
        resources: row.json(7)?,
        vault_ids: row.json(8)?,
        metadata: row.json(9)?,
        budget: row.json(10)?,
        schedule,
        paused: paused.transpose()?,
        next_at: row.time_or_null(14)?,
        last_run_at: row.time_or_null(15)?,
        created_at: row.time(16)?,
        updated_at: row.time(17)?,
        archived_at: row.time_or_null(18)?,
    })
}
