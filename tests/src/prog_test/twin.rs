//! One host and three peers under policies as people write them: manifest → resolve → wire → lower → tables, and each
//! packet through the kernel and the host build, which have to agree.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use datapath::abi::{
    Bank, CidrKey, Control, EndpointEntry, EndpointKey, PrefixEntry, PrefixKey, Settings, endpoint_flag,
    settings_flag,
};
use datapath::model::{Capacity, Frame, Model};
use datapath::{Address, Direction, Moment, Outer, Reason, abi::Hook, decide, guard};
use policy::facts::{Facts, Namespace, Pod, Workload};
use policy::identity::Identity;
use policy::state::{Mode, NodeSettings, NodeState, Policy, Role};
use prost::Message as _;
use proto::node::{Node, audience_part, everyone_part, workload_part};
use serde_json::Value;

use super::compare::{now_ns, packet};
use super::frames::{Sent, ethernet, is_runnable};
use super::kernel::{DROPPED, Kernel, PASSED};
use super::mesh::{Mesh, address};

const BANK: Bank = Bank::A;

/// Whom packets come from and go to: a name, which is also the label `app`, and its addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Peer {
    /// Its name and its label `app`, in the namespace `shop`.
    pub name: &'static str,
    /// IPv4.
    pub v4: &'static str,
    /// IPv6.
    pub v6: &'static str,
    tunnel: &'static str,
}

/// The host that decides.
pub const DB: Peer = Peer { name: "db", v4: "10.0.0.1", v6: "fd00::1", tunnel: "192.0.2.1" };
/// A pod.
pub const API: Peer = Peer { name: "api", v4: "10.0.0.2", v6: "fd00::2", tunnel: "192.0.2.2" };
/// Another.
pub const OPS: Peer = Peer { name: "ops", v4: "10.0.0.3", v6: "fd00::3", tunnel: "192.0.2.3" };
/// A third.
pub const WEB: Peer = Peer { name: "web", v4: "10.0.0.4", v6: "fd00::4", tunnel: "192.0.2.4" };
/// The peers.
pub const PEERS: [Peer; 3] = [API, OPS, WEB];

const FIRST_IDENTITY: u32 = 1001;

impl Peer {
    /// An address of it.
    #[must_use]
    pub fn address(&self, is_v6: bool) -> Address {
        address(if is_v6 { self.v6 } else { self.v4 })
    }

    /// The outer facts of its packets.
    #[must_use]
    pub fn outer(&self) -> Outer {
        Outer { source: address(self.tunnel), vni: self.identity().get() }
    }

    fn identity(&self) -> Identity {
        let place = [DB, API, OPS, WEB].iter().position(|peer| peer == self);
        let number = place.and_then(|place| u32::try_from(place).ok()).map(|place| FIRST_IDENTITY + place);
        number.and_then(|number| Identity::try_new(number).ok()).unwrap_or(Identity::WORLD)
    }

    fn labels(&self) -> BTreeMap<String, String> {
        BTreeMap::from([("app".to_owned(), self.name.to_owned())])
    }

    fn addresses(&self) -> Vec<IpAddr> {
        [self.v4, self.v6].iter().filter_map(|text| text.parse().ok()).collect()
    }
}

/// The kernel and the host build.
pub struct Twin {
    kernel: Kernel,
    mesh: Mesh,
    policy: Policy,
}

impl Twin {
    /// Under these manifests of `NetworkPolicy`.
    pub fn with(manifests: &[Value]) -> Result<Self> {
        Self::under(compiled(manifests)?)
    }

    /// Under a compiled policy.
    pub fn under(policy: Policy) -> Result<Self> {
        let mesh = Mesh { model: Model::default(), control: Control::new(BANK, 0, 1) };
        let mut twin = Self { kernel: Kernel::load()?, mesh, policy };
        twin.forget()?;
        Ok(twin)
    }

    /// Puts other manifests in force, for a host without flows.
    pub fn apply(&mut self, manifests: &[Value]) -> Result<()> {
        self.put(compiled(manifests)?)
    }

    /// Puts another policy in force, for a host without flows.
    pub fn put(&mut self, policy: Policy) -> Result<()> {
        self.policy = policy;
        self.forget()
    }

