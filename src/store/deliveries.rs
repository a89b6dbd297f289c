//! Deliveries as people look at them: lists, raw bodies, attempts, refusals, erasure.

use std::{collections::HashSet, time::Duration};

use bytes::Bytes;

use super::{
    Change, Error, Page, Result, Store, audit, chunks,
    driver::{Lane, Row, Tx, Value, params},
    select::{Select, marks},
};
use crate::{
    clock::Timestamp,
    domain::{
        delivery::{Delivery, Identity, Outcome, Status},
        secret::SecretName,
    },
    id::{DeliveryId, Id, RefusalId, SessionId, SourceId, TurnId, WebhookRequestId},
};

#[derive(Clone, Debug, Default)]
pub struct DeliveryFilter {
    pub source_id: Option<SourceId>,
    pub status: Option<Status>,
    pub outcome: Option<Outcome>,
    pub session_id: Option<SessionId>,
    pub event_type: Option<String>,
    /// A text that its id, its session's, the sender's id, its type, its reason or its body has. Bodies
    /// have it in just these letters, and large ones are not looked through.
    pub has: Option<String>,
    /// The first and the last moment of their arrival.
    pub received: (Option<Timestamp>, Option<Timestamp>),
    /// Those whose id or identity is one of these.
    pub called: Vec<String>,
    /// Those that this turn of a session took, or one after it.
    pub turns_from: Option<TurnId>,
    /// Replays of this one.
    pub replay_of: Option<DeliveryId>,
    /// None that is a replay.
    pub originals: bool,
    /// None of which a replay was accepted.
    pub unreplayed: bool,
    pub oldest_first: bool,
    pub cursor: Option<DeliveryId>,
    pub limit: usize,
}

impl DeliveryFilter {
    /// Whether an index leads to what is wanted, and past what is not.
    fn has_index(&self) -> bool {
        let is_plain =
            self.event_type.is_none() && self.has.is_none() && !self.originals && !self.unreplayed;
        let has_own = match (self.status, self.outcome) {
            (None, None) => true,
            (Some(Status::Held), None) | (None, Some(Outcome::Failed | Outcome::InDoubt)) => {
                self.source_id.is_none()
            }
            (None, Some(Outcome::Pending)) => self.source_id.is_some(),
            _ => false,
        };
        self.session_id.is_some()
            || !self.called.is_empty()
            || self.replay_of.is_some()
            || (is_plain && has_own)
    }

    /// How many are looked at for one page, some milliseconds' worth.
    fn look_max(&self) -> usize {
        if self.has.is_some() { READ_MAX } else { LOOK_MAX }
    }

    /// Where what is wanted of a source can be.
    fn parts(&self) -> &'static [&'static str] {
        match (self.status, self.outcome) {
            (_, Some(Outcome::Pending)) => &EITHER[..1],
            (_, Some(_)) | (Some(Status::Held | Status::Filtered), None) => &EITHER[1..],
            (Some(Status::Accepted) | None, None) => EITHER,
        }
    }
}

/// Deliveries that are looked at for one page, and those whose bodies are.
const LOOK_MAX: usize = 5_000;
const READ_MAX: usize = 1_000;

/// Larger bodies are not looked through for a text.
const SEARCHED_BYTES_MAX: usize = 64 * 1024;

/// A raw body with what is needed to serve or render it.
#[derive(Clone, Debug)]
pub struct StoredBody {
    pub content_type: Option<String>,
    pub bytes: Bytes,
}

/// A request for a delivery.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attempt {
    pub n: i64,
    pub request_id: WebhookRequestId,
    pub received_at: Timestamp,
}

/// A request that the gate refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    pub id: RefusalId,
    pub source: String,
    pub source_id: Option<SourceId>,
    pub reason: String,
    pub at: Timestamp,
}

const COLUMNS: &str = "d.id, d.source_id, r.name, d.status, d.outcome, d.reason, d.agent_id, \
    d.session_id, d.turn_id, d.event_type, d.dedupe_key, d.identity_field, d.identity_weak, \
    d.request_id, d.n_attempts, d.received_at, d.content_type, d.body_bytes, d.headers, d.erased_at, \
    d.traceparent, d.secret, d.possible_replay_of, d.replay_of, \
    (select count(*) from deliveries p where p.replay_of = d.id and p.status = 'accepted'), \
    case when d.session_id is not null and not exists \
    (select 1 from sessions s where s.id = d.session_id) then 1 else 0 end \
    from deliveries d join sources r on r.id = d.source_id";

