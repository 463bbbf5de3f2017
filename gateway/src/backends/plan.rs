//! Which endpoints a Service is to have, and what has to be written for that. Pure. What is there stays where it is, so that
//! a change of one endpoint rewrites one slice.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use super::service::{Service, ServicePort, TargetPort};
use super::slice::{Conditions, Endpoint, Family, Port, Shape, Slice};
use crate::manifest::Group;

/// Endpoints of a slice at most, as in those of Kubernetes.
const MOST: usize = 100;

/// A workload of a Service's namespace.
#[derive(Clone, Debug)]
pub(super) struct Member {
    pub(super) name: String,
    /// Those from the gateway's pools.
    pub(super) addresses: Vec<IpAddr>,
    pub(super) group: Arc<Group>,
    pub(super) zone: Option<String>,
    /// Whether it serves; `None`: as it was.
    pub(super) ready: Option<bool>,
    /// For how long its agent has been silent beyond its lease.
    pub(super) overdue: Option<Duration>,
}

/// What to do about slices.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Change {
    /// A new one.
    Create(Shape, Vec<Endpoint>),
    /// Another content of the one with this name.
    Update(String, Vec<Endpoint>),
    /// It goes.
    Delete(String),
}

/// What users should know about a Service.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Note {
    pub(super) reason: &'static str,
    pub(super) text: String,
}

/// What follows for one Service.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Plan {
    /// In this order nothing is missing in between.
    pub(super) changes: Vec<Change>,
    pub(super) notes: BTreeSet<Note>,
}

/// What was decided once for all Services.
pub(super) struct Rules<'a> {
    /// The share of a Service's workloads, in percent, that may be left out because their agents are silent.
    pub(super) stale_share: u8,
    /// Whether an endpoint of a workload that is no more may still be shown as one that ends.
    pub(super) lingers: &'a dyn Fn(&Endpoint) -> bool,
}

/// Names of ports, with protocols, that a workload does not have.
type Missing<'a> = BTreeMap<(&'a str, &'a str), &'a str>;
type Desired = BTreeMap<Shape, BTreeMap<IpAddr, Endpoint>>;

/// What to do about the slices of a Service. `members` are those of its namespace, and `existing` its slices.
pub(super) fn plan(service: &Service, members: &[Member], existing: &[&Slice], rules: &Rules<'_>) -> Plan {
    let selected: Vec<&Member> = members.iter().filter(|member| selects(service, member)).collect();
    let mut plan = Plan::default();
    let left_out = left_out(&selected, rules.stale_share, &mut plan.notes);
    let before = before(existing);
    let (mut desired, mut missing) = (Desired::new(), Missing::new());
    for member in selected.into_iter().filter(|member| !left_out.contains(member.name.as_str())) {
        let Some(ports) = ports(service, member, &mut missing) else { continue };
        for address in &member.addresses {
            let family = Family::of(*address);
            if !service.families.contains(&family) {
                continue;
            }
            let before = before.get(address).map(|(_, endpoint)| *endpoint);
            let endpoint = endpoint(service, member, *address, before);
            let shape = Shape { family, ports: ports.clone() };
            desired.entry(shape).or_default().insert(*address, endpoint);
        }
    }
    plan.notes.extend(told(missing));
    let known: BTreeSet<&str> = members.iter().map(|member| member.name.as_str()).collect();
    for (address, (shape, gone)) in before {
        if !known.contains(gone.workload.as_str()) && (rules.lingers)(gone) {
            let conditions = Conditions { ready: service.takes_unready, serving: false, terminating: true };
            let ending = Endpoint { conditions, hinted: false, ..gone.clone() };
            desired.entry(shape.clone()).or_default().entry(address).or_insert(ending);
        }
    }
    plan.changes = changes(service, desired, existing);
    plan
}

/// Whether a workload is meant, and can be an endpoint at all.
fn selects(service: &Service, member: &Member) -> bool {
    let labels = &member.group.labels;
    !member.addresses.is_empty() && service.selector.iter().all(|(key, value)| labels.get(key) == Some(value))
}

/// The endpoints that are there, with the shapes of their slices.
fn before<'a>(existing: &[&'a Slice]) -> BTreeMap<IpAddr, (&'a Shape, &'a Endpoint)> {
    let all = existing.iter().flat_map(|slice| {
        slice.endpoints.iter().map(|endpoint| (endpoint.address, (&slice.shape, endpoint)))
    });
    all.collect()
}

/// Workloads whose lease is over, those that are silent for longest first, and never more than the share.
fn left_out<'a>(selected: &[&'a Member], share: u8, notes: &mut BTreeSet<Note>) -> BTreeSet<&'a str> {
    let mut overdue: Vec<_> =
        selected.iter().filter_map(|member| Some((member.overdue?, member.name.as_str()))).collect();
    overdue.sort_by(|(a, first), (b, second)| b.cmp(a).then(first.cmp(second)));
    let allowed = selected.len().saturating_mul(share.into()) / 100;
    if overdue.len() > allowed {
        notes.insert(Note {
            reason: "StaleEndpointsKept",
            text: format!(
                "the agents of {} of {} workloads are silent beyond their lease; no more than {allowed} are left out",
                overdue.len(),
                selected.len(),
            ),
        });
    }
    overdue.into_iter().take(allowed).map(|(_, name)| name).collect()
}

