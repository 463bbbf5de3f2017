//! A cluster: namespaces, pods, external workloads, a transit node, Services, groups of blocks, policies.

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use policy::facts::{self, CidrGroup, Facts, NamedPort, Namespace, Pod, Workload};
use policy::rules::PolicyObject;
use policy::state::Role;
use policy::{cilium, clusternetworkpolicy, networkpolicy};
use serde_json::Value;

use super::choose;
use crate::fuzz::choices::Choices;

pub(super) const NAMESPACES: [&str; 3] = ["red", "green", "blue"];
/// Names and numbers of the protocols that have ports.
pub(super) const PROTOCOLS: [(&str, u8); 3] = [("TCP", 6), ("UDP", 17), ("SCTP", 132)];

pub(super) type Labels = BTreeMap<&'static str, &'static str>;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Pod,
    Workload,
    Transit,
}

/// Whoever has addresses in the mesh.
#[derive(Clone, Debug)]
pub(super) struct Thing {
    pub(super) kind: Kind,
    pub(super) namespace: &'static str,
    pub(super) labels: Labels,
    pub(super) account: &'static str,
    /// Name, protocol, number.
    pub(super) ports: Vec<(&'static str, &'static str, u16)>,
    pub(super) addresses: [IpAddr; 2],
}

#[derive(Clone, Debug)]
pub(super) struct Service {
    pub(super) namespace: &'static str,
    pub(super) name: &'static str,
    pub(super) labels: Labels,
    pub(super) selector: Option<Labels>,
    pub(super) addresses: Vec<IpAddr>,
}

#[derive(Clone, Debug)]
pub(super) struct Group {
    pub(super) name: &'static str,
    pub(super) labels: Labels,
    pub(super) cidrs: Vec<&'static str>,
}

#[derive(Clone, Debug)]
pub(super) struct Cluster {
    /// The label `app` of each namespace.
    pub(super) teams: Labels,
    /// The namespace of whose labels only these are known.
    pub(super) unreadable: Option<&'static str>,
    pub(super) things: Vec<Thing>,
    pub(super) services: Vec<Service>,
    pub(super) groups: Vec<Group>,
    pub(super) policies: Vec<Value>,
}

impl Cluster {
    pub(super) fn choose(choices: &mut Choices<'_>) -> Self {
        let teams = NAMESPACES.iter().filter(|_| choices.flag()).copied().collect::<Vec<_>>();
        let teams = teams.into_iter().map(|name| (name, choices.one_of(&["1", "2"]))).collect();
        let unreadable = choices.seldom(6).then(|| choices.one_of(&NAMESPACES));
        let mut things = choose::things(choices, Kind::Pod, ("10.0.0.", "fd00::"), 4);
        things.extend(choose::things(choices, Kind::Workload, ("10.9.0.", "fd00::9:"), 3));
        things.extend(choose::things(choices, Kind::Transit, ("10.9.0.9", "fd00::9:9"), 1));
        let services = choose::services(choices);
        let groups = choose::groups(choices);
        let count = 2 + choices.below(6);
        let policies = (0..count).map(|number| choose::policy(choices, number)).collect();
        Self { teams, unreadable, things, services, groups, policies }
    }

    pub(super) fn subjects(&self) -> impl Iterator<Item = &Thing> {
        self.things.iter().filter(|thing| thing.kind == Kind::Workload)
    }

    pub(super) fn facts(&self) -> Facts {
        let mut facts = Facts { cluster: "default".to_owned(), ..Facts::default() };
        for name in NAMESPACES {
            let labels = self.teams.get(name).map(|team| ("app".to_owned(), (*team).to_owned()));
            let namespace =
                Namespace { labels: labels.into_iter().collect(), unreadable: self.unreadable == Some(name) };
            facts.namespaces.insert(name.to_owned(), Arc::new(namespace));
        }
        for (number, thing) in self.things.iter().enumerate() {
            let name = Arc::from(format!("{}/thing{number}", thing.namespace));
            if thing.kind == Kind::Pod {
                facts.pods.insert(name, Arc::new(thing.pod()));
            } else {
                facts.workloads.insert(name, Arc::new(thing.workload()));
            }
        }
        let services = self.services.iter().map(|service| {
            let name = Arc::from(format!("{}/{}", service.namespace, service.name));
            let service = facts::Service {
                namespace: service.namespace.to_owned(),
                labels: owned(&service.labels),
                selector: service.selector.as_ref().map(owned),
                addresses: service.addresses.clone(),
            };
            (name, Arc::new(service))
        });
        facts.services = services.collect();
        let groups = self.groups.iter().map(|group| {
            let cidrs = group.cidrs.iter().map(|cidr| cidr.parse().unwrap()).collect();
            (Arc::from(group.name), Arc::new(CidrGroup { labels: owned(&group.labels), cidrs }))
        });
        facts.cidr_groups = groups.collect();
        let policies = self.policies.iter().flat_map(parse);
        facts.policies = policies.map(|policy| (Arc::clone(&policy.origin), Arc::new(policy))).collect();
        facts
    }
}

/// All objects here are valid.
fn parse(raw: &Value) -> Vec<PolicyObject> {
    use clusternetworkpolicy::Kind as Tiered;
    let tiered = |kind| clusternetworkpolicy::parse(kind, raw).map(|policy| vec![policy]);
    let parsed = match raw["kind"].as_str().unwrap() {
        "NetworkPolicy" => networkpolicy::parse(raw).map(|policy| vec![policy]),
        "CiliumNetworkPolicy" => cilium::parse(cilium::Kind::Namespaced, raw),
        "CiliumClusterwideNetworkPolicy" => cilium::parse(cilium::Kind::Clusterwide, raw),
        "ClusterNetworkPolicy" => tiered(Tiered::Cluster),
        "AdminNetworkPolicy" => tiered(Tiered::Admin),
        _ => tiered(Tiered::Baseline),
    };
    parsed.unwrap_or_else(|error| panic!("{error}: {raw}"))
}

fn owned(labels: &Labels) -> BTreeMap<String, String> {
    labels.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
}

impl Thing {
    fn pod(&self) -> Pod {
        Pod {
            namespace: self.namespace.to_owned(),
            labels: owned(&self.labels),
            service_account: self.account.to_owned(),
            named_ports: self.named_ports(),
            addresses: self.addresses.to_vec(),
            ..Pod::default()
        }
    }

    fn workload(&self) -> Workload {
        Workload {
            namespace: self.namespace.to_owned(),
            labels: owned(&self.labels),
            service_account: self.account.to_owned(),
            named_ports: self.named_ports(),
            addresses: self.addresses.to_vec(),
            role: if self.kind == Kind::Transit { Role::Transit } else { Role::Host },
            ..Workload::default()
        }
    }

    fn named_ports(&self) -> Vec<NamedPort> {
        let number = |name: &str| PROTOCOLS.iter().find(|(known, _)| *known == name).unwrap().1;
        let ports = self.ports.iter();
        ports
            .map(|(name, protocol, port)| NamedPort {
                name: (*name).to_owned(),
                protocol: number(protocol),
                number: *port,
            })
            .collect()
    }
}

impl fmt::Display for Cluster {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "namespaces {:?}, unreadable {:?}", self.teams, self.unreadable)?;
        self.things.iter().try_for_each(|thing| writeln!(f, "{thing:?}"))?;
        self.services.iter().try_for_each(|service| writeln!(f, "{service:?}"))?;
        self.groups.iter().try_for_each(|group| writeln!(f, "{group:?}"))?;
        self.policies.iter().try_for_each(|policy| writeln!(f, "{policy}"))
    }
}
