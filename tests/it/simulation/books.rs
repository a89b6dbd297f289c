//! The end of a world: what was promised is compared with what is in the database.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    path::PathBuf,
};

use bellpull::domain::source::EVERYBODY;
use serde_json::Value;

use super::{
    model::{MARK, marks_in},
    referee::{ENDS, Entry, Referee, Session},
    senders::Said,
    setup,
    world::World,
};

pub fn balance(world: &World) {
    let mut watch = world.watch.lock().unwrap();
    let (referee, calls) = (&watch.referee, &watch.calls);
    let mut books = Books { referee, calls, problems: Vec::new() };
    books.deliveries(world);
    books.speeches(world);
    let turns = books.turns();
    for session in watch_sessions(books.referee) {
        books.session(&session, &turns);
    }
    books.outcomes(&turns);
    books.answers(world);
    books.effects(world);
    books.spending();
    let problems = books.problems;
    watch.referee.violations.extend(problems);
}

fn watch_sessions(referee: &Referee) -> Vec<String> {
    referee.sessions.keys().cloned().collect()
}

struct Books<'a> {
    referee: &'a Referee,
    /// Calls that the model made in its answer to a request.
    calls: &'a BTreeMap<String, usize>,
    problems: Vec<String>,
}

/// A turn's row: its session, its status and how it ended.
struct Turn {
    session: String,
    status: String,
    end: String,
}

