//! Memory that was freed goes back to the system: states come and go as a whole, and what they leave between what stays
//! would otherwise be counted as this process's.
#![expect(unsafe_code, reason = "two functions of the C library without pointers")]

use std::time::Duration;

use tokio::sync::watch;
use tokio::time::sleep;

use crate::agent::Agent;

/// The threads share one heap: they allocate little at a time, and each heap of its own keeps what it had at most.
const HEAPS: libc::c_int = 1;
/// After a publication, the time until what it freed is given back.
const PAUSE: Duration = Duration::from_secs(1);

/// Bounds the number of heaps; before there are threads.
pub fn bound() {
    // SAFETY: sets a parameter of the allocator, and refuses what it does not know.
    if unsafe { libc::mallopt(libc::M_ARENA_MAX, HEAPS) } == 0 {
        tracing::debug!("the number of heaps is not bounded");
    }
}

/// Gives freed memory back once things have settled after a change of state.
pub async fn run(agent: std::sync::Arc<Agent>) {
    let mut members = agent.member.subscribe();
    loop {
        let running = members.borrow_and_update().as_ref().map(|member| member.running.subscribe());
        tokio::select! {
            changed = members.changed() => if changed.is_err() { return },
            () = follow(running) => {}
        }
    }
}

async fn follow<T>(running: Option<watch::Receiver<T>>) {
    let Some(mut running) = running else { return std::future::pending().await };
    loop {
        sleep(PAUSE).await;
        // SAFETY: takes a number; the allocator locks by itself.
        unsafe { libc::malloc_trim(0) };
        if running.changed().await.is_err() {
            return;
        }
    }
}
