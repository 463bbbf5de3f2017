//! The configuration file, flags and their errors.

use std::path::Path;
use std::time::Duration;

use clap::Parser as _;

use super::*;

#[derive(clap::Parser)]
struct Command {
    #[command(flatten)]
    arguments: Arguments,
}

const POOLS: &str = "workloadPools: [10.0.0.0/24, \"fd00::/112\"]\n";

fn load(text: &str, flags: &[&str]) -> Result<Config, InvalidConfig> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("gateway.yaml");
    std::fs::write(&path, text).unwrap();
    let path = path.display().to_string();
    let words = [&["gateway", "--config", &path], flags].concat();
    Config::load(Command::try_parse_from(words).unwrap().arguments)
}

fn refused(text: &str) -> String {
    load(text, &[]).unwrap_err().to_string()
}

#[test]
fn defaults_are_those_of_the_documentation() {
    let config = load(POOLS, &[]).unwrap();
    assert_eq!(config.listen.to_string(), "[::]:7443");
    assert_eq!(config.trust_domain.as_str(), "outrigger.local");
    assert_eq!(config.certificate_ttl, Duration::from_hours(24));
    assert_eq!(config.renew_grace, Duration::from_hours(90 * 24));
    assert_eq!(config.audit_log, Path::new("/var/lib/outrigger-gateway/audit.log"));
    assert_eq!(config.tunnel_port, 8479);
    assert_eq!((config.max_connections, config.max_connections_per_source), (16_384, 64));
    assert_eq!((config.endpoint_lease, config.endpoint_stale_share), (Duration::from_mins(5), 50));
    assert!(config.advertise.is_empty());
}

#[test]
fn every_key_of_the_file_is_read() {
    let config = load(
        "manifests: /m\nstateDir: /s\nlisten: 192.0.2.1:7000\nadvertise: [\"gw.example:7443\", \"[2001:db8::1]:7443\"]\n\
         trustDomain: example.org\nclusterName: east\nclusterId: 7\nworkloadPools: [10.0.0.0/24]\n\
         podPrefixes: [10.1.0.0/16]\ntunnelPort: 4789\ncertificateTtl: 6s\nrenewGrace: 2d\nadminSocket: /a.sock\n\
         metricsListen: 127.0.0.1:1\nendpointLease: 1m\nendpointStaleShare: 25\nmaxConnections: 9\nmaxConnectionsPerSource: 0\nproxies: [192.0.2.0/28]\nauditLog: /audit\nlogFormat: json\nlogLevel: debug\n",
        &[],
    )
    .unwrap();
    assert_eq!(config.source, Source::Files("/m".into()));
    assert_eq!(config.state_dir, Path::new("/s"));
    assert_eq!(config.advertise, ["gw.example:7443", "[2001:db8::1]:7443"]);
    assert_eq!((config.cluster_name.as_str(), config.cluster_id), ("east", 7));
    assert_eq!(config.pod_prefixes, ["10.1.0.0/16".parse().unwrap()]);
    assert_eq!(config.tunnel_port, 4789);
    assert_eq!((config.max_connections, config.max_connections_per_source), (9, 0));
    assert_eq!((config.endpoint_lease, config.endpoint_stale_share), (Duration::from_mins(1), 25));
    assert_eq!(config.certificate_ttl, Duration::from_secs(6));
    assert_eq!(config.renew_grace, Duration::from_hours(48));
    assert_eq!(config.admin_socket, Path::new("/a.sock"));
    assert_eq!(config.metrics_listen.to_string(), "127.0.0.1:1");
    assert_eq!(config.audit_log, Path::new("/audit"));
    assert_eq!(config.log_format, LogFormat::Json);
    assert_eq!(config.log_level, "debug");
}

#[test]
fn a_flag_wins_over_the_file() {
    let config =
        load(POOLS, &["--workload-pools", "10.9.0.0/24,fd09::/112", "--listen", "192.0.2.1:1"]).unwrap();
    assert_eq!(config.workload_pools.prefixes()[0].to_string(), "10.9.0.0/24");
    assert_eq!(config.advertise, ["192.0.2.1:1"]);
}

#[test]
fn an_unknown_key_is_refused_with_its_position() {
    let text = refused(&format!("{POOLS}workloadPool: []\n"));
    assert!(text.contains("gateway.yaml:2:") && text.contains("workloadPool"), "{text}");
}

#[test]
fn an_invalid_value_names_file_key_and_value() {
    for (text, key, value) in [
        ("listen: nowhere\n", "listen", "nowhere"),
        ("workloadPools:\n  - 10.0.0.0/24\n  - 10.0.0.0/33\n", "workloadPools", "10.0.0.0/33"),
        ("certificateTtl: long\n", "certificateTtl", "long"),
        ("renewGrace: 1month\n", "renewGrace", "1month"),
        ("clusterId: 256\n", "clusterId", "256"),
        ("advertise: [\"::1:7443\"]\n", "advertise", "::1:7443"),
        ("trustDomain: Example\n", "trustDomain", "Example"),
        ("logFormat: xml\n", "logFormat", "xml"),
    ] {
        let said = refused(text);
        assert!(
            said.contains("gateway.yaml:") && said.contains(key) && said.contains(value),
            "{text}: {said}"
        );
    }
}

