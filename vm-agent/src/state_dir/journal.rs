//! What changed since the last good state was written whole, in the order in which it came into force.
//!
//! Layout: `OGRJ`, then little endian: form (u32), the checksum of the snapshot that it continues (32 bytes), SHA-256 of
//! all that. Then entries: length of the content (u32), its complement (u32), the content: incarnation (u64), counter
//! (u64), seconds since the Unix epoch (u64), and the changes; SHA-256 of the checksum before the entry and of the entry.
//!
//! Whoever crashes while it appends leaves an entry that nobody was told of: one that is cut off, or is the last and has a
//! wrong checksum, or nothing but zeros, which some file systems show for what was never written. It is as if it were
//! not there. Every other damage makes all of it worthless.

use bytes::{Buf as _, BufMut as _};
use sha2::{Digest as _, Sha256};

use super::snapshot::InvalidSnapshot;
use crate::kernel::Tag;

const MAGIC: &[u8; 4] = b"OGRJ";
const VERSION: u32 = 1;
const HEAD_BYTES: usize = 4 + 4 + 2 * DIGEST_BYTES;
const DIGEST_BYTES: usize = 32;
/// Before the changes of an entry.
const TAG_BYTES: usize = 4 * 8;

/// A checksum of a snapshot, or of a journal up to the end of an entry.
pub type Checksum = [u8; DIGEST_BYTES];

/// A generation that came into force.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The generation.
    pub tag: Tag,
    /// When it was written, seconds since the Unix epoch.
    pub saved: u64,
    /// What leads to it, as `proto::node::Node::changes_since` gives it.
    pub changes: Vec<u8>,
}

/// The end of a journal, where it is continued.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Journal {
    last: Checksum,
    length: usize,
}

impl Journal {
    /// A journal without entries behind a snapshot, and its bytes.
    #[must_use]
    pub fn begin(snapshot: &Checksum) -> (Self, Vec<u8>) {
        let mut head = Vec::with_capacity(HEAD_BYTES);
        head.put_slice(MAGIC);
        head.put_u32_le(VERSION);
        head.put_slice(snapshot);
        let last: Checksum = Sha256::digest(&head).into();
        head.put_slice(&last);
        (Self { last, length: head.len() }, head)
    }

    /// How many bytes it has.
    #[must_use]
    pub const fn length(&self) -> usize {
        self.length
    }

    /// The journal with one more entry, and the bytes of that; `None` if it is too large for one.
    #[must_use]
    pub fn with(&self, entry: &Entry) -> Option<(Self, Vec<u8>)> {
        let length = u32::try_from(entry.changes.len().checked_add(TAG_BYTES)?).ok()?;
        let mut bytes = Vec::with_capacity(8 + TAG_BYTES + entry.changes.len() + DIGEST_BYTES);
        bytes.put_u32_le(length);
        bytes.put_u32_le(!length);
        bytes.put_u64_le(entry.tag.incarnation);
        bytes.put_u64_le(entry.tag.counter);
        bytes.put_u64_le(entry.tag.origin);
        bytes.put_u64_le(entry.saved);
        bytes.put_slice(&entry.changes);
        let last = chained(&self.last, &bytes);
        bytes.put_slice(&last);
        Some((Self { last, length: self.length + bytes.len() }, bytes))
    }

    /// The entries behind a snapshot: none of a journal that continues another one.
    ///
    /// # Errors
    /// [`InvalidSnapshot`] if it is damaged other than by a crash.
    pub fn read(bytes: &[u8], snapshot: &Checksum) -> Result<Vec<Entry>, InvalidSnapshot> {
        if !bytes.starts_with(MAGIC) {
            return Err(InvalidSnapshot::Journal);
        }
        let (head, mut rest) = bytes.split_at_checked(HEAD_BYTES).ok_or(InvalidSnapshot::Journal)?;
        // The form stands before the checksum is verified: another form may have another one.
        let version = head.get(MAGIC.len()..).unwrap_or_default().get_u32_le();
        if version != VERSION {
            return Err(InvalidSnapshot::Version(version));
        }
        let (content, sum) = head.split_at(HEAD_BYTES - DIGEST_BYTES);
        let mut last: Checksum = Sha256::digest(content).into();
        if sum != last {
            return Err(InvalidSnapshot::Journal);
        }
        let mut entries = Vec::new();
        if content.ends_with(snapshot) {
            while let Some(entry) = entry(&mut rest, &mut last)? {
                entries.push(entry);
            }
        }
        Ok(entries)
    }
}

/// The next entry; `None` at the end, or where what follows was left by a crash.
fn entry(rest: &mut &[u8], last: &mut Checksum) -> Result<Option<Entry>, InvalidSnapshot> {
    let bytes = *rest;
    let Some((mut lengths, _)) = bytes.split_at_checked(8) else { return Ok(None) };
    let (length, complement) = (lengths.get_u32_le(), lengths.get_u32_le());
    let content = usize::try_from(length).ok().filter(|length| *length >= TAG_BYTES);
    let Some(content) = content.filter(|_| complement == !length) else {
        return if bytes.iter().all(|byte| *byte == 0) { Ok(None) } else { Err(InvalidSnapshot::Journal) };
    };
    let Some((whole, after)) = bytes.split_at_checked(8 + content + DIGEST_BYTES) else { return Ok(None) };
    let (framed, sum) = whole.split_at(8 + content);
    let next = chained(last, framed);
    if sum != next {
        return if after.is_empty() { Ok(None) } else { Err(InvalidSnapshot::Journal) };
    }
    (*rest, *last) = (after, next);
    let mut content = framed.get(8..).unwrap_or_default();
    let (incarnation, counter, origin) = (content.get_u64_le(), content.get_u64_le(), content.get_u64_le());
    let tag = Tag { incarnation, counter, origin };
    Ok(Some(Entry { tag, saved: content.get_u64_le(), changes: content.to_vec() }))
}

fn chained(last: &Checksum, bytes: &[u8]) -> Checksum {
    Sha256::new().chain_update(last).chain_update(bytes).finalize().into()
}

#[cfg(test)]
mod tests;
