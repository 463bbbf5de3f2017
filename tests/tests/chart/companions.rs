//! The process that keeps companions: that it is off, has an account of its own, and writes where it may and nowhere else.

use std::collections::BTreeSet;
use std::path::Path;

use e2e::gateway::objects::{COMPANION_RIGHTS, COMPANION_WRITES};
use e2e::json;
use gateway::companions::config::{Config, Options};
use serde_json::{Value, json};

use super::daemon::{Right, granted, rights};
use super::rendered::{Rendered, companions_yaml, name, of_companions, of_kind};

/// Cases in which it runs.
fn enabled(all: &Rendered) -> impl Iterator<Item = &Value> {
    all.accepted().filter(|case| of_companions(case, "Deployment").next().is_some())
}

fn config(text: &str) -> Result<Config, String> {
    let path = Path::new("companions.yaml");
    let options: Options = config::parse(path, text).map_err(|error| format!("{error}\n{text}"))?;
    Config::from_options(options, path).map_err(|error| format!("{error}\n{text}"))
}

fn pod(case: &Value) -> &Value {
    &of_companions(case, "Deployment").next().unwrap()["spec"]["template"]
}

#[test]
#[ignore = "`cargo xtask ci chart` renders what this reads"]
fn it_is_off_unless_asked_for() {
    let all = Rendered::read();
    let kinds = ["ServiceAccount", "ConfigMap", "Deployment", "ClusterRole", "Role", "NetworkPolicy"];
    for kind in kinds {
        assert_eq!(of_companions(&all.answer["base"], kind).count(), 0, "{kind}");
    }
    assert!(enabled(&all).count() > 1);
    let whole = &all.answer["sets"]["cloud"];
    assert!(kinds.iter().all(|kind| of_companions(whole, kind).next().is_some()));
}

#[test]
#[ignore = "`cargo xtask ci chart` renders what this reads"]
fn the_gateway_never_writes_policies_and_it_does_so_in_listed_namespaces_only() {
    let all = Rendered::read();
    let mut of_gateway: Vec<Right> = Vec::new();
    for case in all.accepted() {
        let roles = of_kind(case, "ClusterRole").chain(of_kind(case, "Role"));
        let people = ["-admin", "-view", "-policy-reader"];
        let own = roles.filter(|role| !people.iter().any(|end| name(role).ends_with(end)));
        of_gateway.extend(own.flat_map(granted));
    }
    let writes: Vec<_> = of_gateway
        .iter()
        .filter(|[_, resource, verb, _]| resource == "networkpolicies" && verb != "list" && verb != "watch")
        .collect();
    assert!(writes.is_empty(), "{writes:?}");

    let read =
        COMPANION_RIGHTS.iter().flat_map(|(group, kinds)| rights(group, kinds, &["list", "watch"], ""));
    let read: BTreeSet<Right> = read.collect();
    let written = COMPANION_WRITES.iter().flat_map(|(group, kinds, verbs)| rights(group, kinds, verbs, ""));
    let written: BTreeSet<Right> = written.collect();
    for case in enabled(&all) {
        for role in of_companions(case, "ClusterRole") {
            assert_eq!(granted(role), read);
        }
        let mut places = BTreeSet::new();
        for role in of_companions(case, "Role") {
            assert_eq!(granted(role), written);
            places.insert(json::text(&role["metadata"], "namespace").to_owned());
        }
        let config = config(companions_yaml(case).expect("its configuration")).unwrap();
        assert_eq!(places, config.namespaces);
        let account = of_companions(case, "ServiceAccount").next().unwrap();
        assert_eq!(account["automountServiceAccountToken"], false);
        let (own, gateway) = (&pod(case)["spec"], of_kind(case, "Deployment").next().unwrap());
        assert_eq!(own["serviceAccountName"], account["metadata"]["name"]);
        assert_ne!(own["serviceAccountName"], gateway["spec"]["template"]["spec"]["serviceAccountName"]);
        let bindings = of_companions(case, "ClusterRoleBinding").chain(of_companions(case, "RoleBinding"));
        let mut bound = BTreeSet::new();
        for binding in bindings {
            let subject =
                json!([{"kind": "ServiceAccount", "name": account["metadata"]["name"], "namespace": "mesh"}]);
            assert_eq!(binding["subjects"], subject);
            assert_eq!(binding["roleRef"]["name"], "mesh-gw-outrigger-companions");
            bound.insert(json::text(&binding["metadata"], "namespace").to_owned());
        }
        places.insert(String::new());
        assert_eq!(bound, places);
    }
}

#[test]
#[ignore = "`cargo xtask ci chart` renders what this reads"]
fn its_pod_is_confined_selected_and_probed_as_the_gateways() {
    let all = Rendered::read();
    for case in enabled(&all) {
        let gateway = &of_kind(case, "Deployment").next().unwrap()["spec"]["template"]["spec"];
        let (own, labels) = (&pod(case)["spec"], &pod(case)["metadata"]["labels"]);
        let [container] = json::list(own, "containers") else { panic!("{own}") };
        assert_eq!(own["securityContext"], gateway["securityContext"]);
        assert_eq!(container["securityContext"], gateway["containers"][0]["securityContext"]);
        assert_eq!(container["image"], gateway["containers"][0]["image"]);
        assert_eq!(
            json::texts(container, "args"),
            ["companions", "--config", "/etc/outrigger/companions.yaml"]
        );
        let config = config(companions_yaml(case).expect("its configuration")).unwrap();
        let ports = json!([{"name": "metrics", "containerPort": config.metrics_listen.port()}]);
        assert_eq!(container["ports"], ports);
        for (probe, path) in [("livenessProbe", "/healthz"), ("readinessProbe", "/readyz")] {
            assert_eq!(container[probe]["httpGet"], json!({"path": path, "port": "metrics"}));
        }
        let deployment = &of_companions(case, "Deployment").next().unwrap()["spec"];
        assert_eq!(
            (&deployment["replicas"], &deployment["strategy"]["type"]),
            (&json!(1), &json!("Recreate"))
        );
        let mut selectors = vec![&deployment["selector"]["matchLabels"]];
        selectors.extend(
            of_companions(case, "NetworkPolicy").map(|policy| &policy["spec"]["podSelector"]["matchLabels"]),
        );
        let gateways = &of_kind(case, "Deployment").next().unwrap()["spec"]["selector"]["matchLabels"];
        for selector in selectors {
            let selector = selector.as_object().expect("labels");
            assert!(selector.iter().all(|(key, value)| labels[key] == *value), "{selector:?}");
            assert_ne!(selector["app.kubernetes.io/component"], gateways["app.kubernetes.io/component"]);
        }
    }
}
