//! The store: every refusal, what lasts over a restart, and that failures leave nothing behind.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Barrier;
use std::time::Duration;

use pki::{KeyHash, TrustDomain};
use tempfile::TempDir;
use zeroize::Zeroizing;

use super::*;

mod accounts;
mod churn;
mod claims;
mod ledger;

const HOUR: u64 = 3600;
const NOW: u64 = 1_000_000;

fn settings(pools: &[&str]) -> Settings {
    let pools: Vec<_> = pools.iter().map(|pool| pool.parse().unwrap()).collect();
    Settings { pools: Pools::try_new(&pools).unwrap(), cluster_id: 0, quarantine: Duration::from_hours(24) }
}

fn open(folder: &TempDir) -> Store {
    Store::open(folder.path(), settings(&["10.0.0.0/24", "fd00::/120"])).unwrap()
}

fn group() -> Target {
    Target::Group { namespace: "shop".to_owned(), name: "db".to_owned() }
}

fn name(name: &str) -> WorkloadName {
    WorkloadName::try_new("shop", name).unwrap()
}

fn key(number: u8) -> KeyHash {
    KeyHash::of_spki(&[number])
}

fn mint(store: &Store, uses: u32) -> Minted {
    let minting = Minting { uses, ..Minting::new(group(), Duration::from_hours(1)) };
    store.mint(minting, unix_time(NOW)).unwrap()
}

fn bound(store: &Store, to: &str) -> Minted {
    let minting = Minting { bound_to: Some(name(to)), ..Minting::new(group(), Duration::from_hours(1)) };
    store.mint(minting, unix_time(NOW)).unwrap()
}

fn joining(minted: &Minted, called: &str, key_number: u8) -> Joining {
    Joining {
        proof: Proof::Token { id: minted.token.id.clone(), secret: minted.secret.clone() },
        name: name(called),
        key: key(key_number),
        machine: vec![key_number; 32],
        underlay: vec!["192.0.2.1".parse().unwrap()],
        source: None,
        agent_version: "0.1.0".to_owned(),
        wanted: vec![],
        promised: BTreeSet::new(),
    }
}

fn join_at(store: &Store, joining: &Joining, now: u64) -> Result<Workload, JoinError> {
    store.join(joining, unix_time(NOW + 24 * HOUR), unix_time(now))
}

fn join(store: &Store, joining: &Joining) -> Result<Workload, JoinError> {
    join_at(store, joining, NOW)
}

fn refusal(result: Result<Workload, JoinError>) -> JoinRefusal {
    match result.unwrap_err() {
        JoinError::Refused(refusal) => refusal,
        other @ JoinError::Store(_) => panic!("{other}"),
    }
}

#[test]
fn a_join_gives_addresses_and_uses_the_token() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(&folder);
    let mut watched = store.watch_workloads();
    let minted = mint(&store, 1);
    let workload = join(&store, &joining(&minted, "db1", 1)).unwrap();
    assert_eq!(audit(&workload), ["10.0.0.2", "fd00::2"]);
    assert!(watched.has_changed().unwrap());
    assert_eq!(*watched.borrow_and_update()[&name("db1")], workload);
    let token = store.tokens().unwrap().remove(0);
    assert_eq!((token.uses_left, token.used_by), (0, vec![name("db1")]));
    // All of it lasts.
    drop(store);
    assert_eq!(*open(&folder).workload(&name("db1")).unwrap(), workload);
}

fn audit(workload: &Workload) -> Vec<String> {
    workload.addresses.iter().map(ToString::to_string).collect()
}

#[test]
fn every_unusable_token_is_told_apart() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(&folder);
    let minted = mint(&store, 1);
    let with = |id: &str, secret: &[u8]| Joining {
        proof: Proof::Token { id: id.to_owned(), secret: Zeroizing::new(secret.to_vec()) },
        ..joining(&minted, "db1", 1)
    };
    let refused = |joining: &Joining, now| {
        let JoinRefusal::Token(refusal) = refusal(join_at(&store, joining, now)) else {
            panic!("it is not the token that is refused")
        };
        refusal.reason()
    };
    assert_eq!(refused(&with("nothing", &minted.secret), NOW), "token-unknown");
    assert_eq!(refused(&with(&minted.token.id, &[0; 32]), NOW), "token-secret");
    assert_eq!(refused(&with(&minted.token.id, &minted.secret[..31]), NOW), "token-secret");
    assert_eq!(refused(&joining(&minted, "db1", 1), NOW + HOUR), "token-expired");
    join_at(&store, &joining(&minted, "db1", 1), NOW + HOUR - 1).unwrap();
    assert_eq!(refused(&joining(&minted, "db2", 2), NOW), "token-used");
    let revoked = mint(&store, 1);
    assert!(store.revoke_token(&revoked.token.id).unwrap().unwrap().revoked);
    assert_eq!(refused(&joining(&revoked, "db3", 3), NOW), "token-revoked");
    // Who has not the secret learns nothing about the token.
    assert_eq!(refused(&with(&revoked.token.id, &[0; 32]), NOW), "token-secret");
    assert!(store.revoke_token("nothing").unwrap().is_none());
}

