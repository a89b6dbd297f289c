//! The claim: which of the due sessions a worker gets.
//!
//! They stand in lines: for each agent the sessions that each source made, of which those that still
//! have their first message make one and all others another, and the sessions whose turn was begun and
//! waits to go on. Claims go round the agents and then round an agent's lines, those first that have
//! the fewest at work, so that nobody's backlog keeps the others waiting. A line whose agent or source
//! is full is passed over, at the same price however long it is; what was begun takes no further room
//! and is never full.

use std::{collections::HashMap, time::Duration};

use super::{Beginning, Beside, Claimed, Lease, TurnStart, begin};
use crate::{
    clock::Timestamp,
    domain::{budget::Admission, event::NewEvent},
    id::{AgentId, Id, SessionId},
    store::{
        Reserve, Result, Store, budgets,
        driver::{Lane, Row, Tx, Value, params},
        limits::Rooms,
        occupancy::{self, Wanted},
        sessions::first::sourced,
    },
};

/// What a turn does first, if that costs something and its beginning alone tells that it comes to be.
#[derive(Debug)]
pub struct FirstWork<T> {
    /// What is journaled of it.
    pub events: Vec<NewEvent>,
    pub reserve: Reserve,
    /// For whoever goes on with it.
    pub work: T,
}

/// A turn that was begun or resumed with the claim of its session.
#[derive(Debug)]
pub struct Start<T> {
    pub turn: TurnStart,
    /// What is begun with it, and the milliseconds that the budgets leave for that.
    pub first: Option<(T, Option<i64>)>,
}

impl<T> FirstWork<T> {
    /// Nothing is written where the budgets do not allow it as things stand: the turn asks them again,
    /// waits, or says what came of it.
    fn begin(
        self,
        tx: &mut Tx<'_>,
        lease: &Lease,
        at: Timestamp,
    ) -> Result<Option<(T, Option<i64>)>> {
        let FirstWork { events, reserve, work } = self;
        let begun = budgets::begin(tx, lease, &events, Beside::default(), &reserve, at)?;
        Ok((begun.admission == Admission::Fine).then_some((work, begun.ms_left)))
    }
}

impl Store {
    /// Claims up to `limit` due sessions, going round the agents: the first served is the one after
    /// `after`. Sessions of paused agents stay where they are, and so do those whose environment is
    /// another one's for now, and those whose agent or source has as many turns as it may. Also tells
    /// whether it is worth another look at once.
    pub async fn claim(
        &self,
        owner: String,
        lease: Duration,
        limit: usize,
        after: Option<AgentId>,
    ) -> Result<(Vec<Claimed>, Left)> {
        self.driver.step(move |tx| claim(tx, &owner, lease, limit, after.as_ref())).await
    }

    /// As [`Store::claim`], and where that leads to a single session, its turn begins with it, as by
    /// [`Store::begin_turn`], and so does what `decide` says that it does first, as by
    /// [`Store::begin_work`]: where little is due, the way to the database and back is most of what a
    /// message waits for. Of many, everybody's commits would wait for all the beginnings.
    pub async fn claim_and_begin<T: Send + 'static>(
        &self,
        owner: String,
        lease: Duration,
        limit: usize,
        after: Option<AgentId>,
        beginning: Beginning,
        decide: impl FnOnce(&Lease, &TurnStart) -> Option<FirstWork<T>> + Send + 'static,
    ) -> Result<(Vec<Claimed>, Left, Option<Box<Start<T>>>)> {
        let at = self.clock.now();
        let (owned, preceding) = (owner.clone(), after.clone());
        let both = self.driver.transaction(Lane::Work, move |tx| {
            let (claimed, left) = claim(tx, &owned, lease, limit, preceding.as_ref())?;
            let [only] = &claimed[..] else { return Ok((claimed, left, None)) };
            let turn = begin(tx, &only.lease, beginning, at)?;
            let first = decide(&only.lease, &turn);
            let first = first.map(|first| first.begin(tx, &only.lease, at)).transpose()?;
            let start = Box::new(Start { turn, first: first.flatten() });
            Ok((claimed, left, Some(start)))
        });
        match both.await {
            // A session whose turn cannot begin must not keep the others from being claimed.
            Err(error) => {
                tracing::debug!(error = %error.detail(), "no turn began with its claim");
                let (claimed, left) = self.claim(owner, lease, limit, after).await?;
                Ok((claimed, left, None))
            }
            done => done,
        }
    }

    /// How long until the next session can be claimed, if time is all that it takes: how long a worker
    /// may sleep. Where somebody has to leave first, whoever leaves rings.
    pub async fn next_due(&self) -> Result<Option<Duration>> {
        self.driver
            .read(|tx| {
                let now = tx.now()?;
                let mut rooms = Rooms::look(tx, now)?;
                let mut next: Option<Timestamp> = None;
                for line in due_lines(tx, Timestamp(i64::MAX))? {
                    let open = match line.is_begun() {
                        true => Some(now),
                        false => rooms.open_from(tx, line.owners())?,
                    };
                    let at = open.map(|open| open.max(line.first_at));
                    next = [next, at].into_iter().flatten().min();
                }
                Ok(next.map(|next| next.since(now)))
            })
            .await
    }
}

