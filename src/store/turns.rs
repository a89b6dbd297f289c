//! The turns of a session as people look at them. Left out: how they begin and end, which is the queue's.

use super::{
    Error, Result, Store,
    driver::{Row, params},
};
use crate::{
    domain::turn::{Turn, TurnEnd},
    id::{SessionId, TurnId},
};

const COLUMNS: &str = "id, status, stop_reason, started_at, ended_at";

impl Store {
    /// The newest turns of a session, newest first.
    pub async fn turns(&self, session: &SessionId, limit: usize) -> Result<Vec<Turn>> {
        let session = session.clone();
        self.driver
            .read(move |tx| {
                let sql = format!(
                    "select {COLUMNS} from turns where session_id = $1 order by id desc limit $2"
                );
                let rows = tx.query(&sql, &params![&session, limit as i64])?;
                rows.into_iter().map(from_row).collect()
            })
            .await
    }

    /// [`Error::NotFound`] too when its session was deleted.
    pub async fn turn(&self, id: &TurnId) -> Result<Turn> {
        let id = id.clone();
        self.driver
            .read(move |tx| {
                let sql = format!("select {COLUMNS} from turns where id = $1");
                tx.first(&sql, &params![&id])?.ok_or(Error::NotFound).and_then(from_row)
            })
            .await
    }
}

fn from_row(mut row: Row) -> Result<Turn> {
    let (reason, ended_at) = (row.text_or_null(2)?, row.time_or_null(4)?);
    let end = reason.map(|it| TurnEnd::parse(&it).ok_or(Error::Bug("an unknown end of a turn")));
    Ok(Turn {
        id: row.id(0)?,
        is_waiting: row.text(1)? == "waiting",
        started_at: row.time(3)?,
        end: end.transpose()?.zip(ended_at),
    })
}
