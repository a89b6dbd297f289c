//! The program: what wires the modules together and gives them a process to live in.
//!
//! [`Server`] is a running Bellpull, with or without a terminal around it; `serve` and `demo` are the
//! commands that run one, `check` looks at everything that it would need. Nothing in here decides
//! anything about deliveries or turns.

mod backup;
mod check;
mod data_dir;
mod declare;
mod demo;
mod facts;
mod http;
mod listen;
mod log;
mod open_files;
mod serve;
mod server;
mod tasks;
mod vault;
mod workspaces;

pub use backup::{BackupArgs, backup};
pub use check::check;
pub use demo::{DemoArgs, demo};
pub use serve::{ServeArgs, serve};
pub use server::Server;
pub use vault::{VaultCommand, vault};
