//! The one task that changes the kernel.

use std::sync::Arc;
use std::time::Duration;

use datapath::abi::Control;
use hostnet::{Changes, Desired, Inventory, Netlink};
use ipnet::IpNet;
use telemetry::pulse::Pulse;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::spawn_blocking;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until};

use super::error::KernelError;
use super::fit::Fit;
use super::hooks::Hooks;
use super::lower::{Around, Lowered, Lowering};
use super::network::{Network, Protected};
use super::programs::Programs;
use super::publish::Publisher;
use super::report::Report;
use crate::lock::FolderLock;

use super::{KernelConfig, NicStatus, Refusal, RuleNames, Target, removal};

/// At most 20 publications a second: each makes every established flow prove itself again.
const BETWEEN_PUBLICATIONS: Duration = Duration::from_millis(50);
/// After a failure a target waits at least so long: what an attempt did and was taken back is a change as well, and
/// would be the cause of the next attempt.
const BETWEEN_ATTEMPTS: Duration = Duration::from_secs(1);

/// After a look at the network nothing is looked at again for so long: a host with many changes of routes (BGP) is not
/// kept busy with them.
const BETWEEN_LOOKS: Duration = Duration::from_millis(100);
/// The same, as a multiple of how long the look took, so that a large routing table costs a bounded share of a CPU.
const REST: u32 = 9;

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
    /// What the last target became.
    lowering: Lowering,
    pub(super) report: Report,
    /// The target in force, and the part of it that this host takes.
    running: Option<(Arc<Prepared>, Fit)>,
    /// A newer one that waits for another attempt, and the time from which it gets one.
    pending: Option<(Arc<Prepared>, Instant)>,
    pub(super) last_publication: Option<Instant>,
    /// Keeps other agents away from the pins.
    _lock: FolderLock,
    /// Until when changes of the network wait.
    rest_until: Instant,
    /// Whether a leave was begun that has not ended.
    leaving: bool,
    /// The MTU of the mesh device that is in the tables.
    mtu: u32,
    /// When to look again, since something changed while a target waited for another attempt.
    again: Option<Instant>,
}

/// What part of a target this host would take now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Part {
    /// The one in force.
    Same,
    /// Another one.
    Other,
    /// Another one on the NICs.
    OtherNics,
}

/// A target and what follows from it alone.
struct Prepared {
    target: Arc<Target>,
    protected: Protected,
}

/// What became of a target that is in force.
struct Published {
    control: Control,
    rules: RuleNames,
    fit: Fit,
    trouble: Option<String>,
}

