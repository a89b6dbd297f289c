//! What happened last at an agent or a source: one look at an index for each, in one statement.

use std::collections::HashMap;

use super::{
    Error, Result, Store,
    deliveries::{EITHER, ids_of_source},
    driver::{Value, params},
    select::marks,
    sessions::first::sourced,
};
use crate::{
    clock::Timestamp,
    domain::{
        delivery::{Outcome, Status},
        session,
    },
    id::{AgentId, DeliveryId, Id, RefusalId, SessionId, SourceId},
};

/// The newest session of an agent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LastSession {
    pub agent_id: AgentId,
    pub id: SessionId,
    pub status: session::Status,
    /// Whether a turn is open: an idle session that has one waits for somebody.
    pub has_turn: bool,
    pub updated_at: Timestamp,
}

/// The newest delivery of a source.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LastDelivery {
    pub source_id: SourceId,
    pub id: DeliveryId,
    pub status: Status,
    pub outcome: Option<Outcome>,
    pub received_at: Timestamp,
}

/// What the gate of a source refused since its last delivery.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LastRefusals {
    pub source_id: SourceId,
    pub n: usize,
    /// Why the newest one was.
    pub reason: String,
}

impl Store {
    /// Sources that refused so many requests since a moment and let none in after them, of the newest
    /// refusals, up to a limit. Replays are let in by nobody.
    pub async fn refused_since(
        &self,
        since: Timestamp,
        n_min: usize,
        limit: usize,
    ) -> Result<Vec<LastRefusals>> {
        let since = RefusalId::floor(since);
        self.driver
            .read(move |tx| {
                let sql = "select source_id, at, reason from refusals \
                           where id >= $1 and source_id is not null order by id desc limit $2";
                let mut refused: HashMap<SourceId, Vec<(Timestamp, String)>> = HashMap::new();
                for mut row in tx.query(sql, &params![&since, limit as i64])? {
                    refused.entry(row.id(0)?).or_default().push((row.time(1)?, row.text(2)?));
                }
                let newest = ids_of_source(
                    EITHER,
                    " and d.source_id = $1 and d.replay_of is null",
                    "order by d.id desc limit 1",
                );
                let sql = format!(
                    "select received_at from deliveries where id = (select max(id) from ({newest}) n)"
                );
                let mut found = Vec::new();
                for (source_id, mut all) in refused.into_iter().filter(|(_, all)| all.len() >= n_min) {
                    if let Some(mut row) = tx.first(&sql, &params![&source_id])? {
                        let let_in = row.time(0)?;
                        all.retain(|(at, _)| *at > let_in);
                    }
                    let n = all.len();
                    if let Some((_, reason)) = all.into_iter().next().filter(|_| n >= n_min) {
                        found.push(LastRefusals { source_id, n, reason });
                    }
                }
                Ok(found)
            })
            .await
    }

    /// For each source with deliveries that no turn has taken yet: when the oldest of them came.
    /// Those that wait longest first, so many at most.
    pub async fn oldest_waiting(&self, limit: usize) -> Result<Vec<(SourceId, Timestamp)>> {
        self.driver
            .read(move |tx| {
                // One look into the index for each source, however many deliveries wait.
                let sql = "select w.id, w.came from (select r.id, (select d.received_at \
                           from deliveries d where d.source_id = r.id and d.outcome = 'pending' \
                           order by d.id limit 1) as came from sources r) w \
                           where w.came is not null order by w.came limit $1";
                let limit = i64::try_from(limit).unwrap_or(i64::MAX);
                let rows = tx.query(sql, &params![limit])?;
                rows.into_iter().map(|mut row| Ok((row.id(0)?, row.time(1)?))).collect()
            })
            .await
    }

    /// Agents that never had a session are not among the answers.
    pub async fn last_sessions(&self, agents: Vec<AgentId>) -> Result<Vec<LastSession>> {
        if agents.is_empty() {
            return Ok(Vec::new());
        }
        self.driver
            .read(move |tx| {
                let values: Vec<Value> = agents.iter().map(Value::from).collect();
                // By the indexes that have them: one look for each agent, and for each of its sources.
                let sql = format!(
                    concat!(
                        "with recursive wanted as (select a.id from agents a where a.id in ({})), ",
                        sourced!("sourced", "select id from wanted", "s.is_first = 1"),
                        ", newest (agent_id, id) as ( \
                         select w.id, (select max(s.id) from sessions s \
                         where s.agent_id = w.id and s.is_first = 0) from wanted w \
                         union all \
                         select l.agent_id, (select max(s.id) from sessions s \
                         where s.agent_id = l.agent_id and s.source_id = l.source_id \
                         and s.is_first = 1) from sourced l where l.source_id is not null) \
                         select w.id, s.id, s.status, s.updated_at, \
                         case when s.turn_id is null then 0 else 1 end from wanted w join sessions s \
                         on s.id = (select max(n.id) from newest n where n.agent_id = w.id)"
                    ),
                    marks(values.len())
                );
                let rows = tx.query(&sql, &values)?.into_iter().map(|mut row| {
                    let status = row.text(2)?;
                    Ok(LastSession {
                        agent_id: row.id(0)?,
                        id: row.id(1)?,
                        status: session::Status::parse(&status)
                            .ok_or(Error::Bug("an unknown session status"))?,
                        updated_at: row.time(3)?,
                        has_turn: row.flag(4)?,
                    })
                });
                rows.collect()
            })
            .await
    }

    /// Sources that never had a delivery are not among the answers.
    pub async fn last_deliveries(&self, sources: Vec<SourceId>) -> Result<Vec<LastDelivery>> {
        if sources.is_empty() {
            return Ok(Vec::new());
        }
        self.driver
            .read(move |tx| {
                let values: Vec<Value> = sources.iter().map(Value::from).collect();
                let newest =
                    ids_of_source(EITHER, " and d.source_id = r.id", "order by d.id desc limit 1");
                let sql = format!(
                    "select r.id, d.id, d.status, d.outcome, d.received_at \
                     from sources r join deliveries d \
                     on d.id = (select max(id) from ({newest}) newest) \
                     where r.id in ({})",
                    marks(values.len())
                );
                let rows = tx.query(&sql, &values)?.into_iter().map(|mut row| {
                    let (status, outcome) = (row.text(2)?, row.text_or_null(3)?);
                    Ok(LastDelivery {
                        source_id: row.id(0)?,
                        id: row.id(1)?,
                        status: Status::parse(&status)
                            .ok_or(Error::Bug("an unknown delivery status"))?,
                        outcome: outcome
                            .map(|it| Outcome::parse(&it).ok_or(Error::Bug("an unknown outcome")))
                            .transpose()?,
                        received_at: row.time(4)?,
                    })
                });
                rows.collect()
            })
            .await
    }
}
