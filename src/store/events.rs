//! Reading a session's log, and the messages that still wait to join it.

use std::collections::HashSet;

use super::{
    Error, Page, Result, Store,
    chunks::CHUNK_BYTES,
    driver::{Row, Tx, Value, params},
    queue::{BEGINNINGS, FRAME, read_body, unframed},
    select::Select,
};
use crate::{
    clock::Timestamp,
    domain::{
        Problem,
        event::{DEFINE_OUTCOME, Event, USER_MESSAGE},
    },
    id::SessionId,
};

/// Messages that one look into an inbox shows at most.
const WAITING_MAX: usize = 100;

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
    /// The position up to which the inbox was taken into the log.
    pub last_taken: i64,
    /// Whether there will be no more of either.
    pub terminated: bool,
}

/// Where a page ended: at a number of the log (`7`), or at a position of the inbox (`7w3`, with the
/// number of the log up to which everything was shown before: what waited may be there by now).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Cursor {
    Start,
    Log(i64),
    Waiting { seq: i64, position: i64 },
}

impl Cursor {
    fn parse(text: Option<&str>) -> Result<Cursor> {
        let number = |text: &str| {
            let wrong = || Problem::new("page", "is not a cursor of this list");
            text.parse().map_err(|_| Error::Invalid(wrong()))
        };
        Ok(match text.map(|text| (text, text.split_once('w'))) {
            None => Cursor::Start,
            Some((text, None)) => Cursor::Log(number(text)?),
            Some((_, Some((seq, position)))) => {
                Cursor::Waiting { seq: number(seq)?, position: number(position)? }
            }
        })
    }

    fn to_text(self) -> String {
        match self {
            Cursor::Start => String::new(),
            Cursor::Log(seq) => seq.to_string(),
            Cursor::Waiting { seq, position } => format!("{seq}w{position}"),
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
                let filter =
                    EventFilter { limit: affordable(tx, &session, cursor, &filter)?, ..filter };
                let limit = filter.limit + 1;
                let (mut log, mut waiting) = (Vec::new(), Vec::new());
                if !filter.newest_first {
                    log = page_of_log(tx, &session, cursor, &filter)?;
                } else if !matches!(cursor, Cursor::Log(_)) {
                    waiting = page_of_inbox(tx, &session, cursor, &filter, limit)?;
                }
                // What is taken between two looks is seen twice, and not never: whoever looked into
                // the inbox looks into the log after that.
                if filter.newest_first && waiting.len() < limit {
                    log = page_of_log(tx, &session, cursor, &filter)?;
                } else if !filter.newest_first && log.len() < limit {
                    waiting = page_of_inbox(tx, &session, cursor, &filter, limit)?;
                    let end = log.last().and_then(|event| event.seq).map_or(cursor, Cursor::Log);
                    log.extend(page_of_log(tx, &session, end, &filter)?);
                }
                let found = join(cursor, &filter, log, waiting);
                let page = Page::from_rows(found, filter.limit, |(cursor, _)| cursor.to_text());
                let data = page.data.into_iter().map(|(_, event)| event).collect();
                Ok(Page { data, next: page.next })
            })
            .await
    }

    /// The log after a number, oldest first: what a stream shows next, and what a turn resumes from.
    /// Fewer than `limit` when they are large; none only at the end.
    pub async fn events_after(
        &self,
        session: &SessionId,
        seq: i64,
        limit: usize,
    ) -> Result<Vec<Event>> {
        let session = session.clone();
        self.driver.read(move |tx| Ok(after(tx, &session, seq, limit)?.0)).await
    }

    /// Where the log and the inbox end now. What a stream asks before it reads anything.
    pub async fn end_of_log(&self, session: &SessionId) -> Result<LogEnd> {
        let session = session.clone();
        self.driver
            .read(move |tx| {
                let sql = "select next_seq - 1, inbox_given, inbox_taken, archived_at, status \
                           from sessions where id = $1";
                let mut row = tx.first(sql, &params![&session])?.ok_or(Error::NotFound)?;
                let (last_seq, last_position) = (row.int(0)?, row.int(1)?);
                let last_taken = row.int(2)?;
                let terminated = row.int_or_null(3)?.is_some() || row.text(4)? == "terminated";
                Ok(LogEnd { last_seq, last_position, last_taken, terminated })
            })
            .await
    }

    /// Messages that wait in the inbox after a position, with their positions.
    pub async fn waiting_after(
        &self,
        session: &SessionId,
        position: i64,
    ) -> Result<Vec<(i64, Event)>> {
        let session = session.clone();
        let filter = EventFilter::default();
        self.driver
            .read(move |tx| {
                let cursor = Cursor::Waiting { seq: 0, position };
                page_of_inbox(tx, &session, cursor, &filter, WAITING_MAX)
            })
            .await
    }
}

