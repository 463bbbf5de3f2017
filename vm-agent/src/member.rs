//! A membership in the mesh while it is brought up: the kernel's owner, the credentials, the newest state.

use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use config::HostPort;
use hostnet::{Kernel as _, Netlink};
use pki::UnixTime;
use proto::node::Node;
use proto::v1;
use tokio::sync::watch;
use tokio::time::Instant;

use crate::agent::Agent;
use crate::credentials::Credentials;
use crate::kernel::{Kernel, Tag, Target};
use crate::session::Version;
use crate::state_dir::{Enrolment, InvalidSnapshot, Snapshot};

/// A membership.
pub struct Member {
    /// The handle to the owner of kernel state.
    pub kernel: Kernel,
    /// What the kernel shall run.
    pub targets: watch::Sender<Option<Arc<Target>>>,
    /// The state of the previous run, which the kernel is given first.
    pub restored: Option<Version>,
    /// What this host shows to gateways; `None` where it cannot be read: enforcement goes on without.
    pub credentials: watch::Sender<Option<Arc<Credentials>>>,
    /// When the certificate is to be renewed although it is still good.
    pub renewal: watch::Sender<Option<Instant>>,
    /// What the kernel runs.
    pub running: watch::Sender<Option<Version>>,
    /// The generation that a restart would begin with, or that could not be written to the disk.
    pub recorded: watch::Sender<Option<Tag>>,
    /// A time that has certainly passed.
    pub not_earlier: UnixTime,
    enrolment: Mutex<Enrolment>,
}

impl Member {
    /// A membership with nothing running yet.
    #[must_use]
    pub fn new(
        (kernel, targets): (Kernel, watch::Sender<Option<Arc<Target>>>),
        enrolment: Enrolment,
        credentials: Option<Credentials>,
        restored: Option<(Version, UnixTime)>,
    ) -> Self {
        let not_earlier = restored.as_ref().map(|(_, saved)| *saved);
        let recorded = restored.as_ref().map(|(version, _)| version.tag);
        Self {
            kernel,
            targets,
            restored: restored.map(|(version, _)| version),
            credentials: watch::Sender::new(credentials.map(Arc::new)),
            renewal: watch::Sender::new(None),
            running: watch::Sender::new(None),
            recorded: watch::Sender::new(recorded),
            not_earlier: not_earlier.unwrap_or(UnixTime::since_unix_epoch(Duration::ZERO)),
            enrolment: Mutex::new(enrolment),
        }
    }

    /// Has the certificate renewed after this time, or when that was asked for earlier.
    pub fn renew_in(&self, wait: Duration) {
        let due = Instant::now() + wait;
        self.renewal.send_if_modified(|renewal| {
            let earlier = renewal.is_none_or(|renewal| due < renewal);
            if earlier {
                *renewal = Some(due);
            }
            earlier
        });
    }

    /// Waits so long, or until there are other credentials: who has another key is not refused for the old one.
    pub async fn rest(&self, wait: Duration) {
        let mut credentials = self.credentials.subscribe();
        let _elapsed = tokio::time::timeout(wait, credentials.changed()).await;
    }

    /// What the join gave this host, as it stands now.
    #[must_use]
    pub fn enrolment(&self) -> Enrolment {
        self.enrolment.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Changes the enrolment; returns it if that made a difference.
    pub fn change_enrolment(&self, change: impl FnOnce(&mut Enrolment)) -> Option<Enrolment> {
        let mut enrolment = self.enrolment.lock().unwrap_or_else(PoisonError::into_inner);
        let before = enrolment.clone();
        change(&mut enrolment);
        (*enrolment != before).then(|| enrolment.clone())
    }
}

impl std::fmt::Debug for Member {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Member").field("workload", &self.enrolment().workload).finish_non_exhaustive()
    }
}

/// The addresses that tunnel packets of this host may come from, preferred first: those of the configuration, else
/// those that the host has.
///
/// # Errors
/// What netlink says.
pub async fn underlay(agent: &Agent) -> std::io::Result<Vec<IpAddr>> {
    if !agent.config.underlay_addresses.is_empty() {
        return Ok(agent.config.underlay_addresses.clone());
    }
    let inventory = Netlink::connect()?.inventory().await?;
    Ok(hostnet::underlay_addresses(&inventory, &agent.config.device.to_string()))
}

/// What the host says about itself.
#[must_use]
pub fn host_report(underlay: &[IpAddr]) -> v1::HostReport {
    let kernel = nix::sys::utsname::uname().ok();
    let release = std::fs::read_to_string("/etc/os-release").unwrap_or_default();
    let pretty = release.lines().find_map(|line| line.strip_prefix("PRETTY_NAME="));
    v1::HostReport {
        underlay_addresses: underlay
            .iter()
            .map(|&address| proto::convert::address_to_wire(address))
            .collect(),
        kernel: kernel.map(|uts| uts.release().to_string_lossy().into_owned()).unwrap_or_default(),
        nic: None,
        probes: None,
        operating_system: pretty.unwrap_or_default().trim_matches('"').to_owned(),
    }
}

/// The gateways whose names are addresses, with what they are: known without a resolver, which at boot may not be there.
#[must_use]
pub fn literal_addresses(gateways: &[String]) -> Vec<(String, IpAddr)> {
    let literal = |name: &String| {
        let host = name.parse::<HostPort>().ok()?.host().parse().ok()?;
        Some((format!("gateway {name}"), host))
    };
    gateways.iter().filter_map(literal).collect()
}

/// Reads the last good state.
///
/// # Errors
/// The reason, as one sentence: nothing of a damaged snapshot is used.
pub fn restore(agent: &Agent) -> Result<Option<(Version, UnixTime)>, String> {
    let snapshot = Snapshot::load(&agent.state).map_err(|error: InvalidSnapshot| error.to_string())?;
    let Some(Snapshot { tag, saved, parts }) = snapshot else { return Ok(None) };
    let mut node = Node::default();
    node.apply(&parts).map_err(|error| format!("the snapshot of the last good state: {error}"))?;
    let version = Version::try_new(tag, node)
        .map_err(|error| format!("the snapshot of the last good state: {error}"))?;
    Ok(Some((version, UnixTime::since_unix_epoch(Duration::from_secs(saved)))))
}
