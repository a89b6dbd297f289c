//! The ledger of effects, as people and programs look at it and settle what is in doubt.
//!
//! Invariant: an agent settles effects of its own session, and only what is in doubt. What a person
//! said stays; what an agent said, a person can correct.

use std::collections::BTreeSet;

use serde_json::json;

use super::{
    Change, Error, Page, Result, Store, audit, deliveries,
    driver::{Lane, Row, Tx, params},
    queue::{Found, has_doubts},
    select::Select,
};
use crate::{
    clock::Timestamp,
    domain::{
        delivery::Outcome,
        effect::{Effect, EffectStatus},
        turn::TurnEnd,
    },
    id::{EventId, Id, SessionId, TurnId},
};

/// Which effects a list shows, newest first.
#[derive(Clone, Debug, Default)]
pub struct EffectFilter {
    pub status: Option<EffectStatus>,
    pub session_id: Option<SessionId>,
    pub cursor: Option<EventId>,
    pub limit: usize,
}

/// What somebody found out about an effect that was in doubt.
#[derive(Clone, Debug)]
pub struct Settlement {
    pub status: EffectStatus,
    pub note: Option<String>,
}

const COLUMNS: &str = "id, session_id, turn_id, agent_id, tool, input, status, intended_at, \
    ended_at, settled_by, note from effects";

impl Store {
    pub async fn effects(&self, filter: EffectFilter) -> Result<Page<Effect>> {
        self.driver
            .read(move |tx| {
                let mut select = Select::new(format!("select {COLUMNS} where 1 = 1"), []);
                select.and_some("session_id =", filter.session_id.as_ref());
                select.and_some("id <", filter.cursor.as_ref());
                if let Some(status) = filter.status {
                    // One of four words, in the text so that the index of the open ones serves it.
                    select.and_text(&format!("status = '{}'", status.as_str()));
                }
                let (sql, values) = select.page("id desc", filter.limit);
                let rows = tx.query(&sql, &values)?.into_iter();
                let effects = rows.map(from_row).collect::<Result<Vec<_>>>()?;
                Ok(Page::from_rows(effects, filter.limit, |effect| effect.id.to_string()))
            })
            .await
    }

    pub async fn effect(&self, id: &EventId) -> Result<Effect> {
        let id = id.clone();
        self.driver.read(move |tx| read(tx, &id)).await
    }

    /// Says what became of an effect that was in doubt, or that its agent settled. With the last of a
    /// turn its deliveries have the outcome of the turn. [`Error::Conflict`] when it is neither.
    pub async fn settle_effect(
        &self,
        id: &EventId,
        settlement: Settlement,
        change: Change,
    ) -> Result<Effect> {
        let (id, at) = (id.clone(), self.clock.now());
        self.driver
            .transaction(Lane::Work, move |tx| {
                let effect = read(tx, &id)?;
                // Whoever works in the session holds its row when it ends a turn.
                let sql = "select 1 from sessions where id = $1 {wait}";
                tx.query(sql, &params![&effect.session_id])?;
                if !settle(tx, &effect, &settlement, &change.actor, BY_PERSON, at)? {
                    let status = read(tx, &id)?.status.as_str();
                    return Err(Error::Conflict(format!(
                        "the effect is not in doubt but {status}"
                    )));
                }
                clear_doubt(tx, &effect.session_id, &effect.turn_id)?;
                audit::note_only(tx, &change, at)?;
                read(tx, &id)
            })
            .await
    }
}

/// Of a person, who may correct an agent. An agent is named by its id, as no key is.
const BY_PERSON: &str = "(status = 'in_doubt' or settled_by = agent_id)";

/// Whether it could be settled.
fn settle(
    tx: &mut Tx<'_>,
    effect: &Effect,
    settlement: &Settlement,
    by: &str,
    may: &str,
    at: Timestamp,
) -> Result<bool> {
    let sql = format!(
        "update effects set status = $2, settled_by = $3, note = $4, ended_at = $5 \
         where id = $1 and {may}"
    );
    let (status, note) = (settlement.status.as_str(), settlement.note.as_ref());
    Ok(tx.execute(&sql, &params![&effect.id, status, by, note, at])? == 1)
}

