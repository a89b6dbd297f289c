//! A world: nodes on one database, those who write to them, and time, all moved by one seed.
//!
//! In each step one thing happens: the tasks of a process run until they wait, or its database does
//! one read or one commit, or, when nobody can do anything, time moves on to whatever is next. The
//! seed decides who comes first, and what goes wrong in between.

use std::{
    collections::{BTreeMap, VecDeque},
    path::PathBuf,
    sync::{Arc, Mutex, mpsc},
    time::Duration,
};

use bellpull::clock::{Clock, Timestamp};
use tempfile::TempDir;

use super::{
    model::{Caller, Watch},
    node::{Node, Process},
    plan::{self, Ask, Event, Happening, Shape, Weather},
    random::Random,
    referee::Referee,
    senders::{About, Heard, Ledger, Names},
    setup,
};

const START: Timestamp = Timestamp(1_800_000_000_000);

/// Longer after the last trouble nothing may be left to do.
const SETTLED_WITHIN: Duration = Duration::from_secs(300);

/// Steps after which a world is going round in circles.
const STEPS_MAX: u64 = 300_000;

/// What is still allowed to go wrong.
#[derive(Clone, Copy, Debug, Default)]
pub struct Troubles {
    pub crashes: u64,
    pub stops: u64,
    pub hangs: u64,
    pub breaks: u64,
    pub drains: u64,
}

#[derive(Clone, Copy, Debug)]
pub enum Blow {
    Death,
    /// For longer than its lease.
    Standstill,
}

#[derive(Debug)]
pub struct World {
    pub shape: Shape,
    pub random: Random,
    pub clock: Clock,
    pub nodes: Vec<Node>,
    pub watch: Arc<Mutex<Watch>>,
    pub events: Vec<Event>,
    pub names: Names,
    pub ledger: Ledger,
    pub in_flight: BTreeMap<u64, (usize, About)>,
    pub n_questions: u64,
    pub heard: (mpsc::Sender<Heard>, mpsc::Receiver<Heard>),
    pub troubles: Troubles,
    pub broken: bool,
    pub quiet: bool,
    pub n_steps: u64,
    /// Steps in which a process did something.
    pub n_acts: u64,
    /// What befalls a process right after it did something, whatever chance says: by that act.
    pub blows: Vec<(u64, Blow)>,
    closing: bool,
    plan: BTreeMap<(Duration, u64), Happening>,
    n_planned: u64,
    file: PathBuf,
    trace: Trace,
    pub directory: TempDir,
}

#[derive(Clone, Copy, Debug)]
enum Act {
    Run,
    Read,
    Write,
}

impl World {
    pub fn new(seed: u64, weather: &Weather) -> World {
        let mut random = Random::new(seed);
        let shape = Shape::draw(weather, &mut random);
        let (events, happenings) = plan::draw(&shape, weather, &mut random);
        World::of(shape, events, happenings, weather, random)
    }

    pub fn of(
        shape: Shape,
        events: Vec<Event>,
        happenings: Vec<(Duration, Happening)>,
        weather: &Weather,
        mut random: Random,
    ) -> World {
        let directory = setup::directory();
        let file = directory.path().join("bellpull.db");
        let clock = Clock::simulated(START);
        let names = setup::furnish(&file, &clock, &shape);
        let referee = Referee::open(&file);
        let mut some = |max: u64| random.below(max + 1);
        let troubles = Troubles {
            crashes: some(weather.crashes),
            stops: some(weather.stops),
            hangs: some(weather.hangs),
            breaks: some(weather.breaks),
            drains: some(weather.drains),
        };
        let watch = Watch::new(referee, random.clone(), clock.clone(), shape.model_failures);
        let mut world = World {
            nodes: (0..shape.n_nodes).map(Node::new).collect(),
            shape,
            random,
            clock,
            watch: Arc::new(Mutex::new(watch)),
            events,
            names,
            ledger: Ledger::default(),
            in_flight: BTreeMap::new(),
            n_questions: 0,
            heard: mpsc::channel(),
            troubles,
            broken: false,
            quiet: false,
            n_steps: 0,
            n_acts: 0,
            blows: Vec::new(),
            closing: false,
            plan: BTreeMap::new(),
            n_planned: 0,
            file,
            trace: Trace::default(),
            directory,
        };
        for (at, happening) in happenings {
            world.at(at, happening);
        }
        world
    }

    /// Lives to the end: all trouble is over, nothing is due any more, every process has ended.
    pub fn live(&mut self) {
        self.settle();
        self.close();
    }

