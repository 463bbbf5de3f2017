//! What is told about kernel state, as latest values.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use datapath::abi::Control;
use tokio::sync::watch;

use super::{
    Applied, DeviceStatus, HookStatus, KernelStatus, NicStatus, Refusal, RuleNames, Tag, TransitNodes,
};

/// The sending ends.
pub(super) struct Report {
    applied: watch::Sender<Applied>,
    status: watch::Sender<KernelStatus>,
    rules: watch::Sender<RuleNames>,
    transit_nodes: watch::Sender<TransitNodes>,
    /// The rules of the publication in force; `rules` has those of the one before as well, whose events may still
    /// be on their way.
    current_rules: RuleNames,
}

/// The receiving ends.
#[derive(Clone)]
pub(super) struct Receivers {
    pub(super) applied: watch::Receiver<Applied>,
    pub(super) status: watch::Receiver<KernelStatus>,
    pub(super) rules: watch::Receiver<RuleNames>,
    pub(super) transit_nodes: watch::Receiver<TransitNodes>,
}

impl Report {
    pub(super) fn new(epoch: u32) -> (Self, Receivers) {
        let (applied, applied_receiver) = watch::channel(Applied { epoch, ..Applied::default() });
        let (status, status_receiver) = watch::channel(KernelStatus::default());
        let (rules, rules_receiver) = watch::channel(RuleNames::default());
        let (transit_nodes, transit_receiver) = watch::channel(TransitNodes::default());
        let receivers = Receivers {
            applied: applied_receiver,
            status: status_receiver,
            rules: rules_receiver,
            transit_nodes: transit_receiver,
        };
        (Self { applied, status, rules, transit_nodes, current_rules: RuleNames::default() }, receivers)
    }

    /// A target is in force, but for what the network lacks of it; returns that if it is news.
    pub(super) fn applied(
        &mut self,
        tag: Option<Tag>,
        control: Control,
        rules: &RuleNames,
        trouble: Option<String>,
    ) -> Option<String> {
        if *rules != self.current_rules {
            let mut known = BTreeMap::clone(&self.current_rules);
            known.extend(rules.iter().map(|(id, name)| (*id, Arc::clone(name))));
            self.current_rules = Arc::clone(rules);
            self.rules.send_replace(Arc::new(known));
        }
        let is_news = self.applied.borrow().trouble != trouble;
        let news = trouble.clone().filter(|_| is_news);
        self.set_applied(Applied { tag, epoch: control.epoch(), refused: None, trouble });
        news
    }

    /// The transit nodes that this node chooses among.
    pub(super) fn chooses_among(&self, nodes: TransitNodes) {
        self.transit_nodes.send_if_modified(|known| {
            let is_new = *known != nodes;
            *known = nodes;
            is_new
        });
    }

    /// Tells whether this refusal is news.
    pub(super) fn refused(&mut self, refusal: Refusal) -> bool {
        let known = self.applied.borrow().clone();
        let applied = Applied { refused: Some(refusal), ..known.clone() };
        let is_news = applied != known;
        self.set_applied(applied);
        is_news
    }

    /// A look at the network is over. Nobody has to be told at once.
    pub(super) fn looked(&mut self, took: Duration) {
        self.status.send_if_modified(|status| {
            status.looks += 1;
            status.looking += took;
            false
        });
    }

    pub(super) fn published(&mut self) {
        self.status.send_modify(|status| status.publications += 1);
    }

    pub(super) fn reattached(&mut self, count: u64) {
        if count > 0 {
            self.status.send_modify(|status| status.reattached += count);
        }
    }

    /// What the network lacks; `None` when nothing. Returns it if it is news.
    pub(super) fn trouble(&mut self, trouble: Option<String>) -> Option<String> {
        let known = self.applied.borrow().clone();
        if known.trouble == trouble {
            return None;
        }
        self.set_applied(Applied { trouble: trouble.clone(), ..known });
        trouble
    }

    pub(super) fn observed(
        &mut self,
        device: Option<DeviceStatus>,
        hooks: Vec<HookStatus>,
        underlay: Vec<IpAddr>,
        entries: BTreeMap<&'static str, usize>,
        epoch: u32,
        (warnings, nic): (Vec<String>, Option<NicStatus>),
    ) {
        self.status.send_if_modified(|status| {
            let next = KernelStatus { device, hooks, entries, underlay, warnings, nic, ..status.clone() };
            let next = KernelStatus { applied: Applied { epoch, ..next.applied.clone() }, ..next };
            let changed = *status != next;
            *status = next;
            changed
        });
    }

    /// Everything was removed, or what is left of it is unknown.
    pub(super) fn left(&mut self, all: bool) {
        if all {
            self.set_applied(Applied::default());
            self.status.send_replace(KernelStatus::default());
        }
    }

    fn set_applied(&mut self, applied: Applied) {
        self.status.send_modify(|status| status.applied = applied.clone());
        self.applied.send_if_modified(|known| {
            let changed = *known != applied;
            *known = applied;
            changed
        });
    }
}
