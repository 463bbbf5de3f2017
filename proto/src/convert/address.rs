//! Addresses as 4 or 16 bytes, prefixes as address and length.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;

use super::InvalidResource;
use crate::v1;

/// The 4 or 16 bytes of an address.
#[must_use]
pub fn address_to_wire(address: IpAddr) -> Vec<u8> {
    match address.to_canonical() {
        IpAddr::V4(v4) => v4.octets().to_vec(),
        IpAddr::V6(v6) => v6.octets().to_vec(),
    }
}

/// Reads 4 or 16 bytes; a v4-mapped address becomes the IPv4 address it stands for.
///
/// # Errors
/// [`InvalidResource`] for any other length.
pub fn address_from_wire(bytes: &[u8]) -> Result<IpAddr, InvalidResource> {
    if let Ok(v4) = <[u8; 4]>::try_from(bytes) {
        return Ok(IpAddr::V4(Ipv4Addr::from(v4)));
    }
    <[u8; 16]>::try_from(bytes).map(|v6| IpAddr::V6(Ipv6Addr::from(v6)).to_canonical()).map_err(|_ignored| {
        InvalidResource::new("address", format!("{} bytes; an address has 4 or 16", bytes.len()))
    })
}

/// A prefix with its host bits cleared.
#[must_use]
pub fn prefix_to_wire(prefix: IpNet) -> v1::Prefix {
    v1::Prefix { address: address_bytes(prefix), length: u32::from(prefix.prefix_len()) }
}

/// Reads a prefix.
///
/// # Errors
/// [`InvalidResource`] for a length that does not fit the family, host bits that are set, or a v4-mapped prefix,
/// whose meaning would depend on the reader.
pub fn prefix_from_wire(prefix: &v1::Prefix) -> Result<IpNet, InvalidResource> {
    let address = address_from_wire(&prefix.address)?;
    if prefix.address.len() == 16 && address.is_ipv4() {
        return Err(InvalidResource::new("prefix", format!("{address} is a v4-mapped IPv6 prefix")));
    }
    let named = || format!("{address}/{}", prefix.length);
    let length = u8::try_from(prefix.length).map_err(|_ignored| {
        InvalidResource::new("prefix", format!("{} has an impossible length", named()))
    })?;
    let net = IpNet::new(address, length).map_err(|_ignored| {
        InvalidResource::new("prefix", format!("{} has an impossible length", named()))
    })?;
    if net.network() == address {
        Ok(net)
    } else {
        Err(InvalidResource::new("prefix", format!("{} has host bits set", named())))
    }
}

fn address_bytes(prefix: IpNet) -> Vec<u8> {
    match prefix.network() {
        IpAddr::V4(v4) => v4.octets().to_vec(),
        IpAddr::V6(v6) => v6.octets().to_vec(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mapped_address_is_canonical_both_ways() {
        let mapped: IpAddr = "::ffff:10.0.0.7".parse().unwrap();
        assert_eq!(address_to_wire(mapped), vec![10, 0, 0, 7]);
        let IpAddr::V6(v6) = mapped else { panic!("{mapped}") };
        assert_eq!(address_from_wire(&v6.octets()).unwrap(), "10.0.0.7".parse::<IpAddr>().unwrap());
    }

    #[test]
    fn other_lengths_and_host_bits_are_refused() {
        assert!(address_from_wire(&[1, 2, 3]).is_err());
        assert!(address_from_wire(&[]).is_err());
        let bits = v1::Prefix { address: vec![10, 0, 0, 1], length: 24 };
        assert!(prefix_from_wire(&bits).unwrap_err().reason.contains("host bits"));
        let long = v1::Prefix { address: vec![10, 0, 0, 0], length: 33 };
        assert!(prefix_from_wire(&long).unwrap_err().reason.contains("impossible length"));
    }
}
