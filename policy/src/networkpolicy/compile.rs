//! From the API's types to the common form, with every error collected.

use ipnet::IpNet;

use super::api::{
    EgressRule, IngressRule, IpBlock, NetworkPolicy, Peer as ApiPeer, PolicyType, PortItem, PortValue,
    Protocol, Spec,
};
use super::{origin_of, subject};
use crate::labels::{self, is_filtered};
use crate::rules::{
    Peer, PeerSpec, PolicyObject, PortMatch, PortSpec, RuleSpec, Section, Subject, precedence,
};
use crate::selector::{FieldError, LabelSelector, Requirement, Selector};
use crate::state::{Block, PortRange, Reach, RuleAction};

/// Compiles the object. What is returned must not be used when anything was added to `errors`.
pub(super) fn compile(object: &NetworkPolicy, errors: &mut Vec<FieldError>) -> PolicyObject {
    let namespace = object.metadata.namespace();
    let origin = origin_of(namespace, &object.metadata.name);
    let subject = subject(object.spec.pod_selector.as_ref(), namespace, errors);
    let mut compiler = Compiler { namespace, origin: &origin, errors, warnings: Vec::new() };
    // Rules are checked also in a direction that policyTypes leaves out: the API server refuses them too.
    let ingress = compiler.ingress(object.spec.ingress.as_deref().unwrap_or_default());
    let egress = compiler.egress(object.spec.egress.as_deref().unwrap_or_default());
    let types = compiler.types(&object.spec);
    let warnings = compiler.warnings;
    PolicyObject {
        origin,
        subject: Subject::Endpoints(subject),
        ingress: types.contains(&PolicyType::Ingress).then_some(Section::isolating(ingress)),
        egress: types.contains(&PolicyType::Egress).then_some(Section::isolating(egress)),
        warnings,
    }
}

struct Compiler<'a> {
    namespace: &'a str,
    origin: &'a str,
    errors: &'a mut Vec<FieldError>,
    warnings: Vec<String>,
}

