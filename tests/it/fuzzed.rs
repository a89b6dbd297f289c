//! The entries that `fuzz/` fuzzes, each time the tests run: on its seeds, on seeds with changes, and
//! on bytes of any kind, so many of them.

mod entries;

use std::{path::Path, time::Duration};

use proptest::{
    prelude::*,
    test_runner::{Config, TestRunner},
};

use crate::support;

/// Longer than anything here takes on a machine that does other things as well.
const LONG: Duration = Duration::from_secs(20);

fn seeds(target: &str) -> Vec<Vec<u8>> {
    let place = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/seeds").join(target);
    let files = std::fs::read_dir(&place).expect("the seeds are there");
    let mut paths: Vec<_> = files.map(|file| file.expect("a file").path()).collect();
    paths.sort();
    paths.iter().map(|path| std::fs::read(path).expect("it is read")).collect()
}

fn run(target: &str, entry: fn(&[u8])) {
    let seeds = seeds(target);
    assert!(seeds.len() >= 3, "{target} has {} seeds", seeds.len());
    for seed in &seeds {
        entry(seed);
    }
    let seed = prop::sample::select(seeds);
    let changes = prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..8);
    let changed = (seed, changes, any::<prop::sample::Index>()).prop_map(|(seed, changes, cut)| {
        let mut data = seed;
        for (at, byte) in changes {
            let at = at.index(data.len());
            data[at] = byte;
        }
        data.truncate(cut.index(data.len() * 2).max(1));
        data
    });
    let bytes = prop::collection::vec(any::<u8>(), 0..4096);
    let data = prop_oneof![3 => changed, 1 => bytes];
    let cases = if support::full() { 20_000 } else { 1_000 };
    let mut runner = TestRunner::new(Config { cases, ..Config::default() });
    let outcome = runner.run(&data, |data| {
        let started = std::time::Instant::now();
        entry(&data);
        prop_assert!(started.elapsed() < LONG, "it took {:?}", started.elapsed());
        Ok(())
    });
    outcome.expect("every input comes to an end");
}

#[test]
fn requests_of_any_kind_are_refused_in_peace() {
    run("gate", entries::gate);
}

#[test]
fn verifiers_of_any_kind_are_read_or_refused() {
    run("verifier", entries::verifier);
}

/// Nothing of this is quick on a body that is made to be slow: deep, wide, or full of signs.
#[test]
fn hostile_bodies_come_to_an_end() {
    let mib = 1024 * 1024;
    let head = b"a: sha256=00\ncontent-type: application/x-www-form-urlencoded\n\n";
    let json = b"a: 00\n\n";
    for (head, body) in [
        (&head[..], "a=1&".repeat(mib / 4)),
        (&head[..], "%".repeat(mib)),
        (&json[..], "[".repeat(mib)),
        (&json[..], "{\"a\":".repeat(mib / 5)),
        (&json[..], format!("{{\"l\":[{}{{}}]}}", "{\"s\":\"00\"},".repeat(mib / 11))),
        (&json[..], format!("{{\"a\":[{}0]}}", "{\"b\":\"\"},".repeat(mib / 9))),
    ] {
        let started = std::time::Instant::now();
        entries::gate(&[head, body.as_bytes()].concat());
        assert!(started.elapsed() < LONG, "{:?}", started.elapsed());
    }
}
