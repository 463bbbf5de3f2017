//! Publishing: the idle bank is written, one store of the control word makes it the active one.
//!
//! Between two publications no write touches the active bank, nor the one that was left before a grace period has
//! passed: packets that read the old control word may still be looking at it.

use std::collections::BTreeMap;

use datapath::abi::{
    Bank, CidrEntry, CidrKey, ClassEntry, ClassKey, Control, EndpointEntry, EndpointKey, PolicyEntry,
    PolicyKey, PrefixEntry, PrefixKey, Settings, TunnelEntry, TunnelKey,
};
use policy::pages::Pages;

use super::plan::plan;
use super::tables::{BankedKey, Contents, Table, TableError};

#[cfg(test)]
mod tests;

/// What is not a table: the control word, the settings and the grace period.
pub(super) trait Switch: Send {
    /// Reads the control word.
    ///
    /// # Errors
    /// When the kernel refuses.
    fn control(&self) -> Result<Control, TableError>;

    /// Stores the control word, which publishes.
    ///
    /// # Errors
    /// When the kernel refuses; nothing is published then.
    fn store(&mut self, control: Control) -> Result<(), TableError>;

    /// Reads the settings of a bank.
    ///
    /// # Errors
    /// When the kernel refuses.
    fn settings(&self, bank: Bank) -> Result<Settings, TableError>;

    /// Writes the settings of a bank.
    ///
    /// # Errors
    /// When the kernel refuses.
    fn write_settings(&mut self, bank: Bank, settings: &Settings) -> Result<(), TableError>;

    /// Waits until no packet looks at what was readable before the call.
    ///
    /// # Errors
    /// When the kernel refuses.
    fn grace(&mut self) -> Result<(), TableError>;
}

/// The tables as they are handed to the publisher.
pub(super) struct Store {
    /// `ENDPOINTS`.
    pub(super) endpoints: Box<dyn Table<EndpointKey, EndpointEntry>>,
    /// `TUNNELS`.
    pub(super) tunnels: Box<dyn Table<TunnelKey, TunnelEntry>>,
    /// `CIDRS`.
    pub(super) cidrs: Box<dyn Table<CidrKey, CidrEntry>>,
    /// `CLASSES`.
    pub(super) classes: Box<dyn Table<ClassKey, ClassEntry>>,
    /// `POLICY`.
    pub(super) policy: Box<dyn Table<PolicyKey, PolicyEntry>>,
    /// `PREFIXES`.
    pub(super) prefixes: Box<dyn Table<PrefixKey, PrefixEntry>>,
    /// The rest.
    pub(super) switch: Box<dyn Switch>,
}

/// The only writer of the banked tables and the control word.
pub(super) struct Publisher {
    endpoints: Banked<EndpointKey, EndpointEntry>,
    tunnels: Banked<TunnelKey, TunnelEntry>,
    cidrs: Banked<CidrKey, CidrEntry>,
    classes: Banked<ClassKey, ClassEntry>,
    policy: Banked<PolicyKey, PolicyEntry>,
    prefixes: Banked<PrefixKey, PrefixEntry>,
    settings: [Settings; 2],
    switch: Box<dyn Switch>,
    control: Control,
    /// Whether a grace period has passed since the idle bank was left.
    settled: bool,
}

/// A table and what its banks hold, with keys of bank A; what is alike in both is there once.
struct Banked<K, V> {
    name: &'static str,
    table: Box<dyn Table<K, V>>,
    active: Pages<K, V>,
    idle: Pages<K, V>,
}

