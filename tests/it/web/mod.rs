//! HTTP through the front door: what callers send and what they are told.

mod access;
mod backtests;
mod bad_input;
pub mod client;
mod contract;
mod frame;
mod hooks;
mod managed;
mod metrics;
mod own;
mod replays;
mod routing;
pub mod server;
mod sessions;
mod socket;
mod streams;
mod ui;
