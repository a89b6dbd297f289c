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
mod fuzzed;
mod model;
mod observe;
mod process;
mod senders;
mod simulation;
mod store;
mod support;
mod tidy;
mod turns;
mod web;
