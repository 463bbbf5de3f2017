//! A scripted mesh: pods on many nodes, with identities and names, and one host whose policy names all identities.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use proto::convert::address_to_wire;
use proto::v1;

/// The host that joins.
pub(super) const NAMESPACE: &str = "shop";
pub(super) const WORKLOAD: &str = "db-1";
/// Its mesh addresses.
pub(super) const ADDRESSES: [IpAddr; 2] =
    [IpAddr::V4(Ipv4Addr::new(10, 127, 0, 7)), IpAddr::V6(Ipv6Addr::new(0xfd00, 0x127, 0, 0, 0, 0, 0, 7))];

const IDENTITY: u32 = 500;
/// Of the first pods.
const FIRST_IDENTITY: u32 = 1000;
const FIRST_ADDRESS: u32 = 0x0a40_0001;
const PODS_OF_A_NODE: u32 = 250;
/// A pod that changes gets the identity of one so far away.
const STRIDE: u32 = 7;
const TCP: u32 = 6;

/// Resources of a message, which stays below a megabyte.
const CHUNK: usize = 5000;

/// The mesh.
pub(super) struct World {
    underlay: Ipv4Addr,
    /// How often each pod has changed.
    pods: Vec<u32>,
    identities: u32,
    /// How often the policy has changed.
    policy: u32,
}

impl World {
    /// A mesh of so many pods with so many identities; the host's underlay address is one of its endpoints.
    pub(super) fn new(underlay: Ipv4Addr, pods: usize, identities: u32) -> Self {
        Self { underlay, pods: vec![0; pods], identities, policy: 0 }
    }

    /// Gives so many pods, from this one on, other identities.
    pub(super) fn relabel(&mut self, first: usize, count: usize) -> v1::ResourceSet {
        let length = self.pods.len().max(1);
        let numbers: Vec<usize> = (first..first + count).map(|number| number % length).collect();
        for number in &numbers {
            if let Some(changes) = self.pods.get_mut(*number) {
                *changes += 1;
            }
        }
        let endpoints = numbers.into_iter().filter_map(|number| self.pod(number)).collect();
        v1::ResourceSet { endpoints, ..v1::ResourceSet::default() }
    }

    /// Changes a port of the host's policy.
    pub(super) fn edit_policy(&mut self) -> v1::ResourceSet {
        self.policy += 1;
        v1::ResourceSet { policy: Some(self.policy()), ..v1::ResourceSet::default() }
    }

    /// All of it, in messages of a bearable size.
    pub(super) fn snapshot(&self) -> Vec<v1::ResourceSet> {
        let mut endpoints: Vec<_> = (0..self.pods.len()).filter_map(|number| self.pod(number)).collect();
        endpoints.extend(ADDRESSES.map(|address| self.own(address)));
        let labels: Vec<_> = (0..self.identities).map(labels).collect();
        let owners: Vec<_> = (0..self.pods.len()).filter_map(owner).collect();
        let mut sets = vec![v1::ResourceSet {
            policy: Some(self.policy()),
            settings: Some(Self::settings()),
            ..v1::ResourceSet::default()
        }];
        sets.extend(
            endpoints
                .chunks(CHUNK)
                .map(|chunk| v1::ResourceSet { endpoints: chunk.to_vec(), ..v1::ResourceSet::default() }),
        );
        sets.extend(
            labels
                .chunks(CHUNK)
                .map(|chunk| v1::ResourceSet { identities: chunk.to_vec(), ..v1::ResourceSet::default() }),
        );
        sets.extend(
            owners
                .chunks(CHUNK)
                .map(|chunk| v1::ResourceSet { owners: chunk.to_vec(), ..v1::ResourceSet::default() }),
        );
        sets
    }