/// What an agent found out, in the transaction of its call's result and under its lease.
/// [`Error::Conflict`] when the effect is not one of this session, or not in doubt any more.
pub(super) fn settle_by_agent(
    tx: &mut Tx<'_>,
    session: &SessionId,
    found: &Found,
    at: Timestamp,
) -> Result<()> {
    let conflict = || Error::Conflict("the effect is not in doubt in this session".to_owned());
    let effect = match read(tx, &found.effect) {
        Err(Error::NotFound) => return Err(conflict()),
        effect => effect?,
    };
    let (settlement, by) = (&found.settlement, found.agent_id.as_str());
    if effect.session_id != *session
        || !settle(tx, &effect, settlement, by, "status = 'in_doubt'", at)?
    {
        return Err(conflict());
    }
    clear_doubt(tx, session, &effect.turn_id)?;
    let details = json!({
        "status": settlement.status.as_str(),
        "note": settlement.note,
        "session_id": session,
    });
    let change = Change {
        actor: format!("agent {by}"),
        action: "effect.settle",
        target: effect.id.to_string(),
        details,
    };
    audit::note_only(tx, &change, at)
}

/// Effects of one session that are told as being in doubt.
const IN_DOUBT_MAX: usize = 100;

/// The newest effects of a session that are in doubt.
pub(super) fn in_doubt(tx: &mut Tx<'_>, session: &SessionId) -> Result<BTreeSet<EventId>> {
    let sql = "select id from effects where session_id = $1 and status = 'in_doubt' \
               order by id desc limit $2";
    let rows = tx.query(sql, &params![session, IN_DOUBT_MAX as i64])?;
    rows.into_iter().map(|mut row| row.id(0)).collect()
}

/// Whether any effect of a session was in doubt and is not any more.
pub(super) fn were_settled(tx: &mut Tx<'_>, session: &SessionId) -> Result<bool> {
    let sql = "select 1 from effects where session_id = $1 and settled_by is not null limit 1";
    Ok(tx.first(sql, &params![session])?.is_some())
}

/// Deliveries of a turn that is over and has no doubts left have its own outcome.
fn clear_doubt(tx: &mut Tx<'_>, session: &SessionId, turn: &TurnId) -> Result<()> {
    if has_doubts(tx, turn)? {
        return Ok(());
    }
    let sql = "select stop_reason from turns where id = $1";
    let reason = match tx.first(sql, &params![turn])? {
        Some(mut row) => row.text_or_null(0)?,
        None => None,
    };
    let end = TurnEnd::ALL.into_iter().find(|end| Some(end.as_str()) == reason.as_deref());
    if let Some(outcome) = end.map(TurnEnd::outcome) {
        deliveries::settle(tx, session, Some(turn), [Outcome::InDoubt; 2], outcome)?;
    }
    Ok(())
}

fn read(tx: &mut Tx<'_>, id: &EventId) -> Result<Effect> {
    let row = tx.first(&format!("select {COLUMNS} where id = $1"), &params![id])?;
    row.ok_or(Error::NotFound).and_then(from_row)
}

fn from_row(mut row: Row) -> Result<Effect> {
    let status = row.text(6)?;
    Ok(Effect {
        id: row.id(0)?,
        session_id: row.id(1)?,
        turn_id: row.id(2)?,
        agent_id: row.id(3)?,
        tool: row.text(4)?,
        input: row.text(5)?,
        status: EffectStatus::parse(&status).ok_or(Error::Bug("an unknown effect status"))?,
        intended_at: row.time(7)?,
        ended_at: row.time_or_null(8)?,
        settled_by: row.text_or_null(9)?,
        note: row.text_or_null(10)?,
    })
}
