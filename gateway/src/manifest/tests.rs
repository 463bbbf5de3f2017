use std::collections::BTreeMap;
use std::net::IpAddr;

use policy::facts::NamedPort;
use policy::rules::Section;
use policy::state::{Mode, Probe, ProbeKind, Scope};

use super::*;

/// The objects of a text.
fn read(text: &str) -> Vec<Manifest> {
    node::parse(text).unwrap().into_iter().flat_map(manifests).collect()
}

/// The object of a text that has one.
fn object(text: &str) -> Object {
    let mut manifests = read(text);
    assert_eq!(manifests.len(), 1, "{manifests:?}");
    manifests.remove(0).object.unwrap()
}

/// Line, field and message of the refusal of a text's object.
fn refusal(text: &str) -> (u64, String, String) {
    let mut manifests = read(text);
    assert_eq!(manifests.len(), 1, "{manifests:?}");
    let error = manifests.remove(0).object.unwrap_err();
    (error.position.line, error.field, error.message)
}

#[test]
fn a_pod_as_kubectl_prints_it() {
    let text = "
apiVersion: v1
kind: Pod
metadata:
  name: web-0
  namespace: shop
  uid: 6a1f
  creationTimestamp: \"2026-01-01T00:00:00Z\"
  labels: {app: web, pod-template-hash: 5d9}
  ownerReferences: [{kind: ReplicaSet}]
spec:
  serviceAccountName: web
  nodeName: node-a
  volumes: [{name: data}]
  initContainers:
  - {name: side, restartPolicy: Always, ports: [{name: admin, containerPort: 9000}]}
  - {name: once, ports: [{name: never, containerPort: 9001}]}
  containers:
  - name: web
    image: web:1
    ports:
    - {name: http, containerPort: 8080, protocol: TCP}
    - {containerPort: 53, protocol: UDP}
status:
  phase: Running
  hostIP: 10.0.0.5
  podIP: 10.244.0.7
  podIPs: [{ip: 10.244.0.7}, {ip: \"fd00:10::7\"}, {ip: \"::ffff:10.244.0.7\"}]
";
    let Object::Pod(pod) = object(text) else { panic!("a pod") };
    let port = |name: &str, number| NamedPort { name: name.into(), protocol: 6, number };
    assert_eq!(
        *pod,
        Pod {
            labels: BTreeMap::from([
                ("app".into(), "web".into()),
                ("pod-template-hash".into(), "5d9".into())
            ]),
            service_account: "web".into(),
            node: Some("node-a".into()),
            addresses: vec!["10.244.0.7".parse().unwrap(), "fd00:10::7".parse().unwrap()],
            named_ports: vec![port("http", 8080), port("admin", 9000)],
            host_network: false,
            ended: false,
        }
    );
    assert_eq!(read(text)[0].key, Some(ObjectKey::new(Kind::Pod, "shop", "web-0")));
}

#[test]
fn pods_that_have_ended_or_are_their_node_are_known_as_such() {
    let pod = |more: &str| {
        let text = format!("{{apiVersion: v1, kind: Pod, metadata: {{name: a}}, {more}}}");
        let Object::Pod(pod) = object(&text) else { panic!("a pod") };
        pod
    };
    assert!(pod("status: {phase: Failed}").ended);
    assert!(pod("status: {phase: Succeeded}").ended);
    assert!(!pod("status: {phase: Pending}").ended);
    assert!(pod("spec: {hostNetwork: true}").host_network);
}

#[test]
fn a_group_says_what_its_workloads_have_in_common() {
    let text = "
apiVersion: outrigger.dev/v1alpha1
kind: ExternalWorkloadGroup
metadata: {name: db, namespace: shop, labels: {topology.kubernetes.io/zone: a, app: other}}
spec:
  mode: audit
  scope: all
  nicMode: enforce
  template:
    labels: {app: db}
    serviceAccountName: postgres
    ports: [{name: sql, port: 5432}, {name: dns, port: 53, protocol: UDP}]
";
    let Object::Group(group) = object(text) else { panic!("a group") };
    assert_eq!(
        *group,
        Group {
            labels: BTreeMap::from([("app".into(), "db".into())]),
            service_account: "postgres".into(),
            ports: vec![
                NamedPort { name: "sql".into(), protocol: 6, number: 5432 },
                NamedPort { name: "dns".into(), protocol: 17, number: 53 },
            ],
            mode: Mode::Audit,
            scope: Scope::All,
            nic_mode: Mode::Enforce,
            probes: Vec::new(),
            zone: Some("a".into()),
        }
    );
}

#[test]
fn probes_say_what_is_tried_and_how_often() {
    let text = "{apiVersion: outrigger.dev/v1alpha1, kind: ExternalWorkloadGroup, metadata: {name: db, namespace: shop}, \
                spec: {template: {}, probes: [{tcp: {port: 5432}}, {http: {port: 80, path: /healthz, host: a.b}, \
                periodSeconds: 5, timeoutSeconds: 2, successThreshold: 2, failureThreshold: 1}, {exec: {name: ready.sh}}]}}";
    let Object::Group(group) = object(text) else { panic!("a group") };
    let [tcp, http, exec] = group.probes.as_slice() else { panic!("three: {:?}", group.probes) };
    let usual =
        Probe { kind: ProbeKind::Tcp { port: 5432 }, period_s: 10, timeout_s: 1, successes: 1, failures: 3 };
    assert_eq!(*tcp, usual);
    assert_eq!(exec.kind, ProbeKind::Exec { name: "ready.sh".into() });
    let kind = ProbeKind::Http { port: 80, path: "/healthz".into(), host: "a.b".into() };
    assert_eq!(*http, Probe { kind, period_s: 5, timeout_s: 2, successes: 2, failures: 1 });
    for (before, after, said) in [
        ("tcp: {port: 5432}", "tcp: {port: 0}", "0 is no port"),
        ("tcp: {port: 5432}", "tcp: {port: 5432}, exec: {name: a}", "one of tcp, http and exec"),
        ("{tcp: {port: 5432}}", "{}", "one of tcp, http and exec"),
        ("tcp: {port: 5432}", "grpc: {port: 5432}", "unknown field"),
        ("/healthz", "healthz", "is no path"),
        ("/healthz", "'/a b'", "is no path"),
        ("a.b", "'a b'", "is no name of a host"),
        ("ready.sh", "../ready.sh", "is no name of a file"),
        ("periodSeconds: 5", "periodSeconds: 0", "is not 1 to 3600"),
        ("periodSeconds: 5", "periodSeconds: 1", "is at most periodSeconds"),
        ("failureThreshold: 1", "failureThreshold: 101", "is not 1 to 100"),
    ] {
        let changed = text.replace(before, after);
        assert_ne!(changed, text);
        let (_, field, message) = refusal(&changed);
        assert!(message.contains(said) && field.starts_with("spec.probes"), "{after}: {field}: {message}");
    }
    let many = format!("probes: [{}{{tcp: {{port: 5432}}}}", "{tcp: {port: 1}}, ".repeat(8));
    let (_, _, message) = refusal(&text.replace("probes: [{tcp: {port: 5432}}", &many));
    assert!(message.contains("at most 8"), "{message}");
}

#[test]
fn a_declared_workload_names_its_group_and_addresses() {
    let text = "{apiVersion: outrigger.dev/v1alpha1, kind: ExternalWorkload, metadata: {name: db-1, namespace: shop}, \
                spec: {group: db, addresses: [10.244.240.9], scope: host}}";
    let Object::Workload(workload) = object(text) else { panic!("a workload") };
    assert_eq!(
        *workload,
        Workload {
            group: "db".into(),
            addresses: vec!["10.244.240.9".parse().unwrap()],
            scope: Some(Scope::Host),
            nic_mode: None,
            probes: None,
            zone: None,
        }
    );
    let (_, field, message) = refusal(&text.replace("10.244.240.9", "10.244.240.9, 10.244.240.10"));
    assert_eq!(field, "spec.addresses");
    assert!(message.contains("at most one address of each family"), "{message}");
}

#[test]
fn every_object_of_a_list_is_one() {
    let text = "
apiVersion: v1
kind: List
items:
- {apiVersion: v1, kind: Namespace, metadata: {name: a, labels: {team: blue}}}
- {apiVersion: v1, kind: PodList, items: [{apiVersion: v1, kind: Pod, metadata: {name: b}}]}
- {apiVersion: v1, kind: Nonsense, metadata: {name: c}}
";
    let keys: Vec<_> =
        read(text).into_iter().map(|manifest| manifest.key.map(|key| key.to_string())).collect();
    assert_eq!(keys, [Some("Namespace/a".into()), Some("Pod/default/b".into()), None]);
    assert_eq!(refusal("{apiVersion: v1, kind: List, itmes: []}").1, "itmes");
    assert_eq!(refusal("{apiVersion: v1, kind: List, metadata: {}}").1, "items");
}

#[test]
fn services_and_slices_as_kubectl_prints_them() {
    let service = "apiVersion: v1\nkind: Service\nmetadata: {name: api, labels: {a: b}}\nspec:\n  clusterIP: 10.0.0.1\n  \
                   ports: [{port: 80, targetPort: http}]\n  selector: {app: api}\nstatus: {loadBalancer: {}}\n";
    let Object::Service(found) = object(service) else { panic!() };
    assert_eq!((found.labels.len(), found.selector.as_ref().map(BTreeMap::len)), (1, Some(1)));
    let slice = "apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata:\n  name: api-x\n  labels: {kubernetes.io/service-name: api}\n\
                 addressType: IPv6\nendpoints:\n- addresses: [\"fd00::2\", \"fd00::1\", \"fd00::2\"]\n  nodeName: n1\nports: [{port: 80}]\n";
    let Object::EndpointSlice(found) = object(slice) else { panic!() };
    assert_eq!(found.service.as_deref(), Some("api"));
    assert_eq!(found.addresses, ["fd00::1", "fd00::2"].map(|text| text.parse::<IpAddr>().unwrap()));
    let names = slice.replace("IPv6", "FQDN").replace("fd00::", "a.example.org");
    let Object::EndpointSlice(found) = object(&names) else { panic!() };
    assert!(found.addresses.is_empty());
    let (line, field, message) = refusal(&slice.replace("IPv6", "IPv4"));
    assert_eq!((line, field.as_str()), (8, "endpoints[0].addresses[0]"));
    assert!(message.contains("fd00::2") && message.contains("IPv4"), "{message}");
    assert_eq!(refusal(&slice.replace("nodeName", "nodename")).1, "endpoints[0].nodename");
    assert_eq!(refusal(&service.replace("selector", "Selector")).1, "spec.Selector");
}

#[test]
fn refusals_name_line_field_and_value() {
    let head = "apiVersion: v1\nkind: Pod\nmetadata:\n  name: a\n";
    let cases = [
        ("spec:\n  nodeNam: x\n", 6, "spec.nodeNam", "\"x\""),
        ("status:\n  podIPs:\n  - ip: 10.0.0.256\n", 7, "status.podIPs[0].ip", "IP address"),
        ("status:\n  podIP: nowhere\n", 6, "status.podIP", "nowhere"),
        ("status:\n  phase: Sleeping\n", 6, "status.phase", "Sleeping"),
        ("spec:\n  hostNetwork: \"yes\"\n", 6, "spec.hostNetwork", "yes"),
        (
            "spec:\n  containers:\n  - ports:\n    - containerPort: 70000\n",
            8,
            "spec.containers[0].ports[0].containerPort",
            "70000",
        ),
        (
            "spec:\n  containers:\n  - ports:\n    - containerPort: 0\n",
            8,
            "spec.containers[0].ports[0].containerPort",
            "0",
        ),
        ("spec:\n  containers:\n  - prots: []\n", 7, "spec.containers[0].prots", "[]"),
        ("spec:\n  serviceAccountName: a;b\n", 6, "spec.serviceAccountName", "a;b"),
    ];
    for (tail, line, field, value) in cases {
        let (found_line, found_field, message) = refusal(&format!("{head}{tail}"));
        assert_eq!((found_line, found_field.as_str()), (line, field), "{tail}: {message}");
        assert!(message.contains(value), "{tail}: {message}");
    }
}

#[test]
fn metadata_is_checked_for_every_kind() {
    let refused = |metadata: &str| refusal(&format!("apiVersion: v1\nkind: Pod\nmetadata: {metadata}\n"));
    assert_eq!(refused("{name: A_b}").1, "metadata.name");
    assert_eq!(refused("{name: a, namespace: x.y}").1, "metadata.namespace");
    assert_eq!(refused("{name: a, lables: {}}").1, "metadata.lables");
    assert_eq!(refused("{namespace: x}").1, "metadata");
    assert_eq!(refused("{name: a, labels: {app: 7}}").1, "metadata.labels.app");
    assert_eq!(refused("{name: a, labels: {app: \"no spaces\"}}").1, "metadata.labels[app]");
    let (_, field, message) = refusal("{apiVersion: v1, kind: Namespace, metadata: {name: a, namespace: b}}");
    assert_eq!(field, "metadata.namespace");
    assert!(message.contains("no namespace"), "{message}");
}

#[test]
fn labels_that_only_the_gateway_gives_are_refused() {
    for key in
        ["io.kubernetes.pod.namespace", "io.cilium.k8s.policy.serviceaccount", "IO.Cilium.x", "k8s:app"]
    {
        let pod = format!("{{apiVersion: v1, kind: Pod, metadata: {{name: a, labels: {{\"{key}\": x}}}}}}");
        assert_eq!(refusal(&pod).1, format!("metadata.labels[{key}]"));
        let group = format!(
            "{{apiVersion: outrigger.dev/v1alpha1, kind: ExternalWorkloadGroup, metadata: {{name: a}}, \
             spec: {{template: {{labels: {{\"{key}\": x}}}}}}}}"
        );
        assert_eq!(refusal(&group).1, format!("spec.template.labels[{key}]"));
    }
}

#[test]
fn a_policy_is_refused_with_the_line_of_what_is_wrong() {
    let text = "
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: db, namespace: shop}
spec:
  podSelector: {matchLabels: {app: db}}
  policyTypes: [Ingress]
  ingress:
  - from:
    - ipBlock:
        cidr: 10.0.0.0/33
";
    let (line, field, message) = refusal(text);
    assert_eq!((line, field.as_str()), (11, "spec.ingress[0].from[0].ipBlock.cidr"), "{message}");
    assert!(message.contains("10.0.0.0/33"), "{message}");
    let manifest = read(text).remove(0);
    assert!(
        matches!(manifest.stand_in(), Some(Object::Policies(policies)) if policies[0].ingress == Some(Section::isolating(Vec::new())))
    );
    let (line, field, _) = refusal(&text.replace("ingress:\n", "ingres:\n"));
    assert_eq!((line, field.starts_with("spec")), (8, true), "{field}");
}

#[test]
fn an_unknown_kind_is_named_with_those_that_are_known() {
    let (line, field, message) = refusal("apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: a}\n");
    assert_eq!((line, field.as_str()), (2, "kind"));
    assert!(message.contains("apps/v1 Deployment") && message.contains("v1 Pod"), "{message}");
    assert_eq!(refusal("just text").1, "");
    assert_eq!(refusal("{kind: Pod}").1, "apiVersion");
    assert_eq!(refusal("{apiVersion: v1, kind: [Pod]}").1, "kind");
}
