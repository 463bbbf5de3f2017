//! Cilium's languages, by Cilium's documentation.

use std::net::IpAddr;

use serde_json::Value;

use super::labels::{Label, Selected, of_endpoint, requirements, selects_labels, selects_peer, subject};
use super::{Action, Findings, Match, Probe, Tier, inside, items, ports, text};
use crate::fuzz::world::cluster::{Cluster, Service};

const NAMESPACE: &str = "io.kubernetes.pod.namespace";
const NAMESPACE_LABELS: &str = "io.cilium.k8s.namespace.labels.";

/// One specification, and where it stands.
struct Reader<'a> {
    cluster: &'a Cluster,
    /// Of the object; `None` = all.
    namespace: Option<&'a str>,
    probe: &'a Probe<'a>,
    denies: bool,
}

pub(super) fn read(cluster: &Cluster, object: &Value, probe: &Probe<'_>, findings: &mut Findings) {
    let metadata = &object["metadata"];
    let namespace = metadata["namespace"].as_str();
    let place = namespace.map(|namespace| format!("{namespace}/")).unwrap_or_default();
    let origin = format!("{}/{place}{}", text(&object["kind"]), text(&metadata["name"]));
    if let Some(spec) = object.get("spec") {
        read_spec(&Reader { cluster, namespace, probe, denies: false }, spec, &origin, '#', findings);
    }
    for (index, spec) in items(&object["specs"]).iter().enumerate() {
        let origin = format!("{origin}#specs[{index}]");
        read_spec(&Reader { cluster, namespace, probe, denies: false }, spec, &origin, '.', findings);
    }
}

fn read_spec(reader: &Reader<'_>, spec: &Value, origin: &str, separator: char, findings: &mut Findings) {
    let (cluster, own) = (reader.cluster, reader.probe.subject);
    let Some(selector) = spec.get("endpointSelector") else { return };
    let selected = subject(selector, |key| of_endpoint(cluster, own, bare(key)));
    if reader.namespace.is_some_and(|namespace| namespace != own.namespace) || selected == Selected::No {
        return;
    }
    let direction = reader.probe.direction();
    let mut has_rules = false;
    for (field, action) in [(direction.to_owned(), Action::Allow), (format!("{direction}Deny"), Action::Deny)]
    {
        let reader = Reader { denies: action == Action::Deny, ..*reader };
        for (index, rule) in items(&spec[&field]).iter().enumerate() {
            has_rules = true;
            if (reader.denies || selected == Selected::Yes) && reader.matches(rule) {
                findings.matches.push(Match {
                    tier: Tier::Namespaces,
                    order: (0, 0),
                    action,
                    origin: format!("{origin}{separator}{field}[{index}]"),
                });
            }
        }
    }
    let wanted = spec["enableDefaultDeny"][direction].as_bool();
    // Who may be selected is isolated wherever the specification has something to say.
    if wanted.unwrap_or(has_rules) || (selected == Selected::Maybe && has_rules) {
        findings.isolating.insert(origin.to_owned());
    }
}

/// A key without the source of the label, unless that is a reserved one.
fn bare(key: &str) -> &str {
    key.strip_prefix("k8s:").or_else(|| key.strip_prefix("any:")).unwrap_or(key)
}