fn claim(
    tx: &mut Tx<'_>,
    owner: &str,
    lease: Duration,
    limit: usize,
    after: Option<&AgentId>,
) -> Result<(Vec<Claimed>, Left)> {
    let now = tx.now()?;
    let rooms = Rooms::hold(tx, now)?;
    let agents = by_agent(due_lines(tx, now)?, after);
    let until = now.plus(lease);
    let (picked, fresh) = (Vec::new(), HashMap::new());
    let mut claim = Claim { tx, owner, now, until, rooms, picked, fresh };
    // First a fair share for each agent, then whatever is left for whoever has more.
    let n = go_round(agents, limit, |lines, n| claim.of_agent(lines, n))?;
    let claimed = claim.close()?;
    // Those that have to wait for another one took the places of some that have not.
    let is_all = n < limit && n == claimed.len();
    Ok((claimed, if is_all { Left::Nothing } else { Left::Perhaps }))
}

/// What a claim leaves behind of what could be claimed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Left {
    Nothing,
    Perhaps,
}

/// Sessions of one agent that want work, oldest first.
struct Line {
    agent: AgentId,
    which: Which,
    /// Who made them; empty where no source did.
    source: String,
    first_at: Timestamp,
}

/// By the index that has them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Which {
    /// The ones that were begun, by whatever source: nobody works on them, or not any more when their
    /// time has come.
    Begun,
    /// Those that still have their first message: due since they were made, in that order.
    First,
    Other,
}

impl Line {
    fn is_begun(&self) -> bool {
        self.which == Which::Begun
    }

    fn owners(&self) -> [&str; 2] {
        [self.agent.as_str(), &self.source]
    }
}

/// Lines whose first session is due by then: those of one agent together, what was begun before all
/// else, then those with the fewest at work, and then whose first has waited longest. One look into an
/// index for each, however long it is.
fn due_lines(tx: &mut Tx<'_>, by: Timestamp) -> Result<Vec<Line>> {
    let rows = tx.query(DUE_LINES, &params![by])?;
    let lines = rows.into_iter().map(|mut row| {
        let which = match row.int(1)? {
            BEGUN => Which::Begun,
            FIRST => Which::First,
            _ => Which::Other,
        };
        Ok(Line { agent: row.id(0)?, which, source: row.text(2)?, first_at: row.time(3)? })
    });
    lines.collect()
}

const BEGUN: i64 = 0;
const FIRST: i64 = 1;

const DUE_LINES: &str = concat!(
    "with recursive ",
    sourced!("firsts", "select id from agents where paused = 0", "s.is_first = 1"),
    ", ",
    sourced!(
        "others",
        "select id from agents where paused = 0",
        "s.next_at is not null and s.is_first = 0"
    ),
    ", made (agent_id, which, source_id, first_at) as ( \
    select l.agent_id, 1, l.source_id, (select s.next_at from sessions s \
        where s.agent_id = l.agent_id and s.source_id = l.source_id and s.is_first = 1 \
        and s.lease_owner is null order by s.id limit 1) \
    from firsts l where l.source_id is not null \
    union all \
    select l.agent_id, 2, l.source_id, (select min(s.next_at) from sessions s \
        where s.agent_id = l.agent_id and s.source_id = l.source_id \
        and s.next_at is not null and s.is_first = 0) \
    from others l where l.source_id is not null \
    ), lines (agent_id, which, source_id, n_at_work, first_at) as materialized ( \
    select a.id, 0, '', 0, (select min(s.next_at) from sessions s \
        where s.agent_id = a.id and (s.turn_id is not null or s.lease_owner is not null)) \
    from agents a where a.paused = 0 \
    union all \
    select l.agent_id, l.which, l.source_id, (select count(*) from sessions s \
        where s.source_id = l.source_id and s.agent_id = l.agent_id \
        and (s.turn_id is not null or s.lease_owner is not null)), l.first_at from made l \
    ) select agent_id, which, source_id, first_at from lines where first_at <= $1 \
    order by agent_id, case when which = 0 then 0 else 1 end, n_at_work, first_at, source_id, which"
);

/// The lines of each agent, beginning after the one that was served last.
fn by_agent(lines: Vec<Line>, after: Option<&AgentId>) -> Vec<Vec<Line>> {
    let mut agents: Vec<Vec<Line>> = Vec::new();
    for line in lines {
        match agents.last_mut() {
            Some(own) if own[0].agent == line.agent => own.push(line),
            _ => agents.push(vec![line]),
        }
    }
    let first = after.map_or(0, |after| agents.partition_point(|lines| lines[0].agent <= *after));
    agents.rotate_left(first);
    agents
}

