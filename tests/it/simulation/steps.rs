//! One small world, and in it a blow at every point: it is lived through once to count its steps, and
//! then once for each of them, with the process that made the step dying right after it, or standing
//! still for longer than its lease.
//!
//! What a process does to the outside it does in these steps: it asks the database or a model when
//! its tasks run, and nothing of that is committed or answered before another step. So there is no
//! await at which a death could be seen and that is not among them.

use std::{collections::BTreeSet, time::Duration};

use bellpull::domain::{toolset::Policy, turn::TurnLimits};

use super::{
    Life, Told,
    plan::{CALM, Event, Happening, SCRIPTED, Shape, Shop, Target, Weather},
    random::Random,
    world::{Blow, World},
};
use crate::support::{full, seeds};

/// What the world must have seen, so that there is a death before and after it.
const SEEN: [&str; 8] = [
    "agent.tool_use",
    "agent.tool_result",
    "agent.custom_tool_use",
    "user.custom_tool_result",
    "user.tool_confirmation",
    "session.error",
    "session.status_rescheduled",
    "agent.message",
];

#[test]
fn alone_a_process_dies_at_every_step() {
    let name = "alone_a_process_dies_at_every_step";
    let alone = Weather { name, nodes_max: 1, ..CALM };
    suffer_at_steps(&alone, Blow::Death, |_| true);
}

#[test]
fn alone_a_process_stands_still_at_every_step() {
    let name = "alone_a_process_stands_still_at_every_step";
    let alone = Weather { name, nodes_max: 1, ..CALM };
    suffer_at_steps(&alone, Blow::Standstill, |_| true);
}

#[test]
fn beside_another_a_process_stands_still_at_every_odd_step() {
    let name = "beside_another_a_process_stands_still_at_every_odd_step";
    let two = Weather { name, nodes_max: 2, ..CALM };
    suffer_at_steps(&two, Blow::Standstill, |step| step % 2 == 1);
}

#[test]
fn beside_another_a_process_stands_still_at_every_even_step() {
    let name = "beside_another_a_process_stands_still_at_every_even_step";
    let two = Weather { name, nodes_max: 2, ..CALM };
    suffer_at_steps(&two, Blow::Standstill, |step| step % 2 == 0);
}

/// Lives through the world once for each of these steps; in the long suite again and again, with a
/// death so many steps after the blow.
fn suffer_at_steps(weather: &Weather, blow: Blow, is_one: impl Fn(u64) -> bool) {
    let tried = (0..60).filter_map(|script| {
        let world = small(script, weather);
        let mut told = Told { seed: script, weather: weather.name, world };
        told.world.settle();
        let n = told.world.n_acts;
        told.world.close();
        let watch = told.world.watch.lock().unwrap();
        let log = watch.referee.logs.values().flatten();
        let seen: BTreeSet<&str> = log.map(|entry| entry.kind.as_str()).collect();
        let acted = watch.referee.rows("select id from effects where status = 'done'").len() == 1;
        (acted && SEEN.iter().all(|kind| seen.contains(kind))).then_some((n, script))
    });
    let (n, script) = tried.min().expect("one of them has seen it all");
    let rounds = if full() { 24 } else { 1 };
    let steps: Vec<u64> = (1..=n).filter(|step| is_one(*step)).collect();
    let n_steps = steps.len() as u64;
    let seeds = seeds().unwrap_or(0..n_steps * rounds);
    let mut n_in_doubt = 0;
    for seed in seeds.clone() {
        let (step, round) = (steps[(seed % n_steps) as usize], seed / n_steps);
        let mut told = Told { seed, weather: weather.name, world: small(script, weather) };
        told.world.blows.push((step, blow));
        if round >= 1 {
            // Other distances for each step, and all of them for all steps together.
            let later = 1 + (step + 7 * round) % 38;
            told.world.blows.push((step + later, Blow::Death));
        }
        told.world.live();
        let missed = told.world.blows.iter().any(|(at, _)| *at == step);
        assert!(!missed, "nothing happened after step {step} of {n}");
        n_in_doubt += Life::of(&told.world).n_in_doubt;
    }
    println!("{}: script {script} of {n} steps, {seeds:?}, {n_in_doubt} in doubt", weather.name);
    // Right after it was carried out nobody knows that it was.
    assert!(
        n_in_doubt > 0 || seeds.end - seeds.start < n_steps,
        "no death came at the worst moment"
    );
}

/// Two events of one conversation, one of which comes twice, another one in the project, and a person.
fn small(script: u64, weather: &Weather) -> World {
    let mut random = Random::new(script);
    let mut shape = Shape::draw(weather, &mut random);
    shape.n_nodes = weather.nodes_max as usize;
    shape.models = vec![SCRIPTED];
    shape.tools = vec![Some(Policy::AlwaysAsk)];
    (shape.approval_seconds, shape.silence) = (10, 20);
    shape.sources = vec![Shop { agent: 0, rerun_failed: true, turns: TurnLimits::default() }];
    // Of its three conversations two may be worked on at once.
    shape.turns = vec![TurnLimits { at_once_max: Some(2), per_minute_max: None }];
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
        (at(4000), Happening::Quiet),
    ];
    happenings.extend((0..shape.n_nodes).map(|node| (at(0), Happening::Start { node })));
    World::of(shape, events, happenings, weather, random)
}
