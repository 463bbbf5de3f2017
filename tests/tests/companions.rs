//! Companions of `NetworkPolicy`s: which are written, that they follow hosts and policies, and that nothing else ever is.
#![expect(clippy::indexing_slicing, reason = "also what is shared by tests fails them")]

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use e2e::apiserver::fixture::{ApiServer, WRITES, is};
use e2e::cluster::{Cluster, Member, group, namespace};
use e2e::gateway::POOLS;
use e2e::gateway::objects::{COMPANION_RIGHTS, COMPANION_WRITES, COMPANIONS, Cluster as Api, Objects};
use e2e::host::Host;
use e2e::json;
use e2e::net::Net;
use e2e::process::Process;
use e2e::wait::wait_ok;
use serde_json::{Value, json};

const PATIENCE: Duration = Duration::from_mins(1);
const POLICIES: &str = "networking.k8s.io/v1";
const OWN: &str = "outrigger-companion-api";
/// Between two looks of the process there is a second.
const LOOKS: Duration = Duration::from_secs(4);

/// Starts the process that keeps companions in the namespace `shop`.
fn start(host: &Host, server: &ApiServer, source_addresses: &str) -> Result<Process> {
    let kubeconfig = server.kubeconfig(COMPANIONS);
    let file = host.folder().join("companions.yaml");
    let text = format!(
        "kubeconfig: {}\nnamespaces: [shop]\nsourceAddresses: {source_addresses}\nworkloadPools: [\"{}\"]\n",
        kubeconfig.display(),
        POOLS.join("\", \"")
    );
    std::fs::write(&file, text)?;
    let file = file.display().to_string();
    host.spawn("companions", &["outrigger-gateway", "companions", "--config", &file])
}

fn policy(namespace: &str, name: &str, spec: &Value) -> String {
    json!({"apiVersion": POLICIES, "kind": "NetworkPolicy", "spec": spec, "metadata": {
        "name": name, "namespace": namespace, "labels": {"team": "shop"}, "annotations": {"note": "theirs"},
    }})
    .to_string()
}

/// Lets who has this label in.
fn letting_in(app: &str) -> Value {
    let from = json!([{"podSelector": {"matchLabels": {"app": app}}}]);
    json!({"podSelector": {}, "policyTypes": ["Ingress"], "ingress": [{"from": from, "ports": [{"port": "http"}]}]})
}

fn found(server: &ApiServer, name: &str) -> Result<Option<Value>> {
    match server.get(POLICIES, "NetworkPolicy", "shop", name) {
        Ok(found) => Ok(Some(found)),
        Err(error) if is(&error, 404) => Ok(None),
        Err(error) => Err(error),
    }
}

/// An object as somebody would write it again.
fn fresh(mut object: Value) -> Value {
    if let Some(metadata) = object["metadata"].as_object_mut() {
        metadata.retain(|key, _| {
            !["resourceVersion", "uid", "creationTimestamp", "managedFields"].contains(&key.as_str())
        });
    }
    object
}

/// Waits until the companion of the policy `api` has these blocks; none: until it is gone.
fn wait_blocks(server: &ApiServer, what: &str, wanted: &[String]) -> Result<Value> {
    wait_ok(what, PATIENCE, || {
        let companion = found(server, OWN)?.unwrap_or_default();
        let rules = json::list(json::at(&companion, &["spec"]), "ingress").iter();
        let peers = rules.flat_map(|rule| json::list(rule, "from"));
        let blocks: Vec<String> =
            peers.map(|peer| json::text(json::at(peer, &["ipBlock"]), "cidr").to_owned()).collect();
        ensure!(blocks == wanted && companion.is_null() == wanted.is_empty(), "{companion:#}");
        Ok(companion)
    })
}

/// The blocks of these addresses, in order.
fn blocks(of: impl IntoIterator<Item = IpAddr>) -> Vec<String> {
    let sorted: BTreeSet<IpAddr> = of.into_iter().collect();
    let block = |address: IpAddr| format!("{address}/{}", if address.is_ipv4() { 32 } else { 128 });
    sorted.into_iter().map(block).collect()
}

fn check(companion: &Value, original: &Value) -> Result<()> {
    ensure!(companion["spec"]["podSelector"] == json!({}), "{companion:#}");
    ensure!(companion["spec"]["policyTypes"] == json!(["Ingress"]), "{companion:#}");
    let ports = &companion["spec"]["ingress"][0]["ports"];
    ensure!(*ports == json!([{"port": "http", "protocol": "TCP"}]), "{companion:#}");
    let metadata = &companion["metadata"];
    let label = json!({"app.kubernetes.io/managed-by": "companions.outrigger.dev"});
    ensure!(metadata["labels"] == label && metadata["annotations"].is_null(), "{companion:#}");
    ensure!(metadata["ownerReferences"][0]["uid"] == original["metadata"]["uid"], "{companion:#}");
    Ok(())
}

