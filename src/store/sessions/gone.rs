//! Sessions that are deleted: the row at once, the log after it, slice by slice.
//!
//! Invariants: from the first commit on nobody finds the session, and nothing starts in it; whatever a
//! crash leaves of its log goes with the next sweep. Deliveries stay, and say that their session is
//! gone. Left out: the files of its workspace, which are swept where they lie.

use super::{Store, change};
use crate::{
    domain::{delivery::Outcome, turn::TurnEnd},
    id::SessionId,
    store::{
        Change, Error, Result, audit, chunks, deliveries,
        driver::{Lane, Tx, params},
        queue::close_turn,
    },
};

/// Rows of a slice.
const SLICE: i64 = 200;

impl Store {
    /// Deletes a session and all that belongs to it. [`Error::Conflict`] while there is work: a turn,
    /// or a message that was promised one. What was in doubt of its effects can be found out no more:
    /// its deliveries have failed.
    pub async fn delete_session(&self, id: &SessionId, change: Change) -> Result<()> {
        let (of, at) = (id.clone(), self.clock.now());
        self.driver
            .transaction(Lane::Work, move |tx| {
                let rest = change::look(tx, &of)?;
                if rest.is_busy() {
                    return Err(Error::Conflict("cannot delete while running".to_owned()));
                }
                if let Some(turn) = &rest.turn {
                    close_turn(tx, &of, turn, TurnEnd::Interrupted, at)?;
                }
                deliveries::settle(tx, &of, None, [Outcome::InDoubt; 2], Outcome::Failed)?;
                forget(tx, &of)?;
                tx.execute(
                    "insert into sessions_gone (session_id, at) values ($1, $2)",
                    &params![&of, at],
                )?;
                audit::note_only(tx, &change, at)
            })
            .await?;
        while self.clear_gone(Some(id)).await? {}
        Ok(())
    }

    /// Removes a slice of what is left of a deleted session, or of any. Answers whether there was
    /// something left.
    pub(in crate::store) async fn clear_gone(&self, id: Option<&SessionId>) -> Result<bool> {
        let id = id.cloned();
        self.driver
            .transaction(Lane::Work, move |tx| {
                let id = match id {
                    Some(id) => id,
                    None => {
                        let sql = "select session_id from sessions_gone order by at limit 1";
                        match tx.first(sql, &[])? {
                            Some(mut row) => row.id(0)?,
                            None => return Ok(false),
                        }
                    }
                };
                if clear_slice(tx, &id)? {
                    return Ok(true);
                }
                tx.execute("delete from sessions_gone where session_id = $1", &params![&id])?;
                Ok(false)
            })
            .await
    }
}

/// The session and what is found by it in one look: from here on there is none.
fn forget(tx: &mut Tx<'_>, id: &SessionId) -> Result<()> {
    tx.execute(
        "delete from session_keys where session_id = $1 \
         and source_id = (select source_id from sessions where id = $1)",
        &params![id],
    )?;
    for sql in [
        "delete from budgets where owner = $1",
        "delete from spending where scope = $1 and day = 0",
        "delete from reservations where session_id = $1",
        "delete from inbox where session_id = $1",
        "delete from outcomes where session_id = $1",
        "delete from outbox where session_id = $1 and status = 'waiting'",
        "delete from sessions where id = $1",
    ] {
        tx.execute(sql, &params![id])?;
    }
    Ok(())
}

/// Whether there was anything.
fn clear_slice(tx: &mut Tx<'_>, id: &SessionId) -> Result<bool> {
    let rows = tx.query(
        "select id, n_chunks, seq from events where session_id = $1 order by seq limit $2",
        &params![id, SLICE],
    )?;
    let (mut n, mut last) = (0, 0);
    for mut row in rows {
        let event = row.text(0)?;
        if row.int(1)? > 0 {
            chunks::remove(tx, &event)?;
        }
        // A call's row has the id of its event.
        tx.execute("delete from approvals where id = $1", &params![&event])?;
        last = row.int(2)?;
        n += 1;
    }
    tx.execute("delete from events where session_id = $1 and seq <= $2", &params![id, last])?;
    for table in ["effects", "turns", "outbox"] {
        let sql = format!(
            "delete from {table} where id in \
             (select id from {table} where session_id = $1 order by id limit $2)"
        );
        n += tx.execute(&sql, &params![id, SLICE])?;
    }
    Ok(n > 0)
}