#[test]
fn secrets_are_not_in_the_file() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(&folder);
    let minted = mint(&store, 1);
    drop(store);
    let file = std::fs::read(folder.path().join(FILE)).unwrap();
    let holds = |bytes: &[u8]| file.windows(bytes.len()).any(|window| window == bytes);
    assert!(holds(minted.token.id.as_bytes()));
    assert!(!holds(&minted.secret) && !holds(hex::encode(&*minted.secret).as_bytes()));
}

#[test]
fn of_a_hundred_joins_at_once_one_succeeds() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(&folder);
    let minted = mint(&store, 1);
    let barrier = Barrier::new(100);
    let joined = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..100)
            .map(|number: u8| {
                let (store, minted, barrier) = (&store, &minted, &barrier);
                scope.spawn(move || {
                    barrier.wait();
                    join(store, &joining(minted, &format!("db{number}"), number)).is_ok()
                })
            })
            .collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).filter(|joined| *joined).count()
    });
    assert_eq!(joined, 1);
    assert_eq!(store.workloads().len(), 1);
    assert_eq!(store.tokens().unwrap()[0].used_by.len(), 1);
}

#[test]
fn a_held_name_is_refused_with_when_its_holder_was_seen() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(&folder);
    join(&store, &joining(&mint(&store, 1), "db1", 1)).unwrap();
    store.seen(&[name("db1")], unix_time(NOW + 5)).unwrap();
    let second = mint(&store, 1);
    let refused = refusal(join(&store, &joining(&second, "db1", 2)));
    assert_eq!(refused, JoinRefusal::NameHeld { name: name("db1"), last_seen: unix_time(NOW + 5) });
    assert!(refused.to_string().contains("shop/db1"));
    // The token was not used up.
    join(&store, &joining(&second, "db2", 2)).unwrap();
}

#[test]
fn a_bound_token_takes_the_name_and_addresses_over_and_revokes_the_old_key() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(&folder);
    let old = join(&store, &joining(&mint(&store, 1), "db1", 1)).unwrap();
    let minted = bound(&store, "db1");
    let elsewhere = refusal(join(&store, &joining(&minted, "db2", 2)));
    assert!(matches!(elsewhere, JoinRefusal::Bound { .. }));
    let new = join(&store, &joining(&minted, "db1", 2)).unwrap();
    assert_eq!(new.addresses, old.addresses);
    assert_eq!(new.previous_key, Some(key(1)));
    assert!(store.authorise(&name("db1"), key(2)).is_ok());
    let refused = store.authorise(&name("db1"), key(1)).unwrap_err().to_string();
    assert!(refused.contains("replaced"), "{refused}");
    // The old key never comes back, under no name.
    let again = refusal(join(&store, &joining(&mint(&store, 1), "db3", 1)));
    assert!(matches!(again, JoinRefusal::KeyRevoked { .. }));
}

#[test]
fn a_bound_token_of_a_deleted_workload_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(&folder);
    join(&store, &joining(&mint(&store, 1), "db1", 1)).unwrap();
    let minted = bound(&store, "db1");
    store.remove(&name("db1"), unix_time(NOW), "deleted").unwrap();
    assert_eq!(refusal(join(&store, &joining(&minted, "db1", 2))), JoinRefusal::Gone(name("db1")));
    // Who has the name next is not the one that was to be replaced.
    join(&store, &joining(&mint(&store, 1), "db1", 3)).unwrap();
    assert_eq!(refusal(join(&store, &joining(&minted, "db1", 2))), JoinRefusal::Gone(name("db1")));
    assert!(store.authorise(&name("db1"), key(3)).is_ok());
}

