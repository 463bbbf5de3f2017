//! Endpoints and the labels of identities.

use std::net::IpAddr;
use std::sync::Arc;

use policy::identity::Identity;
use policy::labels::Labels;
use policy::state::{Endpoint, EndpointKind};

use super::{InvalidResource, address_from_wire, address_to_wire};
use crate::v1;

/// An endpoint as it is sent to everyone: its owner's name is a resource of its own.
#[must_use]
pub fn endpoint_to_wire(address: IpAddr, endpoint: &Endpoint) -> v1::Endpoint {
    let Endpoint { identity, previous, mark, tunnels, kind, owner: _ } = endpoint;
    v1::Endpoint {
        address: address_to_wire(address),
        identity: identity.get(),
        previous: previous.map_or(0, Identity::get),
        mark: mark.get(),
        tunnels: tunnels.iter().copied().map(address_to_wire).collect(),
        kind: Some(match kind {
            EndpointKind::Pod { behind } => {
                v1::endpoint::Kind::Pod(v1::PodKind { behind: behind.iter().cloned().collect() })
            }
            EndpointKind::Workload => v1::endpoint::Kind::Workload(v1::WorkloadKind {}),
            EndpointKind::Transit => v1::endpoint::Kind::Transit(v1::TransitKind {}),
            EndpointKind::Node => v1::endpoint::Kind::Node(v1::NodeKind {}),
        }),
    }
}

/// Reads an endpoint; its owner is not known yet.
///
/// # Errors
/// [`InvalidResource`] naming the endpoint: an address or identity out of range, or a kind this build does not know.
pub fn endpoint_from_wire(wire: &v1::Endpoint) -> Result<(IpAddr, Endpoint), InvalidResource> {
    let address = address_from_wire(&wire.address)
        .map_err(|error| InvalidResource::new("endpoint", format!("address of {}", error.reason)))?;
    let named = |reason: String| InvalidResource::new(format!("endpoint {address}"), reason);
    let identity = identity_from_wire(wire.identity).map_err(|error| named(error.reason))?;
    let previous = match wire.previous {
        0 => None,
        number => Some(identity_from_wire(number).map_err(|error| named(error.reason))?),
    };
    let mark = identity_from_wire(wire.mark).map_err(|error| named(error.reason))?;
    let mut tunnels = Vec::with_capacity(wire.tunnels.len());
    for tunnel in &wire.tunnels {
        tunnels
            .push(address_from_wire(tunnel).map_err(|error| named(format!("tunnel of {}", error.reason)))?);
    }
    let kind = match &wire.kind {
        Some(v1::endpoint::Kind::Pod(pod)) => {
            EndpointKind::Pod { behind: Arc::new(pod.behind.iter().cloned().collect()) }
        }
        Some(v1::endpoint::Kind::Workload(v1::WorkloadKind {})) => EndpointKind::Workload,
        Some(v1::endpoint::Kind::Transit(v1::TransitKind {})) => EndpointKind::Transit,
        Some(v1::endpoint::Kind::Node(v1::NodeKind {})) => EndpointKind::Node,
        None => return Err(named("a kind this version does not know".to_owned())),
    };
    Ok((address, Endpoint { identity, previous, mark, tunnels: Arc::new(tunnels), kind, owner: None }))
}

/// Reads an identity's number.
///
/// # Errors
/// [`InvalidResource`] for 0 and for what does not fit a VNI.
pub fn identity_from_wire(number: u32) -> Result<Identity, InvalidResource> {
    Identity::try_new(number).map_err(|error| InvalidResource::new("identity", error.to_string()))
}

/// The labels of an identity.
#[must_use]
pub fn labels_to_wire(identity: Identity, labels: &Labels) -> v1::IdentityLabels {
    v1::IdentityLabels { identity: identity.get(), labels: labels.to_string() }
}

/// Reads the labels of an identity.
///
/// # Errors
/// [`InvalidResource`] naming the identity.
pub fn labels_from_wire(wire: &v1::IdentityLabels) -> Result<(Identity, Labels), InvalidResource> {
    let identity = identity_from_wire(wire.identity)?;
    let labels = wire.labels.parse().map_err(|error| {
        InvalidResource::new(format!("labels of identity {identity}"), format!("{error}"))
    })?;
    Ok((identity, labels))
}
