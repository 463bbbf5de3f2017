//! An update in smaller messages than the gateway makes: what is small here is in one message otherwise.

use bytes::Bytes;
use proto::v1::Update;

/// The same updates with at most so many bytes of parts in a message.
#[must_use]
pub(super) fn cut(updates: &[Update], most: usize) -> Vec<Update> {
    let Some(first) = updates.first() else { return Vec::new() };
    let empty = || Update { generation: first.generation, base: first.base, ..Update::default() };
    let mut messages = Vec::new();
    let mut current = empty();
    let mut room = most;
    for update in updates {
        let count = update.parts.len();
        for (at, part) in update.parts.iter().enumerate() {
            let mut rest: Bytes = part.clone();
            while rest.len() > room {
                current.parts.push(rest.split_to(room));
                current.continues = true;
                messages.push(std::mem::replace(&mut current, empty()));
                room = most;
            }
            room -= rest.len();
            current.parts.push(rest);
            let goes_on = update.continues && at + 1 == count;
            // A message may end with a part or within one.
            if goes_on || room < most / 2 {
                current.continues = goes_on;
                messages.push(std::mem::replace(&mut current, empty()));
                room = most;
            }
        }
    }
    current.last = true;
    messages.push(current);
    messages
}
