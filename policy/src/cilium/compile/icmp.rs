//! ICMP types, by number and by name.

use super::Compiler;
use super::ports::LONGEST_LIST;
use crate::cilium::api::{IcmpKind, IcmpRule};
use crate::rules::PortMatch;
use crate::state::PortRange;

const ICMP: u8 = 1;
const ICMPV6: u8 = 58;

/// Names of types (IANA, "ICMP Type Numbers"), as Cilium writes them.
const V4: [(&str, u8); 14] = [
    ("EchoReply", 0),
    ("DestinationUnreachable", 3),
    ("Redirect", 5),
    ("Echo", 8),
    ("EchoRequest", 8),
    ("RouterAdvertisement", 9),
    ("RouterSelection", 10),
    ("TimeExceeded", 11),
    ("ParameterProblem", 12),
    ("Timestamp", 13),
    ("TimestampReply", 14),
    ("Photuris", 40),
    ("ExtendedEchoRequest", 42),
    ("ExtendedEchoReply", 43),
];

/// The same of `ICMPv6` (IANA, "`ICMPv6` Parameters").
const V6: [(&str, u8); 25] = [
    ("DestinationUnreachable", 1),
    ("PacketTooBig", 2),
    ("TimeExceeded", 3),
    ("ParameterProblem", 4),
    ("EchoRequest", 128),
    ("EchoReply", 129),
    ("MulticastListenerQuery", 130),
    ("MulticastListenerReport", 131),
    ("MulticastListenerDone", 132),
    ("RouterSolicitation", 133),
    ("RouterAdvertisement", 134),
    ("NeighborSolicitation", 135),
    ("NeighborAdvertisement", 136),
    ("RedirectMessage", 137),
    ("RouterRenumbering", 138),
    ("ICMPNodeInformationQuery", 139),
    ("ICMPNodeInformationResponse", 140),
    ("InverseNeighborDiscoverySolicitation", 141),
    ("InverseNeighborDiscoveryAdvertisement", 142),
    ("HomeAgentAddressDiscoveryRequest", 144),
    ("HomeAgentAddressDiscoveryReply", 145),
    ("MobilePrefixSolicitation", 146),
    ("MobilePrefixAdvertisement", 147),
    ("ExtendedEchoRequest", 160),
    ("ExtendedEchoReply", 161),
];

impl Compiler<'_> {
    /// Types stand where other protocols have their ports.
    pub(super) fn icmps(&mut self, rules: &[IcmpRule], path: &str, matches: &mut Vec<PortMatch>) {
        for (index, rule) in rules.iter().enumerate() {
            let fields = rule.fields.as_deref().unwrap_or_default();
            if fields.len() > LONGEST_LIST {
                let path = format!("{path}[{index}].fields");
                self.error(&path, format!("has {} types, at most {LONGEST_LIST}", fields.len()));
            }
            for (at, field) in fields.iter().enumerate() {
                let path = format!("{path}[{index}].fields[{at}]");
                let (protocol, names): (u8, &[(&str, u8)]) = match field.family.as_deref() {
                    None | Some("" | "IPv4") => (ICMP, &V4),
                    Some("IPv6") => (ICMPV6, &V6),
                    Some(other) => {
                        self.error(&format!("{path}.family"), format!("{other:?} is neither IPv4 nor IPv6"));
                        continue;
                    }
                };
                let Some(kind) = number(&field.kind, names) else {
                    let given = match &field.kind {
                        IcmpKind::Number(number) => number.to_string(),
                        IcmpKind::Name(name) => format!("{name:?}"),
                    };
                    self.error(&format!("{path}.type"), format!("{given} is no type: 0 to 255, or a name"));
                    continue;
                };
                let kind = u16::from(kind);
                matches.push(PortMatch::Range(PortRange { protocol, first: kind, last: kind }));
            }
        }
    }
}

fn number(kind: &IcmpKind, names: &[(&str, u8)]) -> Option<u8> {
    match kind {
        IcmpKind::Number(number) => u8::try_from(*number).ok(),
        IcmpKind::Name(text) => match text.parse() {
            Ok(number) => Some(number),
            Err(_) => names.iter().find(|(name, _)| name == text).map(|(_, number)| *number),
        },
    }
}
