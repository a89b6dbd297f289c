//! Reads the sections about what agents run: the sandbox, the shells in it, and their way out.
//!
//! As in `section`, every field is named.

use super::{
    reader::Reader,
    value::{absolute_path, choice, list, number, text},
};
use crate::{
    runtime::shells,
    tool::{
        egress,
        sandbox::{self, Mode},
        shell,
    },
};

const MIB: u64 = 1 << 20;
const TIB: u64 = 1 << 40;

const MODES: [(&str, Mode); 2] = [("auto", Mode::Auto), ("none", Mode::None)];

pub(super) fn sandbox(reader: &mut Reader<'_>) -> sandbox::Options {
    let default = sandbox::Options::default();
    let bytes = || number(MIB..=TIB, "bytes");
    sandbox::Options {
        mode: reader.get("sandbox.mode", default.mode, choice(&MODES)),
        user: reader.get("sandbox.user", default.user, number(1..=4_294_967_293, "user")),
        memory_bytes_max: reader.get(
            "sandbox.memory_bytes_max",
            default.memory_bytes_max,
            number(64 * MIB..=TIB, "bytes"),
        ),
        processes_max: reader.get(
            "sandbox.processes_max",
            default.processes_max,
            number(16..=65_536, "processes"),
        ),
        open_files_max: reader.get(
            "sandbox.open_files_max",
            default.open_files_max,
            number(128..=1_000_000, "files"),
        ),
        file_bytes_max: reader.get("sandbox.file_bytes_max", default.file_bytes_max, bytes()),
        cpu_seconds_max: reader.get(
            "sandbox.cpu_seconds_max",
            default.cpu_seconds_max,
            number(1..=1_000_000, "seconds"),
        ),
        tmp_bytes_max: reader.get("sandbox.tmp_bytes_max", default.tmp_bytes_max, bytes()),
        workspace_bytes_max: reader.get(
            "sandbox.workspace_bytes_max",
            default.workspace_bytes_max,
            bytes(),
        ),
        free_disk_bytes_min: reader.get(
            "sandbox.free_disk_bytes_min",
            default.free_disk_bytes_min,
            number(0..=TIB, "bytes"),
        ),
        paths: reader.get("sandbox.paths", Vec::new(), list(64, absolute_path)),
    }
}

pub(super) fn shells(reader: &mut Reader<'_>) -> shells::Options {
    let default = shells::Options::default();
    let command = default.command;
    let options = shells::Options {
        shells_max: reader.get("shell.shells_max", default.shells_max, number(1..=4096, "shells")),
        idle_seconds: reader.get(
            "shell.idle_seconds",
            default.idle_seconds,
            number(1..=86_400, "seconds"),
        ),
        command: shell::Options {
            timeout_ms: reader.get(
                "shell.timeout_ms",
                command.timeout_ms,
                number(100..=86_400_000, "milliseconds"),
            ),
            timeout_ms_max: reader.get(
                "shell.timeout_ms_max",
                command.timeout_ms_max,
                number(100..=86_400_000, "milliseconds"),
            ),
            answer_bytes_max: reader.get(
                "shell.answer_bytes_max",
                command.answer_bytes_max,
                number(1_000..=10_000_000, "bytes"),
            ),
            output_bytes_max: reader.get(
                "shell.output_bytes_max",
                command.output_bytes_max,
                number(10_000..=64 << 30, "bytes"),
            ),
        },
        egress: egress(reader),
    };
    if options.command.timeout_ms > options.command.timeout_ms_max {
        reader.problem("shell.timeout_ms", "must be at most `shell.timeout_ms_max`");
    }
    options
}

fn egress(reader: &mut Reader<'_>) -> egress::Options {
    let default = egress::Options::default();
    egress::Options {
        connections_max: reader.get(
            "egress.connections_max",
            default.connections_max,
            number(1..=10_000, "connections"),
        ),
        bytes_max: reader.get("egress.bytes_max", default.bytes_max, number(MIB..=TIB, "bytes")),
        connect_seconds: reader.get(
            "egress.connect_seconds",
            default.connect_seconds,
            number(1..=300, "seconds"),
        ),
        idle_seconds: reader.get(
            "egress.idle_seconds",
            default.idle_seconds,
            number(1..=86_400, "seconds"),
        ),
        ports: reader.get("egress.ports", default.ports, list(64, number(1..=65_535, "port"))),
        package_hosts: reader.get(
            "egress.package_hosts",
            default.package_hosts,
            list(256, text(253)),
        ),
    }
}