/// The ports of a workload; `None` where the Service has ports and the workload none of them.
fn ports<'a>(service: &'a Service, member: &'a Member, missing: &mut Missing<'a>) -> Option<Vec<Port>> {
    let mut found = Vec::new();
    for port in &service.ports {
        let ServicePort { name, protocol, target, app_protocol } = port;
        if let Some(number) = number(port, &member.group) {
            let (name, protocol, app_protocol) = (name.clone(), protocol.clone(), app_protocol.clone());
            found.push(Port { name, protocol, number, app_protocol });
        } else if let TargetPort::Name(target) = target {
            missing.entry((target, protocol)).or_insert(&member.name);
        }
    }
    found.sort();
    (!found.is_empty() || service.ports.is_empty()).then_some(found)
}

fn told(missing: Missing<'_>) -> impl Iterator<Item = Note> {
    missing.into_iter().map(|((target, protocol), workload)| Note {
        reason: "PortNotFound",
        text: format!(
            "the targetPort {target:?} ({protocol}) is none of the ports of some of the workloads, {workload} among them"
        ),
    })
}

fn number(port: &ServicePort, group: &Group) -> Option<u16> {
    let protocol = match port.protocol.as_str() {
        "TCP" => 6,
        "UDP" => 17,
        "SCTP" => 132,
        _ => return None,
    };
    match &port.target {
        TargetPort::Number(number) => Some(*number),
        TargetPort::Name(name) => {
            let mut ports = group.ports.iter();
            ports.find(|own| own.name == *name && own.protocol == protocol).map(|own| own.number)
        }
    }
}

fn endpoint(service: &Service, member: &Member, address: IpAddr, before: Option<&Endpoint>) -> Endpoint {
    let was = before.filter(|before| before.workload == member.name && !before.conditions.terminating);
    let serving = member.ready.or(was.map(|before| before.conditions.serving)).unwrap_or_default();
    let ready = serving || service.takes_unready;
    let is_label = pki::is_dns1123_label(&member.name);
    Endpoint {
        address,
        workload: member.name.clone(),
        hostname: (service.owner.headless && is_label).then(|| member.name.clone()),
        zone: member.zone.clone(),
        hinted: service.prefers_zone && ready && member.zone.is_some(),
        conditions: Conditions { ready, serving, terminating: false },
    }
}

/// Puts endpoints where they are, then where there is room, then into new slices.
fn changes(service: &Service, mut desired: Desired, existing: &[&Slice]) -> Vec<Change> {
    let mut kept: Vec<(&Slice, Vec<Endpoint>)> = Vec::new();
    for slice in existing {
        let mut stay = Vec::new();
        if let Some(wanted) = desired.get_mut(&slice.shape).filter(|_| is_of(slice, service)) {
            for endpoint in slice.endpoints.iter().take(MOST) {
                stay.extend(wanted.remove(&endpoint.address));
            }
        }
        kept.push((slice, stay));
    }
    let mut creations = Vec::new();
    for (shape, wanted) in desired {
        let mut rest = wanted.into_values();
        fill(service, &shape, &mut kept, &mut rest);
        let rest: Vec<Endpoint> = rest.collect();
        creations.extend(rest.chunks(MOST).map(|chunk| Change::Create(shape.clone(), chunk.to_vec())));
    }
    let (mut updates, mut deletions) = (Vec::new(), Vec::new());
    for (slice, endpoints) in kept {
        if endpoints.is_empty() {
            deletions.push(Change::Delete(slice.name.clone()));
        } else if endpoints != slice.endpoints || !slice.intact || slice.headless != service.owner.headless {
            updates.push(Change::Update(slice.name.clone(), endpoints));
        }
    }
    creations.into_iter().chain(updates).chain(deletions).collect()
}

/// Whether a slice is one of this very Service.
fn is_of(slice: &Slice, service: &Service) -> bool {
    slice.owner == service.owner.uid
}

/// Fills slices that have room: those that are written anyway first, then the fullest.
fn fill(
    service: &Service,
    shape: &Shape,
    kept: &mut [(&Slice, Vec<Endpoint>)],
    rest: &mut impl ExactSizeIterator<Item = Endpoint>,
) {
    let mut order: Vec<usize> = (0..kept.len()).collect();
    order.sort_by_key(|at| {
        kept.get(*at).map(|(slice, stay)| (*stay == slice.endpoints, std::cmp::Reverse(stay.len())))
    });
    for at in order {
        let Some((slice, stay)) = kept.get_mut(at) else { continue };
        if slice.shape == *shape && is_of(slice, service) {
            let room = MOST.saturating_sub(stay.len());
            stay.extend(rest.by_ref().take(room));
        }
    }
}

#[cfg(test)]
mod tests;
