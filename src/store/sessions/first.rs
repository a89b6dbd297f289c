//! Sessions that still hold the message that they were made for.
//!
//! An accept that makes a session writes its message into the session's row, and the session into one
//! index, from which it is claimed and listed: every tree that is written costs pages of each commit,
//! and this is what most accepts write. A turn that takes the message, or whatever else befalls the
//! session first, makes it one like all others. Invariant: a session with its first message in its row
//! is due, and has neither turn nor park nor quiet that it waits for. Left out: who may begin, which is
//! the claim's.

use crate::{
    domain::source::Pace,
    id::{AgentId, SessionId},
    store::{
        Result,
        driver::{Tx, params},
    },
};

/// Bytes of a first message in the row of its session, which is written a few times until a turn takes
/// it.
const BYTES_MAX: usize = 1024;

/// Whether a message of so many bytes waits in its session's row. One that waits for quiet is due in an
/// order that is not that of the sessions' making.
pub(in crate::store) fn is_kept(n_bytes: usize, pace: Pace) -> bool {
    n_bytes <= BYTES_MAX && pace.debounce.is_none()
}

/// What is set where the message leaves the row.
macro_rules! gone {
    () => {
        "is_first = 0, first_event_id = null, first_body = null, first_source = null, first_indented = 0, \
         first_private = null, first_delivery_id = null"
    };
}
pub(in crate::store) use gone;

/// Moves a message that waits in its session's row into the inbox, where it keeps its place.
pub(in crate::store) fn into_inbox(tx: &mut Tx<'_>, session: &SessionId) -> Result<()> {
    let n = tx.execute(
        "insert into inbox (session_id, position, event_id, body, source, indented, private, \
         delivery_id, received_at) select id, 1, first_event_id, first_body, first_source, \
         first_indented, first_private, first_delivery_id, created_at from sessions \
         where id = $1 and first_event_id is not null",
        &params![session],
    )?;
    if n > 0 {
        let sql = concat!("update sessions set ", gone!(), " where id = $1");
        tx.execute(sql, &params![session])?;
    }
    Ok(())
}

/// A table for `with recursive`: the agents of a selection, and for each the sources of its sessions `s`
/// that an index by agent and source has. It costs one look into that index for each of them, however
/// many sessions there are, and ends each agent with null.
macro_rules! sourced {
    ($name:literal, $agents:literal, $which:literal) => {
        concat!(
            $name,
            " (agent_id, source_id) as (select a.id, (select min(s.source_id) from sessions s \
             where s.agent_id = a.id and ",
            $which,
            ") from (",
            $agents,
            ") a union all select l.agent_id, (select min(s.source_id) from sessions s \
             where s.agent_id = l.agent_id and s.source_id > l.source_id and ",
            $which,
            ") from ",
            $name,
            " l where l.source_id is not null)"
        )
    };
}
pub(in crate::store) use sourced;

/// The sources that made those of an agent.
pub(super) fn sources(tx: &mut Tx<'_>, agent: &AgentId) -> Result<Vec<String>> {
    let sql = concat!(
        "with recursive ",
        sourced!("sourced", "select id from agents where id = $1", "s.is_first = 1"),
        " select source_id from sourced where source_id is not null order by source_id"
    );
    tx.query(sql, &params![agent])?.into_iter().map(|mut row| row.text(0)).collect()
}
