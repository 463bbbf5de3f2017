//! External workloads behind Services of a cluster: which slices are written, and that nothing else ever is.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use e2e::apiserver::fixture::{ApiServer, WRITES};
use e2e::cluster::{Cluster, Member, group};
use e2e::gateway::objects::USER;
use e2e::json;
use e2e::wait::wait_ok;
use serde_json::{Value, json};

const PATIENCE: Duration = Duration::from_mins(1);
const SLICES: &str = "discovery.k8s.io/v1";
const RBAC: &str = "rbac.authorization.k8s.io/v1";
const OWN: &str = "gateway.outrigger.dev";

struct World {
    cluster: Cluster,
    db: Member,
}

impl World {
    fn try_new() -> Result<Self> {
        let mut cluster = Cluster::of_api()?;
        println!("back end: {}", cluster.server()?.back_end());
        cluster.group("db")?;
        let more = "    ports: [{name: sql, port: 5432}]\n";
        let zoned = group("db", &[("app", "db")], more)
            .replace("  name: db\n", "  name: db\n  labels: {topology.kubernetes.io/zone: rack-7}\n");
        cluster.gateway.apply("group-db.yaml", &zoned)?;
        let db = cluster.member("db", "db-1")?;
        Ok(Self { cluster, db })
    }

    fn server(&mut self) -> Result<&mut ApiServer> {
        self.cluster.server()
    }

    /// Waits until the gateway's slices of a Service are so; these.
    fn wait_slices(
        &mut self,
        namespace: &str,
        service: &str,
        what: &str,
        is: impl Fn(&[Value]) -> bool,
    ) -> Result<Vec<Value>> {
        let server = self.server()?;
        wait_ok(what, PATIENCE, || {
            let found = slices(server, namespace, service)?;
            ensure!(is(&found), "{found:#?}");
            Ok(found)
        })
    }

    /// Waits until the object of the host says this of its probes, with these words.
    fn wait_probes(&mut self, says: &str, words: &str) -> Result<()> {
        let server = self.server()?;
        wait_ok(&format!("probes to be {says}"), PATIENCE, || {
            let object = server.get("outrigger.dev/v1alpha1", "ExternalWorkload", "shop", "db-1")?;
            let conditions = json::list(json::at(&object, &["status"]), "conditions");
            let is = |found: &Value| {
                json::text(found, "type") == "ProbesPassing"
                    && format!("{} {}", json::text(found, "status"), json::text(found, "reason")) == says
                    && json::text(found, "message").contains(words)
            };
            ensure!(conditions.iter().any(is), "{object:#}");
            Ok(())
        })
    }

    fn writes(&mut self) -> Result<u64> {
        self.server()?.count(USER, &WRITES, "endpointslices")
    }
}

/// The gateway's own slices of a Service.
fn slices(server: &ApiServer, namespace: &str, service: &str) -> Result<Vec<Value>> {
    let all = server.list(SLICES, "EndpointSlice", namespace)?;
    let label =
        |slice: &Value, key: &str| json::text(json::at(slice, &["metadata", "labels"]), key).to_owned();
    let is = |slice: &Value| {
        label(slice, "kubernetes.io/service-name") == service
            && label(slice, "endpointslice.kubernetes.io/managed-by") == OWN
    };
    Ok(all.into_iter().filter(is).collect())
}

fn service(namespace: &str, name: &str, spec: &Value) -> String {
    json!({"apiVersion": "v1", "kind": "Service", "spec": spec, "metadata": {
        "name": name, "namespace": namespace, "annotations": {"outrigger.dev/external-workloads": "enabled"},
    }})
    .to_string()
}

fn selecting(more: &Value) -> Value {
    let mut spec = json!({
        "selector": {"app": "db"}, "ipFamilies": ["IPv4", "IPv6"],
        "ports": [{"name": "sql", "port": 15432, "targetPort": "sql", "appProtocol": "postgres"}],
    });
    if let (Some(spec), Some(more)) = (spec.as_object_mut(), more.as_object()) {
        spec.extend(more.clone());
    }
    spec
}

