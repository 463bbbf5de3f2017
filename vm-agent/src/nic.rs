//! Who watches over policy on the NICs: nothing is enforced there for good that was not seen to leave the gateway
//! reachable.
//!
//! A policy that is to be enforced and is not confirmed is tried: it is enforced with a deadline that the kernel's
//! programs know, so that they only report once it has passed, whatever becomes of this process. If gateways answer
//! new connections at the end, and the session is open, the policy is confirmed; else the last confirmed one comes back
//! and this one is not tried again. What was decided is on disk before it counts.

use std::sync::Arc;
use std::time::Duration;

use policy::state::{Mode, Nic, NodeSettings};
use tokio::sync::watch;
use tokio::task::{JoinSet, spawn_blocking};
use tokio::time::{Instant, sleep, sleep_until, timeout};

use crate::agent::Agent;
use crate::failsafe::Failsafes;
use crate::kernel::{HookStatus, NicOrders};
use crate::member::Member;

mod fallback;
mod record;

pub use record::{Digest, Record};

/// Between two attempts to reach a gateway.
const BETWEEN_PROBES: Duration = Duration::from_millis(500);
/// A probe takes no longer.
const PROBE: Duration = Duration::from_secs(1);
/// How often the time is looked at while policy is only reported.
const LOOK: Duration = Duration::from_mins(1);
/// Within this time the kernel takes over what it is told.
const APPLIED: Duration = Duration::from_secs(5);
/// How much later than this process the kernel gives up: the policy is to be taken over, and the last probe to end.
const GRACE: Duration = Duration::from_secs(8);

/// What is known about policy on the NICs.
#[derive(Debug)]
pub struct Watched {
    /// What the kernel is told.
    pub orders: watch::Sender<Arc<NicOrders>>,
    /// What is on disk.
    pub record: watch::Sender<Record>,
    /// What is told about it.
    pub outcome: watch::Sender<Outcome>,
}

/// What became of the policy on the NICs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    /// Where it stands.
    pub phase: Phase,
    /// A sentence for people.
    pub message: String,
    /// How many policies were reverted since the start.
    pub reverted: u64,
    /// Until when an administrator has policy only reported, seconds since 1970; 0 = not.
    pub audit_until: u64,
}

/// Where the policy on the NICs stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Phase {
    /// Policy does not govern them.
    #[default]
    Off,
    /// What it denies is only reported.
    Audit,
    /// It is being tried.
    Trial,
    /// It is enforced.
    Enforce,
    /// It cut the host off, and another one is in force, or none.
    Reverted,
}

impl Phase {
    /// The word of the interface.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Off => "off",
            Self::Audit => "audit",
            Self::Trial => "trial",
            Self::Enforce => "enforce",
            Self::Reverted => "reverted",
        }
    }
}

impl Watched {
    /// Of what an earlier process left on disk. A trial that was under way then has failed: that process did not live to
    /// confirm it. With other failsafes everything is tried anew.
    #[must_use]
    pub fn of(record: Record, failsafes: &Failsafes, now: u64) -> Self {
        let record = record.at_start(failsafes);
        let orders =
            NicOrders { confirmed: record.confirmed(), trial: None, audit: record.audit_until > now };
        Self {
            orders: watch::Sender::new(Arc::new(orders)),
            record: watch::Sender::new(record),
            outcome: watch::Sender::default(),
        }
    }

    /// Forgets everything: this host is no member any more.
    pub fn forget(&self) {
        self.record.send_replace(Record::default());
        self.orders.send_replace(Arc::default());
        self.outcome
            .send_modify(|outcome| *outcome = Outcome { reverted: outcome.reverted, ..Outcome::default() });
    }
}

/// How a trial ended.
enum End {
    /// The host can still be reached.
    Confirmed,
    /// It cannot, and why that is thought.
    Reverted(String),
    /// Something else is wanted by now.
    Superseded,
}

