//! What the gateway itself has to say: about its configuration, what it may do, and what it is to the Service.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::path::Path;

use e2e::gateway::objects::{NODE_RIGHTS, OWN_NODE_RIGHTS, OWN_RIGHTS, RIGHTS, STATE_RIGHTS};
use e2e::json;
use gateway::config::{Config, Options, Source, State};
use serde_json::Value;

use super::rendered::{Rendered, gateway_yaml, name, object, of_companions, of_kind};

fn config(text: &str) -> Result<Config, String> {
    let path = Path::new("gateway.yaml");
    let options: Options = config::parse(path, text).map_err(|error| error.to_string())?;
    Config::from_options(options, path).map_err(|error| error.to_string())
}

#[test]
#[ignore = "`cargo xtask ci chart` renders what this reads"]
fn it_accepts_its_configuration() {
    let all = Rendered::read();
    for case in all.accepted() {
        let text = gateway_yaml(case);
        let config = config(text).unwrap_or_else(|error| panic!("{error}\n{text}"));
        assert!(matches!(config.source, Source::Kubernetes(_)), "{text}");
        let State::Kubernetes { namespace, replicas } = &config.state else { panic!("{:?}", config.state) };
        assert_eq!((namespace.as_deref(), replicas.address), (Some("mesh"), None));
    }
    let config = config(gateway_yaml(&all.answer["base"])).unwrap();
    let defaults = Config::from_options(
        Options {
            workload_pools: Some(config::List(config.workload_pools.prefixes())),
            ..Options::default()
        },
        Path::new(""),
    )
    .unwrap();
    let Config { source: _, state: _, metrics_listen: _, log_format: _, .. } = &config;
    // Where the chart shows a default, it is the gateway's.
    let expected = Config {
        source: config.source.clone(),
        state: config.state.clone(),
        metrics_listen: config.metrics_listen,
        log_format: config.log_format,
        ..defaults
    };
    assert_eq!(config, expected);
}

#[test]
#[ignore = "`cargo xtask ci chart` renders what this reads"]
fn every_key_is_a_value_or_the_charts_own() {
    let answer = Rendered::read().answer;
    let unknown = config("nothing: 1").unwrap_err();
    let (_, list) = unknown.split_once("expected one of ").expect("the keys that there are");
    let known: BTreeSet<&str> = list.split(", ").collect();
    assert!(known.contains("workloadPools"), "{unknown}");
    let values = answer["schema"]["properties"]["config"]["properties"].as_object().unwrap();
    let values: BTreeSet<&str> = values.keys().map(String::as_str).collect();
    let own = BTreeSet::from([
        "source",
        "state",
        "namespace",
        "stateDir",
        "listen",
        "replicaListen",
        "replicaAddress",
        "transitAccount",
        "nodeAccount",
        "nodeGateways",
        "metricsListen",
        "adminSocket",
        "auditLog",
        "kubeconfig",
        "manifests",
    ]);
    assert_eq!(values.union(&own).copied().collect::<BTreeSet<_>>(), known);
}

#[test]
#[ignore = "`cargo xtask ci chart` renders what this reads"]
fn it_may_do_what_the_tests_let_it_do_and_nothing_else() {
    let all = Rendered::read();
    let watched = RIGHTS.iter().map(|(group, resources)| rights(group, resources, &["list", "watch"], ""));
    let kept = STATE_RIGHTS.iter().map(|(group, resources, verbs)| rights(group, resources, verbs, ""));
    let expected: BTreeSet<Right> = watched.chain(kept).flatten().collect();
    let role = object(&all.answer["base"], "ClusterRole/mesh-gw-outrigger");
    assert_eq!(granted(role), expected);
    // Of the Secrets, two: only making it cannot be limited to its name.
    let name = |resource: &str, verb: &str| {
        if resource == "secrets" && verb != "create" { "outrigger-roots,outrigger-replicas" } else { "" }
    };
    let own = OWN_RIGHTS.iter().flat_map(|(group, resources, verbs)| {
        resources.iter().flat_map(move |resource| {
            verbs.iter().flat_map(move |verb| rights(group, &[resource], &[verb], name(resource, verb)))
        })
    });
    let own: BTreeSet<Right> = own.collect();
    let role = object(&all.answer["base"], "Role/gw-outrigger");
    assert_eq!(granted(role), own);
    // Where nodes join by themselves.
    let nodes = NODE_RIGHTS.iter().flat_map(|(group, resources, verbs)| rights(group, resources, verbs, ""));
    let role = object(&all.answer["sets"]["transit"], "ClusterRole/mesh-gw-outrigger");
    assert_eq!(granted(role), expected.into_iter().chain(nodes).collect());
    let name = |verb: &str| if verb == "create" { "" } else { "outrigger-bootstrap" };
    let nodes = OWN_NODE_RIGHTS.iter().flat_map(|(group, resources, verbs)| {
        verbs.iter().flat_map(move |verb| rights(group, resources, &[verb], name(verb)))
    });
    let role = object(&all.answer["sets"]["transit"], "Role/gw-outrigger");
    assert_eq!(granted(role), own.into_iter().chain(nodes).collect());
}

