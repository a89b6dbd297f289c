//! Sessions: made, looked at, listed, and given messages by people and programs.

mod change;
pub(super) mod first;
mod gone;

use std::{
    collections::{HashMap, HashSet},
    fmt,
    str::FromStr,
};

use super::{
    Error, Result, Said, Store,
    accept::take_position,
    budgets,
    driver::{Lane, Row, Tx, Value, params},
    environments, outcomes, resources,
    select::{Select, padded},
};
use crate::{
    clock::Timestamp,
    domain::{
        Metadata,
        budget::{Budget, Budgets},
        cost::{Cost, MicroUsd},
        event::{Event, EventBody, Usage},
        resource::FileMount,
        session::{Session, Status},
        source::{Pace, WhenBusy},
    },
    id::{AgentId, DeliveryId, DeploymentId, EnvironmentId, EventId, Id, SessionId, SourceId},
};

#[derive(Clone, Debug)]
pub struct NewSession {
    pub id: SessionId,
    pub agent_id: AgentId,
    pub agent_version: i64,
    /// The whole spec that this session runs with, when it is not the agent's version as it is.
    pub overrides: Option<String>,
    pub environment_id: EnvironmentId,
    pub deployment_id: Option<DeploymentId>,
    pub title: Option<String>,
    pub metadata: Metadata,
    pub messages: Vec<NewMessage>,
    /// What is mounted into it.
    pub resources: Vec<FileMount>,
    /// What it may use.
    pub budget: Budget,
    /// Vaults whose credentials it may use, the first one first.
    pub vault_ids: Vec<String>,
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
    pub deployment_id: Option<DeploymentId>,
    pub statuses: Vec<Status>,
    pub source_id: Option<SourceId>,
    /// Text that the title has: as it is, or in letters of either case as far as the database knows
    /// their cases, which is ASCII on SQLite. A page is then what some thousands of
    /// sessions have of it, and may be short.
    pub title_has: Option<String>,
    pub include_archived: bool,
    pub created_after: Option<Timestamp>,
    pub created_before: Option<Timestamp>,
    pub oldest_first: bool,
    pub cursor: Option<SessionPlace>,
    pub limit: usize,
}

/// Where a page of sessions begins or ends, in the order of the list: the sessions after one (its id
/// alone), or with a word before it from one on, before one, or up to one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SessionPlace {
    id: SessionId,
    is_backward: bool,
    /// Whether the session itself belongs to the page.
    is_inclusive: bool,
}

const PLACES: [(&str, bool, bool); 3] =
    [("from:", false, true), ("before:", true, false), ("upto:", true, true)];

impl SessionPlace {
    fn other_way(&self, is_backward: bool) -> SessionPlace {
        let is_inclusive = !self.is_inclusive;
        SessionPlace { id: self.id.clone(), is_backward, is_inclusive }
    }
}

impl From<SessionId> for SessionPlace {
    /// The sessions after this one.
    fn from(id: SessionId) -> SessionPlace {
        SessionPlace { id, is_backward: false, is_inclusive: false }
    }
}

impl fmt::Display for SessionPlace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let way = (self.is_backward, self.is_inclusive);
        let word = PLACES.iter().find(|(_, backward, inclusive)| way == (*backward, *inclusive));
        write!(f, "{}{}", word.map_or("", |(word, ..)| word), self.id)
    }
}

impl FromStr for SessionPlace {
    type Err = crate::id::Invalid;

    fn from_str(text: &str) -> std::result::Result<SessionPlace, Self::Err> {
        for (word, is_backward, is_inclusive) in PLACES {
            if let Some(id) = text.strip_prefix(word) {
                return Ok(SessionPlace { id: id.parse()?, is_backward, is_inclusive });
            }
        }
        text.parse().map(|id: SessionId| id.into())
    }
}

/// A page of sessions, and where those before and after it are.
#[derive(Clone, Debug)]
pub struct SessionPage {
    pub data: Vec<Session>,
    pub next: Option<String>,
    pub prev: Option<String>,
}

