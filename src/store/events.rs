//! Reading a session's log, and the messages that still wait to join it.

use super::{
    Error, Page, Result, Store,
    driver::{Row, Tx, Value, params},
    queue::read_body,
};
use crate::{clock::Timestamp, domain::event::Event, id::SessionId};

/// Which events a list shows. Times are compared with the time of processing; an event that still
/// waits has none, sorts last, and matches no time.
#[derive(Clone, Debug, Default)]
pub struct EventFilter {
    pub types: Vec<String>,
    pub after: Option<Timestamp>,
    pub before: Option<Timestamp>,
    pub newest_first: bool,
    /// As a page gave it.
    pub cursor: Option<String>,
    pub limit: usize,
}

/// The last number of a log and the last position of its inbox.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogEnd {
    pub last_seq: i64,
    pub last_position: i64,
}

/// Where a page of a log ended: at a number of the log, or at a position of the inbox (`w…`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Cursor {
    Start,
    Log(i64),
    Waiting(i64),
}

impl Cursor {
    fn parse(text: Option<&str>) -> Result<Cursor> {
        let wrong = || Error::Conflict("`page` is not a cursor of this list".to_owned());
        match text {
            None => Ok(Cursor::Start),
            Some(text) => match text.strip_prefix('w') {
                Some(position) => position.parse().map(Cursor::Waiting).map_err(|_| wrong()),
                None => text.parse().map(Cursor::Log).map_err(|_| wrong()),
            },
        }
    }
}

impl Store {
    /// A page of a session's events, oldest or newest first. [`Error::NotFound`] without session.
    pub async fn events(&self, session: &SessionId, filter: EventFilter) -> Result<Page<Event>> {
        let session = session.clone();
        self.driver
            .read(move |tx| {
                exists(tx, &session)?;
                let cursor = Cursor::parse(filter.cursor.as_deref())?;
                let mut found: Vec<(String, Event)> = Vec::new();
                let room = |found: &Vec<_>| filter.limit + 1 - found.len();
                if filter.newest_first {
                    if !matches!(cursor, Cursor::Log(_)) {
                        found.extend(page_of_inbox(tx, &session, cursor, &filter, room(&found))?);
                    }
                    if room(&found) > 0 {
                        found.extend(page_of_log(tx, &session, cursor, &filter, room(&found))?);
                    }
                } else {
                    if !matches!(cursor, Cursor::Waiting(_)) {
                        found.extend(page_of_log(tx, &session, cursor, &filter, room(&found))?);
                    }
                    if room(&found) > 0 {
                        found.extend(page_of_inbox(tx, &session, cursor, &filter, room(&found))?);
                    }
                }
                let page = Page::from_rows(found, filter.limit, |(cursor, _)| cursor.clone());
                let data = page.data.into_iter().map(|(_, event)| event).collect();
                Ok(Page { data, next: page.next })
            })
            .await
    }

    /// The log after a number, oldest first: what a stream shows next, and what a turn resumes from.
    pub async fn events_after(
        &self,
        session: &SessionId,
        seq: i64,
        limit: usize,
    ) -> Result<Vec<Event>> {
        let session = session.clone();
        self.driver
            .read(move |tx| {
                tx.query(
                    "select seq, id, body, n_chunks, private, processed_at from events \
                     where session_id = $1 and seq > $2 order by seq limit $3",
                    &params![&session, seq, limit as i64],
                )?
                .into_iter()
                .map(|row| read_event(tx, row).map(|(_, event)| event))
                .collect()
            })
            .await
    }

    /// Where the log and the inbox end now. What a stream asks before it reads anything.
    pub async fn end_of_log(&self, session: &SessionId) -> Result<LogEnd> {
        let session = session.clone();
        self.driver
            .read(move |tx| {
                let sql = "select next_seq - 1, inbox_given from sessions where id = $1";
                let mut row = tx.first(sql, &params![&session])?.ok_or(Error::NotFound)?;
                Ok(LogEnd { last_seq: row.int(0)?, last_position: row.int(1)? })
            })
            .await
    }

