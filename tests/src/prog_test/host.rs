//! The host that tables made by hand are of.

use datapath::abi::{Bank, EndpointEntry, EndpointKey, Settings, endpoint_flag};
use datapath::{Action, Address};

use super::mesh::address;

/// Its own endpoint.
pub const OWN: EndpointEntry = EndpointEntry {
    identity: 300,
    previous: 0,
    mark: 300,
    tunnel_set: 0,
    tunnel: Address::NONE,
    flags: endpoint_flag::OWN,
    reserved: 0,
};

/// What one whole peer of it has.
#[must_use]
pub fn peer(identity: u32, tunnel: &str) -> EndpointEntry {
    EndpointEntry { identity, mark: identity, tunnel: address(tunnel), flags: 0, ..OWN }
}

/// Where the entry of an address is.
#[must_use]
pub fn endpoint_key(bank: Bank, text: &str) -> EndpointKey {
    EndpointKey { bank: bank.number(), reserved: [0; 3], address: address(text) }
}

/// Its settings: what happens to flows that no rule is about. It has the address 10.0.0.1 and none of IPv6.
#[must_use]
pub fn settings(ingress: Action, egress: Action) -> Settings {
    Settings {
        identity: OWN.identity,
        mark: OWN.mark,
        flags: 0,
        ingress_default: ingress.number(),
        egress_default: egress.number(),
        ingress_rule: 1,
        egress_rule: 2,
        address_v4: address("10.0.0.1"),
        address_v6: Address::NONE,
        mtu: 1450,
        ..Settings::default()
    }
}
