//! An `EndpointSlice` of the gateway's own: what it is read as, and what is written.

use std::net::IpAddr;

use k8s_openapi::api::core::v1::ObjectReference;
use k8s_openapi::api::discovery::v1 as api;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use kube::ResourceExt as _;

use crate::manifest::{MANAGED_BY, SERVICE_NAME};

/// Tells the cluster's own proxies that they need not look at slices of headless Services.
const HEADLESS: &str = "service.kubernetes.io/headless";
/// The kind of what endpoints are.
const WORKLOAD: &str = "ExternalWorkload";

/// An address family: a slice has one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Family {
    V4,
    V6,
}

/// A port of all endpoints of a slice.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Port {
    pub(super) name: String,
    pub(super) protocol: String,
    pub(super) number: u16,
    pub(super) app_protocol: Option<String>,
}

/// What the endpoints of a slice have in common.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Shape {
    pub(super) family: Family,
    pub(super) ports: Vec<Port>,
}

/// Who a Service is to its slices.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Owner {
    pub(super) namespace: String,
    pub(super) name: String,
    pub(super) uid: String,
    pub(super) headless: bool,
}

/// An endpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Endpoint {
    pub(super) address: IpAddr,
    /// The workload's name, in the Service's namespace.
    pub(super) workload: String,
    pub(super) hostname: Option<String>,
    pub(super) zone: Option<String>,
    /// Whether those of its zone should prefer it.
    pub(super) hinted: bool,
    pub(super) conditions: Conditions,
}

/// What consumers may do with an endpoint.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Conditions {
    /// New connections go to it.
    pub(super) ready: bool,
    /// It answers.
    pub(super) serving: bool,
    /// It is about to go.
    pub(super) terminating: bool,
}

/// A slice as the cluster has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Slice {
    pub(super) namespace: String,
    pub(super) name: String,
    pub(super) uid: String,
    pub(super) version: String,
    /// The Service that it says to belong to.
    pub(super) service: String,
    /// The number of the one that owns it; empty: none does, or not alone.
    pub(super) owner: String,
    pub(super) headless: bool,
    pub(super) shape: Shape,
    pub(super) endpoints: Vec<Endpoint>,
    /// Whether all of it could be read, and nothing of it is somebody else's.
    pub(super) intact: bool,
}

impl Family {
    pub(super) const fn of(address: IpAddr) -> Self {
        if address.is_ipv4() { Self::V4 } else { Self::V6 }
    }

    /// The family with a name of the API.
    pub(super) fn named(name: &str) -> Option<Self> {
        match name {
            "IPv4" => Some(Self::V4),
            "IPv6" => Some(Self::V6),
            _ => None,
        }
    }

    const fn name(self) -> &'static str {
        match self {
            Self::V4 => "IPv4",
            Self::V6 => "IPv6",
        }
    }
}

impl Slice {
    /// Whether an object is the gateway's own: nothing else is ever touched.
    pub(super) fn is_own(object: &api::EndpointSlice) -> bool {
        object.labels().get(MANAGED_BY.0).is_some_and(|by| by == MANAGED_BY.1)
    }

    /// Reads one of the gateway's own; `None` for all others.
    pub(super) fn read(object: &api::EndpointSlice) -> Option<Self> {
        if !Self::is_own(object) {
            return None;
        }
        let family = Family::named(&object.address_type);
        let ports: Option<Vec<Port>> = object.ports.iter().flatten().map(port_of).collect();
        let written = object.endpoints.as_deref().unwrap_or_default();
        let endpoints: Vec<Endpoint> = written.iter().filter_map(endpoint_of).collect();
        let owner = match object.owner_references() {
            [owner] if owner.kind == "Service" => owner.uid.clone(),
            _ => String::new(),
        };
        let intact = family.is_some() && ports.is_some() && endpoints.len() == written.len();
        Some(Self {
            namespace: object.namespace().unwrap_or_default(),
            name: object.name_any(),
            uid: object.uid().unwrap_or_default(),
            version: object.resource_version().unwrap_or_default(),
            service: object.labels().get(SERVICE_NAME).cloned().unwrap_or_default(),
            owner,
            headless: object.labels().contains_key(HEADLESS),
            shape: Shape { family: family.unwrap_or(Family::V4), ports: ports.unwrap_or_default() },
            endpoints,
            intact,
        })
    }
}

