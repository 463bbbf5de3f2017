//! The one task that changes the kernel.

use std::sync::Arc;
use std::time::Duration;

use datapath::abi::Control;
use hostnet::{Changes, Desired, Inventory, Netlink};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::spawn_blocking;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until};

use super::error::KernelError;
use super::hooks::Hooks;
use super::lower::{Lowered, lower};
use super::network::{Network, Protected};
use super::programs::Programs;
use super::publish::Publisher;
use super::report::Report;
use super::{KernelConfig, Refusal, Target, removal};

/// At most 20 publications a second: each makes every established flow prove itself again.
const BETWEEN_PUBLICATIONS: Duration = Duration::from_millis(50);
/// After a failure a target waits at least so long: what an attempt did and was taken back is a change as well, and
/// would be the cause of the next attempt.
const BETWEEN_ATTEMPTS: Duration = Duration::from_secs(1);

/// What the handle asks for.
pub(super) enum Command {
    /// Remove everything and end.
    Leave(oneshot::Sender<Result<Vec<String>, KernelError>>),
}

/// The owner of kernel state. Dropping it at any time leaves the kernel as it is.
pub struct Reconcile {
    pub(super) config: KernelConfig,
    pub(super) targets: watch::Receiver<Option<Arc<Target>>>,
    pub(super) commands: mpsc::Receiver<Command>,
    pub(super) changes: Option<Changes>,
    pub(super) network: Network,
    pub(super) programs: Programs,
    /// Absent only while a blocking step has it.
    pub(super) publisher: Option<Publisher>,
    pub(super) report: Report,
    /// The target in force.
    running: Option<Prepared>,
    /// A newer one that waits for another attempt, and the time from which it gets one.
    pending: Option<(Prepared, Instant)>,
    pub(super) last_publication: Option<Instant>,
}

/// A target and what follows from it alone.
struct Prepared {
    target: Arc<Target>,
    lowered: Lowered,
    protected: Protected,
}

impl Reconcile {
    pub(super) fn new(
        config: KernelConfig,
        targets: watch::Receiver<Option<Arc<Target>>>,
        commands: mpsc::Receiver<Command>,
        connections: (Netlink, Changes),
        (programs, hooks, publisher): (Programs, Hooks, Publisher),
        report: Report,
    ) -> Self {
        let (netlink, changes) = connections;
        Self {
            network: Network::new(config.clone(), netlink, hooks),
            config,
            targets,
            commands,
            changes: Some(changes),
            programs,
            publisher: Some(publisher),
            report,
            running: None,
            pending: None,
            last_publication: None,
        }
    }

    /// Applies targets as they come and repairs what others change. Ends when the sender of targets or the last
    /// handle is gone, and after `leave`.
    pub async fn run(mut self) {
        let mut verify = interval(self.config.verify_every);
        verify.set_missed_tick_behavior(MissedTickBehavior::Delay);
        // A target that was there before this task counts as news.
        self.targets.mark_changed();
        loop {
            tokio::select! {
                command = self.commands.recv() => {
                    let Some(Command::Leave(answer)) = command else { return };
                    let removed = self.leave().await;
                    drop(answer.send(removed));
                    return;
                }
                changed = self.targets.changed() => {
                    if changed.is_err() {
                        return;
                    }
                    if let Some(last) = self.last_publication {
                        sleep_until(last + BETWEEN_PUBLICATIONS).await;
                    }
                    let target = self.targets.borrow_and_update().clone();
                    if let Some(target) = target {
                        self.take(target).await;
                    }
                }
                change = next_change(&mut self.changes) => {
                    if change.is_none() {
                        tracing::warn!("notifications of the network are lost, looking from time to time instead");
                        self.changes = None;
                    }
                    self.repair().await;
                }
                _ = verify.tick() => self.repair().await,
            }
        }
    }

    /// Tries a new target.
    async fn take(&mut self, target: Arc<Target>) {
        let prepared = Prepared { lowered: lower(&target.state), protected: Protected::of(&target), target };
        self.attempt(prepared).await;
        self.observe().await;
    }

    /// Tries a target, and reports what became of it.
    async fn attempt(&mut self, prepared: Prepared) {
        let tag = prepared.target.tag;
        self.pending = None;
        match self.apply(&prepared).await {
            Ok(control) => {
                self.report.applied(tag, control, &prepared.lowered.rules);
                self.running = Some(prepared);
            }
            Err(error) => {
                let retrying = error.is_transient();
                if self.report.refused(Refusal { tag, reason: error.to_string(), retrying }) {
                    tracing::warn!(%error, retrying, "target not applied");
                }
                self.pending = retrying.then(|| (prepared, Instant::now() + BETWEEN_ATTEMPTS));
                self.keep_running().await;
            }
        }
        self.finish().await;
    }

