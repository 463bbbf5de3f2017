//! The state of record in a cluster's API: a gateway that lost its disk goes on, a host whose object is deleted is revoked, a
//! token is an object, and what the cluster loses it is given again.

use std::net::IpAddr;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use e2e::agent::Agent;
use e2e::apiserver::fixture::ApiServer;
use e2e::cluster::{Cluster, Member, allow_ingress};
use e2e::gateway::objects::{NAMESPACE, USER};
use e2e::json;
use e2e::wait::wait_ok;
use proto::token;
use secrecy::ExposeSecret as _;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

const PATIENCE: Duration = Duration::from_secs(30);
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

    fn workload(&mut self) -> Result<Value> {
        self.server()?.get(VERSION, "ExternalWorkload", "shop", "db-1")
    }

    /// The gateway's machine is another one: nothing is left of what it kept.
    fn move_gateway(&mut self) -> Result<()> {
        self.cluster.gateway.kill()?;
        let state = self.cluster.gateway.config().with_file_name("state");
        std::fs::remove_dir_all(&state).with_context(|| state.display().to_string())
    }

    /// Waits until records of a table hold this text.
    fn wait_record(&mut self, table: &str, text: &str) -> Result<()> {
        let server = self.server()?;
        wait_ok("a record", PATIENCE, || {
            let records = server.list(VERSION, "MeshRecord", NAMESPACE)?;
            let holds = |record: &Value| {
                json::text(json::at(record, &["spec"]), "table") == table && record.to_string().contains(text)
            };
            ensure!(records.iter().any(holds), "{records:#?}");
            Ok(())
        })
    }

    /// Another machine, whose agent runs and has not joined.
    fn host(&self, name: &str) -> Result<Agent> {
        Agent::start(&self.cluster.net.host(name)?)
    }

    fn restart_agent(&mut self) -> Result<()> {
        self.db.agent.stop()?;
        self.db.agent.launch()?;
        self.db.wait_enforcing().map(drop)
    }

    fn is_allowed(&self, remote: &str, port: u16) -> Result<bool> {
        let port = port.to_string();
        let words =
            ["policy", "trace", "--direction", "in", "--remote", remote, "--port", &port, "-o", "json"];
        Ok(json::text(&self.db.command(&words)?.ok()?.json()?, "kernel_verdict") == "allow")
    }

    fn wait_connected(&self, wanted: bool) -> Result<()> {
        let is = |status: &Value| json::flag(status, "connected") == wanted;
        self.db.wait_status(if wanted { "a session" } else { "no session" }, is).map(drop)
    }
}

fn uid(object: &Value) -> &str {
    json::text(json::at(object, &["metadata"]), "uid")
}

/// An object as a backup has it: without its status, and without what the API server gave it.
fn backed_up(object: &Value) -> Value {
    let metadata = json::at(object, &["metadata"]);
    let kept = ["name", "namespace", "labels", "annotations", "finalizers"];
    let kept = kept.into_iter().filter_map(|key| Some((key.to_owned(), metadata.get(key)?.clone())));
    let metadata: serde_json::Map<String, Value> = kept.collect();
    let fields = object.as_object().into_iter().flatten();
    let fields = fields.filter(|(key, _)| !["status", "metadata"].contains(&key.as_str()));
    let fields = fields.map(|(key, value)| (key.clone(), value.clone()));
    fields.chain([("metadata".to_owned(), Value::Object(metadata))]).collect::<serde_json::Map<_, _>>().into()
}

