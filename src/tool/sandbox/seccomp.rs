//! Which calls of the kernel a program may not make.
//!
//! A list of what is refused, as programs of any kind run here: what makes namespaces and mounts, looks
//! into other processes, loads code into the kernel, and what was a way out before. Sockets are local or
//! of the internet's families, which end in the sandbox's own network; others, as `AF_VSOCK`, reach
//! the host past any namespace.

use anyhow::Context as _;
use seccompiler::{BpfProgram, TargetArch};
use serde_json::{Value, json};

/// Refused as not permitted.
const REFUSED: &[&str] = &[
    "acct",
    "add_key",
    "bpf",
    "chroot",
    "delete_module",
    "finit_module",
    "init_module",
    "kcmp",
    "kexec_file_load",
    "kexec_load",
    "keyctl",
    "lookup_dcookie",
    "mount",
    "move_mount",
    "name_to_handle_at",
    "open_by_handle_at",
    "perf_event_open",
    "pivot_root",
    "process_madvise",
    "process_vm_readv",
    "process_vm_writev",
    "ptrace",
    "quotactl",
    "reboot",
    "request_key",
    "setdomainname",
    "sethostname",
    "setns",
    "settimeofday",
    "swapoff",
    "swapon",
    "syslog",
    "umount2",
    "unshare",
    "userfaultfd",
    "vhangup",
];

/// As if the kernel had not learnt them: whoever tries knows another way. `clone3` hides its flags from
/// this filter; memory without a name or a process is seen by no limit.
const ABSENT: &[&str] = &[
    "clone3",
    "fsconfig",
    "fsmount",
    "fsopen",
    "fspick",
    "io_uring_enter",
    "io_uring_register",
    "io_uring_setup",
    "memfd_create",
    "memfd_secret",
    "mount_setattr",
    "open_tree",
    "quotactl_fd",
];

const EPERM: u32 = 1;
const ENOSYS: u32 = 38;

/// Flags of `clone` that make namespaces: mounts, cgroups, names, messages, users, processes, network.
const NAMESPACES: [u32; 7] =
    [0x0002_0000, 0x0200_0000, 0x0400_0000, 0x0800_0000, 0x1000_0000, 0x2000_0000, 0x4000_0000];

/// Local, internet in its two versions, and what programs ask for their network's interfaces.
const FAMILIES: [u32; 4] = [1, 2, 10, 16];

/// Requests to a terminal that type into it.
const TYPING: [u32; 2] = [0x5412, 0x541c];

/// The bit of calls of another ABI of the same processor, and the instructions that refuse them: load
/// the number, compare, answer.
#[cfg(target_arch = "x86_64")]
const OTHER_ABI: u32 = 0x4000_0000;
#[cfg(target_arch = "x86_64")]
const ERRNO: u32 = 0x0005_0000;

/// For this thread and all that comes after it.
pub(super) fn restrict_calls() -> anyhow::Result<()> {
    for program in programs()? {
        match seccompiler::apply_filter(&program) {
            Ok(()) => {}
            // A kernel without it.
            Err(seccompiler::Error::Seccomp(error)) if error.raw_os_error() == Some(22) => {}
            Err(error) => return Err(anyhow::anyhow!("{error:?}")).context("restrict calls"),
        }
    }
    Ok(())
}

fn programs() -> anyhow::Result<[BpfProgram; 2]> {
    let named = |names: &[&str]| names.iter().map(|name| json!({"syscall": name})).collect();
    let condition = |index: u8, op: Value, value: u32| json!({"index": index, "type": "dword", "op": op, "val": value});
    let mut refused: Vec<Value> = named(REFUSED);
    for flag in NAMESPACES {
        let is_set = condition(0, json!({"masked_eq": flag}), flag);
        refused.push(json!({"syscall": "clone", "args": [is_set]}));
    }
    for request in TYPING {
        refused.push(json!({"syscall": "ioctl", "args": [condition(1, json!("eq"), request)]}));
    }
    for call in ["socket", "socketpair"] {
        let others: Vec<Value> =
            FAMILIES.iter().map(|family| condition(0, json!("ne"), *family)).collect();
        refused.push(json!({"syscall": call, "args": others}));
    }
    let mut first = program(refused, EPERM)?;
    refuse_other_abi(&mut first);
    Ok([first, program(named(ABSENT), ENOSYS)?])
}

fn program(rules: Vec<Value>, errno: u32) -> anyhow::Result<BpfProgram> {
    let filters = json!({"all": {
        "mismatch_action": "allow",
        "match_action": {"errno": errno},
        "filter": rules,
    }});
    let arch: TargetArch =
        std::env::consts::ARCH.try_into().map_err(|_| anyhow::anyhow!("an unknown processor"))?;
    let mut programs = seccompiler::compile_from_json(filters.to_string().as_bytes(), arch)
        .map_err(|error| anyhow::anyhow!("{error}"))?;
    programs.remove("all").context("the filter that was just compiled")
}

#[cfg(target_arch = "x86_64")]
fn refuse_other_abi(program: &mut BpfProgram) {
    let instruction = |code, jt, jf, k| seccompiler::sock_filter { code, jt, jf, k };
    let refuse = [
        instruction(0x20, 0, 0, 0),
        instruction(0x35, 0, 1, OTHER_ABI),
        instruction(0x06, 0, 0, ERRNO | ENOSYS),
    ];
    program.splice(0..0, refuse);
}

#[cfg(not(target_arch = "x86_64"))]
fn refuse_other_abi(_: &mut BpfProgram) {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_filters_compile_for_this_processor() {
        let [refused, absent] = programs().unwrap();
        // The kernel takes no more.
        assert!(refused.len() < 4096 && absent.len() < 4096);
        assert!(refused.len() > REFUSED.len() && absent.len() > ABSENT.len());
    }
}
