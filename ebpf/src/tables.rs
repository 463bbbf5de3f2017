//! The maps as the `Tables` of the datapath: one helper call per method.
#![expect(unsafe_code, reason = "map values are raw memory that the kernel shares with other CPUs")]

use core::{
    ptr::{self, NonNull},
    sync::atomic::{Ordering, compiler_fence},
};

use aya_ebpf::{
    bindings::bpf_tunnel_key,
    btf_maps::lpm_trie::Key,
    helpers::{bpf_jiffies64, bpf_ktime_get_ns},
};
use datapath::{
    FlowTable, Tables, Work,
    abi::{
        Bank, Bucket, CidrEntry, CidrKey, ClassKey, Control, EndpointEntry, EndpointKey, Event, Flow,
        FlowKey, FragmentEntry, FragmentKey, PolicyEntry, PolicyKey, PrefixKey, Settings, TunnelKey,
    },
};

use crate::maps::{
    AddressBits, CIDRS, CLASSES, CONTROL, COUNTERS, ENDPOINTS, EVENTS, FLOWS, FRAGMENTS, HALF_OPEN, POLICY,
    PREFIXES, PolicyBits, SAMPLING, SCRATCH, SETTINGS, TUNNELS,
};

const BPF_ANY: u64 = 0;

/// The kernel's maps.
pub(crate) struct Maps;

/// Reads the control word.
#[inline(always)]
pub(crate) fn control() -> Control {
    match CONTROL.get_ptr(0) {
        // SAFETY: an element of an array map lives as long as the map; the agent stores the word in one piece.
        Some(word) => Control(unsafe { ptr::read_volatile(word) }),
        None => Control::UNPUBLISHED,
    }
}

/// What a packet needs of this CPU.
pub(crate) struct Desk {
    /// Nanoseconds of the monotonic clock, at most one timer interrupt old.
    pub(crate) now_ns: u64,
    /// Room for the packet at hand.
    pub(crate) work: &'static mut Work,
    /// Room for its tunnel key.
    pub(crate) tunnel_key: &'static mut bpf_tunnel_key,
}

/// This CPU's clock and room. A program asks once.
#[inline(always)]
pub(crate) fn desk() -> Option<Desk> {
    let scratch = SCRATCH.get_ptr_mut(0)?;
    // SAFETY: the value belongs to this CPU, and programs of these hooks do not interrupt each other. All bytes zero,
    // as the map starts, are a value, and only this program writes it. The helpers only read clocks.
    unsafe {
        // Reading the timer interrupt's count is for free, reading the clock is not.
        let jiffies = bpf_jiffies64();
        if (*scratch).jiffies != jiffies {
            (*scratch).jiffies = jiffies;
            (*scratch).now_ns = bpf_ktime_get_ns();
        }
        Some(Desk {
            now_ns: (*scratch).now_ns,
            work: &mut (*scratch).work,
            tunnel_key: &mut (*scratch).tunnel_key,
        })
    }
}

/// A trie's key in the form of its map: the same bytes, declared without alignment.
#[inline(always)]
const fn address_bits(key: &CidrKey) -> &Key<AddressBits> {
    // SAFETY: both are a 4-byte prefix length and 20 bytes, and `Key` needs no alignment.
    unsafe { &*ptr::from_ref(key).cast() }
}

#[inline(always)]
const fn prefix_bits(key: &PrefixKey) -> &Key<AddressBits> {
    // SAFETY: both are a 4-byte prefix length and 20 bytes, and `Key` needs no alignment.
    unsafe { &*ptr::from_ref(key).cast() }
}

#[inline(always)]
const fn policy_bits(key: &PolicyKey) -> &Key<PolicyBits> {
    // SAFETY: both are a 4-byte prefix length and 12 bytes, and `Key` needs no alignment.
    unsafe { &*ptr::from_ref(key).cast() }
}

impl Tables for Maps {
    type Slot = NonNull<Flow>;

    #[inline(always)]
    fn settings(&self, bank: Bank) -> Option<&Settings> {
        SETTINGS.get(u32::from(bank.number()))
    }

    #[inline(always)]
    fn endpoint(&self, key: &EndpointKey) -> Option<&EndpointEntry> {
        // SAFETY: entries of a bank that packets may still read are neither changed nor removed.
        unsafe { ENDPOINTS.get(key) }
    }

    #[inline(always)]
    fn tunnel(&self, key: &TunnelKey) -> bool {
        TUNNELS.get_ptr(key).is_some()
    }

