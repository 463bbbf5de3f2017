//! The lookups of the datapath over lowered maps, one by one and without any trie: for tests.

use datapath::abi::PolicyKey;
use datapath::policy::NO_ENDPOINT;
use datapath::{Action, Address};

use super::{Decider, EntryKey, EntryValue, Lowered, action};
use crate::evaluate::Flow;
use crate::state::{RuleAction, canonical};

/// What the datapath decides: action and rule id.
pub(crate) fn decide(lowered: &Lowered, flow: &Flow) -> (Action, u32) {
    let identity = flow.identity.map_or(NO_ENDPOINT, crate::identity::Identity::get);
    let by_identity = lowered.classes.get(&identity).copied().unwrap_or(0);
    let by_address = class_of(lowered, flow);
    let mut classes = vec![by_identity];
    classes.extend(Some(by_address).filter(|class| *class != 0));
    let mut found: Vec<EntryValue> = Vec::new();
    for class in classes {
        for protocol in [flow.protocol, PolicyKey::ANY_PROTOCOL] {
            found.extend(longest_port(lowered, class, protocol, flow));
        }
    }
    let winner = |deciders: &mut dyn Iterator<Item = Decider>| {
        deciders.max_by_key(|decider| (decider.precedence, decider.action))
    };
    let mut decider = winner(&mut found.iter().map(|value| value.first));
    if decider.is_some_and(|decider| decider.action == RuleAction::Pass) {
        decider = winner(&mut found.iter().filter_map(|value| value.below));
    }
    let default = lowered.default(flow.direction);
    decider.map_or((default.action, default.rule), |decider| (action(decider.action), decider.rule))
}

fn class_of(lowered: &Lowered, flow: &Flow) -> u32 {
    let address = Address::from(canonical(flow.remote)).0;
    let covering = lowered.cidrs.iter().filter(|((block, length), _)| same_bits(&block.0, &address, *length));
    let longest = covering.max_by_key(|((_, length), _)| *length);
    longest.map_or(0, |(_, entry)| if flow.identity.is_none() { entry.outside } else { entry.class })
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
