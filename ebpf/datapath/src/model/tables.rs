//! The maps.

use alloc::{collections::BTreeMap, vec::Vec};
use core::cell::RefCell;

use super::{Lru, alloc};
use crate::{
    Address, FlowTable, Port, Reason, Tables,
    abi::{
        Bank, Bucket, CidrEntry, CidrKey, ClassEntry, ClassKey, Counter, EndpointEntry, EndpointKey, Event,
        Flow, FlowKey, FragmentEntry, FragmentKey, Hook, PolicyEntry, PolicyKey, PrefixEntry, PrefixKey,
        Settings, TunnelEntry, TunnelKey, counter_slot,
    },
};

/// How much the maps that packets write hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Capacity {
    /// `FLOWS`.
    pub flows: usize,
    /// `HALF_OPEN`.
    pub half_open: usize,
    /// `FRAGMENTS`.
    pub fragments: usize,
    /// Events that `EVENTS` takes until [`Model::take_events`].
    pub events: usize,
}

impl Default for Capacity {
    fn default() -> Self {
        Self { flows: 4096, half_open: 1024, fragments: 256, events: 4096 }
    }
}

/// All maps of one host.
#[derive(Clone, Debug)]
pub struct Model {
    /// `SETTINGS` of both banks.
    pub settings: [Option<Settings>; 2],
    /// `ENDPOINTS`.
    pub endpoints: BTreeMap<EndpointKey, EndpointEntry>,
    /// `TUNNELS`.
    pub tunnels: BTreeMap<TunnelKey, TunnelEntry>,
    /// `CIDRS`.
    pub cidrs: BTreeMap<CidrKey, CidrEntry>,
    /// `CLASSES`.
    pub classes: BTreeMap<ClassKey, ClassEntry>,
    /// `POLICY`.
    pub policy: BTreeMap<PolicyKey, PolicyEntry>,
    /// `PREFIXES`.
    pub prefixes: BTreeMap<PrefixKey, PrefixEntry>,
    written: RefCell<Written>,
}

/// What packets write.
#[derive(Clone, Debug)]
struct Written {
    flows: Lru<FlowKey, Flow>,
    half_open: Lru<FlowKey, Flow>,
    fragments: Lru<FragmentKey, FragmentEntry>,
    counters: BTreeMap<u32, Counter>,
    buckets: BTreeMap<u32, Bucket>,
    events: Vec<Event>,
    event_room: usize,
    /// What takes over the slot that is read, after so many reads.
    thief: Option<(u32, Flow)>,
}

impl Written {
    const fn table(&mut self, table: FlowTable) -> &mut Lru<FlowKey, Flow> {
        match table {
            FlowTable::Confirmed => &mut self.flows,
            FlowTable::HalfOpen => &mut self.half_open,
        }
    }

    /// Counts down to the moment at which a slot becomes another flow's.
    fn pass_slot(&mut self, table: FlowTable, key: &FlowKey) {
        match self.thief.take() {
            Some((0, flow)) => {
                self.table(table).insert(*key, flow);
            }
            Some((left, flow)) => self.thief = Some((left - 1, flow)),
            None => {}
        }
    }
}

impl Model {
    /// Empty maps.
    #[must_use]
    pub const fn new(capacity: Capacity) -> Self {
        Self {
            settings: [None; 2],
            endpoints: BTreeMap::new(),
            tunnels: BTreeMap::new(),
            cidrs: BTreeMap::new(),
            classes: BTreeMap::new(),
            policy: BTreeMap::new(),
            prefixes: BTreeMap::new(),
            written: RefCell::new(Written {
                flows: Lru::new(capacity.flows),
                half_open: Lru::new(capacity.half_open),
                fragments: Lru::new(capacity.fragments),
                counters: BTreeMap::new(),
                buckets: BTreeMap::new(),
                events: Vec::new(),
                event_room: capacity.events,
                thief: None,
            }),
        }
    }

    /// A counter.
    #[must_use]
    pub fn counter(&self, hook: Hook, reason: Reason) -> Counter {
        self.written.borrow().counters.get(&counter_slot(hook, reason)).copied().unwrap_or_default()
    }

    /// The events since the last call.
    #[must_use]
    pub fn take_events(&self) -> Vec<Event> {
        core::mem::take(&mut self.written.borrow_mut().events)
    }

    /// The entries of a flow map.
    #[must_use]
    pub fn flows(&self, table: FlowTable) -> BTreeMap<FlowKey, Flow> {
        self.written.borrow_mut().table(table).iter().map(|(key, flow)| (*key, *flow)).collect()
    }

    /// Lets another flow take over the next slot that is found, after so many reads of it, as another CPU would.
    pub fn reuse_slot(&self, after_loads: u32, flow: Flow) {
        self.written.borrow_mut().thief = Some((after_loads, flow));
    }