    /// Until all trouble is over and nothing is due any more.
    pub fn settle(&mut self) {
        while !(self.quiet && self.is_settled()) {
            self.step();
            let late = self.elapsed() > plan::QUIET + SETTLED_WITHIN;
            assert!(!late && self.n_steps < STEPS_MAX, "it does not come to rest: {}", self.rest());
        }
        self.note(|| "settled".to_owned());
    }

    /// Ends the processes, and looks at what is left.
    pub fn close(&mut self) {
        self.closing = true;
        for node in &self.nodes {
            node.process.iter().for_each(|process| process.stop.cancel());
        }
        let closed_by = self.elapsed() + Duration::from_secs(60);
        self.touch_all();
        while self.nodes.iter().any(|node| node.process.is_some()) {
            self.step();
            assert!(self.elapsed() < closed_by, "a worker does not end");
        }
        self.watch.lock().unwrap().referee.read_again();
        super::books::balance(self);
        self.judge();
    }

    pub fn elapsed(&self) -> Duration {
        self.clock.now().since(START)
    }

    /// Nobody waits for an answer, nothing is planned, and no session wants work.
    fn is_settled(&self) -> bool {
        let watch = self.watch.lock().unwrap();
        let at_rest = watch.referee.sessions.values().all(|row| row.next_at.is_none());
        let idle =
            |process: &Process| process.waits_since().is_none() && process.waiting() == (0, 0);
        let nodes = self.nodes.iter().filter_map(|node| node.process.as_ref()).all(idle);
        at_rest && nodes && self.in_flight.is_empty() && self.plan.is_empty()
    }

    /// What there is still to do, for whoever wonders.
    fn rest(&self) -> String {
        let watch = self.watch.lock().unwrap();
        let due: Vec<_> =
            watch.referee.sessions.iter().filter(|(_, row)| row.next_at.is_some()).collect();
        format!(
            "after {:?} and {} steps: {due:#?} {:?} {:?}",
            self.elapsed(),
            self.n_steps,
            self.in_flight,
            self.plan
        )
    }

    fn step(&mut self) {
        self.n_steps += 1;
        let now = self.elapsed();
        if let Some(entry) = self.plan.first_entry().filter(|entry| entry.key().0 <= now) {
            let happening = entry.remove();
            self.note(|| format!("{happening:?}"));
            self.happen(happening);
        } else if let Some((node, act)) = self.choose() {
            self.act(node, act);
            self.hear();
            self.suffer(node);
            if self.random.chance(self.shape.slow) {
                let late = self.random.ms(1..30);
                self.advance(late);
            }
        } else {
            let planned = self.plan.first_key_value().map(|((at, _), _)| *at - now);
            let next = [planned, self.clock.next_wait()].into_iter().flatten().min();
            self.advance(next.expect("somebody waits for something"));
        }
        self.judge();
    }

    /// Stops at the first thing that must not be.
    fn judge(&mut self) {
        let (violations, notes) = {
            let referee = &mut self.watch.lock().unwrap().referee;
            (std::mem::take(&mut referee.violations), std::mem::take(&mut referee.notes))
        };
        for note in notes {
            self.note(|| note);
        }
        assert!(violations.is_empty(), "{}", violations.join("\n"));
    }

    pub fn at(&mut self, at: Duration, happening: Happening) {
        self.n_planned += 1;
        self.plan.insert((at, self.n_planned), happening);
    }

    pub fn after(&mut self, pause: Duration, happening: Happening) {
        self.at(self.elapsed() + pause, happening);
    }

    fn advance(&mut self, by: Duration) {
        self.clock.advance(by);
        self.touch_all();
    }

    fn touch_all(&mut self) {
        for node in &mut self.nodes {
            node.process.iter_mut().for_each(Process::touch);
        }
    }

    /// One of all the things that can happen now.
    fn choose(&mut self) -> Option<(usize, Act)> {
        let now = self.elapsed();
        let mut choices = Vec::new();
        for (number, node) in self.nodes.iter().enumerate() {
            let Some(process) = node.process.as_ref().filter(|_| node.stopped_until <= now) else {
                continue;
            };
            let (n_reads, n_writes) = process.waiting();
            let answers = node.hangs_until <= now;
            choices.extend(process.waits_since().map(|_| (number, Act::Run)));
            choices.extend((answers && n_reads > 0).then_some((number, Act::Read)));
            choices.extend((answers && n_writes > 0).then_some((number, Act::Write)));
        }
        if choices.is_empty() { None } else { Some(self.random.pick(&choices)) }
    }

