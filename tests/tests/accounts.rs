//! Cluster nodes that join by themselves: the agent's pod has the token of its service account, and the gateway asks the
//! cluster whose it is and on which node.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use e2e::agent::Agent;
use e2e::apiserver::fixture::{ApiServer, WRITES};
use e2e::cluster::{Member, group, namespace, pod_manifest};
use e2e::gateway::Gateway;
use e2e::gateway::objects::{Cluster as Api, NAMESPACE, Objects, USER};
use e2e::host::Host;
use e2e::json;
use e2e::net::{Net, Underlay};
use e2e::node::{Node, Pod};
use e2e::shop::pings;
use e2e::wait::wait_ok;

const PATIENCE: Duration = Duration::from_mins(1);
const ACCOUNTS: &str = "transitAccount: outrigger-system/transit\nnodeAccount: outrigger-system/node\n";

/// A cluster whose gateway takes nodes in by their accounts, and the node that it is on itself.
struct World {
    gateway: Gateway,
    node: Node,
    net: Net,
}

/// The files that a kubelet would give to an agent.
struct Files {
    token: PathBuf,
    bootstrap: PathBuf,
}

impl Files {
    fn of(host: &Host) -> Self {
        Self { token: host.folder().join("token"), bootstrap: host.folder().join("bootstrap.json") }
    }

    fn settings(&self) -> String {
        format!("accountTokenFile: {}\nbootstrapFile: {}\n", self.token.display(), self.bootstrap.display())
    }
}

impl World {
    fn try_new(advertised: Underlay, settings: &str) -> Result<Self> {
        let net = Net::try_new()?;
        let node = net.node("node-1", 1)?;
        let objects = Objects::cluster(&net.host("api")?)?;
        let gateway =
            Gateway::with_objects(node.host(), advertised, &format!("{ACCOUNTS}{settings}"), objects)?;
        let mut world = Self { gateway, node, net };
        world.api()?.grant_nodes(true)?;
        for account in ["transit", "node", "default"] {
            let object = format!(
                "{{apiVersion: v1, kind: ServiceAccount, metadata: {{name: {account}, namespace: {NAMESPACE}}}}}"
            );
            world.server()?.apply(&object)?;
        }
        world.gateway.apply("namespace.yaml", &namespace("shop", &[("team", "shop")]))?;
        world.gateway.launch()?;
        Ok(world)
    }

    fn api(&mut self) -> Result<&mut Api> {
        match self.gateway.objects() {
            Objects::Cluster(api) => Ok(api),
            Objects::Folder(_) => anyhow::bail!("no cluster"),
        }
    }

    fn server(&mut self) -> Result<&mut ApiServer> {
        Ok(&mut self.api()?.server)
    }

    /// The token of an account's pod on a node.
    fn token(&mut self, account: &str, node: &str, audience: &str) -> Result<String> {
        let pod = format!("{account}-{node}");
        let object = format!(
            "{{apiVersion: v1, kind: Pod, metadata: {{name: {pod}, namespace: {NAMESPACE}}}, spec: {{nodeName: {node}, \
             hostNetwork: true, serviceAccountName: {account}, containers: [{{name: agent, image: agent}}]}}}}"
        );
        let server = self.server()?;
        if server.get("v1", "Pod", NAMESPACE, &pod).is_err() {
            server.apply(&object)?;
        }
        server.bound_token(NAMESPACE, account, &pod, audience)
    }

    /// What the gateway keeps for agents.
    fn bootstrap(&mut self) -> Result<String> {
        let server = self.server()?;
        let map = wait_ok("outrigger-bootstrap", PATIENCE, || {
            server.get("v1", "ConfigMap", NAMESPACE, "outrigger-bootstrap")
        })?;
        Ok(json::text(json::at(&map, &["data"]), "bootstrap.json").to_owned())
    }

    /// Gives an agent what it needs.
    fn equip(&mut self, files: &Files, account: &str, node: &str) -> Result<()> {
        std::fs::write(&files.token, self.token(account, node, "outrigger")?)?;
        std::fs::write(&files.bootstrap, self.bootstrap()?)?;
        Ok(())
    }

    fn pod(&self, name: &str, index: u8) -> Result<Pod> {
        let pod = self.node.pod(name, index)?;
        self.gateway.apply(&format!("pod-{name}.yaml"), &pod_manifest(&pod, &[("app", name)]))?;
        Ok(pod)
    }

    /// A host of the group `db`.
    fn host(&self, name: &str) -> Result<Member> {
        self.gateway.apply("group-db.yaml", &group("db", &[("app", "db")], ""))?;
        let token = wait_ok("the group", PATIENCE, || self.gateway.token("shop/db", &[]))?;
        let host = self.net.host(name)?;
        let agent = Agent::start(&host)?;
        agent.join(&token.text)?;
        agent.wait_enforcing()?;
        Ok(Member { agent, host })
    }

