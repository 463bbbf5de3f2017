//! The lookups of the datapath over lowered maps, one by one and without any trie: for tests.

use std::net::IpAddr;

use datapath::abi::PolicyKey;
use datapath::{Action, Address};

use super::{EntryKey, EntryValue, Lowered};
use crate::evaluate::Flow;
use crate::state::canonical;

/// What the datapath decides: action and rule id.
pub(crate) fn decide(lowered: &Lowered, flow: &Flow) -> (Action, u32) {
    let identity = flow.identity.map_or(0, crate::identity::Identity::get);
    let by_identity = lowered.classes.get(&identity).copied().unwrap_or(0);
    let by_address = if lowered.has_cidrs() { class_of(lowered, flow.remote) } else { 0 };
    let mut classes = vec![by_identity];
    classes.extend(Some(by_address).filter(|class| *class != 0));
    let mut found: Vec<EntryValue> = Vec::new();
    for class in classes {
        for protocol in [flow.protocol, PolicyKey::ANY_PROTOCOL] {
            found.extend(longest_port(lowered, class, protocol, flow));
        }
    }
    let winner = found.iter().max_by_key(|value| (value.precedence, value.action == Action::Deny));
    let default = lowered.default(flow.direction);
    winner.map_or((default.action, default.rule), |value| (value.action, value.rule))
}

fn class_of(lowered: &Lowered, address: IpAddr) -> u32 {
    let address = Address::from(canonical(address)).0;
    let covering = lowered.cidrs.iter().filter(|((block, length), _)| same_bits(&block.0, &address, *length));
    covering.max_by_key(|((_, length), _)| *length).map_or(0, |(_, class)| *class)
}

fn longest_port(lowered: &Lowered, class: u32, protocol: u8, flow: &Flow) -> Option<EntryValue> {
    let of_class =
        |key: &EntryKey| key.class == class && key.direction == flow.direction && key.protocol == protocol;
    let covering = lowered.entries.iter().filter(|(key, _)| {
        of_class(key) && same_bits(&key.port.to_be_bytes(), &flow.port.to_be_bytes(), key.port_prefix_len)
    });
    covering.max_by_key(|(key, _)| key.port_prefix_len).map(|(_, value)| *value)
}

fn same_bits(a: &[u8], b: &[u8], length: u8) -> bool {
    (0..usize::from(length)).all(|bit| (a[bit / 8] ^ b[bit / 8]) & (0x80 >> (bit % 8)) == 0)
}
