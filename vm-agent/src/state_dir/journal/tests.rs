use super::*;

const SNAPSHOT: Checksum = [7; DIGEST_BYTES];

fn entries(count: u8) -> Vec<Entry> {
    let entry = |number: u8| Entry {
        tag: Tag { incarnation: 7, counter: number.into(), origin: 0x1234_5678 },
        saved: 1_700_000_000,
        changes: vec![number; usize::from(number) * 5],
    };
    (0..count).map(entry).collect()
}

/// The bytes of a journal, and where the head and each entry end.
fn written(entries: &[Entry]) -> (Vec<u8>, Vec<usize>) {
    let (mut journal, mut bytes) = Journal::begin(&SNAPSHOT);
    let mut ends = vec![bytes.len()];
    for entry in entries {
        let (next, more) = journal.with(entry).unwrap();
        bytes.extend(more);
        assert_eq!(next.length(), bytes.len());
        ends.push(bytes.len());
        journal = next;
    }
    (bytes, ends)
}

#[test]
fn reads_what_it_wrote() {
    for count in 0..5 {
        assert_eq!(Journal::read(&written(&entries(count)).0, &SNAPSHOT).unwrap(), entries(count));
    }
}

#[test]
fn the_journal_of_another_snapshot_says_nothing() {
    assert_eq!(Journal::read(&written(&entries(3)).0, &[8; DIGEST_BYTES]).unwrap(), []);
}

#[test]
fn a_crash_at_any_byte_takes_what_was_not_finished() {
    let (bytes, ends) = written(&entries(4));
    for at in ends[0]..=bytes.len() {
        let whole = ends.iter().filter(|end| **end <= at).count() - 1;
        let cut = Journal::read(&bytes[..at], &SNAPSHOT);
        assert_eq!(cut.unwrap(), entries(4)[..whole], "cut to {at}");
        if ends.contains(&at) {
            // A file system may show what was never written.
            let zeros = [&bytes[..at], &[0; 100]].concat();
            assert_eq!(Journal::read(&zeros, &SNAPSHOT).unwrap(), entries(4)[..whole], "zeros from {at}");
        }
    }
    for at in 0..ends[0] {
        assert!(Journal::read(&bytes[..at], &SNAPSHOT).is_err(), "the head is written whole: cut to {at}");
    }
}

#[test]
fn a_damaged_byte_is_refused_or_takes_the_last_entry() {
    let (bytes, ends) = written(&entries(4));
    let last = ends[ends.len() - 2];
    for at in 0..bytes.len() {
        for bit in 0..8 {
            let mut damaged = bytes.clone();
            damaged[at] ^= 1 << bit;
            match Journal::read(&damaged, &SNAPSHOT) {
                Err(_) => {}
                Ok(read) => {
                    assert!(at >= last, "byte {at} was not noticed");
                    assert_eq!(read, entries(3), "byte {at}");
                }
            }
        }
    }
}

#[test]
fn entries_stand_in_their_order_and_once() {
    let (bytes, ends) = written(&entries(4));
    let [head, a, b] = [&bytes[..ends[0]], &bytes[ends[0]..ends[1]], &bytes[ends[1]..ends[2]]];
    for wrong in [&[head, b, a][..], &[head, a, a, b], &[head, b]] {
        let read = Journal::read(&wrong.concat(), &SNAPSHOT);
        assert!(read.is_err() || read.unwrap().len() < 2, "{wrong:?}");
    }
}

#[test]
fn another_form_is_told() {
    let mut bytes = written(&entries(1)).0;
    bytes[4] = 2;
    assert!(matches!(Journal::read(&bytes, &SNAPSHOT), Err(InvalidSnapshot::Version(2))));
}
