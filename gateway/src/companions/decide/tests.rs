//! What is decided, from objects as an API server would show them.

use std::sync::Arc;

use kube::api::DynamicObject;
use policy::facts::Namespace;
use policy::state::{Mode, Scope};
use serde_json::{Value, json};

use super::*;
use crate::companions::follow::{Host, policy};
use crate::manifest::Group;
use crate::manifest::companion::{COMPANION, name_of};

struct World {
    seen: Seen,
    config: Config,
}

fn key(namespace: &str, name: &str) -> Key {
    (namespace.to_owned(), name.to_owned())
}

impl World {
    /// Namespaces `shop` and `lab`, of which the first is listed, with a host `db-1` each.
    fn new() -> Self {
        let mut seen = Seen::default();
        let group = Group {
            labels: [("app".to_owned(), "db".to_owned())].into(),
            service_account: "default".to_owned(),
            ports: Vec::new(),
            mode: Mode::Enforce,
            scope: Scope::Mesh,
            nic_mode: Mode::Audit,
            probes: Vec::new(),
            zone: None,
        };
        let both = || ["shop", "lab"].into_iter();
        seen.namespaces.listed(both().map(|name| (key("", name), Arc::new(Namespace::default()))).collect());
        seen.groups.listed(both().map(|name| (key(name, "db"), Arc::new(group.clone()))).collect());
        seen.hosts.listed(BTreeMap::new());
        seen.policies.listed(BTreeMap::new());
        let options = super::super::config::Options {
            namespaces: Some(::config::List(vec!["shop".to_owned()])),
            source_addresses: Some(SourceAddresses::Preserved),
            workload_pools: Some(::config::List(vec!["10.9.0.0/24".parse().unwrap()])),
            max_blocks: Some(3),
            ..super::super::config::Options::default()
        };
        let config = Config::from_options(options, std::path::Path::new("")).unwrap();
        let mut world = Self { seen, config };
        world.host("shop", "db-1", &["10.9.0.1"]);
        world.host("lab", "db-1", &["10.9.0.2"]);
        world
    }

    fn host(&mut self, namespace: &str, name: &str, addresses: &[&str]) {
        let addresses = addresses.iter().map(|address| address.parse().unwrap()).collect();
        self.seen.hosts.objects.insert(key(namespace, name), Host { group: "db".to_owned(), addresses });
    }

    fn put(&mut self, mut object: Value) {
        object["apiVersion"] = json!("networking.k8s.io/v1");
        object["kind"] = json!("NetworkPolicy");
        if object["metadata"]["resourceVersion"].is_null() {
            object["metadata"]["resourceVersion"] = json!("1");
        }
        let object: DynamicObject = serde_json::from_value(object).unwrap();
        let metadata = &object.metadata;
        let key = key(metadata.namespace.as_deref().unwrap(), metadata.name.as_deref().unwrap());
        if let Some(policy) = policy(&object) {
            self.seen.policies.objects.insert(key, policy);
        }
    }

    /// A policy that lets hosts `db` in.
    fn original(&mut self, namespace: &str, name: &str) {
        let from = json!([{"podSelector": {"matchLabels": {"app": "db"}}}]);
        self.put(json!({"metadata": {"name": name, "namespace": namespace, "uid": format!("u-{name}"),
            "labels": {"team": "x"}, "annotations": {"a": "b"}},
            "spec": {"podSelector": {}, "ingress": [{"from": from}]}}));
    }

    fn decide(&self) -> Decided {
        decide(&self.seen, &self.config).unwrap()
    }

    fn changes(&self) -> Vec<Change> {
        self.decide().work.into_iter().map(|work| work.change).collect()
    }

    /// Carries out what is to be done, as an API server would.
    fn settle(&mut self) {
        for change in self.changes() {
            match change {
                Change::Create(object) | Change::Update(object) => {
                    let mut object = serde_json::to_value(object).unwrap();
                    object["metadata"]["uid"] = json!("made");
                    object["metadata"]["resourceVersion"] = json!("2");
                    self.put(object);
                }
                Change::Delete { name, .. } => {
                    drop(self.seen.policies.objects.remove(&key("shop", &name)));
                }
            }
        }
    }

    fn note(&self) -> (State, String) {
        let notes = self.decide().notes;
        assert_eq!(notes.len(), 1, "{notes:?}");
        let note = notes.into_values().next().unwrap();
        (note.state, note.text)
    }
}

#[test]
fn a_companion_is_made_once_and_carries_nothing_of_the_policys_own() {
    let mut world = World::new();
    world.original("shop", "api");
    world.original("lab", "api");
    let changes = world.changes();
    let [Change::Create(made)] = &changes[..] else { panic!("{changes:?}") };
    let expected = json!({"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy",
        "metadata": {"name": "outrigger-companion-api", "namespace": "shop",
            "labels": {"app.kubernetes.io/managed-by": "companions.outrigger.dev"},
            "ownerReferences": [{"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", "name": "api",
                "uid": "u-api", "controller": true}]},
        "spec": {"podSelector": {}, "policyTypes": ["Ingress"], "ingress": [{"from": [{"ipBlock": {"cidr": "10.9.0.1/32"}}]}]}});
    assert_eq!(serde_json::to_value(made).unwrap(), expected);
    let owner = crate::manifest::companion::companion(&made.metadata, &expected["spec"]);
    assert_eq!(owner.map(|owner| owner.uid.as_str()), Ok("u-api"));
    world.settle();
    let decided = world.decide();
    assert!(decided.work.is_empty() && decided.notes.is_empty(), "{decided:?}");
    assert_eq!((decided.kept, decided.outside), (1, 0));
}