/// Watches over the NICs of whoever this host is.
pub async fn run(agent: Arc<Agent>) {
    let mut members = agent.member.subscribe();
    loop {
        let member = members.borrow_and_update().clone();
        let watching = async {
            match &member {
                Some(member) => Keeper { agent: &agent, member }.run().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = watching => {}
            changed = members.changed() => {
                if changed.is_err() {
                    return;
                }
            }
        }
    }
}

/// Has policy only reported for so long, and returns when the kernel does; ends that with zero.
///
/// # Errors
/// When it cannot be written down: it holds then until the agent ends. When the kernel takes long.
pub async fn audit_for(agent: &Arc<Agent>, member: &Member, time: Duration) -> Result<u64, String> {
    let until = if time.is_zero() { 0 } else { agent.now().as_secs() + time.as_secs() };
    // At once, whatever else is under way.
    agent.nic.orders.send_modify(|orders| Arc::make_mut(orders).audit = until != 0);
    let writer = agent.clone();
    let saved = spawn_blocking(move || {
        save(&writer, |known| Record { audit_until: until, ..known.clone() }).inspect_err(|_not_saved| {
            writer.nic.record.send_modify(|known| known.audit_until = until);
        })
    });
    let saved = saved.await.map_err(|error| error.to_string())?;
    saved
        .map_err(|error| format!("it holds until the agent ends, and could not be written down: {error}"))?;
    if until == 0 {
        tracing::warn!("an administrator has policy on the NICs enforced again");
        return Ok(until);
    }
    tracing::warn!(until, "an administrator has policy on the NICs only reported");
    let mut status = member.kernel.status();
    let reports = status.wait_for(|status| status.nic.as_ref().is_none_or(|nic| nic.audit));
    match timeout(APPLIED, reports).await {
        Ok(Ok(_reports)) => Ok(until),
        Ok(Err(_)) | Err(_) => {
            Err("it is written down, and the kernel does not know of it yet: see `outrigger status`"
                .to_owned())
        }
    }
}

/// Writes down what becomes of what is known: an administrator and a trial may both have something to say.
fn save(agent: &Agent, change: impl FnOnce(&Record) -> Record) -> Result<(), String> {
    let _writing = agent.writing.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let record = change(&agent.nic.record.borrow());
    record.save(&agent.state).map_err(|error| error.to_string())?;
    agent.nic.record.send_replace(record);
    Ok(())
}

struct Keeper<'a> {
    agent: &'a Arc<Agent>,
    member: &'a Arc<Member>,
}

