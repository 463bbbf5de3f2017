//! Hosts that come and go until every address and every number was somebody else's: nothing of who left stays.

use policy::identity::Identity;

use super::ledger::World;
use super::*;

/// Between two cycles: with the addresses of the pool, each is another host's before it has rested a second time.
const PACE: u64 = 2 * HOUR;
/// How long keys and tokens of who left are kept.
const KEPT: Duration = Duration::from_hours(48);

/// A few cycles, or all of them with `OUTRIGGER_LONG`.
fn cycles() -> u64 {
    if std::env::var_os("OUTRIGGER_LONG").is_some() { 1000 } else { 60 }
}

#[test]
fn hosts_that_come_and_go_leave_nothing_behind() {
    let mut world = World::new_with(&["10.0.0.0/27", "fd00::/120"]);
    let mut now = NOW;
    let mut holders: BTreeMap<String, Vec<u64>> = BTreeMap::new();
    let mut numbered: BTreeMap<Identity, BTreeSet<String>> = BTreeMap::new();
    let stays = join(&world.store, &joining(&mint(&world.store, 1), "stays", 0)).unwrap();
    for cycle in 0..cycles() {
        now += PACE;
        let called = format!("host-{cycle}");
        let minted =
            world.store.mint(Minting::new(group(), Duration::from_hours(1)), unix_time(now)).unwrap();
        let asked = Joining {
            name: name(&called),
            key: KeyHash::of_spki(&cycle.to_be_bytes()),
            ..joining(&minted, &called, 0)
        };
        let host = join_at(&world.store, &asked, now).unwrap();
        assert!(host.addresses.iter().all(|address| !stays.addresses.contains(address)), "{host:?}");
        for address in &host.addresses {
            let before = holders.entry(address.to_string()).or_default();
            let rested = before.last().is_none_or(|left| now - left >= 24 * HOUR);
            assert!(rested, "{address} of {called} is given to another one after {before:?}, at {now}");
            before.push(now);
        }
        let labels = BTreeSet::from(["app=stays;".to_owned(), format!("app={called};")]);
        for (labels, number) in world.store.assign_identities(&labels, unix_time(now)).unwrap() {
            numbered.entry(number).or_default().insert(labels);
        }
        // The gateway that a host leaves is now and then another one than it joined.
        if cycle % 20 == 7 {
            world = world.moved_with(&["10.0.0.0/27", "fd00::/120"]);
        }
        world.store.remove(&name(&called), unix_time(now), "left").unwrap();
        world.store.assign_identities(&["app=stays;".to_owned()].into(), unix_time(now)).unwrap();
        world.store.tidy(unix_time(now), KEPT).unwrap();
    }
    assert!(holders.values().any(|given| given.len() > 1), "no address was given again");
    assert!(numbered.values().any(|labels| labels.len() > 1), "no number was given again");
    world.check();
    // What rests and what is kept is of the last hours, however many there were.
    let kept = tables(&world);
    assert_eq!(kept.get(&Shared::Workloads), Some(&1), "{kept:?}");
    for (table, most) in [
        (Shared::Identities, 14),
        (Shared::RestingAddresses, 28),
        (Shared::RevokedKeys, 26),
        (Shared::Tokens, 27),
    ] {
        assert!(kept.get(&table).is_none_or(|count| *count <= most), "{table:?}: {kept:?}");
    }
    forgets_in_time(&world, now);
}

/// And then nothing of it is left.
fn forgets_in_time(world: &World, now: u64) {
    let now = now + 100 * HOUR;
    world.store.tidy(unix_time(now), KEPT).unwrap();
    world.store.assign_identities(&["app=stays;".to_owned()].into(), unix_time(now)).unwrap();
    let minted = world.store.mint(Minting::new(group(), Duration::from_hours(1)), unix_time(now)).unwrap();
    join_at(&world.store, &joining(&minted, "last", 9), now).unwrap();
    let left = tables(world);
    assert_eq!(left.get(&Shared::Workloads), Some(&2), "{left:?}");
    assert_eq!(left.get(&Shared::Identities), Some(&1), "{left:?}");
    assert_eq!(left.get(&Shared::Tokens), Some(&1), "{left:?}");
    assert!(
        !left.contains_key(&Shared::RestingAddresses) && !left.contains_key(&Shared::RevokedKeys),
        "{left:?}"
    );
    world.check();
}

/// How many records there are of each kind.
fn tables(world: &World) -> BTreeMap<Shared, usize> {
    let mut tables: BTreeMap<Shared, usize> = BTreeMap::new();
    for (table, _) in world.records() {
        *tables.entry(table).or_default() += 1;
    }
    tables
}
