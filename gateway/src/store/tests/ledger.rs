//! What a ledger is given, and that a store made from it alone goes on as the one before.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

use super::*;
use crate::store::ledger::content;

const POOLS: [&str; 2] = ["10.0.0.0/24", "fd00::/120"];

/// A ledger in memory. As long as it fails it keeps all of a change but the token, which comes last.
#[derive(Debug, Default)]
struct Memory {
    records: Mutex<BTreeMap<RecordKey, Bytes>>,
    fails: AtomicBool,
}

impl Ledger for Memory {
    fn load(&self) -> Result<BTreeMap<RecordKey, Bytes>, LedgerError> {
        Ok(self.records.lock().unwrap().clone())
    }

    fn keep(&self, changes: &Changes) -> Result<(), LedgerError> {
        let fails = self.fails.load(Ordering::Relaxed);
        let mut records = self.records.lock().unwrap();
        for (key, bytes) in changes.iter().filter(|((table, _), _)| !fails || *table != Shared::Tokens) {
            match bytes {
                Some(bytes) => records.insert(key.clone(), bytes.clone()),
                None => records.remove(key),
            };
        }
        if fails { Err(LedgerError("cut off".to_owned())) } else { Ok(()) }
    }

    fn token_id(&self, namespace: &str, random: &str) -> String {
        format!("{namespace}/{random}")
    }
}

pub(super) struct World {
    ledger: Arc<Memory>,
    folder: TempDir,
    pub(super) store: Store,
}

impl World {
    fn new() -> Self {
        Self::new_with(&POOLS)
    }

    /// With addresses of these pools.
    pub(super) fn new_with(pools: &[&str]) -> Self {
        let (ledger, folder) = (Arc::new(Memory::default()), tempfile::tempdir().unwrap());
        let store = opened(&folder, &ledger, pools);
        Self { ledger, folder, store }
    }

    /// On another machine, where no file is.
    fn moved(self) -> Self {
        self.moved_with(&POOLS)
    }

    pub(super) fn moved_with(self, pools: &[&str]) -> Self {
        let Self { ledger, folder, store } = self;
        drop((store, folder));
        let folder = tempfile::tempdir().unwrap();
        let store = opened(&folder, &ledger, pools);
        Self { ledger, folder, store }
    }

    /// What the ledger has.
    pub(super) fn records(&self) -> Vec<RecordKey> {
        self.ledger.records.lock().unwrap().keys().cloned().collect()
    }

    pub(super) fn check(&self) {
        let kept = self.store.read(content).unwrap();
        assert_eq!(kept, *self.ledger.records.lock().unwrap());
    }
}

fn opened(folder: &TempDir, ledger: &Arc<Memory>, pools: &[&str]) -> Store {
    let ledger: Arc<dyn Ledger> = ledger.clone();
    Store::open_with(folder.path(), settings(pools), Some(ledger)).unwrap()
}

