//! What a frame carries, by the numbers of IEEE 802.

/// Internet Protocol, version 4 (RFC 894).
pub const IPV4: u16 = 0x0800;
/// Address Resolution Protocol (RFC 826).
pub const ARP: u16 = 0x0806;
/// Internet Protocol, version 6 (RFC 2464).
pub const IPV6: u16 = 0x86dd;
/// A VLAN tag (IEEE 802.1Q).
pub const VLAN: u16 = 0x8100;
/// The outer one of two VLAN tags (IEEE 802.1ad).
pub const SERVICE_VLAN: u16 = 0x88a8;

/// The number of the VLAN in a tag (IEEE 802.1Q); 0 for a tag that carries a priority only.
pub const VLAN_ID: u32 = 0xfff;
