//! A gateway whose source is a cluster: what changes in its API is in the hosts' kernels, what was deleted while nobody
//! looked is gone, and a server that is gone or refuses changes nothing.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use e2e::apiserver::fixture::{ApiServer, WRITES};
use e2e::cluster::{Cluster, Member, allow_ingress, group, namespace, pod_manifest};
use e2e::gateway::objects::{Objects, RIGHTS, USER};
use e2e::json;
use e2e::net::Net;
use e2e::wait::wait_ok;
use serde_json::json;

const PATIENCE: Duration = Duration::from_secs(30);

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

    /// Waits until the kernel decides so about a port, for whom the host has this address.
    fn wait_verdict(&self, remote: &str, port: u16, wanted: &str) -> Result<()> {
        let port = port.to_string();
        let words =
            ["policy", "trace", "--direction", "in", "--remote", remote, "--port", &port, "-o", "json"];
        wait_ok("a verdict", PATIENCE, || {
            let answer = self.db.command(&words)?.ok()?.json()?;
            ensure!(json::text(&answer, "kernel_verdict") == wanted, "{answer:#}");
            Ok(())
        })
    }

    fn wait_trouble(&self, text: &str) -> Result<()> {
        let is_told = |status: &serde_json::Value| {
            json::texts(status, "rejected").iter().any(|line| line.contains(text))
                || status.to_string().contains(text)
        };
        self.cluster.gateway.wait_status(text, is_told).map(|_| ())
    }
}

#[test]
fn what_the_api_says_is_in_the_kernels() -> Result<()> {
    let mut world = World::try_new()?;
    let web = world.cluster.pod("web", 2)?;
    let web = web.v4().to_string();
    world.wait_verdict(&web, 5432, "allow")?;
    world.cluster.publish("policy.yaml", &allow_ingress("db", "db", &["web"], Some(5432)))?;
    world.wait_verdict(&web, 5432, "allow")?;
    world.wait_verdict(&web, 5433, "deny")?;
    // A pod gets another label, its namespace does, and the policy goes.
    let labelled = world.cluster.node.pod("other", 3)?;
    world.cluster.gateway.apply("pod-other.yaml", &pod_manifest(&labelled, &[("app", "other")]))?;
    let other = labelled.v4().to_string();
    world.wait_verdict(&other, 5432, "deny")?;
    world.cluster.gateway.apply("pod-other.yaml", &pod_manifest(&labelled, &[("app", "web")]))?;
    world.wait_verdict(&other, 5432, "allow")?;
    world.cluster.gateway.remove("policy.yaml")?;
    world.wait_verdict(&web, 5433, "allow")?;

    let writes = |world: &mut World| {
        let server = world.server()?;
        Ok::<_, anyhow::Error>(server.count(USER, &WRITES, "")? - server.count(USER, &WRITES, "meshrecords")?)
    };
    let before = writes(&mut world)?;
    world.cluster.publish("group-db.yaml", &group("db", &[("app", "db"), ("tier", "data")], ""))?;
    let more = writes(&mut world)? - before;
    ensure!(more == 0, "{more} writes: a label changes identities and nothing else");
    Ok(())
}

#[test]
fn kinds_come_and_go_and_what_was_deleted_meanwhile_is_gone() -> Result<()> {
    let mut world = World::try_new()?;
    let web = world.cluster.pod("web", 2)?.v4().to_string();
    world.cluster.publish("policy.yaml", &allow_ingress("db", "db", &[], None))?;
    world.wait_verdict(&web, 5432, "deny")?;
    // Nobody watches while it is deleted, and the history of it is forgotten.
    world.cluster.gateway.kill()?;
    world.cluster.gateway.remove("policy.yaml")?;
    world.server()?.control("compact")?;
    world.cluster.gateway.launch()?;
    world.wait_verdict(&web, 5432, "allow")?;

    world.cluster.publish("policy.yaml", &allow_ingress("db", "db", &[], None))?;
    world.wait_verdict(&web, 5432, "deny")?;
    world.server()?.control("drop-watches")?;
    world.cluster.gateway.remove("policy.yaml")?;
    world.server()?.control("compact")?;
    world.wait_verdict(&web, 5432, "allow")
}

