//! The agent's snapshot on disk, whole or damaged.

use aws_lc_rs::digest::{SHA256, digest};
use vm_agent::kernel::Tag;
use vm_agent::state_dir::Snapshot;

use super::choices::Choices;

const DIGEST: usize = 32;

/// Whatever the file: a snapshot is what one agent wrote, byte by byte, or refused; one that is damaged anywhere, cut or
/// lengthened is refused, and so is one whose checksum was made to fit a content that is none.
///
/// # Panics
///
/// If that is not so.
pub fn snapshot(data: &[u8]) {
    let mut choices = Choices::new(data);
    match choices.byte() % 4 {
        0 => canonical(choices.rest()),
        1 => fitting(choices.rest()),
        2 => damaged(&mut choices),
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

fn any(choices: &mut Choices<'_>) -> Snapshot {
    let number = |choices: &mut Choices<'_>| u64::from_be_bytes(choices.bytes());
    let tag = Tag { incarnation: number(choices), counter: number(choices) };
    let saved = number(choices);
    let parts = choices.list(4, |choices| {
        let length = usize::from(choices.byte());
        choices.take(length).to_vec()
    });
    Snapshot { tag, saved, parts }
}