impl Compiler<'_> {
    /// Absent and empty are the same here, as in the API server: `Ingress`, and `Egress` if there are egress rules.
    fn types(&mut self, spec: &Spec) -> Vec<PolicyType> {
        let given = spec.policy_types.clone().unwrap_or_default();
        if given.len() > 2 {
            self.error("spec.policyTypes", format!("{given:?} are more than two"));
        }
        if !given.is_empty() {
            return given;
        }
        let egress = spec.egress.as_ref().is_some_and(|rules| !rules.is_empty());
        if egress { vec![PolicyType::Ingress, PolicyType::Egress] } else { vec![PolicyType::Ingress] }
    }

    fn ingress(&mut self, rules: &[IngressRule]) -> Vec<RuleSpec> {
        let rules = rules.iter().enumerate();
        rules
            .map(|(i, rule)| self.rule("ingress", i, "from", rule.from.as_deref(), rule.ports.as_deref()))
            .collect()
    }

    fn egress(&mut self, rules: &[EgressRule]) -> Vec<RuleSpec> {
        let rules = rules.iter().enumerate();
        rules
            .map(|(i, rule)| self.rule("egress", i, "to", rule.to.as_deref(), rule.ports.as_deref()))
            .collect()
    }

    fn rule(
        &mut self,
        direction: &str,
        index: usize,
        peers_field: &str,
        peers: Option<&[ApiPeer]>,
        ports: Option<&[PortItem]>,
    ) -> RuleSpec {
        let path = format!("spec.{direction}[{index}]");
        RuleSpec {
            origin: format!("{}#{direction}[{index}]", self.origin).into(),
            peers: self.peers(peers.unwrap_or_default(), &format!("{path}.{peers_field}")),
            ports: self.ports(ports.unwrap_or_default(), &format!("{path}.ports")),
            action: RuleAction::Allow,
            precedence: precedence::NETWORK_POLICY,
        }
    }

    /// "If this field is empty or missing, this rule matches all sources."
    fn peers(&mut self, peers: &[ApiPeer], path: &str) -> PeerSpec {
        if peers.is_empty() {
            return PeerSpec::Any;
        }
        let each = peers.iter().enumerate();
        PeerSpec::Only(each.filter_map(|(i, peer)| self.peer(peer, &format!("{path}[{i}]"))).collect())
    }

    fn peer(&mut self, peer: &ApiPeer, path: &str) -> Option<Peer> {
        let (pods, namespaces) = (peer.pod_selector.as_ref(), peer.namespace_selector.as_ref());
        match (&peer.ip_block, pods, namespaces) {
            (None, None, None) => {
                self.error(path, "is empty: give podSelector, namespaceSelector or ipBlock");
                None
            }
            (Some(block), None, None) => self.block(block, &format!("{path}.ipBlock")).map(Peer::Block),
            (Some(_), _, _) => {
                self.error(path, "has ipBlock and a selector: an ipBlock stands alone");
                None
            }
            (None, pods, namespaces) => self.endpoints(pods, namespaces, path).map(Peer::Endpoints),
        }
    }

    /// Without a namespace selector, the policy's own namespace; an empty one is every namespace. Either way a peer
    /// has a namespace, so that no selector, however negative, matches a reserved identity.
    fn endpoints(
        &mut self,
        pods: Option<&LabelSelector>,
        namespaces: Option<&LabelSelector>,
        path: &str,
    ) -> Option<Selector> {
        let scope = match namespaces {
            None => Selector::default().and(Requirement::is(labels::NAMESPACE, self.namespace)),
            Some(selector) => selector
                .compile(labels::NAMESPACE_LABEL_PREFIX, &format!("{path}.namespaceSelector"), self.errors)
                .and(Requirement::exists(labels::NAMESPACE)),
        };
        let Some(pods) = pods else { return Some(scope) };
        let path = format!("{path}.podSelector");
        let selector = scope.and_all(pods.compile(labels::OBJECT_PREFIX, &path, self.errors));
        for key in pods.keys().filter(|key| is_filtered(key)) {
            self.warnings.push(format!("{path}: {}", LabelSelector::lacking(key, false)));
        }
        pods.of_visible(&is_filtered, false).map(|_| selector)
    }

    fn block(&mut self, block: &IpBlock, path: &str) -> Option<Block> {
        let cidr = self.cidr(&block.cidr, &format!("{path}.cidr"));
        let mut holes = Vec::new();
        for (index, text) in block.except.iter().flatten().enumerate() {
            let path = format!("{path}.except[{index}]");
            let hole = self.cidr(text, &path);
            if let (Some(cidr), Some(hole)) = (cidr, hole) {
                if cidr == hole || !cidr.contains(&hole) {
                    self.error(&path, format!("{text:?} is not a strict subset of cidr {:?}", block.cidr));
                }
                holes.push(hole);
            }
        }
        holes.sort();
        holes.dedup();
        cidr.map(|cidr| Block { cidr, except: holes, reach: Reach::Everyone })
    }

    /// Bits behind the prefix are cut off, as the API server does.
    fn cidr(&mut self, text: &str, path: &str) -> Option<IpNet> {
        match text.parse::<IpNet>() {
            Ok(IpNet::V6(net)) if net.addr().to_ipv4_mapped().is_some() => {
                self.error(path, format!("{text:?} is an IPv4-mapped IPv6 block: write it as IPv4"));
                None
            }
            Ok(net) => Some(net.trunc()),
            Err(_) => {
                self.error(path, format!("{text:?} is no CIDR block such as 10.0.0.0/8 or 2001:db8::/32"));
                None
            }
        }
    }

    /// "If this field is empty or missing, this rule matches all ports."
    fn ports(&mut self, ports: &[PortItem], path: &str) -> PortSpec {
        if ports.is_empty() {
            return PortSpec::Any;
        }
        let each = ports.iter().enumerate();
        let mut ports: Vec<_> =
            each.filter_map(|(i, port)| self.port(port, &format!("{path}[{i}]"))).collect();
        ports.sort();
        ports.dedup();
        PortSpec::Only(ports)
    }

    fn port(&mut self, port: &PortItem, path: &str) -> Option<PortMatch> {
        let protocol = port.protocol.unwrap_or(Protocol::Tcp).number();
        let range = |first, last| Some(PortMatch::Range(PortRange { protocol, first, last }));
        let end_path = format!("{path}.endPort");
        match (&port.port, port.end_port) {
            (None, None) => range(0, u16::MAX),
            (None, Some(end)) => {
                self.error(&end_path, format!("is {end} without a port"));
                None
            }
            (Some(PortValue::Name(name)), Some(end)) => {
                self.error(
                    &end_path,
                    format!("is {end} beside the named port {name:?}: it needs a numeric one"),
                );
                None
            }
            (Some(PortValue::Name(name)), None) => self
                .name(name, &format!("{path}.port"))
                .then(|| PortMatch::Named { name: name.clone(), protocol }),
            (Some(PortValue::Number(first)), end) => {
                let first = self.number(*first, &format!("{path}.port"));
                let last = end.map_or(first, |end| self.number(end, &end_path));
                let (first, last) = (first?, last?);
                if last < first {
                    self.error(&end_path, format!("{last} is less than port {first}"));
                }
                range(first, last)
            }
        }
    }

    fn number(&mut self, number: i64, path: &str) -> Option<u16> {
        let port = u16::try_from(number).ok().filter(|port| *port != 0);
        if port.is_none() {
            self.error(path, format!("{number} is no port: ports are 1 to 65535"));
        }
        port
    }

    /// IANA service names (RFC 6335 §5.1), in lower case as Kubernetes wants them.
    fn name(&mut self, name: &str, path: &str) -> bool {
        let valid = (1..=15).contains(&name.len())
            && name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
            && name.bytes().any(|b| b.is_ascii_lowercase())
            && !name.starts_with('-')
            && !name.ends_with('-')
            && !name.contains("--");
        if !valid {
            self.error(
                path,
                format!("{name:?} is no port name: up to 15 of a-z 0-9 '-', with a letter; numbers stand without quotes"),
            );
        }
        valid
    }

    fn error(&mut self, path: &str, message: impl Into<String>) {
        self.errors.push(FieldError::new(path, message));
    }
}
