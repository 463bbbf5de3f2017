//! The maps. Sizes are defaults; the agent sets its own when it loads the object.

use aya_ebpf::{
    bindings::{BPF_F_NO_PREALLOC, bpf_tunnel_key},
    btf_maps::{Array, HashMap, LpmTrie, LruHashMap, PerCpuArray, ProgramArray, RingBuf},
    macros::btf_map,
};
use datapath::{
    Work,
    abi::{
        Bucket, COUNTER_SLOTS, CidrEntry, ClassEntry, ClassKey, Counter, EndpointEntry, EndpointKey, Flow,
        FlowKey, FragmentEntry, FragmentKey, Hook, PROGRAM_SETS, PolicyEntry, PrefixEntry, Settings,
        TunnelEntry, TunnelKey,
    },
};

/// Memory only for what is there: banked tables are sized for the largest mesh.
#[expect(clippy::as_conversions, reason = "`From` is not const")]
const NO_PREALLOC: usize = BPF_F_NO_PREALLOC as usize;
#[expect(clippy::as_conversions, reason = "`From` is not const")]
const PROGRAM_SLOTS: usize = (PROGRAM_SETS * Hook::COUNT) as usize;
#[expect(clippy::as_conversions, reason = "`From` is not const")]
const SLOTS: usize = COUNTER_SLOTS as usize;

/// The bytes of a trie's key after its prefix length: of [`datapath::abi::CidrKey`] and `PrefixKey`.
pub(crate) type AddressBits = [u8; 20];
/// The same of [`datapath::abi::PolicyKey`].
pub(crate) type PolicyBits = [u8; 12];

/// Value of `SCRATCH`: what is this CPU's own.
#[repr(C)]
pub(crate) struct Scratch {
    /// The timer interrupt at which `now_ns` was read.
    pub(crate) jiffies: u64,
    /// Nanoseconds of the monotonic clock.
    pub(crate) now_ns: u64,
    /// Room for the packet at hand.
    pub(crate) work: Work,
    /// Room for its tunnel key.
    pub(crate) tunnel_key: bpf_tunnel_key,
}

#[btf_map]
pub(crate) static CONTROL: Array<u32, 1> = Array::new();
#[btf_map]
pub(crate) static PROGRAMS: ProgramArray<PROGRAM_SLOTS> = ProgramArray::new();
#[btf_map]
pub(crate) static FLOWS: LruHashMap<FlowKey, Flow, 262_144> = LruHashMap::new();
#[btf_map]
pub(crate) static HALF_OPEN: LruHashMap<FlowKey, Flow, 65_536> = LruHashMap::new();
#[btf_map]
pub(crate) static FRAGMENTS: LruHashMap<FragmentKey, FragmentEntry, 4096> = LruHashMap::new();
#[btf_map]
pub(crate) static EVENTS: RingBuf<(), 1_048_576> = RingBuf::new();
#[btf_map]
pub(crate) static COUNTERS: PerCpuArray<Counter, SLOTS> = PerCpuArray::new();
#[btf_map]
pub(crate) static SAMPLING: PerCpuArray<Bucket, SLOTS> = PerCpuArray::new();

#[btf_map]
pub(crate) static SCRATCH: PerCpuArray<Scratch, 1> = PerCpuArray::new();

#[btf_map]
pub(crate) static ENDPOINTS: HashMap<EndpointKey, EndpointEntry, 262_144, NO_PREALLOC> = HashMap::new();
#[btf_map]
pub(crate) static TUNNELS: HashMap<TunnelKey, TunnelEntry, 16_384, NO_PREALLOC> = HashMap::new();
#[btf_map]
pub(crate) static CIDRS: LpmTrie<AddressBits, CidrEntry, 32_768> = LpmTrie::new();
#[btf_map]
pub(crate) static CLASSES: HashMap<ClassKey, ClassEntry, 131_072, NO_PREALLOC> = HashMap::new();
#[btf_map]
pub(crate) static POLICY: LpmTrie<PolicyBits, PolicyEntry, 131_072> = LpmTrie::new();
#[btf_map]
pub(crate) static PREFIXES: LpmTrie<AddressBits, PrefixEntry, 512> = LpmTrie::new();
#[btf_map]
pub(crate) static SETTINGS: Array<Settings, 2> = Array::new();
