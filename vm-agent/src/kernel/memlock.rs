//! The limit of locked memory, which kernels before 5.11 charge for maps.
#![expect(unsafe_code, reason = "a system call on a struct")]

use std::io;

/// Lifts the limit for this process. Newer kernels charge maps to the control group instead and ignore it, so a refusal
/// shows only where it matters: when a map cannot be created.
pub(super) fn lift() {
    let unlimited = libc::rlimit { rlim_cur: libc::RLIM_INFINITY, rlim_max: libc::RLIM_INFINITY };
    // SAFETY: the kernel reads a struct that lives across the call.
    if unsafe { libc::setrlimit(libc::RLIMIT_MEMLOCK, &raw const unlimited) } != 0 {
        tracing::debug!(error = %io::Error::last_os_error(), "the limit of locked memory stays");
    }
}
