//! Threats to Services with hosts behind them: row `service` of the catalogue in `docs/security.md`.

use std::time::Duration;

use anyhow::{Result, ensure};
use e2e::cluster::Cluster;
use e2e::json;
use e2e::wait::wait_ok;
use serde_json::{Value, json};

const PATIENCE: Duration = Duration::from_secs(30);

fn service(namespace: &str, name: &str) -> String {
    let annotations = json!({"outrigger.dev/external-workloads": "enabled"});
    let metadata = json!({"name": name, "namespace": namespace, "annotations": annotations});
    let spec = json!({"selector": {"app": "db"}, "ports": [{"port": 5432}]});
    json!({"apiVersion": "v1", "kind": "Service", "metadata": metadata, "spec": spec}).to_string()
}

#[test]
fn threat_service_hosts_of_another_namespace_are_not_behind_it() -> Result<()> {
    let mut cluster = Cluster::of_api()?;
    cluster.group("db")?;
    let db = cluster.member("db", "db-1")?;
    let server = cluster.server()?;
    server.apply("{apiVersion: v1, kind: Namespace, metadata: {name: bank}}")?;
    // Services are looked at by name: the thief's comes before the one that is waited for, and the other after it.
    for (namespace, name) in [("bank", "db"), ("shop", "db"), ("bank", "zz")] {
        server.apply(&service(namespace, name))?;
    }
    let slices = |namespace: &str| server.list("discovery.k8s.io/v1", "EndpointSlice", namespace);
    let addresses = |slices: &[Value]| -> Vec<String> {
        let endpoints = slices.iter().flat_map(|slice| json::list(slice, "endpoints"));
        endpoints.flat_map(|endpoint| json::texts(endpoint, "addresses")).collect()
    };
    let own = db.addresses()?.map(|address| address.to_string());
    wait_ok("the endpoints of the host's own namespace", PATIENCE, || {
        let found = addresses(&slices("shop")?);
        ensure!(own.iter().all(|address| found.contains(address)), "{found:?}");
        Ok(())
    })?;
    // One that is made now is looked at after all of these.
    server.apply(&service("shop", "later"))?;
    wait_ok("endpoints of a later Service", PATIENCE, || {
        ensure!(addresses(&slices("shop")?).len() == 4);
        Ok(())
    })?;
    let stolen = slices("bank")?;
    ensure!(stolen.is_empty(), "{stolen:#?}");
    Ok(())
}
