//! The maps as plain collections, filled from a policy and a few endpoints.

use std::cell::RefCell;
use std::collections::BTreeMap;

use datapath::abi::{
    Bank, Bucket, CidrKey, ClassKey, EndpointEntry, EndpointKey, Event, Flow, FlowKey, FragmentEntry,
    FragmentKey, PolicyEntry, PolicyKey, PrefixKey, Settings, TunnelKey,
};
use datapath::{Address, FlowTable, Tables};
use policy::lower::Lowered;

/// The bank that the model fills.
pub(super) const BANK: Bank = Bank::A;

/// The maps.
#[derive(Debug)]
pub(super) struct Model {
    settings: Settings,
    endpoints: BTreeMap<Address, EndpointEntry>,
    tunnels: Vec<(u32, Address)>,
    classes: BTreeMap<ClassKey, u32>,
    cidrs: Vec<(CidrKey, u32)>,
    policy: Vec<(PolicyKey, PolicyEntry)>,
    flows: RefCell<Vec<(FlowTable, FlowKey, Flow)>>,
    fragments: RefCell<BTreeMap<FragmentKey, FragmentEntry>>,
}

impl Model {
    pub(super) fn new(settings: Settings, lowered: &Lowered) -> Self {
        Self {
            settings,
            endpoints: BTreeMap::new(),
            tunnels: Vec::new(),
            classes: lowered.classes(BANK).map(|(key, entry)| (key, entry.class)).collect(),
            cidrs: lowered.cidrs(BANK).map(|(key, entry)| (key, entry.class)).collect(),
            policy: lowered.policy(BANK).collect(),
            flows: RefCell::default(),
            fragments: RefCell::default(),
        }
    }

    /// Adds an endpoint that any of these may send for.
    pub(super) fn endpoint(&mut self, address: Address, entry: EndpointEntry, tunnels: &[Address]) {
        self.tunnels.extend(tunnels.iter().map(|tunnel| (entry.tunnel_set, *tunnel)));
        self.endpoints.insert(address, entry);
    }
}

/// Whether the first `bits` bits are the same.
fn begins(address: &[u8], prefix: &[u8], bits: u32) -> bool {
    address.iter().zip(prefix).zip(0_u32..).all(|((a, b), index)| {
        let counted = bits.saturating_sub(index * 8).min(8);
        let ignored = 8 - counted;
        u16::from(a ^ b) >> ignored == 0
    })
}

impl Tables for Model {
    type Slot = usize;

    fn settings(&self, bank: Bank) -> Option<&Settings> {
        (bank == BANK).then_some(&self.settings)
    }

    fn endpoint(&self, key: &EndpointKey) -> Option<&EndpointEntry> {
        self.endpoints.get(&key.address)
    }

    fn tunnel(&self, key: &TunnelKey) -> bool {
        self.tunnels.contains(&(key.set, key.address))
    }

    fn cidr_class(&self, key: &CidrKey) -> u32 {
        let matching = self.cidrs.iter().filter(|(entry, _)| {
            begins(&key.address.0, &entry.address.0, entry.prefix_len.saturating_sub(CidrKey::BASE_BITS))
        });
        matching.max_by_key(|(entry, _)| entry.prefix_len).map_or(0, |(_, class)| *class)
    }

    fn class(&self, key: &ClassKey) -> u32 {
        self.classes.get(key).copied().unwrap_or_default()
    }

    fn policy(&self, key: &PolicyKey) -> Option<&PolicyEntry> {
        let matching = self.policy.iter().filter(|(entry, _)| {
            (entry.class, entry.direction, entry.protocol) == (key.class, key.direction, key.protocol)
                && begins(&key.port.0, &entry.port.0, entry.prefix_len.saturating_sub(PolicyKey::BASE_BITS))
        });
        matching.max_by_key(|(entry, _)| entry.prefix_len).map(|(_, value)| value)
    }

    fn prefix(&self, _key: &PrefixKey) -> bool {
        false
    }

    fn flow(&self, table: FlowTable, key: &FlowKey) -> Option<usize> {
        self.flows.borrow().iter().position(|(found, flow, _)| (*found, flow) == (table, key))
    }

    fn load(&self, slot: usize) -> Flow {
        self.flows.borrow().get(slot).map(|(_, _, flow)| *flow).unwrap_or_default()
    }

    fn is_still(&self, slot: usize, tag: u32) -> bool {
        self.load(slot).tag == tag
    }

    fn store(&self, slot: usize, flow: &Flow) {
        if let Some((_, _, place)) = self.flows.borrow_mut().get_mut(slot) {
            *place = *flow;
        }
    }

    fn touch(&self, slot: usize, now: u32) {
        if let Some((_, _, place)) = self.flows.borrow_mut().get_mut(slot) {
            place.last_seen = now;
        }
    }

    fn insert(&self, table: FlowTable, key: &FlowKey, flow: &Flow) -> bool {
        match self.flow(table, key) {
            Some(slot) => self.store(slot, flow),
            None => self.flows.borrow_mut().push((table, *key, *flow)),
        }
        true
    }

    fn remove_half_open(&self, key: &FlowKey) {
        if let Some(slot) = self.flow(FlowTable::HalfOpen, key) {
            // Slots of others stay what they are: the place is only emptied.
            if let Some((_, place, _)) = self.flows.borrow_mut().get_mut(slot) {
                *place = FlowKey::default();
            }
        }
    }

    fn fragment(&self, key: &FragmentKey) -> Option<FragmentEntry> {
        self.fragments.borrow().get(key).copied()
    }

    fn insert_fragment(&self, key: &FragmentKey, entry: &FragmentEntry) -> bool {
        self.fragments.borrow_mut().insert(*key, *entry);
        true
    }

    fn count(&self, _slot: u32, _bytes: u32) {}

    fn bucket(&self, _slot: u32) -> Option<Bucket> {
        Some(Bucket::default())
    }

    fn store_bucket(&self, _slot: u32, _bucket: &Bucket) {}

    fn emit(&self, _event: Event) -> bool {
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prefixes_are_compared_bit_by_bit() {
        assert!(begins(&[0b1010_0000], &[0b1011_0000], 3));
        assert!(!begins(&[0b1010_0000], &[0b1011_0000], 4));
        assert!(begins(&[1, 2], &[1, 3], 8) && !begins(&[1, 2], &[1, 3], 16) && begins(&[9], &[1], 0));
    }
}