    /// Makes a target the one in force: everything that can fail for good comes before the one store.
    async fn apply(&mut self, prepared: &Prepared) -> Result<Control, KernelError> {
        let Prepared { target, lowered, protected } = prepared;
        let inventory = self.network.inventory().await?;
        self.network.check(&target.state.settings, protected, &inventory)?;
        let desired = self.network.desired(&target.state.settings, &inventory);
        let set = self.programs.set();
        let contents = Arc::clone(&lowered.contents);
        let changed = self
            .publisher(move |publisher| {
                let changed = !publisher.runs(&contents) || publisher.control().program_set() != set;
                if changed {
                    publisher.prepare(&contents)?;
                }
                Ok(changed)
            })
            .await?;
        let hooked = self.network.raise(&desired, target.state.settings.role).await;
        self.report.reattached(self.network.take_reattached());
        hooked?;
        // The guard knows what to guard only after the first publication, so no address may be there before it.
        let first = self.control()? == Control::UNPUBLISHED;
        if changed && first {
            self.commit(set).await?;
        }
        self.network.add(&desired).await?;
        if changed && !first {
            self.commit(set).await?;
        }
        self.network.remove(&desired).await?;
        self.control()
    }

    async fn commit(&mut self, set: u32) -> Result<(), KernelError> {
        self.publisher(move |publisher| Ok(publisher.commit(set)?)).await?;
        self.last_publication = Some(Instant::now());
        self.report.published();
        Ok(())
    }

    /// After a publication: the grace period, and what it makes superfluous. The next publication finds it passed.
    async fn finish(&mut self) {
        let settled = self.publisher(|publisher| Ok(publisher.settle()?)).await;
        let runs = self.control().is_ok_and(|control| {
            control != Control::UNPUBLISHED && control.program_set() == self.programs.set()
        });
        let retired = if settled.is_ok() && runs { self.programs.retire() } else { Ok(()) };
        if let Err(error) = settled.and(retired) {
            tracing::warn!(%error, "what the last publication left could not be cleared");
        }
    }

    /// Looks whether all is as it should be, and puts it right.
    async fn repair(&mut self) {
        match self.pending.take() {
            Some((pending, from)) if from <= Instant::now() => self.attempt(pending).await,
            pending => {
                self.pending = pending;
                self.keep_running().await;
            }
        }
        self.observe().await;
    }

    /// Sees to the network of the target in force. Before the first one, what an earlier process left keeps its hooks.
    async fn keep_running(&mut self) {
        let repaired = if let Some(running) = &self.running {
            let settings = running.target.state.settings.clone();
            self.repair_network(&settings).await
        } else if self.control().is_ok_and(|control| control != Control::UNPUBLISHED) {
            let hooked = self.network.secure().await;
            self.report.reattached(self.network.take_reattached());
            hooked
        } else {
            Ok(())
        };
        self.report.trouble(repaired.err().map(|error| error.to_string()));
    }

    async fn repair_network(&mut self, settings: &policy::state::NodeSettings) -> Result<(), KernelError> {
        let inventory = self.network.inventory().await?;
        let desired: Desired = self.network.desired(settings, &inventory);
        let raised = self.network.raise(&desired, settings.role).await;
        self.report.reattached(self.network.take_reattached());
        raised?;
        self.network.add(&desired).await?;
        self.network.remove(&desired).await
    }

    /// Reports what is there now.
    async fn observe(&mut self) {
        let inventory = match self.network.inventory().await {
            Ok(inventory) => inventory,
            Err(error) => {
                self.report.trouble(Some(error.to_string()));
                return;
            }
        };
        let warnings = self.warnings(&inventory);
        let entries = self.publisher.as_ref().map(Publisher::entries).unwrap_or_default();
        let epoch = self.control().map_or(0, Control::epoch);
        self.report.observed(
            self.network.device_status(&inventory),
            self.network.hook_status(),
            self.network.underlay(&inventory),
            entries,
            epoch,
            warnings,
        );
    }

    fn warnings(&self, inventory: &Inventory) -> Vec<String> {
        let mut warnings = self.network.warnings(inventory);
        if let Some(Prepared { target, protected, .. }) = &self.running {
            let settings = &target.state.settings;
            warnings.extend(self.network.shortcomings(settings));
            if let Err(error) = self.network.check(settings, protected, inventory) {
                warnings.push(format!("the network changed under the mesh: {error}"));
            }
        }
        warnings
    }

    async fn leave(&mut self) -> Result<Vec<String>, KernelError> {
        let removed = removal::remove(&self.config).await;
        (self.running, self.pending) = (None, None);
        self.report.left(removed.is_ok());
        removed
    }

    fn control(&self) -> Result<Control, KernelError> {
        self.publisher.as_ref().map(Publisher::control).ok_or(KernelError::Stopped)
    }

    /// Runs a step that waits for the kernel on a thread of its own.
    async fn publisher<T: Send + 'static>(
        &mut self,
        step: impl FnOnce(&mut Publisher) -> Result<T, KernelError> + Send + 'static,
    ) -> Result<T, KernelError> {
        let mut publisher = self.publisher.take().ok_or(KernelError::Stopped)?;
        let done = spawn_blocking(move || {
            let result = step(&mut publisher);
            (publisher, result)
        });
        // A step that panics takes the publisher along: what the tables hold is unknown then, and nothing is
        // written again.
        let Ok((publisher, result)) = done.await else { return Err(KernelError::Stopped) };
        self.publisher = Some(publisher);
        result
    }
}

async fn next_change(changes: &mut Option<Changes>) -> Option<()> {
    match changes {
        Some(changes) => changes.next().await,
        None => std::future::pending().await,
    }
}
