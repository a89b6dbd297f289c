//! What only a person can settle, over all sessions: how much of it there is, and calls that ask.
//!
//! Everything here is found by an index that holds only what is open. Invariant: a count looks at a
//! bounded number of rows. Left out: the lists of effects, deliveries and messages, which are filters
//! of theirs.

use serde_json::Value;

use super::{
    Error, Page, Result, Store, Wanted,
    driver::{Row, Tx},
    select::Select,
};
use crate::{
    clock::Timestamp,
    id::{EventId, SessionId},
};

/// What is counted of one kind; more are "so many or more".
pub const NEEDED_MAX: u64 = 10_000;

/// How far back from its end a log is searched for the call that asks: a turn that waits has written
/// little after it.
const LOG_TAIL: i64 = 200;

/// How much waits for a person, of each kind up to [`NEEDED_MAX`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Needed {
    /// Calls that somebody has to allow or to deny.
    pub questions: u64,
    /// Effects in doubt.
    pub doubts: u64,
    /// Messages of the outbox that were given up.
    pub dead: u64,
    /// Held deliveries of which no replay was accepted.
    pub held: u64,
}

/// A call that waits for a word whether it may be made.
#[derive(Clone, Debug, PartialEq)]
pub struct Question {
    pub id: EventId,
    pub session_id: SessionId,
    pub agent_name: String,
    pub tool: String,
    /// What it would be called with, unless that is too large to be shown in a list.
    pub input: Option<Value>,
    pub asked_at: Timestamp,
    pub expires_at: Timestamp,
}

const GIVEN_UP: &str = "select 1 from outbox where status = 'dead'";

impl Store {
    pub async fn needed(&self) -> Result<Needed> {
        self.driver
            .read(|tx| {
                let questions = "select 1 from approvals where journaled = 0 \
                                 and status = 'pending' and wanted = 'confirmation'";
                // Of the newest that are held, so that many that were replayed cost no more.
                let held = format!(
                    "select 1 from (select id from deliveries where status = 'held' \
                     order by id desc limit {NEEDED_MAX}) d where not exists (select 1 \
                     from deliveries p where p.replay_of = d.id and p.status = 'accepted')"
                );
                Ok(Needed {
                    questions: count(tx, questions)?,
                    doubts: count(tx, "select 1 from effects where status = 'in_doubt'")?,
                    dead: count(tx, GIVEN_UP)?,
                    held: count(tx, &held)?,
                })
            })
            .await
    }

    /// Messages of the outbox that were given up, up to [`NEEDED_MAX`].
    pub async fn n_given_up(&self) -> Result<u64> {
        self.driver.read(|tx| count(tx, GIVEN_UP)).await
    }

    /// Calls that ask, those that asked first before the others, after this one.
    pub async fn questions(&self, after: Option<EventId>, limit: usize) -> Result<Page<Question>> {
        self.driver
            .read(move |tx| {
                let sql = format!(
                    "select a.id, a.session_id, g.name, a.tool, e.body, a.asked_at, a.expires_at \
                     from approvals a join sessions s on s.id = a.session_id \
                     join agents g on g.id = s.agent_id \
                     left join events e on e.session_id = a.session_id and e.id = a.id \
                     and e.n_chunks = 0 and e.seq >= s.next_seq - {LOG_TAIL} \
                     where a.journaled = 0 and a.status = 'pending' and a.wanted = '{}'",
                    Wanted::Confirmation.as_str()
                );
                let mut select = Select::new(sql, []);
                select.and_some("a.id >", after.as_ref());
                let (sql, values) = select.page("a.id", limit);
                let rows = tx.query(&sql, &values)?;
                let found = rows.into_iter().map(question).collect::<Result<Vec<_>>>()?;
                Ok(Page::from_rows(found, limit, |it| it.id.to_string()))
            })
            .await
    }
}

fn count(tx: &mut Tx<'_>, rows: &str) -> Result<u64> {
    let sql = format!("select count(*) from ({rows} limit {NEEDED_MAX}) n");
    let mut row = tx.first(&sql, &[])?.ok_or(Error::Bug("a count without a row"))?;
    Ok(u64::try_from(row.int(0)?).unwrap_or(0))
}

fn question(mut row: Row) -> Result<Question> {
    let body: Option<Value> = match row.text_or_null(4)? {
        // What cannot be read is shown as what is too large: the session has it.
        Some(text) => serde_json::from_str(&text).ok(),
        None => None,
    };
    Ok(Question {
        id: row.id(0)?,
        session_id: row.id(1)?,
        agent_name: row.text(2)?,
        tool: row.text(3)?,
        input: body.and_then(|mut body| body.get_mut("input").map(Value::take)),
        asked_at: row.time(5)?,
        expires_at: row.time(6)?,
    })
}
