//! Whether the tasks that matter still get on: what the watchdog of the service manager is fed by.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// The pulses of a daemon's main tasks; cloning shares them.
#[derive(Clone, Debug, Default)]
pub struct Pulses {
    tasks: Arc<Mutex<Vec<Pulse>>>,
}

/// The pulse of one task: whether it works on something, and since when. Waiting for something to do is no work.
#[derive(Clone, Debug)]
pub struct Pulse {
    name: &'static str,
    limit: Duration,
    busy_since: Arc<Mutex<Option<Instant>>>,
}

/// A step of a task; it ends when this is dropped.
#[derive(Debug)]
pub struct Step(Arc<Mutex<Option<Instant>>>);

impl Pulses {
    /// Declares a task of which no step may take longer than `limit`.
    #[must_use]
    pub fn declare(&self, name: &'static str, limit: Duration) -> Pulse {
        let pulse = Pulse { name, limit, busy_since: Arc::default() };
        self.tasks.lock().unwrap_or_else(PoisonError::into_inner).push(pulse.clone());
        pulse
    }

    /// The tasks that hang at this time.
    #[must_use]
    pub fn hanging(&self, now: Instant) -> Vec<&'static str> {
        let tasks = self.tasks.lock().unwrap_or_else(PoisonError::into_inner);
        tasks.iter().filter(|pulse| pulse.hangs(now)).map(|pulse| pulse.name).collect()
    }
}

impl Pulse {
    /// One that nobody feels.
    #[must_use]
    pub fn unwatched() -> Self {
        Pulses::default().declare("unwatched", Duration::MAX)
    }

    /// A step begins.
    #[must_use]
    pub fn step(&self) -> Step {
        *self.busy_since.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
        Step(self.busy_since.clone())
    }

    fn hangs(&self, now: Instant) -> bool {
        let since = *self.busy_since.lock().unwrap_or_else(PoisonError::into_inner);
        since.is_some_and(|since| now.saturating_duration_since(since) > self.limit)
    }
}

impl Drop for Step {
    fn drop(&mut self) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_task_hangs_when_a_step_takes_too_long_and_not_while_it_waits() {
        const LIMIT: Duration = Duration::from_secs(30);
        let pulses = Pulses::default();
        let (kernel, _other) = (pulses.declare("kernel", LIMIT), pulses.declare("operations", LIMIT * 10));
        let later = Instant::now() + LIMIT * 2;
        assert!(pulses.hanging(later).is_empty(), "idle");
        let step = kernel.step();
        assert!(pulses.hanging(Instant::now()).is_empty(), "busy");
        assert_eq!(pulses.hanging(later), ["kernel"]);
        drop(step);
        assert!(pulses.hanging(later).is_empty());
    }
}
