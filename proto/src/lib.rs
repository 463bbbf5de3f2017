//! `outrigger.v1`: the messages and services of the control protocol, and the one conversion between the wire and
//! the types of `policy`. The protocol files under `outrigger/v1` are the source.

/// Generated messages, clients and servers.
#[expect(clippy::all, clippy::pedantic, missing_docs, reason = "generated code")]
pub mod v1 {
    tonic::include_proto!("outrigger.v1");
}
