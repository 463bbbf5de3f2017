//! Memory that is not used goes back to the system: what comes and goes leaves holes between what stays, and the code
//! that has started a daemon does not run again; both would otherwise be counted as the process's.
#![expect(unsafe_code, reason = "two functions of the C library without pointers")]

mod image;

/// Bounds the number of heaps; before there are threads. Each heap of its own keeps what it had at most.
pub fn bound(heaps: i32) {
    // SAFETY: sets a parameter of the allocator, and refuses what it does not know.
    if unsafe { libc::mallopt(libc::M_ARENA_MAX, heaps) } == 0 {
        tracing::debug!("the number of heaps is not bounded");
    }
}

/// Gives back what is free. Others that allocate wait meanwhile.
pub fn give_back() {
    // SAFETY: takes a number; the allocator locks by itself.
    unsafe { libc::malloc_trim(0) };
}

/// Gives back what the program's file has anyway. For a daemon that rests: one at work maps it all again at once.
pub fn let_go_of_program() {
    image::release();
}
