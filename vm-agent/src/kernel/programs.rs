//! The programs and maps of the embedded object: loaded, sized, pinned, adopted.

use std::collections::BTreeSet;
use std::path::Path;

use aya::maps::{Array, Map, MapData, ProgramArray};
use aya::programs::{ProgramInfo, SchedClassifier};
use aya::{Ebpf, EbpfLoader};
use datapath::abi::{
    Bank, CidrEntry, CidrKey, ClassEntry, ClassKey, Control, EndpointEntry, EndpointKey, Hook, PROGRAM_SETS,
    PolicyEntry, PolicyKey, PrefixEntry, PrefixKey, Settings, TunnelEntry, TunnelKey,
};

use sha2::{Digest as _, Sha256};

use super::TableSizes;
use super::error::{KernelError, on_map, on_program};
use super::grace::Grace;
use super::pins::{Pins, unpin};
use super::publish::{Store, Switch};
use super::tables::{Hash, Layout, TableError, Trie};

#[cfg(test)]
mod tests;

/// What `cargo xtask bpf` built.
static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/outrigger.bpf.o"));

/// Maps that outlive versions of the ABI.
pub(super) const STABLE: [&str; 8] =
    ["CONTROL", "PROGRAMS", "FLOWS", "HALF_OPEN", "FRAGMENTS", "EVENTS", "COUNTERS", "SAMPLING"];
/// Maps of one version, with both banks in them.
pub(super) const BANKED: [&str; 7] =
    ["ENDPOINTS", "TUNNELS", "CIDRS", "CLASSES", "POLICY", "PREFIXES", "SETTINGS"];

/// Loaded programs and where they stand.
pub(super) struct Programs {
    pins: Pins,
    array: ProgramArray<MapData>,
    /// The set that the next publication names.
    set: u32,
    /// The programs of the set, as long as they are not pinned as the running ones.
    fresh: Option<Ebpf>,
}

/// The stubs, by hook.
pub(super) type Stubs = Vec<(Hook, SchedClassifier)>;

/// Everything that loading gives.
pub(super) struct Loaded {
    pub(super) programs: Programs,
    pub(super) stubs: Stubs,
    pub(super) store: Store,
    /// Whether nothing had to be loaded.
    pub(super) is_adopted: bool,
}

/// Adopts what is pinned if it is this object's: nothing is read or verified again. Else loads the object over what is
/// pinned: maps are adopted, programs replaced only if they differ.
pub(super) fn load(pins: &Pins, sizes: TableSizes) -> Result<Loaded, KernelError> {
    if let Some(adopted) = adopt(pins) {
        return Ok(adopted);
    }
    let mut ebpf = load_object(pins, sizes)?;
    let control = Control(control(pins)?.get(&0, 0).map_err(on_map("CONTROL"))?);
    let array = Map::ProgramArray(pinned(&pins.stable("PROGRAMS"), "PROGRAMS")?);
    let mut array = ProgramArray::try_from(array).map_err(on_map("PROGRAMS"))?;
    load_programs(&mut ebpf)?;
    let maps = pinned_ids(pins)?;
    let mut stubs = Stubs::new();
    for hook in Hook::ALL {
        stubs.push((hook, adopt_stub(&mut ebpf, &stub_name(hook), pins, &maps)?));
    }
    let same = control != Control::UNPUBLISHED && runs_already(&ebpf, pins, &maps)?;
    let set = match (control, same) {
        (Control::UNPUBLISHED, _) => 0,
        (running, true) => running.program_set(),
        (running, false) => (running.program_set() + 1) % PROGRAM_SETS,
    };
    for hook in Hook::ALL {
        if same {
            fill(&mut array, hook, set, &pinned_program(pins, hook.program())?)?;
        } else {
            fill(&mut array, hook, set, classifier(&mut ebpf, hook.program())?)?;
        }
    }
    if same {
        pins.set_object(&digest())?;
        pins.remove_other_versions()?;
    } else {
        // Pins name the running programs. From now on these may be others, until `retire`; the array holds those.
        pins.remove_programs()?;
    }
    let store = store(pins)?;
    let fresh = (!same).then_some(ebpf);
    Ok(Loaded {
        programs: Programs { pins: pins.clone(), array, set, fresh },
        stubs,
        store,
        is_adopted: false,
    })
}