#[test]
fn a_replaced_host_changes_nothing_of_its_successor() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(&folder);
    let old = join(&store, &joining(&mint(&store, 1), "db1", 1)).unwrap();
    let (first, second) = (bound(&store, "db1"), bound(&store, "db1"));
    join(&store, &joining(&first, "db1", 2)).unwrap();
    let report =
        Report { underlay: vec!["192.0.2.66".parse().unwrap()], source: None, agent_version: "0".to_owned() };
    assert!(store.report(&name("db1"), key(1), &report).is_err());
    assert!(store.leave(&name("db1"), key(1), unix_time(NOW)).is_err());
    assert_eq!(refusal(join(&store, &joining(&second, "db1", 3))), JoinRefusal::Gone(name("db1")));
    assert_eq!(store.workload(&name("db1")).unwrap().underlay, old.underlay);
    store.leave(&name("db1"), key(2), unix_time(NOW)).unwrap();
    assert!(store.workload(&name("db1")).is_none());
}

#[test]
fn one_key_is_one_workload_and_a_token_stays_in_its_namespace() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(&folder);
    let minted = mint(&store, 5);
    join(&store, &joining(&minted, "db1", 1)).unwrap();
    assert_eq!(refusal(join(&store, &joining(&minted, "db2", 1))), JoinRefusal::KeyHeld(name("db1")));
    let elsewhere = WorkloadName::try_new("bank", "db").unwrap();
    let foreign = Joining { name: elsewhere, ..joining(&minted, "x", 3) };
    assert!(matches!(refusal(join(&store, &foreign)), JoinRefusal::Namespace { .. }));
}

#[test]
fn a_join_that_is_only_looked_at_changes_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(&folder);
    let minted = mint(&store, 1);
    store.check_join(&joining(&minted, "db1", 1), unix_time(NOW)).unwrap();
    assert!(store.workloads().is_empty());
    assert_eq!(store.tokens().unwrap()[0].uses_left, 1);
    let again = join(&store, &joining(&minted, "db1", 1)).unwrap();
    assert_eq!(audit(&again)[0], "10.0.0.2");
    let refused = store.check_join(&joining(&mint(&store, 1), "db1", 2), unix_time(NOW)).unwrap_err();
    assert!(matches!(refused, JoinError::Refused(JoinRefusal::NameHeld { .. })), "{refused}");
}

#[test]
fn an_exhausted_pool_is_named_and_uses_no_token() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(folder.path(), settings(&["10.0.0.0/30"])).unwrap();
    let minted = mint(&store, 2);
    join(&store, &joining(&minted, "db1", 1)).unwrap();
    let refused = refusal(join(&store, &joining(&minted, "db2", 2)));
    assert!(refused.to_string().contains("10.0.0.0/30"), "{refused}");
    assert_eq!(store.tokens().unwrap()[0].uses_left, 1);
}

#[test]
fn addresses_rest_for_others_and_come_back_to_their_holder() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(&folder);
    let minted = mint(&store, 9);
    join(&store, &joining(&minted, "db1", 1)).unwrap();
    store.remove(&name("db1"), unix_time(NOW), "left").unwrap();
    assert_eq!(audit(&join(&store, &joining(&minted, "db2", 2)).unwrap())[0], "10.0.0.3");
    assert_eq!(audit(&join(&store, &joining(&minted, "db1", 3)).unwrap())[0], "10.0.0.2");
    store.remove(&name("db1"), unix_time(NOW), "left").unwrap();
    let later = NOW + 24 * HOUR;
    let fresh = store.mint(Minting::new(group(), Duration::from_hours(1)), unix_time(later));
    let third = join_at(&store, &joining(&fresh.unwrap(), "db3", 4), later).unwrap();
    assert_eq!(audit(&third)[0], "10.0.0.2");
}

#[test]
fn declared_addresses_are_given_or_refused() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(&folder);
    let minted = mint(&store, 9);
    let wanting = |called: &str, number: u8, address: &str| Joining {
        wanted: vec![address.parse().unwrap()],
        ..joining(&minted, called, number)
    };
    let workload = join(&store, &wanting("db1", 1, "10.0.0.77")).unwrap();
    assert_eq!(audit(&workload), ["10.0.0.77", "fd00::2"]);
    let held = refusal(join(&store, &wanting("db2", 2, "10.0.0.77")));
    assert!(held.to_string().contains("shop/db1"), "{held}");
    let outside = refusal(join(&store, &wanting("db2", 2, "192.0.2.1")));
    assert!(outside.to_string().contains("192.0.2.1"), "{outside}");
}