impl Keeper<'_> {
    async fn run(&self) {
        let mut running = self.member.running.subscribe();
        let mut records = self.agent.nic.record.subscribe();
        loop {
            let version = running.borrow_and_update().clone();
            let record = records.borrow_and_update().clone();
            match version {
                Some(version) if self.see_to(&version.state.settings, &record).await => continue,
                None if self.is_fallback() => {
                    let text = "the last confirmed policy: the last good state could not be read";
                    self.tell(Phase::Enforce, text.to_owned(), 0);
                }
                Some(_) | None => {}
            }
            tokio::select! {
                changed = running.changed() => if changed.is_err() { return },
                changed = records.changed() => if changed.is_err() { return },
                () = self.end_of_audit(&record) => {}
            }
        }
    }

    /// Whether what runs, if anything, is no state of a gateway.
    fn is_fallback(&self) -> bool {
        self.member.targets.borrow().as_ref().is_some_and(|target| target.tag.is_none())
    }

    /// Returns when the time is over in which policy is only reported.
    async fn end_of_audit(&self, record: &Record) {
        let now = self.agent.now().as_secs();
        match record.audit_until {
            // A clock that is set changes how long that is.
            until if until > now => sleep(Duration::from_secs(until - now).min(LOOK)).await,
            _ => std::future::pending().await,
        }
    }

    /// Brings the orders in line; whether something was decided, after which everything is looked at again.
    async fn see_to(&self, settings: &NodeSettings, record: &Record) -> bool {
        let audit_until = Some(record.audit_until).filter(|until| *until > self.agent.now().as_secs());
        self.order(|orders| {
            orders.audit = audit_until.is_some();
            orders.trial = None;
            orders.confirmed = record.confirmed();
        });
        let Some(nic) = &settings.nic else {
            self.tell(Phase::Off, String::new(), 0);
            return self.clear(record);
        };
        if let Some(until) = audit_until {
            self.tell(Phase::Audit, "an administrator of this host has it only reported".to_owned(), until);
            return false;
        }
        if nic.mode == Mode::Audit || settings.mode == Mode::Audit {
            self.tell(Phase::Audit, "what policy denies is only reported".to_owned(), 0);
            return self.clear(record);
        }
        let digest = Digest::of(&nic.policy);
        if record.is_confirmed(digest) {
            self.tell(Phase::Enforce, String::new(), 0);
            return false;
        }
        if let Some(reason) = record.rejected(digest) {
            self.tell(Phase::Reverted, reason.to_owned(), 0);
            return false;
        }
        self.try_out(digest, nic, settings.tunnel_port).await;
        true
    }

    /// Whoever enforces again begins anew; whether that was news.
    fn clear(&self, record: &Record) -> bool {
        let now = self.agent.now().as_secs();
        record.cleared(now) != *record && self.decide(|known| known.cleared(now))
    }

    /// Enforces a policy with a deadline, and confirms or reverts it.
    async fn try_out(&self, digest: Digest, nic: &Nic, tunnel_port: u16) {
        let within = self.agent.config.confirm_within;
        if !self.decide(|known| known.trying(digest, &self.agent.config.failsafes)) {
            // What cannot be remembered is not begun; the disk may have room later.
            return sleep(within).await;
        }
        let deadline = deadline(within + GRACE);
        self.tell(
            Phase::Trial,
            format!("enforced for {} s; it stays if gateways can still be reached then", within.as_secs()),
            0,
        );
        tracing::warn!(?within, "policy on the NICs is tried");
        self.order(|orders| orders.trial = Some((digest, deadline)));
        match self.watch(digest, deadline, within).await {
            End::Superseded => {
                tracing::info!("policy on the NICs is not tried any further: something else is wanted");
                self.decide(Record::untried);
            }
            End::Confirmed => {
                tracing::info!("policy on the NICs is confirmed");
                if !self.decide(|known| known.confirming(&nic.policy, tunnel_port)) {
                    let reason = "the confirmation could not be written down";
                    self.decide(|known| known.rejecting(digest, reason));
                }
            }
            End::Reverted(reason) => {
                tracing::error!(reason, "policy on the NICs is reverted");
                self.agent.nic.outcome.send_modify(|outcome| outcome.reverted += 1);
                self.decide(|known| known.rejecting(digest, &reason));
            }
        }
    }

    /// Until the time is over: whether gateways can be reached at its end, by new connections too.
    async fn watch(&self, digest: Digest, deadline: u32, within: Duration) -> End {
        let mut status = self.member.kernel.status();
        let runs = status.wait_for(|status| status.nic.as_ref().is_some_and(|nic| nic.deadline == deadline));
        if timeout(APPLIED, runs).await.is_err() {
            return if self.is_wanted(digest) {
                End::Reverted("the kernel did not take the policy".to_owned())
            } else {
                End::Superseded
            };
        }
        let ends = Instant::now() + within;
        let mut last = self.probe().await;
        while Instant::now() < ends {
            sleep_until(ends.min(Instant::now() + BETWEEN_PROBES)).await;
            if !self.is_wanted(digest) {
                return End::Superseded;
            }
            last = self.probe().await;
        }
        let status = self.member.kernel.status().borrow().clone();
        let Some(nic) = status.nic.filter(|nic| nic.deadline == deadline && !nic.audit) else {
            return End::Superseded;
        };
        if !self.is_wanted(digest) {
            return End::Superseded;
        }
        let is_open = |hook: &&HookStatus| {
            hook.attached.is_none() && hook.hook.starts_with("guard_") && nic.devices.contains(&hook.device)
        };
        if let Some(HookStatus { device, hook, .. }) = status.hooks.iter().find(is_open) {
            return End::Reverted(format!("{device} has no {hook}: nothing was tried there"));
        }
        match last {
            Err(reason) => End::Reverted(reason),
            // From then on the programs let everything pass: a probe says nothing.
            Ok(()) if self::deadline(Duration::ZERO) >= deadline => {
                End::Reverted("gateways did not answer in time".to_owned())
            }
            Ok(()) if self.agent.report().session.connected => End::Confirmed,
            Ok(()) => End::Reverted("the session with the gateway is lost".to_owned()),
        }
    }

    /// Whether this policy is still to be enforced.
    fn is_wanted(&self, digest: Digest) -> bool {
        let running = self.member.running.borrow().clone();
        let settings = running.as_ref().map(|version| &version.state.settings);
        settings.is_some_and(|settings| {
            settings.mode == Mode::Enforce
                && settings
                    .nic
                    .as_ref()
                    .is_some_and(|nic| nic.mode == Mode::Enforce && Digest::of(&nic.policy) == digest)
        }) && !self.agent.nic.orders.borrow().audit
    }

    /// Whether a gateway takes a new connection. All are asked at once: none of them may use up the time.
    async fn probe(&self) -> Result<(), String> {
        let dialer = self.agent.dialer();
        let mut probes = JoinSet::new();
        for gateway in self.agent.gateways(&self.member.enrolment().gateways) {
            let dialer = dialer.clone();
            probes.spawn(async move {
                match timeout(PROBE, dialer.probe(&gateway)).await {
                    Ok(Ok(())) => Ok(()),
                    Ok(Err(reason)) => Err(format!("{gateway}: {reason}")),
                    Err(_elapsed) => Err(format!("{gateway}: no answer")),
                }
            });
        }
        let mut reasons = Vec::new();
        while let Some(probed) = probes.join_next().await {
            match probed {
                Ok(Ok(())) => return Ok(()),
                Ok(Err(reason)) => reasons.push(reason),
                Err(error) => reasons.push(error.to_string()),
            }
        }
        Err(format!("no gateway can be reached: {}", reasons.join("; ")))
    }

    fn order(&self, change: impl FnOnce(&mut NicOrders)) {
        self.agent.nic.orders.send_if_modified(|known| {
            let mut orders = NicOrders::clone(known);
            change(&mut orders);
            let changed = **known != orders;
            if changed {
                *known = Arc::new(orders);
            }
            changed
        });
    }

    fn tell(&self, phase: Phase, message: String, audit_until: u64) {
        self.agent.nic.outcome.send_if_modified(|known| {
            let outcome = Outcome { phase, message, audit_until, reverted: known.reverted };
            let changed = *known != outcome;
            *known = outcome;
            changed
        });
    }

    /// Writes down what was decided; whether that worked.
    fn decide(&self, change: impl FnOnce(&Record) -> Record) -> bool {
        let saved = save(self.agent, change);
        if let Err(error) = &saved {
            tracing::error!(error, "what was decided about the NICs could not be written down");
        }
        saved.is_ok()
    }
}

/// The tick of the monotonic clock after so much time.
fn deadline(within: Duration) -> u32 {
    use nix::time::{ClockId, clock_gettime};
    let now = clock_gettime(ClockId::CLOCK_MONOTONIC).map_or(Duration::ZERO, Duration::from);
    let now_ns = u64::try_from(now.as_nanos()).unwrap_or(u64::MAX);
    let moment = datapath::Moment {
        hook: datapath::abi::Hook::GuardIngress,
        control: datapath::abi::Control::UNPUBLISHED,
        now_ns,
    };
    moment.tick() + datapath::ticks(u32::try_from(within.as_secs()).unwrap_or(u32::MAX))
}
