//! Several gateways of one mesh: the one that holds the lease has all sessions, and the others hand the connections they
//! accept on to it, byte by byte and with the address they come from. Hosts speak TLS with the leader through them; the
//! others have no state, so none of them can tell a host anything that is old.
//!
//! Between two replicas is TLS with keys of one term, which the leader makes and puts into a Secret: only whoever may read
//! that can say where a connection comes from.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::time::Duration;

mod keys;
mod stand_by;
mod take_over;

pub use keys::{KeysError, TermKeys};
pub use stand_by::{Forwarder, Known, tell_ended};
pub use take_over::take_over;

/// How long a connection between replicas may take until it is of use, and whoever serves may be waited for.
const PATIENCE: Duration = Duration::from_secs(5);
/// The protocol that the two speak (RFC 7301).
const ALPN: &[u8] = b"outrigger-replica/1";
/// Bytes of a head.
const HEAD: usize = 19;

/// What the first bytes of a connection between replicas say; the rest belongs to the host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Head {
    /// A connection of a host that comes from there.
    Host(SocketAddr),
    /// Somebody else holds the lease.
    Ended,
}

impl Head {
    /// One byte for the kind, 16 for the address (IPv4 as IPv4-mapped IPv6, RFC 4291 §2.5.5.2), two for the port, in network order.
    fn encode(self) -> [u8; HEAD] {
        let (kind, from) = match self {
            Self::Host(from) => (1, from),
            Self::Ended => (2, SocketAddr::from((Ipv6Addr::UNSPECIFIED, 0))),
        };
        let address = match from.ip() {
            IpAddr::V4(address) => address.to_ipv6_mapped(),
            IpAddr::V6(address) => address,
        };
        let mut bytes = [kind; HEAD];
        let (_, rest) = bytes.split_at_mut(1);
        let (ip, port) = rest.split_at_mut(16);
        ip.copy_from_slice(&address.octets());
        port.copy_from_slice(&from.port().to_be_bytes());
        bytes
    }

    /// `None`: a kind of another version.
    fn decode(bytes: &[u8; HEAD]) -> Option<Self> {
        let (kind, rest) = bytes.split_first()?;
        let (ip, port) = rest.split_first_chunk::<16>()?;
        let from =
            SocketAddr::new(Ipv6Addr::from(*ip).to_canonical(), u16::from_be_bytes(*port.first_chunk()?));
        match kind {
            1 => Some(Self::Host(from)),
            2 => Some(Self::Ended),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests;
