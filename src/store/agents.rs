//! Agents and their versions.

use super::{
    Change, Error, Page, Result, Store, audit, deployments,
    driver::{Row, Tx, params},
    limits, sources,
};
use crate::{
    clock::Timestamp,
    domain::{
        ManagedBy,
        agent::{Agent, AgentPatch, AgentSpec},
        source::Source,
        turn::{TurnLimits, TurnLimitsChange},
    },
    id::{AgentId, Id},
};

const COLUMNS: &str = "a.id, v.version, v.spec, a.paused, a.managed_by, a.created_at, \
    v.created_at, a.archived_at, l.at_once_max, l.per_minute_max, \
    (select c.definition from callbacks c where c.owner = a.id), \
    (select c.off_since from callbacks c where c.owner = a.id) from agents a \
    left join turn_limits l on l.owner = a.id join agent_versions v on v.agent_id = a.id";

impl Store {
    /// Makes an agent, version 1, together with the source of its own endpoint.
    pub async fn create_agent(
        &self,
        id: AgentId,
        spec: AgentSpec,
        managed_by: ManagedBy,
        source: Source,
        change: Change,
    ) -> Result<Agent> {
        let at = self.clock.now();
        self.configure(move |tx| {
            tx.execute(
                "insert into agents (id, name, version, managed_by, created_at) \
                     values ($1, $2, 1, $3, $4)",
                &params![&id, &spec.name, managed_by.as_str(), at],
            )?;
            insert_version(tx, &id, 1, &spec, at)?;
            sources::insert(tx, &source)?;
            audit::note(tx, &change, at)?;
            latest(tx, &id)
        })
        .await
    }

    /// Applies a patch to the newest version. A change of nothing makes no version.
    /// [`Error::Conflict`] when the patch names a version that is not the newest, or the agent is
    /// archived, or declared by the config file and this is not that; [`Error::Invalid`] when the result
    /// would not be a valid agent.
    pub async fn update_agent(
        &self,
        id: &AgentId,
        by: ManagedBy,
        patch: AgentPatch,
        change: Change,
    ) -> Result<Agent> {
        let (id, at) = (id.clone(), self.clock.now());
        self.configure(move |tx| update(tx, &id, by, patch, &change, at)).await
    }

    /// As [`Store::update_agent`], and in the same transaction the name of the secret that senders to
    /// its endpoint must know, which makes no version.
    pub async fn update_agent_with_key(
        &self,
        id: &AgentId,
        patch: AgentPatch,
        secret_key: Option<String>,
        change: Change,
        key_change: Change,
    ) -> Result<Agent> {
        let (id, at) = (id.clone(), self.clock.now());
        self.configure(move |tx| {
            let agent = update(tx, &id, ManagedBy::Api, patch, &change, at)?;
            if sources::keep_secret_at(tx, &id, secret_key, at)? {
                audit::note(tx, &key_change, at)?;
            }
            Ok(agent)
        })
        .await
    }

    pub async fn pause_agent(&self, id: &AgentId, paused: bool, change: Change) -> Result<Agent> {
        let (id, at) = (id.clone(), self.clock.now());
        self.configure(move |tx| {
            let sql = "update agents set paused = $2 where id = $1";
            if tx.execute(sql, &params![&id, paused])? == 0 {
                return Err(Error::NotFound);
            }
            audit::note(tx, &change, at)?;
            latest(tx, &id)
        })
        .await
    }

    /// Changes how many turns an agent may have, which makes no version. [`Error::Conflict`] when it is
    /// archived, or declared by the config file and this is not that.
    pub async fn limit_agent(
        &self,
        id: &AgentId,
        by: ManagedBy,
        limits: TurnLimitsChange,
        change: Change,
    ) -> Result<Agent> {
        let (id, at) = (id.clone(), self.clock.now());
        self.configure(move |tx| {
            let agent = changeable(tx, &id, by)?;
            limits::put(tx, id.as_str(), limits.apply(agent.limits))?;
            audit::note(tx, &change, at)?;
            latest(tx, &id)
        })
        .await
    }

    /// Gives an agent into the hands of the config file, or back.
    pub async fn hand_over_agent(
        &self,
        id: &AgentId,
        to: ManagedBy,
        change: Change,
    ) -> Result<Agent> {
        let (id, at) = (id.clone(), self.clock.now());
        self.configure(move |tx| {
            let sql = "update agents set managed_by = $2 where id = $1";
            if tx.execute(sql, &params![&id, to.as_str()])? == 0 {
                return Err(Error::NotFound);
            }
            audit::note(tx, &change, at)?;
            latest(tx, &id)
        })
        .await
    }

    /// Permanent: read-only from now on, and its endpoint lets nobody in. Its sessions go on, its
    /// deployments are archived too.
    pub async fn archive_agent(&self, id: &AgentId, change: Change) -> Result<Agent> {
        let (id, at) = (id.clone(), self.clock.now());
        self.configure(move |tx| {
            let agent = ours(tx, &id, ManagedBy::Api)?;
            if agent.archived_at.is_none() {
                let sql = "update agents set archived_at = $2 where id = $1";
                tx.execute(sql, &params![&id, at])?;
                limits::put(tx, id.as_str(), TurnLimits::default())?;
                sources::retire_of_agent(tx, &id, at)?;
                deployments::archive_of_agent(tx, &id, at)?;
                audit::note(tx, &change, at)?;
            }
            latest(tx, &id)
        })
        .await
    }

