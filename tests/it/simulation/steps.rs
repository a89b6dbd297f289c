//! One small world, and in it a death at every point: it is lived through once to count its steps,
//! and then once for each of them, with the process that made the step dying right after it.
//!
//! What a process does to the outside it does in these steps: it asks the database or a model when
//! its tasks run, and nothing of that is committed or answered before another step. So there is no
//! await at which a death could be seen and that is not among them.

use std::{collections::BTreeSet, time::Duration};

use super::{
    Told,
    plan::{CALM, Event, Happening, SCRIPTED, Shape, Shop, Target, Weather},
    random::Random,
    world::World,
};
use crate::support::{full, seeds};

/// What the world must have seen, so that there is a death before and after it.
const SEEN: [&str; 5] = [
    "agent.tool_use",
    "agent.tool_result",
    "session.error",
    "session.status_rescheduled",
    "agent.message",
];

#[test]
fn alone_a_process_dies_at_every_step() {
    let alone = Weather { name: "alone_a_process_dies_at_every_step", nodes_max: 1, ..CALM };
    die_at_every_step(&alone);
}

#[test]
fn beside_another_a_process_dies_at_every_step() {
    let two = Weather { name: "beside_another_a_process_dies_at_every_step", nodes_max: 2, ..CALM };
    die_at_every_step(&two);
}

fn die_at_every_step(weather: &Weather) {
    let (script, n) = (0..)
        .find_map(|script| {
            let mut told =
                Told { seed: script, weather: weather.name, world: small(script, weather) };
            told.world.settle();
            let n = told.world.n_acts;
            told.world.close();
            let watch = told.world.watch.lock().unwrap();
            let log = watch.referee.logs.values().flatten();
            let seen: BTreeSet<&str> = log.map(|entry| entry.kind.as_str()).collect();
            SEEN.iter().all(|kind| seen.contains(kind)).then_some((script, n))
        })
        .expect("there are worlds enough");
    // After the first round, whoever took over dies as well, so many steps later.
    let rounds = if full() { 40 } else { 1 };
    let seeds = seeds().unwrap_or(0..n * rounds);
    for seed in seeds.clone() {
        let (first, later) = (1 + seed % n, seed / n);
        let mut told = Told { seed, weather: weather.name, world: small(script, weather) };
        told.world.crashes_at.push(first);
        told.world.crashes_at.extend((later > 0).then_some(first + later));
        told.world.live();
        assert!(!told.world.crashes_at.contains(&first), "nobody died after step {first} of {n}");
    }
    println!("{}: script {script} of {n} steps, {seeds:?}", weather.name);
}

/// Two events of one conversation, one of which comes twice, another one in the project, and a person.
fn small(script: u64, weather: &Weather) -> World {
    let mut random = Random::new(script);
    let mut shape = Shape::draw(weather, &mut random);
    shape.n_nodes = weather.nodes_max as usize;
    shape.models = vec![SCRIPTED];
    shape.sources = vec![Shop { agent: 0, rerun_failed: true }];
    shape.worker.turns_max = 2;
    shape.worker.lease_seconds = 2;
    shape.worker.poll_ms = 3000;
    shape.model.retries_max = 1;
    shape.model_failures = 30;
    shape.cuts = true;
    // Each operation has a commit of its own, so that there is a point between any two.
    (shape.batch_max, shape.slow) = (1, 0);
    (shape.wakes_lost, shape.wakes_doubled) = (0, 0);
    let to = |target, cut| Event { shop: 0, target, cut };
    let events =
        vec![to(Target::Key(0), true), to(Target::Key(0), false), to(Target::Fixed(1), true)];
    let at = Duration::from_millis;
    let mut happenings = vec![
        (at(10), Happening::Request { event: 0 }),
        (at(11), Happening::Request { event: 0 }),
        (at(30), Happening::Request { event: 1 }),
        (at(30), Happening::Request { event: 2 }),
        (at(60), Happening::Speech { n_messages: 2, fresh: false }),
        (at(200), Happening::Quiet),
    ];
    happenings.extend((0..shape.n_nodes).map(|node| (at(0), Happening::Start { node })));
    World::of(shape, events, happenings, weather, random)
}
