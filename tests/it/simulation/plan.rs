//! What a world is like and what happens in it from outside, drawn from its seed.

use std::{sync::Arc, time::Duration};

use arc_swap::ArcSwap;
use bellpull::{
    agent,
    domain::{toolset::Policy, turn::TurnLimits},
    model, runtime, store, worker,
};

use super::random::Random;

/// How bad it may get. Numbers are how often something happens in one world at most.
#[derive(Clone, Copy, Debug)]
pub struct Weather {
    /// Of the test that lives through it.
    pub name: &'static str,
    pub nodes_max: u64,
    /// Processes that end without a word.
    pub crashes: u64,
    /// Processes that are stopped for a while, and then go on as if nothing had been.
    pub stops: u64,
    /// Times at which a process waits for its database, and the database for nobody.
    pub hangs: u64,
    /// Times during which the database refuses to do one kind of thing.
    pub breaks: u64,
    /// Processes that are told to end, and come back.
    pub drains: u64,
    /// Of a hundred wakes, how many are lost: one of these.
    pub wakes_lost: &'static [u64],
    /// Of a hundred answers of models, how many are none: one of these.
    pub model_failures: &'static [u64],
    /// Turns at once of agents and sources that are limited: one of these.
    pub at_once: &'static [u32],
    /// Events from outside, from and below.
    pub events: (u64, u64),
    /// Of a hundred agents, how many have tools: a file's, and one that their client has.
    pub tools: u64,
}

/// Nothing fails, but for wakes: those are hints, and may.
pub const CALM: Weather = Weather {
    name: "wakes_are_lost_and_nothing_else_fails",
    nodes_max: 4,
    crashes: 0,
    stops: 0,
    hangs: 0,
    breaks: 0,
    drains: 0,
    wakes_lost: &[0, 30, 100],
    model_failures: &[0],
    at_once: &[1, 2, 3],
    events: (4, 24),
    tools: 60,
};

pub const CRASHES: Weather = Weather { name: "processes_die", crashes: 8, drains: 2, ..CALM };

pub const STANDSTILLS: Weather = Weather {
    name: "processes_and_databases_stand_still",
    stops: 6,
    hangs: 6,
    breaks: 3,
    drains: 1,
    ..CALM
};

pub const MODELS: Weather =
    Weather { name: "models_fail", model_failures: &[20, 50, 80], crashes: 2, drains: 2, ..CALM };

pub const STORMS: Weather = Weather {
    name: "everything_goes_wrong_at_once",
    model_failures: &[0, 20, 50],
    crashes: 6,
    ..STANDSTILLS
};

/// Hundreds of events, most of them for a few conversations.
pub const FLOODS: Weather = Weather {
    name: "events_come_by_the_hundred",
    events: (200, 400),
    at_once: &[4, 12],
    crashes: 12,
    tools: 0,
    ..STORMS
};

/// After this nothing bad begins, and what was bad ends.
pub const QUIET: Duration = Duration::from_secs(12);

/// Until this, messages come.
const BUSY: u64 = 9_000;

/// What is the same for the whole life of a world.
#[derive(Clone, Debug)]
pub struct Shape {
    pub n_nodes: usize,
    /// Models of the agents, one for each.
    pub models: Vec<&'static str>,
    /// What the agents have beside what every agent has: whether calls of `edit` wait to be allowed.
    pub tools: Vec<Option<Policy>>,
    /// How many turns each of the agents may have.
    pub turns: Vec<TurnLimits>,
    pub worker: worker::Options,
    pub model: model::Options,
    pub limits: agent::Limits,
    pub sources: Vec<Shop>,
    /// Messages that may wait in one session.
    pub waiting_max: i64,
    /// For how long a call waits for somebody.
    pub approval_seconds: u64,
    /// Of a hundred calls that wait, how many nobody answers for before the world is quiet.
    pub silence: u64,
    /// Whether any message shows only a part of its payload: then turns write files.
    pub cuts: bool,
    pub wakes_lost: u64,
    pub wakes_doubled: u64,
    pub model_failures: u64,
    /// Of a hundred steps, after how many the machine has been slow.
    pub slow: u64,
    /// Operations that share a commit at most.
    pub batch_max: usize,
    /// Events from outside, from and below.
    pub events: (u64, u64),
}

