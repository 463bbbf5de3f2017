//! Who holds what several claim: the first holder keeps it while it claims it; between newcomers the order of claims decides.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

/// Addresses and who holds them.
#[derive(Clone, Debug, Default)]
pub(super) struct Holders {
    held: BTreeMap<IpAddr, Arc<str>>,
}

/// An address that somebody claims and another one holds.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Contested {
    pub(super) address: IpAddr,
    pub(super) holder: Arc<str>,
    pub(super) claimant: Arc<str>,
}

impl Holders {
    /// Settles all claims of now, which come in the order of preference between newcomers. Who is not the holder is returned.
    pub(super) fn settle<'a>(
        &mut self,
        claims: impl Iterator<Item = (IpAddr, &'a Arc<str>)>,
    ) -> Vec<Contested> {
        let mut claimants: BTreeMap<IpAddr, Vec<&Arc<str>>> = BTreeMap::new();
        for (address, name) in claims {
            let all = claimants.entry(address).or_default();
            if !all.contains(&name) {
                all.push(name);
            }
        }
        let mut contested = Vec::new();
        let mut held = BTreeMap::new();
        for (address, claimants) in claimants {
            let before = self.held.get(&address).filter(|holder| claimants.contains(holder));
            let Some(holder) = before.or(claimants.first().copied()).cloned() else { continue };
            for claimant in claimants.into_iter().filter(|claimant| **claimant != holder) {
                contested.push(Contested {
                    address,
                    holder: Arc::clone(&holder),
                    claimant: Arc::clone(claimant),
                });
            }
            held.insert(address, holder);
        }
        self.held = held;
        contested
    }

    /// Whether the name holds the address.
    pub(super) fn holds(&self, name: &str, address: IpAddr) -> bool {
        self.held.get(&address).is_some_and(|holder| **holder == *name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settle(holders: &mut Holders, names: &[&str]) -> Vec<String> {
        let address = "10.0.0.1".parse().unwrap();
        let names: Vec<Arc<str>> = names.iter().copied().map(Arc::from).collect();
        let contested = holders.settle(names.iter().map(|name| (address, name)));
        contested
            .into_iter()
            .map(|contested| format!("{}>{}", contested.holder, contested.claimant))
            .collect()
    }

    #[test]
    fn the_first_holder_stays_until_it_lets_go() {
        let mut holders = Holders::default();
        assert_eq!(settle(&mut holders, &["b"]), Vec::<String>::new());
        assert_eq!(settle(&mut holders, &["a", "b"]), ["b>a"]);
        assert_eq!(settle(&mut holders, &["a"]), Vec::<String>::new());
        assert_eq!(settle(&mut holders, &["a", "b"]), ["a>b"]);
    }

    #[test]
    fn between_newcomers_the_name_decides() {
        assert_eq!(settle(&mut Holders::default(), &["a", "b", "c"]), ["a>b", "a>c"]);
    }
}
