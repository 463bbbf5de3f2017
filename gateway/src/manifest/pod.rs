//! `v1 Pod`: what makes it an endpoint. Its other fields are Kubernetes' and accepted by name, so that
//! `kubectl get pods -o yaml` is a valid manifest and a misspelt field is not.

use std::collections::BTreeMap;
use std::net::IpAddr;

use policy::facts::NamedPort;
use serde::Deserialize;

use super::decode::{InvalidField, Step, decode};
use super::fields;
use super::group::{DEFAULT_SERVICE_ACCOUNT, check_service_account};
use super::metadata::{Metadata, check_labels};
use super::node::Node;
use super::port::{Protocol, check_number};

mod known;

/// A pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pod {
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// Its service account.
    pub service_account: String,
    /// The node it runs on, once scheduled.
    pub node: Option<String>,
    /// Its addresses, once it has any.
    pub addresses: Vec<IpAddr>,
    /// The ports of its containers that have names.
    pub named_ports: Vec<NamedPort>,
    /// Whether it is in its node's network.
    pub host_network: bool,
    /// Whether it has ended (`Succeeded`, `Failed`): its address may be another's by now.
    pub ended: bool,
}

#[derive(Deserialize)]
struct Wire {
    #[serde(default)]
    spec: Option<Spec>,
    #[serde(default)]
    status: Option<Status>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Spec {
    service_account_name: Option<String>,
    node_name: Option<String>,
    host_network: Option<bool>,
    #[serde(default)]
    containers: Option<Vec<Container>>,
    #[serde(default)]
    init_containers: Option<Vec<Container>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Container {
    restart_policy: Option<String>,
    #[serde(default)]
    ports: Option<Vec<Port>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Port {
    name: Option<String>,
    #[serde(rename = "containerPort")]
    number: u16,
    #[serde(default)]
    protocol: Option<Protocol>,
    #[serde(default, rename = "hostPort")]
    _on_host: Option<u16>,
    #[serde(default, rename = "hostIP")]
    _host_address: Option<String>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Status {
    phase: Option<Phase>,
    #[serde(default, rename = "podIP")]
    pod_ip: Option<String>,
    #[serde(default, rename = "podIPs")]
    pod_ips: Option<Vec<PodIp>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct PodIp {
    ip: IpAddr,
}

#[derive(Clone, Copy, PartialEq, Eq, Deserialize)]
enum Phase {
    Pending,
    Running,
    Succeeded,
    Failed,
    Unknown,
}

impl Pod {
    pub(super) fn decode(node: &Node, metadata: Metadata) -> Result<Self, InvalidField> {
        known::check(node)?;
        if let Some(place) = node.get("metadata") {
            check_labels(place, &metadata.labels)
                .map_err(|error| error.within(Step::Field("metadata"), place.position))?;
        }
        let Wire { spec, status } = decode(node)?;
        let (spec, status) = (spec.unwrap_or_default(), status.unwrap_or_default());
        if let Some(place) = node.get("spec") {
            let within = |error: InvalidField| error.within(Step::Field("spec"), place.position);
            check_service_account(place, spec.service_account_name.as_deref()).map_err(within)?;
            check_ports(place, "containers", spec.containers.as_deref()).map_err(within)?;
            check_ports(place, "initContainers", spec.init_containers.as_deref()).map_err(within)?;
        }
        Ok(Self {
            labels: metadata.labels,
            named_ports: named_ports(&spec),
            service_account: spec.service_account_name.unwrap_or_else(|| DEFAULT_SERVICE_ACCOUNT.to_owned()),
            node: spec.node_name.filter(|name| !name.is_empty()),
            host_network: spec.host_network.unwrap_or(false),
            ended: matches!(status.phase, Some(Phase::Succeeded | Phase::Failed)),
            addresses: addresses(node, &status)?,
        })
    }
}

/// `podIPs`, and `podIP` where it is not among them; each once.
fn addresses(node: &Node, status: &Status) -> Result<Vec<IpAddr>, InvalidField> {
    let mut addresses: Vec<IpAddr> = Vec::new();
    for PodIp { ip } in status.pod_ips.iter().flatten() {
        if !addresses.contains(&ip.to_canonical()) {
            addresses.push(ip.to_canonical());
        }
    }
    if let Some(text) = status.pod_ip.as_deref().filter(|text| !text.is_empty()) {
        let ip: IpAddr = text.parse().map_err(|error| InvalidField {
            position: node.position_of("status.podIP"),
            field: "status.podIP".to_owned(),
            message: format!("{text:?}: {error}"),
        })?;
        if !addresses.contains(&ip.to_canonical()) {
            addresses.push(ip.to_canonical());
        }
    }
    Ok(addresses)
}

/// Ports of containers and of sidecars (init containers that keep running), as policies see them.
fn named_ports(spec: &Spec) -> Vec<NamedPort> {
    let sidecars = spec.init_containers.iter().flatten();
    let sidecars = sidecars.filter(|container| container.restart_policy.as_deref() == Some("Always"));
    let ports = spec
        .containers
        .iter()
        .flatten()
        .chain(sidecars)
        .flat_map(|container| container.ports.iter().flatten());
    ports
        .filter_map(|port| {
            let name = port.name.clone().filter(|name| !name.is_empty())?;
            let protocol = port.protocol.unwrap_or_default().number();
            Some(NamedPort { name, protocol, number: port.number })
        })
        .collect()
}

fn check_ports(spec: &Node, list: &str, containers: Option<&[Container]>) -> Result<(), InvalidField> {
    fields::each(spec, list, |index, item| {
        let ports =
            containers.and_then(|containers| containers.get(index)).and_then(|found| found.ports.as_deref());
        fields::each(item, "ports", |index, item| match ports.and_then(|ports| ports.get(index)) {
            Some(port) => check_number(item, "containerPort", port.number),
            None => Ok(()),
        })
    })
}