    /// Forgets all flows and fragments.
    pub fn forget(&mut self) -> Result<()> {
        self.mesh.model = tables(&self.policy);
        self.kernel.forget()?;
        self.kernel.write_tables(&self.mesh.model)?;
        self.kernel.publish(self.mesh.control)
    }

    /// What becomes of a packet of a peer.
    pub fn ingress(&mut self, from: Peer, ip: &[u8]) -> Result<Reason> {
        self.ingress_frame(&ethernet(ip), &from.outer())
    }

    /// What becomes of a frame out of a tunnel.
    pub fn ingress_frame(&mut self, frame: &[u8], outer: &Outer) -> Result<Reason> {
        self.run(Direction::Ingress, frame, outer)
    }

    /// What becomes of a packet of this host.
    pub fn egress(&mut self, ip: &[u8]) -> Result<Reason> {
        self.run(Direction::Egress, &ethernet(ip), &Outer::NONE)
    }

    /// The same in the host build alone, for what the kernel's maps have other room for.
    pub fn in_model(&self, from: Peer, packets: &[Vec<u8>]) -> Result<Vec<Reason>> {
        packets.iter().map(|ip| self.decided(Hook::MeshIngress, &ethernet(ip), &from.outer())).collect()
    }

    /// Whether the guard lets a frame in on another device.
    pub fn guard(&mut self, frame: &[u8]) -> Result<bool> {
        let moment = Moment { hook: Hook::GuardIngress, control: self.mesh.control, now_ns: now_ns() };
        let parsed = Frame::of_ethernet(frame).context("a frame")?;
        let passes = guard(&parsed, &moment, &self.mesh.model);
        let run = self.kernel.run(moment.hook.program(), frame, [self.mesh.control.0, 0, 0, 0, 0])?;
        ensure!(run.action == if passes { PASSED } else { DROPPED }, "the host says {passes}: {run:?}");
        // What both told about it, and counted, is not for the next packet.
        let _told = self.mesh.model.take_events();
        self.kernel.take_events()?;
        for (slot, _) in self.kernel.counters()? {
            self.kernel.reset(slot)?;
        }
        self.mesh.model.refill();
        Ok(passes)
    }

    /// The kernel takes no frame that ends within its IP header; of one the host build decides alone.
    fn run(&mut self, direction: Direction, frame: &[u8], outer: &Outer) -> Result<Reason> {
        let hook = match direction {
            Direction::Ingress => Hook::MeshIngress,
            Direction::Egress => Hook::MeshEgress,
        };
        if is_runnable(frame) {
            let sent = Sent { direction, source: Address::NONE, frame: frame.to_vec() };
            return Ok(packet(&mut self.kernel, &self.mesh, &sent, outer)?.reason);
        }
        self.decided(hook, frame, outer)
    }

    fn decided(&self, hook: Hook, frame: &[u8], outer: &Outer) -> Result<Reason> {
        let frame = Frame { ifindex: 1, ..Frame::of_ethernet(frame).context("a frame")? };
        let moment = Moment { hook, control: self.mesh.control, now_ns: now_ns() };
        let reason = decide(&frame, outer, &moment, &self.mesh.model).reason;
        let _told = self.mesh.model.take_events();
        self.mesh.model.refill();
        Ok(reason)
    }
}

/// A `NetworkPolicy` of the namespace `shop` with this spec.
#[must_use]
pub fn network_policy(name: &str, spec: &Value) -> Value {
    serde_json::json!({
        "apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy",
        "metadata": {"name": name, "namespace": "shop"}, "spec": spec,
    })
}

