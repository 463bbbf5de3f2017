//! Changes of an address's identity, in three phases, so that no packet is dropped meanwhile: receivers learn the new
//! identity beside the old one, then senders write it, then receivers forget the old one. Policy uses the new identity
//! from the first phase on, also where a further change comes meanwhile: labels and rules are never of different times.
//! Receivers know three numbers: the new one, the one senders are told to write, and the one that some may still write.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use policy::facts::Relabel;
use policy::identity::Identity;
use policy::state::{Endpoint, State, differences};

/// How long a phase waits for receivers that do not answer. It costs them one more number that they accept; going on
/// without one whose kernel still decides by an older state costs it every packet of the address. Far less than numbers
/// of identities rest.
pub const LONGEST_PHASE: Duration = Duration::from_mins(5);

/// A change under way, as it outlasts a restart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Round {
    /// What is written.
    pub relabel: Relabel,
    /// Whose address it is.
    pub owner: Option<Arc<str>>,
}

/// The changes under way.
#[derive(Clone, Debug, Default)]
pub(super) struct Relabels {
    open: BTreeMap<IpAddr, Open>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Open {
    round: Round,
    /// The new identity; `None`: nothing was compiled since the restart.
    identity: Option<Identity>,
    /// The generation that told receivers of this phase, and when; `None`: not published yet.
    told: Option<(u64, Instant)>,
    /// The phase was begun by an earlier process: what follows from the facts now may end it.
    resumed: bool,
}

impl Relabels {
    /// Goes on with what an earlier process began.
    pub(super) fn resume(&mut self, rounds: BTreeMap<IpAddr, Round>) {
        let open = |round| Open { round, identity: None, told: None, resumed: true };
        self.open = rounds.into_iter().map(|(address, round)| (address, open(round))).collect();
    }

    /// What outlasts a restart.
    pub(super) fn rounds(&self) -> BTreeMap<IpAddr, Round> {
        self.open.iter().map(|(address, open)| (*address, open.round.clone())).collect()
    }

    /// Begins what has changed between the published state and the next one. Whether the set of changes became
    /// another.
    pub(super) fn observe(&mut self, published: Option<&State>, next: &State) -> bool {
        let mut changed = false;
        self.open.retain(|address, open| {
            let stays = next.endpoints.get(address).is_some_and(|next| {
                open.identity = Some(next.identity);
                let Relabel { previous, mark } = open.round.relabel;
                let over = previous == next.identity && mark == next.identity;
                !open.resumed || (next.owner == open.round.owner && !over)
            });
            changed |= !stays;
            stays
        });
        let Some(published) = published else { return changed };
        for (address, old, new) in differences(&published.endpoints, &next.endpoints, Arc::ptr_eq) {
            let Some((old, new)) = old.zip(new) else { continue };
            if old.owner != new.owner {
                // Somebody else has the address now, and inherits nothing.
                changed |= self.open.remove(address).is_some();
            } else if old.identity != new.identity {
                self.begin(*address, old, new);
                changed = true;
            }
        }
        changed
    }

    /// A new identity. What senders write now is what receivers must go on accepting.
    fn begin(&mut self, address: IpAddr, old: &Endpoint, new: &Endpoint) {
        let before = self.open.remove(&address);
        let relabel =
            before.map_or(Relabel { previous: old.mark, mark: old.mark }, |before| before.round.relabel);
        if relabel.previous == new.identity && relabel.mark == new.identity {
            return;
        }
        let round = Round { relabel, owner: new.owner.clone() };
        let open = Open { round, identity: Some(new.identity), told: None, resumed: false };
        self.open.insert(address, open);
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
            open.resumed = false;
            let Relabel { mark, .. } = open.round.relabel;
            let next = open.identity.filter(|identity| *identity != mark);
            if let Some(identity) = next {
                open.round.relabel = Relabel { previous: mark, mark: identity };
            }
            next.is_some()
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
