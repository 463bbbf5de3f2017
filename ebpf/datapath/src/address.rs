//! Addresses and ports as they stand in keys: fixed size, network order.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// An IP address: IPv6, or IPv4 as v4-mapped IPv6, in network order. Aligned as every key and entry has it, so that it
/// is copied and compared by words.
#[derive(
    Clone, Copy, Debug, Default, Eq, PartialOrd, Ord, Hash, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C, align(4))]
#[expect(clippy::derived_hash_with_manual_eq, reason = "the comparison is the derived one, by words")]
pub struct Address(pub [u8; 16]);

impl PartialEq for Address {
    #[inline(always)]
    fn eq(&self, other: &Self) -> bool {
        let (this, that) = (self.words(), other.words());
        (this[0] ^ that[0]) | (this[1] ^ that[1]) | (this[2] ^ that[2]) | (this[3] ^ that[3]) == 0
    }
}

impl Address {
    /// The unspecified address `::`; in an entry it means "none".
    pub const NONE: Self = Self([0; 16]);

    /// The v4-mapped form of an IPv4 address.
    #[must_use]
    #[inline(always)]
    pub const fn from_v4(o: [u8; 4]) -> Self {
        Self([0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, o[0], o[1], o[2], o[3]])
    }

    /// Whether this is an IPv4 address in v4-mapped form.
    #[must_use]
    #[inline(always)]
    pub const fn is_v4(&self) -> bool {
        let [a, b, c, _] = self.words();
        a | b == 0 && c == Self::MAPPED
    }

    /// The four octets of a v4-mapped address; the last four bytes of any other.
    #[must_use]
    #[inline(always)]
    pub const fn v4_octets(&self) -> [u8; 4] {
        let [_, _, _, word] = self.words();
        word.to_ne_bytes()
    }

    const MAPPED: u32 = u32::from_ne_bytes([0, 0, 0xff, 0xff]);

    #[inline(always)]
    const fn words(&self) -> [u32; 4] {
        zerocopy::transmute!(*self)
    }
}

impl From<core::net::IpAddr> for Address {
    /// v4-mapped IPv6 and IPv4 give the same value: the form is canonical.
    fn from(address: core::net::IpAddr) -> Self {
        match address {
            core::net::IpAddr::V4(v4) => Self::from_v4(v4.octets()),
            core::net::IpAddr::V6(v6) => Self(v6.octets()),
        }
    }
}

impl From<Address> for core::net::IpAddr {
    fn from(address: Address) -> Self {
        if address.is_v4() {
            core::net::IpAddr::V4(address.v4_octets().into())
        } else {
            core::net::IpAddr::V6(address.0.into())
        }
    }
}

/// A transport port in network order; for ICMP echo, the identifier.
#[derive(
    Clone,
    Copy,
    Debug,
    Default,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    FromBytes,
    IntoBytes,
    Immutable,
    KnownLayout,
    Unaligned,
)]
#[repr(transparent)]
pub struct Port(pub [u8; 2]);

impl Port {
    /// From the machine's order.
    #[must_use]
    #[inline(always)]
    pub const fn new(port: u16) -> Self {
        Self(port.to_be_bytes())
    }

    /// In the machine's order.
    #[must_use]
    #[inline(always)]
    pub const fn get(self) -> u16 {
        u16::from_be_bytes(self.0)
    }
}
