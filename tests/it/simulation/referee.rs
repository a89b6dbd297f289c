//! The referee: looks into the database after every commit, with a connection of its own, and knows
//! who made it. What it sees is compared with what it saw before.
//!
//! It shares no SQL with the store, and takes nobody's word: not for the order in which messages were
//! committed, nor for whose lease a session is under.

use std::{
    collections::{BTreeMap, BTreeSet, HashSet},
    path::Path,
};

use rusqlite::{Connection, OpenFlags};

use super::plan::Ask;

/// A session's row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Session {
    pub agent: String,
    pub source: String,
    pub environment: String,
    pub status: String,
    pub archived: bool,
    pub next_at: Option<i64>,
    pub next_seq: i64,
    pub given: i64,
    pub taken: i64,
    pub owner: Option<String>,
    pub lease_until: Option<i64>,
    pub epoch: i64,
    pub turn: Option<String>,
    pub tokens: (i64, i64),
}

impl Session {
    /// From the claim that begins a turn to the commit that ends it.
    fn is_at_work(&self) -> bool {
        self.owner.is_some() || self.turn.is_some()
    }
}

/// What is said of a session itself when it is archived, after who had stopped its turn.
pub const ENDS: [&str; 2] = ["user.interrupt", "session.status_terminated"];

/// Turns at once, and of those that begin within a minute.
type Limits = (Option<i64>, Option<i64>);

/// An entry of a log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    pub seq: i64,
    pub id: String,
    pub kind: String,
    pub body: String,
    pub turn: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Delivery {
    pub source: String,
    pub key: String,
    pub status: String,
    pub outcome: Option<String>,
    pub session: Option<String>,
    pub turn: Option<String>,
    pub n_attempts: i64,
}

#[derive(Debug)]
pub struct Referee {
    connection: Connection,
    pub sessions: BTreeMap<String, Session>,
    pub logs: BTreeMap<String, Vec<Entry>>,
    /// Messages of each session, in the order in which they were committed.
    pub inbox: BTreeMap<String, Vec<String>>,
    pub deliveries: BTreeMap<String, Delivery>,
    /// Calls that wait for somebody, and for what.
    pub asks: BTreeSet<Ask>,
    limits: BTreeMap<String, Limits>,
    /// When turns of each agent and source began.
    begun: BTreeMap<String, Vec<i64>>,
    known: HashSet<String>,
    last_row: i64,
    /// Another number after each commit that changed anything.
    version: i64,
    pub violations: Vec<String>,
    /// What was seen, in few words, since somebody asked.
    pub notes: Vec<String>,
}

impl Referee {
    pub fn open(file: &Path) -> Referee {
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let connection = Connection::open_with_flags(file, flags).expect("the file is there");
        let mut referee = Referee {
            connection,
            sessions: BTreeMap::new(),
            logs: BTreeMap::new(),
            inbox: BTreeMap::new(),
            deliveries: BTreeMap::new(),
            asks: BTreeSet::new(),
            limits: BTreeMap::new(),
            begun: BTreeMap::new(),
            known: HashSet::new(),
            last_row: 0,
            version: 0,
            violations: Vec::new(),
            notes: Vec::new(),
        };
        referee.sessions = referee.read_sessions();
        referee.limits = referee.read_limits();
        referee
    }

    /// Changes something behind everybody's back.
    pub fn script(&self, sql: &str) {
        self.connection.execute_batch(sql).expect("the statements are right");
    }

    pub fn rows(&self, sql: &str) -> Vec<Vec<Option<String>>> {
        let mut statement = self.connection.prepare_cached(sql).expect("the statement is right");
        let n = statement.column_count();
        let rows = statement.query_map([], |row| (0..n).map(|at| row.get(at)).collect());
        rows.expect("no parameters").collect::<Result<_, _>>().expect("texts")
    }

    pub fn blame(&mut self, what: String) {
        self.violations.push(what);
    }

    fn must(&mut self, holds: bool, what: impl FnOnce() -> String) {
        if !holds {
            self.blame(what());
        }
    }

