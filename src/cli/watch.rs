//! `tail` without a session: the newest deliveries and sessions, by asking every second.
//!
//! A line when something arrives and a line when what became of it changes. Sessions that a delivery
//! started have no line of their own: the delivery's outcome says it. Left out: what happened before,
//! but for the last few deliveries.

use std::{
    collections::{BTreeMap, VecDeque},
    time::Duration,
};

use serde_json::Value;

use super::{
    Exit,
    client::{Client, PAGE_MAX},
    context::{Context, Names, str},
    failure::Result,
    follow::Backoff,
    style::{Look, Style, look},
    table::{fitted, one_line},
};
use crate::clock::Timestamp;

const PERIOD: Duration = Duration::from_secs(1);

/// Of what was there before.
const SHOWN_AT_FIRST: usize = 10;

/// New deliveries in one second that are shown one by one.
const NEW_MAX: usize = 1_000;

/// Ids that are remembered. Far more than a page, so that what is on a page is known.
const KNOWN_MAX: usize = 5_000;

/// Deliveries that are no longer on the newest page are asked for one by one, so many per round.
const ASKED_PER_ROUND: usize = 10;

const SESSIONS_MAX: usize = 20;

pub(super) async fn run(context: &mut Context<'_>, give_up: Option<Duration>) -> Result<Exit> {
    let mut watch = Watch::default();
    let mut names = Names::default();
    let mut backoff = Backoff::new(give_up);
    loop {
        let wait = match watch.round(&context.client).await {
            Ok(changes) => {
                backoff.reset();
                if !context.json && changes.iter().any(|it| names.lack(&it.object["source"])) {
                    names = Names::read(&context.client).await;
                }
                print(context, &names, &changes)?;
                PERIOD
            }
            Err(failure) if watch.is_started && failure.is_passing() => {
                if backoff.is_first() {
                    context.io.note(format!("the connection is lost ({failure}), trying again"))?;
                }
                match backoff.wait() {
                    Some(wait) => wait,
                    None => return Err(failure),
                }
            }
            Err(failure) => return Err(failure),
        };
        tokio::time::sleep(wait).await;
    }
}

fn print(context: &mut Context<'_>, names: &Names, changes: &[Change]) -> Result<()> {
    let (style, layout) = (context.io.style(), Layout::new(context.io.width));
    for change in changes {
        if context.json {
            context.io.json_line(&change.object)?;
        } else {
            let line = line(style, layout, names, change, context.io.clock.now());
            context.io.line(line)?;
        }
    }
    Ok(context.io.out.flush()?)
}

/// Something that arrived, or changed.
#[derive(Debug, PartialEq)]
struct Change {
    is_new: bool,
    object: Value,
}

/// What was seen so far.
#[derive(Debug, Default)]
struct Watch {
    /// By id: what a line says of it. Ids sort by time, so the first ones are the oldest.
    deliveries: BTreeMap<String, String>,
    sessions: BTreeMap<String, String>,
    /// Deliveries without a final outcome.
    unfinished: VecDeque<String>,
    is_started: bool,
    /// Deliveries with a smaller id were there before.
    floor: String,
}

impl Watch {
    async fn round(&mut self, client: &Client) -> Result<Vec<Change>> {
        let n_max = if self.is_started { NEW_MAX } else { SHOWN_AT_FIRST };
        let mut deliveries = Vec::new();
        let mut page: Option<String> = None;
        loop {
            let n = PAGE_MAX.min(n_max - deliveries.len());
            let listing = client.page(WHAT, &["v1", "deliveries"], &[], page.as_deref(), n).await?;
            let n_listed = listing.data.len();
            let news = listing.data.into_iter().filter(|it| str(&it["id"]) >= self.floor.as_str());
            let news: Vec<Value> = news.collect();
            let is_known = |it: &Value| self.deliveries.contains_key(str(&it["id"]));
            let is_enough = news.len() < n_listed || news.iter().any(is_known);
            page = listing.next_page;
            deliveries.extend(news);
            if is_enough || page.is_none() || deliveries.len() >= n_max {
                break;
            }
        }
        if !self.is_started && page.is_some() {
            let ids = deliveries.iter().map(|delivery| str(&delivery["id"]));
            self.floor = ids.min().unwrap_or_default().to_owned();
        }
        let sessions = client.list(WHAT, &["v1", "sessions"], &[], None, SESSIONS_MAX).await?.data;
        self.ask_unfinished(client, &mut deliveries).await?;
        deliveries.sort_by(|left, right| str(&left["id"]).cmp(str(&right["id"])));
        let mut changes = self.look_at_deliveries(deliveries);
        changes.extend(self.look_at_sessions(sessions));
        self.is_started = true;
        Ok(changes)
    }