impl Reader<'_> {
    /// A rule that says nothing matches nothing.
    fn matches(&self, rule: &Value) -> bool {
        let start = if self.probe.ingress { "from" } else { "to" };
        let fields = rule.as_object().unwrap().iter();
        let mut peers = fields.filter(|(name, _)| name.starts_with(start) && *name != "toPorts").peekable();
        let ports = !items(&rule["toPorts"]).is_empty() || !items(&rule["icmps"]).is_empty();
        if peers.peek().is_none() && !ports {
            return false;
        }
        let is_peer = peers.all(|(name, peers)| {
            items(peers).iter().any(|peer| self.is_peer(name.strip_prefix(start).unwrap(), peer))
        });
        is_peer && (!ports || self.is_port(rule))
    }

    fn is_peer(&self, field: &str, peer: &Value) -> bool {
        let probe = self.probe;
        match field {
            "Endpoints" => self.is_endpoint(peer),
            "Entities" => self.is_entity(text(peer)),
            "CIDR" => match text(peer).parse::<IpAddr>() {
                Ok(address) => probe.remote.is_none() && probe.address == address,
                Err(_) => self.is_outside(text(peer)),
            },
            "CIDRSet" => self.is_in_set(peer),
            // Labels of nodes are not known: what may be meant is denied, and not allowed.
            "Nodes" => probe.is_node() && (self.denies || requirements(peer).next().is_none()),
            "Services" => self.is_service(peer),
            // What names resolve to is not known.
            _ => false,
        }
    }

    /// A namespaced policy means its own namespace, unless the selector says which.
    fn is_endpoint(&self, selector: &Value) -> bool {
        let reserved = |key: &str| key.starts_with("reserved:");
        if requirements(selector).any(|found| reserved(found.key) && !found.is_negative()) {
            let label = |key: &str| Label::Known((key == "reserved:remote-node").then_some(""));
            return self.probe.is_node() && selects_peer(selector, self.denies, bare, label);
        }
        let Some(remote) = self.probe.endpoint() else { return false };
        let names_namespace = requirements(selector)
            .any(|found| bare(found.key) == NAMESPACE || bare(found.key).starts_with(NAMESPACE_LABELS));
        (names_namespace || self.namespace.is_none_or(|namespace| namespace == remote.namespace))
            && selects_peer(selector, self.denies, bare, |key| of_endpoint(self.cluster, remote, key))
    }

    fn is_entity(&self, name: &str) -> bool {
        let probe = self.probe;
        match name {
            "all" => true,
            "world" => probe.remote.is_none(),
            "world-ipv4" => probe.remote.is_none() && probe.address.is_ipv4(),
            "world-ipv6" => probe.remote.is_none() && probe.address.is_ipv6(),
            "cluster" | "cluster-mesh" => probe.remote.is_some(),
            "remote-node" => probe.is_node(),
            "kube-apiserver" => self
                .cluster
                .services
                .iter()
                .filter(|service| (service.namespace, service.name) == ("default", "kubernetes"))
                .any(|service| self.leads_here(service)),
            // A workload has no node beside itself; the others are not in this mesh.
            _ => false,
        }
    }

    /// Blocks mean addresses that nobody in the mesh has.
    fn is_outside(&self, cidr: &str) -> bool {
        self.probe.remote.is_none() && inside(cidr, self.probe.address)
    }

    fn is_in_set(&self, set: &Value) -> bool {
        if items(&set["except"]).iter().any(|hole| inside(text(hole), self.probe.address)) {
            return false;
        }
        if let Some(cidr) = set.get("cidr") {
            return self.is_outside(text(cidr));
        }
        self.cluster.groups.iter().any(|group| {
            let meant = match set.get("cidrGroupRef") {
                Some(name) => *name == *group.name,
                None => selects_labels(&set["cidrGroupSelector"], &group.labels),
            };
            meant && group.cidrs.iter().any(|cidr| self.is_outside(cidr))
        })
    }

    fn is_service(&self, peer: &Value) -> bool {
        let named = peer.get("k8sService");
        let selected = peer.get("k8sServiceSelector");
        let namespace = named.or(selected).unwrap()["namespace"].as_str().or(self.namespace);
        self.cluster.services.iter().any(|service| {
            namespace.is_none_or(|namespace| namespace == service.namespace)
                && named.is_none_or(|named| named["serviceName"] == *service.name)
                && selected.is_none_or(|found| selects_labels(&found["selector"], &service.labels))
                && self.leads_here(service)
        })
    }

    /// Whether a Service leads to the remote.
    fn leads_here(&self, service: &Service) -> bool {
        match &service.selector {
            Some(selector) => self.probe.endpoint().is_some_and(|remote| {
                remote.namespace == service.namespace
                    && selector.iter().all(|(key, value)| remote.labels.get(key) == Some(value))
            }),
            None => self.probe.remote.is_none() && service.addresses.contains(&self.probe.address),
        }
    }

    fn is_port(&self, rule: &Value) -> bool {
        let by_port = items(&rule["toPorts"]).iter().any(|item| {
            // What is judged by layer 7 is not allowed: nobody looks there.
            item.get("rules").is_none() && items(&item["ports"]).iter().any(|port| self.is_one(port))
        });
        let mut types = items(&rule["icmps"]).iter().flat_map(|item| items(&item["fields"]));
        by_port || types.any(|field| self.is_type(field))
    }

    fn is_one(&self, item: &Value) -> bool {
        let Some(protocol) = ports::protocol(self.probe) else { return false };
        let wanted = item.get("protocol").map_or("ANY", text);
        if wanted != "ANY" && wanted != protocol {
            return false;
        }
        let port = text(&item["port"]);
        match port.parse::<u64>() {
            Ok(0) => true,
            Ok(first) => {
                let last = item.get("endPort").map_or(first, |last| last.as_u64().unwrap());
                (first..=last).contains(&u64::from(self.probe.port))
            }
            Err(_) => ports::is_named(self.cluster, self.probe, port, self.denies),
        }
    }

    fn is_type(&self, field: &Value) -> bool {
        let is_v6 = field.get("family").is_some_and(|family| family == "IPv6");
        let number = match (&field["type"], is_v6) {
            (Value::String(name), false) => match name.as_str() {
                "Echo" | "EchoRequest" => 8,
                "DestinationUnreachable" => 3,
                number => number.parse().unwrap(),
            },
            (Value::String(name), true) if name == "EchoRequest" => 128,
            (Value::String(_), true) => 129,
            (number, _) => number.as_u64().unwrap(),
        };
        self.probe.protocol == if is_v6 { 58 } else { 1 } && u64::from(self.probe.port) == number
    }
}
