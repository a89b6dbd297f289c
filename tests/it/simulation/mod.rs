//! Worlds that live and die by a seed: the real store on real SQLite, real workers and runtimes, a
//! model behind the real client, in time that is made here.
//!
//! Everything that happens follows from the seed, so the same one always makes the same world. Nodes
//! die at any await, stand still, lose wakes and leases; senders repeat themselves; models fail. A
//! referee looks at the database after every commit, and in the end the books are balanced. A failure
//! prints its seed, and the command that lives that world again and tells all that happened in it.

mod books;
mod happen;
mod model;
mod node;
mod plan;
mod random;
mod referee;
mod senders;
mod setup;
mod steps;
mod world;

use plan::{CALM, CRASHES, FLOODS, MODELS, STANDSTILLS, STORMS, Weather};
use world::World;

use crate::support::{full, seeds};

#[test]
fn wakes_are_lost_and_nothing_else_fails() {
    live_through(&CALM, n_worlds());
}

#[test]
fn processes_die() {
    live_through(&CRASHES, n_worlds());
}

#[test]
fn processes_and_databases_stand_still() {
    live_through(&STANDSTILLS, n_worlds());
}

#[test]
fn models_fail() {
    live_through(&MODELS, n_worlds());
}

#[test]
fn everything_goes_wrong_at_once() {
    live_through(&STORMS, n_worlds());
}

#[test]
fn events_come_by_the_hundred() {
    live_through(&FLOODS, n_worlds() / 30);
}

#[test]
fn the_same_seed_makes_the_same_world() {
    let lines = |seed, weather| live(seed, weather, true).world.last_lines();
    for weather in [&CALM, &CRASHES, &STANDSTILLS, &MODELS, &STORMS] {
        for seed in 0..2 {
            let (once, again) = (lines(seed, weather), lines(seed, weather));
            let differs = once.lines().zip(again.lines()).find(|(one, other)| one != other);
            assert_eq!(differs, None, "{} {seed}", weather.name);
            assert_eq!(once.len(), again.len(), "{} {seed}", weather.name);
        }
        assert_ne!(lines(1, weather), lines(2, weather));
    }
}

/// Worlds of each weather.
fn n_worlds() -> u64 {
    if full() { 1000 } else { 30 }
}

/// Lives through many worlds of one weather.
fn live_through(weather: &Weather, n_worlds: u64) {
    let seeds = seeds().unwrap_or(0..n_worlds);
    let mut all = Life::default();
    for seed in seeds.clone() {
        let life = Life::of(&live(seed, weather, seeds == (seed..seed + 1)).world);
        all.n_steps += life.n_steps;
        all.n_asked += life.n_asked;
        all.n_answered += life.n_answered;
        all.n_expired += life.n_expired;
        all.n_interrupted += life.n_interrupted;
        all.n_effects += life.n_effects;
        all.n_in_doubt += life.n_in_doubt;
    }
    println!("{} {seeds:?}: {all:?}", weather.name);
}

/// A world that came to its end, and whether all that happened in it is remembered.
fn live(seed: u64, weather: &Weather, is_remembered: bool) -> Told {
    let mut told = Told { seed, weather: weather.name, world: World::new(seed, weather) };
    if is_remembered {
        told.world.remember_all();
    }
    told.world.live();
    told
}

/// What there is to say about worlds that came to their end.
#[derive(Debug, Default)]
struct Life {
    n_steps: u64,
    /// Questions to models.
    n_asked: u64,
    /// Calls that somebody answered for, and that nobody did.
    n_answered: u64,
    n_expired: u64,
    /// Turns that somebody stopped, or that made way.
    n_interrupted: u64,
    n_effects: u64,
    n_in_doubt: u64,
}

impl Life {
    fn of(world: &World) -> Life {
        let watch = world.watch.lock().unwrap();
        let count = |of: &str| {
            let rows = watch.referee.rows(&format!("select cast(count(*) as text) from {of}"));
            rows[0][0].as_ref().expect("a count").parse().expect("a number")
        };
        Life {
            n_steps: world.n_steps,
            n_asked: watch.n_asked,
            n_answered: count("approvals where status in ('allow', 'deny', 'done')"),
            n_expired: count("approvals where status = 'expired'"),
            n_interrupted: count("turns where stop_reason = 'interrupted'"),
            n_effects: count("effects"),
            n_in_doubt: count("effects where status = 'in_doubt'"),
        }
    }
}

/// Says at a failure which world it was.
struct Told {
    seed: u64,
    weather: &'static str,
    world: World,
}

impl Drop for Told {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let Told { seed, weather, world } = self;
            eprintln!("{:#?}\n{}", world.shape, world.last_lines());
            eprintln!(
                "seed {seed}; once more, with all that happened: BELLPULL_TEST_SEED={seed} \
                 cargo nextest run -E 'test({weather})'"
            );
        }
    }
}
