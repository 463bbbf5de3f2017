//! `CiliumNetworkPolicy` and `CiliumClusterwideNetworkPolicy` v2 as serde reads them. Absent and empty stay apart: an
//! absent list says nothing, an empty one selects nothing. Fields that are known and not supported are read, so that
//! their refusal names them.

use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::Value;

use crate::object::Metadata;
use crate::selector::LabelSelector;

/// A whole object.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Object {
    pub(super) api_version: String,
    pub(super) kind: String,
    pub(super) metadata: Metadata,
    pub(super) spec: Option<Spec>,
    pub(super) specs: Option<Vec<Spec>>,
    #[serde(rename = "status")]
    _status: Option<IgnoredAny>,
}

/// `api.Rule`.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Spec {
    pub(super) endpoint_selector: Option<LabelSelector>,
    pub(super) node_selector: Option<LabelSelector>,
    pub(super) ingress: Option<Vec<IngressRule>>,
    pub(super) ingress_deny: Option<Vec<IngressRule>>,
    pub(super) egress: Option<Vec<EgressRule>>,
    pub(super) egress_deny: Option<Vec<EgressRule>>,
    pub(super) enable_default_deny: Option<DefaultDeny>,
    #[serde(rename = "labels")]
    _labels: Option<IgnoredAny>,
    #[serde(rename = "description")]
    _description: Option<String>,
    #[serde(rename = "log")]
    _log: Option<IgnoredAny>,
}

/// `api.DefaultDenyConfig`.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct DefaultDeny {
    pub(super) ingress: Option<bool>,
    pub(super) egress: Option<bool>,
}

/// `api.IngressRule`, and `api.IngressDenyRule`, which has fewer fields.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct IngressRule {
    pub(super) from_endpoints: Option<Vec<LabelSelector>>,
    #[serde(rename = "fromCIDR")]
    pub(super) from_cidr: Option<Vec<String>>,
    #[serde(rename = "fromCIDRSet")]
    pub(super) from_cidr_set: Option<Vec<CidrRule>>,
    pub(super) from_entities: Option<Vec<String>>,
    pub(super) from_nodes: Option<Vec<LabelSelector>>,
    pub(super) from_groups: Option<Value>,
    pub(super) from_requires: Option<Value>,
    pub(super) to_ports: Option<Vec<PortRule>>,
    pub(super) icmps: Option<Vec<IcmpRule>>,
    pub(super) authentication: Option<Value>,
}

/// `api.EgressRule`, and `api.EgressDenyRule`, which has fewer fields.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct EgressRule {
    pub(super) to_endpoints: Option<Vec<LabelSelector>>,
    #[serde(rename = "toCIDR")]
    pub(super) to_cidr: Option<Vec<String>>,
    #[serde(rename = "toCIDRSet")]
    pub(super) to_cidr_set: Option<Vec<CidrRule>>,
    pub(super) to_entities: Option<Vec<String>>,
    pub(super) to_nodes: Option<Vec<LabelSelector>>,
    pub(super) to_services: Option<Vec<Service>>,
    #[serde(rename = "toFQDNs")]
    pub(super) to_fqdns: Option<Vec<Fqdn>>,
    pub(super) to_groups: Option<Value>,
    pub(super) to_requires: Option<Value>,
    pub(super) to_ports: Option<Vec<PortRule>>,
    pub(super) icmps: Option<Vec<IcmpRule>>,
    pub(super) authentication: Option<Value>,
}

/// `api.CIDRRule`.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct CidrRule {
    pub(super) cidr: Option<String>,
    pub(super) cidr_group_ref: Option<String>,
    pub(super) cidr_group_selector: Option<LabelSelector>,
    pub(super) except: Option<Vec<String>>,
}

/// `api.Service`.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Service {
    pub(super) k8s_service: Option<NamedService>,
    pub(super) k8s_service_selector: Option<SelectedService>,
}

/// `api.K8sServiceNamespace`.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct NamedService {
    pub(super) service_name: Option<String>,
    pub(super) namespace: Option<String>,
}

/// `api.K8sServiceSelectorNamespace`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct SelectedService {
    pub(super) selector: LabelSelector,
    pub(super) namespace: Option<String>,
}

/// `api.FQDNSelector`.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Fqdn {
    pub(super) match_name: Option<String>,
    pub(super) match_pattern: Option<String>,
}

/// `api.PortRule`, and `api.PortDenyRule`, which has only `ports`.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct PortRule {
    pub(super) ports: Option<Vec<PortProtocol>>,
    pub(super) rules: Option<L7Rules>,
    #[serde(rename = "terminatingTLS")]
    pub(super) terminating_tls: Option<Value>,
    #[serde(rename = "originatingTLS")]
    pub(super) originating_tls: Option<Value>,
    pub(super) server_names: Option<Value>,
    pub(super) listener: Option<Value>,
}

/// `api.PortProtocol`.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct PortProtocol {
    pub(super) port: Option<String>,
    pub(super) end_port: Option<i64>,
    pub(super) protocol: Option<String>,
}

/// `api.L7Rules`. What they hold is checked for its form only: none is enforced.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct L7Rules {
    pub(super) http: Option<Vec<Http>>,
    pub(super) dns: Option<Vec<Fqdn>>,
    pub(super) kafka: Option<Value>,
    pub(super) l7proto: Option<Value>,
    pub(super) l7: Option<Value>,
}

/// `api.PortRuleHTTP`.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Http {
    pub(super) path: Option<String>,
    pub(super) method: Option<String>,
    pub(super) host: Option<String>,
    #[serde(rename = "headers")]
    _headers: Option<Vec<String>>,
    pub(super) header_matches: Option<Vec<HeaderMatch>>,
}

/// `api.HeaderMatch`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct HeaderMatch {
    pub(super) mismatch: Option<String>,
    pub(super) name: String,
    pub(super) secret: Option<Secret>,
    #[serde(rename = "value")]
    _value: Option<String>,
}

/// `api.Secret`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Secret {
    #[serde(rename = "namespace")]
    _namespace: Option<String>,
    pub(super) name: String,
}

/// `api.ICMPRule`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct IcmpRule {
    pub(super) fields: Option<Vec<IcmpField>>,
}

/// `api.ICMPField`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct IcmpField {
    pub(super) family: Option<String>,
    #[serde(rename = "type")]
    pub(super) kind: IcmpKind,
}

/// `intstr.IntOrString`.
#[derive(Debug, Deserialize)]
#[serde(untagged, expecting = "type is a number or a name")]
pub(super) enum IcmpKind {
    Number(i64),
    Name(String),
}