    fn act(&mut self, number: usize, act: Act) {
        self.n_acts += 1;
        let now = self.clock.now();
        let node = &mut self.nodes[number];
        let process = node.process.as_mut().expect("it was chosen");
        let waiting = process.waiting();
        match act {
            Act::Run => {
                self.excuse(number);
                let process = self.nodes[number].process.as_mut().expect("it was chosen");
                process.run(self.shape.files());
                let [runtime, worker] = process.wakes();
                let has_ended = process.has_ended();
                for _ in 0..runtime {
                    self.wake(number, true);
                }
                for _ in 0..worker {
                    self.wake(number, false);
                }
                if has_ended {
                    self.end(number);
                }
            }
            Act::Read => process.read(),
            Act::Write => {
                let n = 1 + self.random.index(self.shape.batch_max);
                process.write(n);
                let owner = process.owner.clone();
                self.look(&owner, now.0);
            }
        }
        self.note(|| format!("node{number} {act:?} {waiting:?}"));
    }

    /// The referee looks at what was committed, and people at what waits for them now.
    fn look(&mut self, owner: &str, now: i64) {
        let fresh: Vec<Ask> = {
            let referee = &mut self.watch.lock().unwrap().referee;
            let before = referee.asks.clone();
            referee.look(owner, now);
            referee.asks.difference(&before).cloned().collect()
        };
        for ask in fresh {
            let is_heard = self.quiet || !self.random.chance(self.shape.silence);
            let pause = self.random.ms(0..2500);
            if is_heard {
                self.after(pause, Happening::Answer { ask: ask.clone() });
            }
            // Two at once, of whom one comes too late.
            if is_heard && self.random.chance(20) {
                let pause = pause + self.random.ms(0..4);
                self.after(pause, Happening::Answer { ask });
            }
        }
    }

    /// Processes that did not run since time went on for them cannot know that their lease is over.
    fn excuse(&mut self, running: usize) {
        let now = self.elapsed();
        let others = self.nodes.iter().enumerate().filter(|(number, _)| *number != running);
        let excused = others.filter_map(|(_, node)| {
            let process = node.process.as_ref()?;
            let late = process.waits_since().is_some_and(|it| it > Duration::from_millis(100));
            (node.stopped_until > now || late).then(|| process.owner.clone())
        });
        self.watch.lock().unwrap().excused = excused.collect();
    }

    /// The worker of this node has come to its end.
    fn end(&mut self, number: usize) {
        let process = self.nodes[number].process.take().expect("it has just run");
        assert!(process.stop.is_cancelled(), "a worker ended by itself");
        drop(process);
        self.lose(number);
        if !self.closing {
            let pause = self.random.ms(10..5000);
            self.after(pause, Happening::Start { node: number });
        }
    }

    pub fn crash(&mut self, number: usize) {
        self.note(|| format!("node{number} dies"));
        drop(self.nodes[number].process.take());
        self.nodes[number].stopped_until = Duration::ZERO;
        self.nodes[number].hangs_until = Duration::ZERO;
        self.lose(number);
        let pause = self.random.ms(10..6000);
        self.after(pause, Happening::Start { node: number });
    }

    /// Begins a process, unless there is one.
    pub fn start(&mut self, number: usize) {
        let node = &mut self.nodes[number];
        if node.process.is_some() {
            return;
        }
        node.boots += 1;
        let owner = format!("{}:{}", node.name, node.boots);
        let mut process = Process::open(&self.file, &self.clock, owner.clone());
        let caller = Caller { owner, watch: self.watch.clone() };
        process.employ(node, &self.shape, self.directory.path(), Arc::new(caller));
        node.process = Some(process);
    }

    /// Carries a wake to the nodes: lost, late or twice, as it happens.
    pub fn wake(&mut self, from: usize, own: bool) {
        for node in 0..self.nodes.len() {
            if node == from && !own || self.random.chance(self.shape.wakes_lost) {
                continue;
            }
            let n = if self.random.chance(self.shape.wakes_doubled) { 2 } else { 1 };
            for _ in 0..n {
                let late = if self.random.chance(50) { 0 } else { self.random.below(400) };
                self.after(Duration::from_millis(late), Happening::Bell { node });
            }
        }
    }

    pub fn note(&mut self, what: impl FnOnce() -> String) {
        let line = format!("{:>9.3} {}", self.elapsed().as_secs_f64(), what());
        self.trace.add(line);
    }

    /// From now on, instead of only the last of it.
    pub fn remember_all(&mut self) {
        self.trace.kept = usize::MAX;
    }

    pub fn last_lines(&self) -> String {
        self.trace.last.iter().map(|line| format!("{line}\n")).collect()
    }
}

/// The last of what happened.
#[derive(Debug)]
struct Trace {
    last: VecDeque<String>,
    kept: usize,
}

impl Default for Trace {
    fn default() -> Trace {
        Trace { last: VecDeque::new(), kept: 150 }
    }
}

impl Trace {
    fn add(&mut self, line: String) {
        if self.last.len() == self.kept {
            self.last.pop_front();
        }
        self.last.push_back(line);
    }
}
