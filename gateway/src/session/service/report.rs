//! What hosts report about themselves, checked and recorded.

use std::net::IpAddr;
use std::sync::Arc;

use proto::v1::HostReport;

use crate::store::{Report, Store, StoreError, Workload, WorkloadError};

/// More underlay addresses than any host has.
const MAX_ADDRESSES: usize = 64;

/// A report that is not recorded.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum InvalidReport {
    /// It has too many addresses.
    #[error("{0} underlay addresses; at most {MAX_ADDRESSES} are accepted")]
    Count(usize),
    /// It has something that is no address.
    #[error("{0}")]
    Address(String),
    /// The connection comes from somewhere else: what the host reports before is left as it is.
    #[error(
        "the session comes from {remote}, but the host reports {reported}: there is NAT between, which plain VXLAN cannot cross. If the host does have {remote}, set `underlayAddresses` in agent.yaml; until then the addresses reported before count"
    )]
    Translated {
        /// Where the connection comes from.
        remote: IpAddr,
        /// What the host reports.
        reported: String,
    },
}

/// Where a session comes from.
#[derive(Clone, Copy, Debug)]
pub(super) struct Origin {
    source: Option<IpAddr>,
    /// A cluster node is believed: its cluster may put another address in the place of its own, as kube-proxy does on the
    /// way to a Service, and tunnels do not go that way.
    may_differ: bool,
}

impl Origin {
    /// That of a workload's session, whose connection comes from `source`.
    pub(super) fn of(workload: &Workload, source: Option<IpAddr>) -> Self {
        Self { source, may_differ: workload.joined_by_account() }
    }
}

/// The report, if there is one. Addresses that no tunnel packet can come from are left out. Where the connection
/// comes from must be among the rest, as it must for joining: one address of one family is enough for a host that has
/// several, since only what stands between could change it.
///
/// # Errors
/// [`InvalidReport`].
pub(super) fn read(
    agent_version: &str,
    report: Option<&HostReport>,
    origin: Origin,
) -> Result<Option<Report>, InvalidReport> {
    let Some(report) = report else { return Ok(None) };
    let count = report.underlay_addresses.len();
    if count > MAX_ADDRESSES {
        return Err(InvalidReport::Count(count));
    }
    let mut underlay = Vec::new();
    for bytes in &report.underlay_addresses {
        let address = proto::convert::address_from_wire(bytes)
            .map_err(|error| InvalidReport::Address(error.to_string()))?
            .to_canonical();
        if is_usable(address) && !underlay.contains(&address) {
            underlay.push(address);
        }
    }
    let Origin { source, may_differ } = origin;
    let proved = source.filter(|source| underlay.contains(source));
    if let Some(remote) = source.filter(|_| proved.is_none() && !may_differ) {
        let reported = crate::audit::text(&underlay).join(", ");
        return Err(InvalidReport::Translated {
            remote,
            reported: if reported.is_empty() { "none that is usable".to_owned() } else { reported },
        });
    }
    Ok(Some(Report { underlay, source: proved, agent_version: agent_version.chars().take(64).collect() }))
}

/// Records a report; nothing is written where nothing changed.
///
/// # Errors
/// [`WorkloadError`] where the workload is gone or was replaced, or the store failed.
pub(super) async fn record(
    store: &Arc<Store>,
    workload: &Arc<Workload>,
    report: Report,
) -> Result<(), WorkloadError> {
    if store.is_reported(&workload.name, workload.key, &report)? {
        return Ok(());
    }
    let (store, workload) = (Arc::clone(store), Arc::clone(workload));
    let recorded =
        tokio::task::spawn_blocking(move || store.report(&workload.name, workload.key, &report)).await;
    recorded.unwrap_or_else(|error| Err(StoreError::Database(error.to_string()).into()))
}

fn is_usable(address: IpAddr) -> bool {
    let link_local = match address {
        IpAddr::V4(v4) => v4.is_link_local() || v4.is_broadcast(),
        IpAddr::V6(v6) => v6.is_unicast_link_local(),
    };
    !(address.is_unspecified() || address.is_loopback() || address.is_multicast() || link_local)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn from(source: Option<IpAddr>) -> Origin {
        Origin { source, may_differ: false }
    }

    #[test]
    fn only_addresses_that_tunnels_can_come_from_count_each_once() {
        let texts =
            ["10.0.0.1", "127.0.0.1", "::1", "fe80::1", "224.0.0.1", "0.0.0.0", "fd00::1", "10.0.0.1"];
        let addresses = texts.map(|text| proto::convert::address_to_wire(text.parse().unwrap()));
        let report = HostReport { underlay_addresses: addresses.to_vec(), ..HostReport::default() };
        let underlay = read("1", Some(&report), from(None)).unwrap().unwrap().underlay;
        assert_eq!(underlay, ["10.0.0.1", "fd00::1"].map(|text| text.parse::<IpAddr>().unwrap()));
    }

    #[test]
    fn what_is_no_address_and_floods_are_refused() {
        let report = |addresses| HostReport { underlay_addresses: addresses, ..HostReport::default() };
        assert!(read("1", Some(&report(vec![vec![1, 2, 3]])), from(None)).is_err());
        assert!(read("1", Some(&report(vec![vec![10, 0, 0, 1]; 65])), from(None)).is_err());
    }

    #[test]
    fn the_session_must_come_from_a_reported_address_of_any_family() {
        let texts = ["10.0.0.1", "192.0.2.1", "fd00::1"];
        let addresses = texts.map(|text| proto::convert::address_to_wire(text.parse().unwrap()));
        let report = HostReport { underlay_addresses: addresses.to_vec(), ..HostReport::default() };
        for source in texts {
            let source = Some(source.parse().unwrap());
            assert_eq!(read("1", Some(&report), from(source)).unwrap().unwrap().source, source);
        }
        let refused = read("1", Some(&report), from(Some("198.51.100.7".parse().unwrap()))).unwrap_err();
        let text = refused.to_string();
        assert!(matches!(refused, InvalidReport::Translated { .. }), "{refused:?}");
        assert!(text.contains("198.51.100.7") && text.contains("10.0.0.1"), "{text}");
        let empty = HostReport::default();
        assert!(read("1", Some(&empty), from(Some("10.0.0.1".parse().unwrap()))).is_err());
        assert_eq!(read("1", None, from(Some("10.0.0.1".parse().unwrap()))), Ok(None));
    }

    #[test]
    fn a_cluster_node_may_come_from_elsewhere_and_then_proves_nothing() {
        let wire = proto::convert::address_to_wire("10.0.0.1".parse().unwrap());
        let report = HostReport { underlay_addresses: vec![wire], ..HostReport::default() };
        let of = |from: &str| {
            read("1", Some(&report), Origin { source: Some(from.parse().unwrap()), may_differ: true })
                .unwrap()
                .unwrap()
        };
        assert_eq!((of("198.51.100.7").source, of("198.51.100.7").underlay.len()), (None, 1));
        assert_eq!(of("10.0.0.1").source, Some("10.0.0.1".parse().unwrap()));
    }
}
