//! Preloaded into a program, sets its wall clock wrong by `WRONG_CLOCK_SECONDS`; all other clocks stay right.
#![expect(unsafe_code, reason = "it takes the place of a function of libc")]

use std::sync::OnceLock;

/// What a program finds instead of libc's.
///
/// # Safety
///
/// As `clock_gettime(2)`: `time` is valid for writes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn clock_gettime(clock: libc::clockid_t, time: *mut libc::timespec) -> libc::c_int {
    static WRONG_BY: OnceLock<i64> = OnceLock::new();
    // SAFETY: the arguments are handed on as they came.
    let answer = unsafe { libc::syscall(libc::SYS_clock_gettime, clock, time) };
    if answer == 0 && clock == libc::CLOCK_REALTIME {
        let variable = || std::env::var("WRONG_CLOCK_SECONDS").ok()?.parse().ok();
        let wrong_by = WRONG_BY.get_or_init(|| variable().unwrap_or(0));
        // SAFETY: the caller's promise.
        unsafe { (*time).tv_sec = (*time).tv_sec.saturating_add(*wrong_by) };
    }
    libc::c_int::try_from(answer).unwrap_or(-1)
}
