//! How the gateway's pod is confined, and what selects it.

use clap::Parser as _;
use e2e::json;
use serde_json::{Value, json};

use super::rendered::{Rendered, name, of_kind};

fn template(case: &Value) -> &Value {
    &of_kind(case, "Deployment").next().unwrap()["spec"]["template"]
}

/// What the restricted Pod Security Standard asks for, and a root file system that nobody writes to.
#[test]
#[ignore = "`cargo xtask ci chart` renders what this reads"]
fn the_pod_has_no_rights_on_its_node() {
    for case in Rendered::read().accepted() {
        let pod = &template(case)["spec"];
        let of_pod = &pod["securityContext"];
        assert_eq!(of_pod["runAsNonRoot"], true);
        assert_ne!(of_pod["runAsUser"], 0);
        assert_eq!(of_pod["seccompProfile"], json!({"type": "RuntimeDefault"}));
        // Or else the volume would be another user's.
        for key in ["runAsGroup", "fsGroup"] {
            assert_eq!(of_pod[key], of_pod["runAsUser"], "{key}");
        }
        assert_eq!(of_pod["fsGroupChangePolicy"].is_string(), of_pod["fsGroup"].is_number());
        // A token for the API server, nothing of other Services, and time to end: the gateway takes 5 s at most.
        assert_eq!(
            (&pod["automountServiceAccountToken"], &pod["enableServiceLinks"]),
            (&json!(true), &json!(false))
        );
        assert!(json::number(pod, "terminationGracePeriodSeconds") >= 10);
        for key in ["hostNetwork", "hostPID", "hostIPC"] {
            assert_eq!(pod[key], Value::Null, "{key}");
        }
        assert_eq!(json::list(pod, "containers").len(), 1);
        assert_eq!(
            pod["containers"][0]["securityContext"],
            json!({
                "allowPrivilegeEscalation": false, "capabilities": {"drop": ["ALL"]}, "readOnlyRootFilesystem": true,
            })
        );
        for volume in json::list(pod, "volumes") {
            assert_eq!(volume["hostPath"], Value::Null, "{volume}");
        }
        assert!(json::number(&pod["containers"][0]["startupProbe"], "failureThreshold") >= 1);
    }
}

#[test]
#[ignore = "`cargo xtask ci chart` renders what this reads"]
fn all_selectors_select_the_pod() {
    for case in Rendered::read().accepted() {
        let labels = &template(case)["metadata"]["labels"];
        let selects = |selector: &Value, what: &str| {
            let selector = selector.as_object().unwrap_or_else(|| panic!("{what} selects everything"));
            assert!(!selector.is_empty(), "{what} selects everything");
            for (key, value) in selector {
                assert_eq!(labels[key], *value, "{what}: {}", case["values"]);
            }
        };
        selects(
            &of_kind(case, "Deployment").next().unwrap()["spec"]["selector"]["matchLabels"],
            "Deployment",
        );
        for service in of_kind(case, "Service") {
            selects(&service["spec"]["selector"], name(service));
        }
        for budget in of_kind(case, "PodDisruptionBudget") {
            selects(&budget["spec"]["selector"]["matchLabels"], "PodDisruptionBudget");
        }
        for policy in of_kind(case, "NetworkPolicy") {
            selects(&policy["spec"]["podSelector"]["matchLabels"], "NetworkPolicy");
            assert_eq!(json::texts(&policy["spec"], "policyTypes"), ["Ingress", "Egress"]);
        }
        for spread in json::list(&template(case)["spec"], "topologySpreadConstraints") {
            selects(&spread["labelSelector"]["matchLabels"], "topologySpreadConstraints");
        }
        for monitor in of_kind(case, "ServiceMonitor") {
            let wanted = monitor["spec"]["selector"]["matchLabels"].as_object().unwrap();
            assert_eq!(monitor["apiVersion"], "monitoring.coreos.com/v1");
            // Not the Service of another release.
            assert!(wanted.contains_key("app.kubernetes.io/instance"), "{wanted:?}");
            let fits = |service: &&Value| {
                wanted.iter().all(|(key, value)| service["metadata"]["labels"][key] == *value)
            };
            let found: Vec<_> = of_kind(case, "Service").filter(fits).map(name).collect();
            assert!(matches!(found[..], [only] if only.ends_with("-metrics")), "{found:?}");
        }
    }
}

