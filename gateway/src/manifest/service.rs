//! `v1 Service` and `discovery.k8s.io/v1 EndpointSlice`: whom policies mean that name a Service. Their other fields are
//! Kubernetes' and accepted by name.

use std::collections::BTreeMap;
use std::net::IpAddr;

use serde::Deserialize;

use super::decode::{InvalidField, decode as values};
use super::fields;
use super::metadata::Metadata;
use super::node::Node;

/// The label that ties a slice to its Service.
pub const SERVICE_NAME: &str = "kubernetes.io/service-name";

/// The label that says who writes a slice, and its value in those that this gateway writes.
pub const MANAGED_BY: (&str, &str) = ("endpointslice.kubernetes.io/managed-by", "gateway.outrigger.dev");

/// A Service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Service {
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// The labels of the pods it leads to; `None` = it leads to the addresses of its slices.
    pub selector: Option<BTreeMap<String, String>>,
}

/// Some of the addresses behind a Service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EndpointSlice {
    /// The Service's name, in the slice's namespace; `None` = it belongs to none.
    pub service: Option<String>,
    /// The addresses.
    pub addresses: Vec<IpAddr>,
}

#[derive(Deserialize)]
struct Wire {
    #[serde(default)]
    spec: Option<Spec>,
}

#[derive(Default, Deserialize)]
struct Spec {
    #[serde(default)]
    selector: Option<BTreeMap<String, String>>,
}

impl Service {
    pub(super) fn decode(node: &Node, metadata: Metadata) -> Result<Self, InvalidField> {
        fields::only(node, &["apiVersion", "kind", "metadata", "spec", "status"])?;
        fields::only_in(node, "spec", &SERVICE_SPEC)?;
        let Wire { spec } = values(node)?;
        // An empty selector selects nothing, as an absent one: the addresses are given by hand.
        let selector = spec.and_then(|spec| spec.selector).filter(|selector| !selector.is_empty());
        Ok(Self { labels: metadata.labels, selector })
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct SliceWire {
    address_type: AddressType,
    #[serde(default)]
    endpoints: Option<Vec<Endpoint>>,
}

#[derive(Clone, Copy, PartialEq, Eq, Deserialize)]
enum AddressType {
    IPv4,
    IPv6,
    #[serde(rename = "FQDN")]
    Fqdn,
}

#[derive(Deserialize)]
struct Endpoint {
    addresses: Vec<String>,
}

impl EndpointSlice {
    pub(super) fn decode(node: &Node, metadata: &Metadata) -> Result<Self, InvalidField> {
        fields::only(node, &["apiVersion", "kind", "metadata", "addressType", "endpoints", "ports"])?;
        fields::each(node, "endpoints", |_index, endpoint| fields::only(endpoint, &ENDPOINT))?;
        let wire: SliceWire = values(node)?;
        // What the gateway itself wrote is no news to it: its Services have selectors, and these decide.
        let is_own = metadata.labels.get(MANAGED_BY.0).is_some_and(|by| by == MANAGED_BY.1);
        let service = metadata.labels.get(SERVICE_NAME).filter(|_| !is_own).cloned();
        let mut addresses = Vec::new();
        // Names are no addresses.
        if wire.address_type != AddressType::Fqdn {
            let endpoints = wire.endpoints.iter().flatten().enumerate();
            let texts = endpoints.flat_map(|(number, endpoint)| {
                endpoint.addresses.iter().enumerate().map(move |(index, text)| (number, index, text))
            });
            for (number, index, text) in texts {
                let found = address(text, wire.address_type).map_err(|message| {
                    let field = format!("endpoints[{number}].addresses[{index}]");
                    InvalidField { position: node.position_of(&field), field, message }
                })?;
                addresses.push(found);
            }
        }
        addresses.sort();
        addresses.dedup();
        Ok(Self { service, addresses })
    }
}

fn address(text: &str, wanted: AddressType) -> Result<IpAddr, String> {
    let (family, is_wanted): (_, fn(&IpAddr) -> bool) = match wanted {
        AddressType::IPv4 => ("IPv4", IpAddr::is_ipv4),
        AddressType::IPv6 | AddressType::Fqdn => ("IPv6", IpAddr::is_ipv6),
    };
    let found = text.parse().ok().filter(is_wanted);
    found.ok_or_else(|| format!("{text:?} is no {family} address"))
}

const ENDPOINT: [&str; 8] =
    ["addresses", "conditions", "deprecatedTopology", "hints", "hostname", "nodeName", "targetRef", "zone"];

const SERVICE_SPEC: [&str; 20] = [
    "allocateLoadBalancerNodePorts",
    "clusterIP",
    "clusterIPs",
    "externalIPs",
    "externalName",
    "externalTrafficPolicy",
    "healthCheckNodePort",
    "internalTrafficPolicy",
    "ipFamilies",
    "ipFamilyPolicy",
    "loadBalancerClass",
    "loadBalancerIP",
    "loadBalancerSourceRanges",
    "ports",
    "publishNotReadyAddresses",
    "selector",
    "sessionAffinity",
    "sessionAffinityConfig",
    "trafficDistribution",
    "type",
];