const COLUMNS: &str = "s.id, s.agent_id, s.agent_version, coalesce(s.overrides, v.spec), \
    s.environment_id, nullif(s.source_id, ''), r.name, s.title, s.metadata, s.status, s.created_at, \
    s.updated_at, s.archived_at, s.inbox_given - s.inbox_taken, s.next_seq, s.turn_id, \
    s.input_tokens, s.output_tokens, s.cache_creation_tokens, s.cache_read_tokens, s.active_ms, \
    s.cost_micros, s.unpriced_requests, \
    (select b.limits from budgets b where b.owner = s.id), s.deployment_id, s.vault_ids, \
    s.inbox_taken \
    from sessions s \
    join agent_versions v on v.agent_id = s.agent_id and v.version = s.agent_version \
    left join sources r on r.id = s.source_id";

impl Store {
    /// Makes a session; with messages it is running from the start, and due. [`Error::Invalid`] when
    /// its environment is archived, [`Error::NotFound`] when it is gone.
    pub async fn create_session(&self, session: NewSession) -> Result<Session> {
        let at = self.clock.now();
        self.driver
            .transaction(Lane::Work, move |tx| {
                environments::hold(tx, &session.environment_id)?;
                insert(tx, &session, at)?;
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
        let said = messages.into_iter().map(Said::Message).collect();
        self.say(session, said, waiting_max, String::new()).await
    }

    /// Those of at most some hundreds that there are.
    pub async fn known_sessions(&self, ids: Vec<SessionId>) -> Result<HashSet<SessionId>> {
        if ids.is_empty() {
            return Ok(HashSet::new());
        }
        self.driver
            .read(move |tx| {
                let ids: Vec<Value> = ids.iter().map(Value::from).collect();
                let marks = super::select::marks(ids.len());
                let sql = format!("select id from sessions where id in ({marks})");
                tx.query(&sql, &ids)?.into_iter().map(|mut row| row.id(0)).collect()
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
                        "select id from (select id from (select id from deliveries \
                         where session_id = $1 and outcome <> 'pending' \
                         order by id desc limit 1) taken \
                         union all select max(delivery_id) from waiting where session_id = $1) newest \
                         where id is not null order by id desc limit 1",
                        &params![&session],
                    )?,
                };
                row.ok_or(Error::NotFound)?.id(0)
            })
            .await
    }

    pub async fn sessions(&self, filter: SessionFilter) -> Result<SessionPage> {
        self.driver
            .read(move |tx| {
                let end = match filter.title_has.is_some() || filter.source_id.is_some() {
                    true => end_of_look(tx, &filter)?,
                    false => None,
                };
                let (found, has_more) = list(tx, &filter, end.as_ref())?;
                let mut page = page(&filter, found, has_more);
                page.next = page.next.or(end.map(|id| id.to_string()));
                Ok(page)
            })
            .await
    }