#[test]
fn values_that_do_not_fit_together_are_refused() {
    assert!(refused("").contains("workloadPools"));
    assert!(refused("workloadPools: [10.0.0.0/24]\npodPrefixes: [10.0.0.0/8]\n").contains("podPrefixes"));
    let host_bits = refused(&format!("{POOLS}podPrefixes: [10.1.2.3/16]\n"));
    assert!(host_bits.contains("podPrefixes") && host_bits.contains("10.1.2.3/16"), "{host_bits}");
    assert!(refused(&format!("{POOLS}certificateTtl: 25h\n")).contains("certificateTtl"));
    assert!(refused(&format!("{POOLS}certificateTtl: 0s\n")).contains("certificateTtl"));
    assert!(refused(&format!("{POOLS}certificateTtl: 900ms\n")).contains("certificateTtl"));
    assert!(refused(&format!("{POOLS}clusterName: A\n")).contains("clusterName"));
    assert!(refused(&format!("{POOLS}tunnelPort: 0\n")).contains("tunnelPort"));
}

#[test]
fn a_file_that_is_named_must_exist() {
    let arguments =
        Arguments { config: Some("/nonexistent/gateway.yaml".into()), options: Options::default() };
    assert!(Config::load(arguments).unwrap_err().to_string().contains("/nonexistent/gateway.yaml"));
}

#[test]
fn a_key_of_another_source_is_refused() {
    let load = |text: &str| load(&format!("{POOLS}{text}"), &[]);
    let cluster = |kubeconfig| Source::Kubernetes(cluster::Settings { kubeconfig });
    let config = load("source: kubernetes\nkubeconfig: /k\n").unwrap();
    assert_eq!(config.source, cluster(Some("/k".into())));
    assert_eq!(load("source: kubernetes\n").unwrap().source, cluster(None));
    for (text, wanted) in [
        ("source: kubernetes\nmanifests: /m\n", "manifests: means nothing with the source kubernetes"),
        ("kubeconfig: /k\n", "kubeconfig: means nothing with the source files"),
        ("state: kubernetes\n", "state: `kubernetes` needs the source kubernetes"),
        ("namespace: mesh\n", "namespace: means nothing with the state in a folder"),
        ("replicaListen: \"0.0.0.0:7444\"\n", "replicaListen: means nothing with the state in a folder"),
        ("replicaAddress: \"192.0.2.1:7444\"\n", "replicaAddress: means nothing with the state in a folder"),
        (
            "source: kubernetes\nreplicaAddress: \"0.0.0.0:7444\"\n",
            "replicaAddress: is where others reach this gateway: one address",
        ),
        ("source: kubernetes\nnamespace: Mesh\n", "namespace: `Mesh` is no name of a namespace"),
        ("state: disk\n", "the state is in a `folder` or in `kubernetes`"),
        ("source: etcd\n", "`files` or `kubernetes`"),
    ] {
        let error = load(text).unwrap_err().to_string();
        assert!(error.contains(wanted), "{error}");
    }
}

#[test]
fn nodes_join_by_accounts_of_a_cluster_that_has_the_state() {
    let of = |more: &str| load(&format!("source: kubernetes\n{POOLS}{more}"), &[]);
    assert!(!of("").unwrap().nodes.is_on());
    let advertise = "advertise: [\"gw:7443\"]\n";
    let nodes =
        of(&format!("{advertise}transitAccount: mesh/transit\nnodeAccount: mesh/node\n")).unwrap().nodes;
    let text = |account: &Option<ServiceAccount>| account.as_ref().unwrap().to_string();
    assert_eq!(
        (text(&nodes.transit), text(&nodes.node)),
        ("mesh/transit".to_owned(), "mesh/node".to_owned())
    );
    assert_eq!(nodes.gateways, ["gw:7443"]);
    let nodes = of(&format!("{advertise}nodeAccount: mesh/node\nnodeGateways: [\"in:1\"]\n")).unwrap().nodes;
    assert_eq!((nodes.transit, nodes.gateways), (None, vec!["in:1".to_owned()]));
    for (more, words) in [
        ("transitAccount: transit\n", "namespace/name"),
        ("transitAccount: a/B\n", "namespace/name"),
        ("transitAccount: a/b\nnodeAccount: a/b\n", "nodeAccount: is `transitAccount` too"),
        ("nodeGateways: [\"in:1\"]\n", "nodeGateways: means nothing without"),
        ("state: folder\ntransitAccount: a/b\n", "transitAccount: means nothing with the state in a folder"),
    ] {
        let refused = of(more).unwrap_err().to_string();
        assert!(refused.contains(words), "{more}: {refused}");
    }
    let refused = refused(&format!("{POOLS}nodeAccount: a/b\n"));
    assert!(refused.contains("nodeAccount: means nothing with the state in a folder"), "{refused}");
}