/// One list of what is in the log and what waits, each event with the cursor of a page that ends
/// with it. An event that was taken between the two looks is shown once.
fn join(
    cursor: Cursor,
    filter: &EventFilter,
    log: Vec<Event>,
    waiting: Vec<(i64, Event)>,
) -> Vec<(Cursor, Event)> {
    let shown = match cursor {
        Cursor::Start => 0,
        Cursor::Log(seq) | Cursor::Waiting { seq, .. } => seq,
    };
    let seq = log.last().and_then(|event| event.seq).unwrap_or(shown);
    let log = log.into_iter().map(|event| (Cursor::Log(event.seq.unwrap_or(shown)), event));
    let waiting =
        waiting.into_iter().map(|(position, event)| (Cursor::Waiting { seq, position }, event));
    let mut found: Vec<(Cursor, Event)> = if filter.newest_first {
        waiting.chain(log).collect()
    } else {
        log.chain(waiting).collect()
    };
    let mut seen = HashSet::new();
    found.retain(|(_, event)| seen.insert(event.id.clone()));
    found
}

fn exists(tx: &mut Tx<'_>, session: &SessionId) -> Result<()> {
    let row = tx.first("select 1 from sessions where id = $1", &params![session])?;
    row.map(|_| ()).ok_or(Error::NotFound)
}

/// Bytes of events that are read at once: a log of large payloads must not fill the memory.
const READ_BYTES_MAX: i64 = 32 * 1024 * 1024;

/// The log after a number, and whether there may be more of it.
pub(super) fn after(
    tx: &mut Tx<'_>,
    session: &SessionId,
    seq: i64,
    limit: usize,
) -> Result<(Vec<Event>, bool)> {
    let filter = EventFilter { limit, ..EventFilter::default() };
    let n = affordable(tx, session, Cursor::Log(seq), &filter)?;
    let rows = tx.query(
        "select seq, id, body, n_chunks, private, processed_at from events \
         where session_id = $1 and seq > $2 order by seq limit $3",
        &params![session, seq, n as i64],
    )?;
    let has_more = rows.len() == n;
    let events = rows.into_iter().map(|row| read_event(tx, row)).collect::<Result<_>>()?;
    Ok((events, has_more))
}

/// Whether a log has no more than so many events, and these are small together.
pub(super) fn is_short(
    tx: &mut Tx<'_>,
    session: &SessionId,
    n_max: usize,
    bytes_max: i64,
) -> Result<bool> {
    let sizes = sizes(tx, session, ">", 0, "asc", n_max + 1)?;
    Ok(sizes.len() <= n_max && sizes.iter().sum::<i64>() <= bytes_max)
}

/// How large some events are, about.
fn sizes(
    tx: &mut Tx<'_>,
    session: &SessionId,
    mark: &str,
    from: i64,
    order: &str,
    limit: usize,
) -> Result<Vec<i64>> {
    let sql = format!(
        "select length(body) + n_chunks * {CHUNK_BYTES} from events \
         where session_id = $1 and seq {mark} $2 order by seq {order} limit $3"
    );
    let rows = tx.query(&sql, &params![session, from, limit as i64])?;
    rows.into_iter().map(|mut row| row.int(0)).collect()
}

/// How many of the next events fit into one reading: all that were asked for, unless they are large.
fn affordable(
    tx: &mut Tx<'_>,
    session: &SessionId,
    cursor: Cursor,
    filter: &EventFilter,
) -> Result<usize> {
    let (mark, order, start) =
        if filter.newest_first { ("<", "desc", i64::MAX) } else { (">", "asc", 0) };
    let from = match cursor {
        Cursor::Log(seq) => seq,
        Cursor::Start | Cursor::Waiting { .. } => start,
    };
    let mut bytes = 0;
    let sizes = sizes(tx, session, mark, from, order, filter.limit)?;
    for (n, size) in sizes.into_iter().enumerate() {
        bytes += size;
        if bytes > READ_BYTES_MAX {
            return Ok(n.max(1));
        }
    }
    Ok(filter.limit)
}