/// What is pinned, if all of it is there, belongs together and came from this object.
fn adopt(pins: &Pins) -> Option<Loaded> {
    if pins.object() != Some(digest()) {
        return None;
    }
    let control = Control(control(pins).ok()?.get(&0, 0).ok()?);
    let mut array =
        ProgramArray::try_from(Map::ProgramArray(pinned(&pins.stable("PROGRAMS"), "PROGRAMS").ok()?)).ok()?;
    let set = control.program_set();
    let (mut stubs, mut used) = (Stubs::new(), BTreeSet::new());
    for hook in Hook::ALL {
        let program = pinned_program(pins, hook.program()).ok()?;
        let stub = SchedClassifier::from_pin(pins.stable(&stub_name(hook))).ok()?;
        for loaded in [&program, &stub] {
            used.extend(loaded.info().ok()?.map_ids().ok()?.unwrap_or_default());
        }
        fill(&mut array, hook, set, &program).ok()?;
        stubs.push((hook, stub));
    }
    // A map that was pinned anew would be written, and read by nobody.
    let belongs = pinned_ids(pins).ok()?.is_subset(&used);
    if control == Control::UNPUBLISHED || !belongs {
        return None;
    }
    pins.remove_other_versions().ok()?;
    let programs = Programs { pins: pins.clone(), array, set, fresh: None };
    Some(Loaded { programs, stubs, store: store(pins).ok()?, is_adopted: true })
}

/// Names the embedded object.
fn digest() -> String {
    hex::encode(Sha256::digest(OBJECT))
}

fn load_object(pins: &Pins, sizes: TableSizes) -> Result<Ebpf, KernelError> {
    let mut loader = EbpfLoader::new();
    for name in STABLE {
        loader.map_pin_path(name, pins.stable(name));
    }
    for name in BANKED {
        loader.map_pin_path(name, pins.versioned(name));
    }
    let TableSizes { endpoints, tunnels, cidrs, classes, policy, flows, half_open } = sizes;
    for (name, entries) in [
        ("ENDPOINTS", endpoints),
        ("TUNNELS", tunnels),
        ("CIDRS", cidrs),
        ("CLASSES", classes),
        ("POLICY", policy),
    ] {
        loader.map_max_entries(name, entries.saturating_mul(2));
    }
    loader.map_max_entries("FLOWS", flows);
    loader.map_max_entries("HALF_OPEN", half_open);
    loader.load(OBJECT).map_err(|error| KernelError::Object(Box::new(error)))
}

fn classifier<'a>(ebpf: &'a mut Ebpf, name: &str) -> Result<&'a mut SchedClassifier, KernelError> {
    let lacks = || KernelError::ObjectLacks(name.to_owned());
    let program = ebpf.program_mut(name).ok_or_else(lacks)?;
    program.try_into().map_err(on_program(name))
}

/// Loads what the hooks need, all at once: the verifier takes its time for each, and CPUs are there.
fn load_programs(ebpf: &mut Ebpf) -> Result<(), KernelError> {
    let needed: BTreeSet<String> =
        Hook::ALL.into_iter().flat_map(|hook| [hook.program().to_owned(), stub_name(hook)]).collect();
    if let Some(missing) = needed.iter().find(|name| ebpf.program(name).is_none()) {
        return Err(KernelError::ObjectLacks(missing.clone()));
    }
    let programs = ebpf.programs_mut().filter(|(name, _)| needed.contains(*name));
    std::thread::scope(|scope| {
        let loads: Vec<_> = programs
            .map(|(name, program)| {
                scope.spawn(move || {
                    let program: &mut SchedClassifier = program.try_into().map_err(on_program(name))?;
                    program.load().map_err(on_program(name))
                })
            })
            .collect();
        loads.into_iter().try_for_each(|load| load.join().unwrap_or(Err(KernelError::Stopped)))
    })
}

