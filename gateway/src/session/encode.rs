//! Resources as bytes: parts that fit into a chunk, and chunks of parts.

use bytes::Bytes;
use prost::Message as _;
use proto::v1::{Generation, ResourceSet, Update};

/// The size of a part, in bytes; only a single resource that is larger makes a larger one. Parts are shared by all
/// sessions.
const PART_BYTES: usize = 1 << 20;
/// The size of a chunk, in bytes. Chunks are copied for each session: what an agent has not taken yet, and the buffer
/// that it leaves behind, must be small.
pub(super) const CHUNK_BYTES: usize = 8 << 10;

/// The encoded set, in as many parts as it needs; none for an empty set.
pub(super) fn parts(set: ResourceSet) -> Vec<Bytes> {
    let length = set.encoded_len();
    if length == 0 {
        return Vec::new();
    }
    if length <= PART_BYTES {
        return vec![set.encode_to_vec().into()];
    }
    let ResourceSet {
        endpoints,
        removed_endpoints,
        identities,
        removed_identities,
        policy,
        settings,
        owners,
    } = set;
    let mut split = Split::default();
    split.current = ResourceSet { policy, settings, ..ResourceSet::default() };
    split.length = split.current.encoded_len();
    for endpoint in endpoints {
        split.add(endpoint.encoded_len(), |set| set.endpoints.push(endpoint));
    }
    for address in removed_endpoints {
        split.add(address.len(), |set| set.removed_endpoints.push(address));
    }
    for labels in identities {
        split.add(labels.encoded_len(), |set| set.identities.push(labels));
    }
    for number in removed_identities {
        split.add(size_of::<u32>(), |set| set.removed_identities.push(number));
    }
    for owner in owners {
        split.add(owner.encoded_len(), |set| set.owners.push(owner));
    }
    split.end();
    split.done
}

/// The parts as updates; at least one, since an update without parts still says which generation it leads to. No
/// chunk is larger than [`CHUNK_BYTES`]: a part that is goes on in the next ones.
pub(super) fn updates(base: Option<Generation>, generation: Generation, parts: Vec<Bytes>) -> Vec<Update> {
    let empty = || Update { generation: Some(generation), base, ..Update::default() };
    let mut chunks = vec![empty()];
    let mut room = CHUNK_BYTES;
    for mut part in parts {
        if part.len() > room && room < CHUNK_BYTES {
            chunks.push(empty());
            room = CHUNK_BYTES;
        }
        loop {
            let piece = part.split_to(part.len().min(room));
            room -= piece.len();
            let continues = !part.is_empty();
            if let Some(chunk) = chunks.last_mut() {
                chunk.parts.push(piece);
                chunk.continues = continues;
            }
            if !continues {
                break;
            }
            chunks.push(empty());
            room = CHUNK_BYTES;
        }
    }
    if let Some(chunk) = chunks.last_mut() {
        chunk.last = true;
    }
    chunks
}

#[derive(Default)]
struct Split {
    current: ResourceSet,
    length: usize,
    done: Vec<Bytes>,
}

impl Split {
    /// What an item takes beside itself: its tag and its length.
    const OVERHEAD: usize = 8;

    fn add(&mut self, length: usize, push: impl FnOnce(&mut ResourceSet)) {
        let length = length + Self::OVERHEAD;
        if self.length > 0 && self.length + length > PART_BYTES {
            self.end();
        }
        self.length += length;
        push(&mut self.current);
    }

    fn end(&mut self) {
        if self.length > 0 {
            self.done.push(std::mem::take(&mut self.current).encode_to_vec().into());
            self.length = 0;
        }
    }
}

#[cfg(test)]
mod tests {
    use proto::v1::Owner;

    use super::*;

    #[test]
    fn a_large_set_is_cut_and_nothing_is_lost() {
        let owner = |number: u32| Owner { address: number.to_be_bytes().to_vec(), owner: "shop/".repeat(20) };
        let owners: Vec<_> = (0..30_000).map(owner).collect();
        let set =
            ResourceSet { owners: owners.clone(), removed_identities: vec![300], ..ResourceSet::default() };
        let parts = parts(set);
        assert!(parts.len() > 2, "{} parts", parts.len());
        assert!(parts.iter().all(|part| part.len() <= PART_BYTES));
        let again: Vec<_> =
            parts.iter().flat_map(|part| ResourceSet::decode(part.clone()).unwrap().owners).collect();
        assert_eq!(again, owners);
        let updates = updates(None, Generation::default(), parts);
        assert!(updates.iter().all(|update| update.encoded_len() <= CHUNK_BYTES + 256));
        assert_eq!(updates.iter().filter(|update| update.last).count(), 1);
        assert!(updates.last().unwrap().last);
    }

    #[test]
    fn a_part_that_is_larger_than_any_message_arrives() {
        let large = |byte: u8, length: usize| Bytes::from(vec![byte; length]);
        let parts = vec![
            large(1, 10),
            large(2, 3 * proto::MAX_MESSAGE_BYTES),
            large(3, 10),
            large(4, CHUNK_BYTES),
            large(5, CHUNK_BYTES + 1),
        ];
        let updates = updates(None, Generation::default(), parts.clone());
        assert!(updates.iter().all(|update| update.encoded_len() <= CHUNK_BYTES + 256));
        assert_eq!(updates.iter().filter(|update| update.last).count(), 1);
        assert!(updates.last().unwrap().last);
        let mut arrived = proto::parts::Parts::default();
        for update in updates {
            arrived.add(update.parts, update.continues);
        }
        assert!(arrived.finish().unwrap() == parts);
    }

    #[test]
    fn nothing_to_say_is_still_an_update() {
        assert_eq!(parts(ResourceSet::default()), Vec::<Bytes>::new());
        let updates = updates(None, Generation::default(), Vec::new());
        assert_eq!(updates.len(), 1);
    }
}
