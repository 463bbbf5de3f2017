//! The second reading: one map of flows, and policy as specified.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use datapath::abi::FlowKey;
use datapath::parse::{Fragment, Part};
use datapath::{Address, Direction, Outer, Port, Reason, ticks};
use policy::evaluate::{Flow as Question, evaluate};
use policy::identity::Identity;
use policy::state::RuleAction;

use super::packet::Sent;
use super::world::{Peer, World};

/// A conversation.
#[derive(Clone, Debug)]
struct Flow {
    opener: Direction,
    last_seen: u32,
    epoch: u32,
    outer: Outer,
    is_confirmed: bool,
    is_closing: bool,
    is_refused: bool,
}

/// A datagram in fragments: source, destination, number, protocol, direction.
type Datagram = (Address, Address, u8, u8, Direction);

/// What packets leave behind.
#[derive(Debug, Default)]
pub(super) struct Reference {
    flows: BTreeMap<FlowKey, Flow>,
    datagrams: BTreeMap<Datagram, (Port, Port, u8, u32)>,
}

impl Reference {
    /// The flows that were written down, those that are over among them.
    pub(super) fn keys(&self) -> BTreeSet<FlowKey> {
        self.flows.keys().copied().collect()
    }

    pub(super) fn decide(&mut self, world: &World, sent: &Sent, now: u32) -> Reason {
        if sent.direction == Direction::Ingress && sent.outer == Outer::NONE {
            return Reason::NoTunnelKey;
        }
        if sent.part == Part::Error {
            return self.related(world, sent, now);
        }
        let mut key = sent.key;
        let datagram = (sent.source(), sent.destination(), sent.id, key.protocol, sent.direction);
        if sent.fragment == Fragment::Later {
            match self.datagrams.get(&datagram) {
                Some((local, remote, query, seen)) if now - seen <= ticks(30) => {
                    (key.local_port, key.remote_port, key.icmp_type) = (*local, *remote, *query);
                }
                Some(_) | None => return Reason::FragmentOrphan,
            }
        }
        let reason = if self.is_live(&key, now) {
            self.known(world, sent, &key, now)
        } else {
            self.open(world, sent, &key, now)
        };
        if sent.fragment == Fragment::First && reason.passes() {
            self.datagrams.insert(datagram, (key.local_port, key.remote_port, key.icmp_type, now));
        }
        reason
    }

    fn is_live(&self, key: &FlowKey, now: u32) -> bool {
        self.flows.get(key).is_some_and(|flow| now - flow.last_seen <= ticks(flow.seconds(key.protocol)))
    }

    fn known(&mut self, world: &World, sent: &Sent, key: &FlowKey, now: u32) -> Reason {
        let epoch = world.control.epoch();
        let flow = &self.flows[key];
        if sent.part == Part::Opening && (flow.is_closing || flow.opener != sent.direction) {
            return self.open(world, sent, key, now);
        }
        let is_ingress = sent.direction == Direction::Ingress;
        let mut reason = Reason::Established;
        if flow.epoch != epoch || (is_ingress && flow.outer != sent.outer) {
            let peer = match other_end(world, sent, key) {
                Ok(peer) => peer,
                Err(reason) => return reason,
            };
            if flow.epoch != epoch {
                if !world.is_own(key.local) {
                    return if is_ingress { Reason::NotForUs } else { Reason::ForeignSource };
                }
                let is_allowed = allows(world, key, peer, flow.opener);
                self.reevaluated(key, world, is_allowed);
                reason = if is_allowed { Reason::Established } else { Reason::Audited };
            }
        }
        let flow = self.flows.get_mut(key).unwrap();
        if is_ingress {
            flow.outer = sent.outer;
        }
        flow.last_seen = now;
        if flow.is_refused {
            return Reason::FlowRefused;
        }
        flow.is_closing |= sent.part == Part::Closing;
        flow.is_confirmed |= sent.part != Part::Closing && flow.opener != sent.direction;
        reason
    }

    fn reevaluated(&mut self, key: &FlowKey, world: &World, is_allowed: bool) {
        let flow = self.flows.get_mut(key).unwrap();
        flow.epoch = world.control.epoch();
        flow.is_refused = !is_allowed && !world.audit;
        flow.outer = Outer::NONE;
    }

