//! The usual cast: a cluster node with the gateway and a transit agent, pods on it, and hosts that join.

use std::fmt::Write as _;
use std::ops::Deref;

use anyhow::{Result, bail};

use crate::agent::Agent;
use crate::apiserver::fixture::ApiServer;
use crate::gateway::objects::{Cluster as Api, Objects};
use crate::gateway::{Gateway, Token};
use crate::host::Host;
use crate::net::{Net, Underlay};
use crate::node::{Node, Pod};

/// A cluster with a gateway.
#[derive(Debug)]
pub struct Cluster {
    /// The transit node's agent.
    pub transit: Agent,
    /// The gateway, on the same machine.
    pub gateway: Gateway,
    /// The cluster node.
    pub node: Node,
    /// The network.
    pub net: Net,
}

/// A host that joined.
#[derive(Debug)]
pub struct Member {
    /// Its agent.
    pub agent: Agent,
    /// Its machine.
    pub host: Host,
}

impl Deref for Member {
    type Target = Agent;

    fn deref(&self) -> &Agent {
        &self.agent
    }
}

impl Cluster {
    /// A cluster in which nothing but the namespace `shop` exists.
    pub fn try_new() -> Result<Self> {
        Self::try_with(Underlay::Dual, "")
    }

    /// The same, with the families that agents reach the gateway by and further lines of its configuration.
    pub fn try_with(families: Underlay, settings: &str) -> Result<Self> {
        let net = Net::try_new()?;
        let node = net.node("node-1", 1)?;
        let gateway = Gateway::configured(node.host(), families, settings)?;
        Self::started(net, node, gateway)
    }

    /// The same with a cluster's API as the source, on a machine of its own.
    pub fn of_api() -> Result<Self> {
        Self::of_api_with("", |_server| Ok(()))
    }

    /// The same, with further lines of the gateway's configuration, once the API is prepared for them.
    pub fn of_api_with(settings: &str, prepare: impl FnOnce(&ApiServer) -> Result<()>) -> Result<Self> {
        let net = Net::try_new()?;
        let node = net.node("node-1", 1)?;
        let mut objects = Objects::cluster(&net.host("api")?)?;
        if let Objects::Cluster(cluster) = &mut objects {
            prepare(&cluster.server)?;
        }
        let gateway = Gateway::with_objects(node.host(), Underlay::Dual, settings, objects)?;
        Self::started(net, node, gateway)
    }

    /// The API that is the source.
    pub fn api(&mut self) -> Result<&mut Api> {
        match self.gateway.objects() {
            Objects::Cluster(api) => Ok(api),
            Objects::Folder(folder) => bail!("{} is no cluster", folder.display()),
        }
    }

    /// The server of that API.
    pub fn server(&mut self) -> Result<&mut ApiServer> {
        Ok(&mut self.api()?.server)
    }

    /// Of an API, with the group `db` and its member `db-1`; says what the server is.
    pub fn of_api_with_host() -> Result<(Self, Member)> {
        let mut cluster = Self::of_api()?;
        println!("back end: {}", cluster.server()?.back_end());
        cluster.group("db")?;
        let db = cluster.member("db", "db-1")?;
        Ok((cluster, db))
    }

    fn started(net: Net, node: Node, gateway: Gateway) -> Result<Self> {
        gateway.apply("namespace.yaml", &namespace("shop", &[("team", "shop")]))?;
        let mut cluster = Self { transit: Agent::configured(node.host(), "")?, gateway, node, net };
        cluster.gateway.launch()?;
        cluster.transit.launch()?;
        let token = cluster.gateway.transit_token("node-1")?;
        cluster.transit.join(&token.text)?;
        cluster.transit.wait_enforcing()?;
        Ok(cluster)
    }

    /// A pod of the namespace `shop`, with the label `app`.
    pub fn pod(&self, name: &str, index: u8) -> Result<Pod> {
        self.pod_on(&self.node, name, index)
    }

    /// The same on another node.
    pub fn pod_on(&self, node: &Node, name: &str, index: u8) -> Result<Pod> {
        let pod = node.pod(name, index)?;
        self.gateway.apply(&format!("pod-{name}.yaml"), &pod_manifest(&pod, &[("app", name)]))?;
        Ok(pod)
    }

    /// A further node, the `number`th, whose agent joins with a token of this kind.
    pub fn add_node(
        &self,
        name: &str,
        number: u8,
        token: impl FnOnce(&Gateway, &str) -> Result<Token>,
    ) -> Result<(Node, Agent)> {
        let node = self.net.node(name, number)?;
        let agent = Agent::start_with(node.host(), "")?;
        agent.join(&token(&self.gateway, name)?.text)?;
        agent.wait_enforcing()?;
        Ok((node, agent))
    }

    /// A group of the namespace `shop`, with the label `app`.
    pub fn group(&self, name: &str) -> Result<()> {
        self.gateway.apply(&format!("group-{name}.yaml"), &group(name, &[("app", name)], ""))?;
        self.gateway
            .wait_status("the group to be read", |_| {
                self.gateway.token(&format!("shop/{name}"), &["--ttl", "1m"]).is_ok()
            })
            .map(|_| ())
    }

    /// A host that joins the group of that name.
    pub fn member(&self, group: &str, name: &str) -> Result<Member> {
        self.member_with(group, name, Underlay::Dual, "")
    }

