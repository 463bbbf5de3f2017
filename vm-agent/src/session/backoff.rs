//! How long to wait before the next attempt.

use std::time::Duration;

use rand::{Rng, RngExt as _};

/// Waits that double from the first to the last, each a random share of its step, so that hosts that lost the same
/// gateway do not return all at once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Backoff {
    first: Duration,
    last: Duration,
    step: Duration,
}

impl Backoff {
    /// Steps from `first` to `last`.
    #[must_use]
    pub const fn new(first: Duration, last: Duration) -> Self {
        Self { first, last, step: first }
    }

    /// The next wait: between half and all of the step, which then doubles.
    pub fn next<R: Rng>(&mut self, rng: &mut R) -> Duration {
        let wait = self.step.mul_f64(rng.random_range(0.5..=1.0));
        self.step = self.step.saturating_mul(2).min(self.last);
        wait
    }

    /// Starts again from the first step; called once an attempt succeeded.
    pub const fn reset(&mut self) {
        self.step = self.first;
    }
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng as _;
    use rand::rngs::StdRng;

    use super::*;

    #[test]
    fn waits_grow_within_their_bounds_and_start_again() {
        let mut backoff = Backoff::new(Duration::from_millis(200), Duration::from_secs(10));
        let mut rng = StdRng::seed_from_u64(1);
        let mut step = Duration::from_millis(200);
        for _ in 0..12 {
            let wait = backoff.next(&mut rng);
            assert!(wait >= step / 2 && wait <= step, "{wait:?} of {step:?}");
            step = (step * 2).min(Duration::from_secs(10));
        }
        backoff.reset();
        assert!(backoff.next(&mut rng) <= Duration::from_millis(200));
    }

    #[test]
    fn the_seed_decides() {
        let waits = |seed| {
            let mut backoff = Backoff::new(Duration::from_secs(1), Duration::from_secs(1));
            let mut rng = StdRng::seed_from_u64(seed);
            [backoff.next(&mut rng), backoff.next(&mut rng)]
        };
        assert_eq!(waits(1), waits(1));
        assert_ne!(waits(1), waits(2));
    }
}