impl Store {
    /// A page may have fewer than the limit, even none, and another one behind it all the same: where
    /// no index leads to what is wanted, a page is what so many deliveries have of it.
    pub async fn deliveries(&self, filter: DeliveryFilter) -> Result<Page<Delivery>> {
        self.driver
            .read(move |tx| {
                let end = if filter.has_index() { None } else { end_of_look(tx, &filter)? };
                let (sql, values) = list_sql(&filter, end.as_ref());
                let rows = tx.query(&sql, &values)?;
                let deliveries = rows.into_iter().map(from_row).collect::<Result<Vec<_>>>()?;
                let mut page =
                    Page::from_rows(deliveries, filter.limit, |delivery| delivery.id.to_string());
                page.next = page.next.or(end.map(|id| id.to_string()));
                Ok(page)
            })
            .await
    }

    /// The newest that wait in a session, the last to be taken first.
    pub async fn waiting_deliveries(
        &self,
        session: &SessionId,
        limit: usize,
    ) -> Result<Vec<Delivery>> {
        let session = session.clone();
        self.driver
            .read(move |tx| {
                let sql = format!(
                    "select {COLUMNS} where d.id in (select i.delivery_id from waiting i \
                     where i.session_id = $1 and i.delivery_id is not null \
                     order by i.position desc limit $2) \
                     and coalesce(d.outcome, '') = 'pending' order by d.id desc"
                );
                let rows = tx.query(&sql, &params![&session, limit as i64])?;
                rows.into_iter().map(from_row).collect()
            })
            .await
    }

    pub async fn delivery(&self, id: &DeliveryId) -> Result<Delivery> {
        let id = id.clone();
        self.driver
            .read(move |tx| {
                let sql = format!("select {COLUMNS} where d.id = $1");
                tx.first(&sql, &params![&id])?.ok_or(Error::NotFound).and_then(from_row)
            })
            .await
    }

    /// The bytes as they came. [`Error::NotFound`] too when they were erased or are past their days.
    pub async fn delivery_body(&self, id: &DeliveryId) -> Result<StoredBody> {
        let id = id.clone();
        self.driver
            .read(move |tx| {
                let sql = "select content_type, body, n_chunks from deliveries where id = $1";
                let mut row = tx.first(sql, &params![&id])?.ok_or(Error::NotFound)?;
                let (content_type, inline) = (row.text_or_null(0)?, row.bytes_or_null(1)?);
                let bytes = match (inline, row.int(2)?) {
                    (Some(bytes), _) => bytes,
                    (None, 0) => return Err(Error::NotFound),
                    (None, n) => chunks::read(tx, id.as_str(), n)?.into(),
                };
                Ok(StoredBody { content_type, bytes })
            })
            .await
    }

    /// Those whose bytes are still there, of at most some hundreds.
    pub async fn with_bodies(&self, ids: Vec<DeliveryId>) -> Result<HashSet<DeliveryId>> {
        if ids.is_empty() {
            return Ok(HashSet::new());
        }
        self.driver
            .read(move |tx| {
                let ids: Vec<Value> = ids.iter().map(Value::from).collect();
                let sql = format!(
                    "select id from deliveries where id in ({}) \
                     and (body is not null or n_chunks > 0)",
                    marks(ids.len())
                );
                tx.query(&sql, &ids)?.into_iter().map(|mut row| row.id(0)).collect()
            })
            .await
    }

    /// All requests for a delivery, the first included.
    pub async fn attempts(&self, id: &DeliveryId) -> Result<Vec<Attempt>> {
        let id = id.clone();
        self.driver
            .read(move |tx| {
                let rows = tx.query(
                    "select 1, request_id, received_at from deliveries where id = $1 \
                     union all select n, request_id, received_at from attempts \
                     where delivery_id = $1 order by 1",
                    &params![&id],
                )?;
                if rows.is_empty() {
                    return Err(Error::NotFound);
                }
                rows.into_iter()
                    .map(|mut row| {
                        Ok(Attempt {
                            n: row.int(0)?,
                            request_id: row.id(1)?,
                            received_at: row.time(2)?,
                        })
                    })
                    .collect()
            })
            .await
    }

