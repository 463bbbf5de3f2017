//! Tables of verdicts. A row is `allow|deny SOURCES -> TARGETS [: WHAT…]`; of the rows about a probe the last counts,
//! and what no row is about is allowed.

use std::fmt;

use anyhow::{Context, Result, bail};

use super::cast::{Actor, MEMBERS, NAMESPACES, PODS};

/// A protocol and a port, or a type of ICMP.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Kind {
    /// IP protocol number.
    pub protocol: u8,
    /// The port, or the type.
    pub port: u16,
}

/// IP protocol numbers and their names.
const PROTOCOLS: [(&str, u8); 5] = [("TCP", 6), ("UDP", 17), ("SCTP", 132), ("ICMP", 1), ("ICMPv6", 58)];

/// What every case is asked about, in both families.
pub const USUAL: [Kind; 8] = [
    Kind { protocol: 6, port: 80 },
    Kind { protocol: 6, port: 81 },
    Kind { protocol: 17, port: 80 },
    Kind { protocol: 17, port: 81 },
    Kind { protocol: 132, port: 80 },
    Kind { protocol: 132, port: 81 },
    Kind { protocol: 1, port: 8 },
    Kind { protocol: 58, port: 128 },
];

/// A flow that somebody tries to open.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Probe {
    /// Who.
    pub from: Actor,
    /// To whom.
    pub to: Actor,
    /// By which family.
    pub is_v6: bool,
    /// By what.
    pub kind: Kind,
}

/// Rows.
#[derive(Clone, Debug, Default)]
pub struct Table(Vec<Row>);

#[derive(Clone, Debug)]
struct Row {
    is_allow: bool,
    from: Vec<Actor>,
    to: Vec<Actor>,
    families: Vec<bool>,
    kinds: Vec<What>,
}

/// What a row is about: a protocol, a port, or both.
#[derive(Clone, Copy, Debug)]
struct What {
    protocol: Option<u8>,
    port: Option<u16>,
}

impl Kind {
    /// `TCP/80`, `ICMP/8`.
    pub fn parse(text: &str) -> Result<Self> {
        match What::parse(text)? {
            What { protocol: Some(protocol), port: Some(port) } => Ok(Self { protocol, port }),
            _ => bail!("{text:?} is no protocol with a port"),
        }
    }

    /// Whether there are packets of it in the family.
    #[must_use]
    pub const fn is_of(self, is_v6: bool) -> bool {
        match self.protocol {
            1 => !is_v6,
            58 => is_v6,
            _ => true,
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name =
            PROTOCOLS.iter().find(|(_, number)| *number == self.protocol).map_or("?", |(name, _)| name);
        write!(f, "{name}/{}", self.port)
    }
}

impl fmt::Display for Probe {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let family = if self.is_v6 { "v6" } else { "v4" };
        write!(f, "{} -> {}: {family} {}", self.from, self.to, self.kind)
    }
}

impl Table {
    /// Reads rows.
    pub fn parse<T: AsRef<str>>(rows: &[T]) -> Result<Self> {
        let row = |text: &T| Row::parse(text.as_ref()).with_context(|| format!("row {:?}", text.as_ref()));
        rows.iter().map(row).collect::<Result<_>>().map(Self)
    }

    /// Whether the flow comes about.
    #[must_use]
    pub fn allows(&self, probe: &Probe) -> bool {
        self.0.iter().rev().find(|row| row.is_about(probe)).is_none_or(|row| row.is_allow)
    }
}

impl Row {
    fn parse(text: &str) -> Result<Self> {
        let (who, what) = text.split_once(" : ").unwrap_or((text, ""));
        let (head, to) = who.split_once("->").context("no arrow")?;
        let (word, from) = head.trim().split_once(' ').context("no source")?;
        let is_allow = match word {
            "allow" => true,
            "deny" => false,
            other => bail!("{other:?} is neither allow nor deny"),
        };
        let mut row =
            Self { is_allow, from: actors(from)?, to: actors(to)?, families: Vec::new(), kinds: Vec::new() };
        for token in what.split_whitespace() {
            match token {
                "v4" => row.families.push(false),
                "v6" => row.families.push(true),
                token => row.kinds.push(What::parse(token)?),
            }
        }
        Ok(row)
    }

    fn is_about(&self, probe: &Probe) -> bool {
        let among = |list: &[What]| list.is_empty() || list.iter().any(|what| what.is_about(probe.kind));
        self.from.contains(&probe.from)
            && self.to.contains(&probe.to)
            && (self.families.is_empty() || self.families.contains(&probe.is_v6))
            && among(&self.kinds)
    }
}

impl What {
    fn parse(text: &str) -> Result<Self> {
        if let Ok(port) = text.parse() {
            return Ok(Self { protocol: None, port: Some(port) });
        }
        let (name, port) = text.split_once('/').map_or((text, None), |(name, port)| (name, Some(port)));
        let known = PROTOCOLS.iter().find(|(known, _)| *known == name);
        let (_, protocol) = known.with_context(|| format!("{text:?} is no protocol"))?;
        let port =
            port.map(|port| port.parse().with_context(|| format!("{text:?} has no port"))).transpose()?;
        Ok(Self { protocol: Some(*protocol), port })
    }

    fn is_about(self, kind: Kind) -> bool {
        // A bare number is a port, which ICMP has none of.
        let has_ports = !matches!(kind.protocol, 1 | 58);
        self.protocol.map_or(has_ports, |protocol| protocol == kind.protocol)
            && self.port.is_none_or(|port| port == kind.port)
    }
}

/// `*` is everybody; `*/*` the nine; `x/*`, `*/a`, `x/a`; `node`; `world`; several with commas.
fn actors(text: &str) -> Result<Vec<Actor>> {
    let mut found = Vec::new();
    for part in text.split(',').map(str::trim) {
        let before = found.len();
        match (part, part.split_once('/')) {
            ("*", _) => found.extend(Actor::all()),
            ("node", _) => found.push(Actor::Node),
            ("world", _) => found.push(Actor::World),
            (_, Some((namespace, pod))) => {
                let is_known = (namespace == "*" || NAMESPACES.contains(&namespace))
                    && (pod == "*" || PODS.contains(&pod));
                let fits = |(ns, name): (&str, &str)| {
                    is_known && (namespace == "*" || ns == namespace) && (pod == "*" || name == pod)
                };
                found
                    .extend((0..MEMBERS).map(Actor::Member).filter(|member| member.name().is_some_and(fits)));
            }
            (_, None) => {}
        }
        if found.len() == before {
            bail!("{part:?} is nobody");
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_row_about_a_probe_counts() {
        let rows = ["deny * -> x/a", "allow y/*, node -> x/a : TCP 81", "deny y/b -> x/* : v6 TCP/80"];
        let table = Table::parse(&rows).unwrap();
        let allows = |from: &str, to: &str, is_v6, kind| {
            let (from, to) = (actors(from).unwrap()[0], actors(to).unwrap()[0]);
            table.allows(&Probe { from, to, is_v6, kind: Kind::parse(kind).unwrap() })
        };
        assert!(!allows("world", "x/a", false, "TCP/80"));
        assert!(allows("y/b", "x/a", false, "TCP/80"));
        assert!(!allows("y/b", "x/a", true, "TCP/80"));
        assert!(allows("y/b", "x/a", true, "UDP/81"));
        assert!(!allows("node", "x/a", false, "ICMP/8"));
        assert!(allows("x/a", "y/b", false, "ICMP/8"));
    }
}