impl Books<'_> {
    fn must(&mut self, holds: bool, what: impl FnOnce() -> String) {
        if !holds {
            self.problems.push(what());
        }
    }

    /// Everything that a sender was told is there, once, and nothing else is.
    fn deliveries(&mut self, world: &World) {
        let referee = self.referee;
        let said = said(referee);
        let mut identities = BTreeSet::new();
        for (id, row) in &referee.deliveries {
            let fresh = identities.insert((&row.source, &row.key));
            self.must(fresh, || format!("{} is there twice", row.key));
            let number: usize = row.key.rsplit(' ').next().unwrap().parse().unwrap();
            let expected = usize::from(row.status == "accepted");
            let said = said.get(&format!("d{number}")).map_or(&[][..], Vec::as_slice);
            let places: Vec<_> = said.iter().map(|said| &said.session).collect();
            // Only a further attempt may bring a second message, and says which one it was.
            let marks: Vec<_> = said.iter().filter_map(|said| said.rerun).collect();
            self.must(said.len() - marks.len() == expected, || {
                format!("{id} was to be said {expected} times: {said:?} {row:?}")
            });
            let attempts = 2..=row.n_attempts;
            let distinct: BTreeSet<_> = marks.iter().collect();
            self.must(
                distinct.len() == marks.len() && marks.iter().all(|it| attempts.contains(it)),
                || format!("{id} ran again as {marks:?}: {row:?}"),
            );
            let session = row.session.as_deref().unwrap_or_default();
            self.must(places.iter().all(|place| *place == session), || {
                format!("{id} was said in {places:?} and belongs to {session}")
            });
        }
        for number in 0..world.events.len() {
            let told = world.ledger.deliveries.get(&number).map_or(&[][..], Vec::as_slice);
            self.must(!told.is_empty(), || format!("event {number} got no answer"));
            for accepted in told {
                let row = referee.deliveries.get(accepted.delivery_id.to_string().as_str());
                let key = row.map(|row| row.key.as_str());
                self.must(key == Some(&format!("event {number}")), || {
                    format!("event {number} was promised as {accepted:?}: {row:?}")
                });
                let session = accepted.session_id.as_ref().map(ToString::to_string);
                self.must(row.is_none_or(|row| row.session == session), || {
                    format!("event {number} was promised in another session: {accepted:?} {row:?}")
                });
            }
            let attempts: BTreeSet<i64> = told.iter().map(|accepted| accepted.attempt).collect();
            self.must(attempts.len() == told.len(), || format!("two requests were one: {told:?}"));
        }
    }

    /// What a person was told is said, once; what he was refused is not.
    fn speeches(&mut self, world: &World) {
        let said = said(self.referee);
        for (marks, heard) in &world.ledger.speeches {
            let counts: Vec<usize> =
                marks.iter().map(|mark| said.get(mark).map_or(0, Vec::len)).collect();
            let all = counts.iter().all(|n| *n == 1);
            let none = counts.iter().all(|n| *n == 0);
            let right = match heard {
                Said::Yes => all,
                Said::No => none,
                Said::Perhaps => all || none,
            };
            self.must(right, || format!("{marks:?} {heard:?}: said {counts:?} times"));
        }
    }

    /// Each model request is counted once, for its session, its agent and everything together, and once
    /// at most for its model; nothing is reserved any more.
    fn spending(&mut self) {
        let reserved = self.referee.rows("select session_id from reservations");
        self.must(reserved.is_empty(), || format!("{reserved:?} is still reserved"));
        let sql = "select scope, cast(sum(model_calls) as text) from spending group by scope";
        let mut counted: BTreeMap<String, i64> = BTreeMap::new();
        for row in self.referee.rows(sql) {
            let [scope, n] = <[_; 2]>::try_from(row).expect("two columns").map(Option::unwrap);
            counted.insert(scope, n.parse().expect("a number"));
        }
        let mut all = 0;
        for id in watch_sessions(self.referee) {
            let log = self.referee.logs.get(&id).map_or(&[][..], Vec::as_slice);
            let n = log.iter().filter(|it| it.kind == "span.model_request_end").count() as i64;
            let found = counted.get(&id).copied().unwrap_or(0);
            self.must(found == n, || format!("{id}: {n} requests ended, {found} are counted"));
            all += n;
        }
        let of = |prefix: &str| -> i64 {
            let those = counted.iter().filter(|(scope, _)| scope.starts_with(prefix));
            those.map(|(_, n)| n).sum()
        };
        let (agents, models) = (of("agent_"), of("model:"));
        let total = counted.get(EVERYBODY).copied().unwrap_or(0);
        self.must(agents == all && total == all && models <= all, || {
            format!("{all} requests are {agents} of agents, {models} of models, {total} in all")
        });
    }

    fn turns(&mut self) -> BTreeMap<String, Turn> {
        let sql = "select id, session_id, status, coalesce(stop_reason, '') from turns";
        let rows = self.referee.rows(sql).into_iter();
        let turns: BTreeMap<String, Turn> = rows
            .map(|row| {
                let row: Option<Vec<String>> = row.into_iter().collect();
                let [id, session, status, end] =
                    row.expect("no nulls").try_into().expect("four columns");
                (id, Turn { session, status, end })
            })
            .collect();
        for (id, turn) in &turns {
            self.must(turn.status == "done", || format!("{id} of {} never ended", turn.session));
        }
        turns
    }

    /// A log is a row of whole turns, in the order of the inbox, and its session is what it says.
    fn session(&mut self, id: &str, turns: &BTreeMap<String, Turn>) {
        let referee = self.referee;
        let row = &referee.sessions[id];
        let log = referee.logs.get(id).map_or(&[][..], Vec::as_slice);
        let user: Vec<&String> =
            log.iter().filter(|it| it.kind == "user.message").map(|it| &it.id).collect();
        let committed: Vec<&String> = referee.inbox.get(id).into_iter().flatten().collect();
        self.must(user == committed, || format!("{id}: committed {committed:?}, worked {user:?}"));
        let at_rest = row.owner.is_none() && row.turn.is_none() && row.taken == row.given;
        let status = if row.archived { "terminated" } else { "idle" };
        self.must(at_rest && row.status == status, || format!("{id} is not at rest: {row:?}"));
        self.must(row.taken == user.len() as i64, || {
            format!("{id}: {} messages, {row:?}", user.len())
        });
        let tokens =
            log.iter().filter_map(usage).fold((0, 0), |sum, it| (sum.0 + it.0, sum.1 + it.1));
        self.must(row.tokens == tokens, || format!("{id}: {tokens:?} were used, {row:?}"));

        // What is said of the session itself is in no turn.
        let n = log.iter().rposition(|entry| entry.turn.is_some()).map_or(0, |at| at + 1);
        let (log, ends) = log.split_at(n);
        let ends: Vec<&str> = ends.iter().map(|entry| entry.kind.as_str()).collect();
        let fits = if row.archived { ends == ENDS || ends == ENDS[1..] } else { ends.is_empty() };
        self.must(fits, || format!("{id} ends with {ends:?}: {row:?}"));
        let mut ended = BTreeSet::new();
        for part in log.chunk_by(|one, next| one.turn == next.turn) {
            let Some(turn) = part[0].turn.as_ref().filter(|turn| turns.contains_key(*turn)) else {
                self.problems.push(format!("{id}: {:?} belongs to no turn", part[0]));
                continue;
            };
            self.must(ended.insert(turn), || format!("{id}: {turn} comes twice"));
            self.must(turns[turn].session == id, || format!("{turn} is not of {id}"));
            // Whoever archives a session ends a turn that waits for somebody, and nothing else of it.
            let put_away = row.archived && part.last() == log.last();
            self.turn(id, part, &turns[turn].end, put_away);
        }
        let own = turns.values().filter(|turn| turn.session == id).count();
        self.must(own == ended.len(), || format!("{id}: {own} turns, {} in the log", ended.len()));
    }

    /// One turn: begins with what was said, ends once, and everything that was begun in between was
    /// ended.
    fn turn(&mut self, id: &str, part: &[Entry], end: &str, put_away: bool) {
        let came_to = walk(part);
        let put_away = put_away && came_to == Some("waits");
        let kinds: Vec<&str> = part.iter().map(|entry| entry.kind.as_str()).collect();
        let what = || format!("{id}: {end} {kinds:?}");
        let n = |kind: &str| kinds.iter().filter(|it| **it == kind).count();
        let takes = kinds.iter().skip(1).take_while(|kind| **kind == "user.message").count();
        self.must(kinds[0] == "session.status_running" && takes > 0, what);
        for (at, _) in kinds.iter().enumerate().filter(|(_, kind)| **kind == "user.message") {
            // What is taken up later waits until nothing is open.
            let n = |wanted: &[&str]| kinds[..at].iter().filter(|it| wanted.contains(it)).count();
            let (begun, ended) = (["span.model_request_start"], ["span.model_request_end"]);
            self.must(n(&begun) == n(&ended), what);
            self.must(n(&CALLS) == n(&RESULTS), what);
        }
        self.must(n("span.model_request_start") == n("span.model_request_end"), what);
        self.must(put_away || came_to == Some("rests"), what);
        let failed = n("session.error") > n("session.status_rescheduled");
        self.must(failed == ["retries_exhausted", "failed"].contains(&end), what);
        let of = |kind: &'static str| part.iter().filter(move |entry| entry.kind == kind);
        let begun: Vec<String> = of("span.model_request_start").map(|it| it.id.clone()).collect();
        let over: Vec<String> = of("span.model_request_end")
            .filter_map(|entry| field(entry, "model_request_start_id"))
            .collect();
        self.must(begun == over, || format!("{id}: begun {begun:?}, ended {over:?}"));
        self.calls_of_turn(id, part, put_away);
        for after in part.split(|entry| entry.kind == "span.model_request_start").skip(1) {
            let Some(end) = after.iter().find(|entry| entry.kind == "span.model_request_end")
            else {
                continue;
            };
            let is_call = |entry: &&Entry| CALLS.contains(&entry.kind.as_str());
            let n_calls = after.iter().filter(is_call).count();
            let body: Value = serde_json::from_str(&end.body).expect("JSON");
            let start = body["model_request_start_id"].as_str().unwrap_or_default();
            // The rehearsal answers without being asked.
            let Some(made) = self.calls.get(start) else { continue };
            let made = if body["is_error"] == false { *made } else { 0 };
            self.must(made == n_calls, || {
                format!("{id}: {n_calls} of {made} calls of one answer {kinds:?}")
            });
        }
    }

    /// Each call has one result, after it; those that wait for nobody have theirs in their order.
    fn calls_of_turn(&mut self, id: &str, part: &[Entry], put_away: bool) {
        let (mut open, mut own) = (BTreeSet::new(), VecDeque::new());
        for entry in part {
            if CALLS.contains(&entry.kind.as_str()) {
                open.insert(entry.id.clone());
                if field(entry, "evaluated_permission").is_some_and(|it| it != "ask") {
                    own.push_back(entry.id.clone());
                }
            } else if RESULTS.contains(&entry.kind.as_str()) {
                let call = called_by(entry).unwrap_or_default();
                self.must(open.remove(&call), || format!("{id}: no call for {entry:?}"));
                if own.contains(&call) {
                    let next = own.pop_front();
                    self.must(next == Some(call), || {
                        format!("{id}: before {next:?} came {entry:?}")
                    });
                }
            }
        }
        self.must(put_away || open.is_empty(), || format!("{id}: no results for {open:?}"));
    }

    /// What was answered for a call is in the log once, unless the turn ended before it got there. So is
    /// who stopped a turn.
    fn answers(&mut self, world: &World) {
        let referee = self.referee;
        let mut logged: BTreeMap<&str, usize> = BTreeMap::new();
        for entry in referee.logs.values().flatten() {
            *logged.entry(&entry.id).or_default() += 1;
        }
        let sql = "select id, coalesce(event_id, '') from approvals where journaled = 1";
        let noted: BTreeMap<_, _> = referee.rows(sql).into_iter().map(pair).collect();
        let mut taken = BTreeSet::new();
        for given in &world.ledger.answers {
            let n = logged.get(given.event.as_str()).copied().unwrap_or_default();
            let is_noted = noted.get(&given.call) == Some(&given.event);
            let fits = match given.said {
                Said::Yes => n == 1 || n == 0 && is_noted,
                Said::No => n == 0 && !is_noted,
                Said::Perhaps => n <= 1,
            };
            self.must(fits, || format!("{given:?} is there {n} times; noted: {is_noted}"));
            let is_first = n == 0 || taken.insert(&given.call);
            self.must(is_first, || format!("{} was answered twice", given.call));
        }
        for stop in &world.ledger.stops {
            let n = logged.get(stop.as_str()).copied().unwrap_or_default();
            self.must(n == 1, || format!("the stop {stop} is there {n} times"));
        }
        let left = referee.rows("select id from approvals where journaled = 0");
        self.must(left.is_empty(), || format!("calls still wait: {left:?}"));
    }

    /// What was carried out was so once, and with leave; what is said not to be was not.
    fn effects(&mut self, world: &World) {
        let referee = self.referee;
        let sql =
            "select id, case when settled_by is null then status else 'settled' end from effects";
        let ledger: BTreeMap<_, _> = referee.rows(sql).into_iter().map(pair).collect();
        for (session, log) in &referee.logs {
            let place = workspace(world, (session, &referee.sessions[session]));
            let is_yes = |entry: &&Entry| field(entry, "result").as_deref() == Some("allow");
            let allowed: BTreeSet<_> = log.iter().filter(is_yes).filter_map(called_by).collect();
            for edit in log.iter().filter(|it| field(it, "name").as_deref() == Some("edit")) {
                let body: Value = serde_json::from_str(&edit.body).expect("JSON");
                let may_run = body["evaluated_permission"] != "ask" || allowed.contains(&edit.id);
                let path = place.join(body["input"]["file_path"].as_str().expect("a path"));
                let text = std::fs::read_to_string(path).unwrap_or_default();
                let n = text.matches(MARK).count();
                let status = ledger.get(&edit.id).map(String::as_str);
                let fits = match status {
                    None | Some("failed") => n == 0,
                    Some("done") => n == 1 && may_run,
                    // Nobody knows, or an agent said what it made of it.
                    Some("in_doubt" | "settled") => n <= 1 && may_run,
                    Some(_) => false,
                };
                self.must(fits, || format!("{session}: {edit:?} ran {n} times: {status:?}"));
            }
        }
    }

    /// What came of a delivery is how its turn ended.
    fn outcomes(&mut self, turns: &BTreeMap<String, Turn>) {
        let sql = "select distinct turn_id from effects where status = 'in_doubt'";
        let doubted: BTreeSet<Option<String>> =
            self.referee.rows(sql).into_iter().map(|row| row[0].clone()).collect();
        for (id, row) in &self.referee.deliveries {
            let turn = row.turn.as_ref().and_then(|turn| turns.get(turn));
            let expected = turn.map(|turn| match turn.end.as_str() {
                _ if doubted.contains(&row.turn) => "in_doubt",
                "end_turn" => "succeeded",
                "interrupted" => "cancelled",
                _ => "failed",
            });
            self.must(row.outcome.as_deref() == expected, || format!("{id}: {expected:?} {row:?}"));
            let same = turn.is_none_or(|turn| Some(&turn.session) == row.session.as_ref());
            self.must(same, || format!("{id}: its turn is of another session: {row:?}"));
            let is_accepted = row.status == "accepted";
            self.must(is_accepted == row.outcome.is_some(), || format!("{id}: {row:?}"));
        }
    }
}

