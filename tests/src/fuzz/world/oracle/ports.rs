//! Ports by number and by name.

use std::collections::BTreeSet;

use super::Probe;
use crate::fuzz::world::cluster::{Cluster, Kind, PROTOCOLS, Thing};

/// The number of a protocol that has ports.
pub(super) fn number(protocol: &str) -> u8 {
    PROTOCOLS.iter().find(|(name, _)| *name == protocol).unwrap().1
}

/// The name of the flow's protocol, if it has ports.
pub(super) fn protocol(probe: &Probe<'_>) -> Option<&'static str> {
    PROTOCOLS.iter().find(|(_, number)| *number == probe.protocol).map(|(name, _)| *name)
}

/// Whether the receiving end gives the flow's port this name. Workloads of one identity have one policy: a name that they
/// give to different ports allows none of these, and denies all of them.
pub(super) fn is_named(cluster: &Cluster, probe: &Probe<'_>, name: &str, denies: bool) -> bool {
    let Some(protocol) = protocol(probe) else { return false };
    let of = |thing: &Thing| -> BTreeSet<u16> {
        let named = thing.ports.iter().filter(|(known, with, _)| *known == name && *with == protocol);
        named.map(|(_, _, number)| *number).collect()
    };
    if !probe.ingress {
        return probe.endpoint().is_some_and(|remote| of(remote).contains(&probe.port));
    }
    let subject = probe.subject;
    let alike = cluster.things.iter().filter(|thing| {
        thing.kind == Kind::Workload
            && (thing.namespace, &thing.labels, thing.account)
                == (subject.namespace, &subject.labels, subject.account)
    });
    let meant = |thing: &Thing| of(thing).contains(&probe.port);
    if denies {
        return alike.into_iter().any(meant);
    }
    meant(subject) && alike.into_iter().all(|thing| of(thing) == of(subject))
}