#[test]
#[ignore = "`cargo xtask ci chart` renders what this reads"]
fn people_have_roles_of_the_kinds_that_are_theirs() {
    let all = Rendered::read();
    let plurals: Vec<String> = crds::definitions().into_iter().map(|kind| kind.spec.names.plural).collect();
    // What is the gateway's own is nobody's business.
    let theirs: Vec<&str> =
        plurals.iter().map(String::as_str).filter(|&kind| kind != "meshrecords").collect();
    let look = ["get", "list", "watch"];
    let change = [&look[..], &["create", "update", "patch", "delete"]].concat();
    for (name, verbs) in [("view", &look[..]), ("admin", &change)] {
        let role = object(&all.answer["base"], &format!("ClusterRole/mesh-gw-outrigger-{name}")).clone();
        assert_eq!(
            granted(&role),
            rights("outrigger.dev", &theirs, verbs, "").into_iter().collect(),
            "{name}"
        );
    }
}

/// API group, resource, verb, and the only names that it is for.
pub(crate) type Right = [String; 4];

pub(crate) fn rights(group: &str, resources: &[&str], verbs: &[&str], name: &str) -> Vec<Right> {
    let each = resources.iter().flat_map(|resource| verbs.iter().map(move |verb| (resource, verb)));
    each.map(|(resource, verb)| [group, resource, verb, name].map(str::to_owned)).collect()
}

pub(crate) fn granted(role: &Value) -> BTreeSet<Right> {
    let mut all = BTreeSet::new();
    for rule in json::list(role, "rules") {
        let [groups, resources, verbs] =
            ["api_groups", "resources", "verbs"].map(|key| json::texts(rule, key));
        let names = json::texts(rule, "resourceNames").join(",");
        for group in &groups {
            let (resources, verbs): (Vec<&str>, Vec<&str>) =
                (resources.iter().map(String::as_str).collect(), verbs.iter().map(String::as_str).collect());
            all.extend(rights(group, &resources, &verbs, &names));
        }
    }
    all
}

#[test]
#[ignore = "`cargo xtask ci chart` renders what this reads"]
fn roles_are_bound_to_the_pods_account_and_aggregated_nowhere() {
    for case in Rendered::read().accepted() {
        let pod = &of_kind(case, "Deployment").next().unwrap()["spec"]["template"]["spec"];
        for binding in of_kind(case, "ClusterRoleBinding").chain(of_kind(case, "RoleBinding")) {
            assert_eq!(binding["subjects"][0]["name"], pod["serviceAccountName"], "{}", case["values"]);
            assert_eq!(binding["subjects"][0]["namespace"], "mesh");
            let [kind, name] = ["kind", "name"].map(|key| json::text(&binding["roleRef"], key));
            assert_eq!(format!("{kind}Binding"), json::text(binding, "kind"));
            assert!(object(case, &format!("{kind}/{name}")).is_object(), "no {kind} {name}");
        }
        for role in of_kind(case, "ClusterRole").chain(of_companions(case, "ClusterRole")) {
            let text = role.to_string();
            assert!(!text.contains("rbac.authorization.k8s.io/aggregate-to-"), "{}", name(role));
            assert!(!text.contains("\"*\""), "{}: everything", name(role));
        }
        let accounts: Vec<_> = of_kind(case, "ServiceAccount").collect();
        assert_eq!(accounts.is_empty(), case["values"]["serviceAccount"]["create"] == false);
        for account in accounts {
            // Only the pod that asks for it has a token.
            assert_eq!(account["automountServiceAccountToken"], false);
            let mut pods = of_kind(case, "DaemonSet").map(|set| &set["spec"]["template"]["spec"]);
            let is_of = |pod: &Value| account["metadata"]["name"] == pod["serviceAccountName"];
            assert!(is_of(pod) || pods.any(is_of), "{}", case["values"]);
        }
    }
}

