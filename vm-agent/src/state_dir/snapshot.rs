//! The last good state on disk: what the kernel is given at boot, before any gateway was asked. A journal continues it.
//!
//! Layout: `OGRS`, then little endian: form (u32), incarnation (u64), counter (u64), seconds since the Unix epoch
//! (u64), number of parts (u32), for each its length (u32) and bytes; SHA-256 of all that at the end.

use bytes::{Buf as _, BufMut as _};
use sha2::{Digest as _, Sha256};

use super::journal::{Checksum, Entry, Journal};
use super::{StateDir, StateError, StateFile};
use crate::kernel::Tag;

const MAGIC: &[u8; 4] = b"OGRS";
const VERSION: u32 = 1;
const DIGEST_BYTES: usize = 32;

/// The last state that the kernel applied.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Snapshot {
    /// The generation.
    pub tag: Tag,
    /// When it was written, seconds since the Unix epoch: the time cannot be before that.
    pub saved: u64,
    /// The canonical encoding, as `proto::node::Node::parts` gives it, and what changed since.
    pub parts: Vec<Vec<u8>>,
}

/// A snapshot that is refused.
#[derive(Debug, thiserror::Error)]
pub enum InvalidSnapshot {
    /// The file cannot be read.
    #[error(transparent)]
    State(#[from] StateError),
    /// It is no snapshot.
    #[error("the snapshot of the last good state is no snapshot (wrong first bytes)")]
    Magic,
    /// Another agent version wrote it.
    #[error("the snapshot of the last good state has form {0}; this agent reads form {VERSION}")]
    Version(u32),
    /// It is cut off or damaged.
    #[error("the snapshot of the last good state is damaged (checksum)")]
    Checksum,
    /// The journal behind it is damaged.
    #[error("the journal of the last good state is damaged (checksum)")]
    Journal,
}

impl Snapshot {
    /// Reads it, with its journal; `None` if there is none.
    ///
    /// # Errors
    /// [`InvalidSnapshot`] with the reason; nothing of a damaged snapshot is used.
    pub fn load(state: &StateDir) -> Result<Option<Self>, InvalidSnapshot> {
        let Some(bytes) = state.read(StateFile::Snapshot)? else { return Ok(None) };
        let mut snapshot = Self::decode(&bytes)?;
        if let Some(journal) = state.read(StateFile::Journal)? {
            snapshot.continue_by(Journal::read(&journal, &checksum(&bytes))?);
        }
        Ok(Some(snapshot))
    }

    /// Writes it. A journal that is there no longer counts.
    ///
    /// # Errors
    /// [`StateError::Write`]; the previous snapshot is still there.
    pub fn save(&self, state: &StateDir) -> Result<(), StateError> {
        state.write(StateFile::Snapshot, &self.encode())
    }

    /// Takes what came into force later.
    pub fn continue_by(&mut self, entries: Vec<Entry>) {
        for Entry { tag, saved, changes } in entries {
            (self.tag, self.saved) = (tag, saved);
            self.parts.push(changes);
        }
    }

    /// The bytes of the file.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let length = |bytes: &[u8]| u32::try_from(bytes.len()).unwrap_or(u32::MAX);
        let mut out = Vec::with_capacity(80 + self.parts.iter().map(|part| part.len() + 4).sum::<usize>());
        out.put_slice(MAGIC);
        out.put_u32_le(VERSION);
        out.put_u64_le(self.tag.incarnation);
        out.put_u64_le(self.tag.counter);
        out.put_u64_le(self.tag.origin);
        out.put_u64_le(self.saved);
        out.put_u32_le(u32::try_from(self.parts.len()).unwrap_or(u32::MAX));
        for part in &self.parts {
            out.put_u32_le(length(part));
            out.put_slice(part);
        }
        let digest = Sha256::digest(&out);
        out.put_slice(&digest);
        out
    }

    /// Reads the bytes of a file.
    ///
    /// # Errors
    /// [`InvalidSnapshot`] with the reason, unless they are what [`Self::encode`] writes.
    pub fn decode(bytes: &[u8]) -> Result<Self, InvalidSnapshot> {
        if !bytes.starts_with(MAGIC) {
            return Err(InvalidSnapshot::Magic);
        }
        let split = bytes.len().checked_sub(DIGEST_BYTES).and_then(|at| bytes.split_at_checked(at));
        let (content, digest) = split.ok_or(InvalidSnapshot::Checksum)?;
        let mut rest = content.get(MAGIC.len()..).unwrap_or_default();
        // The form stands before the checksum is verified: another form may have another one.
        let version = rest.try_get_u32_le().map_err(|_short| InvalidSnapshot::Checksum)?;
        if version != VERSION {
            return Err(InvalidSnapshot::Version(version));
        }
        if Sha256::digest(content).as_slice() != digest {
            return Err(InvalidSnapshot::Checksum);
        }
        Self::decode_content(rest).ok_or(InvalidSnapshot::Checksum)
    }

    fn decode_content(mut rest: &[u8]) -> Option<Self> {
        let mut number = || rest.try_get_u64_le().ok();
        let tag = Tag { incarnation: number()?, counter: number()?, origin: number()? };
        let saved = rest.try_get_u64_le().ok()?;
        let count = rest.try_get_u32_le().ok()?;
        let mut parts = Vec::new();
        for _ in 0..count {
            let length = usize::try_from(rest.try_get_u32_le().ok()?).ok()?;
            let (part, after) = rest.split_at_checked(length)?;
            parts.push(part.to_vec());
            rest = after;
        }
        rest.is_empty().then_some(Self { tag, saved, parts })
    }
}

/// The checksum at the end of a snapshot's bytes, which names it in its journal.
#[must_use]
pub fn checksum(snapshot: &[u8]) -> Checksum {
    snapshot.last_chunk().copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn snapshot() -> Snapshot {
        let tag = Tag { incarnation: 7, counter: 42, origin: 0x1234_5678 };
        Snapshot { tag, saved: 1_700_000_000, parts: vec![vec![1, 2, 3], Vec::new(), vec![9; 300]] }
    }

    #[test]
    fn reads_what_it_wrote() {
        let root = tempfile::tempdir().unwrap();
        let state = StateDir::open(root.path(), "default").unwrap();
        assert!(Snapshot::load(&state).unwrap().is_none());
        snapshot().save(&state).unwrap();
        assert_eq!(Snapshot::load(&state).unwrap(), Some(snapshot()));
    }

    #[test]
    fn every_damaged_byte_and_every_cut_is_refused() {
        let bytes = snapshot().encode();
        for at in 0..bytes.len() {
            let mut damaged = bytes.clone();
            damaged[at] ^= 1;
            assert!(Snapshot::decode(&damaged).is_err(), "byte {at}");
            assert!(Snapshot::decode(&bytes[..at]).is_err(), "cut to {at}");
        }
    }

    #[test]
    fn the_reason_is_told() {
        let mut bytes = snapshot().encode();
        bytes[4] = 2;
        assert!(matches!(Snapshot::decode(&bytes), Err(InvalidSnapshot::Version(2))));
        bytes[0] = b'X';
        assert!(matches!(Snapshot::decode(&bytes), Err(InvalidSnapshot::Magic)));
        assert!(matches!(Snapshot::decode(b"OGRS"), Err(InvalidSnapshot::Checksum)));
    }
}
