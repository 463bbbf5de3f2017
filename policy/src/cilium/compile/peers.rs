//! The peers of a rule.

use std::net::IpAddr;

use ipnet::IpNet;

use super::Compiler;
use crate::cilium::api::{CidrRule, Fqdn, Service};
use crate::cilium::selector::{self, Scope};
use crate::labels::{is_filtered, syntax};
use crate::rules::{CidrGroups, Entity, Peer, PeerSpec, ServicePeer, Services};
use crate::selector::LabelSelector;
use crate::state::{Block, Reach, RuleAction};

/// What one field says: `None` if it is absent.
type Member = Option<Vec<Peer>>;

impl Compiler<'_> {
    /// The peers of a rule from its fields, of which one may be used. An empty list, written out, selects nobody.
    pub(super) fn only_one<const N: usize>(
        &mut self,
        members: [(&'static str, Member); N],
        path: &str,
    ) -> Option<PeerSpec> {
        let mut given = members.into_iter().filter_map(|(field, peers)| peers.map(|peers| (field, peers)));
        let (first, mut peers) = given.next()?;
        let mut is_empty = peers.is_empty();
        for (other, more) in given {
            if !peers.is_empty() && !more.is_empty() {
                self.error(path, format!("combines {first} and {other}: write a rule for each"));
            }
            is_empty |= more.is_empty();
            peers.extend(more);
        }
        if is_empty {
            peers.clear();
        }
        if peers.iter().any(|peer| matches!(peer, Peer::Entity(Entity::All))) {
            return Some(PeerSpec::Any);
        }
        Some(PeerSpec::Only(peers))
    }

    pub(super) fn endpoints(
        &mut self,
        selectors: Option<&[LabelSelector]>,
        action: RuleAction,
        path: &str,
    ) -> Member {
        let mut peers = Vec::new();
        for (index, selector) in selectors?.iter().enumerate() {
            let path = format!("{path}[{index}]");
            // All of it is checked, also what is not looked at.
            let checked = selector::peer(selector, self.scope, &path, self.errors);
            let denies = action == RuleAction::Deny;
            for key in selector.keys().filter(|key| is_lacking(key)) {
                self.warnings.push(format!("{path}: {}", LabelSelector::lacking(key, denies)));
            }
            peers.push(match selector.of_visible(&is_lacking, denies) {
                Some(visible) if visible == *selector => Peer::Endpoints(checked),
                Some(visible) => {
                    Peer::Endpoints(selector::peer(&visible, self.scope, &path, &mut Vec::new()))
                }
                None => Peer::Entity(Entity::Nobody),
            });
        }
        Some(peers)
    }

    pub(super) fn nodes(&mut self, selectors: Option<&[LabelSelector]>, path: &str) -> Member {
        let each = selectors?.iter().enumerate();
        Some(
            each.map(|(i, nodes)| Peer::Nodes(selector::plain(nodes, &format!("{path}[{i}]"), self.errors)))
                .collect(),
        )
    }

    pub(super) fn entities(&mut self, names: Option<&[String]>, path: &str) -> Member {
        let mut peers = Vec::new();
        for (index, name) in names?.iter().enumerate() {
            match Entity::from_name(name) {
                Some(entity) => peers.push(Peer::Entity(entity)),
                None => self.error(&format!("{path}[{index}]"), format!("{name:?} is no entity")),
            }
        }
        Some(peers)
    }

    pub(super) fn cidrs(&mut self, texts: Option<&[String]>, path: &str) -> Member {
        let mut peers = Vec::new();
        for (index, text) in texts?.iter().enumerate() {
            let path = format!("{path}[{index}]");
            let net = match text.parse::<IpAddr>() {
                Ok(address) => self.checked(IpNet::from(address), text, &path),
                Err(_) => self.net(text, &path),
            };
            peers.extend(net.map(|cidr| outside(cidr, Vec::new())));
        }
        Some(peers)
    }

    pub(super) fn cidr_sets(&mut self, rules: Option<&[CidrRule]>, path: &str) -> Member {
        let mut peers = Vec::new();
        for (index, rule) in rules?.iter().enumerate() {
            let path = format!("{path}[{index}]");
            let except = self.holes(rule, &path);
            match (&rule.cidr, &rule.cidr_group_ref, &rule.cidr_group_selector) {
                (Some(text), None, None) => {
                    let Some(cidr) = self.net(text, &format!("{path}.cidr")) else { continue };
                    for (at, hole) in except.iter().enumerate().filter(|(_, hole)| !cidr.contains(*hole)) {
                        let path = format!("{path}.except[{at}]");
                        self.error(&path, format!("{hole} is not within cidr {text:?}"));
                    }
                    peers.push(outside(cidr, except));
                }
                (None, Some(name), None) => {
                    if !syntax::is_subdomain(name) {
                        self.error(
                            &format!("{path}.cidrGroupRef"),
                            format!("{name:?} is no name of an object"),
                        );
                    }
                    peers.push(Peer::CidrGroups { groups: CidrGroups::Named(name.clone()), except });
                }
                (None, None, Some(groups)) => {
                    let selector = selector::plain(groups, &format!("{path}.cidrGroupSelector"), self.errors);
                    peers.push(Peer::CidrGroups { groups: CidrGroups::Selected(selector), except });
                }
                _ => self.error(&path, "needs one of cidr, cidrGroupRef and cidrGroupSelector"),
            }
        }
        Some(peers)
    }

    fn holes(&mut self, rule: &CidrRule, path: &str) -> Vec<IpNet> {
        let mut holes = Vec::new();
        for (index, text) in rule.except.iter().flatten().enumerate() {
            holes.extend(self.net(text, &format!("{path}.except[{index}]")));
        }
        holes.sort();
        holes.dedup();
        holes
    }

    /// Bits behind the prefix are cut off.
    fn net(&mut self, text: &str, path: &str) -> Option<IpNet> {
        if let Ok(net) = text.parse::<IpNet>() {
            self.checked(net.trunc(), text, path)
        } else {
            self.error(path, format!("{text:?} is no CIDR block such as 10.0.0.0/8 or 2001:db8::/32"));
            None
        }
    }

    fn checked(&mut self, net: IpNet, text: &str, path: &str) -> Option<IpNet> {
        if let IpNet::V6(v6) = net
            && v6.addr().to_ipv4_mapped().is_some()
        {
            self.error(path, format!("{text:?} is an IPv4-mapped IPv6 block: write it as IPv4"));
            return None;
        }
        Some(net)
    }

    pub(super) fn services(&mut self, services: Option<&[Service]>, path: &str) -> Member {
        let mut peers = Vec::new();
        for (index, service) in services?.iter().enumerate() {
            let path = format!("{path}[{index}]");
            let own = match self.scope {
                Scope::Namespace(namespace) => Some(namespace.to_owned()),
                Scope::Cluster => None,
            };
            match (&service.k8s_service, &service.k8s_service_selector) {
                (Some(named), None) => {
                    let Some(name) = named.service_name.clone().filter(|name| syntax::is_dns_label(name))
                    else {
                        self.error(&format!("{path}.k8sService.serviceName"), "has to name a Service");
                        continue;
                    };
                    let Some(namespace) = named.namespace.clone().or(own) else {
                        self.error(&format!("{path}.k8sService.namespace"), "is missing");
                        continue;
                    };
                    peers.push(Peer::Service(ServicePeer {
                        namespace: Some(namespace),
                        services: Services::Named(name),
                    }));
                }
                (None, Some(selected)) => {
                    let path = format!("{path}.k8sServiceSelector.selector");
                    let selector = selector::plain(&selected.selector, &path, self.errors);
                    let namespace = selected.namespace.clone().or(own);
                    peers.push(Peer::Service(ServicePeer {
                        namespace,
                        services: Services::Selected(selector),
                    }));
                }
                _ => self.error(&path, "needs one of k8sService and k8sServiceSelector"),
            }
        }
        Some(peers)
    }

    /// Names are checked and allow nothing: what they resolve to is not observed.
    pub(super) fn fqdns(&mut self, names: Option<&[Fqdn]>, path: &str) -> Member {
        let mut peers = Vec::new();
        for (index, fqdn) in names?.iter().enumerate() {
            let path = format!("{path}[{index}]");
            self.check_fqdn(fqdn, &path);
            self.warn(&path, "names are not enforced: the rule allows nothing to them");
            peers.push(Peer::Entity(Entity::Nobody));
        }
        Some(peers)
    }

    pub(super) fn check_fqdn(&mut self, fqdn: &Fqdn, path: &str) {
        let (text, field, wild) = match (&fqdn.match_name, &fqdn.match_pattern) {
            (Some(name), None) => (name, "matchName", false),
            (None, Some(pattern)) => (pattern, "matchPattern", true),
            _ => {
                self.error(path, "needs one of matchName and matchPattern");
                return;
            }
        };
        let is_letter =
            |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.') || (wild && b == b'*');
        // One dot may end the name; none begins it or follows another.
        let labels = text.strip_suffix('.').unwrap_or(text);
        let has_gap = labels.split('.').any(str::is_empty);
        if has_gap || text.len() > 255 || !text.bytes().all(is_letter) {
            self.error(&format!("{path}.{field}"), format!("{text:?} is no DNS name"));
        }
    }
}

/// Whether pods' identities lack the label. Those that Cilium gives itself take part.
fn is_lacking(key: &str) -> bool {
    let bare = key.split_once(':').map_or(key, |(_, bare)| bare);
    is_filtered(bare) && !bare.starts_with("io.kubernetes.pod.namespace")
}

const fn outside(cidr: IpNet, except: Vec<IpNet>) -> Peer {
    Peer::Block(Block { cidr, except, reach: Reach::Outside })
}
