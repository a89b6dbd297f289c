//! Sessions that still hold the message that they were made for.
//!
//! An accept that makes a session writes its message into the session's row, and the session into one
//! index, from which it is claimed and listed: every tree that is written costs pages of each commit,
//! and this is what most accepts write. A turn that takes the message, or whatever else befalls the
//! session first, makes it one like all others. Invariant: a session with its first message in its row
//! is due, and has neither turn nor park nor quiet that it waits for. Left out: who may begin, which is the claim's.

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
         where id = $1 and first_body is not null",
        &params![session],
    )?;
    if n > 0 {
        let sql = concat!("update sessions set ", gone!(), " where id = $1");
        tx.execute(sql, &params![session])?;
    }
    Ok(())
}

/// The sources that made those of an agent: one look into their index for each.
pub(super) fn sources(tx: &mut Tx<'_>, agent: &AgentId) -> Result<Vec<String>> {
    let sql = "with recursive sourced (source_id) as ( \
        select min(s.source_id) from sessions s \
            where s.agent_id = $1 and s.is_first = 1 \
        union all \
        select (select min(s.source_id) from sessions s where s.agent_id = $1 \
            and s.source_id > l.source_id and s.is_first = 1) \
        from sourced l where l.source_id is not null \
        ) select source_id from sourced where source_id is not null order by source_id";
    tx.query(sql, &params![agent])?.into_iter().map(|mut row| row.text(0)).collect()
}
