//! The agent's snapshot on disk, whole or damaged.

use aws_lc_rs::digest::{SHA256, digest};
use vm_agent::kernel::Tag;
use vm_agent::state_dir::{Entry, Journal, Snapshot};

use super::choices::Choices;

const DIGEST: usize = 32;
/// The snapshot that a journal continues.
const NAME: [u8; DIGEST] = [7; DIGEST];

/// Whatever the file: a snapshot is what one agent wrote, byte by byte, or refused; one that is damaged anywhere, cut or
/// lengthened is refused, and so is one whose checksum was made to fit a content that is none. Of a journal the entries
/// are read that were written, to the last or to one before, or it is refused.
///
/// # Panics
///
/// If that is not so.
pub fn snapshot(data: &[u8]) {
    let mut choices = Choices::new(data);
    match choices.byte() % 8 {
        0 => canonical(choices.rest()),
        1 => fitting(choices.rest()),
        2 => damaged(&mut choices),
        4 => entries(choices.rest()),
        5 => damaged_journal(&mut choices),
        6 => written_journal(&mut choices),
        _ => {
            let written = any(&mut choices);
            assert_eq!(Snapshot::decode(&written.encode()).unwrap(), written);
        }
    }
}

/// What is read is what is written again.
fn canonical(bytes: &[u8]) {
    if let Ok(read) = Snapshot::decode(bytes) {
        assert_eq!(read.encode(), bytes, "{read:?}");
    }
}

/// Bytes of the input between a right start and a right checksum.
fn fitting(content: &[u8]) {
    let mut bytes = [b"OGRS", &1_u32.to_le_bytes()[..], content].concat();
    let sum = digest(&SHA256, &bytes);
    bytes.extend_from_slice(sum.as_ref());
    canonical(&bytes);
}

fn damaged(choices: &mut Choices<'_>) {
    let written = any(choices).encode();
    let mut bytes = written.clone();
    for _ in 0..=choices.below(3) {
        let at = usize::from(u16::from_be_bytes(choices.bytes()));
        match choices.byte() % 4 {
            0 => bytes.truncate(at % (bytes.len() + 1)),
            1 => bytes.push(choices.byte()),
            2 if bytes.len() > DIGEST => {
                bytes.remove(at % bytes.len());
            }
            _ if !bytes.is_empty() => {
                let length = bytes.len();
                bytes[at % length] ^= choices.byte();
            }
            _ => {}
        }
    }
    assert_eq!(Snapshot::decode(&bytes).is_ok(), bytes == written, "a damaged snapshot was read");
}

/// Bytes of the input behind a right head: no checksum fits.
fn entries(bytes: &[u8]) {
    let (_, head) = Journal::begin(&NAME);
    if let Ok(read) = Journal::read(&[&head[..], bytes].concat(), &NAME) {
        assert_eq!(read, []);
    }
    let _refused = Journal::read(bytes, &NAME);
}

fn written_journal(choices: &mut Choices<'_>) {
    let (bytes, _, entries) = journal(choices);
    assert_eq!(Journal::read(&bytes, &NAME).unwrap(), entries);
    assert_eq!(Journal::read(&bytes, &[8; DIGEST]).unwrap(), [], "it continues another snapshot");
}

/// Damage behind an entry leaves it, damage before it is never passed over.
fn damaged_journal(choices: &mut Choices<'_>) {
    let (written, ends, entries) = journal(choices);
    let mut bytes = written.clone();
    let at = usize::from(u16::from_be_bytes(choices.bytes())) % bytes.len();
    let is_cut = match choices.byte() % 4 {
        0 => {
            bytes.truncate(at);
            true
        }
        1 => {
            bytes.remove(at);
            false
        }
        2 => {
            bytes.insert(at, choices.byte());
            false
        }
        _ => {
            bytes[at] ^= choices.byte();
            false
        }
    };
    // What was added may be equal to what it was put before.
    let same = bytes.iter().zip(&written).take_while(|(a, b)| a == b).count();
    let whole = ends.iter().filter(|end| **end <= same).count();
    match Journal::read(&bytes, &NAME) {
        Ok(read) => {
            assert!(whole > 0, "a damaged head was read");
            assert_eq!(read, entries[..whole - 1], "other entries than those that are whole");
            assert!(is_cut || whole + 1 >= ends.len(), "damage before the last entry was passed over");
        }
        Err(_) => assert!(!is_cut || whole == 0, "a journal that was cut off was refused"),
    }
}

/// The bytes of a journal, where its head and its entries end, and the entries.
fn journal(choices: &mut Choices<'_>) -> (Vec<u8>, Vec<usize>, Vec<Entry>) {
    let entries = choices.list(4, |choices| {
        let Snapshot { tag, saved, mut parts } = any(choices);
        Entry { tag, saved, changes: parts.pop().unwrap_or_default() }
    });
    let (mut journal, mut bytes) = Journal::begin(&NAME);
    let mut ends = vec![bytes.len()];
    for entry in &entries {
        let (next, more) = journal.with(entry).unwrap();
        bytes.extend(more);
        ends.push(bytes.len());
        journal = next;
    }
    (bytes, ends, entries)
}

fn any(choices: &mut Choices<'_>) -> Snapshot {
    let number = |choices: &mut Choices<'_>| u64::from_be_bytes(choices.bytes());
    let tag = Tag { incarnation: number(choices), counter: number(choices), origin: number(choices) };
    let saved = number(choices);
    let parts = choices.list(4, |choices| {
        let length = usize::from(choices.byte());
        choices.take(length).to_vec()
    });
    Snapshot { tag, saved, parts }
}
