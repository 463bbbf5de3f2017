//! The BPF object in the kernel, run by hand.

use std::collections::BTreeMap;
use std::mem::offset_of;
use std::os::fd::{AsFd as _, AsRawFd as _};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use aya::maps::lpm_trie::Key;
use aya::maps::{Array, HashMap, LpmTrie, Map, MapData, PerCpuArray, PerCpuValues, ProgramArray, RingBuf};
use aya::programs::{SchedClassifier, TestRun, TestRunOptions};
use aya::util::nr_cpus;
use aya::{Ebpf, EbpfLoader};
use datapath::abi::{
    Bucket, COUNTER_SLOTS, CidrEntry, CidrKey, ClassEntry, ClassKey, Control, Counter, EndpointEntry,
    EndpointKey, Event, Flow, FlowKey, FragmentEntry, FragmentKey, Hook, PolicyEntry, PolicyKey, PrefixEntry,
    PrefixKey, Settings, TunnelEntry, TunnelKey,
};
use datapath::model::Model;
use datapath::{Address, FlowTable, Outer};
use zerocopy::{FromBytes, Immutable, IntoBytes};

/// What a program returns for a packet that goes on.
pub const PASSED: u32 = u32::MAX;
/// What a program returns for a packet that is dropped.
pub const DROPPED: u32 = 2;
/// What a program returns for a packet that it sends to a device.
pub const REDIRECTED: u32 = 7;

/// The head of the kernel's `__sk_buff`, up to the control buffer.
#[derive(Clone, Copy, Debug, Default, FromBytes, IntoBytes, Immutable)]
#[repr(C)]
struct SkBuff {
    before: [u32; 2],
    mark: u32,
    between: [u32; 5],
    priority: u32,
    behind: [u32; 3],
    control_buffer: [u32; 5],
}

const _: () = assert!(offset_of!(SkBuff, control_buffer) == 48, "`cb` of `__sk_buff`");

/// The object, loaded, with maps of its own.
pub struct Kernel {
    ebpf: Ebpf,
    events: RingBuf<MapData>,
}

/// How packets change from one repetition to the next (`ebpf/src/test/rotation.rs`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rotation {
    /// The control buffer.
    pub control_buffer: [u32; 5],
    /// `skb->priority`.
    pub priority: u32,
}

/// How a run ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Run {
    /// [`PASSED`], [`DROPPED`] or [`REDIRECTED`].
    pub action: u32,
    /// The frame after it.
    pub frame: Vec<u8>,
    /// The control buffer after it.
    pub control_buffer: [u32; 5],
    /// Nanoseconds on average.
    pub ns: u64,
}

/// The control buffer that carries outer facts to the test entry.
#[must_use]
pub fn control_buffer(outer: &Outer) -> [u32; 5] {
    let [a, b, c, d]: [u32; 4] = zerocopy::transmute!(outer.source.0);
    [a, b, c, d, outer.vni]
}

/// The tunnel and the mark that the test entry reports.
#[must_use]
pub fn route([a, b, c, d, mark]: [u32; 5]) -> (Address, u32) {
    (Address(zerocopy::transmute!([a, b, c, d])), mark)
}

/// Where `cargo xtask bpf` puts the object.
#[must_use]
pub fn object() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/bpf/outrigger.bpf.o")
}

impl Kernel {
    /// Loads every program of the object that `cargo xtask bpf` built.
    pub fn load() -> Result<Self> {
        Self::load_with(&object(), &[("FLOWS", 8192), ("HALF_OPEN", 8192)])
    }

    /// Loads every program of an object, with maps of these sizes.
    pub fn load_with(path: &Path, sizes: &[(&str, u32)]) -> Result<Self> {
        if !nix::unistd::geteuid().is_root() {
            bail!("loading programs into the kernel needs root");
        }
        let mut loader = EbpfLoader::new();
        for (name, size) in sizes {
            loader.map_max_entries(name, *size);
        }
        let mut ebpf = loader
            .load_file(path)
            .with_context(|| format!("load {} (built by `cargo xtask bpf`)", path.display()))?;
        for (name, program) in ebpf.programs_mut() {
            let program: &mut SchedClassifier =
                program.try_into().with_context(|| format!("program {name}"))?;
            program.load().with_context(|| format!("load program {name}"))?;
        }
        let events = RingBuf::try_from(ebpf.take_map("EVENTS").context("no map EVENTS")?)?;
        Ok(Self { ebpf, events })
    }

