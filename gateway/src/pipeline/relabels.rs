//! Keeps the changes of identities that are under way, and finds them again after a restart.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use policy::facts::Relabel;
use policy::identity::Identity;

use super::{CompileError, Core};
use crate::index::Round;
use crate::manifest::ObjectKey;
use crate::source::Change;
use crate::store::{RelabelRecord, RelabelRecords, StoreError};

impl Core {
    /// Goes on with what the process before this one began.
    pub(super) fn resume_relabels(&mut self) -> Result<(), StoreError> {
        self.kept_relabels = self.store.relabels()?;
        let rounds = self.kept_relabels.iter().filter_map(|(address, record)| round(address, record));
        self.index.resume_relabels(rounds.collect());
        Ok(())
    }

    /// Compiles the objects as they were kept last: what agents were told then, so that what has changed while no gateway
    /// ran is relabelled in phases too. Returns what of them the index has now. Their numbers are still kept.
    pub(super) fn compile_kept(&mut self) -> Result<Vec<ObjectKey>, CompileError> {
        let kept: Vec<_> =
            self.catalog.last_good().map(|(key, object)| (key.clone(), object.clone())).collect();
        if kept.is_empty() {
            return Ok(Vec::new());
        }
        for (key, object) in &kept {
            self.index.apply(Change::Put(key.clone(), object.clone()));
        }
        self.assign_numbers()?;
        self.before_restart = Some(self.index.compile(&self.numbers, None)?);
        Ok(kept.into_iter().map(|(key, _)| key).collect())
    }

    /// Keeps what is under way before anybody is told of it. Where that fails, a restart at this moment may cost
    /// packets, and nothing else: so the state is published all the same.
    pub(super) fn keep_relabels(&mut self) {
        let records = records(&self.index.relabel_rounds());
        if records == self.kept_relabels {
            return;
        }
        match self.store.keep_relabels(&self.kept_relabels, &records) {
            Ok(()) => self.kept_relabels = records,
            Err(error) => {
                tracing::warn!(%error, "changes of identities under way are not kept over a restart");
            }
        }
    }
}

fn records(rounds: &BTreeMap<IpAddr, Round>) -> RelabelRecords {
    let record = |round: &Round| RelabelRecord {
        previous: round.relabel.previous.get(),
        mark: round.relabel.mark.get(),
        owner: round.owner.as_ref().map(ToString::to_string),
    };
    rounds.iter().map(|(address, round)| (address.to_string(), record(round))).collect()
}

fn round(address: &str, record: &RelabelRecord) -> Option<(IpAddr, Round)> {
    let RelabelRecord { previous, mark, owner } = record;
    let number = |number: u32| Identity::try_new(number).ok();
    let relabel = Relabel { previous: number(*previous)?, mark: number(*mark)? };
    let round = Round { relabel, owner: owner.as_deref().map(Arc::from) };
    Some((address.parse().ok()?, round))
}