/// Another pod is there before an old one ends, but where they would share a volume; and no drain waits for ever.
#[test]
#[ignore = "`cargo xtask ci chart` renders what this reads"]
fn a_gateway_is_there_while_another_one_begins() {
    for case in Rendered::read().accepted() {
        let deployment = &of_kind(case, "Deployment").next().unwrap()["spec"];
        let has_volume =
            of_kind(case, "Deployment").any(|of| of.to_string().contains("persistentVolumeClaim"));
        let replaced =
            json!({"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}});
        let wanted = if has_volume { json!({"type": "Recreate"}) } else { replaced };
        assert_eq!(deployment["strategy"], wanted);
        assert!(!has_volume || json::number(deployment, "replicas") <= 1);
        for policy in of_kind(case, "NetworkPolicy") {
            let selector = &deployment["selector"];
            let others = |side: &str| json!({"ports": [{"port": if side == "from" { json!("replicas") } else { json!(7444) }}], side: [{"podSelector": selector}]});
            assert_eq!(policy["spec"]["ingress"][1], others("from"));
            assert_eq!(policy["spec"]["egress"][1], others("to"));
        }
        for budget in of_kind(case, "PodDisruptionBudget") {
            assert_eq!(budget["spec"]["unhealthyPodEvictionPolicy"], "AlwaysAllow");
            assert_eq!(
                (&budget["spec"]["maxUnavailable"], &budget["spec"]["minAvailable"]),
                (&json!(1), &Value::Null)
            );
        }
    }
}

#[test]
#[ignore = "`cargo xtask ci chart` renders what this reads"]
fn another_configuration_is_another_pod() {
    let all = Rendered::read();
    let checksum = |case: &Value| template(case)["metadata"]["annotations"]["checksum/config"].clone();
    for effect in json::list(&all.answer, "effects") {
        let changes = effect["see"].get("gateway.yaml").is_some();
        let others = effect["set"].get("config").is_some();
        assert_eq!(checksum(effect) != checksum(&effect["without"]), changes || others, "{}", effect["set"]);
    }
}

/// What an agent may do on its node, and that it begins with the words that it is given.
#[test]
#[ignore = "`cargo xtask ci chart` renders what this reads"]
fn an_agent_has_what_it_needs_of_its_node() {
    let all = Rendered::read();
    let case = &all.answer["sets"]["transit"];
    let names: Vec<_> = of_kind(case, "DaemonSet").map(name).collect();
    assert_eq!(names, ["gw-outrigger-transit", "gw-outrigger-node"]);
    for set in of_kind(case, "DaemonSet") {
        let template = &set["spec"]["template"];
        let (pod, container) = (&template["spec"], &template["spec"]["containers"][0]);
        let words = json::texts(container, "args");
        let line = std::iter::once("outrigger-agent".to_owned()).chain(words);
        let arguments = vm_agent::config::Arguments::try_parse_from(line).unwrap();
        let files = vm_agent::config::Config::load(arguments).unwrap().account.expect("it joins by itself");
        let mounted = |path: &std::path::Path| {
            let folder = path.parent().unwrap().display().to_string();
            json::list(container, "volumeMounts").iter().any(|mount| mount["mountPath"] == folder.as_str())
        };
        assert!(mounted(&files.token) && mounted(&files.bootstrap), "{files:?}");
        // A release of the chart that changes nothing of the agent restarts none.
        assert!(!template.to_string().contains(env!("CARGO_PKG_VERSION")), "{template}");
        assert_eq!(set["spec"]["selector"]["matchLabels"], template["metadata"]["labels"]);
        assert_eq!(pod["automountServiceAccountToken"], false);
        assert_eq!(container["securityContext"]["privileged"], false);
        let account = json::text(pod, "serviceAccountName");
        let bound = |kind| of_kind(case, kind).any(|binding| binding["subjects"][0]["name"] == account);
        assert!(!bound("RoleBinding") && !bound("ClusterRoleBinding"), "{account} has rights");
    }
}
