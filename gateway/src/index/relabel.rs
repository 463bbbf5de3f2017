//! Changes of an address's identity, in three phases, so that no packet is dropped meanwhile: receivers learn the new
//! identity beside the old one, then senders write it, then receivers forget the old one. Policy uses the new identity
//! from the first phase on.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use policy::facts::Relabel;
use policy::state::State;

/// How long a phase waits for receivers that do not answer.
pub const LONGEST_PHASE: Duration = Duration::from_secs(5);

/// The changes under way.
#[derive(Debug, Default)]
pub(super) struct Relabels {
    open: BTreeMap<IpAddr, Open>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Open {
    relabel: Relabel,
    /// The generation that told receivers of this phase, and when; `None`: not published yet.
    told: Option<(u64, Instant)>,
}

impl Relabels {
    /// Begins what has changed between the published state and the next one. Whether the set of changes became
    /// another.
    pub(super) fn observe(&mut self, published: Option<&State>, next: &State) -> bool {
        let mut changed = false;
        self.open.retain(|address, _| {
            let stays = next.endpoints.contains_key(address);
            changed |= !stays;
            stays
        });
        let Some(published) = published else { return changed };
        for (address, new) in &next.endpoints {
            let Some(old) = published.endpoints.get(address) else { continue };
            if old.owner != new.owner {
                // Somebody else has the address now, and inherits nothing.
                changed |= self.open.remove(address).is_some();
                continue;
            }
            if old.identity == new.identity {
                continue;
            }
            // What senders write now is what receivers must go on accepting.
            let before = self.open.remove(address);
            if old.mark == new.identity {
                changed |= before.is_some();
            } else {
                let relabel = Relabel { previous: old.mark, marked: false };
                changed |= before.as_ref().is_none_or(|before| before.relabel != relabel);
                self.open.insert(*address, Open { relabel, told: None });
            }
        }
        changed
    }

    /// Ends the phases that every receiver has confirmed, or that have waited long enough.
    pub(super) fn advance(&mut self, acknowledged: Option<u64>, now: Instant) -> bool {
        let mut changed = false;
        self.open.retain(|_, open| {
            let Some((generation, since)) = open.told else { return true };
            let confirmed = acknowledged.is_none_or(|acknowledged| acknowledged >= generation);
            if !confirmed && now.saturating_duration_since(since) < LONGEST_PHASE {
                return true;
            }
            changed = true;
            open.told = None;
            !std::mem::replace(&mut open.relabel.marked, true)
        });
        changed
    }

    /// Learns that the phases as they are now were published.
    pub(super) fn published(&mut self, generation: u64, now: Instant) {
        for open in self.open.values_mut() {
            open.told.get_or_insert((generation, now));
        }
    }

    /// When the first phase has waited long enough.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.open.values().filter_map(|open| open.told).map(|(_, since)| since + LONGEST_PHASE).min()
    }

    /// The changes as facts.
    pub(super) fn facts(&self) -> BTreeMap<IpAddr, Relabel> {
        self.open.iter().map(|(address, open)| (*address, open.relabel)).collect()
    }
}
