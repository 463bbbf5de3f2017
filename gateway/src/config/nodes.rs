//! How cluster nodes join by the service accounts of their pods.

use std::path::Path;

use super::{InvalidConfig, Options, ServiceAccount, State, value};

/// Whose pods make their node a part of the mesh, and where these find gateways.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Nodes {
    /// The account of transit nodes; `None`: they join with one-time tokens only.
    pub transit: Option<ServiceAccount>,
    /// The account of the other cluster nodes; `None`: the same.
    pub node: Option<ServiceAccount>,
    /// Where agents of cluster nodes reach gateways, `host:port`.
    pub gateways: Vec<String>,
}

impl Nodes {
    /// Whether any node joins so.
    #[must_use]
    pub const fn is_on(&self) -> bool {
        self.transit.is_some() || self.node.is_some()
    }

    pub(super) fn of(
        options: &Options,
        state: &State,
        advertise: &[String],
        path: &Path,
    ) -> Result<Self, InvalidConfig> {
        let gateways = options.node_gateways.as_ref();
        let of_cluster = [
            ("transitAccount", options.transit_account.is_some()),
            ("nodeAccount", options.node_account.is_some()),
            ("nodeGateways", gateways.is_some()),
        ];
        if let (State::Folder, Some((key, _))) = (state, of_cluster.into_iter().find(|(_, is_set)| *is_set)) {
            let reason = "means nothing with the state in a folder: only a gateway whose source and state are a cluster lets \
                          its nodes join by their service accounts";
            return Err(value(path, key, reason.to_owned()));
        }
        let nodes = Self {
            transit: options.transit_account.clone(),
            node: options.node_account.clone(),
            gateways: match gateways {
                Some(given) => given.0.iter().map(ToString::to_string).collect(),
                None => advertise.to_vec(),
            },
        };
        if nodes.transit.is_some() && nodes.transit == nodes.node {
            let reason = "is `transitAccount` too: an account is one role".to_owned();
            return Err(value(path, "nodeAccount", reason));
        }
        if gateways.is_some() && !nodes.is_on() {
            let reason = "means nothing without `transitAccount` or `nodeAccount`".to_owned();
            return Err(value(path, "nodeGateways", reason));
        }
        Ok(nodes)
    }
}