    fn open(&mut self, world: &World, sent: &Sent, key: &FlowKey, now: u32) -> Reason {
        let is_own = world.is_own(key.local);
        if sent.direction == Direction::Egress && !is_own {
            return Reason::ForeignSource;
        }
        let peer = match other_end(world, sent, key) {
            Ok(peer) => peer,
            Err(reason) => return reason,
        };
        if !is_own {
            return Reason::NotForUs;
        }
        if sent.fragment == Fragment::Later {
            return Reason::FragmentOrphan;
        }
        if !matches!(sent.part, Part::Opening | Part::Datagram) {
            return Reason::NoFlow;
        }
        let is_allowed = allows(world, key, peer, sent.direction);
        if !is_allowed && !world.audit {
            return Reason::PolicyDenied;
        }
        let flow = Flow {
            opener: sent.direction,
            last_seen: now,
            epoch: world.control.epoch(),
            outer: sent.outer,
            is_confirmed: false,
            is_closing: false,
            is_refused: false,
        };
        self.flows.insert(*key, flow);
        if is_allowed { Reason::NewAllowed } else { Reason::Audited }
    }

    fn related(&mut self, world: &World, sent: &Sent, now: u32) -> Reason {
        let Some(key) = sent.quoted.filter(|key| self.is_live(key, now)) else {
            return Reason::IcmpUnrelated;
        };
        let Some(remote) = world.peer(key.remote) else { return Reason::IcmpUnrelated };
        let is_own = world.is_own(sent.key.local);
        match sent.direction {
            Direction::Egress if !is_own => return Reason::ForeignSource,
            Direction::Ingress if !is_own => return Reason::NotForUs,
            Direction::Ingress if !may_report(world, sent, remote) => return Reason::Spoofed,
            Direction::Ingress | Direction::Egress => {}
        }
        if self.flows[&key].epoch != world.control.epoch() {
            let is_allowed = allows(world, &key, remote, self.flows[&key].opener);
            self.reevaluated(&key, world, is_allowed);
        }
        if self.flows[&key].is_refused { Reason::IcmpUnrelated } else { Reason::Related }
    }
}

impl Flow {
    /// How long it lives without a packet.
    const fn seconds(&self, protocol: u8) -> u32 {
        match (protocol, self.is_closing, self.is_confirmed) {
            (6, false, true) => 6 * 3600,
            (6, false, false) => 60,
            (17, _, true) => 180,
            (6 | 17 | 1 | 58, ..) => 30,
            _ => 600,
        }
    }
}

fn other_end<'a>(world: &'a World, sent: &Sent, key: &FlowKey) -> Result<&'a Peer, Reason> {
    let peer = world.peer(key.remote);
    match (sent.direction, peer) {
        (Direction::Ingress, None) => Err(Reason::UnknownSource),
        (Direction::Ingress, Some(peer)) => {
            let is_right = peer.may_send(sent.outer.source) && peer.may_claim(sent.outer.vni);
            if is_right { Ok(peer) } else { Err(Reason::Spoofed) }
        }
        (Direction::Egress, peer) => {
            peer.filter(|peer| peer.tunnel != Address::NONE).ok_or(Reason::UnknownDestination)
        }
    }
}

/// Whether the tunnel may report about packets to `remote`, in the name of the error's sender.
fn may_report(world: &World, sent: &Sent, remote: &Peer) -> bool {
    let Outer { source, vni } = sent.outer;
    remote.may_send(source)
        && match world.peer(sent.key.remote) {
            Some(sender) => sender.may_send(source) && sender.may_claim(vni),
            None => vni == 6 || remote.may_claim(vni),
        }
}

fn allows(world: &World, key: &FlowKey, peer: &Peer, opener: Direction) -> bool {
    let port = match (key.protocol, opener) {
        (1 | 58, _) => u16::from(key.icmp_type),
        (_, Direction::Ingress) => key.local_port.get(),
        (_, Direction::Egress) => key.remote_port.get(),
    };
    let question = Question {
        direction: opener,
        identity: Identity::try_new(peer.identity).ok(),
        remote: IpAddr::from(key.remote),
        protocol: key.protocol,
        port,
    };
    evaluate(&world.policy, &question).action == RuleAction::Allow
}