    /// The entries of `FRAGMENTS`.
    #[must_use]
    pub fn fragments(&self) -> BTreeMap<FragmentKey, FragmentEntry> {
        self.written.borrow().fragments.iter().map(|(key, entry)| (*key, *entry)).collect()
    }

    /// Forgets what sampling spent.
    pub fn refill(&self) {
        self.written.borrow_mut().buckets.clear();
    }
}

impl Default for Model {
    fn default() -> Self {
        Self::new(Capacity::default())
    }
}

/// The first `bits` of an address, the rest zero.
fn masked(address: Address, bits: u32) -> Address {
    let kept = u128::MAX.checked_shl(128 - bits).unwrap_or(0);
    Address((u128::from_be_bytes(address.0) & kept).to_be_bytes())
}

impl Tables for Model {
    type Slot = (FlowTable, FlowKey);

    fn settings(&self, bank: Bank) -> Option<&Settings> {
        self.settings.get(usize::from(bank.number()))?.as_ref()
    }

    fn endpoint(&self, key: &EndpointKey) -> Option<&EndpointEntry> {
        self.endpoints.get(key)
    }

    fn tunnel(&self, key: &TunnelKey) -> bool {
        self.tunnels.contains_key(key)
    }

    fn cidr(&self, key: &CidrKey) -> Option<&CidrEntry> {
        let longest = self.cidrs.iter().filter(|(block, _)| {
            let bits = block.prefix_len - CidrKey::BASE_BITS;
            block.bank == key.bank && masked(block.address, bits) == masked(key.address, bits)
        });
        longest.max_by_key(|(block, _)| block.prefix_len).map(|(_, entry)| entry)
    }

    fn class(&self, key: &ClassKey) -> u32 {
        self.classes.get(key).map_or(0, |entry| entry.class)
    }

    fn policy(&self, key: &PolicyKey) -> Option<&PolicyEntry> {
        (0..=16).rev().find_map(|bits| {
            let kept = u16::MAX.checked_shl(16 - bits).unwrap_or(0);
            let prefix_len = PolicyKey::BASE_BITS + bits;
            self.policy.get(&PolicyKey { prefix_len, port: Port::new(key.port.get() & kept), ..*key })
        })
    }

    fn prefix(&self, key: &PrefixKey) -> bool {
        self.prefixes.keys().any(|prefix| {
            let bits = prefix.prefix_len - CidrKey::BASE_BITS;
            prefix.bank == key.bank && masked(prefix.address, bits) == masked(key.address, bits)
        })
    }

    fn flow(&self, table: FlowTable, key: &FlowKey) -> Option<Self::Slot> {
        let mut written = self.written.borrow_mut();
        written.table(table).get(key)?;
        written.pass_slot(table, key);
        Some((table, *key))
    }

    fn load(&self, (table, key): Self::Slot) -> Flow {
        let mut written = self.written.borrow_mut();
        let flow = written.table(table).get(&key).map_or_else(Flow::default, |flow| *flow);
        written.pass_slot(table, &key);
        flow
    }

    fn is_still(&self, (table, key): Self::Slot, tag: u32) -> bool {
        self.written.borrow_mut().table(table).get(&key).is_some_and(|flow| flow.tag == tag)
    }

    fn store(&self, (table, key): Self::Slot, flow: &Flow) {
        if let Some(place) = self.written.borrow_mut().table(table).get(&key) {
            *place = *flow;
        }
    }

    fn touch(&self, (table, key): Self::Slot, now: u32) {
        if let Some(place) = self.written.borrow_mut().table(table).get(&key) {
            place.last_seen = now;
        }
    }

    fn insert(&self, table: FlowTable, key: &FlowKey, flow: &Flow) -> bool {
        self.written.borrow_mut().table(table).insert(*key, *flow)
    }

    fn remove_half_open(&self, key: &FlowKey) {
        self.written.borrow_mut().half_open.remove(key);
    }

    fn fragment(&self, key: &FragmentKey) -> Option<FragmentEntry> {
        self.written.borrow_mut().fragments.get(key).map(|entry| *entry)
    }

    fn insert_fragment(&self, key: &FragmentKey, entry: &FragmentEntry) -> bool {
        self.written.borrow_mut().fragments.insert(*key, *entry)
    }

    fn count(&self, slot: u32, bytes: u32) {
        let mut written = self.written.borrow_mut();
        let counter = written.counters.entry(slot).or_default();
        counter.packets += 1;
        counter.bytes += u64::from(bytes);
    }

    fn bucket(&self, slot: u32) -> Option<Bucket> {
        Some(self.written.borrow().buckets.get(&slot).copied().unwrap_or_default())
    }

    fn store_bucket(&self, slot: u32, bucket: &Bucket) {
        self.written.borrow_mut().buckets.insert(slot, *bucket);
    }

    fn emit(&self, event: Event) -> bool {
        let mut written = self.written.borrow_mut();
        let has_room = written.events.len() < written.event_room;
        if has_room {
            written.events.push(event);
        }
        has_room
    }
}
