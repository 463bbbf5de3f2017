//! Who holds an underlay address, also after a restart.

use std::net::IpAddr;

use super::*;

fn at(text: &str) -> Vec<IpAddr> {
    vec![text.parse().unwrap()]
}

fn member(store: &Store, called: &str, key_number: u8, underlay: &str, source: Option<&str>) -> Workload {
    let joining = joining(&mint(store, 1), called, key_number);
    let source = source.map(|source| source.parse().unwrap());
    join(store, &Joining { underlay: at(underlay), source, ..joining }).unwrap()
}

fn holder(store: &Store, address: &str) -> WorkloadName {
    let address = address.parse().unwrap();
    let workloads = store.workloads();
    let claimants = workloads.values().filter(|workload| workload.underlay.contains(&address));
    let holder = claimants.min_by_key(|workload| Claim::rank(workload.claims.get(&address)));
    holder.unwrap().name.clone()
}

#[test]
fn the_first_holder_stays_over_a_restart_and_until_it_leaves() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(&folder);
    member(&store, "db2", 2, "192.0.2.1", None);
    member(&store, "db1", 1, "192.0.2.1", None);
    assert_eq!(holder(&store, "192.0.2.1"), name("db2"));
    drop(store);
    let store = open(&folder);
    assert_eq!(holder(&store, "192.0.2.1"), name("db2"));
    // Reporting anew changes nothing, reporting something else lets go.
    let report = |underlay: &str| Report { underlay: at(underlay), source: None, agent_version: "1".into() };
    store.report(&name("db1"), key(1), &report("192.0.2.1")).unwrap();
    assert_eq!(holder(&store, "192.0.2.1"), name("db2"));
    store.report(&name("db2"), key(2), &report("192.0.2.9")).unwrap();
    assert_eq!(holder(&store, "192.0.2.1"), name("db1"));
    store.report(&name("db2"), key(2), &report("192.0.2.1")).unwrap();
    assert_eq!(holder(&store, "192.0.2.1"), name("db1"));
    store.leave(&name("db1"), key(1), unix_time(NOW)).unwrap();
    assert_eq!(holder(&store, "192.0.2.1"), name("db2"));
}

#[test]
fn who_connects_from_an_address_comes_before_who_says_to_have_it() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(&folder);
    member(&store, "squatter", 1, "192.0.2.1", None);
    member(&store, "db1", 2, "192.0.2.1", Some("192.0.2.1"));
    assert_eq!(holder(&store, "192.0.2.1"), name("db1"));
    // A proof that comes later takes nothing from the one that came first.
    let proof =
        Report { underlay: at("192.0.2.1"), source: Some(at("192.0.2.1")[0]), agent_version: "1".into() };
    store.report(&name("squatter"), key(1), &proof).unwrap();
    assert_eq!(holder(&store, "192.0.2.1"), name("db1"));
    assert!(store.workload(&name("squatter")).unwrap().claims[&at("192.0.2.1")[0]].proved);
}

#[test]
fn a_claim_ends_with_the_certificate_where_another_host_waits() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(&folder);
    member(&store, "db1", 1, "192.0.2.1", Some("192.0.2.1"));
    member(&store, "db2", 2, "192.0.2.1", None);
    assert_eq!(store.end_claims(unix_time(NOW + 24 * HOUR - 1)).unwrap(), []);
    assert_eq!(holder(&store, "192.0.2.1"), name("db1"));
    let later = unix_time(NOW + 48 * HOUR);
    store.renew(&name("db2"), key(2), later).unwrap();
    assert_eq!(store.end_claims(unix_time(NOW + 24 * HOUR)).unwrap(), [name("db1")]);
    assert_eq!(holder(&store, "192.0.2.1"), name("db2"));
    // Whoever lost it does not get it back by coming back.
    store.renew(&name("db1"), key(1), later).unwrap();
    assert_eq!(store.end_claims(unix_time(NOW + 24 * HOUR)).unwrap(), []);
    assert_eq!(holder(&store, "192.0.2.1"), name("db2"));
}

#[test]
fn a_lost_answer_costs_nothing_and_serves_nobody_else() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(&folder);
    let minted = mint(&store, 1);
    let first = join(&store, &joining(&minted, "db1", 1)).unwrap();
    let again = join(&store, &joining(&minted, "db1", 1)).unwrap();
    assert_eq!(again, first);
    let check =
        |number| store.check_token(&minted.token.id, &minted.secret, key(number), None, unix_time(NOW));
    assert!(check(1).unwrap().is_ok());
    assert_eq!(check(2).unwrap().unwrap_err().reason(), "token-used");
    // Another key, another machine with the key, another name, another token, another time.
    let refused = |joining: &Joining, now| refusal(join_at(&store, joining, now)).reason();
    assert_eq!(refused(&joining(&minted, "db1", 2), NOW), "token-used");
    let copied = Joining { machine: vec![9; 32], ..joining(&minted, "db1", 1) };
    assert_eq!(refused(&copied, NOW), "token-used");
    assert_eq!(refused(&joining(&minted, "db2", 1), NOW), "token-used");
    assert_eq!(refused(&joining(&mint(&store, 1), "db1", 1), NOW), "name-held");
    assert_eq!(refused(&joining(&minted, "db1", 1), NOW + HOUR), "token-expired");
    store.revoke_token(&minted.token.id).unwrap();
    assert_eq!(refused(&joining(&minted, "db1", 1), NOW), "token-revoked");
    assert_eq!(store.workloads().len(), 1);
}

#[test]
fn a_lost_answer_to_a_replacement_costs_nothing_and_a_left_host_does_not_come_back_by_it() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(&folder);
    join(&store, &joining(&mint(&store, 1), "db1", 1)).unwrap();
    let replacing = bound(&store, "db1");
    let first = join(&store, &joining(&replacing, "db1", 2)).unwrap();
    assert_eq!(join(&store, &joining(&replacing, "db1", 2)).unwrap(), first);
    assert_eq!(first.previous_key, Some(key(1)));
    store.leave(&name("db1"), key(2), unix_time(NOW)).unwrap();
    assert_eq!(refusal(join(&store, &joining(&replacing, "db1", 2))).reason(), "token-used");
}
