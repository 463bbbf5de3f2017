//! Mesh addresses: the lowest free one of the pools. An address that was given back rests before another workload may
//! have it; the one that had it gets it back at once.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use pki::UnixTime;
use redb::ReadableTable as _;
use serde::{Deserialize, Serialize};

use super::ledger::Transaction;
use super::record::WorkloadName;
use super::table::{RESTING_ADDRESSES, decode, put, remove};
use super::{Store, StoreError};

/// The prefixes mesh addresses come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pools {
    v4: Vec<Ipv4Net>,
    v6: Vec<Ipv6Net>,
}

/// Pools that cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidPools {
    /// There is none.
    #[error("there is no pool: at least one IPv4 or IPv6 prefix is needed")]
    Empty,
    /// A pool has no address to give.
    #[error("pool {0} is too small: an IPv4 pool needs at least /30, an IPv6 pool /126")]
    Small(IpNet),
    /// A pool has bits outside its prefix length.
    #[error("pool {0} has bits set after its prefix: write {1}")]
    Bits(IpNet, IpNet),
    /// Two pools overlap.
    #[error("pools {0} and {1} overlap")]
    Overlap(IpNet, IpNet),
}

/// An address that was not given.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PoolError {
    /// Every address is in use or rests.
    #[error(
        "no address is left in {pools}: {resting} of them rest after a workload left, {promised} are declared for others; \
         add a pool, or delete workloads"
    )]
    Exhausted {
        /// The pools of the family.
        pools: String,
        /// How many addresses rest.
        resting: usize,
        /// How many addresses objects of others ask for.
        promised: usize,
    },
    /// An address asked for by name is in no pool.
    #[error("address {0} is in none of the gateway's workload pools")]
    Outside(IpAddr),
    /// An address asked for by name is another workload's.
    #[error("address {address} belongs to workload {holder}")]
    Held {
        /// The address.
        address: IpAddr,
        /// Whose it is.
        holder: WorkloadName,
    },
}

/// An address that rests.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Resting {
    /// Whose it was.
    pub(super) holder: WorkloadName,
    /// Since when, in seconds since 1970.
    pub(super) released_at: u64,
}

/// Every address that is not free, and why.
#[derive(Debug, Default)]
pub(super) struct Taken {
    /// In use.
    pub(super) held: BTreeMap<IpAddr, WorkloadName>,
    /// Resting.
    pub(super) resting: BTreeMap<IpAddr, Resting>,
    /// Declared for others, which need not have joined.
    pub(super) promised: BTreeSet<IpAddr>,
}

impl Pools {
    /// Checks the prefixes.
    ///
    /// # Errors
    /// [`InvalidPools`], with the prefix.
    pub fn try_new(pools: &[IpNet]) -> Result<Self, InvalidPools> {
        if pools.is_empty() {
            return Err(InvalidPools::Empty);
        }
        for (at, pool) in pools.iter().enumerate() {
            if pool.max_prefix_len() - pool.prefix_len() < 2 {
                return Err(InvalidPools::Small(*pool));
            }
            if pool.trunc() != *pool {
                return Err(InvalidPools::Bits(*pool, pool.trunc()));
            }
            let overlaps = |other: &&IpNet| other.contains(pool) || pool.contains(*other);
            if let Some(other) = pools.iter().take(at).find(overlaps) {
                return Err(InvalidPools::Overlap(*other, *pool));
            }
        }
        let v4 = pools.iter().filter_map(|pool| if let IpNet::V4(pool) = pool { Some(*pool) } else { None });
        let v6 = pools.iter().filter_map(|pool| if let IpNet::V6(pool) = pool { Some(*pool) } else { None });
        Ok(Self { v4: v4.collect(), v6: v6.collect() })
    }

    /// The prefixes.
    #[must_use]
    pub fn prefixes(&self) -> Vec<IpNet> {
        self.v4.iter().copied().map(IpNet::V4).chain(self.v6.iter().copied().map(IpNet::V6)).collect()
    }

    /// Whether an address is in a pool.
    #[must_use]
    pub fn contains(&self, address: IpAddr) -> bool {
        self.prefixes().iter().any(|pool| pool.contains(&address))
    }

