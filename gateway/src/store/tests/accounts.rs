//! Cluster nodes that join by the service accounts of their pods.

use super::*;
use crate::store::{TRANSIT_NAMESPACE, Target};

const MINUTE: u64 = 60;

fn transit(node: &str) -> Target {
    Target::TransitNode { node: node.to_owned() }
}

fn asking(target: Target, account: &str, key_number: u8) -> Joining {
    let called = target.cluster_node().unwrap().to_owned();
    Joining {
        proof: Proof::Account { account: account.to_owned(), target },
        name: WorkloadName::try_new(TRANSIT_NAMESPACE, &called).unwrap(),
        key: key(key_number),
        machine: vec![1; 32],
        underlay: vec!["192.0.2.1".parse().unwrap()],
        source: None,
        agent_version: "0.1.0".to_owned(),
        wanted: vec![],
        promised: BTreeSet::new(),
    }
}

#[test]
fn a_node_joins_and_another_disk_takes_its_place_and_addresses() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(&folder);
    let first = join(&store, &asking(transit("node-1"), "mesh/transit", 1)).unwrap();
    assert_eq!(
        (first.name.to_string().as_str(), &first.target),
        ("outrigger-system/node-1", &transit("node-1"))
    );
    assert!(first.joined_by_account() && first.joined_with == "serviceaccount:mesh/transit");
    // The answer was lost.
    let again = join(&store, &asking(transit("node-1"), "mesh/transit", 1)).unwrap();
    assert_eq!((again.key, again.joined_at, again.previous_key), (key(1), first.joined_at, None));

    let second = join_at(&store, &asking(transit("node-1"), "mesh/transit", 2), NOW + 1).unwrap();
    assert_eq!((second.key, second.previous_key), (key(2), Some(key(1))));
    assert_eq!(second.addresses, first.addresses);
    assert!(store.authorise(&second.name, key(1)).is_err(), "the old key is good for something");
    let revoked = refusal(join_at(&store, &asking(transit("node-1"), "mesh/transit", 1), NOW + 2));
    assert_eq!(revoked.reason(), "key-revoked");
    drop(store);
    assert_eq!(*open(&folder).workload(&second.name).unwrap(), second);
}

#[test]
fn two_machines_that_say_to_be_one_node_change_places_once_a_minute_at_most() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(&folder);
    let of = |machine: u8, number: u8| Joining {
        machine: vec![machine; 32],
        ..asking(transit("node-1"), "mesh/transit", number)
    };
    join(&store, &of(1, 1)).unwrap();
    let refused = refusal(join_at(&store, &of(2, 2), NOW + MINUTE - 1));
    assert_eq!(refused.reason(), "place-kept");
    assert!(refused.to_string().contains("two machines say to be this node"), "{refused}");
    let replaced = join_at(&store, &of(2, 2), NOW + MINUTE).unwrap();
    assert_eq!(replaced.previous_key, Some(key(1)));
    assert_eq!(refusal(join_at(&store, &of(1, 3), NOW + MINUTE + 1)).reason(), "place-kept");
    // The machine itself need not wait.
    join_at(&store, &of(2, 4), NOW + MINUTE + 1).unwrap();
}

#[test]
fn another_account_is_another_role_of_the_same_node() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(&folder);
    let minted =
        store.mint(Minting::new(transit("node-1"), Duration::from_hours(1)), unix_time(NOW)).unwrap();
    let by_token = Joining {
        proof: Proof::Token { id: minted.token.id.clone(), secret: minted.secret },
        ..asking(transit("node-1"), "", 1)
    };
    assert!(!join(&store, &by_token).unwrap().joined_by_account());
    let node = Target::Node { node: "node-1".to_owned() };
    let other = join_at(&store, &asking(node.clone(), "mesh/node", 2), NOW + 1).unwrap();
    assert_eq!((other.target, other.previous_key), (node.clone(), Some(key(1))));
    // The same key for another role is no answer that was lost.
    let back = join_at(&store, &asking(transit("node-1"), "mesh/transit", 2), NOW + 2).unwrap();
    assert_eq!(back.target, transit("node-1"));
    // Nobody's token takes the place of a node.
    let minted = store.mint(Minting::new(node, Duration::from_hours(1)), unix_time(NOW)).unwrap();
    let by_token = Joining {
        proof: Proof::Token { id: minted.token.id.clone(), secret: minted.secret },
        ..asking(transit("node-1"), "", 3)
    };
    assert_eq!(refusal(join_at(&store, &by_token, NOW + 3)).reason(), "name-held");
}

#[test]
fn an_account_is_for_its_node_only() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(&folder);
    let elsewhere = Joining { name: name("node-1"), ..asking(transit("node-1"), "mesh/transit", 1) };
    assert_eq!(refusal(join(&store, &elsewhere)).reason(), "namespace");
}
