//! `confine COMMAND PROGRAM…`: runs a program to which the kernel refuses one command of bpf(2), as one that does not
//! have it does.
#![expect(unsafe_code, reason = "a system call filter is installed by pointer")]

use std::os::unix::process::CommandExt as _;
use std::process::Command;

use anyhow::{Context, Result, bail};
use libc::{BPF_ABS, BPF_JEQ, BPF_JMP, BPF_K, BPF_LD, BPF_RET, BPF_W, sock_filter};

/// Offsets in `struct seccomp_data`.
const NUMBER: u32 = 0;
const FIRST_ARGUMENT: u32 = 16;

fn main() -> Result<()> {
    let mut words = std::env::args().skip(1);
    let refused = match words.next().as_deref() {
        Some("map-create") => 0,
        Some("prog-load") => 5,
        _ => bail!("usage: confine map-create|prog-load PROGRAM…"),
    };
    let program = words.next().context("no program named")?;
    confine(refused)?;
    Err(Command::new(program).args(words).exec().into())
}

/// Has the kernel answer `EINVAL` to a command of bpf(2), for this process and what it becomes.
fn confine(command: u32) -> Result<()> {
    let is = |value: u32, skip: u8| step(BPF_JMP | BPF_JEQ | BPF_K, 0, skip, value);
    let mut filter = [
        step(BPF_LD | BPF_W | BPF_ABS, 0, 0, NUMBER),
        is(u32::try_from(libc::SYS_bpf)?, 3),
        step(BPF_LD | BPF_W | BPF_ABS, 0, 0, FIRST_ARGUMENT),
        is(command, 1),
        step(BPF_RET | BPF_K, 0, 0, libc::SECCOMP_RET_ERRNO | u32::try_from(libc::EINVAL)?),
        step(BPF_RET | BPF_K, 0, 0, libc::SECCOMP_RET_ALLOW),
    ];
    let program = libc::sock_fprog { len: u16::try_from(filter.len())?, filter: filter.as_mut_ptr() };
    // SAFETY: the kernel copies a program that lives across the call.
    let done = unsafe {
        libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0
            && libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &raw const program) == 0
    };
    if done { Ok(()) } else { Err(std::io::Error::last_os_error().into()) }
}

fn step(code: u32, yes: u8, no: u8, k: u32) -> sock_filter {
    sock_filter { code: u16::try_from(code).unwrap_or_default(), jt: yes, jf: no, k }
}