/// Serves up to `n`: first a fair share for each, then whatever is left for whoever had more.
fn go_round<T>(
    mut all: Vec<T>,
    n: usize,
    mut serve: impl FnMut(&T, usize) -> Result<usize>,
) -> Result<usize> {
    let (mut served, share) = (0, n.div_ceil(all.len().max(1)));
    for share in [share, n] {
        let mut with_more = Vec::new();
        for one in all {
            let wanted = share.min(n - served);
            if wanted == 0 {
                return Ok(served);
            }
            let found = serve(&one, wanted)?;
            served += found;
            if found == wanted {
                with_more.push(one);
            }
        }
        all = with_more;
    }
    Ok(served)
}

macro_rules! pick {
    ($which:literal) => {
        concat!(
            "with picked as materialized (select id from sessions where agent_id = $1 \
             and next_at <= $2 and ",
            $which,
            " limit $3 {lock}) \
             update sessions set lease_owner = $4, lease_until = $5, next_at = $5, \
             epoch = epoch + 1 from picked where sessions.id = picked.id \
             returning sessions.id, sessions.epoch, sessions.turn_id, sessions.parked_at, \
             (select e.id from environments e \
             where e.id = sessions.environment_id and exclusive = 1)"
        )
    };
}

const PICK_BEGUN: &str = pick!(
    "(turn_id is not null or lease_owner is not null) and (lease_until is null or lease_until <= $2) \
     order by next_at"
);

const PICK_FIRST: &str =
    pick!("source_id = $6 and is_first = 1 and lease_owner is null order by id");

const PICK_OTHER: &str = pick!(
    "source_id = $6 and is_first = 0 and turn_id is null and lease_owner is null \
     order by next_at"
);

/// A claim that is being made.
struct Claim<'a, 't> {
    tx: &'a mut Tx<'t>,
    owner: &'a str,
    now: Timestamp,
    until: Timestamp,
    rooms: Rooms,
    picked: Vec<(Claimed, Option<Wanted>)>,
    /// Who made the sessions whose turn begins with this.
    fresh: HashMap<SessionId, String>,
}

impl Claim<'_, '_> {
    fn of_agent(&mut self, lines: &[Line], n: usize) -> Result<usize> {
        let (begun, fresh): (Vec<&Line>, Vec<&Line>) = lines.iter().partition(|it| it.is_begun());
        let mut found = 0;
        for line in begun {
            found += self.of_line(line, n)?;
        }
        // What the agent may still begin is shared among its lines.
        let room = self.rooms.left(self.tx, [lines[0].agent.as_str(), ""])?;
        let n = room.min(n - found);
        // By source, whether it has one line or two.
        let mut sources: Vec<Vec<&Line>> = Vec::new();
        for line in fresh {
            match sources.iter_mut().find(|lines| lines[0].source == line.source) {
                Some(lines) => lines.push(line),
                None => sources.push(vec![line]),
            }
        }
        let of_source =
            |lines: &Vec<&Line>, n| go_round(lines.clone(), n, |line, n| self.of_line(line, n));
        Ok(found + go_round(sources, n, of_source)?)
    }

    fn of_line(&mut self, line: &Line, n: usize) -> Result<usize> {
        if line.is_begun() {
            return self.pick(line, n);
        }
        let n = n.min(self.rooms.left(self.tx, line.owners())?);
        let found = if n == 0 { 0 } else { self.pick(line, n)? };
        self.rooms.take(line.owners(), found);
        Ok(found)
    }

    fn pick(&mut self, line: &Line, n: usize) -> Result<usize> {
        let sql = match line.which {
            Which::Begun => PICK_BEGUN,
            Which::First => PICK_FIRST,
            Which::Other => PICK_OTHER,
        };
        let mut values: Vec<Value> =
            params![&line.agent, self.now, n as i64, self.owner, self.until].into();
        if !line.is_begun() {
            values.push(line.source.as_str().into());
        }
        let rows = self.tx.query(sql, &values)?;
        let found = rows.len();
        for row in rows {
            let (claimed, wanted) = picked(row, &line.agent, self.owner)?;
            if !line.is_begun() {
                self.fresh.insert(claimed.lease.session_id.clone(), line.source.clone());
            }
            self.picked.push((claimed, wanted));
        }
        Ok(found)
    }

    /// Those that may begin, once the places where they work have been looked at.
    fn close(self) -> Result<Vec<Claimed>> {
        let admitted = occupancy::admit(self.tx, self.picked, self.now)?;
        let begun = admitted.iter().filter_map(|claimed| {
            let source = self.fresh.get(&claimed.lease.session_id)?;
            Some([claimed.agent_id.as_str(), source])
        });
        self.rooms.begin(self.tx, begun.flatten())?;
        Ok(admitted)
    }
}

fn picked(mut row: Row, agent: &AgentId, owner: &str) -> Result<(Claimed, Option<Wanted>)> {
    let lease = Lease { session_id: row.id(0)?, owner: owner.to_owned(), epoch: row.int(1)? };
    let (unfinished, parked_at) = (row.id_or_null(2)?, row.time_or_null(3)?);
    let wanted = row.id_or_null(4)?.map(|environment| Wanted { environment, parked_at });
    Ok((Claimed { lease, agent_id: agent.clone(), unfinished }, wanted))
}
