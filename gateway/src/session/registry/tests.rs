use super::*;
use crate::store::{Target, Workload};

fn name() -> WorkloadName {
    "shop/db-1".parse().unwrap()
}

fn key(number: u8) -> KeyHash {
    KeyHash::of_spki(&[number])
}

fn workload(number: u8) -> Workload {
    Workload {
        name: format!("shop/db-{number}").parse().unwrap(),
        target: Target::TransitNode { node: "one".into() },
        key: key(number),
        previous_key: None,
        machine: String::new(),
        addresses: Vec::new(),
        underlay: Vec::new(),
        claims: BTreeMap::new(),
        agent_version: String::new(),
        joined_at: 0,
        joined_with: String::new(),
        certificate_expires: 0,
        ephemeral: false,
    }
}

fn generation(counter: u64) -> Generation {
    Generation { incarnation: 7, counter, origin: 0 }
}

#[test]
fn a_second_machine_is_refused_and_both_are_reported() {
    let registry = Arc::new(Registry::default());
    let session = registry.begin(&name(), key(1), b"one", None).unwrap();
    let refused = registry.begin(&name(), key(1), b"two", None).unwrap_err();
    assert!(refused.to_string().starts_with("DuplicateHost: "), "{refused}");
    assert_eq!(registry.status(&name()).duplicate, Some(refused));
    assert!(registry.status(&name()).connected);
    drop(session);
    assert!(registry.begin(&name(), key(1), b"two", None).is_ok());
}

#[tokio::test]
async fn whoever_is_no_workload_any_more_is_ended() {
    let registry = Arc::new(Registry::default());
    let [kept, replaced, deleted] = [1, 2, 3].map(|number| Arc::new(workload(number)));
    let begin = |workload: &Workload| registry.begin(&workload.name, workload.key, b"one", None).unwrap();
    let sessions = [&kept, &replaced, &deleted].map(|workload| begin(workload));
    let other = Arc::new(Workload { key: key(9), ..(*replaced).clone() });
    let now = [kept, other].map(|workload| (workload.name.clone(), workload));
    registry.end_revoked(&Workloads::from(now));
    assert_eq!(sessions.each_ref().map(Session::is_replaced), [false, true, true]);
    assert_eq!(sessions[1].ended().await, Ended::Revoked);
}

#[tokio::test]
async fn a_replaced_host_does_not_keep_its_successor_out() {
    let registry = Arc::new(Registry::default());
    let old = registry.begin(&name(), key(1), b"one", None).unwrap();
    let new = registry.begin(&name(), key(2), b"two", None).unwrap();
    assert_eq!(old.ended().await, Ended::Replaced);
    drop(old);
    assert!(registry.status(&name()).connected);
    drop(new);
}

#[tokio::test]
async fn the_same_machine_replaces_its_session_and_the_end_of_the_old_one_changes_nothing() {
    let registry = Arc::new(Registry::default());
    let old = registry.begin(&name(), key(1), b"one", None).unwrap();
    let new = registry.begin(&name(), key(1), b"one", Some(generation(3))).unwrap();
    assert_eq!(old.ended().await, Ended::Replaced);
    old.acknowledged(generation(9));
    drop(old);
    let status = registry.status(&name());
    assert!(status.connected);
    assert_eq!(status.applied, Some(generation(3)));
    drop(new);
    assert!(!registry.status(&name()).connected);
}

#[test]
fn the_slowest_agent_counts_until_it_is_given_up() {
    let registry = Arc::new(Registry::default());
    let now = Instant::now();
    assert_eq!(registry.acknowledged(7, now), None);
    let one = registry.begin(&name(), key(1), b"one", Some(generation(5))).unwrap();
    assert_eq!(registry.acknowledged(7, now), Some(5));
    assert_eq!(registry.acknowledged(8, now), Some(0));
    let two = registry.begin(&"shop/db-2".parse().unwrap(), key(1), b"two", None).unwrap();
    assert_eq!(registry.acknowledged(7, now), Some(0));
    two.acknowledged(generation(6));
    assert_eq!(registry.acknowledged(7, now), Some(5));
    drop(one);
    assert_eq!(registry.acknowledged(7, now), Some(5), "its host goes on with what it has");
    assert_eq!(registry.acknowledged(7, Instant::now() + COMES_BACK), Some(6));
    registry.retain(|_| false);
    assert_eq!(registry.acknowledged(7, now), Some(6), "it was deleted");
}

#[test]
fn after_a_restart_every_workload_counts_until_it_is_given_up() {
    let registry = Arc::new(Registry::default());
    let now = Instant::now();
    let other: WorkloadName = "shop/db-2".parse().unwrap();
    registry.expect([&name(), &other].into_iter(), now);
    assert_eq!(registry.acknowledged(7, now), Some(0));
    let _one = registry.begin(&name(), key(1), b"one", Some(generation(5))).unwrap();
    assert_eq!(registry.acknowledged(7, now + COMES_BACK / 2), Some(0), "the other one's host goes on");
    let two = registry.begin(&other, key(1), b"two", Some(generation(5))).unwrap();
    assert_eq!(registry.acknowledged(7, now), Some(5));
    drop(two);
    registry.expect([&other].into_iter(), now);
    assert_eq!(registry.acknowledged(7, now + COMES_BACK), Some(5), "it does not come back");
}

#[test]
fn a_refusal_stays_until_something_is_applied() {
    let registry = Arc::new(Registry::default());
    let session = registry.begin(&name(), key(1), b"one", Some(generation(5))).unwrap();
    let rejection = Rejection { generation: generation(6), reason: "route".into() };
    session.refused(rejection.clone());
    assert_eq!(registry.status(&name()).rejected, Some(rejection));
    assert_eq!(registry.status(&name()).applied, Some(generation(5)));
    session.acknowledged(generation(7));
    assert_eq!(registry.status(&name()).rejected, None);
}
