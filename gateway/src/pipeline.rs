//! The loop that joins the parts: the source and workloads go into catalog and index, what is compiled goes to sessions and
//! to whoever looks at the mesh. The only owner of catalog and index.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use policy::facts::Facts;
use policy::resolve::UnusableIdentities;
use telemetry::shutdown::Shutdown;
use tokio::sync::{mpsc, oneshot, watch};

use crate::audit::{Audit, Event as Audited};
use crate::clock::Clock;
use crate::index::MeshSettings;
use crate::session::{Feed, Registry};
use crate::source::catalog::{Catalog, FileChange};
use crate::source::{Change, Opened, Report, Source, last_good};
use crate::store::{IdentityError, Store, StoreError, Workloads};

mod publication;
mod relabels;
#[cfg(test)]
mod tests;
mod view;

pub use publication::{Ledger, Publication};
pub use view::Mesh;
use view::Overview;

/// How long after a failure of the store it is tried again.
const RETRY: Duration = Duration::from_secs(1);

/// What the pipeline needs to know.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The mesh.
    pub mesh: MeshSettings,
    /// Where gateways listen, `host:port`, as agents are told.
    pub gateways: Vec<String>,
    /// Learns which manifests a state was made of.
    pub audit: Arc<Audit>,
}

/// Why there is no new state; the last one stays.
#[derive(Debug, thiserror::Error)]
pub enum CompileError {
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Identities cannot be numbered.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// Numbers of identities contradict each other.
    #[error(transparent)]
    Numbers(#[from] UnusableIdentities),
}

/// The pipeline, with its first state published.
#[derive(Debug)]
pub struct Pipeline {
    core: Core,
    source: Source,
    inquiries: mpsc::UnboundedReceiver<oneshot::Sender<Facts>>,
}

struct Core {
    store: Arc<Store>,
    clock: Clock,
    catalog: Catalog,
    publication: Publication,
    feed: watch::Sender<Option<Arc<Feed>>>,
    overview: watch::Sender<Arc<Overview>>,
    registry: Arc<Registry>,
    audit: Arc<Audit>,
    /// What became of files since the last published state, as the audit log has it.
    files: BTreeMap<String, String>,
    /// What of the source cannot be read, and why.
    unreadable: Option<String>,
    /// Why there is no newer state, and when to try again.
    failed: Option<(String, Instant)>,
}

/// What the loop wakes for.
enum Event {
    Source(Report),
    Workloads(Arc<Workloads>),
    Inquiry(oneshot::Sender<Facts>),
    Time,
}

impl Pipeline {
    /// Compiles the first state of what the source has. Blocks on the disk.
    ///
    /// # Errors
    /// [`CompileError`].
    pub fn open(
        settings: Settings,
        opened: Opened,
        store: Arc<Store>,
        clock: Clock,
    ) -> Result<(Self, Arc<Mesh>), CompileError> {
        let Settings { mesh, gateways, audit } = settings;
        let Opened { source, kept, changes } = opened;
        let catalog = Catalog::with_last_good(kept);
        let registry = Arc::new(Registry::with_lineage(store.lineage().clone()));
        let (feed, feed_receiver) = watch::channel(None);
        let (overview, overview_receiver) = watch::channel(Arc::default());
        let mut core = Core {
            catalog,
            publication: Publication::new(mesh, gateways),
            feed,
            overview,
            registry: Arc::clone(&registry),
            audit,
            files: BTreeMap::new(),
            unreadable: None,
            failed: None,
            clock,
            store,
        };
        core.begin(changes)?;
        let (inquirer, inquiries) = mpsc::unbounded_channel();
        let mesh = Mesh::new(feed_receiver, overview_receiver, registry, inquirer);
        Ok((Self { core, source, inquiries }, Arc::new(mesh)))
    }

    /// Follows the source, workloads and acknowledgements until shutdown.
    pub async fn run(self, shutdown: Shutdown) {
        let Self { mut core, source, mut inquiries } = self;
        let (sender, mut reports) = mpsc::channel(1);
        let watching = tokio::spawn(source.run(sender));
        let mut workloads = core.store.watch_workloads();
        workloads.mark_changed();
        let mut progress = core.registry.progress();
        let mut contradicted = core.registry.contradicted();
        loop {
            let deadline = core.deadline().map(tokio::time::Instant::from_std);
            let relabels = core.publication.index.deadline().is_some();
            let event = tokio::select! {
                // First: that sessions end with the gateway must not look like receivers that are gone.
                biased;
                () = shutdown.wait() => break,
                report = reports.recv() => {
                    let Some(report) = report else {
                        tracing::error!("the source is not followed any more: restart the gateway");
                        break;
                    };
                    Event::Source(report)
                }
                Ok(()) = workloads.changed() => Event::Workloads(workloads.borrow_and_update().clone()),
                Some(inquirer) = inquiries.recv() => Event::Inquiry(inquirer),
                Ok(()) = progress.changed(), if relabels => Event::Time,
                Ok(()) = contradicted.changed() => Event::Time,
                () = sleep_until(deadline), if deadline.is_some() => Event::Time,
            };
            let stepped = tokio::task::spawn_blocking(move || {
                core.step(event, Instant::now());
                core
            });
            match stepped.await {
                Ok(stepped) => core = stepped,
                Err(error) => {
                    tracing::error!(%error, "the state is not compiled any more: restart the gateway");
                    break;
                }
            }
        }
        watching.abort();
    }
}

impl Core {
    fn begin(&mut self, changes: Vec<FileChange>) -> Result<(), CompileError> {
        let (workloads, now) = (self.store.workloads(), Instant::now());
        let time = (self.clock.now(), now);
        let kept = self.publication.resume(
            &workloads,
            self.catalog.last_good(),
            &self.registry,
            &*self.store,
            time,
        )?;
        self.catalog.set_groups_in_use(self.publication.index.groups_in_use());
        self.files.extend(changes.iter().filter_map(FileChange::digest));
        self.catalog.apply(changes);
        self.catalog.forget_unclaimed();
        let in_force = self.catalog.in_force();
        for key in kept.iter().filter(|key| !in_force.contains_key(key)) {
            self.publication.index.apply(Change::Delete(key.clone()));
        }
        for (key, object) in in_force {
            self.publication.index.apply(Change::Put(key.clone(), object.clone()));
        }
        self.log_rejected(&BTreeSet::new());
        self.publish(now)?;
        self.keep();
        self.show();
        Ok(())
    }