/// A source, as far as the store knows it.
#[derive(Clone, Copy, Debug)]
pub struct Shop {
    pub agent: usize,
    pub rerun_failed: bool,
    pub turns: TurnLimits,
}

pub const SCRIPTED: &str = "anthropic/scripted";

impl Shape {
    pub fn draw(weather: &Weather, random: &mut Random) -> Shape {
        let n_agents = random.range(1..4) as usize;
        let model = |random: &mut Random| if random.chance(75) { SCRIPTED } else { "rehearsal" };
        Shape {
            n_nodes: random.range(1..weather.nodes_max + 1) as usize,
            models: (0..n_agents).map(|_| model(random)).collect(),
            tools: (0..n_agents).map(|_| tools(weather, random)).collect(),
            turns: (0..n_agents).map(|_| turns(weather, random)).collect(),
            worker: worker::Options {
                turns_max: random.pick(&[1, 2, 3, 64]),
                lease_seconds: random.range(1..7),
                poll_ms: random.pick(&[250, 1000, 3000]),
                drain_seconds: random.below(4),
                resumes_max: 4,
                stop_poll_ms: 500,
            },
            model: model::Options {
                anthropic_base_url: Some("http://model.example".to_owned()),
                timeout_seconds: random.pick(&[8, 20]),
                first_seconds: random.range(2..6),
                idle_seconds: random.range(1..4),
                retries_max: random.below(5) as u32,
                retry_first_ms: random.pick(&[0, 100, 1000]),
                retry_seconds_max: random.range(1..8),
                ..model::Options::default()
            },
            limits: agent::Limits {
                requests_max: random.pick(&[3, 8, 100]),
                ..agent::Limits::default()
            },
            sources: (0..random.range(1..4))
                .map(|_| Shop {
                    agent: random.index(n_agents),
                    rerun_failed: random.chance(40),
                    turns: turns(weather, random),
                })
                .collect(),
            waiting_max: random.pick(&[2, 1000, 1000]),
            approval_seconds: random.pick(&[2, 10, 30]),
            silence: random.pick(&[0, 20, 60]),
            cuts: random.chance(25),
            wakes_lost: random.pick(weather.wakes_lost),
            wakes_doubled: random.pick(&[0, 20]),
            model_failures: random.pick(weather.model_failures),
            slow: random.pick(&[0, 2, 10]),
            batch_max: random.pick(&[1, 3, 1000]),
            events: weather.events,
        }
    }

    pub fn lease(&self) -> Duration {
        Duration::from_secs(self.worker.lease_seconds)
    }

    pub fn runtime(&self, directory: &std::path::Path) -> runtime::Options {
        let roots = vec![directory.to_owned()];
        let projects = runtime::Projects { roots, ..runtime::Projects::default() };
        runtime::Options {
            workspaces: directory.join("workspaces"),
            resumes_max: self.worker.resumes_max,
            limits: self.limits.clone(),
            approval_seconds_max: self.approval_seconds,
            tools: bellpull::tool::Options::default(),
            projects: Arc::new(ArcSwap::from_pointee(projects)),
            pages: Default::default(),
            budgets: Default::default(),
            outputs: Default::default(),
        }
    }

    /// Whether turns write and read files.
    pub fn files(&self) -> bool {
        self.cuts || self.tools.iter().any(Option::is_some)
    }

    /// One reader: what is read follows the order in which it was asked.
    pub fn store() -> store::Options {
        store::Options { readers: 1, ..store::Options::default() }
    }
}

fn tools(weather: &Weather, random: &mut Random) -> Option<Policy> {
    let policy = random.pick(&[Policy::AlwaysAllow, Policy::AlwaysAsk]);
    random.chance(weather.tools).then_some(policy)
}

/// How many turns an agent or a source may have: mostly any number.
fn turns(weather: &Weather, random: &mut Random) -> TurnLimits {
    let at_once_max = random.chance(30).then(|| random.pick(weather.at_once));
    // As many that all events get their turn within the minutes that a world has to come to rest.
    let enough = u32::try_from(weather.events.1 / 3).unwrap();
    let per_minute_max =
        random.chance(15).then(|| (random.pick(&[4, 10]) * weather.at_once[0]).max(enough));
    TurnLimits { at_once_max, per_minute_max }
}

