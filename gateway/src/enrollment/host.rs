//! What a host says about itself, checked. None of it gives rights.

use std::net::IpAddr;

use proto::v1;

use super::EnrollmentError;

/// The most underlay addresses a host may report.
const MAX_ADDRESSES: usize = 16;

/// A host's report, checked.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Host {
    /// Where its tunnel packets come from, preferred first.
    pub(super) underlay: Vec<IpAddr>,
    /// SHA-256 of machine-id and DMI UUID.
    pub(super) machine: Vec<u8>,
}

impl Host {
    /// Checks a report against the address the connection comes from. Where they differ, something translates
    /// addresses between, and plain tunnels would not come back.
    pub(super) fn try_new(
        report: Option<&v1::HostReport>,
        machine: &[u8],
        source: Option<IpAddr>,
    ) -> Result<Self, EnrollmentError> {
        if machine.len() != 32 {
            return Err(EnrollmentError::Machine(machine.len()));
        }
        let reported = report.map(|report| report.underlay_addresses.as_slice()).unwrap_or_default();
        if reported.is_empty() || reported.len() > MAX_ADDRESSES {
            return Err(EnrollmentError::AddressCount(reported.len()));
        }
        let mut underlay = Vec::new();
        for bytes in reported {
            let address = address(bytes).ok_or(EnrollmentError::AddressBytes(bytes.len()))?;
            if !usable(address) {
                return Err(EnrollmentError::Address(address));
            }
            if !underlay.contains(&address) {
                underlay.push(address);
            }
        }
        if let Some(remote) = source.filter(|source| !underlay.contains(source)) {
            return Err(EnrollmentError::Translated {
                remote,
                reported: crate::audit::text(&underlay).join(", "),
            });
        }
        Ok(Self { underlay, machine: machine.to_owned() })
    }
}

/// An address as the wire has it.
pub(super) fn bytes(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    }
}

fn address(bytes: &[u8]) -> Option<IpAddr> {
    let v4 = <[u8; 4]>::try_from(bytes).map(IpAddr::from);
    let address = v4.or_else(|_other| <[u8; 16]>::try_from(bytes).map(IpAddr::from)).ok()?;
    Some(address.to_canonical())
}

/// Whether tunnel packets can come from it.
fn usable(address: IpAddr) -> bool {
    let link_local = match address {
        IpAddr::V4(address) => address.is_broadcast(),
        IpAddr::V6(address) => address.is_unicast_link_local(),
    };
    !(address.is_unspecified() || address.is_loopback() || address.is_multicast() || link_local)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(addresses: &[&str]) -> v1::HostReport {
        let underlay_addresses = addresses.iter().map(|a| bytes(a.parse().unwrap())).collect();
        v1::HostReport { underlay_addresses, ..v1::HostReport::default() }
    }

    fn check(addresses: &[&str], remote: &str) -> Result<Host, EnrollmentError> {
        let remote: IpAddr = remote.parse().unwrap();
        Host::try_new(Some(&report(addresses)), &[0; 32], Some(remote).filter(|remote| !remote.is_loopback()))
    }

    #[test]
    fn the_connection_must_come_from_a_reported_address() {
        let host = check(&["192.0.2.1", "2001:db8::1", "192.0.2.1"], "2001:db8::1").unwrap();
        assert_eq!(host.underlay.len(), 2);
        let error = check(&["10.0.0.5"], "198.51.100.7").unwrap_err();
        assert!(matches!(error, EnrollmentError::Translated { .. }));
        let text = error.to_string();
        assert!(text.contains("198.51.100.7") && text.contains("10.0.0.5") && text.contains("NAT"), "{text}");
        assert!(check(&["10.0.0.5"], "127.0.0.1").is_ok());
    }

    #[test]
    fn unusable_reports_are_refused() {
        for address in
            ["0.0.0.0", "127.0.0.1", "224.0.0.1", "255.255.255.255", "::", "::1", "fe80::1", "ff02::1"]
        {
            assert!(matches!(check(&[address], address), Err(EnrollmentError::Address(_))), "{address}");
        }
        assert!(matches!(check(&[], "192.0.2.1"), Err(EnrollmentError::AddressCount(0))));
        assert!(matches!(check(&["192.0.2.1"; 17], "192.0.2.1"), Err(EnrollmentError::AddressCount(17))));
        let odd = v1::HostReport { underlay_addresses: vec![vec![1, 2, 3]], ..v1::HostReport::default() };
        let odd = Host::try_new(Some(&odd), &[0; 32], None);
        assert!(matches!(odd, Err(EnrollmentError::AddressBytes(3))));
        let short = Host::try_new(Some(&report(&["192.0.2.1"])), &[0; 3], None);
        assert!(matches!(short, Err(EnrollmentError::Machine(3))));
    }
}