    /// Removes body, headers and the message that still waits; the identity stays, so that the same
    /// delivery does not run again. A message that is in the log stays there, as the log does. The
    /// replays of a delivery have its bytes, and go with it.
    pub async fn erase_delivery(&self, id: &DeliveryId, change: Change) -> Result<Delivery> {
        let erased = self.erase_one(id, change.clone()).await?;
        // Complete: a replay that is stored now finds the delivery erased.
        for replay in self.replays(id).await? {
            let details = serde_json::json!({"replay_of": id});
            let change = Change { target: replay.to_string(), details, ..change.clone() };
            self.erase_one(&replay, change).await?;
        }
        Ok(erased)
    }

    /// All replays of a delivery whose bytes are there.
    async fn replays(&self, of: &DeliveryId) -> Result<Vec<DeliveryId>> {
        let of = of.clone();
        self.driver
            .read(move |tx| {
                let sql = "select id from deliveries where replay_of = $1 and erased_at is null";
                tx.query(sql, &params![&of])?.into_iter().map(|mut row| row.id(0)).collect()
            })
            .await
    }

    async fn erase_one(&self, id: &DeliveryId, change: Change) -> Result<Delivery> {
        let (id, at) = (id.clone(), self.clock.now());
        self.driver
            .transaction(Lane::Work, move |tx| {
                let sql = "select session_id from deliveries where id = $1";
                let mut row = tx.first(sql, &params![&id])?.ok_or(Error::NotFound)?;
                let session = row.id_or_null::<SessionId>(0)?;
                // As everybody who changes an inbox: the session first. A turn that begins now has
                // taken the message before, or takes it erased.
                let sql = "select 1 from sessions where id = $1 {wait}";
                tx.query(sql, &params![session.as_ref()])?;
                let n = tx.execute(
                    "update deliveries set body = null, n_chunks = 0, headers = $3, \
                     erased_at = coalesce(erased_at, $2) where id = $1",
                    &params![&id, at, "{}"],
                )?;
                if n == 0 {
                    return Err(Error::NotFound);
                }
                chunks::remove(tx, id.as_str())?;
                if let Some(session) = session {
                    erase_waiting(tx, &session, &id)?;
                }
                audit::note_only(tx, &change, at)?;
                let sql = format!("select {COLUMNS} where d.id = $1");
                tx.first(&sql, &params![&id])?.ok_or(Error::NotFound).and_then(from_row)
            })
            .await
    }

    /// Notes refused requests and forgets the oldest beyond `keep`.
    pub async fn note_refusals(&self, refusals: Vec<Refusal>, keep: u64) -> Result<()> {
        self.driver
            .transaction(Lane::Work, move |tx| {
                let rows: Vec<Vec<Value>> = refusals
                    .iter()
                    .map(|it| {
                        let source_id = it.source_id.as_ref();
                        params![&it.id, &it.source, source_id, &it.reason, it.at].into()
                    })
                    .collect();
                tx.insert(
                    "insert into refusals (id, source, source_id, reason, at) {rows:tttti}",
                    &rows,
                )?;
                tx.execute(
                    "delete from refusals where id in \
                     (select id from refusals order by id desc limit 500 offset $1)",
                    &params![i64::try_from(keep).unwrap_or(i64::MAX)],
                )?;
                Ok(())
            })
            .await
    }

    /// The newest refused requests, of one source or of all.
    pub async fn refusals(&self, source: Option<String>, limit: usize) -> Result<Vec<Refusal>> {
        self.driver
            .read(move |tx| {
                let rows = match source {
                    Some(source) => tx.query(
                        "select id, source, source_id, reason, at from refusals where source = $1 \
                         order by id desc limit $2",
                        &params![source, limit as i64],
                    )?,
                    None => tx.query(
                        "select id, source, source_id, reason, at from refusals \
                         order by id desc limit $1",
                        &params![limit as i64],
                    )?,
                };
                rows.into_iter()
                    .map(|mut row| {
                        Ok(Refusal {
                            id: row.id(0)?,
                            source: row.text(1)?,
                            source_id: row.id_or_null(2)?,
                            reason: row.text(3)?,
                            at: row.time(4)?,
                        })
                    })
                    .collect()
            })
            .await
    }
}

/// What is said in the place of a message whose delivery was erased before a turn took it.
const ERASED: &str =
    r#"{"type":"user.message","content":[{"type":"text","text":"[This delivery was erased.]"}]}"#;