#[test]
fn it_follows_hosts_groups_and_what_others_do_to_it() {
    let mut world = World::new();
    world.original("shop", "api");
    world.settle();
    world.host("shop", "db-2", &["10.9.0.7", "192.0.2.1"]);
    let changes = world.changes();
    let [Change::Update(object)] = &changes[..] else { panic!("{changes:?}") };
    assert_eq!(object.metadata.resource_version.as_deref(), Some("2"));
    let text = serde_json::to_string(object).unwrap();
    assert!(
        text.contains("10.9.0.7/32") && !text.contains("192.0.2.1"),
        "an address outside of the pools: {text}"
    );
    world.settle();
    // Two hosts with one address: it is nobody's.
    world.host("shop", "db-3", &["10.9.0.7"]);
    assert!(!format!("{:?}", world.changes()).contains("10.9.0.7"));
    world.seen.hosts.objects.clear();
    let changes = world.changes();
    assert!(
        matches!(&changes[..], [Change::Delete { name, version, .. }]
        if name == "outrigger-companion-api" && version == "2"),
        "{changes:?}"
    );
}

#[test]
fn a_companion_goes_with_its_policy_and_another_of_the_name_gets_its_own() {
    let mut world = World::new();
    world.original("shop", "api");
    world.settle();
    world.seen.policies.objects.get_mut(&key("shop", "api")).unwrap().uid = "another".to_owned();
    let changes = world.changes();
    assert!(matches!(&changes[..], [Change::Delete { .. }]), "{changes:?}");
    world.settle();
    let changes = world.changes();
    assert!(matches!(&changes[..], [Change::Create(_)]), "{changes:?}");
    world.settle();
    world.seen.policies.objects.get_mut(&key("shop", "api")).unwrap().ending = true;
    let changes = world.changes();
    assert!(matches!(&changes[..], [Change::Delete { .. }]), "{changes:?}");
}

#[test]
fn what_is_somebody_elses_is_never_written_and_companions_have_none() {
    let mut world = World::new();
    world.original("shop", "api");
    let name = name_of("api");
    world.put(
        json!({"metadata": {"name": name, "namespace": "shop", "uid": "f"}, "spec": {"podSelector": {}}}),
    );
    assert!(world.changes().is_empty());
    let (state, text) = world.note();
    assert!(state == State::NameTaken && text.contains(&name), "{text}");

    // What has the label and no owner is a policy like any other, under each name.
    for name in ["copy".to_owned(), name_of("x")] {
        let mut world = World::new();
        let from = json!([{"podSelector": {}}]);
        world.put(json!({"metadata": {"name": name, "namespace": "shop", "uid": "d",
            "labels": {COMPANION.0: COMPANION.1}}, "spec": {"podSelector": {}, "ingress": [{"from": from}]}}));
        let changes = world.changes();
        let [Change::Create(made)] = &changes[..] else { panic!("{changes:?}") };
        assert_eq!(made.metadata.name, Some(name_of(&name)));
        world.settle();
        assert!(world.changes().is_empty(), "its companion has none");
    }
}

#[test]
fn elsewhere_nothing_is_written() {
    let mut world = World::new();
    world.original("shop", "api");
    world.settle();
    world.config.namespaces = ["lab".to_owned()].into();
    let decided = world.decide();
    assert!(decided.work.is_empty() && decided.notes.is_empty(), "{decided:?}");
    assert_eq!((decided.kept, decided.outside), (0, 1));
}

#[test]
fn masqueraded_addresses_write_nothing_and_say_why() {
    let mut world = World::new();
    world.config.source_addresses = SourceAddresses::Masqueraded;
    world.original("shop", "api");
    world.put(
        json!({"metadata": {"name": "other", "namespace": "shop", "uid": "o"}, "spec": {"podSelector": {}}}),
    );
    assert!(world.changes().is_empty());
    let (state, text) = world.note();
    assert!(state == State::Masqueraded && text.contains("sourceAddresses: masqueraded"), "{text}");
    // What was written before is taken back.
    let mut world = World::new();
    world.original("shop", "api");
    world.settle();
    world.config.source_addresses = SourceAddresses::Masqueraded;
    assert!(matches!(world.changes()[..], [Change::Delete { .. }]));
}

#[test]
fn what_is_too_large_or_cannot_be_read_is_told() {
    let mut world = World::new();
    world.original("shop", "api");
    for number in 2..5 {
        world.host("shop", &format!("db-{number}"), &[&format!("10.9.0.{number}0")]);
    }
    assert!(world.changes().is_empty());
    let (state, text) = world.note();
    assert!(state == State::TooLarge && text.contains("4 ipBlocks") && text.contains("is 3"), "{text}");
    let mut world = World::new();
    world.put(json!({"metadata": {"name": "odd", "namespace": "shop", "uid": "o"},
        "spec": {"podSelector": {}, "constraint": 1}}));
    let (state, text) = world.note();
    assert!(state == State::Unreadable && text.contains("constraint"), "{text}");
}

#[test]
fn while_anything_is_not_known_nothing_is_written() {
    let mut world = World::new();
    world.original("shop", "api");
    world.seen.hosts.lost("externalworkloads is forbidden".to_owned());
    assert!(decide(&world.seen, &world.config).is_none());
    assert_eq!(world.seen.trouble(), "externalworkloads is forbidden");
    assert!(decide(&Seen::default(), &world.config).is_none());
}
