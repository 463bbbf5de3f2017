//! The changes of identities that are under way, as the store keeps them over a restart.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use policy::facts::Relabel;
use policy::identity::Identity;

use crate::index::Round;
use crate::store::{RelabelRecord, RelabelRecords};

/// What the store had, as rounds; what cannot be read any more is left out.
pub(super) fn rounds(records: &RelabelRecords) -> BTreeMap<IpAddr, Round> {
    records.iter().filter_map(|(address, record)| round(address, record)).collect()
}

/// Rounds, as the store keeps them.
pub(super) fn records(rounds: &BTreeMap<IpAddr, Round>) -> RelabelRecords {
    let record = |round: &Round| RelabelRecord {
        previous: round.relabel.previous.get(),
        mark: round.relabel.mark.get(),
        owner: round.owner.as_ref().map(ToString::to_string),
    };
    rounds.iter().map(|(address, round)| (address.to_string(), record(round))).collect()
}

fn round(address: &str, record: &RelabelRecord) -> Option<(IpAddr, Round)> {
    let RelabelRecord { previous, mark, owner } = record;
    let number = |number: u32| Identity::try_new(number).ok();
    let relabel = Relabel { previous: number(*previous)?, mark: number(*mark)? };
    let round = Round { relabel, owner: owner.as_deref().map(Arc::from) };
    Some((address.parse().ok()?, round))
}
