//! What an append changes beside the log, in the same transaction: calls that somebody is asked about,
//! and the ledger of effects.
//!
//! Invariant: an effect stands in the ledger before it is carried out, written under the lease, so
//! that whoever takes the session over knows what may have been done.

use std::{collections::BTreeSet, time::Duration};

use super::Held;
use crate::{
    clock::Timestamp,
    domain::{budget::Used, conversation::Executor, cost::Spent, effect::EffectStatus},
    id::{AgentId, EventId, SessionId, TurnId},
    store::{
        Error, Result, Settlement, Store, budgets,
        driver::{Tx, params},
        effects,
    },
};

/// Changes beside the log; none by default.
#[derive(Clone, Debug, Default)]
pub struct Beside {
    pub asks: Vec<NewAsk>,
    /// Is about to be carried out.
    pub intends: Option<NewEffect>,
    /// Was carried out, as far as is known.
    pub ended: Option<EffectEnd>,
    /// What the agent found out about an effect of its session.
    pub settles: Option<Found>,
    /// Whether a model request ended, with what was spent.
    pub asked: bool,
    /// Calls of tools that were carried out.
    pub tool_calls: i64,
}

/// What a call waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wanted {
    /// Whether it may be made.
    Confirmation,
    /// What the client, which has the tool, says it led to.
    CustomResult,
    /// The same of a tool of the agent's, which the client carries out in an environment of its own.
    ToolResult,
}

impl Wanted {
    pub(in crate::store) fn as_str(self) -> &'static str {
        match self {
            Wanted::Confirmation => "confirmation",
            Wanted::CustomResult => "custom_result",
            Wanted::ToolResult => "tool_result",
        }
    }

    /// Who carries out a call whose result is waited for.
    pub(in crate::store) fn executor(self) -> Executor {
        match self {
            Wanted::Confirmation => Executor::Server,
            Wanted::CustomResult => Executor::Custom,
            Wanted::ToolResult => Executor::SelfHosted,
        }
    }

    pub(in crate::store) fn parse(text: &str) -> Option<Wanted> {
        let all = [Wanted::Confirmation, Wanted::CustomResult, Wanted::ToolResult];
        all.into_iter().find(|wanted| wanted.as_str() == text)
    }
}

/// A call that somebody has to answer for.
#[derive(Clone, Debug)]
pub struct NewAsk {
    pub call: EventId,
    pub wanted: Wanted,
    /// Whether the client carries it out.
    pub by_client: bool,
    pub tool: String,
    pub fingerprint: String,
    /// How long there is an answer to wait for.
    pub patience: Duration,
}

/// A call that changes the outside.
#[derive(Clone, Debug)]
pub struct NewEffect {
    pub call: EventId,
    pub agent_id: AgentId,
    pub tool: String,
    /// The beginning of it, for people.
    pub input: String,
}

/// What became of one.
#[derive(Clone, Debug)]
pub struct EffectEnd {
    pub call: EventId,
    pub status: EffectStatus,
}

/// What an agent found out about an effect that was in doubt.
#[derive(Clone, Debug)]
pub struct Found {
    pub effect: EventId,
    pub agent_id: AgentId,
    pub settlement: Settlement,
}

impl Beside {
    /// What budgets know of it.
    pub(super) fn used(&self, spent: &Spent) -> Used {
        let request = if self.asked { budgets::of_request(spent) } else { Used::default() };
        Used { tool_calls: self.tool_calls, ..request }
    }

    pub(in crate::store) fn apply(self, tx: &mut Tx<'_>, held: &Held, at: Timestamp) -> Result<()> {
        let turn = || held.turn_id.as_ref().ok_or(Error::Bug("work without a turn"));
        for ask in self.asks {
            let now = tx.now()?;
            tx.execute(
                "insert into approvals (id, session_id, turn_id, tool, fingerprint, wanted, \
                 by_client, status, asked_at, expires_at) \
                 values ($1, $2, $3, $4, $5, $8, $9, 'pending', $6, $7)",
                &params![
                    &ask.call,
                    &held.session_id,
                    turn()?,
                    &ask.tool,
                    &ask.fingerprint,
                    now,
                    now.plus(ask.patience),
                    ask.wanted.as_str(),
                    i64::from(ask.by_client),
                ],
            )?;
        }
        if let Some(effect) = self.intends {
            tx.execute(
                "insert into effects (id, session_id, turn_id, agent_id, tool, input, status, \
                 intended_at) values ($1, $2, $3, $4, $5, $6, 'intended', $7)",
                &params![
                    &effect.call,
                    &held.session_id,
                    turn()?,
                    &effect.agent_id,
                    &effect.tool,
                    &effect.input,
                    at,
                ],
            )?;
        }
        if let Some(end) = self.ended {
            tx.execute(
                "update effects set status = $2, ended_at = $3 where id = $1 and status = 'intended'",
                &params![&end.call, end.status.as_str(), at],
            )?;
        }
        match self.settles {
            Some(found) => effects::settle_by_agent(tx, &held.session_id, &found, at),
            None => Ok(()),
        }
    }
}

/// A turn ends: what it had begun is in doubt, and what it asked for is not wanted any more.
pub(super) fn close(
    tx: &mut Tx<'_>,
    turn: &TurnId,
    session: &SessionId,
    at: Timestamp,
) -> Result<()> {
    tx.execute(
        "update effects set status = 'in_doubt', ended_at = $2 \
         where turn_id = $1 and status = 'intended'",
        &params![turn, at],
    )?;
    tx.execute(
        "update approvals set status = case when status = 'pending' then 'void' else status end, \
         journaled = 1 where session_id = $1 and journaled = 0",
        &params![session],
    )?;
    Ok(())
}

/// Whether nobody knows yet what became of something that the turn did.
pub(in crate::store) fn has_doubts(tx: &mut Tx<'_>, turn: &TurnId) -> Result<bool> {
    let sql = "select 1 from effects where turn_id = $1 and status = 'in_doubt' limit 1";
    Ok(tx.first(sql, &params![turn])?.is_some())
}

impl Store {
    /// Calls that an earlier life of the session's turn began to carry out and told no outcome of.
    pub async fn begun(&self, session: &SessionId) -> Result<BTreeSet<EventId>> {
        let session = session.clone();
        self.driver.read(move |tx| begun(tx, &session)).await
    }
}

pub(in crate::store) fn begun(tx: &mut Tx<'_>, session: &SessionId) -> Result<BTreeSet<EventId>> {
    let sql = "select id from effects where session_id = $1 and status = 'intended'";
    tx.query(sql, &params![session])?.into_iter().map(|mut row| row.id(0)).collect()
}
