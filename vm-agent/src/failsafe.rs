//! What policy on the NICs never closes, as the administrator of the host sets it.

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;

use ipnet::IpNet;

/// A kind of traffic that a host cannot do without.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Failsafe {
    /// Logins, at the ports where sshd listens.
    Ssh,
    /// Connections to gateways.
    Gateway,
    /// Leases of addresses.
    Dhcp,
    /// The time.
    Ntp,
    /// The configured resolvers.
    Dns,
    /// Tunnels from and to nodes of the mesh.
    Tunnel,
}

impl Failsafe {
    const ALL: [Self; 6] = [Self::Ssh, Self::Gateway, Self::Dhcp, Self::Ntp, Self::Dns, Self::Tunnel];

    const fn name(self) -> &'static str {
        match self {
            Self::Ssh => "ssh",
            Self::Gateway => "gateway",
            Self::Dhcp => "dhcp",
            Self::Ntp => "ntp",
            Self::Dns => "dns",
            Self::Tunnel => "tunnel",
        }
    }
}

impl fmt::Display for Failsafe {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Failsafe {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let known = || Self::ALL.map(Self::name).join(", ");
        let found = Self::ALL.into_iter().find(|failsafe| failsafe.name() == text);
        found.ok_or_else(|| format!("{text:?} is none of {}", known()))
    }
}

/// What policy on the NICs never closes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failsafes {
    /// Which kinds.
    pub kinds: Vec<Failsafe>,
    /// TCP ports of this host beside those of sshd.
    pub ports: Vec<u16>,
    /// Who may use these and sshd's; `None` = anybody.
    pub sources: Option<Vec<IpNet>>,
}

impl Default for Failsafes {
    fn default() -> Self {
        Self { kinds: Failsafe::ALL.to_vec(), ports: Vec::new(), sources: None }
    }
}

impl Failsafes {
    /// The same text for the same failsafes, in every version of the agent.
    #[must_use]
    pub fn canonical(&self) -> String {
        fn sorted<T: ToString>(list: &[T]) -> String {
            let texts: BTreeSet<String> = list.iter().map(ToString::to_string).collect();
            Vec::from_iter(texts).join(",")
        }
        let sources = self.sources.as_ref().map_or_else(|| "any".to_owned(), |sources| sorted(sources));
        format!("{};{};{sources}", sorted(&self.kinds), sorted(&self.ports))
    }

    /// Whether this kind is among them.
    #[must_use]
    pub fn has(&self, failsafe: Failsafe) -> bool {
        self.kinds.contains(&failsafe)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn order_and_repetition_mean_nothing_and_none_is_not_any() {
        let written = Failsafes { ports: vec![23, 22, 22], ..Failsafes::default() };
        let kinds = written.kinds.iter().rev().copied().collect();
        let other = Failsafes { kinds, ports: vec![22, 23], sources: None };
        assert_eq!(written.canonical(), other.canonical());
        let nobody = Failsafes { sources: Some(Vec::new()), ..other.clone() };
        assert_ne!(nobody.canonical(), other.canonical());
    }

    #[test]
    fn kinds_are_read_as_they_are_written() {
        for failsafe in Failsafe::ALL {
            assert_eq!(failsafe.to_string().parse(), Ok(failsafe));
        }
        assert!("shh".parse::<Failsafe>().unwrap_err().contains("ssh, gateway"));
    }
}