    /// Runs a program on an Ethernet frame.
    pub fn run(&self, program: &str, frame: &[u8], control_buffer: [u32; 5]) -> Result<Run> {
        self.repeat(program, frame, control_buffer, 1)
    }

    /// Runs a program many times on the same frame.
    pub fn repeat(&self, program: &str, frame: &[u8], control_buffer: [u32; 5], times: u32) -> Result<Run> {
        self.test_run(program, frame, SkBuff { control_buffer, ..SkBuff::default() }, times)
    }

    /// Runs a rotating program, from the packet of this number on.
    pub fn rotate(
        &self,
        program: &str,
        frame: &[u8],
        rotation: &Rotation,
        first: u32,
        times: u32,
    ) -> Result<Run> {
        let Rotation { control_buffer, priority } = *rotation;
        let context = SkBuff { mark: first, priority, control_buffer, ..SkBuff::default() };
        self.test_run(program, frame, context, times)
    }

    fn test_run(&self, program: &str, frame: &[u8], context: SkBuff, times: u32) -> Result<Run> {
        let program: &SchedClassifier =
            self.ebpf.program(program).with_context(|| format!("no program {program}"))?.try_into()?;
        let mut after = [0; 192];
        // Nothing adds to a packet.
        let mut out = vec![0; frame.len()];
        let options = TestRunOptions {
            data_in: Some(frame),
            data_out: Some(&mut out),
            ctx_in: Some(context.as_bytes()),
            ctx_out: Some(&mut after),
            repeat: times,
            ..TestRunOptions::default()
        };
        let result = program.test_run(options).context("BPF_PROG_TEST_RUN")?;
        let (after, _) = SkBuff::read_from_prefix(&after).ok().context("context of the run")?;
        Ok(Run {
            action: result.return_value,
            frame: out,
            control_buffer: after.control_buffer,
            ns: u64::try_from(result.duration.as_nanos())?,
        })
    }

    /// Writes the control word.
    pub fn publish(&mut self, control: Control) -> Result<()> {
        let mut map: Array<_, u32> = Array::try_from(self.map("CONTROL")?)?;
        Ok(map.set(0, control.0, 0)?)
    }

    /// Puts the programs of a set in their places. The array forgets them when the result is dropped.
    pub fn fill_programs(&mut self, set: u32) -> Result<ProgramArray<MapData>> {
        let mut array = ProgramArray::try_from(self.ebpf.take_map("PROGRAMS").context("no map PROGRAMS")?)?;
        for hook in Hook::ALL {
            let program: &SchedClassifier =
                self.ebpf.program(hook.program()).context("no program of the hook")?.try_into()?;
            array.set(hook.program_index(set), program.fd()?, 0)?;
        }
        Ok(array)
    }

    /// Makes the banked tables those of the model.
    pub fn write_tables(&mut self, model: &Model) -> Result<()> {
        let mut settings: Array<_, [u8; size_of::<Settings>()]> = Array::try_from(self.map("SETTINGS")?)?;
        for (bank, value) in (0..).zip(&model.settings) {
            settings.set(bank, value.map_or([0; _], |value| zerocopy::transmute!(value)), 0)?;
        }
        self.write_hash::<{ size_of::<EndpointKey>() }, { size_of::<EndpointEntry>() }, _, _>(
            "ENDPOINTS",
            &model.endpoints,
        )?;
        self.write_hash::<{ size_of::<TunnelKey>() }, { size_of::<TunnelEntry>() }, _, _>(
            "TUNNELS",
            &model.tunnels,
        )?;
        self.write_hash::<{ size_of::<ClassKey>() }, { size_of::<ClassEntry>() }, _, _>(
            "CLASSES",
            &model.classes,
        )?;
        self.write_trie::<{ size_of::<CidrKey>() - 4 }, { size_of::<CidrEntry>() }, _, _>(
            "CIDRS",
            &model.cidrs,
        )?;
        self.write_trie::<{ size_of::<PolicyKey>() - 4 }, { size_of::<PolicyEntry>() }, _, _>(
            "POLICY",
            &model.policy,
        )?;
        self.write_trie::<{ size_of::<PrefixKey>() - 4 }, { size_of::<PrefixEntry>() }, _, _>(
            "PREFIXES",
            &model.prefixes,
        )
    }

