//! A gateway with its manifests, and the swarm of agents beside it on the same machine: their connections go over
//! loopback.

use std::fmt::Write as _;
use std::time::Duration;

use anyhow::{Context, Result};

use super::swarm::Report;
use crate::binaries::Binary;
use crate::cluster::{allow_ingress, group, namespace};
use crate::gateway::Gateway;
use crate::gateway::objects::Objects;
use crate::host::Host;
use crate::net::{Net, Underlay};
use crate::process::Process;
use crate::wait::wait_ok;

/// Groups that agents are members of: as many audiences.
const GROUPS: u32 = 10;
/// Pods of the cluster.
const PODS: u32 = 1000;
/// Pods of a file.
const FILE: usize = 1000;
/// The gateway, over loopback: from there it believes any underlay address.
const GATEWAY: &str = "127.0.0.1:7443";
/// The underlay address of the first agent; each has its own.
const FIRST_AGENT: &str = "10.9.1.0";
/// Room for more agents than the fixtures' pools have.
const SETTINGS: &str = "workloadPools: [\"10.64.0.0/16\", \"fd00:64::/112\"]\n";
/// Where the gateway's metrics are.
const METRICS: &str = "127.0.0.1:9464";

/// The bed. Fields are dropped in order: the swarm goes before the gateway.
pub(super) struct Bed {
    swarm: Process,
    pub(super) gateway: Gateway,
    host: Host,
    agents: u32,
    _net: Net,
}

impl Bed {
    /// Starts the gateway and lets the agents join; none is connected yet.
    pub(super) fn try_new(agents: u32) -> Result<Self> {
        let net = Net::try_new()?;
        let host = net.host("gateway")?;
        let gateway = Gateway::configured(&host, Underlay::Dual, SETTINGS)?;
        Self::with(net, host, gateway, agents, PODS)
    }

    /// The same with objects and state in a cluster's API, on a machine of its own, and with this many pods.
    pub(super) fn of_cluster(agents: u32, pods: u32) -> Result<Self> {
        let net = Net::try_new()?;
        let (host, api) = (net.host("gateway")?, net.host("api")?);
        let gateway = Gateway::with_objects(&host, Underlay::Dual, SETTINGS, Objects::cluster(&api)?)?;
        Self::with(net, host, gateway, agents, pods)
    }

    fn with(net: Net, host: Host, mut gateway: Gateway, agents: u32, pods: u32) -> Result<Self> {
        manifests(&gateway, pods)?;
        gateway.launch()?;
        let mut tokens = String::new();
        let uses = agents.div_ceil(GROUPS).to_string();
        for number in 0..GROUPS {
            let token = gateway.token(&format!("shop/group-{number}"), &["--uses", &uses])?;
            writeln!(tokens, "{}", token.text)?;
        }
        let file = host.folder().join("tokens");
        std::fs::write(&file, tokens)?;
        let swarm = host.spawn(
            "swarm",
            &[
                Binary::Swarm.name(),
                "--gateway",
                GATEWAY,
                "--metrics",
                METRICS,
                "--agents",
                &agents.to_string(),
                "--tokens",
                &file.display().to_string(),
                "--first",
                FIRST_AGENT,
            ],
        )?;
        let mut bed = Self { swarm, gateway, host, agents, _net: net };
        bed.wait("all agents to join", Duration::from_mins(10), |report| report.joined == agents)?;
        bed.pid()?;
        Ok(bed)
    }

    /// Lets the agents connect, and waits until all have the state.
    pub(super) fn connect(&mut self) -> Result<Report> {
        self.swarm.say("connect\n")?;
        self.steady(0, Duration::from_mins(10))
    }

    /// Waits until all agents have acknowledged a generation after this one, and the gateway has counted that.
    pub(super) fn steady(&mut self, after: u64, limit: Duration) -> Result<Report> {
        let agents = self.agents;
        self.wait("all agents to have the state", limit, |report| {
            report.generation > after
                && report.acked == agents
                && report.connected == agents
                && report.confirmed == report.generation
        })
    }

    /// What the swarm reported last.
    pub(super) fn report(&self) -> Result<Report> {
        self.swarm.report()
    }

    /// The gateway's process.
    pub(super) fn pid(&mut self) -> Result<u32> {
        Ok(self.gateway.process()?.id())
    }

    /// The swarm's process.
    pub(super) fn swarm(&self) -> u32 {
        self.swarm.id()
    }

    /// The machine of both.
    pub(super) const fn host(&self) -> &Host {
        &self.host
    }

    fn wait(&mut self, what: &str, limit: Duration, done: impl Fn(&Report) -> bool) -> Result<Report> {
        let found = wait_ok(what, limit, || {
            let report: Report = self.swarm.report()?;
            anyhow::ensure!(done(&report), "{report:?}");
            Ok(report)
        });
        found.with_context(|| self.swarm.output())
    }
}

fn manifests(gateway: &Gateway, count: u32) -> Result<()> {
    gateway.apply("namespace.yaml", &namespace("shop", &[("team", "shop")]))?;
    for number in 0..GROUPS {
        let name = format!("group-{number}");
        gateway.apply(&format!("{name}.yaml"), &group(&name, &[("app", &name)], ""))?;
        let client = format!("group-{}", (number + 1) % GROUPS);
        let policy = allow_ingress(&name, &name, &[&client, "web"], Some(8080));
        gateway.apply(&format!("policy-{number}.yaml"), &policy)?;
    }
    for first in (0..count).step_by(FILE) {
        let mut pods = String::new();
        for number in (first..count).take(FILE) {
            let address = format!("10.100.{}.{}", number / 250, number % 250 + 1);
            writeln!(pods, "---\n{}", pod(&format!("web-{number}"), "web", &address))?;
        }
        gateway.apply(&format!("pods-{first}.yaml"), &pods)?;
    }
    Ok(())
}

/// A pod with one address.
pub(super) fn pod(name: &str, app: &str, address: &str) -> String {
    format!(
        "apiVersion: v1\nkind: Pod\nmetadata:\n  namespace: shop\n  name: {name}\n  labels:\n    app: {app}\n\
         spec:\n  nodeName: node-1\n  serviceAccountName: default\nstatus:\n  podIPs:\n    - ip: {address}\n"
    )
}