#[test]
fn what_is_declared_for_others_is_given_to_nobody_else() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(&folder);
    let minted = mint(&store, 9);
    let promised = ["10.0.0.2", "fd00::3"].map(|address| address.parse().unwrap());
    let beside =
        |called: &str, number: u8| Joining { promised: promised.into(), ..joining(&minted, called, number) };
    assert_eq!(audit(&join(&store, &beside("db1", 1)).unwrap()), ["10.0.0.3", "fd00::2"]);
    assert_eq!(audit(&join(&store, &beside("db2", 2)).unwrap()), ["10.0.0.4", "fd00::4"]);
    let wanted = Joining { wanted: promised.to_vec(), ..joining(&minted, "db3", 3) };
    assert_eq!(audit(&join(&store, &wanted).unwrap()), ["10.0.0.2", "fd00::3"]);
    // What rests for one who left, and is declared for another one since, is that one's.
    store.remove(&name("db1"), unix_time(NOW), "left").unwrap();
    let again = Joining { promised: ["10.0.0.3".parse().unwrap()].into(), ..joining(&minted, "db1", 4) };
    assert_eq!(audit(&join(&store, &again).unwrap()), ["10.0.0.5", "fd00::2"]);
}

#[test]
fn only_the_recorded_key_renews() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(&folder);
    join(&store, &joining(&mint(&store, 1), "db1", 1)).unwrap();
    let expires = unix_time(NOW + 48 * HOUR);
    store.renew(&name("db1"), key(1), expires).unwrap();
    assert_eq!(store.workload(&name("db1")).unwrap().certificate_expires, NOW + 48 * HOUR);
    let reason = |name: &WorkloadName, key| match store.renew(name, key, expires).unwrap_err() {
        WorkloadError::Refused(refusal) => refusal.reason(),
        other @ WorkloadError::Store(_) => panic!("{other}"),
    };
    assert_eq!(reason(&name("db1"), key(2)), "key-foreign");
    assert_eq!(reason(&name("db2"), key(2)), "workload-unknown");
    store.remove(&name("db1"), unix_time(NOW), "deleted").unwrap();
    assert_eq!(reason(&name("db1"), key(1)), "key-revoked");
    assert!(store.remove(&name("db1"), unix_time(NOW), "deleted").is_err());
}

#[test]
fn reports_are_published_when_they_change_something() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(&folder);
    join(&store, &joining(&mint(&store, 1), "db1", 1)).unwrap();
    let mut watched = store.watch_workloads();
    let same = Report {
        underlay: vec!["192.0.2.1".parse().unwrap()],
        source: None,
        agent_version: "0.1.0".to_owned(),
    };
    store.report(&name("db1"), key(1), &same).unwrap();
    assert!(!watched.has_changed().unwrap());
    let moved = Report { underlay: vec!["192.0.2.9".parse().unwrap()], ..same };
    store.report(&name("db1"), key(1), &moved).unwrap();
    assert_eq!(watched.borrow_and_update()[&name("db1")].underlay, moved.underlay);
    assert!(store.report(&name("db2"), key(1), &moved).is_err());
    drop(store);
    assert_eq!(open(&folder).workload(&name("db1")).unwrap().underlay, moved.underlay);
}

#[test]
fn generations_never_go_back() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(&folder);
    let numbers: Vec<u64> = (0..3000).map(|_| store.next_generation().unwrap()).collect();
    assert!(numbers.windows(2).all(|pair| pair[0] < pair[1]));
    let incarnation = store.incarnation();
    drop(store);
    let store = open(&folder);
    assert!(store.next_generation().unwrap() > numbers[2999]);
    assert_eq!(store.incarnation(), incarnation);
    let other = tempfile::tempdir().unwrap();
    assert_ne!(open(&other).incarnation(), incarnation);
}

#[test]
fn identities_keep_their_number_and_rest_before_reuse() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(&folder);
    let set = |labels: &[&str]| labels.iter().map(|labels| (*labels).to_owned()).collect::<BTreeSet<_>>();
    let assign = |store: &Store, labels: &[&str], now: u64| {
        let numbers = store.assign_identities(&set(labels), unix_time(now)).unwrap();
        numbers.into_iter().map(|(labels, number)| (labels, number.get())).collect::<BTreeMap<_, _>>()
    };
    let first = assign(&store, &["a", "b"], NOW);
    assert_eq!(first.values().copied().collect::<Vec<_>>(), [256, 257]);
    // `a` goes, and its number rests.
    assert_eq!(assign(&store, &["b", "c"], NOW)["c"], 258);
    // It comes back within the quarantine to the same number.
    assert_eq!(assign(&store, &["a", "b", "c"], NOW + HOUR)["a"], 256);
    assign(&store, &["b", "c"], NOW + HOUR);
    drop(store);
    let store = open(&folder);
    assert_eq!(assign(&store, &["b", "c", "d"], NOW + 24 * HOUR)["d"], 259);
    assert_eq!(assign(&store, &["b", "c", "d", "e"], NOW + 25 * HOUR)["e"], 256);
}