    /// What the kernel accounts for a map, in bytes (`memlock` of its fdinfo, see proc(5)).
    pub fn memory(&self, map: &str) -> Result<u64> {
        let (Map::HashMap(data) | Map::LpmTrie(data)) =
            self.ebpf.map(map).with_context(|| format!("no map {map}"))?
        else {
            bail!("{map} is of another kind");
        };
        let path = format!("/proc/self/fdinfo/{}", data.fd().as_fd().as_raw_fd());
        let text = std::fs::read_to_string(&path).with_context(|| format!("read {path}"))?;
        let bytes = text.lines().find_map(|line| line.strip_prefix("memlock:")?.trim().parse().ok());
        bytes.with_context(|| format!("no memlock in {path}"))
    }

    /// Adds endpoints to those that are there.
    pub fn add_endpoints(&mut self, entries: &BTreeMap<EndpointKey, EndpointEntry>) -> Result<()> {
        let mut map: HashMap<_, [u8; size_of::<EndpointKey>()], [u8; size_of::<EndpointEntry>()]> =
            HashMap::try_from(self.map("ENDPOINTS")?)?;
        for (key, entry) in entries {
            let (key, entry): ([u8; size_of::<EndpointKey>()], [u8; size_of::<EndpointEntry>()]) =
                (zerocopy::transmute!(*key), zerocopy::transmute!(*entry));
            map.insert(key, entry, 0).context("add an endpoint")?;
        }
        Ok(())
    }

    /// Removes all flows of a map.
    pub fn remove_flows(&mut self, table: FlowTable) -> Result<()> {
        self.write_hash::<{ size_of::<FlowKey>() }, { size_of::<Flow>() }, _, _>(
            flow_map(table),
            &BTreeMap::<FlowKey, Flow>::new(),
        )
    }

    fn write_hash<const K: usize, const V: usize, Q, W>(
        &mut self,
        name: &str,
        entries: &BTreeMap<Q, W>,
    ) -> Result<()>
    where
        Q: IntoBytes + Immutable,
        W: IntoBytes + Immutable,
    {
        let mut map: HashMap<_, [u8; K], [u8; V]> = HashMap::try_from(self.map(name)?)?;
        for key in map.keys().collect::<Result<Vec<_>, _>>()? {
            map.remove(&key)?;
        }
        for (key, value) in entries {
            map.insert(bytes::<K, Q>(key)?, bytes::<V, W>(value)?, 0)
                .with_context(|| format!("write {name}"))?;
        }
        Ok(())
    }

    fn write_trie<const K: usize, const V: usize, Q, W>(
        &mut self,
        name: &str,
        entries: &BTreeMap<Q, W>,
    ) -> Result<()>
    where
        Q: IntoBytes + Immutable,
        W: IntoBytes + Immutable,
    {
        let mut map: LpmTrie<_, [u8; K], [u8; V]> = LpmTrie::try_from(self.map(name)?)?;
        for key in map.keys().collect::<Result<Vec<_>, _>>()? {
            map.remove(&key)?;
        }
        for (key, value) in entries {
            let (bits, data) = u32::read_from_prefix(key.as_bytes()).ok().context("a prefix length")?;
            let key = Key::new(bits, <[u8; K]>::try_from(data)?);
            map.insert(&key, bytes::<V, W>(value)?, 0).with_context(|| format!("write {name}"))?;
        }
        Ok(())
    }

