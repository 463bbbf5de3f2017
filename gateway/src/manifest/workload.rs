//! `outrigger.dev/v1alpha1 ExternalWorkload`: an external workload declared by hand, before it joins.

use std::net::IpAddr;

use policy::state::{Mode, Probe, Scope};
use serde::Deserialize;

use super::decode::{InvalidField, Step, decode};
use super::fields;
use super::group::{WireMode, WireScope};
use super::metadata::Metadata;
use super::node::Node;
use super::probe;

/// A declared workload: who joins under its name must do so through its group, and gets its addresses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Workload {
    /// The name of its group, in its own namespace.
    pub group: String,
    /// Its mesh addresses, at most one of each family; a family without one is allocated from the pool.
    pub addresses: Vec<IpAddr>,
    /// Which of its traffic policy governs; `None`: as its group says.
    pub scope: Option<Scope>,
    /// Whether policy is enforced outside of the mesh; `None`: as its group says.
    pub nic_mode: Option<Mode>,
    /// How its host finds out whether it serves; `None`: as its group says.
    pub probes: Option<Vec<Probe>>,
    /// Its zone; `None`: as its group says.
    pub zone: Option<String>,
}

#[derive(Deserialize)]
struct Wire {
    spec: Spec,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Spec {
    group: String,
    #[serde(default)]
    addresses: Vec<IpAddr>,
    #[serde(default)]
    scope: Option<WireScope>,
    #[serde(default)]
    nic_mode: Option<WireMode>,
    #[serde(default)]
    probes: Option<Vec<probe::Wire>>,
    /// Of the host that joined: the gateway's own, and no news to it.
    #[serde(default, rename = "recorded")]
    _recorded: serde::de::IgnoredAny,
}

impl Workload {
    pub(super) fn decode(node: &Node, metadata: &Metadata) -> Result<Self, InvalidField> {
        fields::only(node, &["apiVersion", "kind", "metadata", "spec", "status"])?;
        let Wire { spec: Spec { group, addresses, scope, nic_mode, probes, _recorded: _ } } = decode(node)?;
        let addresses: Vec<_> = addresses.iter().map(IpAddr::to_canonical).collect();
        let spec = node.get("spec").unwrap_or(node);
        let refuse = |name: &str, message: String| {
            let error = InvalidField::new(spec.get(name).unwrap_or(spec), name, message);
            Err(error.within(Step::Field("spec"), spec.position))
        };
        if !policy::labels::is_subdomain(&group) {
            return refuse("group", format!("{group:?} is no valid name of a group"));
        }
        let of_v4 = addresses.iter().filter(|address| address.is_ipv4()).count();
        if of_v4 > 1 || addresses.len() - of_v4 > 1 {
            return refuse("addresses", format!("{addresses:?}: at most one address of each family"));
        }
        Ok(Self {
            group,
            addresses,
            scope: scope.map(Scope::from),
            nic_mode: nic_mode.map(Mode::from),
            probes: probes
                .map(|probes| probe::probes(spec, &probes))
                .transpose()
                .map_err(|error| error.within(Step::Field("spec"), spec.position))?,
            zone: metadata.zone(),
        })
    }
}