    /// Adds unfinished deliveries that the list does not reach, in turn.
    async fn ask_unfinished(&mut self, client: &Client, listed: &mut Vec<Value>) -> Result<()> {
        for _ in 0..self.unfinished.len().min(ASKED_PER_ROUND) {
            let Some(id) = self.unfinished.pop_front() else {
                break;
            };
            if listed.iter().any(|delivery| str(&delivery["id"]) == id) {
                self.unfinished.push_back(id);
                continue;
            }
            match client.get(WHAT, &["v1", "deliveries", &id], &[]).await {
                Ok(delivery) => listed.push(delivery),
                // Pruned or erased: there is nothing to wait for.
                Err(failure) if failure.has_status(404) => continue,
                Err(failure) => {
                    self.unfinished.push_front(id);
                    return Err(failure);
                }
            }
            self.unfinished.push_back(id);
        }
        Ok(())
    }

    /// Those whose line would be another one than before, oldest first.
    fn look_at_deliveries(&mut self, deliveries: Vec<Value>) -> Vec<Change> {
        let mut changes = Vec::new();
        for object in deliveries {
            let id = str(&object["id"]).to_owned();
            let said = format!(
                "{} {} {}",
                str(&object["status"]),
                str(&object["outcome"]),
                str(&object["session_id"])
            );
            let is_open = ["pending", "running", "waiting"].contains(&str(&object["outcome"]));
            let at = self.unfinished.iter().position(|unfinished| *unfinished == id);
            match (at, is_open) {
                (None, true) => self.unfinished.push_back(id.clone()),
                (Some(at), false) => {
                    self.unfinished.remove(at);
                }
                _ => {}
            }
            let before = self.deliveries.insert(id, said.clone());
            if before.as_ref() != Some(&said) {
                changes.push(Change { is_new: before.is_none(), object });
            }
        }
        while self.deliveries.len() > KNOWN_MAX {
            self.deliveries.pop_first();
            let oldest = self.deliveries.first_key_value().map(|(id, _)| id.clone());
            self.floor = oldest.unwrap_or_default();
        }
        while self.unfinished.len() > KNOWN_MAX {
            self.unfinished.pop_front();
        }
        changes
    }

    fn look_at_sessions(&mut self, sessions: Vec<Value>) -> Vec<Change> {
        let mut changes = Vec::new();
        for object in sessions.into_iter().rev().filter(|session| session["source"].is_null()) {
            let (id, said) = (str(&object["id"]).to_owned(), str(&object["status"]).to_owned());
            let before = self.sessions.insert(id, said.clone());
            if before.as_ref() != Some(&said) && self.is_started {
                changes.push(Change { is_new: before.is_none(), object });
            }
        }
        while self.sessions.len() > KNOWN_MAX {
            self.sessions.pop_first();
        }
        changes
    }
}

const WHAT: &str = "look for what is new";

/// How much of a line there is room for.
#[derive(Clone, Copy, Debug)]
struct Layout {
    source_chars: usize,
    event_chars: usize,
    /// Whether a delivery's session is shown beside it.
    has_session: bool,
}

impl Layout {
    fn new(width: Option<usize>) -> Layout {
        let (source_chars, event_chars, has_session) = match width {
            Some(..88) => (10, 9, false),
            Some(88..120) => (12, 14, false),
            Some(120..134) => (12, 14, true),
            Some(134..) | None => (16, 24, true),
        };
        Layout { source_chars, event_chars, has_session }
    }
}

/// Time, two badges, where it came from and what it is, ids.
fn line(style: Style, layout: Layout, names: &Names, change: &Change, now: Timestamp) -> String {
    let object = &change.object;
    let is_session = object["type"] == "session";
    let created = if is_session { &object["created_at"] } else { &object["received_at"] };
    let now = now.to_string();
    let at = if change.is_new { str(created) } else { &now };
    let cell = |look: Look, text: &str, width: usize| {
        let text = fitted(&one_line(text), width);
        style.paint(look, &format!("{text:<width$}"))
    };
    let badge = |state: &str| cell(look(state), state, 9);
    let mut parts = vec![style.dim(&one_line(at.get(11..19).unwrap_or("--:--:--")))];
    if is_session {
        parts.push(cell(Look::Plain, "session", 9));
        parts.push(badge(str(&object["status"])));
        parts.push(cell(Look::Plain, str(&object["agent"]["name"]), layout.source_chars));
        parts.push(cell(Look::Plain, str(&object["title"]), layout.event_chars));
        parts.push(one_line(str(&object["id"])));
    } else {
        parts.push(badge(str(&object["status"])));
        parts.push(badge(str(&object["outcome"])));
        parts.push(cell(Look::Plain, &names.source(&object["source"]), layout.source_chars));
        parts.push(cell(Look::Plain, str(&object["event_type"]), layout.event_chars));
        parts.push(one_line(str(&object["id"])));
        if layout.has_session {
            parts.push(style.dim(&one_line(str(&object["session_id"]))));
        }
    }
    parts.join(" ").trim_end().to_owned()
}

