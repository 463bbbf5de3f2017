//! What holds on the NICs when there is no state to enforce.

use std::sync::Arc;

use policy::identity::Identity;
use policy::state::{Default, DirectionPolicy, Mode, Nic, NodeSettings, NodeState, Policy, Role, Scope};

use super::Record;
use crate::state_dir::Enrolment;

impl Record {
    /// A state in which the last confirmed policy governs the NICs, and the mesh consists of nobody; `None` where no policy
    /// was confirmed.
    #[must_use]
    pub fn fallback(&self, enrolment: &Enrolment) -> Option<NodeState> {
        let confirmed = self.confirmed.as_ref()?;
        let by = "no good state".to_owned();
        let closed =
            || DirectionPolicy { default: Default::Deny { by: vec![by.clone()] }, rules: Vec::new() };
        Some(NodeState {
            endpoints: policy::pages::Pages::default(),
            identities: policy::pages::Pages::default(),
            policy: Arc::new(Policy { ingress: closed(), egress: closed() }),
            settings: NodeSettings {
                workload: enrolment.workload.clone(),
                // Nobody to tell it to.
                identity: Identity::HOST,
                mark: Identity::HOST,
                addresses: enrolment.mesh_addresses.clone(),
                prefixes: enrolment.prefixes.iter().copied().collect(),
                role: Role::Host,
                mode: Mode::Enforce,
                tunnel_port: self.tunnel_port,
                rejected: Vec::new(),
                nic: Some(Nic { scope: Scope::Host, mode: Mode::Enforce, policy: Arc::clone(confirmed) }),
                partly_enforced: Vec::new(),
                probes: Vec::new(),
            },
        })
    }
}
