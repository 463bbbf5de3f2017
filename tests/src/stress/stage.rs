//! The machines of a run: a cluster node with gateway and transit agent, pods as namespaces, two hosts whose agents
//! reach the gateway over a bad line.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::Ordering;

use anyhow::{Context, Result};

use super::cast::{Cast, Machine};
use super::double::Double;
use super::proxy::{self, Line};
use super::watch::{self, Watched};
use super::world::{Actor, FILE, GROUPS, NAMESPACE, World};
use crate::agent::Agent;
use crate::cluster::Cluster;
use crate::host::Host;
use crate::namespace::Namespace;
use crate::net::Underlay;
use crate::node::Pod;

/// The machines.
#[derive(Debug)]
pub struct Stage {
    /// The agents of the hosts.
    pub agents: Vec<Agent>,
    /// Gateway, transit node, network.
    pub cluster: Cluster,
    /// The hosts.
    pub hosts: Vec<Host>,
    /// The pods.
    pub pods: BTreeMap<Actor, Pod>,
    /// The line between agents and gateway.
    pub line: Line,
}

impl Stage {
    /// Builds everything; all agents run the first revision of the world.
    pub fn build(seed: u64) -> Result<(Self, World, Cast)> {
        let cluster = Cluster::try_with(Underlay::Dual, "")?;
        let mut pods = BTreeMap::new();
        for (actor, index) in Actor::ALL.into_iter().zip(2_u8..) {
            pods.insert(actor, cluster.node.pod(actor.name(), index)?);
        }
        let addresses: BTreeMap<_, _> = pods.iter().map(|(actor, pod)| (*actor, pod.addresses())).collect();
        let world = World::new(addresses.clone());
        cluster.gateway.apply(FILE, &world.manifest())?;
        let line = Line::default();
        let mut stage = Self { cluster, hosts: Vec::new(), agents: Vec::new(), pods, line };
        for group in GROUPS {
            stage.join(group, seed)?;
        }
        stage.cluster.settle()?;
        let hosts = stage.agents.iter().map(Agent::addresses).collect::<Result<_>>()?;
        Ok((stage, world, Cast { hosts, pods: addresses }))
    }

    fn join(&mut self, group: &str, seed: u64) -> Result<()> {
        let Self { cluster, .. } = self;
        let of_group = format!("{NAMESPACE}/{group}");
        cluster.gateway.wait_status("the groups to be read", |_| {
            cluster.gateway.token(&of_group, &["--ttl", "1m"]).is_ok()
        })?;
        let host = cluster.net.host(&format!("{group}-1"))?;
        let gateway = SocketAddr::new(cluster.node.host().v4().into(), 7443);
        proxy::start(host.namespace(), gateway, &self.line, seed ^ u64::from(host.v4().to_bits()))?;
        let agent = Agent::start_with(&host, &format!("gateways: [\"{}\"]\n", proxy::LISTEN))?;
        agent.join(&cluster.gateway.token(&of_group, &[])?.text)?;
        agent.wait_enforcing()?;
        agent.addresses()?;
        self.hosts.push(host);
        self.agents.push(agent);
        Ok(())
    }

    /// The namespaces of a machine.
    pub fn namespace(&self, machine: Machine) -> Result<&Namespace> {
        let host: Option<&Host> = match machine {
            Machine::Host(host) => self.hosts.get(host),
            Machine::Pod(actor) => self.pods.get(&actor).map(|pod| &**pod),
        };
        host.map(Host::namespace).with_context(|| format!("no such machine: {machine:?}"))
    }

    /// Where to see what every enforcement point runs, hosts first.
    #[must_use]
    pub fn watched(&self) -> Watched {
        let hosts = self.hosts.iter().map(|host| format!("{NAMESPACE}/{}", host.name()));
        Watched {
            socket: self.cluster.gateway.socket(),
            audit: self.cluster.gateway.audit_log(),
            workloads: hosts.chain(["outrigger-system/node-1".to_owned()]).collect(),
        }
    }

    /// The processes that hold the namespaces of all machines, with their names; those that enforce come first.
    #[must_use]
    pub fn holders(&self) -> Vec<(String, u32)> {
        let node = self.cluster.node.host();
        let hosts = self.hosts.iter().chain([node]).chain(self.pods.values().map(|pod| &**pod));
        hosts.map(|host| (host.name().to_owned(), host.namespace().holder())).collect()
    }

    /// What a second stream of each host needs.
    #[must_use]
    pub fn doubles(&self) -> Vec<Double> {
        let gateway = SocketAddr::new(self.cluster.node.host().v4().into(), 7443);
        self.agents.iter().map(|agent| Double::of(agent, gateway)).collect()
    }

    /// Flows in the table of those that are established, on each host.
    #[must_use]
    pub fn established(&self) -> Vec<usize> {
        self.hosts
            .iter()
            .map(|host| watch::established(host.namespace().holder()).unwrap_or_default())
            .collect()
    }

    /// Makes the line bad, or good again.
    pub fn set_line(&self, bad: bool) {
        self.line.bad.store(bad, Ordering::Relaxed);
    }
}