    /// How often a workload joined, and how often in the place of its former self.
    fn joins(&self, workload: &str) -> Result<(usize, usize)> {
        let audit = self.gateway.audit()?;
        let of = |record: &&serde_json::Value| {
            json::text(record, "event") == "joined" && json::text(record, "workload") == workload
        };
        let joins: Vec<_> = audit.iter().filter(of).collect();
        let replaced = joins.iter().filter(|join| !json::text(join, "replacedKey").is_empty()).count();
        Ok((joins.len(), replaced))
    }
}

/// All that the processes wrote.
fn said(net: &Net) -> Result<String> {
    let mut said = String::new();
    for entry in std::fs::read_dir(net.logs())? {
        said += &String::from_utf8_lossy(&std::fs::read(entry?.path())?);
    }
    Ok(said)
}

/// Waits until it enforces in this role.
fn wait_role(agent: &Agent, role: &str) -> Result<()> {
    agent.wait_status(role, |status| json::text(status, "role") == role)?;
    agent.wait_enforcing().map(drop)
}

fn reach(pod: &Pod, host: &Member) -> Result<()> {
    let addresses = host.addresses()?;
    wait_ok("the pod and the host to reach each other", PATIENCE, || {
        for (address, back) in addresses.into_iter().zip(pod.addresses()) {
            ensure!(pings(pod, address, 64)?, "the pod does not reach {address}");
            ensure!(pings(&host.host, back, 64)?, "the host does not reach {back}");
        }
        Ok(())
    })
}

#[test]
fn an_agent_becomes_the_transit_node_of_its_node_by_itself_and_again_with_another_disk() -> Result<()> {
    let mut world = World::try_new(Underlay::Dual, "logLevel: trace\n")?;
    let host = world.node.host().clone();
    let files = Files::of(&host);
    let mut agent = Agent::start_with(&host, &format!("{}logLevel: trace\n", files.settings()))?;
    agent.wait_error("waiting for the service account's token")?;
    let token = world.token("transit", "node-1", "outrigger")?;
    std::fs::write(&files.token, &token)?;
    agent.wait_error("waiting for where gateways are")?;
    world.equip(&files, "transit", "node-1")?;
    wait_role(&agent, "transit")?;
    ensure!(json::text(&agent.status()?, "workload") == "outrigger-system/node-1", "{:#}", agent.status()?);

    let pod = world.pod("web", 2)?;
    let db = world.host("db-1")?;
    reach(&pod, &db)?;
    agent.stop()?;
    agent.launch()?;
    agent.wait_enforcing()?;
    ensure!(world.joins("outrigger-system/node-1")? == (1, 0), "a member joined again");

    // Another disk, and with it another key.
    let mut transit = Member { agent, host: host.clone() };
    transit.power_off()?;
    std::fs::remove_dir_all(transit.state())?;
    transit.agent.launch()?;
    transit.wait_enforcing()?;
    ensure!(
        world.joins("outrigger-system/node-1")? == (2, 1),
        "{:?}",
        world.joins("outrigger-system/node-1")?
    );
    reach(&pod, &db)?;

    // Whoever deletes it sees it come back: a node is out of the mesh when its pod is gone.
    world.gateway.command(&["workload", "delete", "outrigger-system/node-1"])?.ok()?;
    wait_ok("the node to join again", PATIENCE, || {
        ensure!(world.joins("outrigger-system/node-1")?.0 == 3, "it did not");
        Ok(())
    })?;
    transit.wait_enforcing()?;
    reach(&pod, &db)?;
    let said = said(&world.net)?;
    let audit = std::fs::read_to_string(world.gateway.audit_log())?;
    let (_, secret) = token.rsplit_once('.').context("a JWT")?;
    ensure!(!said.contains(secret) && !audit.contains(secret), "a log has the token");
    ensure!(
        said.contains("a node joined in the place of its former self"),
        "nobody is told of a replacement"
    );
    Ok(())
}

#[test]
fn every_requirement_is_named_when_it_is_not_met() -> Result<()> {
    let mut world = World::try_new(Underlay::Dual, "")?;
    let host = world.node.host().clone();
    let files = Files::of(&host);
    world.equip(&files, "transit", "node-1")?;
    let mut agent = Agent::configured(&host, &files.settings())?;
    let good = std::fs::read_to_string(&files.token)?;
    let of_default = world.token("default", "node-1", "outrigger")?;
    let for_api = world.token("transit", "node-1", "https://kubernetes.default.svc")?;
    let unbound = world.server()?.bound_token(NAMESPACE, "transit", "", "outrigger")?;
    let of_gone = world.token("transit", "node-9", "outrigger")?;
    world.server()?.delete("v1", "Pod", NAMESPACE, "transit-node-9")?;
    let forged = format!("{}.c2lnbmF0dXJl", good.rsplit_once('.').context("a JWT")?.0);
    for (token, words) in [
        (of_default, "whose pods make no node a part of the mesh; those of outrigger-system/transit and"),
        (for_api, "does not accept the service account's token for the audience `outrigger`"),
        (unbound, "does not say on which node the token's pod is"),
        (of_gone, "pod has been deleted"),
        (forged, "invalid bearer token"),
        ("no token".to_owned(), "it is no token of a service account"),
    ] {
        std::fs::write(&files.token, token)?;
        agent.launch()?;
        agent.wait_error(words)?;
        agent.kill()?;
    }
    std::fs::write(&files.token, &good)?;
    world.api()?.grant_nodes(false)?;
    agent.launch()?;
    let status = agent.wait_error("`create` `tokenreviews` of `authentication.k8s.io`")?;
    ensure!(json::text(&status, "last_error").contains("tried again in"), "{status:#}");
    agent.kill()?;
    world.server()?.kill()?;
    agent.launch()?;
    agent.wait_error("cannot be reviewed now")?;
    ensure!(world.joins("outrigger-system/node-1")? == (0, 0), "one of them joined");
    let refused: Vec<String> =
        world.gateway.audit()?.iter().map(|record| json::text(record, "reason").to_owned()).collect();
    for reason in ["account-other", "account-unauthenticated", "account-node", "account-unavailable"] {
        ensure!(
            refused.iter().any(|refused| refused == reason),
            "{reason} is not in the audit log: {refused:?}"
        );
    }
    // It goes on trying.
    world.server()?.launch()?;
    world.api()?.grant_nodes(true)?;
    wait_ok("the node to join", PATIENCE, || agent.wait_enforcing()).map(drop)
}

