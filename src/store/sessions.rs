//! Sessions: made, looked at, listed, and given messages by people and programs.

use std::collections::HashMap;

use super::{
    Error, Page, Result, Store,
    accept::take_position,
    driver::{Lane, Row, Tx, Value, params},
};
use crate::{
    clock::Timestamp,
    domain::{
        Metadata,
        cost::{Cost, MicroUsd},
        event::{Event, EventBody, Usage},
        session::{Session, Status},
        source::Pace,
    },
    id::{AgentId, DeliveryId, EnvironmentId, EventId, SessionId, SourceId},
};

#[derive(Clone, Debug)]
pub struct NewSession {
    pub id: SessionId,
    pub agent_id: AgentId,
    pub agent_version: i64,
    /// The whole spec that this session runs with, when it is not the agent's version as it is.
    pub overrides: Option<String>,
    pub environment_id: EnvironmentId,
    pub title: Option<String>,
    pub metadata: Metadata,
    pub messages: Vec<NewMessage>,
}

/// A message typed by a person or sent by a program through the API.
#[derive(Clone, Debug)]
pub struct NewMessage {
    pub event_id: EventId,
    pub body: EventBody,
    pub private: String,
}

#[derive(Clone, Debug, Default)]
pub struct SessionFilter {
    pub agent_id: Option<AgentId>,
    pub agent_version: Option<i64>,
    pub statuses: Vec<Status>,
    pub include_archived: bool,
    pub created_after: Option<Timestamp>,
    pub created_before: Option<Timestamp>,
    pub oldest_first: bool,
    pub cursor: Option<SessionId>,
    pub limit: usize,
}

const COLUMNS: &str = "s.id, s.agent_id, s.agent_version, coalesce(s.overrides, v.spec), \
    s.environment_id, nullif(s.source_id, ''), r.name, s.title, s.metadata, s.status, s.created_at, \
    s.updated_at, s.archived_at, s.inbox_given - s.inbox_taken, s.next_seq, s.turn_id, \
    s.input_tokens, s.output_tokens, s.cache_creation_tokens, s.cache_read_tokens, s.active_ms, \
    s.cost_micros, s.unpriced_requests \
    from sessions s \
    join agent_versions v on v.agent_id = s.agent_id and v.version = s.agent_version \
    left join sources r on r.id = s.source_id";

impl Store {
    /// Makes a session; with messages it is running from the start, and due.
    pub async fn create_session(&self, session: NewSession) -> Result<Session> {
        let at = self.clock.now();
        self.driver
            .transaction(Lane::Work, move |tx| {
                let status = if session.messages.is_empty() { "idle" } else { "running" };
                tx.execute(
                    "insert into sessions (id, agent_id, agent_version, overrides, environment_id, \
                     title, metadata, status, created_at, updated_at) \
                     values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $9)",
                    &params![
                        &session.id,
                        &session.agent_id,
                        session.agent_version,
                        session.overrides.as_ref(),
                        &session.environment_id,
                        session.title.as_ref(),
                        super::to_json(&session.metadata),
                        status,
                        at,
                    ],
                )?;
                add_messages(tx, &session.id, &session.messages, at)?;
                read(tx, &session.id)
            })
            .await
    }

    /// Puts messages into the inbox and makes the session due. Answers them as they wait.
    /// [`Error::Full`] when more than `waiting_max` would wait.
    pub async fn send(
        &self,
        session: &SessionId,
        messages: Vec<NewMessage>,
        waiting_max: i64,
    ) -> Result<Vec<Event>> {
        let (session, at) = (session.clone(), self.clock.now());
        self.driver
            .transaction(Lane::Work, move |tx| {
                let sql = "select status, archived_at, inbox_given - inbox_taken from sessions \
                           where id = $1 {wait}";
                let mut row = tx.first(sql, &params![&session])?.ok_or(Error::NotFound)?;
                if row.int_or_null(1)?.is_some() || row.text(0)? == "terminated" {
                    return Err(Error::Conflict(
                        "the session is archived or terminated".to_owned(),
                    ));
                }
                if row.int(2)? + messages.len() as i64 > waiting_max {
                    return Err(Error::Full(format!(
                        "of a session's messages {waiting_max} may wait \
                         (`limits.waiting_messages_max`); send this when the agent has taken some"
                    )));
                }
                add_messages(tx, &session, &messages, at)?;
                Ok(messages
                    .into_iter()
                    .map(|message| Event {
                        id: message.event_id,
                        seq: None,
                        body: message.body,
                        private: None,
                        processed_at: None,
                    })
                    .collect())
            })
            .await
    }

    /// Read-only from now on. [`Error::Conflict`] while there is work: a turn, or a message that was
    /// promised one.
    pub async fn archive_session(&self, id: &SessionId) -> Result<Session> {
        let (id, at) = (id.clone(), self.clock.now());
        self.driver
            .transaction(Lane::Work, move |tx| {
                let sql = "select archived_at, status, next_at from sessions where id = $1 {wait}";
                let mut row = tx.first(sql, &params![&id])?.ok_or(Error::NotFound)?;
                if row.int_or_null(0)?.is_none() {
                    if row.text(1)? == Status::Running.as_str() || row.int_or_null(2)?.is_some() {
                        return Err(Error::Conflict("cannot archive while running".to_owned()));
                    }
                    let sql = "update sessions set archived_at = $2, updated_at = $2 where id = $1";
                    tx.execute(sql, &params![&id, at])?;
                }
                read(tx, &id)
            })
            .await
    }