#[test]
fn everything_that_must_last_is_in_the_ledger() {
    let world = World::new();
    let (incarnation, trust_domain) = (world.store.incarnation(), TrustDomain::try_new("a.b").unwrap());
    let root = root_id(world.store.authority(&trust_domain, unix_time(NOW)).unwrap().pin());
    world.check();
    let minted = mint(&world.store, 2);
    assert!(minted.token.id.starts_with("shop/"), "{}", minted.token.id);
    world.check();
    let first = join(&world.store, &joining(&minted, "db1", 1)).unwrap();
    join(&world.store, &joining(&minted, "db2", 2)).unwrap();
    world.check();
    join(&world.store, &joining(&bound(&world.store, "db2"), "db2", 3)).unwrap();
    world.store.remove(&name("db2"), unix_time(NOW), "deleted").unwrap();
    world.check();
    let labels: BTreeSet<_> = ["a=1;".to_owned(), "b=2;".to_owned()].into();
    let identities = world.store.assign_identities(&labels, unix_time(NOW)).unwrap();
    world.store.assign_identities(&["a=1;".to_owned()].into(), unix_time(NOW)).unwrap();
    let last = world.store.next_generation().unwrap();
    let relabel = RelabelRecord { previous: 1, mark: 2, owner: None };
    let relabels: RelabelRecords = [("10.0.0.9".to_owned(), relabel)].into();
    world.store.keep_relabels(&RelabelRecords::new(), &relabels).unwrap();
    world.check();

    let world = world.moved();
    world.check();
    assert_eq!(world.store.incarnation(), incarnation);
    assert!(world.store.next_generation().unwrap() > last);
    assert_eq!(root_id(world.store.authority(&trust_domain, unix_time(NOW)).unwrap().pin()), root);
    assert_eq!(*world.store.workload(&name("db1")).unwrap(), first);
    assert_eq!(world.store.workloads().len(), 1);
    assert_eq!(world.store.relabels().unwrap(), relabels);
    assert_eq!(world.store.assign_identities(&labels, unix_time(NOW)).unwrap(), identities);
    // What was revoked stays revoked, what rests rests, and what was used is used.
    let refused = |called, key| refusal(join(&world.store, &joining(&mint(&world.store, 1), called, key)));
    assert!(matches!(refused("db3", 3), JoinRefusal::KeyRevoked { .. }));
    assert!(matches!(refused("db1", 9), JoinRefusal::NameHeld { .. }));
    let third = join(&world.store, &joining(&mint(&world.store, 1), "db3", 4)).unwrap();
    assert_eq!(audit(&third), ["10.0.0.4", "fd00::4"]);
    let used = refusal(join(&world.store, &joining(&minted, "db4", 5)));
    assert_eq!(used.reason(), "token-used");
    world.check();
}

#[test]
fn a_root_that_is_retired_is_gone_from_the_ledger() {
    let world = World::new();
    let trust_domain = TrustDomain::try_new("a.b").unwrap();
    let first = root_id(world.store.authority(&trust_domain, unix_time(NOW)).unwrap().pin());
    let second = pki::Authority::create(&trust_domain, unix_time(NOW)).unwrap();
    world.store.add_root(&second, unix_time(NOW)).unwrap();
    world.store.activate_root(&root_id(second.pin())).unwrap();
    assert!(world.store.remove_root(&first).unwrap());
    world.check();
    let world = world.moved();
    let roots: Vec<_> = world.store.roots(&trust_domain, unix_time(NOW)).unwrap();
    assert_eq!(roots.iter().map(|root| root.id.clone()).collect::<Vec<_>>(), [root_id(second.pin())]);
}

#[test]
fn a_ledger_that_fails_changes_nothing_here() {
    let world = World::new();
    let minted = mint(&world.store, 1);
    world.ledger.fails.store(true, Ordering::Relaxed);
    let failed = join(&world.store, &joining(&minted, "db1", 1)).unwrap_err();
    assert!(failed.to_string().contains("cut off"), "{failed}");
    assert!(world.store.workloads().is_empty());
    world.ledger.fails.store(false, Ordering::Relaxed);
    // The host asks again, and what the ledger has of the first time is no obstacle.
    join(&world.store, &joining(&minted, "db1", 1)).unwrap();
    world.check();
}

#[test]
fn what_is_found_out_again_is_no_news_for_the_ledger() {
    let world = World::new();
    join(&world.store, &joining(&mint(&world.store, 1), "db1", 1)).unwrap();
    let before = world.ledger.load().unwrap();
    world.ledger.fails.store(true, Ordering::Relaxed);
    let report = Report {
        underlay: vec!["192.0.2.7".parse().unwrap()],
        source: None,
        agent_version: "0.2.0".to_owned(),
    };
    world.store.report(&name("db1"), key(1), &report).unwrap();
    world.store.renew(&name("db1"), key(1), unix_time(NOW + 24 * HOUR)).unwrap();
    world.store.seen(&[name("db1")], unix_time(NOW)).unwrap();
    assert_eq!(world.ledger.load().unwrap(), before);
}

/// A host as another store recorded it.
fn recorded(called: &str, key_number: u8, address: &str) -> Workload {
    let world = World::new();
    let joined = join(&world.store, &joining(&mint(&world.store, 1), called, key_number)).unwrap();
    Workload { addresses: vec![address.parse().unwrap()], ..joined }
}