/// What consumers may do with the first endpoint of a slice.
fn conditions(slice: &Value) -> String {
    let endpoint = json::list(slice, "endpoints").first().cloned().unwrap_or_default();
    let conditions = json::at(&endpoint, &["conditions"]);
    let held = ["ready", "serving", "terminating"].into_iter().filter(|name| json::flag(conditions, name));
    held.collect::<Vec<_>>().join(" ")
}

fn all_are(wanted: &'static str) -> impl Fn(&[Value]) -> bool {
    move |slices| slices.len() == 2 && slices.iter().all(|slice| conditions(slice) == wanted)
}

#[test]
fn a_host_is_behind_a_service_while_it_is_there_and_nothing_is_written_without_need() -> Result<()> {
    let mut world = World::try_new()?;
    let addresses = world.db.addresses()?.map(|address| address.to_string());
    let foreign = json!({
        "apiVersion": SLICES, "kind": "EndpointSlice", "addressType": "IPv4",
        "metadata": {"name": "db-ew", "namespace": "shop", "labels": {
            "kubernetes.io/service-name": "db",
            "endpointslice.kubernetes.io/managed-by": "endpointslice-controller.k8s.io",
        }},
        "endpoints": [{"addresses": ["10.100.1.9"], "conditions": {"ready": true}}],
        "ports": [{"name": "sql", "port": 5432, "protocol": "TCP"}],
    });
    let server = world.server()?;
    let foreign = server.apply(&foreign.to_string())?.remove(0);
    let made = server.apply(&service("shop", "db", &selecting(&json!({}))))?.remove(0);

    let found = world.wait_slices("shop", "db", "both families", all_are("ready serving"))?;
    let mut of_slices = Vec::new();
    for slice in &found {
        let endpoint = &json::list(slice, "endpoints")[0];
        of_slices.extend(json::texts(endpoint, "addresses"));
        ensure!(json::text(endpoint, "zone") == "rack-7", "{slice:#}");
        ensure!(json::text(json::at(endpoint, &["targetRef"]), "name") == "db-1", "{slice:#}");
        let ports = json::list(slice, "ports");
        let expected = json!([{"name": "sql", "port": 5432, "protocol": "TCP", "appProtocol": "postgres"}]);
        ensure!(json!(ports) == expected, "{slice:#}");
        let owners = json::list(json::at(slice, &["metadata"]), "ownerReferences");
        let uid = json::text(json::at(&made, &["metadata"]), "uid");
        ensure!(owners.len() == 1 && json::text(&owners[0], "uid") == uid, "{slice:#}");
    }
    of_slices.sort_unstable();
    let mut expected = addresses;
    expected.sort_unstable();
    ensure!(of_slices == expected, "{of_slices:?} of {expected:?}");

    // An agent that is started again, and then the gateway: nobody is told.
    let before = world.writes()?;
    world.db.agent.stop()?;
    world.cluster.gateway.stop()?;
    world.cluster.gateway.launch()?;
    world.db.agent.launch()?;
    world.db.wait_status("a session", |status| json::flag(status, "connected"))?;
    world.server()?.apply(&service("shop", "headless", &selecting(&json!({"clusterIP": "None"}))))?;
    let headless = world.wait_slices("shop", "headless", "a headless Service", all_are("ready serving"))?;
    ensure!(json::text(&json::list(&headless[0], "endpoints")[0], "hostname") == "db-1", "{headless:#?}");
    let writes = world.writes()? - before;
    ensure!(writes == 2, "{writes} writes for two new slices");

    // It leaves; the Services go, one by one.
    world.db.command(&["leave"])?.ok()?;
    world.wait_slices("shop", "db", "endpoints that end", all_are("terminating"))?;
    let server = world.server()?;
    server.delete("v1", "Service", "shop", "headless")?;
    let plain = service("shop", "db", &selecting(&json!({}))).replace("\"enabled\"", "\"disabled\"");
    server.apply(&plain)?;
    world.wait_slices("shop", "db", "no slices", <[Value]>::is_empty)?;
    world.wait_slices("shop", "headless", "no slices", <[Value]>::is_empty)?;
    let server = world.server()?;
    let again = server.get(SLICES, "EndpointSlice", "shop", "db-ew")?;
    ensure!(again["metadata"] == foreign["metadata"], "{again:#} was {foreign:#}");
    Ok(())
}

