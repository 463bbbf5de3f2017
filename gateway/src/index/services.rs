//! Services, put together of their objects and of the slices that name them.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use policy::facts;

use crate::manifest::{EndpointSlice, ObjectKey, Service};

/// The objects that the facts about Services are made of, by namespace and name.
#[derive(Debug, Default)]
pub struct Services {
    services: BTreeMap<(String, String), Arc<Service>>,
    slices: BTreeMap<(String, String), Arc<EndpointSlice>>,
}

/// The facts about Services, by `namespace/name`.
pub type Known = BTreeMap<Arc<str>, Arc<facts::Service>>;

impl Services {
    /// Takes over a Service; `None` = it is gone.
    pub fn put(&mut self, key: &ObjectKey, service: Option<Arc<Service>>, known: &mut Known) {
        let pair = (key.namespace.clone(), key.name.clone());
        match service {
            Some(service) => drop(self.services.insert(pair, service)),
            None => drop(self.services.remove(&pair)),
        }
        self.settle(&key.namespace, &key.name, known);
    }

    /// Takes over a slice; `None` = it is gone.
    pub fn put_slice(&mut self, key: &ObjectKey, slice: Option<Arc<EndpointSlice>>, known: &mut Known) {
        let pair = (key.namespace.clone(), key.name.clone());
        let after = slice.as_ref().and_then(|slice| slice.service.clone());
        let before = match slice {
            Some(slice) => self.slices.insert(pair, slice),
            None => self.slices.remove(&pair),
        };
        let before = before.and_then(|slice| slice.service.clone());
        for service in before.iter().chain(&after) {
            self.settle(&key.namespace, service, known);
        }
    }

    fn settle(&self, namespace: &str, name: &str, known: &mut Known) {
        let text: Arc<str> = format!("{namespace}/{name}").into();
        let Some(service) = self.services.get(&(namespace.to_owned(), name.to_owned())) else {
            known.remove(&text);
            return;
        };
        // Slices of a Service with a selector name its pods, come and go with them, and are asked by nobody.
        let is_by_hand = service.selector.is_none();
        let service = facts::Service {
            namespace: namespace.to_owned(),
            labels: service.labels.clone(),
            selector: service.selector.clone(),
            addresses: if is_by_hand { self.addresses(namespace, name) } else { Vec::new() },
        };
        known.insert(text, Arc::new(service));
    }

    fn addresses(&self, namespace: &str, name: &str) -> Vec<IpAddr> {
        let from = (namespace.to_owned(), String::new());
        let slices = self.slices.range(from..).take_while(|((of, _), _)| of == namespace);
        let own = slices.filter(|(_, slice)| slice.service.as_deref() == Some(name));
        let mut addresses: Vec<IpAddr> = own.flat_map(|(_, slice)| slice.addresses.iter().copied()).collect();
        addresses.sort();
        addresses.dedup();
        addresses
    }
}
