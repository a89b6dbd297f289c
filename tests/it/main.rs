//! The one integration test binary. Each module tells its stories through the front door;
//! `support` is what they share and `tidy` holds the rules about the source itself.

#![expect(unreachable_pub, reason = "nobody links a test binary; `pub` means: for other modules")]
#![allow(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a test fails by panicking, and what it prints is shown when it fails"
)]

mod check;
mod cli;
mod crash;
mod declared;
mod fuzzed;
mod many;
mod model;
mod obeying;
mod observe;
mod outbox;
mod process;
mod sandbox;
mod senders;
mod simulation;
mod store;
mod support;
mod tidy;
mod tools;
mod turns;
mod web;
mod work;