impl Publisher {
    /// Adopts tables as they are: reads them whole, and waits for a grace period, since whoever wrote them last may
    /// have switched just before.
    ///
    /// # Errors
    /// When a table cannot be read.
    pub(super) fn adopt(store: Store) -> Result<Self, TableError> {
        let Store { endpoints, tunnels, cidrs, classes, policy, prefixes, mut switch } = store;
        let control = switch.control()?;
        let settings = [switch.settings(Bank::A)?, switch.settings(Bank::B)?];
        let bank = control.bank();
        let adopted = Self {
            endpoints: Banked::adopt("ENDPOINTS", endpoints, bank)?,
            tunnels: Banked::adopt("TUNNELS", tunnels, bank)?,
            cidrs: Banked::adopt("CIDRS", cidrs, bank)?,
            classes: Banked::adopt("CLASSES", classes, bank)?,
            policy: Banked::adopt("POLICY", policy, bank)?,
            prefixes: Banked::adopt("PREFIXES", prefixes, bank)?,
            settings,
            control,
            settled: true,
            switch: {
                switch.grace()?;
                switch
            },
        };
        Ok(adopted)
    }

    /// The control word in force.
    #[must_use]
    pub(super) fn control(&self) -> Control {
        self.control
    }

    /// Whether the active bank holds exactly this.
    #[must_use]
    pub(super) fn runs(&self, wanted: &Contents) -> bool {
        let Contents { endpoints, tunnels, cidrs, classes, policy, prefixes, settings } = wanted;
        let bank = self.control.bank();
        self.control != Control::UNPUBLISHED
            && self.endpoints.runs(endpoints)
            && self.tunnels.runs(tunnels)
            && self.cidrs.runs(cidrs)
            && self.classes.runs(classes)
            && self.policy.runs(policy)
            && self.prefixes.runs(prefixes)
            && *of_bank(&self.settings, bank) == settings.unwrap_or(NO_SETTINGS)
    }

    /// Takes over the memory of what runs from a copy that has it anyway. Only after [`Self::runs`].
    pub(super) fn share(&mut self, running: &Contents) {
        let Contents { endpoints, classes, .. } = running;
        self.endpoints.share(endpoints);
        self.classes.share(classes);
    }

    /// Writes what is wanted into the idle bank. No packet sees it yet.
    ///
    /// # Errors
    /// When a table is full, before anything is written, or when the kernel refuses. The active bank is as it was in
    /// either case.
    pub(super) fn prepare(&mut self, wanted: &Contents) -> Result<(), TableError> {
        let Contents { endpoints, tunnels, cidrs, classes, policy, prefixes, settings } = wanted;
        let idle = self.idle();
        self.endpoints.check_room(endpoints)?;
        self.tunnels.check_room(tunnels)?;
        self.cidrs.check_room(cidrs)?;
        self.classes.check_room(classes)?;
        self.policy.check_room(policy)?;
        self.prefixes.check_room(prefixes)?;
        self.settle()?;
        self.endpoints.write(idle, endpoints)?;
        self.tunnels.write(idle, tunnels)?;
        self.cidrs.write(idle, cidrs)?;
        self.classes.write(idle, classes)?;
        self.policy.write(idle, policy)?;
        self.prefixes.write(idle, prefixes)?;
        let settings = settings.unwrap_or(NO_SETTINGS);
        self.switch.write_settings(idle, &settings)?;
        *of_bank_mut(&mut self.settings, idle) = settings;
        Ok(())
    }

    /// Makes the idle bank the active one, and `program_set` the programs that run.
    ///
    /// # Errors
    /// When the kernel refuses; the old bank and programs stay in force.
    pub(super) fn commit(&mut self, program_set: u32) -> Result<Control, TableError> {
        let next = self.control.next();
        let next = Control::new(self.idle(), program_set, next.epoch());
        self.switch.store(next)?;
        self.control = next;
        self.settled = false;
        self.endpoints.swap();
        self.tunnels.swap();
        self.cidrs.swap();
        self.classes.swap();
        self.policy.swap();
        self.prefixes.swap();
        Ok(next)
    }