    /// Looks at what the process of this owner has just committed.
    pub fn look(&mut self, owner: &str, now: i64) {
        let version = self.connection.pragma_query_value(None, "data_version", |row| row.get(0));
        let version = version.expect("SQLite counts commits");
        if std::mem::replace(&mut self.version, version) == version {
            return;
        }
        let after = self.read_sessions();
        let before = std::mem::take(&mut self.sessions);
        let entries = self.read_new_entries();
        for (session, entry) in &entries {
            let earlier = before.get(session);
            let leased = earlier.and_then(|row| row.owner.as_deref());
            // A turn may begin with the claim that it is begun under.
            let epoch = earlier.map_or(0, |row| row.epoch);
            let has_claimed = after
                .get(session)
                .is_some_and(|row| row.epoch > epoch && row.owner.as_deref() == Some(owner));
            // Whoever archives a session says so in its log, and nobody has it then.
            let is_archived = after.get(session).is_some_and(|row| row.archived);
            let is_end = ENDS.contains(&&*entry.kind) && is_archived && leased.is_none();
            self.must(leased == Some(owner) || has_claimed || is_end, || {
                format!(
                    "{owner} wrote {} to {session}, of which {leased:?} has the lease",
                    entry.kind
                )
            });
            self.append(session, entry.clone());
        }
        self.look_at_inbox(&after);
        self.look_at_deliveries();
        self.asks = self.read_asks();
        for (id, row) in &after {
            match before.get(id) {
                Some(earlier) => self.compare(id, earlier, row, owner, now),
                None => {
                    let own = row.owner.as_deref().is_none_or(|it| it == owner);
                    self.must(own, || format!("{id} was born with another's lease: {row:?}"));
                }
            }
            self.look_at_row(id, row);
        }
        for id in before.keys() {
            self.must(after.contains_key(id), || format!("{id} is gone"));
        }
        self.look_at_environments(&after);
        self.look_at_limits(&before, &after, now);
        for row in self.rows("select session_id from reservations") {
            let [id] = texts(row);
            let works = after.get(&id).is_some_and(|row| row.turn.is_some());
            self.must(works, || format!("{id} has room reserved and no turn"));
        }
        self.sessions = after;
    }

    fn append(&mut self, session: &str, entry: Entry) {
        // Two answers of one millisecond are in the order of their ids, which are drawn anew each time.
        let is_answer = ["user.tool_confirmation", "user.custom_tool_result", "user.tool_result"];
        let kind = if is_answer.contains(&&*entry.kind) { "an answer" } else { &*entry.kind };
        self.notes.push(format!("{session}.{} {kind}", entry.seq));
        let n = self.logs.get(session).map_or(0, Vec::len) as i64;
        self.must(entry.seq == n + 1, || format!("{session}: {} follows {n}", entry.seq));
        if entry.kind == "user.message" && self.known.insert(entry.id.clone()) {
            self.inbox.entry(session.to_owned()).or_default().push(entry.id.clone());
        }
        let is_bug = entry.body.contains("a bug in this server");
        self.must(!is_bug, || format!("{session}: a turn panicked"));
        self.logs.entry(session.to_owned()).or_default().push(entry);
    }

    fn look_at_inbox(&mut self, sessions: &BTreeMap<String, Session>) {
        let sql = "select session_id, cast(position as text), event_id from \
                   (select session_id, position, event_id from inbox \
                   union all select id, 1, first_event_id from sessions \
                   where first_event_id is not null) order by session_id, position";
        let mut waiting: BTreeMap<String, Vec<i64>> = BTreeMap::new();
        for row in self.rows(sql) {
            let [session, position, event] = texts(row);
            waiting.entry(session.clone()).or_default().push(number(&position));
            if self.known.insert(event.clone()) {
                self.notes.push(format!("{session} waits {position}"));
                self.inbox.entry(session).or_default().push(event);
            }
        }
        for (id, row) in sessions {
            let positions = waiting.remove(id).unwrap_or_default();
            let wanted: Vec<i64> = (row.taken + 1..=row.given).collect();
            self.must(positions == wanted, || {
                format!("{id}: {positions:?} wait, and the row says {wanted:?}")
            });
        }
        self.must(waiting.is_empty(), || format!("messages for no session: {waiting:?}"));
    }

    fn look_at_deliveries(&mut self) {
        let after = self.read_deliveries();
        for id in self.deliveries.keys().cloned().collect::<Vec<_>>() {
            self.must(after.contains_key(&id), || format!("{id} is gone"));
        }
        self.deliveries = after;
    }

