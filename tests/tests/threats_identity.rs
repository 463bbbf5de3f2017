//! Threats to identity: who is who. Rows 9, 10 and 14 to 16 of the catalogue in `docs/security.md`.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use e2e::agent::Agent;
use e2e::cluster::{allow_ingress, pod_manifest};
use e2e::compiler::{self, Compiler, endpoint};
use e2e::forgery::{COUNT, Forgery, families, identity_at, identity_of, refused, sink};
use e2e::host::Host;
use e2e::json;
use e2e::shared::Shared;
use e2e::shop::{Shop, pings};
use e2e::traffic::udp::SinkReport;
use e2e::wait::wait_ok;
use nix::sys::signal::Signal;
use policy::identity::Identity;
use policy::labels::{Labels, Placement};
use prost::Message as _;
use proto::v1;

static SHOP: Shared<Shop> = Shared::new();

const PATIENCE: Duration = Duration::from_secs(10);

fn forgery(from: &Host, vni: u64, source: IpAddr, destination: IpAddr) -> Forgery<'_> {
    Forgery { from, vni, source, destination, flow: 7, inner: "udp", more: "" }
}

#[test]
fn threat_09_unknown_outer() {
    SHOP.test(|shop| {
        let attacker = shop.cluster.net.host("attacker")?;
        for [db, batch, api, _] in families(shop)? {
            for inner in ["udp", "syn", "ack", "echo"] {
                for source in [api, batch] {
                    let forgery =
                        Forgery { inner, ..forgery(&attacker, identity_of(shop, source)?, source, db) };
                    refused(shop, &forgery, "spoofed")?;
                }
            }
        }
        Ok(())
    });
}

#[test]
fn threat_09_foreign_identity() {
    SHOP.test(|shop| {
        for [db, batch, api, web] in families(shop)? {
            let vni = identity_of(shop, api)?;
            refused(shop, &forgery(shop.cluster.node.host(), vni, web, db), "spoofed")?;
            refused(shop, &forgery(&shop.batch.host, vni, batch, db), "spoofed")?;
        }
        Ok(())
    });
}

#[test]
fn threat_09_reserved_vni() {
    SHOP.test(|shop| {
        for [db, _, api, _] in families(shop)? {
            // None, the host, the world, a remote node, the API server, and the last reserved one.
            for vni in [0, 1, 2, 6, 7, 255, 0x00ff_ffff] {
                refused(shop, &forgery(shop.cluster.node.host(), vni, api, db), "spoofed")?;
            }
        }
        Ok(())
    });
}

#[test]
fn threat_09_header_without_vni() {
    SHOP.test(|shop| {
        let mut sink = sink(shop)?;
        let before = shop.db.counted("new_allowed")?;
        for [db, _, api, _] in families(shop)? {
            let vni = identity_of(shop, api)?;
            for flags in ["--flags 0", "--flags 1", "--flags 247"] {
                Forgery { more: flags, ..forgery(shop.cluster.node.host(), vni, api, db) }.send(shop)?;
            }
            // What is well formed still arrives, after all of it.
            let flow = if db.is_ipv4() { 4 } else { 6 };
            Forgery { flow, ..forgery(shop.cluster.node.host(), vni, api, db) }.send(shop)?;
        }
        let received: SinkReport = sink.finish()?;
        ensure!(received.flow(7).received == 0, "delivered: {received:?}");
        let last = (received.flow(4).received, received.flow(6).received);
        ensure!(last == (COUNT, COUNT), "the last ones are missing: {received:?}");
        ensure!(shop.db.counted("new_allowed")? == before + 2, "more flows than the two of the control");
        Ok(())
    });
}

#[test]
fn threat_10_identities_are_never_cut() -> Result<()> {
    let valid = [1, 255, 256, 65_535, 65_536, 0x00ff_fffe, 0x00ff_ffff];
    // Each is an alias of a valid one in 24 bits: of none, host, a pod.
    let invalid = [0, 1 << 24, 0x0100_0001, 0x0100_0100, 0x0100_0000 | 65_536, 0xff00_0006, u32::MAX];
    let wire = |number| v1::Endpoint {
        address: vec![10, 0, 0, 1],
        identity: number,
        previous: 0,
        mark: number,
        tunnels: vec![vec![192, 0, 2, 1]],
        kind: Some(v1::endpoint::Kind::Workload(v1::WorkloadKind {})),
    };
    let applied = |endpoint: v1::Endpoint| {
        let set = v1::ResourceSet { endpoints: vec![endpoint], ..v1::ResourceSet::default() };
        proto::node::Node::default().apply(&[set.encode_to_vec()])
    };
    for number in valid {
        ensure!(Identity::try_new(number).is_ok_and(|identity| identity.get() == number), "{number}");
        ensure!(applied(wire(number)).is_ok(), "{number} is refused on the wire");
    }
    for number in invalid {
        ensure!(Identity::try_new(number).is_err(), "{number} became an identity");
        ensure!(applied(wire(number)).is_err(), "{number} came over the wire");
        let aliased = number & 0x00ff_ffff;
        for endpoint in [
            v1::Endpoint { previous: number, ..wire(300) },
            v1::Endpoint { mark: number, previous: aliased, ..wire(300) },
        ] {
            let accepted = applied(endpoint).is_ok();
            ensure!(!accepted || number == 0, "{number} came as previous or mark");
        }
    }
    Ok(())
}

