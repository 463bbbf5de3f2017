//! The banked tables: what they hold, and the maps or trees that hold it.

use std::collections::BTreeMap;

use aya::maps::lpm_trie::{Key as TrieKey, LpmTrie};
use aya::maps::{HashMap as BpfHashMap, IterableMap, Map, MapData, MapError};
use datapath::abi::{
    CidrEntry, CidrKey, ClassEntry, ClassKey, EndpointEntry, EndpointKey, PolicyEntry, PolicyKey,
    PrefixEntry, PrefixKey, Settings, TunnelEntry, TunnelKey,
};
use policy::pages::Pages;

mod layout;

pub(super) use layout::{BankedKey, Layout, TrieLayout};

/// Everything that one bank holds, with keys of bank A.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Contents {
    /// `ENDPOINTS`.
    pub(super) endpoints: Pages<EndpointKey, EndpointEntry>,
    /// `TUNNELS`.
    pub(super) tunnels: Pages<TunnelKey, TunnelEntry>,
    /// `CIDRS`.
    pub(super) cidrs: Pages<CidrKey, CidrEntry>,
    /// `CLASSES`.
    pub(super) classes: Pages<ClassKey, ClassEntry>,
    /// `POLICY`.
    pub(super) policy: Pages<PolicyKey, PolicyEntry>,
    /// `PREFIXES`.
    pub(super) prefixes: Pages<PrefixKey, PrefixEntry>,
    /// `SETTINGS`; `None` = all zeroes, which denies everything.
    pub(super) settings: Option<Settings>,
}

/// Why a table did not do what it was told.
#[derive(Debug, thiserror::Error)]
pub enum TableError {
    /// The table has no room; nothing was written.
    #[error(
        "the table {table} is full: {needed} entries are needed in both banks together, it has room for {capacity}"
    )]
    Full {
        /// Its name.
        table: &'static str,
        /// Entries of the active bank and of the wanted one.
        needed: usize,
        /// Its size.
        capacity: usize,
    },
    /// The kernel refused.
    #[error("cannot {operation} {table}: {source}")]
    Refused {
        /// What was attempted.
        operation: &'static str,
        /// On which table.
        table: &'static str,
        /// What the kernel said.
        source: MapError,
    },
}

/// A table of the kernel or its double.
pub(super) trait Table<K, V>: Send {
    /// Adds or replaces an entry.
    ///
    /// # Errors
    /// When the table has no room or the kernel refuses.
    fn insert(&mut self, key: &K, value: &V) -> Result<(), TableError>;

    /// Removes an entry; one that is absent is no error.
    ///
    /// # Errors
    /// When the kernel refuses.
    fn remove(&mut self, key: &K) -> Result<(), TableError>;

    /// Reads the whole table.
    ///
    /// # Errors
    /// When the kernel refuses.
    fn entries(&self) -> Result<Vec<(K, V)>, TableError>;

    /// How many entries it has room for.
    fn capacity(&self) -> usize;
}

/// A hash map of the kernel.
pub(super) struct Hash<K: Layout, V: Layout> {
    name: &'static str,
    capacity: usize,
    map: BpfHashMap<MapData, K::Bytes, V::Bytes>,
}

/// A longest-prefix trie of the kernel.
pub(super) struct Trie<K: TrieLayout, V: Layout> {
    name: &'static str,
    capacity: usize,
    map: LpmTrie<MapData, K::Data, V::Bytes>,
}

impl<K: Layout, V: Layout> Hash<K, V> {
    /// Wraps a map.
    ///
    /// # Errors
    /// When key or value have other sizes.
    pub(super) fn try_new(name: &'static str, data: MapData) -> Result<Self, MapError> {
        let capacity = capacity(&data)?;
        Ok(Self { name, capacity, map: BpfHashMap::try_from(Map::HashMap(data))? })
    }
}