/// The object; in the place of `before`, where that is one.
pub(super) fn object(
    owner: &Owner,
    shape: &Shape,
    endpoints: &[Endpoint],
    before: Option<&Slice>,
) -> api::EndpointSlice {
    let mut labels = vec![(MANAGED_BY.0, MANAGED_BY.1.to_owned()), (SERVICE_NAME, owner.name.clone())];
    if owner.headless {
        labels.push((HEADLESS, String::new()));
    }
    let metadata = ObjectMeta {
        namespace: Some(owner.namespace.clone()),
        name: before.map(|before| before.name.clone()),
        // The API server finds a name that nothing has: nobody else's slice is ever in the way.
        generate_name: before.is_none().then(|| format!("{}-ew-", owner.name)),
        uid: before.map(|before| before.uid.clone()),
        resource_version: before.map(|before| before.version.clone()),
        labels: Some(labels.into_iter().map(|(key, value)| (key.to_owned(), value)).collect()),
        owner_references: Some(vec![OwnerReference {
            api_version: "v1".to_owned(),
            kind: "Service".to_owned(),
            name: owner.name.clone(),
            uid: owner.uid.clone(),
            controller: Some(true),
            // To hold a Service back needs a right that is not needed for anything else.
            block_owner_deletion: None,
        }]),
        ..ObjectMeta::default()
    };
    api::EndpointSlice {
        metadata,
        address_type: shape.family.name().to_owned(),
        ports: Some(shape.ports.iter().map(port).collect()),
        endpoints: Some(endpoints.iter().map(|endpoint| written(&owner.namespace, endpoint)).collect()),
    }
}

fn port(port: &Port) -> api::EndpointPort {
    api::EndpointPort {
        name: Some(port.name.clone()),
        protocol: Some(port.protocol.clone()),
        port: Some(port.number.into()),
        app_protocol: port.app_protocol.clone(),
    }
}

fn port_of(port: &api::EndpointPort) -> Option<Port> {
    Some(Port {
        name: port.name.clone().unwrap_or_default(),
        protocol: port.protocol.clone().unwrap_or_else(|| "TCP".to_owned()),
        number: u16::try_from(port.port?).ok()?,
        app_protocol: port.app_protocol.clone(),
    })
}

fn written(namespace: &str, endpoint: &Endpoint) -> api::Endpoint {
    let Endpoint { address, workload, hostname, zone, hinted, conditions } = endpoint;
    let zones = zone.iter().filter(|_| *hinted).map(|name| api::ForZone { name: name.clone() });
    api::Endpoint {
        addresses: vec![address.to_string()],
        conditions: Some(api::EndpointConditions {
            ready: Some(conditions.ready),
            serving: Some(conditions.serving),
            terminating: Some(conditions.terminating),
        }),
        hints: hinted.then(|| api::EndpointHints {
            for_zones: Some(zones.collect()),
            ..api::EndpointHints::default()
        }),
        hostname: hostname.clone(),
        target_ref: Some(ObjectReference {
            api_version: Some(format!("{}/{}", crds::GROUP, crds::VERSION)),
            kind: Some(WORKLOAD.to_owned()),
            namespace: Some(namespace.to_owned()),
            name: Some(workload.clone()),
            ..ObjectReference::default()
        }),
        zone: zone.clone(),
        ..api::Endpoint::default()
    }
}

fn endpoint_of(endpoint: &api::Endpoint) -> Option<Endpoint> {
    let [address] = endpoint.addresses.as_slice() else { return None };
    let target = endpoint.target_ref.as_ref().filter(|target| target.kind.as_deref() == Some(WORKLOAD))?;
    let conditions = endpoint.conditions.as_ref();
    let zones = endpoint.hints.as_ref().and_then(|hints| hints.for_zones.as_ref());
    let zone = endpoint.zone.clone();
    Some(Endpoint {
        address: address.parse().ok()?,
        workload: target.name.clone()?,
        hostname: endpoint.hostname.clone(),
        hinted: zones.is_some_and(|zones| zones.iter().map(|hint| &hint.name).eq(&zone)),
        zone,
        conditions: Conditions {
            ready: conditions.and_then(|conditions| conditions.ready).unwrap_or_default(),
            serving: conditions.and_then(|conditions| conditions.serving).unwrap_or_default(),
            terminating: conditions.and_then(|conditions| conditions.terminating).unwrap_or_default(),
        },
    })
}
