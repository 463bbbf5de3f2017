//! The TLS port: who is at the other end of a connection, the loop that accepts connections, and the gateway's own
//! certificate.

mod accept;
mod connection;
mod cut;
mod gate;
mod own;
mod peer;
mod stream;
mod trust;

pub use accept::{Incoming, Limits, incoming};
pub use connection::Connection;
pub use cut::Cut;
pub use gate::{ConnectionMetrics, Pass};
pub use own::{OwnCertificate, OwnCertificateError};
pub use peer::PeerIdentity;
pub use stream::Stream;
pub use trust::{UnusableRoots, follow_roots, trust};
