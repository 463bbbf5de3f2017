//! Equal parts of endpoints, once: thousands of pods are behind one node.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;

use policy::pages::Pages;
use policy::state::{Endpoint, EndpointKind};

/// The parts that endpoints have now or had lately.
#[derive(Clone, Debug, Default)]
pub struct Pool {
    tunnels: Shared<Vec<IpAddr>>,
    behind: Shared<BTreeSet<String>>,
}

/// Values of one type.
#[derive(Clone, Debug)]
struct Shared<T> {
    held: BTreeSet<Arc<T>>,
    /// With so many, those that nobody else holds go.
    limit: usize,
}

impl Pool {
    /// What these endpoints have.
    #[must_use]
    pub fn of(endpoints: &Pages<IpAddr, Endpoint>) -> Self {
        let mut pool = Self::default();
        let mut last: Option<&Endpoint> = None;
        for endpoint in endpoints.values() {
            // Neighbours mostly are alike.
            if !last.is_some_and(|last| Arc::ptr_eq(&last.tunnels, &endpoint.tunnels)) {
                pool.tunnels.hold(&endpoint.tunnels);
            }
            if let EndpointKind::Pod { behind } = &endpoint.kind {
                pool.behind.hold(behind);
            }
            last = Some(endpoint);
        }
        pool
    }

    /// Gives an endpoint the parts that others have already. Changes no value.
    pub fn share(&mut self, endpoint: &mut Endpoint) {
        self.tunnels.share(&mut endpoint.tunnels);
        if let EndpointKind::Pod { behind } = &mut endpoint.kind {
            self.behind.share(behind);
        }
    }
}

impl<T: Ord> Shared<T> {
    const FIRST_LIMIT: usize = 64;

    fn hold(&mut self, value: &Arc<T>) {
        if self.held.len() >= self.limit {
            self.held.retain(|held| Arc::strong_count(held) > 1);
            self.limit = (self.held.len() * 2).max(Self::FIRST_LIMIT);
        }
        self.held.insert(Arc::clone(value));
    }

    fn share(&mut self, value: &mut Arc<T>) {
        match self.held.get(value) {
            Some(held) => *value = Arc::clone(held),
            None => self.hold(value),
        }
    }
}

impl<T> Default for Shared<T> {
    fn default() -> Self {
        Self { held: BTreeSet::new(), limit: 0 }
    }
}

#[cfg(test)]
mod tests {
    use policy::identity::Identity;

    use super::*;

    fn pod(node: u8) -> Endpoint {
        Endpoint {
            identity: Identity::WORLD,
            previous: None,
            mark: Identity::WORLD,
            tunnels: Arc::new(vec![IpAddr::from([192, 0, 2, node])]),
            kind: EndpointKind::Pod { behind: Arc::new(BTreeSet::from([format!("nodes/{node}")])) },
            owner: None,
        }
    }

    fn parts(endpoint: &Endpoint) -> (*const Vec<IpAddr>, *const BTreeSet<String>) {
        let EndpointKind::Pod { behind } = &endpoint.kind else { panic!("{endpoint:?}") };
        (Arc::as_ptr(&endpoint.tunnels), Arc::as_ptr(behind))
    }

    #[test]
    fn equal_parts_are_one_and_values_stay() {
        let mut pool = Pool::default();
        let [mut a, mut b, mut c] = [pod(1), pod(1), pod(2)];
        for endpoint in [&mut a, &mut b, &mut c] {
            pool.share(endpoint);
        }
        assert_eq!((&a, &c), (&pod(1), &pod(2)));
        assert_eq!(parts(&a), parts(&b));
        assert_ne!(parts(&a), parts(&c));
        let mut again = pod(2);
        Pool::of(&[(IpAddr::from([10, 0, 0, 1]), c.clone())].into_iter().collect()).share(&mut again);
        assert_eq!(parts(&again), parts(&c));
    }

    #[test]
    fn what_nobody_has_any_more_is_forgotten() {
        let mut pool = Pool::default();
        let mut kept = pod(0);
        pool.share(&mut kept);
        for number in 0..10_000_u32 {
            let [a, b, ..] = number.to_be_bytes().map(u16::from);
            let mut endpoint = pod(u8::try_from((a + b) % 250).unwrap());
            endpoint.tunnels = Arc::new(vec![IpAddr::from(number.to_be_bytes())]);
            pool.share(&mut endpoint);
        }
        assert!(pool.tunnels.held.len() <= Shared::<Vec<IpAddr>>::FIRST_LIMIT);
        let mut again = pod(0);
        pool.share(&mut again);
        assert_eq!(parts(&again), parts(&kept));
    }
}