#[test]
fn the_cluster_is_part_of_every_identity() {
    let folder = tempfile::tempdir().unwrap();
    let settings = Settings { cluster_id: 7, ..settings(&["10.0.0.0/24"]) };
    let store = Store::open(folder.path(), settings).unwrap();
    let numbers = store.assign_identities(&["a".to_owned()].into(), unix_time(NOW)).unwrap();
    assert_eq!(numbers["a"].get(), (7 << 16) | 256);
}

#[test]
fn objects_are_kept_and_forgotten() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(&folder);
    let changes = |entries: &[(&str, Option<&str>)]| {
        entries
            .iter()
            .map(|(key, value)| ((*key).to_owned(), value.map(Into::into)))
            .collect::<BTreeMap<_, _>>()
    };
    store.keep_objects(&changes(&[("a", Some("1")), ("b", Some("2"))])).unwrap();
    store.keep_objects(&changes(&[("a", None), ("b", Some("3"))])).unwrap();
    drop(store);
    assert_eq!(open(&folder).kept_objects().unwrap(), BTreeMap::from([("b".to_owned(), b"3".to_vec())]));
}

#[test]
fn the_root_is_made_once_and_belongs_to_its_trust_domain() {
    let folder = tempfile::tempdir().unwrap();
    let domain = TrustDomain::try_new("outrigger.local").unwrap();
    let store = open(&folder);
    let pin = store.authority(&domain, unix_time(NOW)).unwrap().pin();
    drop(store);
    let store = open(&folder);
    assert_eq!(store.authority(&domain, unix_time(NOW + 1)).unwrap().pin(), pin);
    let elsewhere = TrustDomain::try_new("elsewhere").unwrap();
    let error = store.authority(&elsewhere, unix_time(NOW)).err().unwrap();
    assert!(error.to_string().contains("elsewhere"), "{error}");
}

#[test]
fn old_tokens_and_revoked_keys_are_forgotten() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(&folder);
    join(&store, &joining(&mint(&store, 1), "db1", 1)).unwrap();
    store.remove(&name("db1"), unix_time(NOW), "deleted").unwrap();
    let keep = Duration::from_hours(48);
    store.tidy(unix_time(NOW + 48 * HOUR), keep).unwrap();
    assert_eq!(store.tokens().unwrap().len(), 1);
    store.tidy(unix_time(NOW + 50 * HOUR), keep).unwrap();
    assert!(store.tokens().unwrap().is_empty());
    assert!(matches!(
        store.authorise(&name("db1"), key(1)),
        Err(WorkloadError::Refused(RenewRefusal::Unknown(_)))
    ));
}

#[test]
fn a_store_is_opened_once_and_read_by_nobody_else() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(&folder);
    let second = Store::open(folder.path(), settings(&["10.0.0.0/24"])).err().unwrap();
    assert!(matches!(second, OpenError::InUse { .. }), "{second}");
    let mode = std::fs::metadata(folder.path().join(FILE)).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    drop(store);
}

#[test]
fn what_is_no_store_is_refused_and_stays_as_it_is() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(FILE);
    let garbage = vec![0xa5; 100_000];
    std::fs::write(&path, &garbage).unwrap();
    let error = Store::open(folder.path(), settings(&["10.0.0.0/24"])).err().unwrap();
    assert!(error.to_string().contains("gateway.redb"), "{error}");
    assert_eq!(std::fs::read(&path).unwrap(), garbage);
}

#[test]
fn a_newer_format_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(&folder);
    store
        .write(|transaction| {
            transaction.open_table(table::NUMBERS)?.insert("format", FORMAT + 1)?;
            Ok::<_, StoreError>(())
        })
        .unwrap();
    drop(store);
    let error = Store::open(folder.path(), settings(&["10.0.0.0/24"])).err().unwrap();
    assert!(matches!(error, OpenError::Newer { found: 2, .. }), "{error}");
}