/// It rests, and is started again: nothing is written.
fn check_rest(host: &Host, server: &ApiServer, process: Process) -> Result<Process> {
    if !server.is_double() {
        return Ok(process);
    }
    let mut process = process;
    let before = server.count(COMPANIONS, &WRITES, "networkpolicies")?;
    ensure!(before == 1, "{before} writes for one companion");
    std::thread::sleep(LOOKS);
    process.stop()?;
    let again = start(host, server, "preserved")?;
    std::thread::sleep(LOOKS);
    let writes = server.count(COMPANIONS, &WRITES, "networkpolicies")? - before;
    ensure!(writes == 0, "{writes} writes at rest");
    Ok(again)
}

#[test]
fn companions_follow_policies_and_hosts_and_nothing_else_is_written() -> Result<()> {
    let mut cluster = Cluster::of_api()?;
    println!("back end: {}", cluster.server()?.back_end());
    cluster.gateway.apply("lab.yaml", &namespace("lab", &[("team", "lab")]))?;
    cluster.group("db")?;
    let db = cluster.member("db", "db-1")?;
    let first = blocks(db.addresses()?);
    let host = cluster.node.host().clone();
    cluster.api()?.grant_companions("shop", &COMPANION_WRITES)?;
    let server = cluster.server()?;
    // One of the companion's name that is somebody else's, and a namespace that is not listed.
    let taken = json!({"podSelector": {"matchLabels": {"a": "b"}}});
    let foreign = server.apply(&policy("shop", "outrigger-companion-taken", &taken))?.remove(0);
    for (place, name) in [("shop", "api"), ("shop", "taken"), ("lab", "api")] {
        server.apply(&policy(place, name, &letting_in("db")))?;
    }
    let mut process = start(&host, server, "preserved")?;
    let companion = wait_blocks(server, "a companion", &first).with_context(|| process.output())?;
    check(&companion, &server.get(POLICIES, "NetworkPolicy", "shop", "api")?)?;
    let note = server.wait_event("CompanionNameTaken", "taken")?;
    ensure!(note.contains("outrigger-companion-taken is the name of another policy"), "{note}");
    process = check_rest(&host, server, process)?;
    // The mesh knows the policy, and needs no companion.
    let listed = db.command(&["policy", "list"])?.ok()?.stdout;
    ensure!(listed.contains("NetworkPolicy/shop/api") && !listed.contains("companion-api"), "{listed}");
    check_follows(&mut cluster, &db, companion)?;

    let server = cluster.server()?;
    let again = server.get(POLICIES, "NetworkPolicy", "shop", "outrigger-companion-taken")?;
    ensure!(again["metadata"] == foreign["metadata"], "{again:#} was {foreign:#}");
    let elsewhere = server.list(POLICIES, "NetworkPolicy", "lab")?;
    ensure!(elsewhere.len() == 1, "{elsewhere:#?}");
    process.stop().map(drop)
}

fn check_follows(cluster: &mut Cluster, db: &Member, companion: Value) -> Result<()> {
    let first = blocks(db.addresses()?);
    // What somebody makes of it does not last.
    let mut spoiled = fresh(companion);
    spoiled["spec"]["ingress"] = json!([{}]);
    cluster.server()?.apply(&spoiled.to_string())?;
    wait_blocks(cluster.server()?, "what it was", &first)?;
    // Its group has other labels, and then the old ones again; another host joins, and leaves.
    cluster.publish("group-db.yaml", &group("db", &[("app", "other")], ""))?;
    wait_blocks(cluster.server()?, "no companion", &[])?;
    cluster.publish("group-db.yaml", &group("db", &[("app", "db")], ""))?;
    wait_blocks(cluster.server()?, "a companion again", &first)?;
    let second = cluster.member("db", "db-2")?;
    let both = blocks(db.addresses()?.into_iter().chain(second.addresses()?));
    wait_blocks(cluster.server()?, "two hosts", &both)?;
    second.command(&["leave"])?.ok()?;
    wait_blocks(cluster.server()?, "the one that is left", &first)?;
    cluster.server()?.delete(POLICIES, "NetworkPolicy", "shop", "api")?;
    wait_blocks(cluster.server()?, "no companion", &[]).map(drop)
}