#[test]
fn a_host_is_taken_from_the_ledger_if_it_may() {
    let world = World::new();
    let old = recorded("db1", 1, "10.0.0.2");
    assert_eq!(world.store.take(old.clone()).unwrap(), Import::Taken);
    assert_eq!(world.store.take(old.clone()).unwrap(), Import::Known);
    world.store.authorise(&name("db1"), key(1)).unwrap();
    let refusal = |workload| match world.store.take(workload).unwrap() {
        Import::Refused(refusal) => refusal,
        other @ (Import::Known | Import::Taken) => panic!("{other:?}"),
    };
    assert_eq!(refusal(recorded("db2", 2, "10.0.0.2")), ImportRefusal::Held(name("db1")));
    assert_eq!(refusal(recorded("db2", 1, "10.0.0.3")), ImportRefusal::Held(name("db1")));
    assert_eq!(
        refusal(recorded("db2", 2, "192.0.2.2")),
        ImportRefusal::Outside("192.0.2.2".parse().unwrap())
    );
    // Only a gateway changes what is known.
    assert_eq!(world.store.take(recorded("db1", 7, "10.0.0.2")).unwrap(), Import::Known);
    assert_eq!(world.store.workload(&name("db1")).unwrap().key, key(1));
    world.store.remove(&name("db1"), unix_time(NOW), "deleted").unwrap();
    assert!(matches!(refusal(old), ImportRefusal::Revoked { .. }), "an old version of the object");
}

#[test]
fn what_the_ledger_lost_is_written_again() {
    let world = World::new();
    join(&world.store, &joining(&mint(&world.store, 1), "db1", 1)).unwrap();
    let before = world.ledger.load().unwrap();
    world.ledger.records.lock().unwrap().remove(&(Shared::Workloads, "shop/db1".to_owned())).unwrap();
    assert!(world.store.keep_again(&name("db1")).unwrap());
    assert_eq!(world.ledger.load().unwrap(), before);
    assert!(!world.store.keep_again(&name("db2")).unwrap(), "nobody knows it");
}

#[test]
fn uses_of_a_token_only_grow_and_it_stays_revoked() {
    let world = World::new();
    let minted = mint(&world.store, 2);
    join(&world.store, &joining(&minted, "db1", 1)).unwrap();
    // An older version of the object, from before the host joined.
    world.store.take_token(&minted.token).unwrap();
    let token = world.store.tokens().unwrap().remove(0);
    assert_eq!((token.uses_left, token.used_by), (1, vec![name("db1")]));
    world.store.revoke_token(&minted.token.id).unwrap();
    world.store.take_token(&minted.token).unwrap();
    assert!(world.store.tokens().unwrap()[0].revoked);
    world.store.forget_token(&minted.token.id).unwrap();
    let refused = refusal(join(&world.store, &joining(&minted, "db2", 2)));
    assert_eq!(refused.reason(), "token-unknown");
}

#[test]
fn a_token_is_for_hosts_that_come_from_its_prefixes() {
    let world = World::new();
    let minting = Minting {
        target: group(),
        bound_to: None,
        ttl: Duration::from_hours(1),
        uses: 9,
        source_prefixes: vec!["192.0.2.0/24".parse().unwrap(), "2001:db8::/32".parse().unwrap()],
        ephemeral: true,
    };
    let minted = world.store.mint(minting, unix_time(NOW)).unwrap();
    let from = |called, key, source: Option<&str>| {
        let source = source.map(|source| source.parse().unwrap());
        join(&world.store, &Joining { source, ..joining(&minted, called, key) })
    };
    assert!(from("db1", 1, Some("192.0.2.77")).unwrap().ephemeral);
    from("db2", 2, Some("2001:db8::1")).unwrap();
    for elsewhere in [Some("198.51.100.1"), Some("2001:db9::1"), None] {
        let refused = refusal(from("db3", 3, elsewhere));
        assert_eq!(refused.reason(), "token-source", "{refused}");
    }
}
