//! A kernel in memory, as far as states are concerned: the tables outlive their owner, and what a packet reads in them
//! can be looked at. For tests of whoever gives the kernel its states; the publisher and the lowering are the real ones.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use datapath::abi::{
    Bank, CidrEntry, CidrKey, ClassEntry, ClassKey, Control, EndpointEntry, EndpointKey, PolicyEntry,
    PolicyKey, PrefixEntry, PrefixKey, Settings, TunnelEntry, TunnelKey,
};
use policy::pages::Pages;
use policy::state::NodeState;

use super::lower::{Around, Lowering, lower};
use super::publish::{NO_SETTINGS, Publisher, Store, Switch};
use super::tables::{BankedKey, Contents, Table, TableError};

/// The tables of one host, shared with their owner.
#[derive(Clone, Default)]
pub struct Tables {
    endpoints: Map<EndpointKey, EndpointEntry>,
    tunnels: Map<TunnelKey, TunnelEntry>,
    cidrs: Map<CidrKey, CidrEntry>,
    classes: Map<ClassKey, ClassEntry>,
    policy: Map<PolicyKey, PolicyEntry>,
    prefixes: Map<PrefixKey, PrefixEntry>,
    words: Arc<Mutex<Words>>,
}

/// The owner of the tables: goes with the process.
pub struct TwinKernel {
    publisher: Publisher,
    lowering: Lowering,
}

/// What a packet reads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reading(Contents);

struct Map<K, V>(Arc<Mutex<BTreeMap<K, V>>>);

#[derive(Clone, Copy)]
struct Words {
    control: Control,
    settings: [Settings; 2],
}

impl Tables {
    /// A process takes the tables over as they are.
    ///
    /// # Errors
    /// None, as long as these are trees.
    pub fn adopt(&self) -> Result<TwinKernel, TableError> {
        let publisher = Publisher::adopt(Store {
            endpoints: Box::new(self.endpoints.clone()),
            tunnels: Box::new(self.tunnels.clone()),
            cidrs: Box::new(self.cidrs.clone()),
            classes: Box::new(self.classes.clone()),
            policy: Box::new(self.policy.clone()),
            prefixes: Box::new(self.prefixes.clone()),
            switch: Box::new(self.clone()),
        })?;
        Ok(TwinKernel { publisher, lowering: Lowering::default() })
    }

    /// What a packet reads now; `None` before the first publication.
    #[must_use]
    pub fn read(&self) -> Option<Reading> {
        let Words { control, settings: [a, b] } = self.words();
        let bank = control.bank();
        let contents = Contents {
            endpoints: self.endpoints.of(bank),
            tunnels: self.tunnels.of(bank),
            cidrs: self.cidrs.of(bank),
            classes: self.classes.of(bank),
            policy: self.policy.of(bank),
            prefixes: self.prefixes.of(bank),
            settings: Some(match bank {
                Bank::A => a,
                Bank::B => b,
            }),
        };
        (control != Control::UNPUBLISHED).then_some(Reading(contents))
    }

    fn words(&self) -> Words {
        *self.words.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn change(&self, change: impl FnOnce(&mut Words)) {
        change(&mut self.words.lock().unwrap_or_else(PoisonError::into_inner));
    }
}

impl TwinKernel {
    /// Writes a state where no packet looks.
    ///
    /// # Errors
    /// [`TableError`]; packets see what they saw.
    pub fn prepare(&mut self, state: &NodeState) -> Result<(), TableError> {
        let contents = self.lowering.lower(state, &state.settings.prefixes, 0, &Around::default()).contents;
        self.publisher.prepare(&contents)
    }

    /// Shows it to packets.
    ///
    /// # Errors
    /// [`TableError`]; packets see what they saw.
    pub fn commit(&mut self) -> Result<(), TableError> {
        self.publisher.commit(0).map(drop)
    }
}

impl Reading {
    /// What packets read of a host that runs the state, and takes all of it.
    #[must_use]
    pub fn of(state: &NodeState) -> Self {
        Self(lower(state, &state.settings.prefixes, 0).contents)
    }
}

impl Default for Words {
    fn default() -> Self {
        Self { control: Control::UNPUBLISHED, settings: [NO_SETTINGS; 2] }
    }
}

impl Switch for Tables {
    fn control(&self) -> Result<Control, TableError> {
        Ok(self.words().control)
    }

    fn store(&mut self, control: Control) -> Result<(), TableError> {
        self.change(|words| words.control = control);
        Ok(())
    }

    fn settings(&self, bank: Bank) -> Result<Settings, TableError> {
        let [a, b] = self.words().settings;
        Ok(match bank {
            Bank::A => a,
            Bank::B => b,
        })
    }

    fn write_settings(&mut self, bank: Bank, settings: &Settings) -> Result<(), TableError> {
        self.change(|Words { settings: [a, b], .. }| match bank {
            Bank::A => *a = *settings,
            Bank::B => *b = *settings,
        });
        Ok(())
    }

    fn grace(&mut self) -> Result<(), TableError> {
        Ok(())
    }
}

impl<K: BankedKey + Ord, V: Copy> Map<K, V> {
    fn of(&self, bank: Bank) -> Pages<K, V> {
        let held = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let of_bank = held.iter().filter(|(key, _)| key.bank() == Some(bank));
        of_bank.map(|(key, value)| (key.in_bank(Bank::A), *value)).collect()
    }
}

impl<K: Copy + Ord + Send, V: Copy + Send> Table<K, V> for Map<K, V> {
    fn insert(&mut self, key: &K, value: &V) -> Result<(), TableError> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(*key, *value);
        Ok(())
    }

    fn remove(&mut self, key: &K) -> Result<(), TableError> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(key);
        Ok(())
    }

    fn entries(&self) -> Result<Vec<(K, V)>, TableError> {
        let held = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        Ok(held.iter().map(|(key, value)| (*key, *value)).collect())
    }

    fn capacity(&self) -> usize {
        usize::MAX
    }
}

impl<K, V> Clone for Map<K, V> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<K, V> Default for Map<K, V> {
    fn default() -> Self {
        Self(Arc::default())
    }
}