fn page_of_log(
    tx: &mut Tx<'_>,
    session: &SessionId,
    cursor: Cursor,
    filter: &EventFilter,
) -> Result<Vec<Event>> {
    let sql = "select seq, id, body, n_chunks, private, processed_at from events \
               where session_id = $1";
    let mut select = Select::new(sql, params![session]);
    match cursor {
        Cursor::Log(seq) if filter.newest_first => select.and("seq <", seq),
        Cursor::Waiting { .. } if filter.newest_first => {}
        Cursor::Log(seq) | Cursor::Waiting { seq, .. } => select.and("seq >", seq),
        Cursor::Start => {}
    }
    select.and_some("processed_at >=", filter.after);
    select.and_some("processed_at <=", filter.before);
    select.and_among("type", &filter.types);
    let order = if filter.newest_first { "seq desc" } else { "seq asc" };
    let (sql, values) = select.page(order, filter.limit);
    tx.query(&sql, &values)?.into_iter().map(|row| read_event(tx, row)).collect()
}

fn page_of_inbox(
    tx: &mut Tx<'_>,
    session: &SessionId,
    cursor: Cursor,
    filter: &EventFilter,
    limit: usize,
) -> Result<Vec<(i64, Event)>> {
    let wants = |kind| filter.types.is_empty() || filter.types.iter().any(|it| it == kind);
    let wants_messages = wants(USER_MESSAGE);
    if !wants_messages && !BEGINNINGS.iter().any(|(_, kind)| wants(kind)) {
        return Ok(Vec::new());
    }
    if filter.after.is_some() || filter.before.is_some() {
        return Ok(Vec::new());
    }
    let (mark, order, start) =
        if filter.newest_first { ("<", "desc", i64::MAX) } else { (">", "asc", 0) };
    let from = if let Cursor::Waiting { position, .. } = cursor { position } else { start };
    let mut values: Vec<Value> = params![session, from, limit as i64].into();
    // All but some kinds, or only some.
    let named = BEGINNINGS.iter().filter(|(_, kind)| wants(kind) != wants_messages);
    let named = named.map(|(beginning, _)| {
        values.push((*beginning).into());
        format!("substr(i.body, 1, {}) = ${}", beginning.len(), values.len())
    });
    let named = named.collect::<Vec<_>>().join(" or ");
    let of_kind = match (named.is_empty(), wants_messages) {
        (true, _) => String::new(),
        (false, true) => format!("and not ({named})"),
        (false, false) => format!("and ({named})"),
    };
    let sql = format!(
        "select i.position, i.event_id, i.body, i.n_chunks, i.private, i.received_at, {FRAME} \
         from waiting i \
         left join deliveries d on d.id = i.delivery_id \
         where i.session_id = $1 and i.position {mark} $2 {of_kind} \
         order by i.position {order} limit $3"
    );
    tx.query(&sql, &values)?
        .into_iter()
        .map(|mut row| {
            let position = row.int(0)?;
            let id = row.id(1)?;
            let text = unframed(row.text(2)?, &mut row, 6)?;
            let body = read_body(tx, &id, text, row.int(3)?)?;
            let private = row.json_or_null(4)?;
            // An outcome is taken up on receipt, as the API has it.
            let is_outcome = body.kind() == DEFINE_OUTCOME;
            let processed_at = if is_outcome { Some(row.time(5)?) } else { None };
            Ok((position, Event { id, seq: None, body, private, processed_at }))
        })
        .collect()
}

/// From `seq, id, body, n_chunks, private, processed_at`.
fn read_event(tx: &mut Tx<'_>, mut row: Row) -> Result<Event> {
    let seq = row.int(0)?;
    let id = row.id(1)?;
    let body = read_body(tx, &id, row.text(2)?, row.int(3)?)?;
    let (private, processed_at) = (row.json_or_null(4)?, row.time_or_null(5)?);
    Ok(Event { id, seq: Some(seq), body, private, processed_at })
}
