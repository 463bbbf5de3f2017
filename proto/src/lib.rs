//! `outrigger.v1`: the messages and services of the control protocol, and the one conversion between the wire and
//! the types of `policy`. The protocol files under `outrigger/v1` are the source.

pub mod codec;
pub mod convert;
pub mod node;
pub mod parts;
mod pieces;
pub mod pool;
mod secret;
pub mod token;

/// Generated messages, clients and servers.
#[expect(
    clippy::all,
    clippy::pedantic,
    clippy::allow_attributes,
    clippy::as_conversions,
    missing_docs,
    reason = "generated code"
)]
pub mod v1 {
    tonic::include_proto!("outrigger.v1");
}

/// The largest message either side accepts, in bytes. Updates are cut into chunks well below it.
pub const MAX_MESSAGE_BYTES: usize = 8 << 20;