fn stub_name(hook: Hook) -> String {
    format!("stub_{}", hook.program())
}

fn pinned_program(pins: &Pins, name: &str) -> Result<SchedClassifier, KernelError> {
    SchedClassifier::from_pin(pins.versioned(name)).map_err(on_program(name))
}

/// The code of a program and the pinned maps it uses: equal ones behave equally. Maps that are not pinned hold
/// nothing beyond one packet.
fn fingerprint(
    info: &ProgramInfo,
    pinned: &BTreeSet<u32>,
) -> Result<(u64, BTreeSet<u32>), aya::programs::ProgramError> {
    let maps: BTreeSet<u32> = info.map_ids()?.unwrap_or_default().into_iter().collect();
    Ok((info.tag(), maps.intersection(pinned).copied().collect()))
}

fn pinned_ids(pins: &Pins) -> Result<BTreeSet<u32>, KernelError> {
    let stable = STABLE.into_iter().map(|name| (name, pins.stable(name)));
    let banked = BANKED.into_iter().map(|name| (name, pins.versioned(name)));
    let id = |(name, pin): (&str, std::path::PathBuf)| {
        pinned(&pin, name)?.info().map(|info| info.id()).map_err(on_map(name))
    };
    stable.chain(banked).map(id).collect()
}

/// Returns the pinned stub if it is equal, else pins the new one.
fn adopt_stub(
    ebpf: &mut Ebpf,
    name: &str,
    pins: &Pins,
    maps: &BTreeSet<u32>,
) -> Result<SchedClassifier, KernelError> {
    let pin = pins.stable(name);
    let fresh = classifier(ebpf, name)?;
    let wanted = fresh.info().and_then(|info| fingerprint(&info, maps)).map_err(on_program(name))?;
    if let Ok(old) = SchedClassifier::from_pin(&pin)
        && old.info().and_then(|info| fingerprint(&info, maps)).is_ok_and(|found| found == wanted)
    {
        return Ok(old);
    }
    unpin(&pin)?;
    fresh.pin(&pin).map_err(|error| KernelError::File {
        operation: "pin",
        path: pin.clone(),
        source: std::io::Error::other(error),
    })?;
    SchedClassifier::from_pin(&pin).map_err(on_program(name))
}

/// Whether the running set is pinned and equal to the one just loaded.
fn runs_already(ebpf: &Ebpf, pins: &Pins, maps: &BTreeSet<u32>) -> Result<bool, KernelError> {
    for hook in Hook::ALL {
        let name = hook.program();
        let Ok(old) = ProgramInfo::from_pin(pins.versioned(name)) else { return Ok(false) };
        let program = ebpf.program(name).ok_or_else(|| KernelError::ObjectLacks(name.to_owned()))?;
        let program: &SchedClassifier = program.try_into().map_err(on_program(name))?;
        let new = program.info().map_err(on_program(name))?;
        if fingerprint(&old, maps).map_err(on_program(name))?
            != fingerprint(&new, maps).map_err(on_program(name))?
        {
            return Ok(false);
        }
    }
    Ok(true)
}

fn fill(
    array: &mut ProgramArray<MapData>,
    hook: Hook,
    set: u32,
    program: &SchedClassifier,
) -> Result<(), KernelError> {
    let fd = program.fd().map_err(on_program(hook.program()))?;
    array.set(hook.program_index(set), fd, 0).map_err(on_map("PROGRAMS"))
}

impl Programs {
    /// The set that a publication shall name.
    pub(super) fn set(&self) -> u32 {
        self.set
    }