    /// How many sessions of each source want work; sources without any are not among the answers.
    pub async fn waiting_sessions(&self) -> Result<HashMap<SourceId, u64>> {
        self.driver
            .read(move |tx| {
                // By agent too, which is the order of the indexes.
                let sql = "select source_id, count(*) from sessions where is_first = 1 \
                           group by agent_id, source_id \
                           union all \
                           select source_id, count(*) from sessions where next_at is not null \
                           and is_first = 0 and source_id <> '' \
                           group by agent_id, source_id";
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

/// Of the sessions found in the direction in which they were looked for.
fn page(filter: &SessionFilter, mut found: Vec<Session>, has_more: bool) -> SessionPage {
    let cursor = filter.cursor.as_ref();
    let is_backward = cursor.is_some_and(|cursor| cursor.is_backward);
    if is_backward {
        found.reverse();
    }
    let (first, last) = (found.first(), found.last());
    // Beyond the place that the page was asked for by, there was something.
    let turned = |is_backward| cursor.map(|cursor| cursor.other_way(is_backward));
    let before = |session: &Session| SessionPlace {
        id: session.id.clone(),
        is_backward: true,
        is_inclusive: false,
    };
    let after = |session: &Session| session.id.clone().into();
    let (prev, next) = if is_backward {
        (first.filter(|_| has_more).map(before), last.map(after).or_else(|| turned(false)))
    } else {
        let prev = cursor.and_then(|_| first.map(before).or_else(|| turned(true)));
        (prev, last.filter(|_| has_more).map(after))
    };
    let text = |place: Option<SessionPlace>| place.map(|place| place.to_string());
    SessionPage { data: found, next: text(next), prev: text(prev) }
}

/// Sessions that are looked at for one page where no index leads to what is wanted.
const LOOK_MAX: usize = 5_000;

/// Ids of sessions that meet the conditions, no more than so many. An agent's are in several indexes: one
/// for those that still have their first message, by their source, and one for all others. A session that
/// is taken up meanwhile goes from one of the former to the latter, so that is looked at last.
fn ids(
    tx: &mut Tx<'_>,
    filter: &SessionFilter,
    conditions: Select<'_>,
    is_ascending: bool,
    n: usize,
) -> Result<Vec<SessionId>> {
    let parts = match (&filter.agent_id, &filter.source_id) {
        (None, _) => Vec::new(),
        (Some(_), Some(source)) => vec![source.to_string()],
        (Some(agent), None) => first::sources(tx, agent)?,
    };
    let (conditions, given) = conditions.into_parts();
    let (direction, before) = if is_ascending { ("asc", "<") } else { ("desc", ">") };
    let mut found: Vec<SessionId> = Vec::new();
    for source in parts.iter().map(Some).chain([None]) {
        let mut select = Select::new(
            format!("select s.id from sessions s where 1 = 1{conditions}"),
            given.clone(),
        );
        match source {
            Some(source) => {
                select.and_text("s.is_first = 1");
                select.and("s.source_id =", source.as_str());
            }
            None if filter.agent_id.is_some() => select.and_text("s.is_first = 0"),
            None => {}
        }
        // What comes after all that is wanted is not looked at.
        let last = found.get(n - 1).cloned();
        select.and_some(&format!("s.id {before}"), last.as_ref());
        let (sql, values) = select.page(&format!("s.id {direction}"), n - 1);
        for mut row in tx.query(&sql, &values)? {
            found.push(row.id(0)?);
        }
        found.sort();
        found.dedup();
        if !is_ascending {
            found.reverse();
        }
        found.truncate(n);
    }
    Ok(found)
}

/// The last session that is looked at, if there are more behind it. Such lists are newest first.
fn end_of_look(tx: &mut Tx<'_>, filter: &SessionFilter) -> Result<Option<SessionId>> {
    let mut select = Select::new("", []);
    select.and_some("s.agent_id =", filter.agent_id.as_ref());
    select.and_some("s.id <", filter.cursor.as_ref().map(|cursor| &cursor.id));
    let everywhere = SessionFilter { source_id: None, ..filter.clone() };
    Ok(ids(tx, &everywhere, select, false, LOOK_MAX)?.into_iter().nth(LOOK_MAX - 1))
}

/// A page of sessions, and whether there are more.
fn list(
    tx: &mut Tx<'_>,
    filter: &SessionFilter,
    end: Option<&SessionId>,
) -> Result<(Vec<Session>, bool)> {
    let mut select = Select::new("", []);
    select.and_some("s.id >=", end);
    select.and_some("s.source_id =", filter.source_id.as_ref());
    if let Some(text) = &filter.title_has {
        let has = select.has(&["s.title"], text);
        select.and_text(&has);
    }
    select.and_some("s.agent_id =", filter.agent_id.as_ref());
    select.and_some("s.agent_version =", filter.agent_version);
    select.and_some("s.deployment_id =", filter.deployment_id.as_ref());
    select.and_some("s.created_at >=", filter.created_after);
    select.and_some("s.created_at <=", filter.created_before);
    let is_backward = filter.cursor.as_ref().is_some_and(|cursor| cursor.is_backward);
    let is_ascending = filter.oldest_first != is_backward;
    if let Some(cursor) = &filter.cursor {
        let mark = match (is_ascending, cursor.is_inclusive) {
            (true, false) => "s.id >",
            (true, true) => "s.id >=",
            (false, false) => "s.id <",
            (false, true) => "s.id <=",
        };
        select.and(mark, &cursor.id);
    }
    if !filter.include_archived {
        select.and_text("s.archived_at is null");
    }
    if !filter.statuses.is_empty() {
        // A closed list of constants in one order: nothing from outside becomes part of the text.
        let words: Vec<String> = Status::ALL
            .iter()
            .filter(|status| filter.statuses.contains(status))
            .map(|status| format!("'{}'", status.as_str()))
            .collect();
        select.and_text(&format!("s.status in ({})", words.join(", ")));
    }
    let mut ids = ids(tx, filter, select, is_ascending, filter.limit.saturating_add(1))?;
    let has_more = ids.len() > filter.limit;
    ids.truncate(filter.limit);
    if ids.is_empty() {
        return Ok((Vec::new(), has_more));
    }
    let (marks, values) = padded(&ids);
    let direction = if is_ascending { "asc" } else { "desc" };
    let sql = format!("select {COLUMNS} where s.id in ({marks}) order by s.id {direction}");
    let found = tx.query(&sql, &values)?.into_iter().map(from_row).collect::<Result<_>>()?;
    Ok((whole(tx, found)?, has_more))
}

/// Makes a session; with messages it is running from the start, and due.
pub(super) fn insert(tx: &mut Tx<'_>, session: &NewSession, at: Timestamp) -> Result<()> {
    let status = if session.messages.is_empty() { "idle" } else { "running" };
    let vault_ids = Some(&session.vault_ids).filter(|ids| !ids.is_empty());
    tx.execute(
        "insert into sessions (id, agent_id, agent_version, overrides, environment_id, title, \
         metadata, status, created_at, updated_at, deployment_id, vault_ids) \
         values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $9, $10, $11)",
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
            session.deployment_id.as_ref(),
            vault_ids.map(super::to_json),
        ],
    )?;
    let limits = Budgets { session: session.budget, ..Budgets::default() };
    budgets::keep(tx, session.id.as_str(), &limits)?;
    resources::mount_all(tx, &session.id, &session.resources, at)?;
    add_messages(tx, &session.id, &session.messages, ("initial_events", 0), at)
}

/// `place` is what the list of them is called where they come from, and the place of the first.
pub(super) fn add_messages(
    tx: &mut Tx<'_>,
    session: &SessionId,
    messages: &[NewMessage],
    (list, first): (&str, usize),
    at: Timestamp,
) -> Result<()> {
    let now = tx.now()?;
    // Whoever says something about work that is graded says it to that work.
    let when_busy = match outcomes::is_under_way(tx, session)? {
        true => WhenBusy::Steer,
        false => WhenBusy::default(),
    };
    let pace = Pace { when_busy, ..Pace::default() };
    let mut rows = Vec::with_capacity(messages.len());
    for (n, message) in messages.iter().enumerate() {
        let kept = outcomes::define(tx, session, message, at).map_err(|error| match error {
            Error::Invalid(problem) => {
                Error::Invalid(problem.within(&format!("{list}[{}]", first + n)))
            }
            error => error,
        })?;
        let position =
            take_position(tx, session, pace, now, at, i64::MAX)?.ok_or(Error::NotFound)?;
        let (body, private) = (message.body.to_text(), kept.unwrap_or(message.private.clone()));
        rows.push(params![session, position, &message.event_id, body, private, at].into());
    }
    tx.insert(
        "insert into inbox (session_id, position, event_id, body, private, received_at) \
         {rows:tittti}",
        &rows,
    )?;
    Ok(())
}

/// With all that is shown of it.
fn read(tx: &mut Tx<'_>, id: &SessionId) -> Result<Session> {
    let session = row(tx, id)?;
    whole(tx, vec![session])?.pop().ok_or(Error::NotFound)
}

/// Without its resources and outcomes.
pub(super) fn row(tx: &mut Tx<'_>, id: &SessionId) -> Result<Session> {
    let row = tx.first(&format!("select {COLUMNS} where s.id = $1"), &params![id])?;
    row.ok_or(Error::NotFound).and_then(from_row)
}

fn whole(tx: &mut Tx<'_>, mut sessions: Vec<Session>) -> Result<Vec<Session>> {
    let mut resources = resources::of(tx, &sessions)?;
    let mut outcomes = outcomes::of(tx, &sessions)?;
    for session in &mut sessions {
        session.resources = resources.remove(&session.id).unwrap_or_default();
        session.outcomes = outcomes.remove(&session.id).unwrap_or_default();
    }
    Ok(sessions)
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
        budget: row
            .json_or_null(23)?
            .map(serde_json::from_value::<Budgets>)
            .transpose()
            .map_err(Error::corrupt)?
            .unwrap_or_default()
            .session,
        deployment_id: row.id_or_null(24)?,
        resources: Vec::new(),
        outcomes: Vec::new(),
        vault_ids: row
            .json_or_null(25)?
            .map(serde_json::from_value)
            .transpose()
            .map_err(Error::corrupt)?
            .unwrap_or_default(),
        has_begun: row.int(26)? > 0,
    })
}
