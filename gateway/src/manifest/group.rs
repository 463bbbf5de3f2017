//! `outrigger.dev/v1alpha1 ExternalWorkloadGroup`: what external workloads of a group have in common.

use std::collections::{BTreeMap, BTreeSet};

use policy::facts::NamedPort;
use policy::state::{Mode, Probe, Scope};
use serde::Deserialize;

use super::decode::{InvalidField, Step, decode};
use super::fields;
use super::metadata::{Metadata, check_labels};
use super::node::Node;
use super::port::{Protocol, check_name, check_number};
use super::probe;

/// A group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Group {
    /// The labels of its workloads.
    pub labels: BTreeMap<String, String>,
    /// The service account of its workloads.
    pub service_account: String,
    /// The named ports of its workloads.
    pub ports: Vec<NamedPort>,
    /// Whether its workloads enforce policy or only report it.
    pub mode: Mode,
    /// Which of their traffic policy governs.
    pub scope: Scope,
    /// The same as `mode`, for what does not go through the mesh.
    pub nic_mode: Mode,
    /// How its workloads' hosts find out whether they serve.
    pub probes: Vec<Probe>,
    /// The zone of its workloads; no part of their identity.
    pub zone: Option<String>,
}

#[derive(Deserialize)]
struct Wire {
    spec: Spec,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Spec {
    template: Template,
    #[serde(default)]
    mode: Option<WireMode>,
    #[serde(default)]
    scope: Option<WireScope>,
    #[serde(default)]
    nic_mode: Option<WireMode>,
    #[serde(default)]
    probes: Vec<probe::Wire>,
}

/// A mode, as it is written.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum WireMode {
    Enforce,
    Audit,
}

/// A scope, as it is written.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum WireScope {
    Mesh,
    Host,
    All,
}

impl From<WireMode> for Mode {
    fn from(mode: WireMode) -> Self {
        match mode {
            WireMode::Enforce => Self::Enforce,
            WireMode::Audit => Self::Audit,
        }
    }
}

impl From<WireScope> for Scope {
    fn from(scope: WireScope) -> Self {
        match scope {
            WireScope::Mesh => Self::Mesh,
            WireScope::Host => Self::Host,
            WireScope::All => Self::All,
        }
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Template {
    #[serde(default)]
    labels: BTreeMap<String, String>,
    service_account_name: Option<String>,
    #[serde(default)]
    ports: Vec<Port>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Port {
    name: String,
    #[serde(rename = "port")]
    number: u16,
    #[serde(default)]
    protocol: Protocol,
}

/// The service account of workloads that name none, as for pods.
pub(super) const DEFAULT_SERVICE_ACCOUNT: &str = "default";

impl Group {
    pub(super) fn decode(node: &Node, metadata: &Metadata) -> Result<Self, InvalidField> {
        fields::only(node, &["apiVersion", "kind", "metadata", "spec", "status"])?;
        let Wire { spec: Spec { template, mode, scope, nic_mode, probes } } = decode(node)?;
        let Template { labels, service_account_name, ports } = template;
        if let Some(place) = node.get("spec").and_then(|spec| spec.get("template")) {
            let within = |error: InvalidField| {
                error
                    .within(Step::Field("template"), place.position)
                    .within(Step::Field("spec"), place.position)
            };
            check_labels(place, &labels).map_err(within)?;
            check_service_account(place, service_account_name.as_deref()).map_err(within)?;
            check_ports(place, &ports).map_err(within)?;
        }
        Ok(Self {
            labels,
            service_account: service_account_name.unwrap_or_else(|| DEFAULT_SERVICE_ACCOUNT.to_owned()),
            ports: ports
                .into_iter()
                .map(|Port { name, number, protocol }| NamedPort {
                    name,
                    protocol: protocol.number(),
                    number,
                })
                .collect(),
            mode: mode.map_or(Mode::Enforce, Mode::from),
            scope: scope.map_or(Scope::Mesh, Scope::from),
            // What an administrator did not ask for must not cut a host off.
            nic_mode: nic_mode.map_or(Mode::Audit, Mode::from),
            probes: match node.get("spec") {
                Some(spec) => probe::probes(spec, &probes)
                    .map_err(|error| error.within(Step::Field("spec"), spec.position))?,
                None => Vec::new(),
            },
            zone: metadata.zone(),
        })
    }
}

fn check_ports(template: &Node, ports: &[Port]) -> Result<(), InvalidField> {
    let mut names = BTreeSet::new();
    fields::each(template, "ports", |index, item| {
        let Some(Port { name, number, protocol: _ }) = ports.get(index) else { return Ok(()) };
        check_name(item, name)?;
        check_number(item, "port", *number)?;
        if names.insert(name) {
            Ok(())
        } else {
            Err(InvalidField::new(item, "name", format!("{name:?} occurs twice")))
        }
    })
}

/// Checks the name of a service account, which becomes an identity label.
///
/// # Errors
/// [`InvalidField`] of `serviceAccountName` in the node.
pub(super) fn check_service_account(node: &Node, name: Option<&str>) -> Result<(), InvalidField> {
    match name {
        Some(name) if !policy::labels::is_subdomain(name) => Err(InvalidField::new(
            node.get("serviceAccountName").unwrap_or(node),
            "serviceAccountName",
            format!("{name:?} is no valid name of a service account"),
        )),
        Some(_) | None => Ok(()),
    }
}