#[test]
fn a_gateway_that_lost_its_disk_goes_on() -> Result<()> {
    let mut world = World::try_new()?;
    let (addresses, identity) = (world.db.addresses()?, world.db.identity()?);
    let web = world.cluster.pod("web", 2)?;
    world.cluster.publish("policy.yaml", &allow_ingress("db", "db", &["web"], Some(5432)))?;
    let before = world.cluster.gateway.token("shop/db", &[])?;
    let other = world.cluster.member("db", "db-2")?;
    let others = other.addresses()?;
    other.command(&["leave"])?.ok()?;
    let recorded = json::at(&world.workload()?, &["spec", "recorded"]).clone();
    ensure!(json::text(&recorded, "keyHash").len() == 64, "{recorded}");

    world.move_gateway()?;
    world.cluster.gateway.launch()?;
    world.wait_connected(true)?;
    ensure!(world.db.addresses()? == addresses && world.db.identity()? == identity, "it is the same host");
    world.cluster.settle()?;
    ensure!(world.is_allowed(&web.v4().to_string(), 5432)?, "the policy is still there");
    let workloads = world.cluster.gateway.workloads()?;
    ensure!(workloads.len() == 2, "the transit node and the host: {workloads:#?}");
    // A token of before is good for one host; what rests still rests.
    let third = world.host("db-3")?;
    third.join(&before.text)?;
    third.wait_enforcing()?;
    let taken = [addresses, others].concat();
    ensure!(
        third.addresses()?.iter().all(|own| !taken.contains(own)),
        "{:?} of {taken:?}",
        third.addresses()?
    );
    world.host("db-4")?.try_join(&before.text)?.refused_with(&["was used already", "db-3"])?;
    Ok(())
}

#[test]
fn a_host_whose_object_is_deleted_is_revoked_at_once() -> Result<()> {
    let mut world = World::try_new()?;
    let [address, _] = world.db.addresses()?;
    world.server()?.delete(VERSION, "ExternalWorkload", "shop", "db-1")?;
    world.wait_connected(false)?;
    let refused = |status: &Value| status.to_string().contains("was deleted");
    world.db.wait_status("the refusal", refused)?;
    let server = world.server()?;
    wait_ok("the object to go", PATIENCE, || {
        ensure!(server.get(VERSION, "ExternalWorkload", "shop", "db-1").is_err());
        Ok(())
    })?;
    world.wait_record("resting-addresses", &address.to_string())?;
    world.wait_record("revoked-keys", "shop/db-1")?;
    // One that is deleted while no gateway runs waits for it.
    let second = world.cluster.member("db", "db-2")?;
    world.cluster.gateway.kill()?;
    world.server()?.delete(VERSION, "ExternalWorkload", "shop", "db-2")?;
    let waiting = world.server()?.get(VERSION, "ExternalWorkload", "shop", "db-2")?;
    ensure!(!json::text(json::at(&waiting, &["metadata"]), "deletionTimestamp").is_empty(), "{waiting}");
    world.cluster.gateway.launch()?;
    second.wait_status("the refusal", refused)?;
    let deletions = world.cluster.gateway.audit()?;
    let by_cluster =
        |event: &&Value| json::text(event, "event") == "deleted" && json::text(event, "by") == "kubernetes";
    ensure!(deletions.iter().filter(by_cluster).count() == 2, "{deletions:#?}");
    Ok(())
}

#[test]
fn what_the_cluster_loses_it_is_given_again() -> Result<()> {
    let mut world = World::try_new()?;
    let before = world.workload()?;
    let mut forced = backed_up(&before);
    forced["metadata"]["finalizers"] = json!([]);
    let server = world.server()?;
    server.apply(&forced.to_string())?;
    server.delete(VERSION, "ExternalWorkload", "shop", "db-1")?;
    wait_ok("the object to be there again", PATIENCE, || {
        let again = server.get(VERSION, "ExternalWorkload", "shop", "db-1")?;
        ensure!(json::text(json::at(&again, &["metadata"]), "uid") != uid(&before), "{again}");
        ensure!(json::at(&again, &["spec"]) == json::at(&before, &["spec"]), "{again} of {before}");
        Ok(())
    })?;
    ensure!(json::flag(&world.db.status()?, "connected"), "nobody revoked it");
    Ok(())
}

