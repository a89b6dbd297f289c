//! What the tests share. Nothing in here asserts anything about the product.

pub mod cluster;
pub mod disk;
pub mod mcp_server;
pub mod model_server;
pub mod outside;
pub mod postgres;
pub mod process;
pub mod raw;
pub mod receiver;

/// Whether the long suites run as well: `./test --full` says so. A test that does more then still
/// does the short part without it, so that no test is ever skipped.
#[expect(clippy::disallowed_methods, reason = "the tests have no config to read the environment")]
pub fn full() -> bool {
    std::env::var("BELLPULL_TEST_FULL").is_ok_and(|value| value == "1")
}

/// The worlds that a simulation is to live through instead of its own: `7`, or `7..90`.
#[expect(clippy::disallowed_methods, reason = "the tests have no config to read the environment")]
pub fn seeds() -> Option<std::ops::Range<u64>> {
    let seeds = std::env::var("BELLPULL_TEST_SEED").ok()?;
    let number = |text: &str| text.parse::<u64>().expect("BELLPULL_TEST_SEED holds numbers");
    Some(match seeds.split_once("..") {
        Some((first, end)) => number(first)..number(end),
        None => number(&seeds)..number(&seeds) + 1,
    })
}