#[test]
fn threat_10_numbers_of_the_last_cluster_fit() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let pools = gateway::store::Pools::try_new(&["10.9.0.0/24".parse()?])?;
    let settings = gateway::store::Settings { pools, cluster_id: 255, quarantine: Duration::from_mins(1) };
    let store = gateway::store::Store::open(folder.path(), settings)?;
    let labels = (0..2000).map(|number| format!("k8s:app=a{number};")).collect();
    let numbers = store.assign_identities(&labels, gateway::store::unix_time(0))?;
    let distinct: BTreeSet<_> = numbers.values().collect();
    ensure!(distinct.len() == 2000, "{} numbers for 2000 label sets", distinct.len());
    ensure!(numbers.values().all(|number| number.get() >> 16 == 255), "a number of another cluster");
    Ok(())
}

#[test]
fn threat_14_a_reused_address_is_somebody_else() {
    SHOP.test(|shop| {
        ensure!(pings(&shop.api, shop.db.addresses()?[0], 56)?, "api does not reach db-1 to begin with");
        let before = shop.db.counted("spoofed")?;
        let old = identity_of(shop, shop.api.v4().into())?;
        // The agent hears nothing of what comes.
        shop.db.agent.process()?.signal(Signal::SIGSTOP)?;
        let intruder = pod_manifest(&shop.api, &[("app", "intruder")]).replace("name: api", "name: intruder");
        shop.cluster.gateway.apply("pod-api.yaml", &intruder)?;
        wait_ok("the node to know the new pod", PATIENCE, || {
            let now = identity_at(&shop.cluster.transit, shop.api.v4().into())?;
            ensure!(now != old, "the node still knows the old pod");
            Ok(())
        })?;
        for to in shop.db.addresses()? {
            ensure!(!pings(&shop.api, to, 56)?, "the new pod has the access of the old one");
        }
        shop.db.agent.process()?.signal(Signal::SIGCONT)?;
        ensure!(
            shop.db.counted("spoofed")? >= before + 2,
            "dropped for another reason: {:#}",
            shop.db.status()?
        );
        let denied = shop.db.counted("policy_denied")?;
        for to in shop.db.addresses()? {
            wait_ok("policy to know the new pod", PATIENCE, || {
                ensure!(!pings(&shop.api, to, 56)?, "the new pod is let in");
                ensure!(shop.db.counted("policy_denied")? > denied, "not by policy: {:#}", shop.db.status()?);
                Ok(())
            })?;
        }
        shop.cluster.publish("pod-api.yaml", &pod_manifest(&shop.api, &[("app", "api")]))
    });
}

#[test]
fn threat_14_a_lease_ends_without_its_receivers() -> Result<()> {
    let mut index = Compiler::try_new()?;
    index.put(&compiler::pod("a", "{app: one}", "n1", "10.1.0.1"))?;
    let one = endpoint(&index.publish()?, "10.1.0.1")?.identity;
    index.put(&compiler::pod("a", "{app: two}", "n1", "10.1.0.1"))?;
    let compiled = index.publish()?;
    let leased = endpoint(&compiled, "10.1.0.1")?;
    ensure!(leased.identity != one && leased.mark == one, "the lease begins: {leased:?}");
    for _ in 0..2 {
        ensure!(index.silence(gateway::index::LONGEST_PHASE), "the lease goes on");
        index.publish()?;
    }
    let compiled = index.compile()?;
    let ended = endpoint(&compiled, "10.1.0.1")?;
    ensure!(ended.mark == ended.identity && ended.previous.is_none(), "the lease goes on: {ended:?}");
    Ok(())
}

#[test]
fn threat_14_another_owner_inherits_no_lease() -> Result<()> {
    let mut index = Compiler::try_new()?;
    index.put(&compiler::pod("a", "{app: one}", "n1", "10.1.0.1"))?;
    index.publish()?;
    index.delete(gateway::manifest::Kind::Pod, "a");
    index.put(&compiler::pod("b", "{app: two}", "n1", "10.1.0.1"))?;
    let compiled = index.publish()?;
    let reused = endpoint(&compiled, "10.1.0.1")?;
    ensure!(reused.mark == reused.identity && reused.previous.is_none(), "{reused:?}");
    Ok(())
}

#[test]
fn threat_14_numbers_and_addresses_rest() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let pools = gateway::store::Pools::try_new(&["10.9.0.0/29".parse()?])?;
    let quarantine = Duration::from_hours(1);
    let settings = gateway::store::Settings { pools, cluster_id: 0, quarantine };
    let store = gateway::store::Store::open(folder.path(), settings)?;
    let assign = |labels: &str, at: u64| -> Result<u32> {
        let asked = BTreeSet::from([labels.to_owned()]);
        let numbers = store.assign_identities(&asked, gateway::store::unix_time(at))?;
        numbers.get(labels).map(|number| number.get()).context("no number")
    };
    let old = assign("k8s:app=old;", 0)?;
    for (app, at) in [("a", 1), ("b", 1800), ("c", 3600)] {
        ensure!(assign(&format!("k8s:app={app};"), at)? != old, "the number {old} means {app} after {at} s");
    }
    Ok(())
}