/// Two texts of a row.
fn pair(row: Vec<Option<String>>) -> (String, String) {
    let [one, other] = <[_; 2]>::try_from(row).expect("two columns");
    (one.expect("a text"), other.expect("a text"))
}

/// Where the agent of a session works.
fn workspace(world: &World, session: (&str, &Session)) -> PathBuf {
    let root = world.directory.path();
    let (session, row) = session;
    match row.environment == world.names.project {
        true => root.join(setup::PROJECT),
        false => root.join("workspaces").join(session).join("work"),
    }
}

/// What the model asks for, and what that led to.
const CALLS: [&str; 2] = ["agent.tool_use", "agent.custom_tool_use"];
const RESULTS: [&str; 3] = ["agent.tool_result", "user.custom_tool_result", "user.tool_result"];

/// A text that an entry has.
fn field(entry: &Entry, field: &str) -> Option<String> {
    let body: Value = serde_json::from_str(&entry.body).expect("JSON");
    body[field].as_str().map(str::to_owned)
}

/// The call that a result is of.
fn called_by(entry: &Entry) -> Option<String> {
    field(entry, "tool_use_id").or_else(|| field(entry, "custom_tool_use_id"))
}

/// A turn runs, waits for another try or for somebody, runs again, and rests once. Where it came to in
/// the end, if it went no other way.
fn walk(part: &[Entry]) -> Option<&'static str> {
    let mut state = "";
    for entry in part {
        let waits = || entry.body.contains("\"requires_action\"");
        state = match (state, entry.kind.as_str()) {
            ("" | "rescheduled" | "waits", "session.status_running") => "runs",
            ("runs", "session.status_rescheduled") => "rescheduled",
            ("runs" | "waits", "session.status_idle") if waits() => "waits",
            ("runs" | "waits" | "rescheduled", "session.status_idle") => "rests",
            ("rests", _) | (_, "session.status_running" | "session.status_rescheduled") => {
                return None;
            }
            (state, _) => state,
        };
    }
    Some(state)
}

/// A message of a log: where it stands, and which attempt of its delivery brought it if not the first.
#[derive(Debug)]
struct Spoken {
    session: String,
    rerun: Option<i64>,
}

/// Where each mark was said.
fn said(referee: &Referee) -> BTreeMap<String, Vec<Spoken>> {
    let mut said: BTreeMap<String, Vec<Spoken>> = BTreeMap::new();
    for (session, log) in &referee.logs {
        for entry in log.iter().filter(|entry| entry.kind == "user.message") {
            let body: Value = serde_json::from_str(&entry.body).expect("an entry is JSON");
            let rerun = body["origin"]["rerun"].as_i64();
            for mark in marks_in(&entry.body) {
                let session = session.clone();
                said.entry(mark).or_default().push(Spoken { session, rerun });
            }
        }
    }
    said
}

fn usage(entry: &Entry) -> Option<(i64, i64)> {
    let body: Value = serde_json::from_str(&entry.body).ok()?;
    let count = |key: &str| body["model_usage"][key].as_i64();
    Some((count("input_tokens")?, count("output_tokens")?))
}
