//! What comes over a world from outside: requests and speeches, and what goes wrong.

use std::time::Duration;

use bellpull::{
    domain::{
        ManagedBy, Metadata,
        event::{Block, Confirmed, Event as Message},
        turn::TurnLimitsChange,
    },
    id::EventId,
    store::{self, NewSession, Store, Wanted},
};

use super::{
    plan::{Ask, Happening, Shop},
    senders::{About, Answer, Given, Heard, Said},
    world::{Blow, World},
};
use crate::store::bench::change;

/// Kinds of writes that the database may refuse for a while, and how: the statement alone fails,
/// SQLite ends the whole transaction, or its commit fails.
const BREAKAGES: [&str; 7] = [
    // Renewals are lost.
    "before update of lease_until on sessions when new.epoch = old.epoch \
     and new.lease_until > old.lease_until begin select raise(abort, 'renewals fail'); end",
    "before update of lease_until on sessions when new.epoch = old.epoch \
     and new.lease_until > old.lease_until begin select raise(rollback, 'renewals fail'); end",
    "before insert on events when new.type = 'agent.message' \
     begin select raise(abort, 'answers fail'); end",
    "before update on turns begin select raise(rollback, 'ends of turns fail'); end",
    "before insert on deliveries begin select raise(rollback, 'accepts fail'); end",
    // Everything goes well until the commit, which fails.
    "before insert on deliveries begin insert into broken_promises values (1); end",
    "before insert on events begin insert into broken_promises values (1); end",
];

/// What is put into the second one of these must be in the first one at the time of the commit.
const PROMISES: &str = "create table if not exists promises (id integer primary key); \
     create table if not exists broken_promises \
     (promise integer references promises deferrable initially deferred);";

impl World {
    pub fn happen(&mut self, happening: Happening) {
        match happening {
            Happening::Request { event } => self.request(event),
            Happening::Speech { n_messages, fresh } => self.speak(n_messages, fresh),
            Happening::Pause { agent, paused } => self.pause(agent, paused),
            Happening::Limit { agent, at_once_max } => {
                let id = self.names.agents[agent].id.clone();
                let limits =
                    TurnLimitsChange { at_once_max: Some(at_once_max), ..Default::default() };
                self.ask(About::Change, move |store| async move {
                    let limited = store
                        .limit_agent(&id, ManagedBy::Api, limits, change("agent.limits"))
                        .await;
                    Answer::Done(limited.map(drop))
                });
            }
            Happening::Archive { session } => {
                let session = self.names.fixed[session].clone();
                self.ask(About::Change, move |store| async move {
                    Answer::Done(
                        store.archive_session(&session, change("session.archive")).await.map(drop),
                    )
                });
            }
            Happening::Answer { ask } => self.answer(&ask),
            Happening::Interrupt => self.interrupt(),
            Happening::Start { node } => self.start(node),
            Happening::Bell { node } => {
                if let Some(process) = &mut self.nodes[node].process {
                    process.bells.due_elsewhere();
                    process.touch();
                }
            }
            Happening::GoOn { node } => {
                self.nodes[node].process.iter_mut().for_each(super::node::Process::touch);
            }
            Happening::Mend => self.mend(),
            Happening::Quiet => self.calm_down(),
        }
    }

    fn request(&mut self, number: usize) {
        let event = self.events[number].clone();
        let shop: Shop = self.shape.sources[event.shop];
        let (waiting_max, at) = (self.shape.waiting_max, self.clock.now());
        let delivery = self.names.request(number, &event, shop, waiting_max, at);
        let asked = self.ask(About::Event(number), move |store| async move {
            Answer::Delivery(store.accept(delivery).await)
        });
        if !asked {
            self.request_again(number);
        }
    }

    fn request_again(&mut self, event: usize) {
        let pause = self.random.ms(100..3000);
        self.after(pause, Happening::Request { event });
    }

    /// A person says something, in a new session or in one that he sees.
    fn speak(&mut self, n_messages: u64, fresh: bool) {
        let sessions: Vec<String> =
            self.watch.lock().unwrap().referee.sessions.keys().cloned().collect();
        let number = self.ledger.speeches.len();
        let numbers = (0..n_messages as usize).map(|n| 10 * number + n);
        let messages: Vec<_> = numbers.clone().map(|n| self.names.message(n)).collect();
        let marks = numbers.map(|n| format!("p{n}")).collect();
        let new = NewSession {
            resources: Vec::new(),
            budget: Default::default(),
            deployment_id: None,
            id: self.names.id(),
            agent_id: self.names.agents[0].id.clone(),
            agent_version: 1,
            overrides: None,
            environment_id: self.names.agents[0].environment.clone(),
            vault_ids: Vec::new(),
            title: None,
            metadata: Metadata::new(),
            messages: messages.clone(),
        };
        let session = sessions[self.random.index(sessions.len())].parse().expect("an id");
        let waiting_max = self.shape.waiting_max;
        let asked = self.ask(About::Speech(number), move |store| async move {
            Answer::Done(if fresh {
                store.create_session(new).await.map(drop)
            } else {
                let sent: store::Result<Vec<Message>> =
                    store.send(&session, messages, waiting_max).await;
                sent.map(drop)
            })
        });
        let said = if asked { Said::Perhaps } else { Said::No };
        self.ledger.speeches.push((marks, said));
    }