    /// Messages that wait in the inbox after a position, with their positions.
    pub async fn waiting_after(
        &self,
        session: &SessionId,
        position: i64,
    ) -> Result<Vec<(i64, Event)>> {
        let (session, filter) = (session.clone(), EventFilter::default());
        self.driver
            .read(move |tx| {
                let cursor = Cursor::Waiting(position);
                page_of_inbox(tx, &session, cursor, &filter, 100)?
                    .into_iter()
                    .map(|(cursor, event)| {
                        let position = cursor.trim_start_matches('w').parse();
                        Ok((position.map_err(|_| Error::Bug("a bad position"))?, event))
                    })
                    .collect()
            })
            .await
    }
}

fn exists(tx: &mut Tx<'_>, session: &SessionId) -> Result<()> {
    let row = tx.first("select 1 from sessions where id = $1", &params![session])?;
    row.map(|_| ()).ok_or(Error::NotFound)
}

fn page_of_log(
    tx: &mut Tx<'_>,
    session: &SessionId,
    cursor: Cursor,
    filter: &EventFilter,
    limit: usize,
) -> Result<Vec<(String, Event)>> {
    let mut sql = "select seq, id, body, n_chunks, private, processed_at from events \
                   where session_id = $1"
        .to_owned();
    let mut values: Vec<Value> = params![session].into();
    let mut and = |text: &str, value: Value| {
        values.push(value);
        sql.push_str(&format!(" and {text} ${}", values.len()));
    };
    match cursor {
        Cursor::Log(seq) if filter.newest_first => and("seq <", seq.into()),
        Cursor::Log(seq) => and("seq >", seq.into()),
        Cursor::Start | Cursor::Waiting(_) => {}
    }
    if let Some(after) = filter.after {
        and("processed_at >=", after.into());
    }
    if let Some(before) = filter.before {
        and("processed_at <=", before.into());
    }
    if !filter.types.is_empty() {
        let first = values.len() + 1;
        values.extend(filter.types.iter().map(Value::from));
        let marks: Vec<String> = (first..=values.len()).map(|n| format!("${n}")).collect();
        sql.push_str(&format!(" and type in ({})", marks.join(", ")));
    }
    let order = if filter.newest_first { "desc" } else { "asc" };
    sql.push_str(&format!(" order by seq {order} limit {limit}"));
    tx.query(&sql, &values)?.into_iter().map(|row| read_event(tx, row)).collect()
}

fn page_of_inbox(
    tx: &mut Tx<'_>,
    session: &SessionId,
    cursor: Cursor,
    filter: &EventFilter,
    limit: usize,
) -> Result<Vec<(String, Event)>> {
    let wanted = filter.types.is_empty() || filter.types.iter().any(|it| it == "user.message");
    if !wanted || filter.after.is_some() || filter.before.is_some() {
        return Ok(Vec::new());
    }
    let (mark, order, start) =
        if filter.newest_first { ("<", "desc", i64::MAX) } else { (">", "asc", 0) };
    let from = if let Cursor::Waiting(position) = cursor { position } else { start };
    let sql = format!(
        "select position, event_id, body, n_chunks, private from inbox \
         where session_id = $1 and position {mark} $2 order by position {order} limit {limit}"
    );
    tx.query(&sql, &params![session, from])?
        .into_iter()
        .map(|mut row| {
            let position = row.int(0)?;
            let id = row.id(1)?;
            let body = read_body(tx, &id, row.text(2)?, row.int(3)?)?;
            let private = row.json_or_null(4)?;
            let event = Event { id, seq: None, body, private, processed_at: None };
            Ok((format!("w{position}"), event))
        })
        .collect()
}

/// From `seq, id, body, n_chunks, private, processed_at`.
fn read_event(tx: &mut Tx<'_>, mut row: Row) -> Result<(String, Event)> {
    let seq = row.int(0)?;
    let id = row.id(1)?;
    let body = read_body(tx, &id, row.text(2)?, row.int(3)?)?;
    let (private, processed_at) = (row.json_or_null(4)?, row.time_or_null(5)?);
    Ok((seq.to_string(), Event { id, seq: Some(seq), body, private, processed_at }))
}
