//! The tables that costs are measured with: so many endpoints with so many identities in a policy of eight classes.

use std::collections::BTreeMap;
use std::fmt;

use datapath::abi::{
    ClassEntry, ClassKey, EndpointEntry, EndpointKey, PolicyEntry, PolicyKey, Rank, Settings, endpoint_flag,
    settings_flag,
};
use datapath::model::Model;
use datapath::{Action, Address, Direction, Port};

use super::super::mesh::address;
use super::cell::{ALLOWED, TCP, UDP};

/// Flows that packets rotate through.
pub(super) const FLOWS: u32 = 4096;
/// The identity of the first endpoint.
pub(super) const IDENTITY: u32 = 300;
/// Where all endpoints send from, and where none does.
pub(super) const TUNNEL: &str = "192.0.2.2";
/// The first endpoint's address in its last four bytes, in both families.
const FIRST: u32 = 0x0a40_0000;
const CLASSES: u32 = 8;

/// How much there is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Size {
    /// Identities; a power of two.
    pub(super) identities: u32,
    /// Endpoints of each family; a power of two.
    pub(super) endpoints: u32,
}

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "identities {}, endpoints {}", self.identities, self.endpoints)
    }
}

/// The endpoints beside this host.
pub(super) fn endpoints(size: Size) -> BTreeMap<EndpointKey, EndpointEntry> {
    let mut endpoints = BTreeMap::new();
    for number in 0..size.endpoints {
        let identity = IDENTITY + (number & (size.identities - 1));
        let entry = EndpointEntry { tunnel: address(TUNNEL), flags: 0, ..own(identity) };
        let last = (FIRST | number).to_be_bytes();
        let mut v6 = address("fd00::");
        v6.0[12..].copy_from_slice(&last);
        for address in [Address::from_v4(last), v6] {
            endpoints.insert(key(address), entry);
        }
    }
    endpoints
}

/// Everything else.
pub(super) fn tables(identities: u32) -> Model {
    let mut model = Model::default();
    for text in ["10.0.0.1", "fd00::1"] {
        model.endpoints.insert(key(address(text)), own(200));
    }
    for number in 0..identities {
        let key = ClassKey { bank: 0, reserved: [0; 3], identity: IDENTITY + number };
        model.classes.insert(key, ClassEntry { class: 1 + number % CLASSES });
    }
    for class in 1..=CLASSES {
        for direction in [Direction::Ingress, Direction::Egress] {
            for (protocol, port) in [(TCP, ALLOWED), (UDP, ALLOWED), (TCP, 443), (TCP, 5432), (UDP, 123)] {
                let key = PolicyKey {
                    prefix_len: PolicyKey::BASE_BITS + 16,
                    bank: 0,
                    direction: direction.number(),
                    protocol,
                    reserved: 0,
                    class,
                    port: Port::new(port),
                    padding: [0; 2],
                };
                let entry = PolicyEntry::of(Rank::new(1, Action::Allow), 5);
                model.policy.insert(key, entry);
            }
        }
    }
    model.settings = [Some(settings()); 2];
    model
}

fn settings() -> Settings {
    Settings {
        identity: 200,
        mark: 200,
        flags: settings_flag::PROTOCOLS_NAMED,
        ingress_default: Action::Deny.number(),
        egress_default: Action::Deny.number(),
        ingress_rule: 8,
        egress_rule: 9,
        address_v4: address("10.0.0.1"),
        address_v6: address("fd00::1"),
        mtu: 1450,
        ..Settings::default()
    }
}

const fn key(address: Address) -> EndpointKey {
    EndpointKey { bank: 0, reserved: [0; 3], address }
}

pub(super) const fn own(identity: u32) -> EndpointEntry {
    EndpointEntry {
        identity,
        previous: 0,
        mark: identity,
        tunnel_set: 0,
        tunnel: Address::NONE,
        flags: endpoint_flag::OWN,
        reserved: 0,
    }
}
