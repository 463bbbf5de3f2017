//! Changes of an address's identity, in three phases, so that no packet is dropped meanwhile: receivers learn the new
//! identity beside the old one, then senders write it, then receivers forget the old one. Policy uses the new identity
//! from the first phase on. Once senders may write the new one, a further change waits until all do: receivers know two
//! numbers at a time, and not three.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use policy::facts::Relabel;
use policy::labels::Labels;
use policy::state::State;

/// How long a phase waits for receivers that do not answer.
pub const LONGEST_PHASE: Duration = Duration::from_secs(5);

/// A change under way, as it outlasts a restart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Round {
    /// The old identity, and the phase.
    pub relabel: Relabel,
    /// Whose address it is.
    pub owner: Option<Arc<str>>,
    /// The labels of the new identity.
    pub labels: Option<Arc<Labels>>,
}

/// The changes under way.
#[derive(Debug, Default)]
pub(super) struct Relabels {
    open: BTreeMap<IpAddr, Open>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Open {
    round: Round,
    /// The generation that told receivers of this phase, and when; `None`: not published yet.
    told: Option<(u64, Instant)>,
    /// The phase was begun by an earlier process: who must confirm it is not connected yet, so it takes its whole time.
    resumed: bool,
}

impl Relabels {
    /// Goes on with what an earlier process began.
    pub(super) fn resume(&mut self, rounds: BTreeMap<IpAddr, Round>) {
        let open = |round| Open { round, told: None, resumed: true };
        self.open = rounds.into_iter().map(|(address, round)| (address, open(round))).collect();
    }

    /// What outlasts a restart.
    pub(super) fn rounds(&self) -> BTreeMap<IpAddr, Round> {
        self.open.iter().map(|(address, open)| (*address, open.round.clone())).collect()
    }

    /// Who keeps which labels for now, by name: those whose new identity senders may write already.
    pub(super) fn held(&self) -> BTreeMap<Arc<str>, Arc<Labels>> {
        let marked = self.open.values().filter(|open| open.round.relabel.marked);
        let held = |open: &Open| open.round.owner.clone().zip(open.round.labels.clone());
        marked.filter_map(held).collect()
    }

    /// Begins what has changed between the published state and the next one. Whether the set of changes became
    /// another.
    pub(super) fn observe(&mut self, published: Option<&State>, next: &State) -> bool {
        let mut changed = false;
        self.open.retain(|address, open| {
            let stays = next.endpoints.get(address).is_some_and(|next| {
                !open.resumed
                    || (next.owner == open.round.owner && next.identity != open.round.relabel.previous)
            });
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
                changed |= before.as_ref().is_none_or(|before| before.round.relabel != relabel);
                let labels = next.identities.get(&new.identity).cloned();
                let round = Round { relabel, owner: new.owner.clone(), labels };
                self.open.insert(*address, Open { round, told: None, resumed: false });
            }
        }
        changed
    }

    /// Ends the phases that every receiver has confirmed, or that have waited long enough.
    pub(super) fn advance(&mut self, acknowledged: Option<u64>, now: Instant) -> bool {
        let mut changed = false;
        self.open.retain(|_, open| {
            let Some((generation, since)) = open.told else { return true };
            let confirmed =
                !open.resumed && acknowledged.is_none_or(|acknowledged| acknowledged >= generation);
            if !confirmed && now.saturating_duration_since(since) < LONGEST_PHASE {
                return true;
            }
            changed = true;
            open.told = None;
            open.resumed = false;
            !std::mem::replace(&mut open.round.relabel.marked, true)
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
        self.open.iter().map(|(address, open)| (*address, open.round.relabel)).collect()
    }
}