#[test]
#[ignore = "`cargo xtask ci chart` renders what this reads"]
fn probes_and_services_reach_where_it_listens() {
    for case in Rendered::read().accepted() {
        let config = config(gateway_yaml(case)).unwrap();
        let deployment = of_kind(case, "Deployment").next().unwrap();
        let container = &deployment["spec"]["template"]["spec"]["containers"][0];
        let ports: BTreeMap<&str, u64> = json::list(container, "ports")
            .iter()
            .map(|port| (json::text(port, "name"), json::number(port, "containerPort")))
            .collect();
        let at = |address: SocketAddr| u64::from(address.port());
        let State::Kubernetes { replicas, .. } = &config.state else { panic!("{:?}", config.state) };
        let (hosts, metrics) = (at(config.listen), at(config.metrics_listen));
        let wanted = [("hosts", hosts), ("replicas", at(replicas.listen)), ("metrics", metrics)];
        assert_eq!(ports, BTreeMap::from(wanted));
        assert!(config.listen.ip().is_unspecified() && config.metrics_listen.ip().is_unspecified());
        for (probe, path) in [("startup", "/healthz"), ("liveness", "/healthz"), ("readiness", "/readyz")] {
            let get = &container[format!("{probe}Probe")]["httpGet"];
            assert_eq!((json::text(get, "path"), json::text(get, "port")), (path, "metrics"), "{probe}");
        }
        let number = |probe: &str, key: &str| json::number(&container[format!("{probe}Probe")], key);
        let patience = number("startup", "periodSeconds") * number("startup", "failureThreshold");
        assert!(patience == 600 || case["values"]["startupSeconds"] == patience, "{}", case["values"]);
        // Three in a row, as Kubernetes has it: a minute without an answer, not a busy moment.
        assert!(number("liveness", "periodSeconds") >= 20 && number("liveness", "timeoutSeconds") >= 5);
        assert!(number("readiness", "timeoutSeconds") >= 5 && number("readiness", "periodSeconds") <= 5);
        for service in of_kind(case, "Service") {
            let [port] = json::list(&service["spec"], "ports") else { panic!("{service}") };
            let wanted = if name(service).ends_with("-metrics") { "metrics" } else { "hosts" };
            assert_eq!(json::text(port, "targetPort"), wanted, "{}", name(service));
            // Metrics have no address of their own, least of all one outside of the cluster.
            let is_headless =
                service["spec"]["type"] == "ClusterIP" && service["spec"]["clusterIP"] == "None";
            assert_eq!(is_headless, wanted == "metrics", "{}", name(service));
        }
    }
}

#[test]
#[ignore = "`cargo xtask ci chart` renders what this reads"]
fn its_folders_are_writable_and_its_configuration_is_where_it_looks() {
    for case in Rendered::read().accepted() {
        let config = config(gateway_yaml(case)).unwrap();
        let pod = &of_kind(case, "Deployment").next().unwrap()["spec"]["template"]["spec"];
        let container = &pod["containers"][0];
        let mounts: BTreeMap<&str, &str> = json::list(container, "volume_mounts")
            .iter()
            .map(|mount| (json::text(mount, "mountPath"), json::text(mount, "name")))
            .collect();
        let volume = |path: &Path| -> Value {
            let wanted = mounts.get(path.to_str().unwrap()).unwrap_or_else(|| panic!("{path:?}: {mounts:?}"));
            let mut all = json::list(pod, "volumes").iter();
            all.find(|volume| volume["name"] == **wanted).cloned().unwrap_or_else(|| panic!("no {wanted}"))
        };
        let mut all = json::list(container, "volume_mounts").iter();
        let of_config = all.find(|mount| mount["mountPath"] == "/etc/outrigger").expect("a configuration");
        assert_eq!(of_config["readOnly"], true);
        let state = volume(&config.state_dir);
        let lasts = case["values"]["persistence"]["enabled"] == true;
        assert_eq!(state["persistentVolumeClaim"].is_object(), lasts, "{state}");
        assert_eq!(state["emptyDir"].is_object(), !lasts, "{state}");
        assert!(volume(config.admin_socket.parent().unwrap())["emptyDir"].is_object());
        assert_eq!(config.audit_log.parent(), Some(config.state_dir.as_path()));
        let map = json::text(&volume(Path::new("/etc/outrigger"))["configMap"], "name").to_owned();
        assert!(object(case, &format!("ConfigMap/{map}"))["data"]["gateway.yaml"].is_string());
        assert_eq!(json::texts(container, "args"), ["serve", "--config", "/etc/outrigger/gateway.yaml"]);
    }
}