    /// A host with these underlay families and further lines of its agent's configuration, joined.
    pub fn member_with(&self, group: &str, name: &str, families: Underlay, settings: &str) -> Result<Member> {
        self.member_on(self.net.host_with(name, families)?, group, settings)
    }

    /// A machine joins, with further lines of its agent's configuration.
    pub fn member_on(&self, host: Host, group: &str, settings: &str) -> Result<Member> {
        let agent = Agent::start_with(&host, settings)?;
        let token = self.gateway.token(&format!("shop/{group}"), &[])?;
        agent.join(&token.text)?;
        agent.wait_enforcing()?;
        // Tests ask for them also while the agent is gone.
        agent.addresses()?;
        Ok(Member { agent, host })
    }

    /// Saves a manifest and waits until every connected workload has acknowledged what the gateway made of it.
    pub fn publish(&self, file: &str, yaml: &str) -> Result<()> {
        let before = generation(&self.gateway)?;
        self.gateway.apply(file, yaml)?;
        self.gateway
            .wait_status("a new generation", |status| crate::json::number(status, "generation") > before)?;
        self.settle()
    }

    /// Waits until every connected workload has acknowledged the gateway's generation.
    pub fn settle(&self) -> Result<()> {
        let limit = std::time::Duration::from_secs(10);
        crate::wait::wait_ok("every workload to acknowledge", limit, || {
            let target = generation(&self.gateway)?;
            for workload in self.gateway.workloads()? {
                let acked = crate::json::number(&workload, "acked_generation");
                let connected = crate::json::flag(&workload, "connected");
                anyhow::ensure!(!connected || acked >= target, "generation {target}, but {workload}");
            }
            Ok(())
        })
    }
}

impl Member {
    /// Ends the agent and removes all that a reboot of the machine would: everything but its disk.
    pub fn power_off(&mut self) -> Result<()> {
        self.agent.kill()?;
        let lost = "rm -rf /run/outrigger /sys/fs/bpf/outrigger; ip link delete ogr0; \
            for family in -4 -6; do ip $family route show type unreachable | while read route; do \
            ip $family route delete $route; done; done; tc qdisc delete dev eth0 clsact; true";
        self.host.run(&["sh", "-c", lost])?;
        let left = self.host.devices()?.to_string();
        anyhow::ensure!(!left.contains("ogr0"), "the machine was not reset: {left}");
        Ok(())
    }
}

fn generation(gateway: &Gateway) -> Result<u64> {
    Ok(crate::json::number(&gateway.status()?, "generation"))
}

/// A Namespace.
#[must_use]
pub fn namespace(name: &str, labels: &[(&str, &str)]) -> String {
    let labels = lines(labels, 4);
    format!("apiVersion: v1\nkind: Namespace\nmetadata:\n  name: {name}\n  labels:\n{labels}")
}

/// A Pod as the cluster's API would show it.
#[must_use]
pub fn pod_manifest(pod: &Pod, labels: &[(&str, &str)]) -> String {
    format!(
        "apiVersion: v1\nkind: Pod\nmetadata:\n  namespace: shop\n  name: {name}\n  labels:\n{labels}\
         spec:\n  nodeName: {node}\n  serviceAccountName: default\nstatus:\n  podIPs:\n    - ip: {v4}\n    - ip: \"{v6}\"\n",
        name = pod.name(),
        node = pod.node(),
        labels = lines(labels, 4),
        v4 = pod.v4(),
        v6 = pod.v6(),
    )
}

/// An ExternalWorkloadGroup of the namespace `shop`; `more` are further lines of its spec.
#[must_use]
pub fn group(name: &str, labels: &[(&str, &str)], more: &str) -> String {
    let labels = lines(labels, 6);
    format!(
        "apiVersion: outrigger.dev/v1alpha1\nkind: ExternalWorkloadGroup\nmetadata:\n  namespace: shop\n  \
         name: {name}\nspec:\n  template:\n    serviceAccountName: default\n    labels:\n{labels}{more}"
    )
}

/// A NetworkPolicy of the namespace `shop` that selects the label `app` and lets the named apps in on a port.
#[must_use]
pub fn allow_ingress(name: &str, selected: &str, from: &[&str], port: Option<u16>) -> String {
    let mut text = format!(
        "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata:\n  namespace: shop\n  name: {name}\n\
         spec:\n  podSelector:\n    matchLabels:\n      app: {selected}\n  policyTypes: [Ingress]\n  ingress:"
    );
    if from.is_empty() {
        text.push_str(" []\n");
        return text;
    }
    text.push_str("\n    - from:\n");
    for app in from {
        let _ = writeln!(text, "        - podSelector:\n            matchLabels:\n              app: {app}");
    }
    if let Some(port) = port {
        let _ = writeln!(text, "      ports:");
        for protocol in ["TCP", "UDP"] {
            let _ = writeln!(text, "        - protocol: {protocol}\n          port: {port}");
        }
    }
    text
}

fn lines(labels: &[(&str, &str)], indent: usize) -> String {
    labels.iter().fold(String::new(), |mut all, (key, value)| {
        let _ = writeln!(all, "{:indent$}{key}: {value}", "");
        all
    })
}