#[test]
fn a_node_changes_its_role_with_its_account_and_leaves_when_it_is_told() -> Result<()> {
    // Hosts report where they come from; this one comes from an address that it does not report.
    let mut world = World::try_new(Underlay::V6, "")?;
    let node = world.net.node("node-2", 2)?;
    let host = node.host().clone();
    let files = Files::of(&host);
    let mut agent =
        Agent::configured(&host, &format!("{}underlayAddresses: [{}]\n", files.settings(), host.v4()))?;
    agent.launch()?;
    let by_token = agent.try_join(&world.gateway.transit_token("node-2")?.text)?;
    by_token.refused_with(&["there is NAT between"])?;
    world.equip(&files, "node", "node-2")?;
    wait_role(&agent, "node")?;
    world.equip(&files, "transit", "node-2")?;
    agent.stop()?;
    agent.launch()?;
    wait_role(&agent, "transit")?;
    ensure!(
        world.joins("outrigger-system/node-2")? == (2, 1),
        "{:?}",
        world.joins("outrigger-system/node-2")?
    );

    agent.command(&["leave"])?.ok()?;
    agent.wait_error("this node left when it was asked to")?;
    ensure!(!host.devices()?.to_string().contains("ogr0"), "the device is left");
    std::thread::sleep(Duration::from_secs(3));
    agent.wait_error("this node left when it was asked to")?;
    ensure!(world.gateway.workloads()?.is_empty(), "{:?}", world.gateway.workloads()?);
    agent.stop()?;
    agent.launch()?;
    agent.wait_enforcing().map(drop)
}

#[test]
fn a_gateway_without_a_cluster_says_so() -> Result<()> {
    let net = Net::try_new()?;
    let node = net.node("node-1", 1)?;
    let mut gateway = Gateway::configured(node.host(), Underlay::Dual, "")?;
    if let Objects::Cluster(_) = gateway.objects() {
        return Ok(());
    }
    gateway.launch()?;
    let token = proto::token::decode(&gateway.transit_token("node-1")?.text)?;
    let pins: Vec<String> = token.root_pins.iter().map(hex::encode).collect();
    let files = Files::of(node.host());
    let told = serde_json::json!({
        "gateways": token.gateways, "rootPins": pins, "trustDomain": token.trust_domain,
    });
    std::fs::write(&files.bootstrap, told.to_string())?;
    // {"sub":"system:serviceaccount:a:b"}
    std::fs::write(&files.token, "e30.eyJzdWIiOiJzeXN0ZW06c2VydmljZWFjY291bnQ6YTpiIn0.x")?;
    let agent = Agent::start_with(node.host(), &files.settings())?;
    agent.wait_error("this gateway's state is in no cluster").map(drop)
}

#[test]
fn what_agents_are_told_is_written_once_and_follows_the_roots() -> Result<()> {
    let mut world = World::try_new(Underlay::Dual, "nodeGateways: [\"mesh.example:7443\"]\n")?;
    let told: serde_json::Value = serde_json::from_str(&world.bootstrap()?)?;
    ensure!(json::texts(&told, "gateways") == ["mesh.example:7443"], "{told:#}");
    ensure!(json::text(&told, "trustDomain") == "outrigger.local", "{told:#}");
    ensure!(json::texts(&told, "rootPins").len() == 1, "{told:#}");
    world.gateway.command(&["ca", "add"])?.ok()?;
    wait_ok("both roots", PATIENCE, || {
        let told: serde_json::Value = serde_json::from_str(&world.bootstrap()?)?;
        ensure!(json::texts(&told, "rootPins").len() == 2, "{told:#}");
        Ok(())
    })?;
    if !world.server()?.is_double() {
        return Ok(());
    }
    world.server()?.control("reset-counts")?;
    std::thread::sleep(Duration::from_secs(5));
    let writes = world.server()?.count(USER, &WRITES, "configmaps")?;
    ensure!(writes == 0, "{writes} writes of what is as it was");
    Ok(())
}
