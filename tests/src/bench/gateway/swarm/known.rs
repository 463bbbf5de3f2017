//! What all agents of a group are told, kept once: the digest that an agent says at its return is made of it and of
//! its own settings.

use std::sync::{Mutex, MutexGuard, PoisonError};

use anyhow::Result;
use prost::Message as _;
use proto::node::{Node, StateDigest, combined_digest, part_digest};
use proto::parts::Parts;
use proto::v1::{Generation, ResourceSet, Update};

/// Larger parts are no settings.
const SETTINGS: usize = 4096;

/// The state of the first of a group.
#[derive(Debug, Default)]
pub(super) struct Known(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    node: Node,
    generation: Option<Generation>,
    /// The digests of what everyone and what the audience was told, of the generation that was asked for last.
    digests: Option<(Generation, [StateDigest; 2])>,
}

impl Known {
    /// Applies an update.
    pub(super) fn apply(&self, updates: &[Update]) -> Result<()> {
        let mut state = self.lock();
        if updates.first().is_some_and(|update| update.base.is_none()) {
            state.node = Node::default();
        }
        let mut parts = Parts::default();
        for update in updates {
            parts.add(update.parts.clone(), update.continues);
        }
        state.node.apply(&parts.finish()?)?;
        state.generation = updates.last().and_then(|update| update.generation);
        Ok(())
    }

    /// The digest of the state of an agent with these settings; `None` where that state is not known any more.
    pub(super) fn digest(&self, applied: Generation, settings: StateDigest) -> Option<StateDigest> {
        let mut state = self.lock();
        if state.generation == Some(applied) && state.digests.is_none_or(|(known, _)| known != applied) {
            let [everyone, audience, _own] = state.node.parts();
            state.digests = Some((applied, [part_digest(&everyone), part_digest(&audience)]));
        }
        let (_, [everyone, audience]) = state.digests.filter(|(known, _)| *known == applied)?;
        drop(state);
        Some(combined_digest(&[everyone, audience, settings]))
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The digest of the last settings among these parts.
pub(super) fn settings(parts: &[impl AsRef<[u8]>]) -> Option<StateDigest> {
    let small = parts.iter().rev().map(AsRef::as_ref).filter(|part| part.len() < SETTINGS);
    let mut settings = small.filter_map(|part| ResourceSet::decode(part).ok()?.settings);
    let settings = settings.next()?;
    Some(part_digest(&ResourceSet { settings: Some(settings), ..ResourceSet::default() }.encode_to_vec()))
}