#[test]
fn without_an_api_server_everything_stays() -> Result<()> {
    let mut world = World::try_new()?;
    let web = world.cluster.pod("web", 2)?.v4().to_string();
    world.cluster.publish("policy.yaml", &allow_ingress("db", "db", &["web"], Some(5432)))?;
    world.wait_verdict(&web, 5433, "deny")?;
    world.server()?.kill()?;
    world.wait_trouble("Pod: ")?;
    world.wait_verdict(&web, 5432, "allow")?;
    world.wait_verdict(&web, 5433, "deny")?;
    ensure!(json::flag(&world.db.status()?, "connected"), "the session needs no API server");
    world.server()?.launch()?;
    world.cluster.gateway.apply("policy.yaml", &allow_ingress("db", "db", &["web"], Some(5433)))?;
    world.wait_verdict(&web, 5433, "allow")?;
    world.wait_verdict(&web, 5432, "deny")
}

#[test]
fn an_object_that_slips_through_isolates_and_is_told() -> Result<()> {
    let world = World::try_new()?;
    let web = world.cluster.pod("web", 2)?.v4().to_string();
    world.wait_verdict(&web, 5432, "allow")?;
    let policy = "apiVersion: cilium.io/v2\nkind: CiliumNetworkPolicy\nmetadata: {name: odd, namespace: shop}\nspec:\n  \
        endpointSelector: {matchLabels: {app: db}}\n  ingress:\n    - fromEndpoints: [{}]\n      constraint: x\n";
    world.cluster.gateway.apply("odd.yaml", policy)?;
    world.wait_trouble("CiliumNetworkPolicy/shop/odd: ")?;
    world.wait_verdict(&web, 5432, "deny")?;
    world.cluster.gateway.apply("odd.yaml", &policy.replace("      constraint: x\n", ""))?;
    world.wait_verdict(&web, 5432, "allow").context("it is valid now")?;
    world.cluster.gateway.apply("namespace.yaml", &namespace("shop", &[("team", "other")]))?;
    Ok(())
}

#[test]
fn what_it_may_not_read_is_named_and_no_host_is_served_meanwhile() -> Result<()> {
    let mut world = World::try_new()?;
    world.cluster.gateway.kill()?;
    let api = world.cluster.api()?;
    let without: Vec<_> = RIGHTS.into_iter().filter(|(group, _)| *group != "networking.k8s.io").collect();
    api.grant(&without)?;
    let mut gateway = world.cluster.gateway.spawn()?;
    wait_ok("the refusal", PATIENCE, || {
        let said = gateway.output();
        let names =
            ["gateway", "cannot list resource", "networkpolicies"].iter().all(|word| said.contains(word));
        ensure!(names, "{said}");
        Ok(())
    })?;
    ensure!(!json::flag(&world.db.status()?, "connected"), "a policy that cannot be seen would not apply");
    gateway.kill()?;
    let api = world.cluster.api()?;
    api.grant(&RIGHTS)?;
    world.cluster.gateway.launch()?;
    world.db.wait_enforcing()?;
    // Rights that are taken away later change nothing that is in force.
    let web = world.cluster.pod("web", 2)?.v4().to_string();
    world.cluster.publish("policy.yaml", &allow_ingress("db", "db", &["web"], Some(5432)))?;
    let api = world.cluster.api()?;
    api.grant(&without)?;
    api.server.control("drop-watches")?;
    world.wait_trouble("cannot ")?;
    world.wait_verdict(&web, 5432, "allow")?;
    world.wait_verdict(&web, 5433, "deny")
}

/// What the API server says to an object of our kinds; empty if it takes it.
fn said(server: &ApiServer, kind: &str, name: &str, spec: &serde_json::Value) -> String {
    let object = json!({
        "apiVersion": "outrigger.dev/v1alpha1", "kind": kind,
        "metadata": {"name": name, "namespace": "default"}, "spec": spec,
    });
    server.apply(&object.to_string()).map_or_else(|error| format!("{error:#}"), |_| String::new())
}

