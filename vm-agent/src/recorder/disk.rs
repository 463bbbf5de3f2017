//! The last good state on the disk: written whole at first and now and then, and what changed in between.

use std::sync::Arc;

use proto::node::Node;

use crate::kernel::Tag;
use crate::state_dir::{Checksum, Entry, Journal, Snapshot, StateDir, StateError, StateFile, checksum};

/// A journal may become so long whatever it continues,
const SHORT: usize = 64 * 1024;
/// or this part of the snapshot: so much more is read at a start, and so much less is written in between.
const PART: usize = 4;

/// What is there, as far as it is known: nothing before the first write and after a failed one, so that the next
/// state is written whole.
#[derive(Debug, Default)]
pub struct Disk(Option<Written>);

#[derive(Debug)]
struct Written {
    node: Arc<Node>,
    /// The snapshot's bytes.
    whole: usize,
    checksum: Checksum,
    /// Where entries go; `None` without any.
    journal: Option<Journal>,
}

impl Disk {
    /// Writes a state; it is on the disk when this returns.
    ///
    /// # Errors
    /// [`StateError::Write`]; what was written before is still there.
    pub fn write(
        &mut self,
        state: &StateDir,
        tag: Tag,
        saved: u64,
        node: &Arc<Node>,
    ) -> Result<(), StateError> {
        let continued = self.0.take().and_then(|written| written.continued(state, tag, saved, node));
        self.0 = Some(match continued {
            Some(written) => written,
            None => Written::whole(state, tag, saved, node)?,
        });
        Ok(())
    }
}

impl Written {
    fn whole(state: &StateDir, tag: Tag, saved: u64, node: &Arc<Node>) -> Result<Self, StateError> {
        let bytes = Snapshot { tag, saved, parts: Vec::from(node.parts()) }.encode();
        state.write(StateFile::Snapshot, &bytes)?;
        Ok(Self { node: node.clone(), whole: bytes.len(), checksum: checksum(&bytes), journal: None })
    }

    /// With an entry in the journal; `None` if all is better written whole, or has to be.
    fn continued(self, state: &StateDir, tag: Tag, saved: u64, node: &Arc<Node>) -> Option<Self> {
        let changes = node.changes_since(&self.node)?;
        let begun = match self.journal {
            Some(journal) => Ok(journal),
            None => Err(Journal::begin(&self.checksum)),
        };
        let (Ok(end) | Err((end, _))) = &begun;
        let (journal, entry) = end.with(&Entry { tag, saved, changes })?;
        if journal.length() > SHORT.max(self.whole / PART) {
            return None;
        }
        let written = match &begun {
            Ok(end) => state.append(StateFile::Journal, u64::try_from(end.length()).ok()?, &entry),
            // With its first entry in it, and in place of one that continues another snapshot.
            Err((_, head)) => state.write(StateFile::Journal, &[&head[..], &entry].concat()),
        };
        if let Err(error) = written {
            tracing::debug!(%error, "the journal is not continued");
            return None;
        }
        Some(Self { node: node.clone(), journal: Some(journal), ..self })
    }
}

#[cfg(test)]
mod tests;
