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
pub mod openapi;
mod own;
mod replays;
mod routing;
pub mod server;
mod sessions;
mod socket;
mod starting;
mod status;
mod streams;
mod ui;
