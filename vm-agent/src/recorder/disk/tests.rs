use std::fs;

use prost::Message as _;
use proto::v1;

use super::*;

const SNAPSHOT: &str = "snapshot.bin";
const JOURNAL: &str = "journal.bin";

fn folder() -> (tempfile::TempDir, StateDir) {
    let root = tempfile::tempdir().unwrap();
    let state = StateDir::open(root.path(), "default").unwrap();
    (root, state)
}

const fn tag(counter: u64) -> Tag {
    Tag { incarnation: 7, counter, origin: counter << 32 }
}

/// A node with so many endpoints, whose first has another identity in every generation.
fn node(endpoints: u32, generation: u64) -> Arc<Node> {
    let endpoint = |number: u32| v1::Endpoint {
        address: number.to_be_bytes().to_vec(),
        identity: if number == 0 { 300 + u32::try_from(generation).unwrap() } else { 300 },
        mark: 300,
        kind: Some(v1::endpoint::Kind::Workload(v1::WorkloadKind {})),
        ..Default::default()
    };
    let set = v1::ResourceSet { endpoints: (0..endpoints).map(endpoint).collect(), ..Default::default() };
    let mut node = Node::default();
    node.apply(&[set.encode_to_vec()]).unwrap();
    Arc::new(node)
}

fn read(state: &StateDir) -> Option<(Tag, Node)> {
    let Snapshot { tag, parts, .. } = Snapshot::load(state).unwrap()?;
    let mut node = Node::default();
    node.apply(&parts).unwrap();
    Some((tag, node))
}

#[test]
fn what_was_written_last_is_read_and_changes_do_not_write_all() {
    let (_root, state) = folder();
    let mut disk = Disk::default();
    assert_eq!(read(&state), None);
    let mut whole = Vec::new();
    for generation in 1..50 {
        let node = node(1000, generation);
        disk.write(&state, tag(generation), 9, &node).unwrap();
        assert_eq!(read(&state), Some((tag(generation), (*node).clone())));
        whole.push(fs::read(state.path().join(SNAPSHOT)).unwrap());
    }
    assert!(whole.iter().all(|bytes| *bytes == whole[0]), "all was written again");
}

#[test]
fn a_long_journal_is_written_whole() {
    let (_root, state) = folder();
    let mut disk = Disk::default();
    let mut wholes = 0;
    let mut before = Vec::new();
    for generation in 1..40 {
        // Every second state has nothing of the one before.
        let node = node(if generation % 2 == 0 { 2 } else { 1000 }, generation);
        disk.write(&state, tag(generation), 9, &node).unwrap();
        assert_eq!(read(&state), Some((tag(generation), (*node).clone())));
        let length = fs::metadata(state.path().join(JOURNAL)).map_or(0, |file| file.len());
        assert!(length <= u64::try_from(SHORT).unwrap());
        let now = fs::read(state.path().join(SNAPSHOT)).unwrap();
        wholes += usize::from(now != before);
        before = now;
    }
    assert!((2..20).contains(&wholes), "written whole {wholes} times");
}

#[test]
fn a_crash_at_any_byte_leaves_the_state_before_or_after() {
    let (_root, state) = folder();
    let mut disk = Disk::default();
    for generation in 1..4 {
        disk.write(&state, tag(generation), 9, &node(3, generation)).unwrap();
    }
    let path = state.path().join(JOURNAL);
    let before = fs::read(&path).unwrap();
    disk.write(&state, tag(4), 9, &node(3, 4)).unwrap();
    let after = fs::read(&path).unwrap();
    for cut in before.len()..after.len() {
        fs::write(&path, &after[..cut]).unwrap();
        assert_eq!(read(&state), Some((tag(3), (*node(3, 3)).clone())), "cut to {cut}");
        // The next agent begins with it, and goes on.
        disk = Disk::default();
        disk.write(&state, tag(5), 9, &node(3, 5)).unwrap();
        disk.write(&state, tag(6), 9, &node(3, 6)).unwrap();
        assert_eq!(read(&state), Some((tag(6), (*node(3, 6)).clone())));
        fs::remove_file(&path).unwrap();
        disk = Disk::default();
        for generation in 1..4 {
            disk.write(&state, tag(generation), 9, &node(3, generation)).unwrap();
        }
    }
}

#[test]
fn a_crash_between_snapshot_and_journal_is_the_snapshot() {
    let (_root, state) = folder();
    let mut disk = Disk::default();
    disk.write(&state, tag(1), 9, &node(3, 1)).unwrap();
    disk.write(&state, tag(2), 9, &node(3, 2)).unwrap();
    assert!(state.path().join(JOURNAL).exists());
    Disk::default().write(&state, tag(3), 9, &node(3, 3)).unwrap();
    assert_eq!(read(&state), Some((tag(3), (*node(3, 3)).clone())));
}

#[test]
fn a_damaged_journal_is_refused_as_a_whole() {
    let (_root, state) = folder();
    let mut disk = Disk::default();
    for generation in 1..5 {
        disk.write(&state, tag(generation), 9, &node(3, generation)).unwrap();
    }
    let path = state.path().join(JOURNAL);
    let mut bytes = fs::read(&path).unwrap();
    bytes[100] ^= 1;
    fs::write(&path, bytes).unwrap();
    assert!(Snapshot::load(&state).is_err());
}

#[test]
fn after_a_failed_write_all_is_written() {
    let (_root, state) = folder();
    let mut disk = Disk::default();
    disk.write(&state, tag(1), 9, &node(3, 1)).unwrap();
    // In the way of the journal, then of the snapshot as well.
    fs::create_dir(state.path().join(JOURNAL)).unwrap();
    disk.write(&state, tag(2), 9, &node(3, 2)).unwrap();
    fs::remove_dir(state.path().join(JOURNAL)).unwrap();
    assert_eq!(read(&state), Some((tag(2), (*node(3, 2)).clone())));
    disk.write(&state, tag(3), 9, &node(3, 3)).unwrap();
    fs::remove_file(state.path().join(SNAPSHOT)).unwrap();
    fs::remove_file(state.path().join(JOURNAL)).unwrap();
    fs::create_dir(state.path().join(SNAPSHOT)).unwrap();
    assert!(disk.write(&state, tag(4), 9, &node(3, 4)).is_err());
    fs::remove_dir(state.path().join(SNAPSHOT)).unwrap();
    disk.write(&state, tag(5), 9, &node(3, 5)).unwrap();
    assert_eq!(read(&state), Some((tag(5), (*node(3, 5)).clone())));
}
