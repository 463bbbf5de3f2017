//! The ports of a rule.

use super::Compiler;
use crate::cilium::api::{IcmpRule, PortProtocol, PortRule};
use crate::rules::{PortMatch, PortSpec};
use crate::state::{PortRange, RuleAction};

const TCP: u8 = 6;
const UDP: u8 = 17;
const SCTP: u8 = 132;

/// Cilium's limit of ports in one rule, and of ICMP types.
pub(super) const LONGEST_LIST: usize = 40;

impl Compiler<'_> {
    /// `None` if the rule says nothing about ports: an empty list says no more than an absent one.
    pub(super) fn ports(
        &mut self,
        to_ports: Option<&[PortRule]>,
        icmps: Option<&[IcmpRule]>,
        action: RuleAction,
        path: &str,
    ) -> Option<PortSpec> {
        let (to_ports, icmps) = (to_ports.unwrap_or_default(), icmps.unwrap_or_default());
        if !to_ports.is_empty() && !icmps.is_empty() {
            self.error(&format!("{path}.icmps"), "cannot stand beside toPorts: write a rule for each");
        }
        if to_ports.is_empty() && icmps.is_empty() {
            return None;
        }
        let mut matches = Vec::new();
        for (index, rule) in to_ports.iter().enumerate() {
            let path = format!("{path}.toPorts[{index}]");
            let found = self.port_rule(rule, action, &path);
            matches.extend(found);
        }
        self.icmps(icmps, &format!("{path}.icmps"), &mut matches);
        matches.sort();
        matches.dedup();
        Some(PortSpec::Only(matches))
    }

    fn port_rule(&mut self, rule: &PortRule, action: RuleAction, path: &str) -> Vec<PortMatch> {
        let is_deny = action == RuleAction::Deny;
        for (field, is_there) in [
            ("terminatingTLS", rule.terminating_tls.is_some()),
            ("originatingTLS", rule.originating_tls.is_some()),
            ("listener", rule.listener.is_some()),
        ] {
            self.refuse(path, field, is_there, "is not supported");
        }
        self.refuse(path, "rules", is_deny && rule.rules.is_some(), "is no field of a deny rule");
        self.refuse(
            path,
            "serverNames",
            is_deny && rule.server_names.is_some(),
            "is no field of a deny rule",
        );
        let ports = rule.ports.as_deref().unwrap_or_default();
        if ports.len() > LONGEST_LIST {
            self.error(
                &format!("{path}.ports"),
                format!("has {} ports, at most {LONGEST_LIST}", ports.len()),
            );
        }
        if ports.is_empty() {
            self.warn(path, "names no ports: it matches nothing");
        }
        let mut matches = Vec::new();
        for (index, port) in ports.iter().enumerate() {
            self.port(port, &format!("{path}.ports[{index}]"), &mut matches);
        }
        let judged = match &rule.rules {
            Some(rules) => self.judge_l7(rules, &format!("{path}.rules")),
            None => false,
        };
        if judged || rule.server_names.is_some() {
            self.warn(path, "rules of layer 7 are not enforced: the rule allows nothing on these ports");
            matches.clear();
        }
        matches
    }

    fn port(&mut self, item: &PortProtocol, path: &str, matches: &mut Vec<PortMatch>) {
        let Some(protocols) = self.protocols(item.protocol.as_deref(), &format!("{path}.protocol")) else {
            return;
        };
        let port_path = format!("{path}.port");
        let end_path = format!("{path}.endPort");
        let Some(text) = item.port.as_deref().filter(|text| !text.is_empty()) else {
            self.error(&port_path, "is missing");
            return;
        };
        if let Ok(first) = text.parse::<u16>() {
            let Some((first, last)) = self.range(first, item.end_port, &end_path) else { return };
            let each = protocols.iter().map(|protocol| PortRange { protocol: *protocol, first, last });
            matches.extend(each.map(PortMatch::Range));
        } else if is_service_name(text) {
            if let Some(end) = item.end_port.filter(|end| *end != 0) {
                self.error(
                    &end_path,
                    format!("is {end} beside the named port {text:?}: it needs a numeric one"),
                );
            }
            let name = text.to_ascii_lowercase();
            matches.extend(protocols.iter().map(|p| PortMatch::Named { name: name.clone(), protocol: *p }));
        } else {
            self.error(&port_path, format!("{text:?} is no port: 0 to 65535, or a name"));
        }
    }

    /// Port 0 is every port. An end of 0 is none.
    fn range(&mut self, first: u16, end: Option<i64>, path: &str) -> Option<(u16, u16)> {
        let end = end.unwrap_or_default();
        if first == 0 {
            if end != 0 {
                self.error(path, format!("is {end} beside port 0, which is every port"));
                return None;
            }
            return Some((0, u16::MAX));
        }
        if end == 0 {
            return Some((first, first));
        }
        match u16::try_from(end) {
            Ok(last) if last >= first => Some((first, last)),
            Ok(last) => {
                self.error(path, format!("{last} is less than port {first}"));
                None
            }
            Err(_) => {
                self.error(path, format!("{end} is no port: ports are 1 to 65535"));
                None
            }
        }
    }

    fn protocols(&mut self, name: Option<&str>, path: &str) -> Option<&'static [u8]> {
        match name.unwrap_or("ANY").to_ascii_uppercase().as_str() {
            "" | "ANY" => Some(&[TCP, UDP, SCTP]),
            "TCP" => Some(&[TCP]),
            "UDP" => Some(&[UDP]),
            "SCTP" => Some(&[SCTP]),
            other => {
                self.error(path, format!("{other:?} is no protocol: TCP, UDP, SCTP or ANY"));
                None
            }
        }
    }
}

/// IANA service names (RFC 6335 §5.1), in either case as Cilium reads them.
fn is_service_name(text: &str) -> bool {
    (1..=15).contains(&text.len())
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
        && text.bytes().any(|b| b.is_ascii_alphabetic())
        && !text.starts_with('-')
        && !text.ends_with('-')
        && !text.contains("--")
}
