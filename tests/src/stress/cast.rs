//! Who talks to whom: the machines, the flows of probes between them, and who decides over each.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

use anyhow::{Context, Result};
use datapath::Direction;

use super::checker::Path;
use super::truth::{Asked, Hop};
use super::world::{Actor, port};

/// A machine that sends or receives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Machine {
    /// A host, by its number.
    Host(usize),
    /// A pod.
    Pod(Actor),
}

/// How a flow is probed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Numbered datagrams.
    Datagrams {
        /// The index of the flow that their echos are.
        echo: Option<usize>,
    },
    /// The echos of another flow.
    Echo,
    /// Records over a connection that must live.
    Stream,
    /// Connections that must not come about.
    Knocks,
}

/// A flow of probes. Its index is its number.
#[derive(Clone, Debug)]
pub struct Lane {
    /// Its name and path.
    pub path: Path,
    /// What policy is asked.
    pub asked: Asked,
    /// Who opens it.
    pub from: Machine,
    /// Whose address `to` is.
    pub toward: Machine,
    /// The receiver.
    pub to: SocketAddr,
    /// How it is probed.
    pub kind: Kind,
}

/// Addresses of all machines.
#[derive(Clone, Debug)]
pub struct Cast {
    /// Mesh addresses of the hosts.
    pub hosts: Vec<[IpAddr; 2]>,
    /// Addresses of the pods.
    pub pods: BTreeMap<Actor, [IpAddr; 2]>,
}

impl Cast {
    /// The number of the transit node among the enforcement points; those of the hosts come before.
    #[must_use]
    pub const fn transit(&self) -> usize {
        self.hosts.len()
    }

    /// All flows.
    pub fn lanes(&self) -> Result<Vec<Lane>> {
        let mut lanes = Vec::new();
        for host in 0..self.hosts.len() {
            for family in [0, 1] {
                self.add_host(&mut lanes, host, family)?;
            }
        }
        for family in [0, 1] {
            let (left, right) = (Machine::Host(0), Machine::Host(1));
            self.add(&mut lanes, left, right, family, port::HOSTS, true)?;
            self.add(&mut lanes, right, left, family, port::HOSTS, false)?;
        }
        Ok(lanes)
    }

    fn add_host(&self, lanes: &mut Vec<Lane>, host: usize, family: usize) -> Result<()> {
        let host = Machine::Host(host);
        let pod = Machine::Pod;
        self.add(lanes, pod(Actor::Xenon), host, family, port::SWAP, true)?;
        self.add(lanes, pod(Actor::Zinc), host, family, port::SWAP, false)?;
        self.add(lanes, host, pod(Actor::Xenon), family, port::SWAP, true)?;
        self.add(lanes, host, pod(Actor::Zinc), family, port::SWAP, false)?;
        self.add(lanes, pod(Actor::Flip), host, family, port::FLIP, false)?;
        for range in port::RANGE {
            self.add(lanes, pod(Actor::Flip), host, family, range, false)?;
        }
        self.add(lanes, pod(Actor::Block), host, family, port::BLOCK, false)?;
        self.add(lanes, pod(Actor::Ghost), host, family, port::ANY, false)?;
        self.add(lanes, host, pod(Actor::Ghost), family, port::ANY, false)?;
        for (actor, kind) in [(Actor::Xenon, Kind::Stream), (Actor::Zinc, Kind::Knocks)] {
            let mut lane = self.lane(pod(actor), host, family, port::STREAM)?;
            lane.asked.protocol = 6;
            lane.path.lossless = false;
            lane.kind = kind;
            lanes.push(lane);
        }
        Ok(())
    }

    fn add(
        &self,
        lanes: &mut Vec<Lane>,
        from: Machine,
        toward: Machine,
        family: usize,
        port: u16,
        echo: bool,
    ) -> Result<()> {
        let mut lane = self.lane(from, toward, family, port)?;
        if !echo {
            lanes.push(lane);
            return Ok(());
        }
        lane.kind = Kind::Datagrams { echo: Some(lanes.len() + 1) };
        let mut back = lane.clone();
        back.kind = Kind::Echo;
        back.path.name.push_str(" echo");
        back.path.points.reverse();
        back.asked.hops.reverse();
        lanes.extend([lane, back]);
        Ok(())
    }

    fn lane(&self, from: Machine, toward: Machine, family: usize, port: u16) -> Result<Lane> {
        let (source, target) = (self.address(from, family)?, self.address(toward, family)?);
        let hops = [(from, Direction::Egress, target), (toward, Direction::Ingress, source)];
        let (points, hops) = hops.into_iter().map(|hop| self.hop(hop, family)).collect::<Result<_>>()?;
        let name = format!(
            "{} to {} port {port} over IPv{}",
            name(from),
            name(toward),
            if family == 0 { 4 } else { 6 }
        );
        Ok(Lane {
            path: Path { name, points, lossless: true },
            asked: Asked { hops, protocol: 17, port },
            from,
            toward,
            to: SocketAddr::new(target, port),
            kind: Kind::Datagrams { echo: None },
        })
    }

    fn hop(
        &self,
        (machine, direction, remote): (Machine, Direction, IpAddr),
        family: usize,
    ) -> Result<(usize, Hop)> {
        Ok(match machine {
            Machine::Host(host) => (host, Hop::Host { host, direction, remote }),
            Machine::Pod(_) => (self.transit(), Hop::Transit { pod: self.address(machine, family)? }),
        })
    }

    fn address(&self, machine: Machine, family: usize) -> Result<IpAddr> {
        let both = match machine {
            Machine::Host(host) => self.hosts.get(host),
            Machine::Pod(actor) => self.pods.get(&actor),
        };
        both.and_then(|both| both.get(family)).copied().with_context(|| format!("no address of {machine:?}"))
    }
}

fn name(machine: Machine) -> String {
    match machine {
        Machine::Host(host) => format!("host-{host}"),
        Machine::Pod(actor) => actor.name().to_owned(),
    }
}
