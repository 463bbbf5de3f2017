//! What agents were sent and have not taken yet. An agent that answers for its connection and reads nothing would
//! otherwise hold its session, and what it was sent, for ever: its stream is not asked for more, and so sees no time
//! pass.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::tls::Cut;

/// How long an agent may take for one message, of a few KiB.
pub const WRITE_DEADLINE: Duration = Duration::from_mins(1);

/// All messages that are on their way.
#[derive(Debug, Default)]
pub struct Writes {
    open: Mutex<Open>,
}

#[derive(Debug, Default)]
struct Open {
    number: u64,
    writes: BTreeMap<u64, (Instant, Cut)>,
}

/// One message on its way, until it is dropped.
#[derive(Debug)]
pub struct Write {
    writes: Arc<Writes>,
    number: u64,
}

impl Writes {
    /// A message is handed over.
    pub fn begin(self: &Arc<Self>, cut: Cut, now: Instant) -> Write {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        open.number += 1;
        let number = open.number;
        open.writes.insert(number, (now, cut));
        Write { writes: Arc::clone(self), number }
    }

    /// Cuts the connections of those that have not taken a message in time, and says how many these are.
    pub fn cut_overdue(&self, deadline: Duration, now: Instant) -> usize {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let mut count = 0;
        // In the order in which they began.
        while let Some(oldest) = open.writes.first_entry() {
            let (since, cut) = oldest.get();
            if now.saturating_duration_since(*since) < deadline {
                break;
            }
            cut.now();
            count += 1;
            oldest.remove();
        }
        count
    }
}

impl Drop for Write {
    fn drop(&mut self) {
        self.writes.open.lock().unwrap_or_else(PoisonError::into_inner).writes.remove(&self.number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_who_takes_too_long_is_cut_and_once() {
        let (writes, now, second) = (Arc::new(Writes::default()), Instant::now(), Duration::from_secs(1));
        let taken = writes.begin(Cut::default(), now);
        let _stalled = writes.begin(Cut::default(), now + second);
        let _later = writes.begin(Cut::default(), now + 2 * second);
        drop(taken);
        assert_eq!(writes.cut_overdue(9 * second, now + 9 * second), 0);
        assert_eq!(writes.cut_overdue(9 * second, now + 10 * second), 1);
        assert_eq!(writes.cut_overdue(9 * second, now + 10 * second), 0);
    }
}