    /// Somebody answers for a call, whether or not somebody else just did.
    fn answer(&mut self, ask: &Ask) {
        let entry =
            self.watch.lock().unwrap().referee.logs[&ask.session][ask.seq as usize - 1].clone();
        let (event_id, call) = (self.names.id::<EventId>(), entry.id.parse().expect("an id"));
        let session = ask.session.parse().expect("an id");
        let mut given = Given { call: entry.id, event: event_id.to_string(), said: Said::No };
        let said = if ask.wanted == "confirmation" {
            let (result, deny_message) = match self.random.chance(70) {
                true => (Confirmed::Allow, None),
                false => (Confirmed::Deny, Some("not now".to_owned())),
            };
            store::Said::Answer { event_id, call, result, deny_message }
        } else {
            let content = vec![Block::text("A field.")];
            let wanted = Wanted::CustomResult;
            store::Said::Result { event_id, call, wanted, content, is_error: false }
        };
        let about = About::Answer(self.ledger.answers.len());
        let waiting_max = self.shape.waiting_max;
        let asked = self.ask(about, move |store| async move {
            let said = store.say(&session, vec![said], waiting_max, "somebody".to_owned()).await;
            Answer::Done(said.map(drop))
        });
        if asked {
            given.said = Said::Perhaps;
        } else {
            self.after(Duration::from_secs(1), Happening::Answer { ask: ask.clone() });
        }
        self.ledger.answers.push(given);
    }

    /// Somebody stops what goes on in one of the sessions, if anything does.
    fn interrupt(&mut self) {
        let at_work: Vec<String> = {
            let sessions = &self.watch.lock().unwrap().referee.sessions;
            let at_work = sessions.iter().filter(|(_, row)| row.turn.is_some());
            at_work.map(|(id, _)| id.clone()).collect()
        };
        if at_work.is_empty() {
            return;
        }
        let session = at_work[self.random.index(at_work.len())].parse().expect("an id");
        let said = vec![store::Said::Interrupt { event_id: self.names.id() }];
        self.ask(About::Stop, move |store| async move {
            Answer::Stop(store.say(&session, said, 1, "somebody".to_owned()).await)
        });
    }

    fn pause(&mut self, agent: usize, paused: bool) {
        let id = self.names.agents[agent].id.clone();
        let asked = self.ask(About::Change, move |store| async move {
            Answer::Done(store.pause_agent(&id, paused, change("agent.pause")).await.map(drop))
        });
        if !asked && !paused {
            self.after(Duration::from_secs(1), Happening::Pause { agent, paused });
        }
    }

    /// Asks one of the nodes that there are, and tells whether there was one.
    fn ask<F>(&mut self, about: About, work: impl FnOnce(Store) -> F) -> bool
    where
        F: Future<Output = Answer> + Send + 'static,
    {
        let there: Vec<usize> =
            (0..self.nodes.len()).filter(|node| self.nodes[*node].process.is_some()).collect();
        if there.is_empty() {
            return false;
        }
        let node = self.random.pick(&there);
        self.n_questions += 1;
        let question = self.n_questions;
        self.in_flight.insert(question, (node, about));
        let heard = self.heard.0.clone();
        let process = self.nodes[node].process.as_mut().expect("it is there");
        let work = work(process.store.clone());
        process.spawn(async move {
            let answer = work.await;
            let _ = heard.send(Heard { question, answer });
        });
        true
    }

