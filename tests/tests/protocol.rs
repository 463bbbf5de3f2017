//! Random histories of the control protocol, in one thread.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use anyhow::{Context as _, Result, bail};
use e2e::long;
use e2e::protocol::{Library, check};

#[test]
fn threat_sync_histories_keep_the_promises_of_the_protocol() -> Result<()> {
    let library = Arc::new(Library::read()?);
    let first = std::env::var("OUTRIGGER_SEED").ok().map(|seed| seed.parse()).transpose()?.unwrap_or(1_u64);
    let count = u64::from(long::rounds(1000, 100_000));
    let workers = std::thread::available_parallelism().map_or(1, |count| count.get().min(2));
    let (next, stop) = (AtomicU64::new(first), AtomicBool::new(false));
    let work = || {
        while !stop.load(Ordering::Relaxed) {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= first + count {
                break;
            }
            if let Err(broken) = check(&library, seed) {
                stop.store(true, Ordering::Relaxed);
                return Some(broken);
            }
        }
        None
    };
    let broken = std::thread::scope(|scope| {
        let workers: Vec<_> = (0..workers).map(|_| scope.spawn(work)).collect();
        workers.into_iter().map(|worker| worker.join().ok().context("a worker")).collect::<Result<Vec<_>>>()
    })?;
    if let Some(broken) = broken.into_iter().flatten().next() {
        bail!("{broken}");
    }
    Ok(())
}