    /// One address per family that has a pool: those in `wanted` first, then the ones that rest for `name`, then the
    /// lowest free.
    pub(super) fn allocate(
        &self,
        name: &WorkloadName,
        wanted: &[IpAddr],
        taken: &Taken,
    ) -> Result<Vec<IpAddr>, PoolError> {
        let unavailable: BTreeSet<IpAddr> =
            taken.held.keys().chain(taken.resting.keys()).chain(&taken.promised).copied().collect();
        let own = |v4: bool| {
            let wanted = wanted.iter().copied();
            let mine = taken.resting.iter().filter(|(_, resting)| resting.holder == *name).map(|(at, _)| *at);
            let mine = mine.filter(|address| !taken.promised.contains(address));
            wanted.chain(mine).find(|address| address.is_ipv4() == v4 && self.contains(*address))
        };
        let mut addresses = Vec::new();
        if !self.v4.is_empty() {
            let fresh = || self.v4.iter().find_map(|pool| lowest_v4(*pool, &unavailable)).map(IpAddr::V4);
            addresses.push(own(true).or_else(fresh).ok_or_else(|| self.exhausted(true, taken))?);
        }
        if !self.v6.is_empty() {
            let fresh = || self.v6.iter().find_map(|pool| lowest_v6(*pool, &unavailable)).map(IpAddr::V6);
            addresses.push(own(false).or_else(fresh).ok_or_else(|| self.exhausted(false, taken))?);
        }
        Ok(addresses)
    }

    /// Refuses addresses asked for by name that another workload has or had, or that are in no pool.
    pub(super) fn check(
        &self,
        name: &WorkloadName,
        wanted: &[IpAddr],
        taken: &Taken,
    ) -> Result<(), PoolError> {
        for &address in wanted {
            if !self.contains(address) {
                return Err(PoolError::Outside(address));
            }
            let resting = taken.resting.get(&address).map(|resting| &resting.holder);
            if let Some(holder) = taken.held.get(&address).or(resting).filter(|holder| *holder != name) {
                return Err(PoolError::Held { address, holder: holder.clone() });
            }
        }
        Ok(())
    }

    fn exhausted(&self, v4: bool, taken: &Taken) -> PoolError {
        let pools = self.prefixes().into_iter().filter(|pool| matches!(pool, IpNet::V4(_)) == v4);
        let names: Vec<String> = pools.map(|pool| format!("pool {pool}")).collect();
        let resting = taken.resting.keys().filter(|address| address.is_ipv4() == v4).count();
        let promised = taken.promised.iter().filter(|address| address.is_ipv4() == v4).count();
        PoolError::Exhausted { pools: names.join(", "), resting, promised }
    }
}

impl Store {
    /// Every address that is not free. What has rested long enough is forgotten on the way.
    pub(super) fn taken(&self, transaction: &Transaction, now: UnixTime) -> Result<Taken, StoreError> {
        let mut taken = Taken::default();
        for workload in self.workloads().values() {
            taken.held.extend(workload.addresses.iter().map(|address| (*address, workload.name.clone())));
        }
        let mut rested = Vec::new();
        for entry in transaction.open_table(RESTING_ADDRESSES)?.iter()? {
            let (key, bytes) = entry?;
            let resting: Resting = decode("resting_addresses", key.value(), bytes.value())?;
            let until = resting.released_at.saturating_add(self.settings.quarantine.as_secs());
            match key.value().parse() {
                Ok(address) if now.as_secs() < until => drop(taken.resting.insert(address, resting)),
                _ => rested.push(key.value().to_owned()),
            }
        }
        for address in rested {
            remove(transaction, RESTING_ADDRESSES, &address)?;
        }
        Ok(taken)
    }
}

/// Gives addresses back.
pub(super) fn release(
    transaction: &Transaction,
    holder: &WorkloadName,
    addresses: &[IpAddr],
    now: UnixTime,
) -> Result<(), StoreError> {
    let resting = Resting { holder: holder.clone(), released_at: now.as_secs() };
    for address in addresses {
        put(transaction, RESTING_ADDRESSES, &address.to_string(), &resting)?;
    }
    Ok(())
}

/// Takes addresses into use.
pub(super) fn occupy(transaction: &Transaction, addresses: &[IpAddr]) -> Result<(), StoreError> {
    for address in addresses {
        let address = address.to_string();
        if transaction.open_table(RESTING_ADDRESSES)?.get(address.as_str())?.is_some() {
            remove(transaction, RESTING_ADDRESSES, &address)?;
        }
    }
    Ok(())
}

/// The lowest address that is neither the network's, nor the first, nor the broadcast address, nor taken.
fn lowest_v4(pool: Ipv4Net, taken: &BTreeSet<IpAddr>) -> Option<Ipv4Addr> {
    let mut candidate = u32::from(pool.network()).checked_add(2)?;
    let last = u32::from(pool.broadcast()).checked_sub(1)?;
    let range = IpAddr::V4(candidate.into())..=IpAddr::V4(last.into());
    for address in taken.range(range) {
        if *address != IpAddr::V4(candidate.into()) {
            break;
        }
        candidate = candidate.checked_add(1)?;
    }
    (candidate <= last).then(|| candidate.into())
}