    pub async fn session(&self, id: &SessionId) -> Result<Session> {
        let id = id.clone();
        self.driver.read(move |tx| read(tx, &id)).await
    }

    /// The delivery whose payload the session may read: the newest one that was routed to it, or a
    /// named one, which must be the session's own.
    pub async fn session_delivery(
        &self,
        session: &SessionId,
        delivery: Option<DeliveryId>,
    ) -> Result<DeliveryId> {
        let session = session.clone();
        self.driver
            .read(move |tx| {
                let row = match delivery {
                    Some(delivery) => tx.first(
                        "select id from deliveries where session_id = $1 and id = $2",
                        &params![&session, &delivery],
                    )?,
                    None => tx.first(
                        "select id from deliveries where session_id = $1 order by id desc limit 1",
                        &params![&session],
                    )?,
                };
                row.ok_or(Error::NotFound)?.id(0)
            })
            .await
    }

    pub async fn sessions(&self, filter: SessionFilter) -> Result<Page<Session>> {
        self.driver
            .read(move |tx| {
                let (sql, values) = list_sql(&filter);
                let rows = tx.query(&sql, &values)?;
                let sessions = rows.into_iter().map(from_row).collect::<Result<Vec<_>>>()?;
                Ok(Page::from_rows(sessions, filter.limit, |session| session.id.to_string()))
            })
            .await
    }

    /// How many sessions of each source want work; sources without any are not among the answers.
    pub async fn waiting_sessions(&self) -> Result<HashMap<SourceId, u64>> {
        self.driver
            .read(move |tx| {
                // By agent too, which is the order of the index.
                let sql = "select source_id, count(*) from sessions where next_at is not null \
                           and source_id <> '' group by agent_id, source_id";
                let mut waiting = HashMap::new();
                for mut row in tx.query(sql, &[])? {
                    *waiting.entry(row.id(0)?).or_default() +=
                        u64::try_from(row.int(1)?).unwrap_or(0);
                }
                Ok(waiting)
            })
            .await
    }
}

fn list_sql(filter: &SessionFilter) -> (String, Vec<Value<'_>>) {
    let mut sql = format!("select {COLUMNS} where 1 = 1");
    let mut values = Vec::new();
    let mut and = |text: &str, value| {
        values.push(value);
        sql.push_str(&format!(" and {text} ${}", values.len()));
    };
    if let Some(agent) = &filter.agent_id {
        and("s.agent_id =", agent.into());
    }
    if let Some(version) = filter.agent_version {
        and("s.agent_version =", version.into());
    }
    if let Some(after) = filter.created_after {
        and("s.created_at >=", after.into());
    }
    if let Some(before) = filter.created_before {
        and("s.created_at <=", before.into());
    }
    if let Some(cursor) = &filter.cursor {
        and(if filter.oldest_first { "s.id >" } else { "s.id <" }, cursor.into());
    }
    if !filter.include_archived {
        sql.push_str(" and s.archived_at is null");
    }
    if !filter.statuses.is_empty() {
        // A closed list of constants in one order: nothing from outside becomes part of the text.
        let words: Vec<String> = Status::ALL
            .iter()
            .filter(|status| filter.statuses.contains(status))
            .map(|status| format!("'{}'", status.as_str()))
            .collect();
        sql.push_str(&format!(" and s.status in ({})", words.join(", ")));
    }
    let order = if filter.oldest_first { "asc" } else { "desc" };
    values.push((filter.limit as i64 + 1).into());
    sql.push_str(&format!(" order by s.id {order} limit ${}", values.len()));
    (sql, values)
}

fn add_messages(
    tx: &mut Tx<'_>,
    session: &SessionId,
    messages: &[NewMessage],
    at: Timestamp,
) -> Result<()> {
    let now = tx.now()?;
    let mut rows = Vec::with_capacity(messages.len());
    for message in messages {
        let position = take_position(tx, session, Pace::default(), now, at, i64::MAX)?
            .ok_or(Error::NotFound)?;
        let body = message.body.to_text();
        rows.push(params![session, position, &message.event_id, body, &message.private, at].into());
    }
    tx.insert(
        "insert into inbox (session_id, position, event_id, body, private, received_at) \
         {rows:tittti}",
        &rows,
    )?;
    Ok(())
}

fn read(tx: &mut Tx<'_>, id: &SessionId) -> Result<Session> {
    let row = tx.first(&format!("select {COLUMNS} where s.id = $1"), &params![id])?;
    row.ok_or(Error::NotFound).and_then(from_row)
}

fn from_row(mut row: Row) -> Result<Session> {
    let status = row.text(9)?;
    Ok(Session {
        id: row.id(0)?,
        agent_id: row.id(1)?,
        agent_version: row.int(2)?,
        agent: row.json(3)?,
        environment_id: row.id(4)?,
        source_id: row.id_or_null(5)?,
        source_name: row.text_or_null(6)?,
        title: row.text_or_null(7)?,
        metadata: row.json(8)?,
        status: Status::parse(&status).ok_or(Error::Bug("an unknown session status"))?,
        created_at: row.time(10)?,
        updated_at: row.time(11)?,
        archived_at: row.time_or_null(12)?,
        n_waiting: row.int(13)?,
        next_seq: row.int(14)?,
        turn_id: row.id_or_null(15)?,
        usage: Usage {
            input_tokens: row.int(16)?,
            output_tokens: row.int(17)?,
            cache_creation_input_tokens: row.int(18)?,
            cache_read_input_tokens: row.int(19)?,
        },
        active_ms: row.int(20)?,
        cost: Cost { known: MicroUsd(row.int(21)?), n_unpriced: row.int(22)? },
    })
}