    /// What may become of a session in one commit of this owner.
    fn compare(&mut self, id: &str, before: &Session, after: &Session, owner: &str, now: i64) {
        if before == after {
            return;
        }
        let mine = |row: &Session| row.owner.as_deref() == Some(owner);
        let is_free = before.lease_until.is_none_or(|until| until <= now);
        match after.epoch - before.epoch {
            0 => {
                let voided = before.owner.as_deref().is_some_and(|it| node(it) == node(owner));
                let kept = before.owner == after.owner;
                self.must(kept || after.owner.is_none() && voided, || {
                    format!(
                        "{id}: {owner} changed the lease without an epoch: {before:?} {after:?}"
                    )
                });
                let renewed = kept && before.lease_until != after.lease_until;
                self.must(!renewed || mine(before), || {
                    format!("{id}: {owner} moved another's lease")
                });
            }
            1.. => {
                // It may have given the lease back in the same commit, or was turned away.
                self.must(is_free || mine(before), || {
                    format!("{id}: {owner} claimed at {now} what was leased: {before:?}")
                });
                self.must(mine(after) || after.owner.is_none(), || {
                    format!("{id}: {owner} claimed for another: {after:?}")
                });
            }
            _ => self.blame(format!("{id}: the epoch fell: {before:?} {after:?}")),
        }
        let grows = after.given >= before.given && after.taken >= before.taken;
        self.must(grows, || format!("{id}: the inbox went back: {before:?} {after:?}"));
        // Whoever archives a session ends a turn of it that waits for an answer.
        let put_away = after.archived && before.owner.is_none();
        let left = before.turn.is_none() || before.turn == after.turn || mine(before) || put_away;
        self.must(left, || format!("{id}: {owner} ended another's turn: {before:?} {after:?}"));
    }

    fn look_at_row(&mut self, id: &str, row: &Session) {
        let log = self.logs.get(id).map_or(&[][..], Vec::as_slice);
        let n = log.len() as i64;
        let said = log.iter().rev().find_map(|entry| match entry.kind.as_str() {
            "session.status_running" => Some("running"),
            "session.status_idle" => Some("idle"),
            "session.status_rescheduled" => Some("rescheduling"),
            "session.status_terminated" => Some("terminated"),
            _ => None,
        });
        // Made with messages it is running before its log begins.
        let status_fits = said.map_or(row.status != "rescheduling", |said| said == row.status);
        self.must(row.next_seq == n + 1, || format!("{id}: {n} entries and {row:?}"));
        self.must(status_fits, || format!("{id}: the log says {said:?}, the row {row:?}"));
        let wants_work = row.turn.is_some() || row.taken < row.given;
        self.must(!wants_work || row.next_at.is_some(), || format!("{id} is stranded: {row:?}"));
        self.must(!wants_work || !row.archived, || format!("{id} is archived and works: {row:?}"));
    }

    fn look_at_environments(&mut self, sessions: &BTreeMap<String, Session>) {
        for row in self.rows("select id, session_id from environments where exclusive = 1") {
            let [environment, occupant] = <[_; 2]>::try_from(row).expect("two columns");
            let unfinished: BTreeSet<&String> = sessions
                .iter()
                .filter(|(_, row)| {
                    row.turn.is_some() && Some(&row.environment) == environment.as_ref()
                })
                .map(|(id, _)| id)
                .collect();
            let one =
                unfinished.len() <= 1 && unfinished.iter().all(|id| Some(*id) == occupant.as_ref());
            let what = || format!("{unfinished:?} work in one project, which is {occupant:?}'s");
            let what = if one { String::new() } else { what() };
            self.must(one, || what);
        }
    }

    /// Nobody with a limit gets more unfinished turns than it allows, whenever that was, and no more
    /// begin within a minute.
    fn look_at_limits(
        &mut self,
        before: &BTreeMap<String, Session>,
        after: &BTreeMap<String, Session>,
        now: i64,
    ) {
        let limits = self.read_limits();
        let earlier = std::mem::replace(&mut self.limits, limits.clone());
        for (id, row) in after.iter().filter(|(_, row)| row.is_at_work()) {
            if before.get(id).is_none_or(|row| !row.is_at_work()) {
                for owner in [&row.agent, &row.source] {
                    self.begun.entry(owner.clone()).or_default().push(now);
                }
            }
        }
        for (owner, (at_once, per_minute)) in limits {
            let (at_once_earlier, _) = earlier.get(&owner).copied().unwrap_or_default();
            let n = n_at_work(after, &owner);
            let more = n > n_at_work(before, &owner);
            // Both in one commit: either may have come first.
            let most = at_once.zip(at_once_earlier).map_or(i64::MAX, |(one, other)| one.max(other));
            self.must(!more || n <= most, || format!("{owner} has {n} turns at once of {most}"));
            let begun = self.begun.get(&owner).map_or(&[][..], Vec::as_slice);
            let n = begun.iter().filter(|at| **at > now - 60_000).count() as i64;
            let most = per_minute.unwrap_or(i64::MAX);
            self.must(n <= most, || format!("{owner} began {n} turns of {most} in a minute"));
        }
    }

    /// Reads every log from its start: what was written must be there as it was.
    pub fn read_again(&mut self) {
        let mut logs: BTreeMap<String, Vec<Entry>> = BTreeMap::new();
        for (session, entry) in self.read_entries("order by session_id, seq") {
            logs.entry(session).or_default().push(entry);
        }
        let same = logs == self.logs;
        self.must(same, || "a log is not what it was".to_owned());
    }