/// The lowest address that is neither the subnet router's, nor the first, nor taken.
fn lowest_v6(pool: Ipv6Net, taken: &BTreeSet<IpAddr>) -> Option<Ipv6Addr> {
    let mut candidate = u128::from(pool.network()).checked_add(2)?;
    let last = u128::from(pool.broadcast());
    let range = IpAddr::V6(candidate.into())..=IpAddr::V6(last.into());
    for address in taken.range(range) {
        if *address != IpAddr::V6(candidate.into()) {
            break;
        }
        candidate = candidate.checked_add(1)?;
    }
    (candidate <= last).then(|| candidate.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pools(prefixes: &[&str]) -> Result<Pools, InvalidPools> {
        Pools::try_new(&prefixes.iter().map(|prefix| prefix.parse().unwrap()).collect::<Vec<_>>())
    }

    fn name(name: &str) -> WorkloadName {
        WorkloadName::try_new("shop", name).unwrap()
    }

    #[test]
    fn the_lowest_free_address_of_each_family_is_given() {
        let pools = pools(&["10.0.0.0/29", "fd00::/120"]).unwrap();
        let mut taken = Taken::default();
        let first = pools.allocate(&name("a"), &[], &taken).unwrap();
        assert_eq!(first, ["10.0.0.2".parse::<IpAddr>().unwrap(), "fd00::2".parse().unwrap()]);
        taken.held.insert("10.0.0.2".parse().unwrap(), name("a"));
        taken.held.insert("10.0.0.4".parse().unwrap(), name("b"));
        let next = pools.allocate(&name("c"), &[], &taken).unwrap();
        assert_eq!(next[0], "10.0.0.3".parse::<IpAddr>().unwrap());
    }

    #[test]
    fn an_exhausted_pool_is_named_and_the_broadcast_address_is_never_given() {
        let pools = pools(&["10.0.0.0/30"]).unwrap();
        let mut taken = Taken::default();
        assert_eq!(pools.allocate(&name("a"), &[], &taken).unwrap()[0].to_string(), "10.0.0.2");
        let resting = Resting { holder: name("a"), released_at: 0 };
        taken.resting.insert("10.0.0.2".parse().unwrap(), resting);
        let error = pools.allocate(&name("b"), &[], &taken).unwrap_err();
        assert!(matches!(&error, PoolError::Exhausted { resting: 1, .. }));
        assert!(error.to_string().contains("10.0.0.0/30"));
        // The one that had it gets it back.
        assert_eq!(pools.allocate(&name("a"), &[], &taken).unwrap()[0].to_string(), "10.0.0.2");
    }

    #[test]
    fn a_second_pool_is_used_when_the_first_is_full() {
        let pools = pools(&["10.0.0.0/30", "10.1.0.0/30"]).unwrap();
        let taken = Taken { held: [("10.0.0.2".parse().unwrap(), name("a"))].into(), ..Taken::default() };
        assert_eq!(pools.allocate(&name("b"), &[], &taken).unwrap()[0].to_string(), "10.1.0.2");
    }

    #[test]
    fn the_last_address_of_all_does_not_overflow() {
        let pools = pools(&["255.255.255.252/30"]).unwrap();
        let taken =
            Taken { held: [("255.255.255.254".parse().unwrap(), name("a"))].into(), ..Taken::default() };
        assert!(pools.allocate(&name("b"), &[], &taken).is_err());
    }

    #[test]
    fn addresses_asked_for_by_name_are_checked() {
        let pools = pools(&["10.0.0.0/24"]).unwrap();
        let wanted = ["10.0.0.9".parse().unwrap()];
        let taken = Taken { held: [(wanted[0], name("a"))].into(), ..Taken::default() };
        assert_eq!(pools.check(&name("a"), &wanted, &taken), Ok(()));
        assert!(matches!(pools.check(&name("b"), &wanted, &taken), Err(PoolError::Held { .. })));
        let outside = ["192.0.2.1".parse().unwrap()];
        assert_eq!(pools.check(&name("a"), &outside, &taken), Err(PoolError::Outside(outside[0])));
        assert_eq!(pools.allocate(&name("a"), &wanted, &taken).unwrap(), wanted);
    }

    #[test]
    fn unusable_pools_are_refused() {
        assert_eq!(pools(&[]), Err(InvalidPools::Empty));
        assert!(matches!(pools(&["10.0.0.0/31"]), Err(InvalidPools::Small(_))));
        assert!(matches!(pools(&["fd00::/127"]), Err(InvalidPools::Small(_))));
        assert!(matches!(pools(&["10.0.0.1/24"]), Err(InvalidPools::Bits(..))));
        assert!(matches!(pools(&["10.0.0.0/16", "10.0.3.0/24"]), Err(InvalidPools::Overlap(..))));
    }
}
