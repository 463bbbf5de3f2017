//! What makes a state out of facts, and gives it a number: phases of relabels go on, labels get their identities, what
//! has to outlast the process is kept, and only then there is a next state. Files, channels and clocks are the caller's.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Instant;

use pki::UnixTime;
use policy::identity::Identity;
use policy::labels::Labels;
use proto::v1::Generation;

use super::{CompileError, relabels};
use crate::index::{Compiled, Index, MeshSettings};
use crate::manifest::{Object, ObjectKey};
use crate::session::{Feed, Published, Registry};
use crate::source::Change;
use crate::store::{IdentityError, RelabelRecords, Store, StoreError, Workloads};

/// What of the store a publication needs.
pub trait Ledger {
    /// Random for each store.
    fn incarnation(&self) -> u64;

    /// What a generation that is published now carries of where its number comes from.
    fn origin(&self, now: UnixTime) -> u64;

    /// A number greater than every one given out before.
    ///
    /// # Errors
    /// [`StoreError`]; no number is lost.
    fn next_generation(&self) -> Result<u64, StoreError>;

    /// Gives each label set its number.
    ///
    /// # Errors
    /// [`IdentityError`]; then nothing changed.
    fn assign_identities(
        &self,
        in_use: &BTreeSet<String>,
        now: UnixTime,
    ) -> Result<BTreeMap<String, Identity>, IdentityError>;

    /// The changes of identities that were under way last.
    ///
    /// # Errors
    /// [`StoreError`].
    fn relabels(&self) -> Result<RelabelRecords, StoreError>;

    /// Keeps those that are under way. `before` is what is kept.
    ///
    /// # Errors
    /// [`StoreError`]; then `before` is still kept.
    fn keep_relabels(&self, before: &RelabelRecords, now: &RelabelRecords) -> Result<(), StoreError>;
}

/// Facts on their way to becoming states.
#[derive(Debug)]
pub struct Publication {
    /// The facts.
    pub index: Index,
    gateways: Arc<Vec<String>>,
    numbers: Arc<BTreeMap<Labels, Identity>>,
    /// Whether the label sets became others since they were numbered.
    unnumbered: bool,
    /// The changes of identities that the store has.
    kept_relabels: RelabelRecords,
    /// What agents have been told by the process before this one, until the first state is published.
    before_restart: Option<Compiled>,
}

impl Publication {
    /// No facts yet.
    #[must_use]
    pub fn new(mesh: MeshSettings, gateways: Vec<String>) -> Self {
        Self {
            index: Index::new(mesh),
            gateways: Arc::new(gateways),
            numbers: Arc::default(),
            unnumbered: false,
            kept_relabels: RelabelRecords::new(),
            before_restart: None,
        }
    }