    /// Takes in what was answered.
    pub fn hear(&mut self) {
        while let Ok(Heard { question, answer }) = self.heard.1.try_recv() {
            let (node, about) = self.in_flight.remove(&question).expect("it was asked");
            self.note(|| format!("{about:?}: {}", answer.told()));
            match (about, answer) {
                (About::Event(event), Answer::Delivery(Ok(Ok(accepted)))) => {
                    self.ledger.deliveries.entry(event).or_default().push(accepted);
                    self.wake(node, true);
                }
                (About::Event(event), _) => self.request_again(event),
                (About::Speech(number), Answer::Done(result)) => {
                    let said = if result.is_ok() { Said::Yes } else { Said::No };
                    self.ledger.speeches[number].1 = said;
                    self.wake(node, true);
                }
                (About::Answer(number), Answer::Done(result)) => {
                    let said = if result.is_ok() { Said::Yes } else { Said::No };
                    self.ledger.answers[number].said = said;
                    self.wake(node, true);
                }
                (About::Stop, Answer::Stop(Ok(events))) => {
                    // Without a turn there was nothing to stop.
                    let taken = events.iter().filter(|event| event.processed_at.is_none());
                    self.ledger.stops.extend(taken.map(|event| event.id.to_string()));
                    self.wake(node, true);
                }
                (About::Change | About::Stop, _) => self.wake(node, true),
                (About::Speech(_) | About::Answer(_), _) => unreachable!("people get no verdict"),
            }
        }
    }

    /// What this node was asked nobody will answer any more.
    pub fn lose(&mut self, node: usize) {
        self.hear();
        let lost: Vec<u64> = self
            .in_flight
            .iter()
            .filter(|(_, (at, _))| *at == node)
            .map(|(question, _)| *question)
            .collect();
        for question in lost {
            if let Some((_, About::Event(event))) = self.in_flight.remove(&question) {
                self.request_again(event);
            }
        }
    }

    /// After something has happened at a node: perhaps something goes wrong there.
    pub fn suffer(&mut self, node: usize) {
        let blow = self.blows.iter().position(|(at, _)| *at == self.n_acts);
        if let Some(at) = blow.filter(|_| self.nodes[node].process.is_some()) {
            return match self.blows.swap_remove(at).1 {
                Blow::Death => self.crash(node),
                Blow::Standstill => self.stop(node, self.shape.lease() * 3 / 2),
            };
        }
        if self.quiet || self.nodes[node].process.is_none() || !self.random.chance(4) {
            return;
        }
        let lease = self.shape.lease().as_millis() as u64;
        let long = self.random.ms(20..3 * lease);
        let until = self.elapsed() + long;
        let take = |left: &mut u64| std::mem::replace(left, left.saturating_sub(1)) > 0;
        match self.random.below(5) {
            0 if take(&mut self.troubles.crashes) => self.crash(node),
            1 if take(&mut self.troubles.stops) => self.stop(node, long),
            2 if take(&mut self.troubles.hangs) => {
                self.note(|| format!("node{node}'s database hangs for {long:?}"));
                self.nodes[node].hangs_until = until;
                self.at(until, Happening::GoOn { node });
            }
            3 if !self.broken && take(&mut self.troubles.breaks) => {
                let breakage = self.random.pick(&BREAKAGES);
                self.note(|| format!("for {long:?}: {breakage}"));
                let script = format!("{PROMISES} create trigger broken {breakage}");
                self.watch.lock().unwrap().referee.script(&script);
                self.broken = true;
                self.at(until, Happening::Mend);
            }
            4 if take(&mut self.troubles.drains) => {
                self.note(|| format!("node{node} is told to end"));
                let process = self.nodes[node].process.as_mut().expect("looked at above");
                process.stop.cancel();
                process.touch();
            }
            _ => {}
        }
    }

    /// From now on nothing of this node happens for so long.
    fn stop(&mut self, node: usize, long: Duration) {
        self.note(|| format!("node{node} is stopped for {long:?}"));
        let until = self.elapsed() + long;
        self.nodes[node].stopped_until = until;
        self.at(until, Happening::GoOn { node });
    }

    fn mend(&mut self) {
        self.watch.lock().unwrap().referee.script("drop trigger if exists broken");
        self.broken = false;
    }

    /// From now on nothing goes wrong any more, and everything is there.
    fn calm_down(&mut self) {
        self.quiet = true;
        self.troubles = super::world::Troubles::default();
        self.mend();
        self.watch.lock().unwrap().failures = 0;
        for node in 0..self.nodes.len() {
            self.nodes[node].stopped_until = Duration::ZERO;
            self.nodes[node].hangs_until = Duration::ZERO;
            self.nodes[node].process.iter_mut().for_each(super::node::Process::touch);
            self.start(node);
        }
        let asks = self.watch.lock().unwrap().referee.asks.clone();
        for ask in asks {
            self.after(Duration::from_secs(1), Happening::Answer { ask });
        }
        for agent in 0..self.names.agents.len() {
            // What was asked before comes first.
            self.after(Duration::from_secs(1), Happening::Pause { agent, paused: false });
        }
    }
}