    /// Waits for the grace period of the bank that was left, if it has not passed. After this the bank may be
    /// written, and the programs that were left may go.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub(super) fn settle(&mut self) -> Result<(), TableError> {
        if !self.settled {
            self.switch.grace()?;
            self.settled = true;
        }
        Ok(())
    }

    /// Entries in the active bank, per table.
    #[must_use]
    pub(super) fn entries(&self) -> BTreeMap<&'static str, usize> {
        BTreeMap::from([
            (self.endpoints.name, self.endpoints.active.len()),
            (self.tunnels.name, self.tunnels.active.len()),
            (self.cidrs.name, self.cidrs.active.len()),
            (self.classes.name, self.classes.active.len()),
            (self.policy.name, self.policy.active.len()),
            (self.prefixes.name, self.prefixes.active.len()),
        ])
    }

    /// The bank that no new packet reads. Before the first publication that is A as well as B.
    fn idle(&self) -> Bank {
        self.control.bank().other()
    }
}

/// What an array of the kernel holds before it is written: nothing is allowed.
pub(super) const NO_SETTINGS: Settings = Settings {
    identity: 0,
    mark: 0,
    flags: 0,
    ingress_default: 0,
    egress_default: 0,
    ingress_rule: 0,
    egress_rule: 0,
    address_v4: datapath::Address::NONE,
    address_v6: datapath::Address::NONE,
    mtu: 0,
    nic_ingress_default: 0,
    nic_egress_default: 0,
    nic_flags: 0,
    nic_ingress_rule: 0,
    nic_egress_rule: 0,
    nic_deadline: 0,
    nic_tunnel_port: datapath::Port([0; 2]),
    spare: [0; 2],
};

impl<K: BankedKey, V: Copy + PartialEq> Banked<K, V> {
    fn adopt(name: &'static str, table: Box<dyn Table<K, V>>, active: Bank) -> Result<Self, TableError> {
        let entries = table.entries()?;
        let of = |bank: Bank| -> Pages<K, V> {
            let held = entries.iter().filter(|(key, _)| key.bank() == Some(bank));
            held.map(|(key, value)| (key.in_bank(Bank::A), *value)).collect()
        };
        let (active, idle) = (of(active), of(active.other()));
        let mut adopted = Self { name, table, active: Pages::new(), idle };
        adopted.share(&active);
        Ok(adopted)
    }

    /// Whether the active bank holds exactly this.
    fn runs(&self, wanted: &Pages<K, V>) -> bool {
        self.active == *wanted
    }

    /// Takes over what the active bank holds from an equal copy, so that both are there once, and the idle one as what
    /// differs from it.
    fn share(&mut self, active: &Pages<K, V>) {
        let difference = active.differences(&self.idle).map(|(key, _, held)| (*key, held.copied())).collect();
        let mut idle = active.clone();
        idle.change(difference);
        (self.active, self.idle) = (active.clone(), idle);
    }

    fn check_room(&self, wanted: &Pages<K, V>) -> Result<(), TableError> {
        let needed = self.active.len() + wanted.len();
        let capacity = self.table.capacity();
        if needed <= capacity { Ok(()) } else { Err(TableError::Full { table: self.name, needed, capacity }) }
    }

    /// Writes the difference; what was written before a refusal is remembered, so that the next attempt starts from
    /// what the table really holds.
    fn write(&mut self, idle: Bank, wanted: &Pages<K, V>) -> Result<(), TableError> {
        let mut written = Vec::new();
        for write in plan(&self.idle, wanted) {
            let (key, value) = write.into_entry();
            let result = match value {
                Some(value) => self.table.insert(&key.in_bank(idle), &value),
                None => self.table.remove(&key.in_bank(idle)),
            };
            if result.is_err() {
                self.idle.change(written);
                return result;
            }
            written.push((key, value));
        }
        self.idle = wanted.clone();
        Ok(())
    }

    /// The idle bank is the active one now.
    const fn swap(&mut self) {
        std::mem::swap(&mut self.active, &mut self.idle);
    }
}

fn of_bank<T>([a, b]: &[T; 2], bank: Bank) -> &T {
    match bank {
        Bank::A => a,
        Bank::B => b,
    }
}

fn of_bank_mut<T>([a, b]: &mut [T; 2], bank: Bank) -> &mut T {
    match bank {
        Bank::A => a,
        Bank::B => b,
    }
}
