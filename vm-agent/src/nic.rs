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
use tokio::time::{Instant, sleep, sleep_until, timeout};

use crate::agent::Agent;
use crate::failsafe::Failsafes;
use crate::kernel::NicOrders;
use crate::member::Member;

mod fallback;
mod record;

pub use record::{Digest, Record};

/// Between two attempts to reach a gateway.
const BETWEEN_PROBES: Duration = Duration::from_millis(500);
/// A probe takes no longer.
const PROBE: Duration = Duration::from_secs(1);
/// How much later than this process the kernel gives up.
const GRACE: Duration = Duration::from_secs(2);
/// Within this time the kernel takes over what it is told.
const APPLIED: Duration = Duration::from_secs(10);

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
    pub fn of(record: Record, failsafes: &Failsafes) -> Self {
        let record = record.at_start(failsafes);
        let orders = NicOrders { confirmed: record.confirmed(), trial: None, audit: false };
        Self {
            orders: watch::Sender::new(Arc::new(orders)),
            record: watch::Sender::new(record),
            outcome: watch::Sender::default(),
        }
    }
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

/// Has policy only reported for so long; ends that with zero.
///
/// # Errors
/// When it cannot be written down.
pub fn audit_for(agent: &Agent, time: Duration) -> Result<u64, String> {
    let until = if time.is_zero() { 0 } else { agent.now().as_secs() + time.as_secs() };
    let known = agent.nic.record.borrow().clone();
    let record = Record { audit_until: until, ..known };
    save(agent, record)?;
    if until == 0 {
        tracing::warn!("an administrator has policy on the NICs enforced again");
    } else {
        tracing::warn!(until, "an administrator has policy on the NICs only reported");
    }
    Ok(until)
}

fn save(agent: &Agent, record: Record) -> Result<(), String> {
    let _writing = agent.writing.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
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
            if let Some(version) = version {
                let settings = &version.state.settings;
                if self.see_to(settings, &record).await {
                    continue;
                }
            }
            tokio::select! {
                changed = running.changed() => if changed.is_err() { return },
                changed = records.changed() => if changed.is_err() { return },
                () = self.end_of_audit(&record) => {}
            }
        }
    }

    /// Returns when the time is over in which policy is only reported.
    async fn end_of_audit(&self, record: &Record) {
        let now = self.agent.now().as_secs();
        match record.audit_until {
            until if until > now => sleep(Duration::from_secs(until - now)).await,
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
            if *record != Record::default() {
                // Another scope begins anew.
                return self.decide(Record { audit_until: record.audit_until, ..Record::default() })
                    && record.audit_until == 0;
            }
            return false;
        };
        if let Some(until) = audit_until {
            self.tell(Phase::Audit, "an administrator of this host has it only reported".to_owned(), until);
            return false;
        }
        if nic.mode == Mode::Audit || settings.mode == Mode::Audit {
            self.tell(Phase::Audit, "what policy denies is only reported".to_owned(), 0);
            return false;
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
        self.try_out(digest, nic, settings.tunnel_port, record).await;
        true
    }

    /// Enforces a policy with a deadline, and confirms or reverts it.
    async fn try_out(&self, digest: Digest, nic: &Nic, tunnel_port: u16, record: &Record) {
        let within = self.agent.config.confirm_within;
        if !self.decide(record.trying(digest, &self.agent.config.failsafes)) {
            // What cannot be remembered is not begun; the disk may have room later.
            return sleep(within).await;
        }
        let ends = Instant::now() + within;
        let deadline = deadline(within + GRACE);
        self.tell(
            Phase::Trial,
            format!("enforced for {} s; it stays if gateways can still be reached then", within.as_secs()),
            0,
        );
        tracing::warn!(?within, "policy on the NICs is tried");
        self.order(|orders| orders.trial = Some((digest, deadline)));
        let outcome = self.watch(deadline, ends).await;
        let record = self.agent.nic.record.borrow().clone();
        match outcome {
            Ok(()) => {
                tracing::info!("policy on the NICs is confirmed");
                let confirmed = record.confirming(&nic.policy, tunnel_port);
                if !self.decide(confirmed) {
                    self.decide(record.rejecting(digest, "the confirmation could not be written down"));
                }
            }
            Err(reason) => {
                tracing::error!(reason, "policy on the NICs is reverted");
                self.agent.nic.outcome.send_modify(|outcome| outcome.reverted += 1);
                self.decide(record.rejecting(digest, &reason));
            }
        }
    }

    /// Until the time is over: whether gateways can be reached at its end, by new connections too.
    async fn watch(&self, deadline: u32, ends: Instant) -> Result<(), String> {
        let mut status = self.member.kernel.status();
        let runs = status.wait_for(|status| status.nic.as_ref().is_some_and(|nic| nic.deadline == deadline));
        if timeout(APPLIED, runs).await.is_err() {
            return Err("the kernel did not take the policy".to_owned());
        }
        let mut last = self.probe().await;
        while Instant::now() < ends {
            sleep_until(ends.min(Instant::now() + BETWEEN_PROBES)).await;
            last = self.probe().await;
        }
        last?;
        if self.agent.report().session.connected {
            Ok(())
        } else {
            Err("the session with the gateway is lost".to_owned())
        }
    }

    /// Whether a gateway takes a new connection.
    async fn probe(&self) -> Result<(), String> {
        let dialer = self.agent.dialer();
        let mut reasons = Vec::new();
        for gateway in self.agent.gateways(&self.member.enrolment().gateways) {
            match timeout(PROBE, dialer.probe(&gateway)).await {
                Ok(Ok(())) => return Ok(()),
                Ok(Err(reason)) => reasons.push(format!("{gateway}: {reason}")),
                Err(_elapsed) => reasons.push(format!("{gateway}: no answer")),
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
    fn decide(&self, record: Record) -> bool {
        let saved = save(self.agent, record);
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