#[test]
fn what_cannot_be_done_is_told_on_the_service() -> Result<()> {
    let mut world = World::try_new()?;
    let without = json!({"ports": [{"port": 80}]});
    let server = world.server()?;
    server.apply(&service("shop", "by-hand", &without))?;
    let odd = json!({"ports": [{"name": "web", "port": 80, "targetPort": "http"}]});
    server.apply(&service("shop", "odd", &selecting(&odd)))?;
    let note = world.server()?.wait_event("ExternalWorkloadsRefused", "by-hand")?;
    ensure!(note.contains("has no selector"), "{note}");
    let note = world.server()?.wait_event("PortNotFound", "odd")?;
    ensure!(note.contains("\"http\"") && note.contains("db-1"), "{note}");

    // A right that is missing is named, and once it is there nobody has to do anything.
    let server = world.server()?;
    let all = server.get(RBAC, "ClusterRole", "", USER)?;
    let role = |rules: Vec<Value>| {
        json!({"apiVersion": RBAC, "kind": "ClusterRole", "metadata": {"name": USER}, "rules": rules})
            .to_string()
    };
    let rules = json::list(&all, "rules").to_vec();
    let writes = |rule: &Value| json::texts(rule, "verbs").iter().any(|verb| verb == "update");
    server.apply(&role(rules.iter().filter(|rule| !writes(rule)).cloned().collect()))?;
    server.apply(&service("shop", "db", &selecting(&json!({}))))?;
    let note = world.server()?.wait_event("EndpointSlicesNotWritten", "db")?;
    ensure!(note.contains("cannot create resource \"endpointslices\""), "{note}");
    world.server()?.apply(&role(rules))?;
    world.wait_slices("shop", "db", "both families", all_are("ready serving")).map(drop)
}

/// A group whose hosts are asked whether they serve.
fn probed(probes: &str) -> String {
    group("db", &[("app", "db")], &format!("    ports: [{{name: sql, port: 5432}}]\n  probes: [{probes}]\n"))
}

#[test]
fn a_host_that_does_not_serve_is_not_ready_and_says_why() -> Result<()> {
    let mut world = World::try_new()?;
    let quick = "periodSeconds: 1, failureThreshold: 1";
    let http = format!("{{http: {{port: 5432, path: /}}, {quick}}}");
    world.cluster.publish("group-db.yaml", &probed(&http))?;
    world.server()?.apply(&service("shop", "db", &selecting(&json!({}))))?;
    world.wait_slices("shop", "db", "nobody who serves", all_are(""))?;
    world.wait_probes("False Failing", "http 5432 /")?;
    let status = world.db.status()?;
    let shown = json::list(&status, "probes").first().context("a probe")?;
    ensure!(
        json::text(shown, "state") == "failing" && json::text(shown, "probe") == "http 5432 /",
        "{status:#}"
    );
    let serving = world.db.host.traffic("serving", "serve-http --port 5432")?;
    world.wait_slices("shop", "db", "who serves", all_are("ready serving"))?;
    world.wait_probes("True Passing", "")?;

    // The agent is started again: it knows nothing at first, and nobody is told.
    let before = world.server()?.count(USER, &WRITES, "")?;
    world.db.agent.stop()?;
    world.db.agent.launch()?;
    let is_passing = |status: &Value| {
        let state = json::list(status, "probes").first().map(|probe| json::text(probe, "state").to_owned());
        json::flag(status, "connected") && state.as_deref() == Some("passing")
    };
    world.db.wait_status("a probe that passes", is_passing)?;
    let writes = world.server()?.count(USER, &WRITES, "")? - before;
    ensure!(writes == 0, "{writes} writes");
    drop(serving);
    world.wait_slices("shop", "db", "nobody who serves", all_are(""))?;

    // Programs are the host's administrator's to allow.
    world.cluster.publish("group-db.yaml", &probed(&format!("{{exec: {{name: ready}}, {quick}}}")))?;
    world.wait_probes("False Failing", "execProbes")?;
    world.cluster.publish("group-db.yaml", &probed(""))?;
    world.wait_slices("shop", "db", "a host that nobody asks", all_are("ready serving")).map(drop)
}