/// Takes the text of a delivery's message that waits out of its session, whose row is locked.
fn erase_waiting(tx: &mut Tx<'_>, session: &SessionId, id: &DeliveryId) -> Result<()> {
    let n = tx.execute(
        "update sessions set first_body = $3, first_source = null \
         where id = $1 and first_delivery_id = $2",
        &params![session, id, ERASED],
    )?;
    if n > 0 {
        return Ok(());
    }
    let waiting = tx.first(
        "select position, event_id from inbox where session_id = $1 and delivery_id = $2",
        &params![session, id],
    )?;
    let Some(mut row) = waiting else { return Ok(()) };
    // The message keeps its place, so that counting stays simple; only its text goes.
    tx.execute(
        "update inbox set body = $3, n_chunks = 0, source = null \
         where session_id = $1 and position = $2",
        &params![session, row.int(0)?, ERASED],
    )?;
    chunks::remove(tx, &row.text(1)?)
}

/// The deliveries of a source by the index that has them: those that wait, and all others.
pub(super) const EITHER: &[&str] = &["= 'pending'", "is distinct from 'pending'"];

/// Ids of deliveries of a source that meet some conditions, in an order and no more than a limit. A page
/// of each of the parts holds the page of both.
pub(super) fn ids_of_source(parts: &[&str], conditions: &str, order_and_limit: &str) -> String {
    let part = |outcome: &&str| {
        format!(
            "select id from (select d.id from deliveries d \
             where d.outcome {outcome}{conditions} {order_and_limit}) part"
        )
    };
    parts.iter().map(part).collect::<Vec<_>>().join(" union all ")
}

/// The last delivery that is looked at for a page, if there are more behind it.
fn end_of_look(tx: &mut Tx<'_>, filter: &DeliveryFilter) -> Result<Option<DeliveryId>> {
    let mut select = Select::new("", []);
    let order = range(filter, &mut select);
    if filter.status == Some(Status::Held) && filter.source_id.is_none() {
        // The index has those alone, so a page is what so many held ones have of it.
        select.and_text("d.status = 'held'");
    }
    let (conditions, values) = select.into_parts();
    let look_max = filter.look_max();
    // Of ids alone, which are in the index.
    let looked_at = match filter.source_id {
        Some(_) => {
            let limit = format!("order by d.id{order} limit {look_max}");
            ids_of_source(filter.parts(), &conditions, &limit)
        }
        None => format!("select d.id from deliveries d where 1 = 1{conditions}"),
    };
    let sql = format!(
        "select id from ({looked_at}) looked_at order by id{order} limit 1 offset {}",
        look_max - 1
    );
    tx.first(&sql, &values)?.map(|mut row| row.id(0)).transpose()
}

fn list_sql<'a>(
    filter: &'a DeliveryFilter,
    end: Option<&'a DeliveryId>,
) -> (String, Vec<Value<'a>>) {
    let mut select = Select::new("", []);
    // Constants of a closed list stand in the text: only so they lead to the indexes that are theirs.
    if let Some(status) = filter.status {
        select.and_text(&format!("d.status = '{}'", status.as_str()));
    }
    if let Some(outcome) = filter.outcome {
        select.and_text(&format!("d.outcome = '{}'", outcome.as_str()));
    }
    if filter.originals {
        select.and_text("d.replay_of is null");
    }
    if filter.unreplayed {
        select.and_text(
            "not exists (select 1 from deliveries p \
             where p.replay_of = d.id and p.status = 'accepted')",
        );
    }
    let order = range(filter, &mut select);
    select.and_some("d.event_type =", filter.event_type.as_ref());
    select.and_some("d.replay_of =", filter.replay_of.as_ref());
    select.and_some("d.turn_id >=", filter.turns_from.as_ref());
    if !filter.called.is_empty() {
        let marks = filter.called.iter().map(|it| select.mark(it)).collect::<Vec<_>>().join(", ");
        // One look at an index for each source: SQLite keeps the order of a cross join, and would else
        // read all deliveries.
        select.and_text(&format!(
            "d.id in (select x.id from deliveries x where x.id in ({marks}) \
             union all select k.id from sources c cross join deliveries k \
             where k.source_id = c.id and k.dedupe_key in ({marks}))"
        ));
    }
    if let Some(text) = &filter.has {
        and_has(&mut select, text);
    }
    select.and_some(if filter.oldest_first { "d.id <=" } else { "d.id >=" }, end);
    let n_rows = select.mark(filter.limit as i64 + 1);
    let limit = format!("order by d.id{order} limit {n_rows}");
    let session = filter.session_id.as_ref().map(|session| select.mark(session));
    let (conditions, values) = select.into_parts();
    let ids = match (session, &filter.source_id) {
        // What was taken is found by its index, what waits by its messages; a page of each has the page of
        // both. A cross join, and an outcome that leads to no index: either database would else begin
        // with all that waits of a source.
        (Some(session), _) => format!(
            "select id from (select d.id from deliveries d \
             where d.session_id = {session} and d.outcome <> 'pending'{conditions} {limit}) taken \
             union all select id from (select d.id \
             from waiting i cross join deliveries d where d.id = i.delivery_id \
             and i.session_id = {session} and coalesce(d.outcome, '') = 'pending'{conditions} \
             {limit}) waiting"
        ),
        (None, Some(_)) => ids_of_source(filter.parts(), &conditions, &limit),
        (None, None) => {
            return (format!("select {COLUMNS} where 1 = 1{conditions} {limit}"), values);
        }
    };
    (format!("select {COLUMNS} where d.id in ({ids}) {limit}"), values)
}