    fn step(&mut self, event: Event, now: Instant) {
        let rejected_before: BTreeSet<_> = self.catalog.rejected().into_iter().collect();
        let changes = match event {
            Event::Source(Report { changes, trouble }) => {
                if let Some(reason) = trouble.as_ref().filter(|_| trouble != self.unreadable) {
                    tracing::error!(reason, "the source cannot be read: what it said stays in force");
                }
                self.unreadable = trouble;
                self.files.extend(changes.iter().filter_map(FileChange::digest));
                self.catalog.apply(changes)
            }
            Event::Workloads(workloads) => {
                self.registry.retain(|name| workloads.contains_key(name));
                self.publication.index.set_workloads(workloads);
                self.catalog.set_groups_in_use(self.publication.index.groups_in_use())
            }
            Event::Inquiry(inquirer) => {
                // Who has gone wants no answer.
                drop(inquirer.send(self.publication.index.facts().clone()));
                return;
            }
            Event::Time => Vec::new(),
        };
        for change in changes {
            self.publication.index.apply(change);
        }
        self.log_rejected(&rejected_before);
        self.failed = match self.publish(now) {
            Ok(()) => None,
            Err(error) => {
                tracing::error!(%error, "no new state: the last one stays in force");
                Some((error.to_string(), now + RETRY))
            }
        };
        self.show();
        // What was kept is what was told: after a restart, labels change from there.
        if self.failed.is_none() {
            self.keep();
        }
    }

    /// Compiles, and publishes what is new.
    fn publish(&mut self, now: Instant) -> Result<(), CompileError> {
        self.publication.index.set_rejected(self.catalog.rejected());
        let feed = self.feed.borrow().clone();
        let time = (self.clock.now(), now);
        let next = self.publication.publish(feed.as_deref(), &self.registry, &*self.store, time)?;
        let Some(next) = next else { return Ok(()) };
        let counter = next.latest.generation().counter;
        // Before anybody can have applied it.
        if !self.files.is_empty() {
            let files = std::mem::take(&mut self.files);
            self.audit.record(&Audited::Published { generation: counter, files }, self.clock.now());
        }
        self.feed.send_replace(Some(Arc::new(next)));
        tracing::debug!(generation = counter, "state published");
        Ok(())
    }

    /// Keeps last good versions; what cannot be kept now is tried again with the next change.
    fn keep(&mut self) {
        let unsaved = self.catalog.unsaved();
        if unsaved.is_empty() {
            return;
        }
        match self.store.keep_objects(&last_good::encode(&unsaved)) {
            Ok(()) => self.catalog.saved(),
            Err(error) => {
                tracing::warn!(%error, "the last good versions of manifests are not kept over a restart");
            }
        }
    }

    fn show(&self) {
        let compiled = self.feed.borrow().as_ref().map(|feed| Arc::clone(feed.latest.compiled()));
        let troubles = [self.unreadable.as_ref(), self.failed.as_ref().map(|(reason, _)| reason)];
        let overview = Overview::of(
            &self.publication.index,
            &self.catalog,
            compiled.as_deref(),
            troubles.into_iter().flatten(),
        );
        self.overview.send_replace(Arc::new(overview));
    }

    fn log_rejected(&self, before: &BTreeSet<crate::source::Rejected>) {
        for rejected in self.catalog.rejected().iter().filter(|rejected| !before.contains(rejected)) {
            tracing::warn!(%rejected, instead = ?rejected.instead, "manifest rejected");
        }
    }

    /// When to wake without an event.
    fn deadline(&self) -> Option<Instant> {
        [self.publication.index.deadline(), self.failed.as_ref().map(|(_, at)| *at)]
            .into_iter()
            .flatten()
            .min()
    }
}

impl std::fmt::Debug for Core {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Core").finish_non_exhaustive()
    }
}

async fn sleep_until(deadline: Option<tokio::time::Instant>) {
    match deadline {
        Some(deadline) => tokio::time::sleep_until(deadline).await,
        None => std::future::pending().await,
    }
}
