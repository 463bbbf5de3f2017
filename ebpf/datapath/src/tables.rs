//! The seam to the maps. The kernel shim, the host model and a dump of a live host implement it.

use crate::abi::{
    Bank, Bucket, CidrEntry, CidrKey, ClassKey, EndpointEntry, EndpointKey, Event, Flow, FlowKey,
    FragmentEntry, FragmentKey, PolicyEntry, PolicyKey, PrefixKey, Settings, TunnelKey,
};

/// Which of the two flow maps.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum FlowTable {
    /// `FLOWS`: packets were seen both ways.
    Confirmed,
    /// `HALF_OPEN`: a flood of these evicts no confirmed one.
    HalfOpen,
}

/// Reads and writes of the maps; every method is one map operation.
///
/// Methods take `&self`, since other CPUs change the same maps at any time. A reference into a banked table stays
/// valid while the packet is looked at: a bank is not written again before a grace period.
pub trait Tables {
    /// A place in a flow map. Another CPU may reuse it for another flow at any time; [`Flow::tag`] tells.
    type Slot: Copy;

    /// `SETTINGS` of a bank.
    fn settings(&self, bank: Bank) -> Option<&Settings>;
    /// `ENDPOINTS`.
    fn endpoint(&self, key: &EndpointKey) -> Option<&EndpointEntry>;
    /// `TUNNELS`: whether the entry is present.
    fn tunnel(&self, key: &TunnelKey) -> bool;
    /// `CIDRS`: the longest matching block.
    fn cidr(&self, key: &CidrKey) -> Option<&CidrEntry>;
    /// `CLASSES`: the class of an identity; 0 = none.
    fn class(&self, key: &ClassKey) -> u32;
    /// `POLICY`: the longest matching port prefix.
    fn policy(&self, key: &PolicyKey) -> Option<&PolicyEntry>;
    /// `PREFIXES`: whether a mesh prefix holds the address.
    fn prefix(&self, key: &PrefixKey) -> bool;

    /// Finds a flow.
    fn flow(&self, table: FlowTable, key: &FlowKey) -> Option<Self::Slot>;
    /// Copies a flow.
    fn load(&self, slot: Self::Slot) -> Flow;
    /// Whether what was read from a slot before is the flow with this tag.
    fn is_still(&self, slot: Self::Slot, tag: u32) -> bool;
    /// Writes a flow back in its place.
    fn store(&self, slot: Self::Slot, flow: &Flow);
    /// Writes only [`Flow::last_seen`].
    fn touch(&self, slot: Self::Slot, now: u32);
    /// Adds or replaces a flow; false when the map refuses.
    fn insert(&self, table: FlowTable, key: &FlowKey, flow: &Flow) -> bool;
    /// Removes a flow that may be absent from `HALF_OPEN`.
    fn remove_half_open(&self, key: &FlowKey);

    /// `FRAGMENTS`.
    fn fragment(&self, key: &FragmentKey) -> Option<FragmentEntry>;
    /// Adds or replaces an entry of `FRAGMENTS`; false when the map refuses.
    fn insert_fragment(&self, key: &FragmentKey, entry: &FragmentEntry) -> bool;

    /// `COUNTERS`: one more packet of that many bytes.
    fn count(&self, slot: u32, bytes: u32);
    /// `SAMPLING`: this CPU's bucket.
    fn bucket(&self, slot: u32) -> Option<Bucket>;
    /// `SAMPLING`: writes this CPU's bucket back.
    fn store_bucket(&self, slot: u32, bucket: &Bucket);
    /// `EVENTS`: false when the ring is full.
    fn emit(&self, event: Event) -> bool;
}