/// Short columns first, so that a body is looked through only where they do not have it.
fn and_has<'a>(select: &mut Select<'a>, text: &'a str) {
    let columns = ["d.id", "d.session_id", "d.dedupe_key", "d.event_type", "d.reason"];
    let in_columns = select.has(&columns, text);
    let bytes = select.mark(text.as_bytes().to_vec());
    select.and_text(&format!(
        "({in_columns} or (d.body_bytes <= {SEARCHED_BYTES_MAX} and {{within}}(d.body, {bytes}) > 0))"
    ));
}

/// What the ids are between, and from which source; tells the order.
fn range<'a>(filter: &'a DeliveryFilter, select: &mut Select<'a>) -> &'static str {
    select.and_some("d.source_id =", filter.source_id.as_ref());
    // Ids sort by the time of arrival, and are what the indexes have.
    let (first, last) = filter.received;
    select.and_some("d.id >=", first.map(|first| DeliveryId::floor(first).to_string()));
    let after = |last: Timestamp| last.plus(Duration::from_millis(1));
    select.and_some("d.id <", last.map(|last| DeliveryId::floor(after(last)).to_string()));
    let (before, order) = if filter.oldest_first { ("d.id >", "") } else { ("d.id <", " desc") };
    select.and_some(before, filter.cursor.as_ref());
    order
}

/// What became of those of a session's deliveries, or of one turn's, that are one of two things: their
/// rows are locked in the order in which accepts lock them.
pub(super) fn settle(
    tx: &mut Tx<'_>,
    session: &SessionId,
    turn: Option<&TurnId>,
    from: [Outcome; 2],
    to: Outcome,
) -> Result<()> {
    // What waits for its turn is not in the index that leads to the others.
    let sql = "update deliveries set outcome = $5 where id in (select id from deliveries \
               where session_id = $1 and outcome <> 'pending' and outcome in ($3, $4) \
               and turn_id = coalesce($2, turn_id) order by source_id, dedupe_key {wait})";
    let [from, or] = from.map(Outcome::as_str);
    tx.execute(sql, &params![session, turn, from, or, to.as_str()]).map(drop)
}

fn from_row(mut row: Row) -> Result<Delivery> {
    let (status, outcome) = (row.text(3)?, row.text_or_null(4)?);
    Ok(Delivery {
        id: row.id(0)?,
        source_id: row.id(1)?,
        source_name: row.text(2)?,
        status: Status::parse(&status).ok_or(Error::Bug("an unknown delivery status"))?,
        outcome: outcome
            .map(|it| Outcome::parse(&it).ok_or(Error::Bug("an unknown outcome")))
            .transpose()?,
        reason: row.text_or_null(5)?,
        agent_id: row.id_or_null(6)?,
        session_id: row.id_or_null(7)?,
        turn_id: row.id_or_null(8)?,
        event_type: row.text_or_null(9)?,
        identity: Identity { key: row.text(10)?, field: row.text(11)?, weak: row.flag(12)? },
        request_id: row.id(13)?,
        n_attempts: row.int(14)?,
        received_at: row.time(15)?,
        content_type: row.text_or_null(16)?,
        body_bytes: row.int(17)?,
        headers: row.json(18)?,
        erased_at: row.time_or_null(19)?,
        trace: super::queue::trace(&row.text(20)?)?,
        secret: row.text_or_null(21)?.as_deref().and_then(SecretName::parse),
        possible_replay_of: row.id_or_null(22)?,
        replay_of: row.id_or_null(23)?,
        n_replays: row.int(24)?,
        session_deleted: row.flag(25)?,
    })
}