    /// A flow.
    pub fn flow(&mut self, table: FlowTable, key: &FlowKey) -> Result<Option<Flow>> {
        let map: HashMap<_, [u8; size_of::<FlowKey>()], [u8; size_of::<Flow>()]> =
            HashMap::try_from(self.map(flow_map(table))?)?;
        match map.get(&zerocopy::transmute!(*key), 0) {
            Ok(bytes) => Ok(Some(zerocopy::transmute!(bytes))),
            Err(aya::maps::MapError::KeyNotFound) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// All flows.
    pub fn flows(&mut self, table: FlowTable) -> Result<Vec<(FlowKey, Flow)>> {
        let map: HashMap<_, [u8; size_of::<FlowKey>()], [u8; size_of::<Flow>()]> =
            HashMap::try_from(self.map(flow_map(table))?)?;
        map.iter()
            .map(|entry| {
                entry.map(|(k, v)| (zerocopy::transmute!(k), zerocopy::transmute!(v))).map_err(Into::into)
            })
            .collect()
    }

    /// Writes a flow.
    pub fn write_flow(&mut self, table: FlowTable, key: &FlowKey, flow: &Flow) -> Result<()> {
        let mut map: HashMap<_, [u8; size_of::<FlowKey>()], [u8; size_of::<Flow>()]> =
            HashMap::try_from(self.map(flow_map(table))?)?;
        let (key, flow): ([u8; size_of::<FlowKey>()], [u8; size_of::<Flow>()]) =
            (zerocopy::transmute!(*key), zerocopy::transmute!(*flow));
        Ok(map.insert(key, flow, 0)?)
    }

    /// All entries of `FRAGMENTS`.
    pub fn fragments(&mut self) -> Result<Vec<(FragmentKey, FragmentEntry)>> {
        let map: HashMap<_, [u8; size_of::<FragmentKey>()], [u8; size_of::<FragmentEntry>()]> =
            HashMap::try_from(self.map("FRAGMENTS")?)?;
        map.iter()
            .map(|entry| {
                entry.map(|(k, v)| (zerocopy::transmute!(k), zerocopy::transmute!(v))).map_err(Into::into)
            })
            .collect()
    }

    /// Empties the maps that packets write.
    pub fn forget(&mut self) -> Result<()> {
        let (flows, fragments) =
            (BTreeMap::<FlowKey, Flow>::new(), BTreeMap::<FragmentKey, FragmentEntry>::new());
        for name in ["FLOWS", "HALF_OPEN"] {
            self.write_hash::<{ size_of::<FlowKey>() }, { size_of::<Flow>() }, _, _>(name, &flows)?;
        }
        self.write_hash::<{ size_of::<FragmentKey>() }, { size_of::<FragmentEntry>() }, _, _>(
            "FRAGMENTS",
            &fragments,
        )
    }

    /// The counters that are not zero, over all CPUs, by slot.
    pub fn counters(&mut self) -> Result<Vec<(u32, Counter)>> {
        let map: PerCpuArray<_, [u64; 2]> = PerCpuArray::try_from(self.map("COUNTERS")?)?;
        let mut counters = Vec::new();
        for slot in 0..COUNTER_SLOTS {
            let mut sum = Counter::default();
            for [packets, bytes] in map.get(&slot, 0)?.iter().copied() {
                sum.packets += packets;
                sum.bytes += bytes;
            }
            if sum != Counter::default() {
                counters.push((slot, sum));
            }
        }
        Ok(counters)
    }

    /// Sets one slot of the counters and of the sampling back to zero.
    pub fn reset(&mut self, slot: u32) -> Result<()> {
        let cpus = nr_cpus().map_err(|(_, error)| error).context("number of CPUs")?;
        let mut counters: PerCpuArray<_, [u64; 2]> = PerCpuArray::try_from(self.map("COUNTERS")?)?;
        counters.set(slot, PerCpuValues::try_from(vec![[0; 2]; cpus])?, 0)?;
        let mut sampling: PerCpuArray<_, [u8; size_of::<Bucket>()]> =
            PerCpuArray::try_from(self.map("SAMPLING")?)?;
        Ok(sampling.set(slot, PerCpuValues::try_from(vec![[0; size_of::<Bucket>()]; cpus])?, 0)?)
    }

    /// The events since the last call.
    pub fn take_events(&mut self) -> Result<Vec<Event>> {
        let mut events = Vec::new();
        while let Some(item) = self.events.next() {
            events.push(Event::read_from_bytes(&item).ok().context("size of an event")?);
        }
        Ok(events)
    }

    fn map(&mut self, name: &str) -> Result<&mut aya::maps::Map> {
        self.ebpf.map_mut(name).with_context(|| format!("no map {name}"))
    }
}

fn bytes<const N: usize, T: IntoBytes + Immutable>(value: &T) -> Result<[u8; N]> {
    <[u8; N]>::try_from(value.as_bytes()).context("size of an entry")
}

const fn flow_map(table: FlowTable) -> &'static str {
    match table {
        FlowTable::Confirmed => "FLOWS",
        FlowTable::HalfOpen => "HALF_OPEN",
    }
}
