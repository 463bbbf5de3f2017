//! What `outrigger endpoint list` shows.

use policy::state::{EndpointKind, NodeState};
use proto::v1::{EndpointLine, ListEndpointsResponse};

/// Every endpoint, by address.
pub(super) fn list(state: &NodeState) -> ListEndpointsResponse {
    let line = |(address, endpoint): (&std::net::IpAddr, &policy::state::Endpoint)| EndpointLine {
        address: address.to_string(),
        identity: endpoint.identity.get(),
        owner: endpoint.owner.as_deref().unwrap_or_default().to_owned(),
        kind: kind(&endpoint.kind).to_owned(),
        tunnels: endpoint.tunnels.iter().map(ToString::to_string).collect(),
        labels: state.identities.get(&endpoint.identity).map(ToString::to_string).unwrap_or_default(),
    };
    ListEndpointsResponse { endpoints: state.endpoints.iter().map(line).collect() }
}

const fn kind(kind: &EndpointKind) -> &'static str {
    match kind {
        EndpointKind::Pod { .. } => "pod",
        EndpointKind::Workload => "workload",
        EndpointKind::Transit => "transit",
        EndpointKind::Node => "node",
    }
}