    /// Goes on where the process before this one was: with the changes of identities that it began, and with the agents
    /// that it had sessions with, for which it waits. `kept` are the objects as they were kept last, which agents were told
    /// of then: what has changed since is told in phases too. Comes before the first state. Returns which of them the index
    /// has now.
    ///
    /// # Errors
    /// [`CompileError`].
    pub fn resume<'a>(
        &mut self,
        workloads: &Arc<Workloads>,
        kept: impl Iterator<Item = (&'a ObjectKey, &'a Object)>,
        registry: &Registry,
        ledger: &impl Ledger,
        (time, now): (UnixTime, Instant),
    ) -> Result<Vec<ObjectKey>, CompileError> {
        registry.expect(workloads.keys(), now);
        self.index.set_workloads(Arc::clone(workloads));
        self.kept_relabels = ledger.relabels()?;
        self.index.resume_relabels(relabels::rounds(&self.kept_relabels));
        let mut keys = Vec::new();
        for (key, object) in kept {
            self.index.apply(Change::Put(key.clone(), object.clone()));
            keys.push(key.clone());
        }
        if !keys.is_empty() {
            self.assign_numbers(ledger, time)?;
            self.before_restart = Some(self.index.compile(&self.numbers, None)?);
        }
        Ok(keys)
    }

    /// Compiles; what follows `feed`, or `None` where that is still right. The caller shows it to sessions before it
    /// calls this again.
    ///
    /// # Errors
    /// [`CompileError`]; the feed is still right then.
    pub fn publish(
        &mut self,
        feed: Option<&Feed>,
        registry: &Registry,
        ledger: &impl Ledger,
        time: (UnixTime, Instant),
    ) -> Result<Option<Feed>, CompileError> {
        let checkpoint = self.index.checkpoint();
        let next = self.next(feed, registry, ledger, time);
        if next.is_err() {
            self.index.take_back(checkpoint);
        }
        next
    }

    fn next(
        &mut self,
        feed: Option<&Feed>,
        registry: &Registry,
        ledger: &impl Ledger,
        (time, now): (UnixTime, Instant),
    ) -> Result<Option<Feed>, CompileError> {
        let incarnation = ledger.incarnation();
        self.index.advance(registry.acknowledged(incarnation, now), now);
        self.assign_numbers(ledger, time)?;
        let before = feed.map(|feed| &*feed.latest);
        let told = before.map(|before| &**before.compiled()).or(self.before_restart.as_ref());
        let compiled = self.index.compile(&self.numbers, told)?;
        let contradicted = *registry.contradicted().borrow();
        let stays = |before: &Published| {
            let generation = before.generation();
            **before.compiled() == compiled
                && generation.counter > contradicted
                && generation.incarnation == incarnation
        };
        if before.is_some_and(stays) {
            return Ok(None);
        }
        let generation =
            Generation { incarnation, counter: ledger.next_generation()?, origin: ledger.origin(time) };
        self.keep_relabels(ledger);
        self.before_restart = None;
        let next = Published::new(generation, Arc::new(compiled), Arc::clone(&self.gateways), before);
        self.index.published(generation.counter, now);
        Ok(Some(match feed {
            Some(feed) => feed.followed_by(next),
            None => Feed::new(next),
        }))
    }

    /// Keeps what is under way before anybody is told of it. Where that fails, a restart at this moment may cost
    /// packets, and nothing else: so the state is published all the same.
    fn keep_relabels(&mut self, ledger: &impl Ledger) {
        let records = relabels::records(&self.index.relabel_rounds());
        if records == self.kept_relabels {
            return;
        }
        match ledger.keep_relabels(&self.kept_relabels, &records) {
            Ok(()) => self.kept_relabels = records,
            Err(error) => {
                tracing::warn!(%error, "changes of identities under way are not kept over a restart");
            }
        }
    }

    /// Numbers the label sets, where these became others.
    fn assign_numbers(&mut self, ledger: &impl Ledger, time: UnixTime) -> Result<(), CompileError> {
        self.unnumbered |= self.index.refresh();
        if !self.unnumbered {
            return Ok(());
        }
        let labels: Vec<Labels> = self.index.labels().cloned().collect();
        let texts: BTreeSet<String> = labels.iter().map(ToString::to_string).collect();
        let numbers = ledger.assign_identities(&texts, time)?;
        let numbered = labels.into_iter().filter_map(|labels| {
            let number = *numbers.get(&labels.to_string())?;
            Some((labels, number))
        });
        self.numbers = Arc::new(numbered.collect());
        self.unnumbered = false;
        Ok(())
    }
}

impl Ledger for Store {
    fn incarnation(&self) -> u64 {
        Self::incarnation(self)
    }

    fn origin(&self, now: UnixTime) -> u64 {
        Self::origin(self, now)
    }

    fn next_generation(&self) -> Result<u64, StoreError> {
        Self::next_generation(self)
    }

    fn assign_identities(
        &self,
        in_use: &BTreeSet<String>,
        now: UnixTime,
    ) -> Result<BTreeMap<String, Identity>, IdentityError> {
        Self::assign_identities(self, in_use, now)
    }

    fn relabels(&self) -> Result<RelabelRecords, StoreError> {
        Self::relabels(self)
    }

    fn keep_relabels(&self, before: &RelabelRecords, now: &RelabelRecords) -> Result<(), StoreError> {
        Self::keep_relabels(self, before, now)
    }
}