#[test]
fn a_cluster_that_is_made_anew_from_a_backup_has_the_same_hosts() -> Result<()> {
    let mut world = World::try_new()?;
    let used = world.cluster.gateway.token("shop/db", &[])?;
    let second = world.host("db-2")?;
    second.join(&used.text)?;
    second.wait_enforcing()?;
    let identity = second.identity()?;
    let kinds = [
        (VERSION, "ExternalWorkload", ""),
        (VERSION, "JoinToken", ""),
        (VERSION, "MeshRecord", NAMESPACE),
        ("v1", "Secret", NAMESPACE),
    ];
    world.move_gateway()?;
    let server = world.server()?;
    let mut backup = Vec::new();
    for (version, kind, namespace) in kinds {
        for mut object in server.list(version, kind, namespace)? {
            object["apiVersion"] = json!(version);
            object["kind"] = json!(kind);
            backup.push(backed_up(&object));
        }
    }
    ensure!(backup.len() > 5, "{backup:#?}");
    for object in &backup {
        let mut forced = object.clone();
        forced["metadata"]["finalizers"] = json!([]);
        server.apply(&forced.to_string())?;
        let metadata = json::at(object, &["metadata"]);
        let [version, kind] = ["apiVersion", "kind"].map(|key| json::text(object, key));
        server.delete(version, kind, json::text(metadata, "namespace"), json::text(metadata, "name"))?;
    }
    ensure!(server.list(VERSION, "ExternalWorkload", "")?.is_empty());
    for object in &backup {
        server.apply(&object.to_string())?;
    }
    world.cluster.gateway.launch()?;
    for host in [&*world.db, &second] {
        host.wait_status("a session", |status| json::flag(status, "connected"))?;
    }
    world.cluster.settle()?;
    ensure!(second.identity()? == identity);
    world.host("db-3")?.try_join(&used.text)?.refused_with(&["was used already"])?;
    Ok(())
}

#[test]
fn a_token_is_an_object_whose_secret_is_the_clients() -> Result<()> {
    let mut world = World::try_new()?;
    // What a token says of gateways and roots is the same in all of them.
    let known = token::decode(&world.cluster.gateway.token("shop/db", &[])?.text)?;
    let secret = [7_u8; 32];
    let source = world.db.host().v4();
    let object = json!({
        "apiVersion": VERSION, "kind": "JoinToken", "metadata": {"name": "rack-7", "namespace": "shop"},
        "spec": {
            "group": "db", "maxUses": 2, "secretHash": hex::encode(Sha256::digest(secret)),
            "sourceCIDRs": [format!("{source}/24"), "2001:db8::/32"],
        },
    });
    world.server()?.apply(&object.to_string())?;
    let text = token::encode(&proto::v1::JoinToken {
        id: "shop/rack-7".to_owned(),
        secret: secret.to_vec(),
        ..known
    });
    let host = world.host("db-2")?;
    wait_ok("the token to be known", PATIENCE, || host.try_join(text.expose_secret())?.ok().map(drop))?;
    host.wait_enforcing()?;
    let server = world.server()?;
    let status = wait_ok("the use to be counted", PATIENCE, || {
        let token = server.get(VERSION, "JoinToken", "shop", "rack-7")?;
        let status = json::at(&token, &["status"]).clone();
        ensure!(json::number(&status, "usesLeft") == 1, "{token}");
        Ok(status)
    })?;
    ensure!(json::texts(&status, "usedBy") == ["db-2"], "{status}");
    // Deleting it ends it, and nothing of it can be changed.
    let changed = |field: &str, value: Value| {
        let mut other = object.clone();
        other["spec"][field] = value;
        server.apply(&other.to_string()).map_or_else(|error| format!("{error:#}"), |_| String::new())
    };
    for (field, value, words) in [
        ("secretHash", json!("0".repeat(64)), "the secret cannot be changed"),
        ("maxUses", json!(9), "maxUses cannot be changed"),
        ("group", json!("web"), "the group cannot be changed"),
        ("ttl", json!("9d"), "the time cannot be changed"),
        ("sourceCIDRs", json!([]), "sourceCIDRs cannot be changed"),
        ("ephemeral", json!(true), "ephemeral cannot be changed"),
        ("replaces", json!({"workload": "db-1"}), "replaces cannot be changed"),
        ("notAfter", json!("2040-01-01T00:00:00Z"), "notAfter cannot be changed"),
    ] {
        let refused = changed(field, value);
        ensure!(refused.contains(words), "{field}: {refused:?}");
    }
    ensure!(changed("revoked", json!(true)).is_empty(), "{}", changed("revoked", json!(true)));
    ensure!(changed("revoked", json!(false)).contains("stays revoked"));
    let third = world.host("db-3")?;
    wait_ok("the token to be revoked", PATIENCE, || {
        third.try_join(text.expose_secret())?.refused_with(&["was revoked"]).map(drop)
    })?;
    let server = world.server()?;
    server.delete(VERSION, "JoinToken", "shop", "rack-7")?;
    wait_ok("the token to be gone", PATIENCE, || {
        third.try_join(text.expose_secret())?.refused_with(&["not known"]).map(drop)
    })
}