impl<K: TrieLayout, V: Layout> Trie<K, V> {
    /// Wraps a map.
    ///
    /// # Errors
    /// When key or value have other sizes.
    pub(super) fn try_new(name: &'static str, data: MapData) -> Result<Self, MapError> {
        let capacity = capacity(&data)?;
        Ok(Self { name, capacity, map: LpmTrie::try_from(Map::LpmTrie(data))? })
    }
}

fn capacity(data: &MapData) -> Result<usize, MapError> {
    Ok(usize::try_from(data.info()?.max_entries()).unwrap_or(usize::MAX))
}

fn refused(operation: &'static str, table: &'static str) -> impl Fn(MapError) -> TableError {
    move |source| TableError::Refused { operation, table, source }
}

impl<K: Layout + Send, V: Layout + Send> Table<K, V> for Hash<K, V>
where
    K::Bytes: Send,
    V::Bytes: Send,
{
    fn insert(&mut self, key: &K, value: &V) -> Result<(), TableError> {
        self.map.insert(key.to_bytes(), value.to_bytes(), 0).map_err(refused("write to", self.name))
    }

    fn remove(&mut self, key: &K) -> Result<(), TableError> {
        absent_is_fine(self.map.remove(&key.to_bytes())).map_err(refused("remove from", self.name))
    }

    fn entries(&self) -> Result<Vec<(K, V)>, TableError> {
        let entry = |entry: Result<(K::Bytes, V::Bytes), MapError>| {
            entry.map(|(key, value)| (K::from_bytes(key), V::from_bytes(value)))
        };
        self.map.iter().map(entry).collect::<Result<_, _>>().map_err(refused("read", self.name))
    }

    fn capacity(&self) -> usize {
        self.capacity
    }
}

impl<K: TrieLayout + Send, V: Layout + Send> Table<K, V> for Trie<K, V>
where
    K::Data: Send,
    V::Bytes: Send,
{
    fn insert(&mut self, key: &K, value: &V) -> Result<(), TableError> {
        let (prefix_len, data) = key.split();
        self.map
            .insert(&TrieKey::new(prefix_len, data), value.to_bytes(), 0)
            .map_err(refused("write to", self.name))
    }

    fn remove(&mut self, key: &K) -> Result<(), TableError> {
        let (prefix_len, data) = key.split();
        absent_is_fine(self.map.remove(&TrieKey::new(prefix_len, data)))
            .map_err(refused("remove from", self.name))
    }

    fn entries(&self) -> Result<Vec<(K, V)>, TableError> {
        // Looking up a key that was just listed finds that key itself: no other prefix of its length matches it.
        let entry = |key: Result<TrieKey<K::Data>, MapError>| {
            let key = key?;
            let value = IterableMap::get(&self.map, &key)?;
            Ok((K::join(key.prefix_len(), key.data()), V::from_bytes(value)))
        };
        self.map.keys().map(entry).collect::<Result<_, _>>().map_err(refused("read", self.name))
    }

    fn capacity(&self) -> usize {
        self.capacity
    }
}

fn absent_is_fine(result: Result<(), MapError>) -> Result<(), MapError> {
    match result {
        Err(MapError::KeyNotFound) => Ok(()),
        Err(MapError::SyscallError(error)) if error.io_error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

/// A tree stands for a map in tests; it never fills up.
impl<K: Copy + Ord + Send, V: Copy + Send> Table<K, V> for BTreeMap<K, V> {
    fn insert(&mut self, key: &K, value: &V) -> Result<(), TableError> {
        BTreeMap::insert(self, *key, *value);
        Ok(())
    }

    fn remove(&mut self, key: &K) -> Result<(), TableError> {
        BTreeMap::remove(self, key);
        Ok(())
    }

    fn entries(&self) -> Result<Vec<(K, V)>, TableError> {
        Ok(self.iter().map(|(key, value)| (*key, *value)).collect())
    }

    fn capacity(&self) -> usize {
        usize::MAX
    }
}
