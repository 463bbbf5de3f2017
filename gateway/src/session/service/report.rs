//! What hosts report about themselves, checked and recorded.

use std::net::IpAddr;
use std::sync::Arc;

use proto::v1::HostReport;

use crate::store::{Report, Store, StoreError, Workload, WorkloadError};

/// More underlay addresses than any host has.
const MAX_ADDRESSES: usize = 64;

/// The report, if there is one. Addresses that no tunnel packet can come from are left out.
///
/// # Errors
/// A text that says what is wrong with it.
pub(super) fn read(agent_version: &str, report: Option<&HostReport>) -> Result<Option<Report>, String> {
    let Some(report) = report else { return Ok(None) };
    let count = report.underlay_addresses.len();
    if count > MAX_ADDRESSES {
        return Err(format!("{count} underlay addresses; at most {MAX_ADDRESSES} are accepted"));
    }
    let mut underlay = Vec::new();
    for bytes in &report.underlay_addresses {
        let address = proto::convert::address_from_wire(bytes).map_err(|error| error.to_string())?;
        if is_usable(address) && !underlay.contains(&address) {
            underlay.push(address);
        }
    }
    Ok(Some(Report { underlay, agent_version: agent_version.chars().take(64).collect() }))
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

    #[test]
    fn only_addresses_that_tunnels_can_come_from_count_each_once() {
        let texts =
            ["10.0.0.1", "127.0.0.1", "::1", "fe80::1", "224.0.0.1", "0.0.0.0", "fd00::1", "10.0.0.1"];
        let addresses = texts.map(|text| proto::convert::address_to_wire(text.parse().unwrap()));
        let report = HostReport { underlay_addresses: addresses.to_vec(), ..HostReport::default() };
        let underlay = read("1", Some(&report)).unwrap().unwrap().underlay;
        assert_eq!(underlay, ["10.0.0.1", "fd00::1"].map(|text| text.parse::<IpAddr>().unwrap()));
    }

    #[test]
    fn what_is_no_address_and_floods_are_refused() {
        let report = |addresses| HostReport { underlay_addresses: addresses, ..HostReport::default() };
        assert!(read("1", Some(&report(vec![vec![1, 2, 3]]))).is_err());
        assert!(read("1", Some(&report(vec![vec![10, 0, 0, 1]; 65]))).is_err());
    }
}