impl Change {
    #[cfg(test)]
    fn says(&self) -> String {
        line(Style { color: false }, Layout::new(None), &Names::default(), self, Timestamp(0))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use expect_test::expect;
    use serde_json::json;

    use super::*;
    use crate::cli::{
        connection::{Connection, KeyFrom},
        tests::server::{Answer, Server},
    };

    fn delivery(n: u32, outcome: &str) -> Value {
        json!({"id": format!("dlv_{n}"), "type": "delivery", "source": "stripe",
            "event_type": "invoice.paid", "status": "accepted", "outcome": outcome,
            "session_id": "sesn_1", "received_at": "2026-11-21T20:12:01.000Z"})
    }

    #[test]
    fn a_delivery_has_a_line_when_it_comes_and_one_per_change() {
        let mut watch = Watch { is_started: true, ..Watch::default() };
        let mut text = String::new();
        let rounds = [
            vec![delivery(1, "pending")],
            vec![delivery(1, "pending"), delivery(2, "pending")],
            vec![delivery(1, "succeeded"), delivery(2, "pending")],
        ];
        for round in rounds {
            for change in watch.look_at_deliveries(round) {
                text.push_str(&change.says());
                text.push('\n');
            }
        }
        expect![[r#"
            20:12:01 accepted  pending   stripe           invoice.paid             dlv_1 sesn_1
            20:12:01 accepted  pending   stripe           invoice.paid             dlv_2 sesn_1
            00:00:00 accepted  succeeded stripe           invoice.paid             dlv_1 sesn_1
        "#]]
        .assert_eq(&text);
        assert_eq!(watch.unfinished, ["dlv_2"]);
    }

    #[test]
    fn sessions_of_deliveries_have_no_line_of_their_own() {
        let mut watch = Watch { is_started: true, ..Watch::default() };
        let session = |id: &str, source: Value| {
            json!({"id": id, "type": "session", "source": source, "status": "running",
                "title": "t", "agent": {"name": "default"}, "created_at": "2026-11-21T20:12:01Z"})
        };
        let sessions = vec![session("sesn_2", Value::Null), session("sesn_1", json!("stripe"))];
        let changes = watch.look_at_sessions(sessions);
        let says: Vec<String> = changes.iter().map(Change::says).collect();
        assert_eq!(
            says,
            ["20:12:01 session   running   default          t                        sesn_2"]
        );
    }

    #[tokio::test]
    async fn only_the_last_few_of_before_are_shown_and_every_one_that_comes() {
        let n_rounds = AtomicUsize::new(0);
        let server = Server::start(move |request| {
            if request.path() == "/v1/sessions" {
                n_rounds.fetch_add(1, Ordering::SeqCst);
                return Answer::json(&json!({"data": [], "next_page": null}));
            }
            // Thirty from before, and then more than two pages of new ones, newest first.
            let newest = if n_rounds.load(Ordering::SeqCst) == 0 { 1_030 } else { 1_280 };
            let first: u32 = request.query("page").map_or(newest, |page| page.parse().unwrap());
            let limit: u32 = request.query("limit").unwrap().parse().unwrap();
            let end = first.saturating_sub(limit).max(1_000);
            let data: Vec<Value> =
                (end + 1..=first).rev().map(|n| delivery(n, "succeeded")).collect();
            let next = (end > 1_000).then(|| end.to_string());
            Answer::json(&json!({"data": data, "next_page": next}))
        });
        let base = server.url().parse().unwrap();
        let connection = Connection { base, key: None, key_from: KeyFrom::Flag };
        let client = Client::new(connection).unwrap();
        let mut watch = Watch::default();
        let ids = |changes: Vec<Change>| -> Vec<String> {
            changes.iter().map(|change| str(&change.object["id"]).to_owned()).collect()
        };
        let expected = |range: std::ops::RangeInclusive<u32>| -> Vec<String> {
            range.map(|n| format!("dlv_{n}")).collect()
        };
        assert_eq!(ids(watch.round(&client).await.unwrap()), expected(1_021..=1_030));
        assert_eq!(ids(watch.round(&client).await.unwrap()), expected(1_031..=1_280));
        assert_eq!(watch.round(&client).await.unwrap(), []);
    }
}
