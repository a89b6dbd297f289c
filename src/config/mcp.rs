//! Reads the section about MCP servers: bounds, hosts near by, and those that are programs.
//!
//! As in `section`, every field is named.

use std::collections::BTreeMap;

use super::{
    problem::join,
    reader::{Entry, Reader},
    value::{list, number, text},
};
use crate::tool::mcp::Options;

/// How MCP servers are asked, and which of them are programs of this machine.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct McpConfig {
    pub options: Options,
    /// Commands by name. They run in the sandbox of whoever asks them.
    pub programs: BTreeMap<String, Vec<String>>,
}

const MIB: u64 = 1 << 20;

pub(super) fn mcp(reader: &mut Reader<'_>) -> McpConfig {
    let default = Options::default();
    let options = Options {
        connect_seconds: reader.get(
            "mcp.connect_seconds",
            default.connect_seconds,
            number(1..=600, "seconds"),
        ),
        call_seconds_max: reader.get(
            "mcp.call_seconds_max",
            default.call_seconds_max,
            number(1..=86_400, "seconds"),
        ),
        answer_bytes_max: reader.get(
            "mcp.answer_bytes_max",
            default.answer_bytes_max,
            number(1024..=256 * MIB, "bytes"),
        ),
        tools_max: reader.get("mcp.tools_max", default.tools_max, number(1..=256, "tools")),
        tools_seconds: reader.get(
            "mcp.tools_seconds",
            default.tools_seconds,
            number(0..=86_400, "seconds"),
        ),
        allowed_private_hosts: reader.get(
            "mcp.allowed_private_hosts",
            default.allowed_private_hosts,
            list(256, text(256)),
        ),
    };
    McpConfig { options, programs: programs(reader) }
}

fn programs(reader: &mut Reader<'_>) -> BTreeMap<String, Vec<String>> {
    reader.know("mcp.servers.<name>", &["command"]);
    let mut programs = BTreeMap::new();
    for (name, values) in reader.entries("mcp.servers") {
        let at = join("mcp.servers", name);
        let mut entry = Entry { reader, at, values };
        let command: Option<Vec<String>> = entry.get("command", list(64, text(4096)));
        match command {
            Some(command) if !command.is_empty() => {
                programs.insert(name.clone(), command);
            }
            _ => entry.problem("command", "is required: a program and its arguments, as a list"),
        }
    }
    programs
}