    fn pod(&self, number: usize) -> Option<v1::Endpoint> {
        let changes = *self.pods.get(number)?;
        let number = u32::try_from(number).ok()?;
        let node = number / PODS_OF_A_NODE;
        let identity = FIRST_IDENTITY + number.wrapping_add(changes.wrapping_mul(STRIDE)) % self.identities;
        let behind = vec![format!("outrigger-system/node-{node}")];
        Some(v1::Endpoint {
            address: address_to_wire(Ipv4Addr::from(FIRST_ADDRESS + number).into()),
            identity,
            previous: 0,
            mark: identity,
            tunnels: vec![address_to_wire(
                Ipv4Addr::from(u32::from(Ipv4Addr::new(198, 18, 0, 1)) + node).into(),
            )],
            kind: Some(v1::endpoint::Kind::Pod(v1::PodKind { behind })),
        })
    }

    fn own(&self, address: IpAddr) -> v1::Endpoint {
        v1::Endpoint {
            address: address_to_wire(address),
            identity: IDENTITY,
            previous: 0,
            mark: IDENTITY,
            tunnels: vec![address_to_wire(self.underlay.into())],
            kind: Some(v1::endpoint::Kind::Workload(v1::WorkloadKind {})),
        }
    }

    fn policy(&self) -> v1::Policy {
        let identities = (0..self.identities).map(|number| FIRST_IDENTITY + number).collect();
        let port = 5432 + self.policy % 2;
        let ports = v1::PortSet { ranges: vec![v1::PortRange { protocol: TCP, first: port, last: port }] };
        let rule = v1::Rule {
            origin: "NetworkPolicy/shop/db#ingress[0]".to_owned(),
            peers: Some(v1::Peers {
                peers: Some(v1::peers::Peers::Only(v1::PeerSet { identities, blocks: Vec::new() })),
            }),
            ports: Some(v1::Ports { ports: Some(v1::ports::Ports::Only(ports)) }),
            verdict: v1::Verdict::Allow.into(),
            precedence: 1,
        };
        let deny = v1::DenyDefault { by: vec!["NetworkPolicy/shop/db".to_owned()] };
        v1::Policy {
            ingress: Some(v1::DirectionPolicy {
                default: Some(v1::direction_policy::Default::Deny(deny)),
                rules: vec![rule],
            }),
            egress: Some(v1::DirectionPolicy {
                default: Some(v1::direction_policy::Default::Allow(v1::AllowDefault {})),
                rules: Vec::new(),
            }),
        }
    }

    fn settings() -> v1::Settings {
        let prefix = |address: IpAddr, length| v1::Prefix { address: address_to_wire(address), length };
        v1::Settings {
            workload: format!("{NAMESPACE}/{WORKLOAD}"),
            identity: IDENTITY,
            mark: IDENTITY,
            addresses: ADDRESSES.map(address_to_wire).to_vec(),
            prefixes: vec![
                prefix(Ipv4Addr::new(10, 64, 0, 0).into(), 10),
                prefix(Ipv6Addr::new(0xfd00, 0x127, 0, 0, 0, 0, 0, 0).into(), 64),
            ],
            role: v1::Role::Host.into(),
            mode: v1::Mode::Enforce.into(),
            tunnel_port: 4789,
            rejected: Vec::new(),
            gateways: Vec::new(),
            ..v1::Settings::default()
        }
    }
}

fn labels(number: u32) -> v1::IdentityLabels {
    let namespace = format!("team-{}", number % 50);
    let labels = format!(
        "k8s:app.kubernetes.io/name=service-{number};\
         k8s:io.cilium.k8s.namespace.labels.kubernetes.io/metadata.name={namespace};\
         k8s:io.cilium.k8s.policy.cluster=default;\
         k8s:io.cilium.k8s.policy.serviceaccount=default;\
         k8s:io.kubernetes.pod.namespace={namespace};"
    );
    v1::IdentityLabels { identity: FIRST_IDENTITY + number, labels }
}

fn owner(number: usize) -> Option<v1::Owner> {
    let number = u32::try_from(number).ok()?;
    Some(v1::Owner {
        address: address_to_wire(Ipv4Addr::from(FIRST_ADDRESS + number).into()),
        owner: format!("team-{}/service-{}-7d9c5b{number:06x}-x2k9q", number % 50, number % 10_000),
    })
}
