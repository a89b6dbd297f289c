//! Bellpull: any event pulls the cord, an agent answers: once, in order, within budget, in the open.
//!
//! The modules in reading order follow a webhook from socket to transcript. ARCHITECTURE.md has the
//! map; `tests/it/tidy.rs` holds the allowed directions of dependency.

pub mod agent;
pub mod app;
pub mod cli;
pub mod clock;
pub mod config;
pub mod domain;
pub mod fetch;
pub mod id;
pub mod ingest;
pub mod metrics;
pub mod model;
pub mod outbox;
pub mod preview;
pub mod projects;
pub mod runtime;
pub mod schedule;
pub mod signal;
pub mod store;
pub mod tool;
pub mod trust;
pub mod vault;
pub mod web;
pub mod worker;
