//! Stories about the store, every one told on SQLite and on PostgreSQL.
//!
//! A story is a function that gets a [`Bench`]; `on_both!` makes a test of it for each database. It
//! sees the store as its callers do, through the public methods. Raw SQL is for what has no verb:
//! breaking something on purpose, and looking whether something is really gone.

/// Makes the tests `<story>::sqlite` and `<story>::postgres` of each story.
macro_rules! on_both {
    ($($story:ident),* $(,)?) => {$(
        mod $story {
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn sqlite() {
                super::$story(crate::store::Bench::sqlite().await).await;
            }

            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn postgres() {
                super::$story(crate::store::Bench::postgres().await).await;
            }
        }
    )*};
}

/// Asserts that a result is an error of one kind.
macro_rules! assert_fails {
    ($result:expr, $error:pat) => {
        match $result {
            Err($error) => {}
            other => panic!("wanted {}, got {other:?}", stringify!($error)),
        }
    };
}

mod accept;
mod acts;
pub mod bench;
mod bodies;
mod configuration;
mod deployments;
mod differential;
mod events;
mod failures;
mod files;
mod gone;
mod hammer;
mod limits;
mod occupancy;
mod operations;
mod queue;
mod repeats;
mod replays;
mod retention;
mod sessions;
mod targets;
mod turns;
mod usage;
mod vaults;

use bench::{Bench, Draft, messages, origin_of};