    #[inline(always)]
    fn cidr(&self, key: &CidrKey) -> Option<&CidrEntry> {
        CIDRS.get(address_bits(key))
    }

    #[inline(always)]
    fn class(&self, key: &ClassKey) -> u32 {
        // SAFETY: entries of a bank that packets may still read are neither changed nor removed.
        unsafe { CLASSES.get(key) }.map_or(0, |entry| entry.class)
    }

    #[inline(always)]
    fn policy(&self, key: &PolicyKey) -> Option<&PolicyEntry> {
        POLICY.get(policy_bits(key))
    }

    #[inline(always)]
    fn prefix(&self, key: &PrefixKey) -> bool {
        PREFIXES.get(prefix_bits(key)).is_some()
    }

    #[inline(always)]
    fn flow(&self, table: FlowTable, key: &FlowKey) -> Option<NonNull<Flow>> {
        match table {
            FlowTable::Confirmed => FLOWS.get_ptr_mut(key),
            FlowTable::HalfOpen => HALF_OPEN.get_ptr_mut(key),
        }
        .and_then(NonNull::new)
    }

    #[inline(always)]
    fn load(&self, slot: NonNull<Flow>) -> Flow {
        // SAFETY: the memory stays a map value until the program ends. Another CPU may write it meanwhile: every
        // field is plain bytes, and `is_still` tells whether it became another flow's.
        unsafe { ptr::read(slot.as_ptr()) }
    }

    #[inline(always)]
    fn is_still(&self, slot: NonNull<Flow>, tag: u32) -> bool {
        compiler_fence(Ordering::Acquire);
        // SAFETY: as in `load`.
        unsafe { ptr::read_volatile(&raw const (*slot.as_ptr()).tag) == tag }
    }

    #[inline(always)]
    fn store(&self, slot: NonNull<Flow>, flow: &Flow) {
        // SAFETY: as in `load`; a racing packet of the same flow writes the like.
        unsafe { ptr::write(slot.as_ptr(), *flow) }
    }

    #[inline(always)]
    fn touch(&self, slot: NonNull<Flow>, now: u32) {
        // SAFETY: as in `load`.
        unsafe { ptr::write_volatile(&raw mut (*slot.as_ptr()).last_seen, now) }
    }

    #[inline(always)]
    fn insert(&self, table: FlowTable, key: &FlowKey, flow: &Flow) -> bool {
        match table {
            FlowTable::Confirmed => FLOWS.insert(key, flow, BPF_ANY),
            FlowTable::HalfOpen => HALF_OPEN.insert(key, flow, BPF_ANY),
        }
        .is_ok()
    }

    #[inline(always)]
    fn remove_half_open(&self, key: &FlowKey) {
        // Another CPU may have removed it.
        let _absent = HALF_OPEN.remove(key);
    }

    #[inline(always)]
    fn fragment(&self, key: &FragmentKey) -> Option<FragmentEntry> {
        // SAFETY: plain bytes, copied at once; a reused slot is another datagram, as likely as a reused id.
        FRAGMENTS.get_ptr(key).map(|entry| unsafe { ptr::read(entry) })
    }

    #[inline(always)]
    fn insert_fragment(&self, key: &FragmentKey, entry: &FragmentEntry) -> bool {
        FRAGMENTS.insert(key, entry, BPF_ANY).is_ok()
    }

    #[inline(always)]
    fn count(&self, slot: u32, bytes: u32) {
        if let Some(counter) = COUNTERS.get_ptr_mut(slot) {
            // SAFETY: the value belongs to this CPU, and programs of these hooks do not interrupt each other.
            unsafe {
                (*counter).packets = (*counter).packets.wrapping_add(1);
                (*counter).bytes = (*counter).bytes.wrapping_add(u64::from(bytes));
            }
        }
    }

    #[inline(always)]
    fn bucket(&self, slot: u32) -> Option<Bucket> {
        SAMPLING.get(slot).copied()
    }

    #[inline(always)]
    fn store_bucket(&self, slot: u32, bucket: &Bucket) {
        if let Some(place) = SAMPLING.get_ptr_mut(slot) {
            // SAFETY: the value belongs to this CPU, and programs of these hooks do not interrupt each other.
            unsafe { *place = *bucket }
        }
    }

    #[inline(always)]
    fn emit(&self, event: Event) -> bool {
        let Some(mut entry) = EVENTS.reserve_untyped::<Event>(0) else { return false };
        entry.write(event);
        entry.submit(0);
        true
    }
}
