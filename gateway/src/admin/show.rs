//! Records as the wire has them.

use proto::v1;

use crate::audit;
use crate::mesh_view::{Summary, WorkloadView};
use crate::store::{Token, Workload};

/// Seconds as the wire has them.
pub(super) fn seconds(seconds: u64) -> i64 {
    i64::try_from(seconds).unwrap_or(i64::MAX)
}

/// A token, without anything that helps to guess it.
pub(super) fn token(token: Token) -> v1::Token {
    v1::Token {
        group: token.target.group(),
        transit_node: token.target.transit_node().to_owned(),
        node: token.target.node().to_owned(),
        id: token.id,
        created: seconds(token.created_at),
        expires: seconds(token.expires_at),
        uses_left: token.uses_left,
        revoked: token.revoked,
        source_prefixes: token.source_prefixes.iter().map(ToString::to_string).collect(),
        ephemeral: token.ephemeral,
        used_by: token.used_by.iter().map(ToString::to_string).collect(),
        bound_to: token.bound_to.map(|name| name.to_string()).unwrap_or_default(),
    }
}

/// A workload: what is kept of it, and what the mesh says.
pub(super) fn workload(workload: &Workload, view: WorkloadView, last_seen: u64) -> v1::Workload {
    let conditions = view.conditions.into_iter().map(|(kind, condition)| v1::Condition {
        r#type: kind,
        status: condition.status,
        reason: condition.reason,
        message: condition.message,
    });
    v1::Workload {
        namespace: workload.name.namespace.clone(),
        name: workload.name.name.clone(),
        group: workload.target.group(),
        identity: view.identity,
        mesh_addresses: audit::text(&workload.addresses),
        underlay_addresses: audit::text(&workload.underlay),
        connected: view.connected,
        last_seen: seconds(last_seen),
        agent_version: workload.agent_version.clone(),
        acked_generation: view.acked_generation,
        rejected_reason: view.rejected_reason,
        transit_node: workload.target.transit_node().to_owned(),
        node: workload.target.node().to_owned(),
        conditions: conditions.collect(),
        certificate_expires: seconds(workload.certificate_expires),
    }
}

/// The state as a whole.
pub(super) fn summary(summary: Summary) -> v1::GatewayStatusResponse {
    let rejected = summary.rejected.into_iter().map(|object| v1::RejectedObject {
        file: object.file,
        object: object.object,
        reason: object.reason,
        last_good_in_force: object.last_good_in_force,
    });
    v1::GatewayStatusResponse {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        generation: summary.generation,
        sessions: summary.sessions,
        rejected: rejected.collect(),
        warnings: summary.warnings,
        endpoints: summary.endpoints,
        identities: summary.identities,
        policies: summary.policies,
        synced: summary.synced,
    }
}