#[test]
fn threat_companion_a_label_alone_takes_no_policy_out_of_force() -> Result<()> {
    let mut cluster = Cluster::of_api()?;
    cluster.group("db")?;
    let db = cluster.member("db", "db-1")?;
    let mut labelled: Value = serde_json::from_str(&policy("shop", "closed", &letting_in("nobody")))?;
    labelled["metadata"]["labels"] = json!({"app.kubernetes.io/managed-by": "companions.outrigger.dev"});
    cluster.server()?.apply(&labelled.to_string())?;
    let says = "NetworkPolicy/shop/closed: has the label app.kubernetes.io/managed-by=companions.outrigger.dev and is no \
                companion, so it applies: it has no networking.k8s.io/v1 NetworkPolicy";
    cluster.gateway.wait_status("a warning", |status| {
        json::texts(status, "warnings").iter().any(|warning| warning.contains(says))
    })?;
    wait_ok("the policy on the host", PATIENCE, || {
        let listed = db.command(&["policy", "list"])?.ok()?.stdout;
        ensure!(listed.contains("NetworkPolicy/shop/closed"), "{listed}");
        Ok(())
    })
}

/// An API with a host that joined, and a policy that selects it; no gateway runs.
fn api(net: &Net) -> Result<Box<Api>> {
    let Objects::Cluster(api) = Objects::cluster(&net.host("api")?)? else { anyhow::bail!("no cluster") };
    println!("back end: {}", api.server.back_end());
    let host = json!({
        "apiVersion": "outrigger.dev/v1alpha1", "kind": "ExternalWorkload",
        "metadata": {"name": "db-1", "namespace": "shop"},
        "spec": {"group": "db", "addresses": ["10.244.240.9"], "recorded": {
            "keyHash": "aGFzaA==", "machine": "m", "joinedAt": "2026-01-01T00:00:00Z",
        }},
    });
    for object in [
        namespace("shop", &[("team", "shop")]),
        group("db", &[("app", "db")], ""),
        host.to_string(),
        policy("shop", "api", &letting_in("db")),
    ] {
        api.server.apply(&object)?;
    }
    Ok(api)
}

#[test]
fn a_right_that_is_missing_is_named() -> Result<()> {
    let net = Net::try_new()?;
    let (api, host) = (api(&net)?, net.host("companions")?);
    let [_, of_events] = COMPANION_WRITES;
    api.grant_companions("shop", &[of_events])?;
    let role = api.server.get("rbac.authorization.k8s.io/v1", "ClusterRole", "", COMPANIONS)?;
    let (role, mut without) = (fresh(role.clone()), fresh(role));
    let rules =
        json::list(&role, "rules").iter().filter(|rule| !rule.to_string().contains("externalworkloads"));
    without["rules"] = rules.cloned().collect();
    ensure!(json::list(&without, "rules").len() == COMPANION_RIGHTS.len() - 1);
    api.server.apply(&without.to_string())?;
    let mut process = start(&host, &api.server, "preserved")?;
    wait_ok("what cannot be read", PATIENCE, || {
        let ready = host.run(&["traffic", "get", "http://127.0.0.1:9466/readyz"])?;
        let (log, says) = (process.output(), "cannot list resource \\\"externalworkloads\\\"");
        ensure!(log.contains(says) || log.contains("cannot list resource \"externalworkloads\""), "{log}");
        ensure!(!ready.succeeded(), "it is ready");
        Ok(())
    })?;
    api.server.apply(&role.to_string())?;
    let note = api.server.wait_event("CompanionNotWritten", "api")?;
    ensure!(note.contains("cannot create resource \"networkpolicies\""), "{note}");
    ensure!(note.contains("in the namespace \"shop\""), "{note}");
    api.grant_companions("shop", &COMPANION_WRITES)?;
    wait_blocks(&api.server, "a companion", &["10.244.240.9/32".to_owned()])?;
    host.run(&["traffic", "get", "http://127.0.0.1:9466/readyz"])?.ok()?;
    process.stop()?;
    Ok(())
}

#[test]
fn where_addresses_are_masqueraded_nothing_is_written_and_the_policy_says_why() -> Result<()> {
    let net = Net::try_new()?;
    let (api, host) = (api(&net)?, net.host("companions")?);
    api.grant_companions("shop", &COMPANION_WRITES)?;
    let mut process = start(&host, &api.server, "masqueraded")?;
    let note = api.server.wait_event("CompanionMasqueraded", "api")?;
    ensure!(note.contains("sourceAddresses: masqueraded"), "{note}");
    ensure!(found(&api.server, OWN)?.is_none());
    let metrics = host.run(&["traffic", "get", "http://127.0.0.1:9466/metrics"])?.ok()?;
    let text = format!("{}{}", metrics.stdout, metrics.stderr);
    ensure!(text.contains("outrigger_companions_policies{state=\"masqueraded\"} 1"), "{text}");
    process.stop()?;

    // Without an answer to the question it does not start.
    let words =
        ["outrigger-gateway", "companions", "--namespaces", "shop", "--workload-pools", "10.0.0.0/24"];
    host.run(&words)?.refused_with(&["sourceAddresses: needed"])?;
    Ok(())
}