/// What the agent of the host receives for these manifests.
pub fn compiled(manifests: &[Value]) -> Result<Policy> {
    let facts = facts(manifests)?;
    let labels = |peer: &Peer| match facts.pods.get(&*key(peer)) {
        Some(pod) => facts.labels_of_pod(pod),
        None => facts.workloads.get(&*key(peer)).map(|own| facts.labels_of_workload(own)).unwrap_or_default(),
    };
    let identities = [DB, API, OPS, WEB].iter().map(|peer| (labels(peer), peer.identity())).collect();
    let state = policy::resolve(&facts, &identities)?.state;
    let policy = state.policies.get(&DB.identity()).context("no policy of the host")?;
    let settings = NodeSettings {
        workload: "shop/db".to_owned(),
        identity: DB.identity(),
        mark: DB.identity(),
        addresses: DB.addresses(),
        prefixes: vec!["10.0.0.0/16".parse()?, "fd00::/16".parse()?],
        role: Role::Host,
        mode: Mode::Enforce,
        tunnel_port: 8479,
        rejected: Vec::new(),
        nic: None,
        partly_enforced: Vec::new(),
        probes: Vec::new(),
    };
    let parts = [
        everyone_part(&state.endpoints),
        audience_part(Some(policy), &state.identities, &BTreeMap::new()),
        workload_part(&settings, &[]),
    ];
    let mut node = Node::default();
    node.apply(&parts.map(|part| part.encode_to_vec()))?;
    let NodeState { policy, .. } = node.state().context("a part is missing")?;
    Ok(Policy::clone(&policy))
}

fn key(peer: &Peer) -> Arc<str> {
    format!("shop/{}", peer.name).into()
}

fn facts(manifests: &[Value]) -> Result<Facts> {
    let pods = PEERS.iter().map(|peer| {
        let tunnels: Vec<IpAddr> = peer.tunnel.parse().into_iter().collect();
        let pod = Pod {
            namespace: "shop".to_owned(),
            labels: peer.labels(),
            addresses: peer.addresses(),
            tunnels: Arc::new(tunnels),
            behind: Arc::new(BTreeSet::new()),
            ..Pod::default()
        };
        (key(peer), Arc::new(pod))
    });
    let own = Workload {
        namespace: "shop".to_owned(),
        labels: DB.labels(),
        addresses: DB.addresses(),
        ..Workload::default()
    };
    let mut policies = BTreeMap::new();
    for manifest in manifests {
        let object = policy::networkpolicy::parse(manifest)?;
        policies.insert(Arc::clone(&object.origin), Arc::new(object));
    }
    Ok(Facts {
        cluster: "default".to_owned(),
        namespaces: BTreeMap::from([("shop".to_owned(), Arc::new(Namespace::default()))]),
        pods: pods.collect(),
        workloads: BTreeMap::from([(key(&DB), Arc::new(own))]),
        policies,
        cidr_groups: BTreeMap::new(),
        services: BTreeMap::new(),
        relabels: BTreeMap::new(),
    })
}

fn tables(policy: &Policy) -> Model {
    let lowered = policy::lower(policy);
    let mut model = Model::new(Capacity { flows: 8192, half_open: 8192, ..Capacity::default() });
    model.settings[0] = Some(Settings {
        identity: DB.identity().get(),
        mark: DB.identity().get(),
        flags: settings_flag::EVENTS_ALLOWED | lowered.flags(),
        ingress_default: lowered.ingress.action.number(),
        egress_default: lowered.egress.action.number(),
        ingress_rule: lowered.ingress.rule,
        egress_rule: lowered.egress.rule,
        address_v4: DB.address(false),
        address_v6: DB.address(true),
        mtu: 1450,
        ..Settings::default()
    });
    model.classes = lowered.classes(BANK).collect();
    model.cidrs = lowered.cidrs(BANK).collect();
    model.policy = lowered.policy(BANK).collect();
    for peer in [DB, API, OPS, WEB] {
        let is_own = peer == DB;
        let entry = EndpointEntry {
            identity: peer.identity().get(),
            previous: 0,
            mark: peer.identity().get(),
            tunnel_set: 0,
            tunnel: if is_own { Address::NONE } else { address(peer.tunnel) },
            flags: if is_own { endpoint_flag::OWN } else { 0 },
            reserved: 0,
        };
        for address in [peer.address(false), peer.address(true)] {
            model.endpoints.insert(EndpointKey { bank: BANK.number(), reserved: [0; 3], address }, entry);
        }
    }
    for (prefix, bits) in [("10.0.0.0", 96 + 16), ("fd00::", 16)] {
        let prefix_len = CidrKey::BASE_BITS + bits;
        let key = PrefixKey { prefix_len, bank: BANK.number(), reserved: [0; 3], address: address(prefix) };
        model.prefixes.insert(key, PrefixEntry::default());
    }
    model
}
