//! Publishing: the idle bank is written, one store of the control word makes it the active one.
//!
//! Between two publications no write touches the active bank, nor the one that was left before a grace period has
//! passed: packets that read the old control word may still be looking at it.

use std::collections::BTreeMap;

use datapath::abi::{
    Bank, CidrEntry, CidrKey, ClassEntry, ClassKey, Control, EndpointEntry, EndpointKey, PolicyEntry,
    PolicyKey, PrefixEntry, PrefixKey, Settings, TunnelEntry, TunnelKey,
};

use super::plan::{Write, plan};
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

/// A table and what each of its banks holds.
struct Banked<K, V> {
    name: &'static str,
    table: Box<dyn Table<K, V>>,
    held: [BTreeMap<K, V>; 2],
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
        let adopted = Self {
            endpoints: Banked::adopt("ENDPOINTS", endpoints)?,
            tunnels: Banked::adopt("TUNNELS", tunnels)?,
            cidrs: Banked::adopt("CIDRS", cidrs)?,
            classes: Banked::adopt("CLASSES", classes)?,
            policy: Banked::adopt("POLICY", policy)?,
            prefixes: Banked::adopt("PREFIXES", prefixes)?,
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
            && self.endpoints.held(bank) == endpoints
            && self.tunnels.held(bank) == tunnels
            && self.cidrs.held(bank) == cidrs
            && self.classes.held(bank) == classes
            && self.policy.held(bank) == policy
            && self.prefixes.held(bank) == prefixes
            && *of_bank(&self.settings, bank) == settings.unwrap_or(NO_SETTINGS)
    }

    /// Writes what is wanted into the idle bank. No packet sees it yet.
    ///
    /// # Errors
    /// When a table is full, before anything is written, or when the kernel refuses. The active bank is as it was in
    /// either case.
    pub(super) fn prepare(&mut self, wanted: &Contents) -> Result<(), TableError> {
        let Contents { endpoints, tunnels, cidrs, classes, policy, prefixes, settings } = wanted;
        let idle = self.idle();
        self.endpoints.check_room(idle, endpoints)?;
        self.tunnels.check_room(idle, tunnels)?;
        self.cidrs.check_room(idle, cidrs)?;
        self.classes.check_room(idle, classes)?;
        self.policy.check_room(idle, policy)?;
        self.prefixes.check_room(idle, prefixes)?;
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
        let bank = self.control.bank();
        BTreeMap::from([
            (self.endpoints.name, self.endpoints.held(bank).len()),
            (self.tunnels.name, self.tunnels.held(bank).len()),
            (self.cidrs.name, self.cidrs.held(bank).len()),
            (self.classes.name, self.classes.held(bank).len()),
            (self.policy.name, self.policy.held(bank).len()),
            (self.prefixes.name, self.prefixes.held(bank).len()),
        ])
    }

    /// The bank that no new packet reads. Before the first publication that is A as well as B.
    fn idle(&self) -> Bank {
        self.control.bank().other()
    }
}

/// What an array of the kernel holds before it is written: nothing is allowed.
const NO_SETTINGS: Settings = Settings {
    identity: 0,
    mark: 0,
    flags: 0,
    ingress_default: 0,
    egress_default: 0,
    reserved: [0; 2],
    ingress_rule: 0,
    egress_rule: 0,
    address_v4: datapath::Address::NONE,
    address_v6: datapath::Address::NONE,
    spare: [0; 24],
};

impl<K: BankedKey, V: Copy + PartialEq> Banked<K, V> {
    fn adopt(name: &'static str, table: Box<dyn Table<K, V>>) -> Result<Self, TableError> {
        let mut held = [BTreeMap::new(), BTreeMap::new()];
        for (key, value) in table.entries()? {
            if let Some(bank) = key.bank() {
                of_bank_mut(&mut held, bank).insert(key.in_bank(Bank::A), value);
            }
        }
        Ok(Self { name, table, held })
    }

    fn held(&self, bank: Bank) -> &BTreeMap<K, V> {
        of_bank(&self.held, bank)
    }

    fn check_room(&self, idle: Bank, wanted: &BTreeMap<K, V>) -> Result<(), TableError> {
        let needed = self.held(idle.other()).len() + wanted.len();
        let capacity = self.table.capacity();
        if needed <= capacity { Ok(()) } else { Err(TableError::Full { table: self.name, needed, capacity }) }
    }

    /// Writes the difference; what was written before a refusal is remembered, so that the next attempt starts from
    /// what the table really holds.
    fn write(&mut self, idle: Bank, wanted: &BTreeMap<K, V>) -> Result<(), TableError> {
        let held = of_bank_mut(&mut self.held, idle);
        for write in plan(held, wanted) {
            match write {
                Write::Insert(key, value) => {
                    self.table.insert(&key.in_bank(idle), &value)?;
                    held.insert(key, value);
                }
                Write::Remove(key) => {
                    self.table.remove(&key.in_bank(idle))?;
                    held.remove(&key);
                }
            }
        }
        Ok(())
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
