//! What is measured, one file per question.

pub mod accept;
pub mod backtest;
pub mod footprint;
pub mod latency;
pub mod many;
pub mod million;
pub mod tool;
pub mod verify;