#[test]
fn threat_15_nothing_a_host_says_is_a_label() {
    SHOP.test(|shop| {
        // An object that the host's owner may write, and names that the host itself gives. The policy makes it be read.
        let declared = "---\napiVersion: outrigger.dev/v1alpha1\nkind: ExternalWorkload\nmetadata:\n  namespace: shop\n  \
             name: db-9\n  labels:\n    app: api\n    team: admin\nspec:\n  group: db\n";
        let policy = allow_ingress("declared", "db", &["nobody"], None);
        shop.cluster.publish("declared.yaml", &(policy + declared))?;
        let agent = Agent::start_with(
            &shop.cluster.net.host("db-9")?,
            "hostname: \"x;k8s:app=api;k8s:io.kubernetes.pod.namespace=kube-system\"\n",
        )?;
        let token = shop.cluster.gateway.token("shop/db", &[])?;
        let answer = agent.try_join(&token.text)?;
        ensure!(!answer.succeeded(), "that host name was taken: {answer}");
        for name in ["db-9;k8s:app=api", "../../db", "DB", "shop/db-9", "db-9\nx"] {
            let answer = agent.command_with(&["join", "--token-stdin", "--name", name], &token.text)?;
            ensure!(!answer.succeeded(), "the name {name:?} was taken: {answer}");
        }
        agent.command_with(&["join", "--token-stdin", "--name", "db-9"], &token.text)?.ok()?;
        let status = agent.wait_enforcing()?;
        ensure!(json::number(&status, "identity") == shop.db.identity()?, "another identity: {status:#}");
        let labels = json::text(&status, "labels").to_owned();
        ensure!(labels.contains("app=db") && !labels.contains("api") && !labels.contains("admin"), "{labels}");
        agent.command(&["leave"])?.ok()?;
        shop.cluster.gateway.remove("declared.yaml")
    });
}

#[test]
fn threat_16_reserved_keys_are_refused() -> Result<()> {
    let reserved = [
        "io.kubernetes.pod.namespace",
        "io.kubernetes",
        "io.kubernetes/x",
        "IO.Kubernetes.Pod.Namespace",
        "io.cilium.k8s.policy.serviceaccount",
        "io.cilium.k8s.policy.cluster",
        "io.cilium.k8s.namespace.labels.team",
        "io.cilium.k8s.namespace.labels.kubernetes.io/metadata.name",
        "io.cilium/x",
        "k8s:io.kubernetes.pod.namespace",
        "reserved:host",
        "reserved:remote-node",
        "a;k8s:io.kubernetes.pod.namespace",
    ];
    for key in reserved {
        let quoted = format!("{{\"{key}\": kube-system}}");
        let namespace =
            format!("{{apiVersion: v1, kind: Namespace, metadata: {{name: shop, labels: {quoted}}}}}");
        for yaml in [compiler::pod("a", &quoted, "n1", "10.1.0.1"), compiler::group("db", &quoted), namespace]
        {
            let refused = compiler::read(&yaml)?.into_iter().all(|manifest| manifest.object.is_err());
            ensure!(refused, "{key} was taken: {yaml}");
        }
    }
    for value in ["x;k8s:app=api", "a=b", "a b", "é"] {
        let quoted = format!("{{app: \"{value}\"}}");
        for yaml in [compiler::pod("a", &quoted, "n1", "10.1.0.1"), compiler::group("db", &quoted)] {
            let refused = compiler::read(&yaml)?.into_iter().all(|manifest| manifest.object.is_err());
            ensure!(refused, "{value} was taken: {yaml}");
        }
    }
    Ok(())
}

#[test]
fn threat_16_no_label_replaces_a_placement() -> Result<()> {
    // What refuses such keys may have a gap; the labels of the placement win even then.
    let given = |key: &str| BTreeMap::from([(key.to_owned(), "kube-system".to_owned())]);
    let none = BTreeMap::new();
    let placement = Placement {
        namespace: "shop",
        namespace_labels: &none,
        service_account: "default",
        cluster: "default",
    };
    let honest = Labels::of_workload(&none, placement);
    for key in [
        "io.kubernetes.pod.namespace",
        "io.cilium.k8s.policy.serviceaccount",
        "io.cilium.k8s.policy.cluster",
        "io.cilium.k8s.namespace.labels.kubernetes.io/metadata.name",
    ] {
        ensure!(Labels::of_workload(&given(key), placement) == honest, "{key} of a group");
        ensure!(Labels::of_pod(&given(key), placement) == honest, "{key} of a pod");
    }
    let named = given("kubernetes.io/metadata.name");
    let renamed = Labels::of_pod(&none, Placement { namespace_labels: &named, ..placement });
    ensure!(renamed == honest, "a namespace took another name: {renamed}");
    Ok(())
}
