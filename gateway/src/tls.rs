//! The TLS port: who is at the other end of a connection, and the loop that accepts connections.

mod peer;

pub use peer::PeerIdentity;
