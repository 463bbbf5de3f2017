//! What of a Service says which endpoints it is to have.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use k8s_openapi::api::core::v1 as api;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use kube::ResourceExt as _;

use super::slice::{Family, Owner};

/// The annotation that asks for it, and its values.
pub(super) const ANNOTATION: &str = "outrigger.dev/external-workloads";
const ENABLED: &str = "enabled";
const DISABLED: &str = "disabled";

/// A Service that wants external workloads behind it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Service {
    pub(super) owner: Owner,
    /// Never empty.
    pub(super) selector: BTreeMap<String, String>,
    pub(super) ports: Vec<ServicePort>,
    pub(super) families: BTreeSet<Family>,
    /// Whether endpoints count as ready whatever they are.
    pub(super) takes_unready: bool,
    /// Whether clients should prefer endpoints of their zone.
    pub(super) prefers_zone: bool,
}

/// A port of a Service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ServicePort {
    pub(super) name: String,
    pub(super) protocol: String,
    pub(super) target: TargetPort,
    pub(super) app_protocol: Option<String>,
}

/// Where a port leads to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum TargetPort {
    Number(u16),
    /// A port of the workload with that name.
    Name(String),
}

/// What a Service asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Wish {
    /// External workloads behind it.
    Wanted(Box<Service>),
    /// What cannot be given, and why; with its number, for the event about it.
    Refused { uid: String, reason: String },
}

impl Wish {
    /// What a Service asks for; `None` where that is nothing.
    pub(super) fn of(service: &api::Service) -> Option<Self> {
        let value = service.annotations().get(ANNOTATION)?;
        if value == DISABLED || service.metadata.deletion_timestamp.is_some() {
            return None;
        }
        let uid = service.uid().unwrap_or_default();
        Some(match wanted(service, value, &uid) {
            Ok(service) => Self::Wanted(Box::new(service)),
            Err(reason) => Self::Refused { uid, reason },
        })
    }
}

fn wanted(service: &api::Service, value: &str, uid: &str) -> Result<Service, String> {
    if value != ENABLED {
        return Err(format!("{ANNOTATION}: {value:?} is neither {ENABLED:?} nor {DISABLED:?}"));
    }
    let spec = service.spec.clone().unwrap_or_default();
    if spec.type_.as_deref() == Some("ExternalName") {
        return Err(format!("{ANNOTATION}: a Service of the type ExternalName has no endpoints"));
    }
    // Without one its endpoints are somebody's own business, and none of ours.
    let selector = spec.selector.clone().filter(|selector| !selector.is_empty());
    let selector = selector.ok_or_else(|| {
        format!("{ANNOTATION}: the Service has no selector, so that nothing says which workloads are meant")
    })?;
    let ports = spec.ports.iter().flatten().map(port).collect::<Result<_, _>>()?;
    Ok(Service {
        owner: Owner {
            namespace: service.namespace().unwrap_or_default(),
            name: service.name_any(),
            uid: uid.to_owned(),
            headless: spec.cluster_ip.as_deref() == Some("None"),
        },
        selector,
        ports,
        families: families(&spec),
        takes_unready: spec.publish_not_ready_addresses.unwrap_or_default(),
        prefers_zone: matches!(spec.traffic_distribution.as_deref(), Some("PreferClose" | "PreferSameZone")),
    })
}

fn port(port: &api::ServicePort) -> Result<ServicePort, String> {
    let number = |number: i32| {
        u16::try_from(number).ok().filter(|number| *number > 0).ok_or(format!("{number} is no port"))
    };
    let target = match &port.target_port {
        None | Some(IntOrString::Int(0)) => TargetPort::Number(number(port.port)?),
        Some(IntOrString::Int(target)) => TargetPort::Number(number(*target)?),
        Some(IntOrString::String(name)) => match name.parse() {
            Ok(target) => TargetPort::Number(number(target)?),
            Err(_name) => TargetPort::Name(name.clone()),
        },
    };
    Ok(ServicePort {
        name: port.name.clone().unwrap_or_default(),
        protocol: port.protocol.clone().unwrap_or_else(|| "TCP".to_owned()),
        target,
        app_protocol: port.app_protocol.clone(),
    })
}

/// As the API server decided; else those of its addresses, else both.
fn families(spec: &api::ServiceSpec) -> BTreeSet<Family> {
    let named: BTreeSet<_> =
        spec.ip_families.iter().flatten().filter_map(|name| Family::named(name)).collect();
    if !named.is_empty() {
        return named;
    }
    let addresses = spec.cluster_ips.iter().flatten().chain(&spec.cluster_ip);
    let found: BTreeSet<_> =
        addresses.filter_map(|text| text.parse::<IpAddr>().ok()).map(Family::of).collect();
    if found.is_empty() { [Family::V4, Family::V6].into() } else { found }
}