#[test]
fn what_is_recorded_of_a_host_is_nobody_elses_to_change() -> Result<()> {
    let mut world = World::try_new()?;
    let object = backed_up(&world.workload()?);
    let server = world.server()?;
    let said = |change: &dyn Fn(&mut Value)| {
        let mut other = object.clone();
        change(&mut other["spec"]);
        server.apply(&other.to_string()).map_or_else(|error| format!("{error:#}"), |_| String::new())
    };
    let refused = said(&|spec| spec["recorded"]["keyHash"] = json!("1".repeat(64)));
    ensure!(refused.contains("make a token that replaces it"), "{refused}");
    let refused = said(&|spec| drop(spec.as_object_mut().and_then(|spec| spec.remove("recorded"))));
    ensure!(refused.contains("delete the object to revoke it"), "{refused}");
    let refused = said(&|spec| spec["addresses"] = json!(["10.244.240.99"]));
    ensure!(refused.contains("addresses cannot be changed"), "{refused}");
    let taken = said(&|spec| spec["nicMode"] = json!("enforce"));
    ensure!(taken.is_empty(), "what is the administrator's stays theirs: {taken}");
    Ok(())
}

#[test]
fn without_an_api_server_nobody_joins_and_who_joined_goes_on() -> Result<()> {
    let mut world = World::try_new()?;
    let token = world.cluster.gateway.token("shop/db", &[])?;
    let host = world.host("db-2")?;
    world.server()?.kill()?;
    host.try_join(&token.text)?.refused_with(&["the cluster's API took no change"])?;
    world.restart_agent().context("the session needs no API server")?;
    world.server()?.launch()?;
    if world.server()?.is_double() {
        // One that takes what it is sent and does not answer holds nobody up for long.
        world.server()?.control("latency?ms=60000")?;
        // The host asks again and again, for longer than commands of tests may take.
        let _unjoined = host.try_join(&token.text);
        let audit = world.cluster.gateway.audit()?;
        let reasons = ["no answer within", "could not be renewed"];
        let is_told =
            |event: &Value| reasons.iter().any(|reason| json::text(event, "detail").contains(reason));
        ensure!(audit.iter().any(is_told), "{audit:#?}");
        ensure!(json::flag(&world.db.status()?, "connected"), "the session needs no API server");
        world.server()?.control("latency?ms=0")?;
    }
    // Its agent may have joined meanwhile, although nobody waited for it.
    wait_ok("the host to join", PATIENCE, || {
        let _joined = host.try_join(&token.text)?;
        host.wait_enforcing().map(drop)
    })
}

#[test]
fn a_right_that_is_missing_is_named_to_who_joins() -> Result<()> {
    let mut world = World::try_new()?;
    let token = world.cluster.gateway.token("shop/db", &[])?;
    world.server()?.delete("rbac.authorization.k8s.io/v1", "ClusterRoleBinding", "", USER)?;
    let host = world.host("db-2")?;
    host.try_join(&token.text)?.refused_with(&["cannot get resource", "externalworkloads", "shop"])?;
    Ok(())
}

#[test]
fn what_is_declared_for_a_host_waits_for_it() -> Result<()> {
    let mut world = World::try_new()?;
    let [first, _] = world.db.addresses()?;
    let IpAddr::V4(first) = first else { bail!("IPv4 comes first: {first}") };
    let next = IpAddr::V4((u32::from(first) + 1).into());
    let declared = json!({"apiVersion": VERSION, "kind": "ExternalWorkload",
        "metadata": {"name": "later", "namespace": "shop"},
        "spec": {"group": "db", "addresses": [next.to_string()]}});
    world.server()?.apply(&declared.to_string())?;
    wait_ok("the gateway to know of it", PATIENCE, || {
        let object = world.server()?.get(VERSION, "ExternalWorkload", "shop", "later")?;
        ensure!(object.to_string().contains("NotJoined"), "{object:#}");
        Ok(())
    })?;
    let other = world.cluster.member("db", "other")?;
    ensure!(!other.addresses()?.contains(&next), "{next} was declared for another host");
    let later = world.cluster.member("db", "later")?;
    ensure!(later.addresses()?.contains(&next), "{next} was declared for this one");
    Ok(())
}