    fn read_new_entries(&mut self) -> Vec<(String, Entry)> {
        let found = self.read_entries(&format!("where rowid > {} order by rowid", self.last_row));
        if !found.is_empty() {
            let [last] = texts(self.rows("select cast(max(rowid) as text) from events").remove(0));
            self.last_row = number(&last);
        }
        found
    }

    fn read_entries(&self, rest: &str) -> Vec<(String, Entry)> {
        let sql = format!(
            "select session_id, cast(seq as text), id, type, body, turn_id from events {rest}"
        );
        let mut statement = self.connection.prepare(&sql).expect("the statement is right");
        let rows = statement.query_map([], |row| {
            let seq: String = row.get(1)?;
            let entry = Entry {
                seq: number(&seq),
                id: row.get(2)?,
                kind: row.get(3)?,
                body: row.get(4)?,
                turn: row.get(5)?,
            };
            Ok((row.get(0)?, entry))
        });
        rows.expect("no parameters").collect::<Result<_, _>>().expect("entries")
    }

    fn read_sessions(&self) -> BTreeMap<String, Session> {
        let sql = "select id, agent_id, environment_id, status, archived_at is not null, next_at, \
                   next_seq, inbox_given, inbox_taken, lease_owner, lease_until, epoch, turn_id, \
                   input_tokens, output_tokens, source_id from sessions";
        let mut statement = self.connection.prepare_cached(sql).expect("the statement is right");
        let rows = statement.query_map([], |row| {
            let session = Session {
                agent: row.get(1)?,
                environment: row.get(2)?,
                status: row.get(3)?,
                archived: row.get(4)?,
                next_at: row.get(5)?,
                next_seq: row.get(6)?,
                given: row.get(7)?,
                taken: row.get(8)?,
                owner: row.get(9)?,
                lease_until: row.get(10)?,
                epoch: row.get(11)?,
                turn: row.get(12)?,
                tokens: (row.get(13)?, row.get(14)?),
                source: row.get(15)?,
            };
            Ok((row.get(0)?, session))
        });
        rows.expect("no parameters").collect::<Result<_, _>>().expect("sessions")
    }

    fn read_asks(&self) -> BTreeSet<Ask> {
        let sql = "select a.session_id, a.wanted, cast(e.seq as text) from approvals a \
                   join events e on e.session_id = a.session_id and e.id = a.id \
                   where a.status = 'pending' and a.journaled = 0";
        let ask = |row| {
            let [session, wanted, seq] = texts(row);
            Ask { session, seq: number(&seq), wanted }
        };
        self.rows(sql).into_iter().map(ask).collect()
    }

    fn read_limits(&self) -> BTreeMap<String, Limits> {
        let sql = "select owner, at_once_max, per_minute_max from turn_limits";
        let mut statement = self.connection.prepare_cached(sql).expect("the statement is right");
        let rows = statement.query_map([], |row| Ok((row.get(0)?, (row.get(1)?, row.get(2)?))));
        rows.expect("no parameters").collect::<Result<_, _>>().expect("limits")
    }

    fn read_deliveries(&self) -> BTreeMap<String, Delivery> {
        let sql = "select id, source_id, dedupe_key, status, outcome, session_id, turn_id, n_attempts \
                   from deliveries";
        let mut statement = self.connection.prepare_cached(sql).expect("the statement is right");
        let rows = statement.query_map([], |row| {
            let delivery = Delivery {
                source: row.get(1)?,
                key: row.get(2)?,
                status: row.get(3)?,
                outcome: row.get(4)?,
                session: row.get(5)?,
                turn: row.get(6)?,
                n_attempts: row.get(7)?,
            };
            Ok((row.get(0)?, delivery))
        });
        rows.expect("no parameters").collect::<Result<_, _>>().expect("deliveries")
    }
}

/// The node of a lease's owner.
fn node(owner: &str) -> &str {
    owner.split(':').next().expect("a name")
}

/// Turns of an agent or a source that are not finished.
fn n_at_work(sessions: &BTreeMap<String, Session>, owner: &str) -> i64 {
    let at_work = sessions.values().filter(|row| row.is_at_work());
    at_work.filter(|row| row.agent == owner || row.source == owner).count() as i64
}

fn texts<const N: usize>(row: Vec<Option<String>>) -> [String; N] {
    let texts: Option<Vec<String>> = row.into_iter().collect();
    texts.expect("no nulls").try_into().expect("so many columns")
}

fn number(text: &str) -> i64 {
    text.parse().expect("a number")
}
