//! One bank of the tables, read whole, behind the seam of the decision. No flow is live in it.

use datapath::abi::{
    Bank, Bucket, CidrEntry, CidrKey, ClassKey, EndpointEntry, EndpointKey, Event, Flow, FlowKey,
    FragmentEntry, FragmentKey, Place, PolicyEntry, PolicyKey, PrefixKey, Settings, TunnelKey, endpoint_flag,
};
use datapath::{Address, FlowTable, Port, Tables};
use policy::pages::Pages;

use crate::kernel::publish::Store;
use crate::kernel::tables::{BankedKey, Contents, Table, TableError};

/// One bank.
#[derive(Clone, Debug)]
pub(super) struct Dump {
    contents: Contents,
}

const NIC: u8 = Place::nic(Bank::A).number();
const ADDRESS_BITS: u32 = 128;
const PORT_BITS: u32 = 16;

impl Dump {
    pub(super) fn read(store: &Store, bank: Bank) -> Result<Self, TableError> {
        Ok(Self::of(Contents {
            endpoints: of_bank(&*store.endpoints, bank)?,
            tunnels: of_bank(&*store.tunnels, bank)?,
            cidrs: of_bank(&*store.cidrs, bank)?,
            classes: of_bank(&*store.classes, bank)?,
            policy: of_bank(&*store.policy, bank)?,
            prefixes: of_bank(&*store.prefixes, bank)?,
            settings: Some(store.switch.settings(bank)?),
        }))
    }

    /// Of a bank without settings nothing is decided.
    pub(super) fn of(contents: Contents) -> Self {
        Self { contents }
    }

    pub(super) fn own_address(&self, v4: bool) -> Address {
        let of = |settings: &Settings| if v4 { settings.address_v4 } else { settings.address_v6 };
        self.contents.settings.as_ref().map_or(Address::NONE, of)
    }

    /// An address of this host outside of the mesh.
    pub(super) fn nic_address(&self, v4: bool) -> Address {
        let is_own = |entry: &EndpointEntry| entry.flags & endpoint_flag::OWN != 0;
        let mut own = self.contents.endpoints.iter().filter(|(key, entry)| key.bank == NIC && is_own(entry));
        own.find(|(key, _)| key.address.is_v4() == v4).map_or(Address::NONE, |(key, _)| key.address)
    }

    /// A device on which policy governs; 0 = none.
    pub(super) fn nic_device(&self) -> u32 {
        self.contents.tunnels.iter().find(|(key, _)| key.bank == NIC).map_or(0, |(key, _)| key.set)
    }

    /// Who has an address, as far as NICs know it.
    pub(super) fn nic_endpoint(&self, address: Address) -> Option<&EndpointEntry> {
        self.contents.endpoints.get(&EndpointKey { bank: NIC, reserved: [0; 3], address })
    }

    pub(super) fn endpoint_at(&self, address: Address) -> Option<&EndpointEntry> {
        self.contents.endpoints.get(&EndpointKey { bank: Bank::A.number(), reserved: [0; 3], address })
    }
}

fn of_bank<K: BankedKey, V: Copy>(table: &dyn Table<K, V>, bank: Bank) -> Result<Pages<K, V>, TableError> {
    let entries = table.entries()?.into_iter();
    let ours = entries.filter(|(key, _)| key.bank() == Some(bank));
    Ok(ours.map(|(key, value)| (key.in_bank(Bank::A), value)).collect())
}

/// The first `bits` of an address, the rest zero.
fn masked(address: Address, bits: u32) -> Address {
    let kept = u128::MAX.checked_shl(ADDRESS_BITS - bits).unwrap_or(0);
    Address((u128::from_be_bytes(address.0) & kept).to_be_bytes())
}

/// The first `bits` of a port, the rest zero.
fn masked_port(port: Port, bits: u32) -> Port {
    let kept = u16::MAX.checked_shl(PORT_BITS - bits).unwrap_or(0);
    Port::new(port.get() & kept)
}

impl Tables for Dump {
    type Slot = ();

    fn settings(&self, _: Bank) -> Option<&Settings> {
        self.contents.settings.as_ref()
    }

    fn endpoint(&self, key: &EndpointKey) -> Option<&EndpointEntry> {
        self.contents.endpoints.get(&key.in_bank(Bank::A))
    }

    fn tunnel(&self, key: &TunnelKey) -> bool {
        self.contents.tunnels.contains_key(&key.in_bank(Bank::A))
    }

    fn cidr(&self, key: &CidrKey) -> Option<&CidrEntry> {
        let at = |bits: u32| {
            let address = masked(key.address, bits);
            self.contents.cidrs.get(&CidrKey {
                prefix_len: CidrKey::BASE_BITS + bits,
                address,
                ..key.in_bank(Bank::A)
            })
        };
        (0..=ADDRESS_BITS).rev().find_map(at)
    }

    fn class(&self, key: &ClassKey) -> u32 {
        self.contents.classes.get(&key.in_bank(Bank::A)).map_or(0, |entry| entry.class)
    }

    fn policy(&self, key: &PolicyKey) -> Option<&PolicyEntry> {
        (0..=PORT_BITS).rev().find_map(|bits| {
            let port = masked_port(key.port, bits);
            self.contents.policy.get(&PolicyKey {
                prefix_len: PolicyKey::BASE_BITS + bits,
                port,
                ..key.in_bank(Bank::A)
            })
        })
    }

    fn prefix(&self, key: &PrefixKey) -> bool {
        (0..=ADDRESS_BITS).any(|bits| {
            let address = masked(key.address, bits);
            let prefix_len = CidrKey::BASE_BITS + bits;
            self.contents.prefixes.contains_key(&PrefixKey { prefix_len, address, ..key.in_bank(Bank::A) })
        })
    }

    fn flow(&self, _: FlowTable, _: &FlowKey) -> Option<Self::Slot> {
        None
    }

    fn load(&self, (): Self::Slot) -> Flow {
        Flow::default()
    }

    fn is_still(&self, (): Self::Slot, _: u32) -> bool {
        false
    }

    fn store(&self, (): Self::Slot, _: &Flow) {}

    fn touch(&self, (): Self::Slot, _: u32) {}

    fn insert(&self, _: FlowTable, _: &FlowKey, _: &Flow) -> bool {
        true
    }

    fn remove_half_open(&self, _: &FlowKey) {}

    fn fragment(&self, _: &FragmentKey) -> Option<FragmentEntry> {
        None
    }

    fn insert_fragment(&self, _: &FragmentKey, _: &FragmentEntry) -> bool {
        true
    }

    fn count(&self, _: u32, _: u32) {}

    fn bucket(&self, _: u32) -> Option<Bucket> {
        None
    }

    fn store_bucket(&self, _: u32, _: &Bucket) {}

    fn emit(&self, _: Event) -> bool {
        true
    }
}