/// Probes that the gateway would refuse.
fn refuse_probes(server: &ApiServer) -> Result<()> {
    let probed = |probe: serde_json::Value| {
        said(server, "ExternalWorkloadGroup", "probed", &json!({"template": {}, "probes": [probe]}))
    };
    for probe in [json!({"tcp": {"port": 5432}}), json!({"http": {"port": 80, "host": "db.example"}})] {
        let refused = probed(probe);
        ensure!(refused.is_empty(), "{refused}");
    }
    for (probe, words) in [
        (json!({}), "a probe is one of tcp, http and exec"),
        (json!({"tcp": {"port": 1}, "exec": {"name": "a"}}), "a probe is one of tcp, http and exec"),
        (json!({"tcp": {"port": 1}, "timeoutSeconds": 20}), "timeoutSeconds is at most periodSeconds"),
        (json!({"tcp": {"port": 0}}), "spec.probes[0].tcp.port"),
        (json!({"http": {"port": 1, "path": "x y"}}), "spec.probes[0].http.path"),
        (json!({"exec": {"name": "../a"}}), "spec.probes[0].exec.name"),
    ] {
        let text = probe.to_string();
        let refused = probed(probe);
        ensure!(refused.contains(words), "{text}: {refused}");
    }
    Ok(())
}

#[test]
fn what_the_gateway_would_refuse_is_refused_at_admission() -> Result<()> {
    let net = Net::try_new()?;
    let Objects::Cluster(api) = Objects::cluster(&net.host("api")?)? else { anyhow::bail!("no cluster") };
    let server = &api.server;
    println!("back end: {}", server.back_end());
    let labels = |key: &str, value: &str| {
        said(server, "ExternalWorkloadGroup", "db", &json!({"template": {"labels": {key: value}}}))
    };
    for (key, value) in [("app", "db"), ("app.kubernetes.io/name", "db"), ("a", ""), ("io.ciliumx/a", "b")] {
        ensure!(labels(key, value).is_empty(), "{key}={value}: {}", labels(key, value));
    }
    for (key, value, words) in [
        ("io.kubernetes.pod.namespace", "bank", "given by the gateway only"),
        ("IO.Cilium/x", "y", "given by the gateway only"),
        ("-a", "b", "a key of a label"),
        ("a/b/c", "d", "a key of a label"),
        ("a", "-b", "a value of a label"),
        ("a", "k8s:b", "a value of a label"),
    ] {
        ensure!(labels(key, value).contains(words), "{key}={value}: {}", labels(key, value));
    }
    let port = json!({"template": {"ports": [{"name": "80", "port": 80}]}});
    let refused = said(server, "ExternalWorkloadGroup", "web", &port);
    ensure!(refused.contains("at least one letter"), "{refused}");

    refuse_probes(server)?;

    let workload = |name: &str, group: &str, addresses: &[&str]| {
        said(server, "ExternalWorkload", name, &json!({"group": group, "addresses": addresses}))
    };
    ensure!(workload("db-1", "db", &[]).is_empty(), "{}", workload("db-1", "db", &[]));
    let both = ["10.0.0.1", "fd00::1"];
    ensure!(
        workload("db-1", "db", &both).is_empty(),
        "they may be given later: {}",
        workload("db-1", "db", &both)
    );
    for (name, group, addresses, words) in [
        ("db-1", "web", &both[..], "the group cannot be changed"),
        ("db-1", "db", &["10.0.0.2"], "addresses cannot be changed"),
        ("db-2", "db", &["10.0.0.1", "10.0.0.2"], "one address of each family"),
        ("db-3", "db", &["db.example"], "an address is one of"),
    ] {
        let refused = workload(name, group, addresses);
        ensure!(refused.contains(words), "{name} of {group} with {addresses:?}: {refused}");
    }
    Ok(())
}
