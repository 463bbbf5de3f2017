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
use super::network::Network;
use super::programs::Programs;
use super::publish::Publisher;
use super::report::Report;
use super::{KernelConfig, Refusal, Target, removal};

/// At most 20 publications a second: each makes every established flow prove itself again.
const BETWEEN_PUBLICATIONS: Duration = Duration::from_millis(50);

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
    /// The newest target and what it lowers to, whether it is in force or waits for another attempt.
    pub(super) newest: Option<Newest>,
    pub(super) last_publication: Option<Instant>,
}

/// The newest target.
pub(super) struct Newest {
    target: Arc<Target>,
    lowered: Lowered,
    /// In force, or to be tried again. One that was refused for good is not kept.
    in_force: bool,
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
            newest: None,
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
        let lowered = lower(&target.state);
        self.newest = Some(Newest { target, lowered, in_force: false });
        self.attempt().await;
    }

    /// Tries the newest target, and reports what became of it.
    async fn attempt(&mut self) {
        let Some(newest) = self.newest.take() else { return };
        let tag = newest.target.tag;
        match self.apply(&newest).await {
            Ok(control) => {
                self.report.applied(tag, control, &newest.lowered.rules);
                self.newest = Some(Newest { in_force: true, ..newest });
            }
            Err(error) => {
                let retrying = error.is_transient();
                let refusal = Refusal { tag, reason: error.to_string(), retrying };
                tracing::warn!(%error, retrying, "target not applied");
                self.report.refused(refusal);
                self.newest = retrying.then_some(newest);
            }
        }
        self.finish().await;
        self.observe().await;
    }

    /// Makes a target the one in force: everything that can fail for good comes before the one store.
    async fn apply(&mut self, newest: &Newest) -> Result<Control, KernelError> {
        let Newest { target, lowered, in_force: _ } = newest;
        let inventory = self.network.inventory().await?;
        self.network.check(target, &inventory)?;
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
        let hooked = self.network.raise(&desired).await;
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
        match &self.newest {
            Some(newest) if !newest.in_force => self.attempt().await,
            Some(newest) => {
                let settings = newest.target.state.settings.clone();
                let repaired = self.repair_network(&settings).await;
                self.report.trouble(repaired.err().map(|error| error.to_string()));
                self.observe().await;
            }
            None => {
                // Nothing was asked for yet: what an earlier process left keeps its hooks.
                if self.control().is_ok_and(|control| control != Control::UNPUBLISHED) {
                    let repaired = self.network.rehook().await;
                    self.report.trouble(repaired.err().map(|error| error.to_string()));
                }
                self.report.reattached(self.network.take_reattached());
                self.observe().await;
            }
        }
    }

    async fn repair_network(&mut self, settings: &policy::state::NodeSettings) -> Result<(), KernelError> {
        let inventory = self.network.inventory().await?;
        let desired: Desired = self.network.desired(settings, &inventory);
        let raised = self.network.raise(&desired).await;
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
        if let Some(newest) = &self.newest
            && newest.in_force
        {
            warnings.extend(Network::forwarding(newest.target.state.settings.role));
            if let Err(error) = self.network.check(&newest.target, inventory) {
                warnings.push(format!("the network changed under the mesh: {error}"));
            }
        }
        warnings
    }

    async fn leave(&mut self) -> Result<Vec<String>, KernelError> {
        let removed = removal::remove(&self.config).await;
        self.newest = None;
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
