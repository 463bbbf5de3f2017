//! Membership of addresses in blocks.

use std::net::IpAddr;

use ipnet::{IpNet, Ipv4Net};

use super::{Block, Reach};

/// The one form of an address: v4-mapped IPv6 is IPv4.
#[must_use]
pub const fn canonical(address: IpAddr) -> IpAddr {
    address.to_canonical()
}

/// The one form of a block: host bits cut off, and IPv4 where all of it is v4-mapped.
pub(crate) fn canonical_block(block: IpNet) -> IpNet {
    let block = block.trunc();
    let IpNet::V6(v6) = block else { return block };
    let mapped = v6.prefix_len().checked_sub(96).zip(v6.addr().to_ipv4_mapped());
    mapped.and_then(|(length, v4)| Ipv4Net::new(v4, length).ok()).map_or(block, IpNet::V4)
}

impl Block {
    /// The block of a single address, whoever has it.
    #[must_use]
    pub fn of(address: IpAddr) -> Self {
        Self { cidr: IpNet::from(canonical(address)), except: Vec::new(), reach: Reach::Everyone }
    }

    /// Whether the address is in the block and in none of its holes. IPv4 is never in an IPv6 block.
    #[must_use]
    pub fn contains(&self, address: IpAddr) -> bool {
        let address = canonical(address);
        canonical_block(self.cidr).contains(&address)
            && !self.except.iter().any(|hole| canonical_block(*hole).contains(&address))
    }
}
