//! Leaves companions out: they repeat for addresses what a policy says of labels, later than it. In the mesh that would
//! hold open what is closed. What only says to be one is a policy.

use std::collections::BTreeMap;

use kube::ResourceExt as _;
use kube::api::DynamicObject;
use serde_json::Value;

use crate::manifest::Kind;
use crate::manifest::companion::{companion, is_labelled};

/// Tells companions from the other objects of a kind.
#[derive(Debug)]
pub(super) struct Companions {
    kind: Kind,
    /// The numbers of policies, by namespace and name: whoever owns a companion is among them.
    policies: BTreeMap<(String, String), String>,
    /// Of a list that is not whole, what says to be a companion: its owner may come later.
    waiting: Vec<DynamicObject>,
}

impl Companions {
    pub(super) const fn new(kind: Kind) -> Self {
        Self { kind, policies: BTreeMap::new(), waiting: Vec::new() }
    }

    /// A list begins.
    pub(super) fn begin(&mut self) {
        self.policies.clear();
        self.waiting.clear();
    }

    /// An object of a list, unless it has to wait for the end of that.
    pub(super) fn listed(&mut self, object: DynamicObject) -> Option<DynamicObject> {
        if self.kind == Kind::NetworkPolicy && owner_of(&object).is_some() {
            self.waiting.push(object);
            return None;
        }
        self.remember(&object);
        Some(object)
    }

    /// The list is whole: what waited and is no companion.
    pub(super) fn end(&mut self) -> Vec<DynamicObject> {
        let waiting = std::mem::take(&mut self.waiting);
        let (_companions, policies): (Vec<_>, Vec<_>) =
            waiting.into_iter().partition(|object| self.is_owned(object));
        for object in &policies {
            self.remember(object);
        }
        policies
    }

    /// Whether an object is a companion. It stays one while it is not changed: where its owner is deleted, the cluster takes it
    /// along.
    pub(super) fn has(&mut self, object: &DynamicObject) -> bool {
        let is_companion = self.kind == Kind::NetworkPolicy && self.is_owned(object);
        if !is_companion {
            self.remember(object);
        }
        is_companion
    }

    /// An object is gone.
    pub(super) fn gone(&mut self, object: &DynamicObject) {
        self.policies.remove(&key(object));
    }

    fn remember(&mut self, object: &DynamicObject) {
        if self.kind == Kind::NetworkPolicy {
            self.policies.insert(key(object), object.uid().unwrap_or_default());
        }
    }

    fn is_owned(&self, object: &DynamicObject) -> bool {
        let Some((owner, uid)) = owner_of(object) else { return false };
        let (namespace, _name) = key(object);
        !uid.is_empty() && self.policies.get(&(namespace, owner)) == Some(&uid)
    }
}

/// Name and number of the owner that an object names, where it is a companion otherwise.
fn owner_of(object: &DynamicObject) -> Option<(String, String)> {
    if !is_labelled(&object.metadata) {
        return None;
    }
    let spec = object.data.get("spec").unwrap_or(&Value::Null);
    companion(&object.metadata, spec).ok().map(|owner| (owner.name.clone(), owner.uid.clone()))
}

fn key(object: &DynamicObject) -> (String, String) {
    (object.namespace().unwrap_or_default(), object.name_any())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::manifest::companion::COMPANION;

    fn policy(name: &str, uid: &str) -> DynamicObject {
        let object =
            json!({"metadata": {"name": name, "namespace": "shop", "uid": uid}, "spec": {"podSelector": {}}});
        serde_json::from_value(object).unwrap()
    }

    fn companion_of(name: &str, uid: &str) -> DynamicObject {
        let object = json!({"metadata": {"name": format!("outrigger-companion-{name}"), "namespace": "shop", "uid": "c",
            "labels": {COMPANION.0: COMPANION.1}, "ownerReferences": [{"apiVersion": "networking.k8s.io/v1",
                "kind": "NetworkPolicy", "name": name, "uid": uid, "controller": true}]},
            "spec": {"podSelector": {}, "policyTypes": ["Ingress"],
                "ingress": [{"from": [{"ipBlock": {"cidr": "10.9.0.1/32"}}]}]}});
        serde_json::from_value(object).unwrap()
    }

    #[test]
    fn a_companion_is_left_out_whenever_its_owner_is_listed() {
        let mut companions = Companions::new(Kind::NetworkPolicy);
        companions.begin();
        assert!(companions.listed(companion_of("zoo", "1")).is_none());
        assert!(companions.listed(policy("zoo", "1")).is_some());
        assert!(companions.end().is_empty());
        assert!(companions.has(&companion_of("zoo", "1")));
    }

    #[test]
    fn without_its_owner_it_is_a_policy() {
        let mut companions = Companions::new(Kind::NetworkPolicy);
        companions.begin();
        let of = |uid| companion_of("api", uid);
        assert!(companions.listed(of("another")).is_none());
        assert!(companions.listed(policy("api", "1")).is_some());
        assert_eq!(companions.end().len(), 1, "its owner has another number");
        assert!(!companions.has(&of("another")) && companions.has(&of("1")));
        let mut elsewhere = of("1");
        elsewhere.metadata.namespace = Some("lab".to_owned());
        assert!(!companions.has(&elsewhere), "its owner is in another namespace");
        companions.gone(&policy("api", "1"));
        assert!(!companions.has(&of("1")));
    }

    #[test]
    fn a_label_alone_makes_no_companion() {
        let mut companions = Companions::new(Kind::NetworkPolicy);
        let mut labelled = policy("api", "1");
        labelled.metadata.labels = Some([(COMPANION.0.to_owned(), COMPANION.1.to_owned())].into());
        assert!(companions.listed(labelled.clone()).is_some());
        assert!(!companions.has(&labelled));
        assert!(companions.has(&companion_of("api", "1")), "it is a policy, and may have a companion");
    }
}
