//! A host, four peers, and what was published last.

use std::net::IpAddr;

use datapath::Address;
use datapath::abi::{Bank, Control, EndpointEntry, EndpointKey, TunnelEntry, TunnelKey, settings_flag};
use datapath::model::Model;
use policy::lower::Lowered;
use policy::state::Policy;

use crate::fuzz::choices::Choices;
use crate::fuzz::{policies, tables};

pub(super) const OWN: [&str; 2] = ["10.0.0.1", "fd00::1"];
/// The last of each family is nobody's.
pub(super) const REMOTES: [&str; 6] =
    ["10.1.2.3", "10.1.2.9", "2001:db8::1", "2001:db8:0:1::1", "10.1.9.9", "3fff::1"];
pub(super) const TUNNELS: [&str; 4] = ["192.0.2.1", "192.0.2.2", "2001:db8:ffff::1", "192.0.2.99"];
const NUMBERS: [u32; 4] = [300, 301, 302, 6];
const SET: u32 = 7;

/// Someone at the other end.
#[derive(Clone, Debug)]
pub(super) struct Peer {
    pub(super) address: Address,
    pub(super) identity: u32,
    pub(super) previous: u32,
    /// None: it is known, and no tunnel leads there.
    pub(super) tunnel: Address,
    /// Others that may send for it beside its tunnel; empty: none.
    pub(super) set: Vec<Address>,
}

/// What is in force.
#[derive(Debug)]
pub(super) struct World {
    pub(super) control: Control,
    pub(super) own: [Address; 2],
    pub(super) mark: u32,
    pub(super) audit: bool,
    pub(super) policy: Policy,
    peers: Vec<Peer>,
    lowered: Lowered,
}

pub(super) fn address(text: &str) -> Address {
    text.parse::<IpAddr>().unwrap().into()
}

impl World {
    pub(super) fn first(choices: &mut Choices<'_>) -> Self {
        Self::published(choices, Control::new(Bank::A, 0, 1))
    }

    pub(super) fn next(&self, choices: &mut Choices<'_>) -> Self {
        Self::published(choices, self.control.next())
    }

    fn published(choices: &mut Choices<'_>, control: Control) -> Self {
        let policy = policies::policy(choices);
        let set: Vec<Address> = choices.list(2, |choices| address(choices.one_of(&TUNNELS)));
        let peers = REMOTES[..4].iter().filter(|_| !choices.seldom(16)).map(|text| address(text));
        let peers: Vec<Address> = peers.collect();
        Self {
            control,
            own: OWN.map(|text| if choices.seldom(32) { Address::NONE } else { address(text) }),
            mark: choices.one_of(&NUMBERS),
            audit: choices.seldom(16),
            lowered: policy::lower(&policy),
            policy,
            peers: peers.into_iter().map(|address| Peer::choose(choices, address, &set)).collect(),
        }
    }

    pub(super) fn peer(&self, at: Address) -> Option<&Peer> {
        self.peers.iter().find(|peer| peer.address == at)
    }

    pub(super) fn is_own(&self, at: Address) -> bool {
        at != Address::NONE && self.own.contains(&at)
    }

    /// Writes it into its bank.
    pub(super) fn fill(&self, model: &mut Model) {
        let bank = self.control.bank();
        let number = bank.number();
        tables::fill(model, bank, &self.lowered, self.own, 256);
        if let Some(settings) = &mut model.settings[usize::from(number)] {
            settings.mark = self.mark;
            settings.flags |= if self.audit { settings_flag::AUDIT } else { 0 };
        }
        model.endpoints.retain(|key, _| key.bank != number);
        model.tunnels.retain(|key, _| key.bank != number);
        for peer in &self.peers {
            let entry = EndpointEntry {
                identity: peer.identity,
                previous: peer.previous,
                mark: peer.identity,
                tunnel_set: if peer.set.is_empty() { 0 } else { SET },
                tunnel: peer.tunnel,
                flags: 0,
                reserved: 0,
            };
            model
                .endpoints
                .insert(EndpointKey { bank: number, reserved: [0; 3], address: peer.address }, entry);
            for address in &peer.set {
                let key = TunnelKey { bank: number, reserved: [0; 3], set: SET, address: *address };
                model.tunnels.insert(key, TunnelEntry::default());
            }
        }
    }
}

impl Peer {
    fn choose(choices: &mut Choices<'_>, at: Address, set: &[Address]) -> Self {
        Self {
            address: at,
            identity: choices.one_of(&NUMBERS),
            previous: if choices.seldom(4) { choices.one_of(&NUMBERS) } else { 0 },
            tunnel: if choices.seldom(16) { Address::NONE } else { address(choices.one_of(&TUNNELS[..3])) },
            set: if choices.seldom(3) { set.to_vec() } else { Vec::new() },
        }
    }

    pub(super) fn may_send(&self, outer: Address) -> bool {
        outer != Address::NONE
            && if self.set.is_empty() { self.tunnel == outer } else { self.set.contains(&outer) }
    }

    pub(super) const fn may_claim(&self, vni: u32) -> bool {
        vni != 0 && (vni == self.identity || vni == self.previous)
    }
}
