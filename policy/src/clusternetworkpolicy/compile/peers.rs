//! Subjects and peers.

use ipnet::IpNet;

use super::Compiler;
use crate::clusternetworkpolicy::api::{NamespacedPod, Peer as ApiPeer, Pods};
use crate::labels::{self, is_filtered};
use crate::rules::{Entity, Peer, PeerSpec};
use crate::selector::{LabelSelector, Requirement, Selector};
use crate::state::{Block, Reach, RuleAction};

/// Most peers of a rule, and networks of a peer: v1alpha1's limit, which is the higher one.
const MOST: usize = 100;

impl Compiler<'_> {
    /// A selector of pods. Whatever it says, it matches no reserved identity: those have no namespace.
    pub(super) fn pods(&mut self, pods: &Pods, path: &str) -> Option<Selector> {
        match (&pods.namespaces, &pods.pods) {
            (Some(namespaces), None) => Some(self.namespaces(namespaces, &format!("{path}.namespaces"))),
            (None, Some(pods)) => Some(self.namespaced(pods, &format!("{path}.pods"))),
            _ => {
                self.error(path, "needs one of namespaces and pods");
                None
            }
        }
    }

    fn namespaces(&mut self, selector: &LabelSelector, path: &str) -> Selector {
        selector
            .compile(labels::NAMESPACE_LABEL_PREFIX, path, self.errors)
            .and(Requirement::exists(labels::NAMESPACE))
    }

    fn namespaced(&mut self, pods: &NamespacedPod, path: &str) -> Selector {
        let namespaces = self.namespaces(&pods.namespace_selector, &format!("{path}.namespaceSelector"));
        let path = format!("{path}.podSelector");
        namespaces.and_all(pods.pod_selector.compile(labels::OBJECT_PREFIX, &path, self.errors))
    }

    /// A peer made of pods, whose identities lack some labels.
    fn visible(&mut self, pods: &NamespacedPod, action: RuleAction, path: &str) -> Peer {
        let denies = action == RuleAction::Deny;
        for key in pods.pod_selector.keys().filter(|key| is_filtered(key)) {
            self.warnings.push(format!("{path}.podSelector: {}", LabelSelector::lacking(key, denies)));
        }
        // All of it is checked, also what is not looked at.
        let checked = self.namespaced(pods, path);
        match pods.pod_selector.of_visible(&is_filtered, denies) {
            None => Peer::Entity(Entity::Nobody),
            Some(visible) if visible == pods.pod_selector => Peer::Endpoints(checked),
            Some(pod_selector) => {
                let namespace_selector = pods.namespace_selector.clone();
                Peer::Endpoints(self.namespaced(&NamespacedPod { namespace_selector, pod_selector }, path))
            }
        }
    }

    pub(super) fn peers(
        &mut self,
        peers: Option<&[ApiPeer]>,
        direction: &str,
        action: RuleAction,
        path: &str,
    ) -> PeerSpec {
        let peers = peers.unwrap_or_default();
        if peers.is_empty() || peers.len() > MOST {
            self.error(path, format!("has {} peers: 1 to {MOST} are needed", peers.len()));
        }
        let mut found = Vec::new();
        for (index, peer) in peers.iter().enumerate() {
            let path = format!("{path}[{index}]");
            let given = [
                peer.namespaces.is_some(),
                peer.pods.is_some(),
                peer.nodes.is_some(),
                peer.networks.is_some(),
                peer.domain_names.is_some(),
            ];
            if given.iter().filter(|given| **given).count() != 1 {
                self.error(
                    &path,
                    "needs one of namespaces, pods, and of egress nodes, networks and domainNames",
                );
                continue;
            }
            if let Some(namespaces) = &peer.namespaces {
                found.push(Peer::Endpoints(self.namespaces(namespaces, &format!("{path}.namespaces"))));
            } else if let Some(pods) = &peer.pods {
                found.push(self.visible(pods, action, &format!("{path}.pods")));
            } else if direction == "ingress" {
                self.error(&path, "needs one of namespaces and pods");
            } else {
                self.outside(peer, action, &path, &mut found);
            }
        }
        PeerSpec::Only(found)
    }

    /// Peers that are no pods, of egress.
    fn outside(&mut self, peer: &ApiPeer, action: RuleAction, path: &str, found: &mut Vec<Peer>) {
        if let Some(nodes) = &peer.nodes {
            let selector = nodes.compile(labels::OBJECT_PREFIX, &format!("{path}.nodes"), self.errors);
            found.push(Peer::Nodes(selector));
        }
        for (index, text) in peer.networks.iter().flatten().enumerate() {
            let path = format!("{path}.networks[{index}]");
            match text.parse::<IpNet>() {
                Ok(IpNet::V6(net)) if net.addr().to_ipv4_mapped().is_some() => {
                    self.error(&path, format!("{text:?} is an IPv4-mapped IPv6 block: write it as IPv4"));
                }
                Ok(net) => {
                    found.push(Peer::Block(Block {
                        cidr: net.trunc(),
                        except: Vec::new(),
                        reach: Reach::Everyone,
                    }));
                }
                Err(_) => self
                    .error(&path, format!("{text:?} is no CIDR block such as 10.0.0.0/8 or 2001:db8::/32")),
            }
        }
        if let Some(names) = &peer.domain_names {
            let path = format!("{path}.domainNames");
            if action != RuleAction::Allow {
                self.error(&path, "is for rules that accept only");
            }
            for (index, name) in names.iter().enumerate().filter(|(_, name)| !is_domain(name)) {
                self.error(&format!("{path}[{index}]"), format!("{name:?} is no domain name"));
            }
            self.warnings.push(format!("{path}: names are not enforced: the rule allows nothing to them"));
            found.push(Peer::Entity(Entity::Nobody));
        }
    }
}

/// `DomainName` of v1alpha2: labels, of which a leading one may be `*`.
fn is_domain(name: &str) -> bool {
    let name = name.strip_suffix('.').unwrap_or(name);
    let name = name.strip_prefix("*.").unwrap_or(name);
    let is_label = |label: &str| {
        !label.is_empty()
            && label.len() <= 63
            && label.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_'))
            && label.starts_with(|c: char| c.is_ascii_alphanumeric())
            && label.ends_with(|c: char| c.is_ascii_alphanumeric())
    };
    name.len() <= 253 && name.contains('.') && name.split('.').all(is_label)
}
