//! Which events a reader wants.

use std::net::IpAddr;

use ipnet::IpNet;
use proto::v1::{MonitorRequest, VerdictEvent};

/// What a reader asked for; everything it did not name passes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filter {
    verdicts: Vec<String>,
    direction: String,
    remote: Option<IpNet>,
    port: u32,
}

/// A filter that cannot match anything.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidFilter {
    /// No such verdict.
    #[error("`{0}` is no verdict: allowed, dropped, audited or cut")]
    Verdict(String),
    /// No such direction.
    #[error("`{0}` is no direction: ingress or egress")]
    Direction(String),
    /// Neither an address nor a prefix.
    #[error("`{0}` is neither an address nor a prefix")]
    Remote(String),
    /// Out of range.
    #[error("{0} is no port")]
    Port(u32),
}

impl TryFrom<MonitorRequest> for Filter {
    type Error = InvalidFilter;

    fn try_from(request: MonitorRequest) -> Result<Self, Self::Error> {
        let MonitorRequest { verdicts, direction, remote, port } = request;
        if let Some(unknown) =
            verdicts.iter().find(|v| !["allowed", "dropped", "audited", "cut"].contains(&v.as_str()))
        {
            return Err(InvalidFilter::Verdict(unknown.clone()));
        }
        if !["", "ingress", "egress"].contains(&direction.as_str()) {
            return Err(InvalidFilter::Direction(direction));
        }
        if port > u32::from(u16::MAX) {
            return Err(InvalidFilter::Port(port));
        }
        let parsed = remote.parse::<IpNet>().or_else(|_address| remote.parse::<IpAddr>().map(IpNet::from));
        let remote = match parsed {
            Ok(net) => Some(net),
            Err(_) if remote.is_empty() => None,
            Err(_) => return Err(InvalidFilter::Remote(remote)),
        };
        Ok(Self { verdicts, direction, remote, port })
    }
}

impl Filter {
    /// Whether the reader wants the event.
    #[must_use]
    pub fn matches(&self, event: &VerdictEvent) -> bool {
        let remote = if event.direction == "ingress" { &event.source } else { &event.destination };
        let in_prefix = |net: &IpNet| remote.parse::<IpAddr>().is_ok_and(|address| net.contains(&address));
        (self.verdicts.is_empty() || self.verdicts.contains(&event.verdict))
            && (self.direction.is_empty() || self.direction == event.direction)
            && self.remote.as_ref().is_none_or(in_prefix)
            && (self.port == 0 || self.port == event.source_port || self.port == event.destination_port)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event() -> VerdictEvent {
        VerdictEvent {
            verdict: "dropped".to_owned(),
            direction: "ingress".to_owned(),
            source: "10.0.0.7".to_owned(),
            source_port: 40000,
            destination: "10.0.0.1".to_owned(),
            destination_port: 5432,
            ..VerdictEvent::default()
        }
    }

    fn filter(request: MonitorRequest) -> Filter {
        Filter::try_from(request).unwrap()
    }

    #[test]
    fn each_condition_narrows() {
        assert!(Filter::default().matches(&event()));
        let verdicts = vec!["dropped".to_owned(), "cut".to_owned()];
        let all = MonitorRequest {
            verdicts,
            direction: "ingress".to_owned(),
            remote: "10.0.0.0/24".to_owned(),
            port: 5432,
        };
        assert!(filter(all.clone()).matches(&event()));
        for other in [
            VerdictEvent { verdict: "allowed".to_owned(), ..event() },
            VerdictEvent { direction: "egress".to_owned(), ..event() },
            VerdictEvent { source: "10.0.1.7".to_owned(), ..event() },
            VerdictEvent { destination_port: 80, ..event() },
        ] {
            assert!(!filter(all.clone()).matches(&other), "{other:?}");
        }
    }

    #[test]
    fn nonsense_is_refused_by_name() {
        let request = MonitorRequest::default;
        for bad in [
            MonitorRequest { verdicts: vec!["lost".to_owned()], ..request() },
            MonitorRequest { direction: "up".to_owned(), ..request() },
            MonitorRequest { remote: "web".to_owned(), ..request() },
            MonitorRequest { port: 70_000, ..request() },
        ] {
            assert!(Filter::try_from(bad.clone()).is_err(), "{bad:?}");
        }
    }
}
