//! The MAC of a mesh device.

use std::collections::BTreeSet;
use std::fmt;
use std::net::IpAddr;

/// An Ethernet address.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Mac(pub [u8; 6]);

impl Mac {
    /// The MAC of the mesh device with these addresses; `None` without any.
    ///
    /// VXLAN drops a packet whose source MAC is the receiver's own, so no two nodes of a mesh may share one. Chance does
    /// not see to it: udev derives MACs of virtual devices from the machine id and the name, which clones have in common.
    /// Mesh addresses are unique. An IPv4 address fits as it is, behind `02:04`. An IPv6 address is folded to the 40 bits
    /// behind `06`: within a prefix of 88 bits or more no two are equal, and across prefixes one pair in 2⁴⁰. Both are
    /// locally administered, and neither is `02:00:00:00:0f:01`, which all nodes of the first version send as source.
    #[must_use]
    pub(crate) fn of(addresses: &BTreeSet<IpAddr>) -> Option<Self> {
        // IPv4 comes first in the order of addresses.
        addresses.first().map(|address| match address {
            IpAddr::V4(address) => {
                let [a, b, c, d] = address.octets();
                Self([0x02, 0x04, a, b, c, d])
            }
            IpAddr::V6(address) => {
                let bits = address.to_bits();
                let folded = bits ^ bits >> 40 ^ bits >> 80 ^ bits >> 120;
                let mut mac = [0x06; 6];
                for (byte, folded) in mac.iter_mut().skip(1).zip(folded.to_be_bytes().into_iter().skip(11)) {
                    *byte = folded;
                }
                Self(mac)
            }
        })
    }
}

impl fmt::Display for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bytes = self.0.map(|byte| format!("{byte:02x}"));
        f.write_str(&bytes.join(":"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(addresses: &[&str]) -> String {
        let addresses = addresses.iter().map(|text| text.parse().unwrap()).collect();
        Mac::of(&addresses).map(|mac| mac.to_string()).unwrap_or_default()
    }

    #[test]
    fn nodes_with_different_addresses_have_different_macs() {
        assert_eq!(of(&["10.244.240.7", "fd00::7"]), "02:04:0a:f4:f0:07");
        assert_eq!(of(&["fd00::7", "10.244.240.8"]), "02:04:0a:f4:f0:08");
        assert_eq!(of(&[]), "");
        let six = ["fd00:1::1", "fd00:2::1", "fd00:1::2", "fd00:1::1:0:0:1", "fd00:1:0:1::1"]
            .map(|text| of(&[text]));
        assert_eq!(six.iter().collect::<BTreeSet<_>>().len(), six.len(), "{six:?}");
        assert!(six.iter().all(|mac| mac.starts_with("06:")), "{six:?}");
    }
}