    /// After a publication and its grace period: pins the running programs, and drops the sets and versions that
    /// nothing runs any more.
    pub(super) fn retire(&mut self) -> Result<(), KernelError> {
        let Some(mut ebpf) = self.fresh.take() else { return Ok(()) };
        for hook in Hook::ALL {
            let name = hook.program();
            let pin = self.pins.versioned(name);
            unpin(&pin)?;
            let pinned = classifier(&mut ebpf, name)?.pin(&pin);
            pinned.map_err(|error| KernelError::File {
                operation: "pin",
                path: pin,
                source: std::io::Error::other(error),
            })?;
            for set in (0..PROGRAM_SETS).filter(|set| *set != self.set) {
                // An empty slot says that it is empty; that is what is wanted.
                drop(self.array.clear_index(&hook.program_index(set)));
            }
        }
        self.pins.set_object(&digest())?;
        self.pins.remove_other_versions()?;
        Ok(())
    }
}

/// Opens a pinned map.
pub(super) fn pinned(pin: &Path, name: &str) -> Result<MapData, KernelError> {
    MapData::from_pin(pin).map_err(on_map(name))
}

/// The tables, each by its pin.
pub(super) fn store(pins: &Pins) -> Result<Store, KernelError> {
    let banked = |name: &'static str| pinned(&pins.versioned(name), name);
    macro_rules! table {
        ($kind:ident<$key:ty, $value:ty> $name:literal) => {
            Box::new($kind::<$key, $value>::try_new($name, banked($name)?).map_err(on_map($name))?)
        };
    }
    Ok(Store {
        endpoints: table!(Hash < EndpointKey, EndpointEntry > "ENDPOINTS"),
        tunnels: table!(Hash < TunnelKey, TunnelEntry > "TUNNELS"),
        cidrs: table!(Trie < CidrKey, CidrEntry > "CIDRS"),
        classes: table!(Hash < ClassKey, ClassEntry > "CLASSES"),
        policy: table!(Trie < PolicyKey, PolicyEntry > "POLICY"),
        prefixes: table!(Trie < PrefixKey, PrefixEntry > "PREFIXES"),
        switch: Box::new(KernelSwitch {
            control: control(pins)?,
            settings: Array::try_from(Map::Array(banked("SETTINGS")?)).map_err(on_map("SETTINGS"))?,
            grace: Grace::open(&pins.stable("GRACE"))?,
        }),
    })
}

fn control(pins: &Pins) -> Result<Array<MapData, u32>, KernelError> {
    let data = pinned(&pins.stable("CONTROL"), "CONTROL")?;
    Array::try_from(Map::Array(data)).map_err(on_map("CONTROL"))
}

/// The control word, the settings and the grace period of the kernel.
struct KernelSwitch {
    control: Array<MapData, u32>,
    settings: Array<MapData, <Settings as Layout>::Bytes>,
    grace: Grace,
}

impl Switch for KernelSwitch {
    fn control(&self) -> Result<Control, TableError> {
        self.control.get(&0, 0).map(Control).map_err(refused_table("read", "CONTROL"))
    }

    fn store(&mut self, control: Control) -> Result<(), TableError> {
        self.control.set(0, control.0, 0).map_err(refused_table("write to", "CONTROL"))
    }

    fn settings(&self, bank: Bank) -> Result<Settings, TableError> {
        let bytes = self.settings.get(&u32::from(bank.number()), 0);
        bytes.map(Settings::from_bytes).map_err(refused_table("read", "SETTINGS"))
    }

    fn write_settings(&mut self, bank: Bank, settings: &Settings) -> Result<(), TableError> {
        self.settings
            .set(u32::from(bank.number()), settings.to_bytes(), 0)
            .map_err(refused_table("write to", "SETTINGS"))
    }

    fn grace(&mut self) -> Result<(), TableError> {
        self.grace.wait().map_err(refused_table("wait for a grace period of", "GRACE"))
    }
}

fn refused_table(
    operation: &'static str,
    table: &'static str,
) -> impl FnOnce(aya::maps::MapError) -> TableError {
    move |source| TableError::Refused { operation, table, source }
}