    /// The newest version, or the one asked for.
    pub async fn agent(&self, id: &AgentId, version: Option<i64>) -> Result<Agent> {
        let id = id.clone();
        self.driver
            .read(move |tx| match version {
                None => latest(tx, &id),
                Some(version) => {
                    let sql = format!("select {COLUMNS} where a.id = $1 and v.version = $2");
                    let row = tx.first(&sql, &params![&id, version])?;
                    row.ok_or(Error::NotFound).and_then(from_row)
                }
            })
            .await
    }

    pub async fn agent_versions(
        &self,
        id: &AgentId,
        cursor: Option<i64>,
        limit: usize,
    ) -> Result<Page<Agent>> {
        let id = id.clone();
        self.driver
            .read(move |tx| {
                latest(tx, &id)?;
                let sql = format!(
                    "select {COLUMNS} where a.id = $1 and v.version < $2 \
                     order by v.version desc limit $3"
                );
                let before = cursor.unwrap_or(i64::MAX);
                let rows = tx.query(&sql, &params![&id, before, limit as i64 + 1])?;
                let agents = rows.into_iter().map(from_row).collect::<Result<Vec<_>>>()?;
                Ok(Page::from_rows(agents, limit, |agent| agent.version.to_string()))
            })
            .await
    }

    /// Newest versions, newest agent first; of those that were created between two moments, both
    /// included.
    pub async fn agents(
        &self,
        include_archived: bool,
        (first, last): (Option<Timestamp>, Option<Timestamp>),
        cursor: Option<AgentId>,
        limit: usize,
    ) -> Result<Page<Agent>> {
        self.driver
            .read(move |tx| {
                let archived = if include_archived { "" } else { "and a.archived_at is null" };
                let before = if cursor.is_some() { "and a.id < $4" } else { "" };
                let sql = format!(
                    "select {COLUMNS} and v.version = a.version \
                     where a.created_at >= $2 and a.created_at <= $3 {archived} {before} \
                     order by a.id desc limit $1"
                );
                let (n, first) = (limit as i64 + 1, first.map_or(0, |at| at.0));
                let last = last.map_or(i64::MAX, |at| at.0);
                let rows = match &cursor {
                    Some(cursor) => tx.query(&sql, &params![n, first, last, cursor])?,
                    None => tx.query(&sql, &params![n, first, last])?,
                };
                let agents = rows.into_iter().map(from_row).collect::<Result<Vec<_>>>()?;
                Ok(Page::from_rows(agents, limit, |agent| agent.id.to_string()))
            })
            .await
    }
}

fn update(
    tx: &mut Tx<'_>,
    id: &AgentId,
    by: ManagedBy,
    patch: AgentPatch,
    change: &Change,
    at: Timestamp,
) -> Result<Agent> {
    let agent = changeable(tx, id, by)?;
    if let Some(version) = patch.version
        && version != agent.version
    {
        return Err(Error::Conflict(format!(
            "version {version} is not the current one, which is {}",
            agent.version
        )));
    }
    let spec = patch.apply(agent.spec.clone()).map_err(Error::Invalid)?;
    if spec == agent.spec {
        return Ok(agent);
    }
    let version = agent.version + 1;
    insert_version(tx, id, version, &spec, at)?;
    tx.execute(
        "update agents set name = $2, version = $3 where id = $1",
        &params![id, &spec.name, version],
    )?;
    audit::note(tx, change, at)?;
    latest(tx, id)
}

/// One that is not archived, with its row locked.
fn changeable(tx: &mut Tx<'_>, id: &AgentId, by: ManagedBy) -> Result<Agent> {
    let agent = ours(tx, id, by)?;
    match agent.archived_at {
        None => Ok(agent),
        Some(_) => Err(Error::Conflict(format!("{id} is archived and cannot be changed"))),
    }
}

fn ours(tx: &mut Tx<'_>, id: &AgentId, by: ManagedBy) -> Result<Agent> {
    let agent = locked(tx, id)?;
    super::refuse_declared(agent.managed_by, by, &agent.spec.name, "change it")?;
    Ok(agent)
}

fn insert_version(
    tx: &mut Tx<'_>,
    id: &AgentId,
    version: i64,
    spec: &AgentSpec,
    at: Timestamp,
) -> Result<()> {
    tx.execute(
        "insert into agent_versions (agent_id, version, spec, created_at) values ($1, $2, $3, $4)",
        &params![id, version, super::to_json(spec), at],
    )?;
    Ok(())
}

fn latest(tx: &mut Tx<'_>, id: &AgentId) -> Result<Agent> {
    let sql = format!("select {COLUMNS} and v.version = a.version where a.id = $1");
    tx.first(&sql, &params![id])?.ok_or(Error::NotFound).and_then(from_row)
}

/// The newest version, with the agent's row locked for the rest of the transaction.
fn locked(tx: &mut Tx<'_>, id: &AgentId) -> Result<Agent> {
    tx.first("select 1 from agents where id = $1 {wait}", &params![id])?.ok_or(Error::NotFound)?;
    latest(tx, id)
}

fn from_row(mut row: Row) -> Result<Agent> {
    let managed_by = row.text(4)?;
    Ok(Agent {
        id: row.id(0)?,
        version: row.int(1)?,
        spec: row.json(2)?,
        paused: row.flag(3)?,
        managed_by: ManagedBy::parse(&managed_by),
        created_at: row.time(5)?,
        updated_at: row.time(6)?,
        archived_at: row.time_or_null(7)?,
        limits: limits::from_row(&mut row, 8)?,
        callback: match row.json_or_null(10)? {
            Some(callback) => Some((callback, row.time_or_null(11)?)),
            None => None,
        },
    })
}
