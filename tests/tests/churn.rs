//! Pods and hosts that come and go for long: no endpoint, identity, address or object of who left stays anywhere. A few by
//! default; with `OUTRIGGER_LONG` ten thousand pods of which a hundred change each second, and a thousand joins and leaves.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use e2e::agent::Agent;
use e2e::apiserver::fixture::ApiServer;
use e2e::cluster::{Cluster, allow_ingress};
use e2e::gateway::objects::NAMESPACE;
use e2e::json;
use e2e::long::rounds;
use e2e::wait::wait_ok;
use serde_json::Value;

const PATIENCE: Duration = Duration::from_mins(2);
const VERSION: &str = "outrigger.dev/v1alpha1";
/// Pods that change in a second.
const PACE: u32 = 100;

/// A pod: each that follows another at its place has its addresses and other labels.
fn pod(place: u32, turn: u32) -> String {
    format!(
        "apiVersion: v1\nkind: Pod\nmetadata: {{namespace: shop, name: p{place}-{turn}, labels: {{app: a{app}, turn: t{turn}}}}}\n\
         spec: {{nodeName: node-1, serviceAccountName: default}}\n\
         status: {{podIPs: [{{ip: 10.100.{}.{}}}, {{ip: \"fd00:100::5:{place:x}\"}}]}}\n",
        100 + place / 250,
        place % 250 + 1,
        app = place % 7,
    )
}

/// Addresses and identities of all endpoints that an agent knows.
fn endpoints(agent: &Agent) -> Result<BTreeSet<(String, u64)>> {
    let answer = agent.command(&["endpoint", "list", "-o", "json"])?.ok()?.json()?;
    let entries = json::list(&answer, "endpoints").iter();
    Ok(entries
        .map(|entry| (json::text(entry, "address").to_owned(), json::number(entry, "identity")))
        .collect())
}

/// Names of the objects of a kind.
fn objects(server: &ApiServer, kind: &str, namespace: &str) -> Result<BTreeSet<String>> {
    let objects = server.list(VERSION, kind, namespace)?;
    Ok(objects.iter().map(|object| json::text(json::at(object, &["metadata"]), "name").to_owned()).collect())
}

/// How many records the gateways keep in the cluster, by table.
fn records(server: &ApiServer) -> Result<BTreeMap<String, usize>> {
    let mut kept = BTreeMap::new();
    for record in server.list(VERSION, "MeshRecord", NAMESPACE)? {
        let spec = json::at(&record, &["spec"]);
        let entries = json::at(spec, &["entries"]).as_object().map_or(0, serde_json::Map::len);
        *kept.entry(json::text(spec, "table").to_owned()).or_default() += entries;
    }
    Ok(kept)
}

/// What a gateway counts.
fn counts(status: &Value) -> [u64; 2] {
    ["endpoints", "identities"].map(|key| json::number(status, key))
}

#[test]
fn pods_that_come_and_go_leave_nothing_on_hosts() -> Result<()> {
    let (mut cluster, db) = Cluster::of_api_with_host()?;
    cluster.publish("policy.yaml", &allow_ingress("db", "db", &["a3"], Some(5432)))?;
    let (alive, changes) = (rounds(200, 10_000), rounds(400, 20_000));
    let before = (endpoints(&db)?, counts(&cluster.gateway.status()?));
    let mut turns = vec![0; usize::try_from(alive)?];
    for place in 0..alive {
        cluster.server()?.apply(&pod(place, 0))?;
    }
    let started = Instant::now();
    for change in 0..changes {
        // A step of seven goes through all places and mixes the labels.
        let place = u32::try_from(u64::from(change) * 7 % u64::from(alive))?;
        let turn = &mut turns[usize::try_from(place)?];
        cluster.server()?.delete("v1", "Pod", "shop", &format!("p{place}-{turn}"))?;
        *turn += 1;
        cluster.server()?.apply(&pod(place, *turn))?;
        // The pace of what comes and goes.
        let due = Duration::from_secs(1) * (change + 1) / PACE;
        thread::sleep(due.saturating_sub(started.elapsed()));
    }
    println!("{changes} pods changed in {:?}", started.elapsed());
    wait_ok("the pods that are left", PATIENCE, || {
        let known: BTreeSet<_> = endpoints(&db)?.into_iter().map(|(address, _)| address).collect();
        let held: BTreeSet<_> = before.0.iter().map(|(address, _)| address.clone()).collect();
        let pods = known.difference(&held).count();
        ensure!(pods == 2 * usize::try_from(alive)?, "{pods} addresses of {alive} pods");
        Ok(())
    })?;
    for (place, turn) in turns.iter().enumerate() {
        cluster.server()?.delete("v1", "Pod", "shop", &format!("p{place}-{turn}"))?;
    }
    wait_ok("nothing of the pods to be left", PATIENCE, || {
        let after = (endpoints(&db)?, counts(&cluster.gateway.status()?));
        let more: Vec<_> = after.0.symmetric_difference(&before.0).collect();
        ensure!(more.is_empty() && after.1 == before.1, "{:?}, not {:?}: {more:?}", after.1, before.1);
        Ok(())
    })
}

#[test]
fn hosts_that_come_and_go_leave_nothing_in_the_cluster() -> Result<()> {
    let (mut cluster, db) = Cluster::of_api_with_host()?;
    let host = cluster.net.host("guest")?;
    let agent = Agent::start(&host)?;
    let before = (endpoints(&db)?, endpoints(&cluster.transit)?, counts(&cluster.gateway.status()?));
    let mut given: BTreeMap<IpAddr, u32> = BTreeMap::new();
    let names = rounds(3, 500);
    for name in 0..names {
        for turn in ["first", "second"] {
            let token = cluster.gateway.token("shop/db", &[])?;
            let words = ["join", "--token-stdin", "--name", &format!("guest-{name}")];
            agent.command_with(&words, &format!("{}\n", token.text))?.ok()?;
            agent.wait_enforcing()?;
            // Who comes back gets what rests for it, and nobody else does.
            for address in json::addresses(&agent.status()?, "mesh_addresses")? {
                let holder = given.insert(address, name);
                let is_own = if turn == "first" { holder.is_none() } else { holder == Some(name) };
                ensure!(is_own, "{address} of guest-{name}, for the {turn} time, was of {holder:?}");
            }
            agent.command(&["leave"])?.ok()?;
        }
    }
    wait_ok("nothing of the hosts to be left", PATIENCE, || {
        let after = (endpoints(&db)?, endpoints(&cluster.transit)?, counts(&cluster.gateway.status()?));
        ensure!(after == before, "{after:?}, not {before:?}");
        let workloads = objects(cluster.server()?, "ExternalWorkload", "shop")?;
        ensure!(workloads == BTreeSet::from(["db-1".to_owned()]), "{workloads:?}");
        Ok(())
    })?;
    // What is remembered of who left is that addresses rest and that keys are void, once each.
    let names = usize::try_from(names)?;
    let kept = records(cluster.server()?)?;
    let of = |table: &str| kept.get(table).copied().unwrap_or_default();
    ensure!(of("resting-addresses") == 2 * names && of("revoked-keys") <= 2 * names, "{kept:?}");
    ensure!(of("relabels") == 0, "{kept:?}");
    Ok(())
}