impl Reconcile {
    pub(super) fn new(
        config: KernelConfig,
        targets: watch::Receiver<Option<Arc<Target>>>,
        commands: mpsc::Receiver<Command>,
        connections: (Netlink, Changes),
        (lock, programs, hooks, publisher): (FolderLock, Programs, Hooks, Publisher),
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
            lowering: Lowering::default(),
            report,
            running: None,
            pending: None,
            last_publication: None,
            _lock: lock,
            rest_until: Instant::now(),
            leaving: false,
            mtu: 0,
            again: None,
        }
    }

    /// Applies targets as they come and repairs what others change. Ends when the sender of targets or the last
    /// handle is gone, and after `leave` has removed everything. Each step is one of the pulse.
    pub async fn run(mut self, pulse: Pulse) {
        let mut verify = interval(self.config.verify_every);
        verify.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut orders = self.config.nic.orders.clone();
        let mut silent = self.config.silent.clone();
        // A target that was there before this task counts as news.
        self.targets.mark_changed();
        loop {
            tokio::select! {
                command = self.commands.recv() => {
                    let Some(Command::Leave(answer)) = command else { return };
                    let _step = pulse.step();
                    let removed = self.leave().await;
                    let is_gone = removed.is_ok();
                    drop(answer.send(removed));
                    if is_gone {
                        return;
                    }
                }
                changed = self.targets.changed() => {
                    if changed.is_err() {
                        return;
                    }
                    let _step = pulse.step();
                    if let Some(last) = self.last_publication {
                        sleep_until(last + BETWEEN_PUBLICATIONS).await;
                    }
                    let target = self.targets.borrow_and_update().clone();
                    if let Some(target) = target.filter(|_| !self.leaving) {
                        self.take(target).await;
                    }
                }
                change = next_change(&mut self.changes, self.rest_until) => {
                    let _step = pulse.step();
                    if change.is_none() {
                        tracing::warn!("notifications of the network are lost, looking from time to time instead");
                        self.changes = None;
                    }
                    self.repair().await;
                }
                _ = verify.tick() => {
                    let _step = pulse.step();
                    self.repair().await;
                }
                () = ordered(&mut orders) => {
                    let _step = pulse.step();
                    self.repair().await;
                }
                () = ordered(&mut silent) => {
                    let _step = pulse.step();
                    self.repair().await;
                }
                () = until(self.again) => {
                    let _step = pulse.step();
                    self.repair().await;
                }
            }
        }
    }

    /// Tries a new target.
    async fn take(&mut self, target: Arc<Target>) {
        let is_fallback = |running: &(Arc<Prepared>, Fit)| running.0.target.tag.is_none();
        let is_any_in_force = self.control().map_or(true, |control| control != Control::UNPUBLISHED)
            && !self.running.as_ref().is_some_and(is_fallback);
        if target.tag.is_none() && is_any_in_force {
            return;
        }
        let prepared = Prepared { protected: Protected::of(&target), target };
        self.attempt(Arc::new(prepared)).await;
        self.observe().await;
    }

    /// Tries a target, and reports what became of it.
    async fn attempt(&mut self, prepared: Arc<Prepared>) {
        let tag = prepared.target.tag;
        self.pending = None;
        match self.apply(&prepared).await {
            Ok(Published { control, rules, fit, trouble }) => {
                warn(self.report.applied(tag, control, &rules, trouble));
                self.running = Some((prepared, fit));
            }
            Err(error) => {
                let retrying = error.is_transient();
                let reason = error.to_string();
                if tag.is_none_or(|tag| self.report.refused(Refusal { tag, reason, retrying })) {
                    tracing::warn!(%error, retrying, "target not applied");
                }
                self.pending = retrying.then(|| (prepared, Instant::now() + BETWEEN_ATTEMPTS));
                let _known_to_the_next_look = self.keep_running().await;
            }
        }
        self.finish().await;
    }

    /// Makes a target the one in force. Policy does not wait for the network: what netlink refuses is told and tried
    /// again, and leads to addresses that cannot be reached, never to ones that are less guarded. Only where nothing is
    /// in force yet everything that can fail comes before the one store, since there is no device to enforce on.
    async fn apply(&mut self, prepared: &Prepared) -> Result<Published, KernelError> {
        let settings = &prepared.target.state.settings;
        let inventory = self.network.inventory().await?;
        let fit = self.network.fit(settings, &prepared.protected, self.held(), &inventory).await?;
        let desired = self.network.desired(settings, &fit.prefixes, &inventory);
        let set = self.programs.set();
        let (state, prefixes) = (Arc::clone(&prepared.target.state), fit.prefixes.clone());
        let mtu = mtu(&desired);
        let (nic, silent) = (fit.nic.clone(), Arc::clone(&fit.silent));
        self.network.governs_nics(nic.is_some());
        let mut lowering = std::mem::take(&mut self.lowering);
        let (changed, rules, choices);
        (changed, rules, choices, self.lowering) = self
            .publisher(move |publisher| {
                let around = Around { nic: nic.as_ref(), silent };
                let Lowered { contents, rules, choices } = lowering.lower(&state, &prefixes, mtu, &around);
                let runs = publisher.runs(&contents);
                let changed = !runs || publisher.control().program_set() != set;
                if changed {
                    publisher.prepare(&contents)?;
                } else {
                    publisher.share(&contents);
                }
                Ok((changed, rules, choices, lowering))
            })
            .await?;
        let raised = self.network.raise(&desired, settings.role).await;
        self.report.reattached(self.network.take_reattached());
        // The guard knows what to guard only after the first publication, so no address may be there before it.
        let first = self.control()? == Control::UNPUBLISHED;
        let added = if first {
            raised?;
            self.commit(set).await?;
            self.network.add(&desired).await
        } else {
            // Without its hooks the device stays down.
            let added = if raised.is_ok() { self.network.add(&desired).await } else { raised };
            if changed {
                self.commit(set).await?;
            }
            added
        };
        let removed = self.network.remove(&desired).await;
        self.report.chooses_among(choices);
        self.mtu = mtu;
        let trouble = trouble(&fit, added.and(removed).err().as_ref());
        Ok(Published { control: self.control()?, rules, fit, trouble })
    }

    /// The prefixes in force.
    fn held(&self) -> &[IpNet] {
        self.running.as_ref().map_or(&[], |(_, fit)| &fit.prefixes)
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
        let began = Instant::now();
        self.again = None;
        match self.pending.take() {
            Some((pending, from)) if from <= began => self.attempt(pending).await,
            pending => {
                // The change may be what it waits for, and the only one.
                self.again = pending.as_ref().map(|(_, from)| *from + BETWEEN_ATTEMPTS);
                self.pending = pending;
                // This host takes another part of the same target now.
                if let Some(running) = self.keep_running().await {
                    let waiting = self.pending.take();
                    self.attempt(running).await;
                    self.pending = waiting.or(self.pending.take());
                }
            }
        }
        self.observe().await;
        self.report.looked(began.elapsed());
        self.rest_until = Instant::now() + BETWEEN_LOOKS.max(began.elapsed() * REST);
    }

    /// Sees to the network of the target in force, and returns it where this host takes another part of it now. Before
    /// the first one, what an earlier process left keeps its hooks; so does what a leave could not remove.
    async fn keep_running(&mut self) -> Option<Arc<Prepared>> {
        let (mut anew, mut fit, mut is_urgent) = (None, Fit::default(), false);
        let repaired = if let Some((running, known)) = self.running.clone() {
            let repaired = self.repair_network(&running, &known).await;
            fit = known;
            repaired.map(|part| {
                is_urgent = part == Part::OtherNics;
                anew = (part != Part::Same).then_some(running);
            })
        } else if self.leaving {
            self.network.secure_device().await
        } else if self.control().is_ok_and(|control| control != Control::UNPUBLISHED) {
            self.network.secure().await
        } else {
            Ok(())
        };
        self.report.reattached(self.network.take_reattached());
        warn(self.report.trouble(trouble(&fit, repaired.err().as_ref())));
        anew.filter(|_| is_urgent || self.pending.is_none())
    }

    /// Repairs the network as it is in force; tells which part of the target this host would take now. What is ordered
    /// about NICs waits for nothing.
    async fn repair_network(&mut self, running: &Prepared, fit: &Fit) -> Result<Part, KernelError> {
        let settings = &running.target.state.settings;
        let inventory = self.network.inventory().await?;
        let now = self.network.fit(settings, &running.protected, &fit.prefixes, &inventory).await;
        if now.as_ref().is_ok_and(|now| now.nic != fit.nic) {
            return Ok(Part::OtherNics);
        }
        let desired: Desired = self.network.desired(settings, &fit.prefixes, &inventory);
        self.network.raise(&desired, settings.role).await?;
        self.network.add(&desired).await?;
        self.network.remove(&desired).await?;
        let is_same = now? == *fit && mtu(&desired) == self.mtu;
        Ok(if is_same { Part::Same } else { Part::Other })
    }

    /// Reports what is there now.
    async fn observe(&mut self) {
        let inventory = match self.network.inventory().await {
            Ok(inventory) => inventory,
            Err(error) => {
                warn(self.report.trouble(Some(error.to_string())));
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
            (warnings, self.nic_status()),
        );
    }

    fn nic_status(&self) -> Option<NicStatus> {
        let nic = self.running.as_ref()?.1.nic.as_ref()?;
        Some(NicStatus {
            policy: Arc::clone(&nic.policy),
            devices: nic.devices.values().cloned().collect(),
            audit: nic.audit,
            deadline: nic.deadline,
            open: nic.open.clone(),
        })
    }

    fn warnings(&self, inventory: &Inventory) -> Vec<String> {
        let mut warnings = self.network.warnings(inventory);
        if let Some((running, fit)) = &self.running {
            warnings.extend(self.network.shortcomings(&running.target.state.settings));
            let doubtful = fit.doubtful.iter();
            warnings.extend(doubtful.map(|reason| format!("the network changed under the mesh: {reason}")));
        }
        warnings
    }

    async fn leave(&mut self) -> Result<Vec<String>, KernelError> {
        let removed = removal::remove_ours(&self.config).await;
        (self.running, self.pending, self.leaving) = (None, None, true);
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

/// The next change of the network, not before the rest is over.
/// The MTU that the mesh device has to have.
fn mtu(desired: &Desired) -> u32 {
    desired.device.as_ref().map_or(0, |device| device.mtu)
}

async fn next_change(changes: &mut Option<Changes>, rest_until: Instant) -> Option<()> {
    match changes {
        Some(changes) => {
            sleep_until(rest_until).await;
            changes.next().await
        }
        None => std::future::pending().await,
    }
}

/// Whoever watches over the NICs, or over transit nodes, decided something; never, where nobody does.
async fn ordered<T>(orders: &mut watch::Receiver<Arc<T>>) {
    if orders.changed().await.is_err() {
        std::future::pending::<()>().await;
    }
    orders.mark_unchanged();
}

/// Never, without a time.
async fn until(time: Option<Instant>) {
    match time {
        Some(time) => sleep_until(time).await,
        None => std::future::pending().await,
    }
}

fn warn(news: Option<String>) {
    if let Some(trouble) = news {
        tracing::warn!(trouble, "policy is in force, the network is not as it should be");
    }
}

/// What the network lacks, in one sentence.
fn trouble(fit: &Fit, error: Option<&KernelError>) -> Option<String> {
    let reasons: Vec<String> =
        error.map(ToString::to_string).into_iter().chain(fit.missing.clone()).collect();
    (!reasons.is_empty()).then(|| reasons.join("; "))
}
