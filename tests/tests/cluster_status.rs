//! What the objects of hosts and tokens say in a cluster, and which events it is told: once, and nothing while all is as it
//! was.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use e2e::agent::Agent;
use e2e::apiserver::fixture::{ApiServer, WRITES};
use e2e::cluster::{Cluster, Member, allow_ingress};
use e2e::gateway::objects::USER;
use e2e::json;
use e2e::wait::wait_ok;
use serde_json::{Value, json};

const PATIENCE: Duration = Duration::from_mins(1);
const VERSION: &str = "outrigger.dev/v1alpha1";

struct World {
    cluster: Cluster,
    db: Member,
}

impl World {
    fn try_new() -> Result<Self> {
        let (cluster, db) = Cluster::of_api_with_host()?;
        Ok(Self { cluster, db })
    }

    fn server(&mut self) -> Result<&mut ApiServer> {
        self.cluster.server()
    }

    /// Waits until a condition of an object says this; the object.
    fn wait_condition(&mut self, kind: &str, name: &str, condition: &str, says: &str) -> Result<Value> {
        let server = self.server()?;
        wait_ok(&format!("{condition} of {name} to be {says}"), PATIENCE, || {
            let object = server.get(VERSION, kind, "shop", name)?;
            let conditions = json::list(json::at(&object, &["status"]), "conditions");
            let is = |found: &Value| {
                json::text(found, "type") == condition
                    && format!("{} {}", json::text(found, "status"), json::text(found, "reason")) == says
            };
            ensure!(conditions.iter().any(is), "{object:#}");
            Ok(object)
        })
    }

    fn writes(&mut self) -> Result<u64> {
        self.server()?.count(USER, &WRITES, "")
    }
}

#[test]
fn a_host_says_what_it_is_and_nothing_more_while_that_lasts() -> Result<()> {
    let mut world = World::try_new()?;
    let object = world.wait_condition("ExternalWorkload", "db-1", "Ready", "True Ready")?;
    let status = json::at(&object, &["status"]);
    ensure!(!json::text(status, "agentVersion").is_empty(), "{status}");
    ensure!(!json::text(status, "certificateExpires").is_empty(), "{status}");
    let underlay = json::list(status, "underlay");
    ensure!(underlay.iter().any(|claim| json::flag(claim, "proved")), "{status}");
    ensure!(json::text(status, "lastSeen").is_empty(), "it is here: {status}");
    let note = world.server()?.wait_event("Joined", "db-1")?;
    ensure!(note.contains("with token shop/"), "{note}");
    world.wait_condition("ExternalWorkload", "db-1", "PolicyInSync", "True Acknowledged")?;

    // Policies change, the agent and then the gateway are started again: the objects say nothing else.
    let token = world.cluster.gateway.token("shop/db", &[])?;
    let (_, token) = token.id.split_once('/').context("an object of a namespace")?;
    world.wait_condition("JoinToken", token, "Ready", "True Usable")?;
    let before = world.writes()?;
    for port in 5432..5436 {
        world.cluster.publish("policy.yaml", &allow_ingress("db", "db", &["web"], Some(port)))?;
    }
    world.db.agent.stop()?;
    world.db.agent.launch()?;
    world.db.wait_enforcing()?;
    let after = world.writes()?;
    ensure!(after == before, "{} writes", after - before);

    // Who is away for long is written about, once.
    world.db.agent.stop()?;
    let object = world.wait_condition("ExternalWorkload", "db-1", "Connected", "False NoSession")?;
    ensure!(!json::text(json::at(&object, &["status"]), "lastSeen").is_empty(), "{object:#}");
    world.wait_condition("ExternalWorkload", "db-1", "Ready", "False NoSession")?;
    world.db.agent.launch()?;
    world.wait_condition("ExternalWorkload", "db-1", "Ready", "True Ready").map(drop)
}

#[test]
fn what_is_refused_is_told_where_it_is_about() -> Result<()> {
    let mut world = World::try_new()?;
    let declared = |name: &str, spec: Value| {
        json!({"apiVersion": VERSION, "kind": "ExternalWorkload",
            "metadata": {"name": name, "namespace": "shop"}, "spec": spec})
        .to_string()
    };
    world.server()?.apply(&declared("later", json!({"group": "db"})))?;
    world.wait_condition("ExternalWorkload", "later", "Ready", "False NotJoined")?;
    // An object that says to be a host with the address of another one.
    let [address, _] = world.db.addresses()?;
    let recorded = json!({"keyHash": "7".repeat(64), "machine": "", "joinedAt": "2026-01-01T00:00:00Z"});
    let spec = json!({"group": "db", "addresses": [address.to_string()], "recorded": recorded});
    world.server()?.apply(&declared("thief", spec))?;
    let object = world.wait_condition("ExternalWorkload", "thief", "Ready", "False Conflict")?;
    ensure!(
        object.to_string().contains("workload shop/db-1 has its key or one of its addresses"),
        "{object:#}"
    );
    ensure!(json::flag(&world.db.status()?, "connected"), "who joined first is served");

    let token = world.cluster.gateway.token("shop/db", &[])?;
    let (_, short) = token.id.split_once('/').context("an object of a namespace")?;
    for name in ["db-2", "db-3"] {
        let host = Agent::start(&world.cluster.net.host(name)?)?;
        drop(host.try_join(&token.text)?);
    }
    world.wait_condition("JoinToken", short, "Ready", "False Used")?;
    let note = world.server()?.wait_event("JoinRefused", short)?;
    ensure!(note.contains("was used already"), "{note}");

    let policy = "apiVersion: cilium.io/v2\nkind: CiliumNetworkPolicy\nmetadata: {name: odd, namespace: shop}\nspec:\n  \
        endpointSelector: {matchLabels: {app: db}}\n  ingress:\n    - fromEndpoints: [{}]\n      constraint: x\n";
    world.cluster.gateway.apply("odd.yaml", policy)?;
    let note = world.server()?.wait_event("PolicyRejected", "odd")?;
    ensure!(note.contains("constraint"), "{note}");
    Ok(())
}
