//! A source's deliveries in the order in which they came, in slices, for whoever looks at all of
//! them: what was decided, and what it was decided about.

use bytes::Bytes;

use super::{
    Error, Result, Store,
    deliveries::{EITHER, ids_of_source},
    driver::{Row, params},
};
use crate::{
    clock::Timestamp,
    domain::delivery::Status,
    id::{AgentId, DeliveryId, SessionId, SourceId, WebhookRequestId},
};

/// A delivery as it is stored.
#[derive(Clone, Debug)]
pub struct Kept {
    pub id: DeliveryId,
    pub status: Status,
    pub reason: Option<String>,
    pub agent_id: Option<AgentId>,
    pub session_id: Option<SessionId>,
    pub event_type: Option<String>,
    pub request_id: WebhookRequestId,
    pub received_at: Timestamp,
    pub content_type: Option<String>,
    /// Redacted, as JSON.
    pub headers: String,
    pub body: KeptBody,
}

/// One delivery as it is stored, for whoever repeats it.
#[derive(Clone, Debug)]
pub struct Recorded {
    pub kept: Kept,
    pub source_id: SourceId,
    /// The sender's delivery, where this one is a replay itself.
    pub replay_of: Option<DeliveryId>,
    pub is_erased: bool,
}

#[derive(Clone, Debug)]
pub enum KeptBody {
    Inline(Bytes),
    /// Read on its own: [`Store::delivery_body`].
    Large,
    /// Erased, or past its days.
    Gone,
}

const COLUMNS: &str = "id, status, reason, agent_id, session_id, event_type, request_id, \
    received_at, content_type, headers, body, n_chunks";

/// Deliveries of one slice: with the largest bodies that a row holds, some 25 MB.
const SLICE_MAX: i64 = 100;

/// What a source was sent between two ids.
const OWN: &str = " and d.source_id = $1 and d.id > $2 and d.id < $3 and d.replay_of is null";

impl Store {
    /// Deliveries of a source after this one, the oldest first; fewer than a slice at the end.
    /// Replays are left out: no sender sent them.
    pub async fn slice(
        &self,
        source: &SourceId,
        after: DeliveryId,
        before: DeliveryId,
    ) -> Result<Vec<Kept>> {
        let source = source.clone();
        self.driver
            .read(move |tx| {
                let ids = ids_of_source(EITHER, OWN, "order by d.id limit $4");
                let sql = format!(
                    "select {COLUMNS} from deliveries where id in ({ids}) order by id limit $4"
                );
                let mut rows = tx.query(&sql, &params![&source, &after, &before, SLICE_MAX])?;
                rows.iter_mut().map(kept).collect()
            })
            .await
    }

    /// One delivery with what it was made of.
    pub async fn recorded(&self, id: &DeliveryId) -> Result<Recorded> {
        let id = id.clone();
        self.driver
            .read(move |tx| {
                let sql = format!(
                    "select {COLUMNS}, source_id, replay_of, erased_at from deliveries where id = $1"
                );
                let mut row = tx.first(&sql, &params![&id])?.ok_or(Error::NotFound)?;
                Ok(Recorded {
                    source_id: row.id(12)?,
                    replay_of: row.id_or_null(13)?,
                    is_erased: row.time_or_null(14)?.is_some(),
                    kept: kept(&mut row)?,
                })
            })
            .await
    }

    /// How many of them lie between two, counted no further than `n_max`.
    pub async fn count_deliveries(
        &self,
        source: &SourceId,
        after: DeliveryId,
        before: DeliveryId,
        n_max: i64,
    ) -> Result<i64> {
        let source = source.clone();
        self.driver
            .read(move |tx| {
                let ids = ids_of_source(EITHER, OWN, "limit $4");
                let sql =
                    format!("select count(*) from (select id from ({ids}) ids limit $4) found");
                let row = tx.first(&sql, &params![&source, &after, &before, n_max])?;
                row.ok_or(Error::Bug("a count without a row"))?.int(0)
            })
            .await
    }
}

fn kept(row: &mut Row) -> Result<Kept> {
    let status = Status::parse(&row.text(1)?);
    Ok(Kept {
        id: row.id(0)?,
        status: status.ok_or(Error::Bug("an unknown delivery status"))?,
        reason: row.text_or_null(2)?,
        agent_id: row.id_or_null(3)?,
        session_id: row.id_or_null(4)?,
        event_type: row.text_or_null(5)?,
        request_id: row.id(6)?,
        received_at: row.time(7)?,
        content_type: row.text_or_null(8)?,
        headers: row.text(9)?,
        body: match (row.bytes_or_null(10)?, row.int(11)?) {
            (Some(bytes), _) => KeptBody::Inline(bytes),
            (None, 0) => KeptBody::Gone,
            (None, _) => KeptBody::Large,
        },
    })
}

/// Whether there may be more behind a slice.
pub fn is_whole_slice(n: usize) -> bool {
    n as i64 == SLICE_MAX
}
