//! Protocols and ports, as v1alpha2 and as v1alpha1 write them.

use super::Compiler;
use crate::clusternetworkpolicy::api::{OldPort, Port, Protocol, Transport};
use crate::rules::{PortMatch, PortSpec};
use crate::state::PortRange;

const TCP: u8 = 6;
const UDP: u8 = 17;
const SCTP: u8 = 132;

/// Most protocols or ports of a rule: v1alpha1's limit, which is the higher one.
const MOST: usize = 100;

impl Compiler<'_> {
    pub(super) fn protocols(&mut self, protocols: Option<&[Protocol]>, path: &str) -> PortSpec {
        let Some(protocols) = protocols else { return PortSpec::Any };
        self.count(protocols.len(), path);
        let mut matches = Vec::new();
        for (index, protocol) in protocols.iter().enumerate() {
            let path = format!("{path}[{index}]");
            match (&protocol.tcp, &protocol.udp, &protocol.sctp, &protocol.destination_named_port) {
                (Some(transport), None, None, None) => {
                    self.transport(TCP, transport, &format!("{path}.tcp"), &mut matches);
                }
                (None, Some(transport), None, None) => {
                    self.transport(UDP, transport, &format!("{path}.udp"), &mut matches);
                }
                (None, None, Some(transport), None) => {
                    self.transport(SCTP, transport, &format!("{path}.sctp"), &mut matches);
                }
                (None, None, None, Some(name)) => {
                    self.named(name, &format!("{path}.destinationNamedPort"), &mut matches);
                }
                _ => self.error(&path, "needs one of tcp, udp, sctp and destinationNamedPort"),
            }
        }
        sorted(matches)
    }

    fn transport(&mut self, protocol: u8, transport: &Transport, path: &str, matches: &mut Vec<PortMatch>) {
        let path = format!("{path}.destinationPort");
        let range = match &transport.destination_port {
            None => {
                self.error(&path, "is missing");
                None
            }
            Some(Port { number: Some(number), range: None }) => {
                self.port(*number, &format!("{path}.number")).map(|port| (port, port))
            }
            Some(Port { number: None, range: Some(range) }) => {
                self.range(range.start, range.end, &format!("{path}.range"))
            }
            Some(_) => {
                self.error(&path, "needs one of number and range");
                None
            }
        };
        matches.extend(range.map(|(first, last)| PortMatch::Range(PortRange { protocol, first, last })));
    }

    pub(super) fn old_ports(&mut self, ports: Option<&[OldPort]>, path: &str) -> PortSpec {
        let Some(ports) = ports else { return PortSpec::Any };
        self.count(ports.len(), path);
        let mut matches = Vec::new();
        for (index, port) in ports.iter().enumerate() {
            let path = format!("{path}[{index}]");
            let (protocol, range, path) = match (&port.port_number, &port.named_port, &port.port_range) {
                (Some(number), None, None) => {
                    let path = format!("{path}.portNumber");
                    let port = self.port(number.port, &format!("{path}.port")).map(|port| (port, port));
                    (&number.protocol, port, path)
                }
                (None, Some(name), None) => {
                    self.named(name, &format!("{path}.namedPort"), &mut matches);
                    continue;
                }
                (None, None, Some(range)) => {
                    let path = format!("{path}.portRange");
                    (&range.protocol, self.range(range.start, range.end, &path), path)
                }
                _ => {
                    self.error(&path, "needs one of portNumber, namedPort and portRange");
                    continue;
                }
            };
            let protocol = match protocol.as_deref().unwrap_or("TCP") {
                "TCP" => TCP,
                "UDP" => UDP,
                "SCTP" => SCTP,
                other => {
                    self.error(
                        &format!("{path}.protocol"),
                        format!("{other:?} is no protocol: TCP, UDP or SCTP"),
                    );
                    continue;
                }
            };
            matches.extend(range.map(|(first, last)| PortMatch::Range(PortRange { protocol, first, last })));
        }
        sorted(matches)
    }

    /// A port of that name, whatever its protocol.
    fn named(&mut self, name: &str, path: &str, matches: &mut Vec<PortMatch>) {
        if name.is_empty() || name.len() > 63 {
            self.error(path, format!("{name:?} is no port name"));
        }
        let each = [TCP, UDP, SCTP].into_iter();
        matches.extend(each.map(|protocol| PortMatch::Named { name: name.to_owned(), protocol }));
    }

    fn count(&mut self, count: usize, path: &str) {
        if count == 0 || count > MOST {
            self.error(path, format!("has {count} items: 1 to {MOST} are needed"));
        }
    }

    fn range(&mut self, start: i64, end: i64, path: &str) -> Option<(u16, u16)> {
        let (first, last) =
            (self.port(start, &format!("{path}.start")), self.port(end, &format!("{path}.end")));
        let (first, last) = (first?, last?);
        if last <= first {
            self.error(&format!("{path}.end"), format!("{last} is not more than start {first}"));
        }
        Some((first, last))
    }

    fn port(&mut self, number: i64, path: &str) -> Option<u16> {
        let port = u16::try_from(number).ok().filter(|port| *port != 0);
        if port.is_none() {
            self.error(path, format!("{number} is no port: ports are 1 to 65535"));
        }
        port
    }
}

fn sorted(mut matches: Vec<PortMatch>) -> PortSpec {
    matches.sort();
    matches.dedup();
    PortSpec::Only(matches)
}