/// Where a source's events go.
#[derive(Clone, Debug)]
pub enum Target {
    NewSession,
    Key(u64),
    /// One of the sessions that exist from the start.
    Fixed(usize),
    /// A session that does not exist.
    Missing,
    Held,
    Filtered,
}

/// Sessions that each agent has from the start: of the usual environment and of the project, in
/// which one works at a time.
pub const FIXED_PER_AGENT: usize = 2;

/// Something that comes from outside.
#[derive(Clone, Debug)]
pub enum Happening {
    /// A sender makes a request for its event.
    Request {
        event: usize,
    },
    /// A person says something in a session.
    Speech {
        n_messages: u64,
        fresh: bool,
    },
    Pause {
        agent: usize,
        paused: bool,
    },
    /// From now on an agent may have so many turns at once.
    Limit {
        agent: usize,
        at_once_max: Option<u32>,
    },
    Archive {
        session: usize,
    },
    /// Somebody answers for a call that waits.
    Answer {
        ask: Ask,
    },
    /// Somebody stops whatever goes on in a session.
    Interrupt,
    /// A process of this node begins to run.
    Start {
        node: usize,
    },
    /// A wake arrives.
    Bell {
        node: usize,
    },
    /// A node that was stopped, or whose database hung, goes on.
    GoOn {
        node: usize,
    },
    /// The database does again what it refused to do.
    Mend,
    Quiet,
}

/// A call that somebody has to answer for.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Ask {
    pub session: String,
    /// Its place in the session's log.
    pub seq: i64,
    pub wanted: String,
}

/// What a sender wants to tell. It asks again until it is answered.
#[derive(Clone, Debug)]
pub struct Event {
    pub shop: usize,
    pub target: Target,
    pub cut: bool,
}

pub fn draw(
    shape: &Shape,
    weather: &Weather,
    random: &mut Random,
) -> (Vec<Event>, Vec<(Duration, Happening)>) {
    let n_fixed = shape.models.len() * FIXED_PER_AGENT;
    let (mut events, mut plan) = (Vec::new(), vec![(QUIET, Happening::Quiet)]);
    let n_events = random.range(shape.events.0..shape.events.1);
    for number in 0..n_events as usize {
        let target = match random.below(20) {
            0..5 => Target::NewSession,
            5..12 => Target::Key(random.below(3)),
            12..17 => Target::Fixed(random.index(n_fixed)),
            17 => Target::Missing,
            18 => Target::Held,
            _ => Target::Filtered,
        };
        let shop = random.index(shape.sources.len());
        events.push(Event { shop, target, cut: shape.cuts && random.chance(40) });
        // In bursts, because that is when things meet.
        let first = match random.below(3) {
            0 => random.ms(0..BUSY),
            _ => Duration::from_millis(random.below(5) * 2000) + random.ms(0..40),
        };
        plan.push((first, Happening::Request { event: number }));
        while random.chance(35) {
            let later = if random.chance(50) { random.ms(0..5) } else { random.ms(0..BUSY) };
            plan.push((first + later, Happening::Request { event: number }));
        }
    }
    for _ in 0..random.below(10) {
        let speech = Happening::Speech { n_messages: random.range(1..4), fresh: random.chance(20) };
        plan.push((random.ms(0..BUSY), speech));
    }
    for _ in 0..random.below(3) {
        let (agent, from) = (random.index(shape.models.len()), random.ms(0..BUSY));
        plan.push((from, Happening::Pause { agent, paused: true }));
        plan.push((from + random.ms(10..4000), Happening::Pause { agent, paused: false }));
    }
    for _ in 0..random.below(3) {
        let at_once_max = random.chance(70).then(|| random.pick(weather.at_once));
        let agent = random.index(shape.models.len());
        plan.push((random.ms(0..BUSY), Happening::Limit { agent, at_once_max }));
    }
    for _ in 0..random.below(3) {
        plan.push((random.ms(0..BUSY), Happening::Archive { session: random.index(n_fixed) }));
    }
    for _ in 0..random.below(4) {
        plan.push((random.ms(0..BUSY), Happening::Interrupt));
    }
    for node in 0..shape.n_nodes {
        plan.push((random.ms(0..2000), Happening::Start { node }));
    }
    (events, plan)
}
