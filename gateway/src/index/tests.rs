use std::net::IpAddr;

use policy::state::{EndpointKind, Mode, Role};

use super::*;
use crate::manifest::{Manifest, manifests, node};
use crate::source::Instead;
use crate::store::Workload;

mod churn;
mod history;
mod relabel;
mod services;

/// An index with numbers for its label sets, given in the order of their first appearance.
struct Fixture {
    index: Index,
    numbers: Arc<BTreeMap<Labels, Identity>>,
    published: Option<Compiled>,
    generation: u64,
    now: Instant,
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn settings() -> MeshSettings {
    MeshSettings {
        cluster: "default".into(),
        pools: vec!["10.9.0.0/24".parse().unwrap(), "fd00:9::/112".parse().unwrap()],
        pod_prefixes: Vec::new(),
        tunnel_port: 8479,
    }
}

impl Fixture {
    fn new() -> Self {
        Self::with(settings())
    }

    fn with(settings: MeshSettings) -> Self {
        let index = Index::new(settings);
        Self { index, numbers: Arc::default(), published: None, generation: 0, now: Instant::now() }
    }

    fn put(&mut self, text: &str) {
        for document in node::parse(text).unwrap() {
            for Manifest { key, object, .. } in manifests(document) {
                self.index.apply(Change::Put(key.unwrap(), object.unwrap()));
            }
        }
    }

    fn delete(&mut self, kind: Kind, namespace: &str, name: &str) {
        self.index.apply(Change::Delete(ObjectKey::new(kind, namespace, name)));
    }

    fn workloads(&mut self, workloads: &[Workload]) {
        let workloads = workloads.iter().map(|workload| (workload.name.clone(), Arc::new(workload.clone())));
        self.index.set_workloads(Arc::new(workloads.collect()));
    }

    fn compile(&mut self) -> Compiled {
        self.index.refresh();
        let new: Vec<Labels> =
            self.index.labels().filter(|labels| !self.numbers.contains_key(labels)).cloned().collect();
        for labels in new {
            let next = Identity::try_new(256 + u32::try_from(self.numbers.len()).unwrap()).unwrap();
            Arc::make_mut(&mut self.numbers).insert(labels, next);
        }
        self.index.compile(&self.numbers, self.published.as_ref()).unwrap()
    }

    /// Compiles and publishes.
    fn publish(&mut self) -> Compiled {
        let compiled = self.compile();
        self.generation += 1;
        self.published = Some(compiled.clone());
        self.index.published(self.generation, self.now);
        compiled
    }

    fn identity(&self, label: &str) -> Identity {
        let mut found = self.numbers.iter().filter(|(labels, _)| labels.to_string().contains(label));
        let (_, identity) = found.next().unwrap();
        assert!(found.next().is_none(), "several label sets have {label}");
        *identity
    }
}

fn pod(name: &str, labels: &str, node: &str, address: &str) -> String {
    format!(
        "{{apiVersion: v1, kind: Pod, metadata: {{name: {name}, namespace: shop, labels: {labels}}}, \
         spec: {{nodeName: {node}}}, status: {{podIPs: [{{ip: \"{address}\"}}]}}}}\n---\n"
    )
}

fn group(name: &str, labels: &str) -> String {
    format!(
        "{{apiVersion: outrigger.dev/v1alpha1, kind: ExternalWorkloadGroup, metadata: {{name: {name}, namespace: shop}}, \
         spec: {{template: {{labels: {labels}}}}}}}\n---\n"
    )
}

fn record(name: &str, target: Target, address: &str, underlay: &[&str]) -> Workload {
    Workload {
        name: WorkloadName::try_new(target.namespace(), name).unwrap(),
        target,
        key: pki::KeyHash::try_from_bytes(&[7; 32]).unwrap(),
        previous_key: None,
        machine: String::new(),
        addresses: vec![ip(address)],
        underlay: underlay.iter().map(|text| ip(text)).collect(),
        agent_version: String::new(),
        claims: BTreeMap::new(),
        joined_at: 0,
        joined_with: String::new(),
        certificate_expires: 0,
        ephemeral: false,
    }
}

fn member(name: &str, address: &str, underlay: &[&str]) -> Workload {
    record(name, Target::Group { namespace: "shop".into(), name: "db".into() }, address, underlay)
}

fn transit(node: &str, address: &str, underlay: &[&str]) -> Workload {
    record(node, Target::TransitNode { node: node.into() }, address, underlay)
}

fn node(node: &str, address: &str, underlay: &[&str]) -> Workload {
    record(node, Target::Node { node: node.into() }, address, underlay)
}

#[test]
fn pods_are_behind_the_node_that_joined_whatever_its_role_and_behind_transit_nodes_otherwise() {
    let mut f = Fixture::new();
    f.put(&pod("a", "{app: web}", "n2", "10.1.0.1"));
    f.put(&pod("b", "{app: web}", "elsewhere", "10.1.0.2"));
    f.workloads(&[transit("n1", "10.9.0.2", &["192.0.2.2"]), node("n2", "10.9.0.3", &["192.0.2.3"])]);
    let compiled = f.compile();
    let endpoint = |address| &compiled.state.endpoints[&ip(address)];
    assert_eq!(*endpoint("10.1.0.1").tunnels, [ip("192.0.2.3")]);
    assert_eq!(*endpoint("10.1.0.2").tunnels, [ip("192.0.2.2")]);
    assert_eq!(
        (endpoint("10.9.0.3").identity, &endpoint("10.9.0.3").kind),
        (Identity::REMOTE_NODE, &EndpointKind::Node)
    );
    let name = WorkloadName::try_new("outrigger-system", "n2").unwrap();
    let settings = &compiled.nodes[&name];
    assert_eq!((settings.role, settings.identity), (Role::Node, Identity::REMOTE_NODE));
    assert!(!settings.prefixes.iter().any(|prefix| prefix.contains(&ip("10.1.0.1"))));
}

#[test]
fn equal_labels_share_an_identity_and_reach_is_by_transit_nodes() {
    let mut f = Fixture::new();
    f.put(&pod("a", "{app: web}", "n1", "10.1.0.1"));
    f.put(&pod("b", "{app: web}", "elsewhere", "10.1.0.2"));
    f.put(&group("db", "{app: db}"));
    f.workloads(&[
        member("db-1", "10.9.0.1", &["192.0.2.1", "192.0.2.11"]),
        transit("n1", "10.9.0.2", &["192.0.2.2"]),
        transit("n2", "10.9.0.3", &["192.0.2.3"]),
    ]);
    let compiled = f.compile();
    let endpoint = |address| &compiled.state.endpoints[&ip(address)];
    let behind = |address| match &endpoint(address).kind {
        EndpointKind::Pod { behind } => behind.iter().cloned().collect::<Vec<_>>(),
        EndpointKind::Workload | EndpointKind::Transit | EndpointKind::Node => panic!("{address} is no pod"),
    };
    assert_eq!(endpoint("10.1.0.1").identity, endpoint("10.1.0.2").identity);
    assert_ne!(endpoint("10.1.0.1").identity, endpoint("10.9.0.1").identity);
    assert_eq!(behind("10.1.0.1"), ["outrigger-system/n1"]);
    assert_eq!(*endpoint("10.1.0.1").tunnels, [ip("192.0.2.2")]);
    assert_eq!(behind("10.1.0.2"), ["outrigger-system/n1", "outrigger-system/n2"]);
    assert_eq!(*endpoint("10.1.0.2").tunnels, [ip("192.0.2.2"), ip("192.0.2.3")]);
    assert_eq!(*endpoint("10.9.0.1").tunnels, [ip("192.0.2.1"), ip("192.0.2.11")]);
    assert_eq!(endpoint("10.9.0.1").kind, EndpointKind::Workload);
    assert_eq!(
        (endpoint("10.9.0.2").identity, &endpoint("10.9.0.2").kind),
        (Identity::REMOTE_NODE, &EndpointKind::Transit)
    );
    assert_eq!(endpoint("10.9.0.1").owner.as_deref(), Some("shop/db-1"));
    assert_eq!(compiled.warnings, BTreeSet::new());
}

#[test]
fn each_node_is_told_its_settings() {
    let mut f = Fixture::new();
    f.put(&pod("a", "{app: web}", "n1", "10.1.0.1"));
    f.put(&group("db", "{app: db}").replace("spec: {", "spec: {mode: audit, "));
    f.workloads(&[member("db-1", "10.9.0.1", &[]), transit("n1", "10.9.0.2", &[])]);
    let compiled = f.compile();
    let of = |name: &str| &*compiled.nodes[&name.parse::<WorkloadName>().unwrap()];
    let host = of("shop/db-1");
    assert_eq!((host.role, host.mode, host.identity), (Role::Host, Mode::Audit, f.identity("k8s:app=db")));
    assert_eq!(host.mark, host.identity);
    let prefixes: Vec<_> = host.prefixes.iter().map(ToString::to_string).collect();
    assert_eq!(prefixes, ["10.1.0.1/32", "10.9.0.0/24", "fd00:9::/112"]);
    let node = of("outrigger-system/n1");
    assert_eq!((node.role, node.mode, node.identity), (Role::Transit, Mode::Enforce, Identity::REMOTE_NODE));
    assert_eq!(node.prefixes, settings().pools);
}

#[test]
fn what_policies_do_not_do_is_told_to_whom_they_select() {
    let mut f = Fixture::new();
    f.put(&group("db", "{app: db}"));
    f.put(&group("web", "{app: web}"));
    let other = Target::Group { namespace: "shop".to_owned(), name: "web".to_owned() };
    f.workloads(&[
        member("db-1", "10.9.0.1", &["192.0.2.1"]),
        record("web-1", other, "10.9.0.2", &["192.0.2.2"]),
    ]);
    let told = |f: &mut Fixture| {
        let compiled = f.publish();
        let of = |name: &str| {
            let found = compiled.nodes.iter().find(|(workload, _)| workload.name == name);
            found.unwrap().1.partly_enforced.clone()
        };
        [of("db-1"), of("web-1")]
    };
    assert_eq!(told(&mut f), [Vec::<String>::new(), Vec::new()]);
    let policy = |rule: &str| {
        format!(
            "{{apiVersion: cilium.io/v2, kind: CiliumNetworkPolicy, metadata: {{name: p, namespace: shop}}, spec: \
            {{endpointSelector: {{matchLabels: {{app: db}}}}, egress: [{rule}]}}}}"
        )
    };
    f.put(&policy("{toFQDNs: [{matchName: example.com}]}"));
    let [db, web] = told(&mut f);
    assert_eq!(db.len(), 1);
    assert!(
        db[0].starts_with("CiliumNetworkPolicy/shop/p") && db[0].contains("names are not enforced"),
        "{db:?}"
    );
    assert!(web.is_empty());
    f.put(&policy("{toEndpoints: [{}]}"));
    assert_eq!(told(&mut f), [Vec::<String>::new(), Vec::new()]);
}

#[test]
fn configured_prefixes_stand_for_the_pods() {
    let mut f =
        Fixture::with(MeshSettings { pod_prefixes: vec!["10.1.0.0/16".parse().unwrap()], ..settings() });
    f.put(&pod("a", "{}", "n1", "10.1.0.1"));
    f.put(&pod("b", "{}", "n1", "10.2.0.1"));
    f.put(&group("db", "{app: db}"));
    f.workloads(&[member("db-1", "10.9.0.1", &[])]);
    let compiled = f.compile();
    let prefixes: Vec<_> =
        compiled.nodes.values().next().unwrap().prefixes.iter().map(ToString::to_string).collect();
    assert_eq!(prefixes, ["10.1.0.0/16", "10.9.0.0/24", "fd00:9::/112"]);
    let warnings: Vec<_> = compiled.warnings.iter().collect();
    assert!(
        matches!(&*warnings, [one] if one.contains("pod shop/b") && one.contains("podPrefixes")),
        "{warnings:?}"
    );
}

#[test]
fn pods_without_an_own_address_are_no_endpoints() {
    let mut f = Fixture::new();
    f.put(&pod("a", "{}", "n1", "10.1.0.1").replace("spec: {", "spec: {hostNetwork: true, "));
    f.put(&pod("b", "{}", "n1", "10.1.0.2").replace("status: {", "status: {phase: Succeeded, "));
    assert!(f.compile().state.endpoints.is_empty());
}

#[test]
fn the_first_holder_of_an_address_keeps_it() {
    let mut f = Fixture::new();
    f.put(&pod("b", "{app: b}", "n1", "10.1.0.1"));
    f.publish();
    f.put(&pod("a", "{app: a}", "n1", "10.1.0.1"));
    f.put(&pod("c", "{app: c}", "n1", "10.9.0.7"));
    let compiled = f.publish();
    assert_eq!(compiled.state.endpoints[&ip("10.1.0.1")].owner.as_deref(), Some("shop/b"));
    assert_eq!(compiled.state.endpoints.len(), 1);
    let warnings: Vec<_> = compiled.warnings.iter().cloned().collect();
    assert_eq!(warnings.len(), 2, "{warnings:?}");
    assert!(warnings[0].contains("shop/a") && warnings[0].contains("shop/b"), "{warnings:?}");
    assert!(warnings[1].contains("shop/c") && warnings[1].contains("pool"), "{warnings:?}");
    f.delete(Kind::Pod, "shop", "b");
    assert_eq!(f.publish().state.endpoints[&ip("10.1.0.1")].owner.as_deref(), Some("shop/a"));
}

#[test]
fn nobody_takes_the_underlay_address_of_another() {
    let mut f = Fixture::new();
    f.put(&group("db", "{app: db}"));
    let claiming = |mut workload: Workload, order, proved| {
        let claim = |address: &IpAddr| (*address, crate::store::Claim { proved, order });
        workload.claims = workload.underlay.iter().map(claim).collect();
        workload
    };
    let first = claiming(member("db-2", "10.9.0.2", &["192.0.2.1"]), 1, false);
    let second = member("db-1", "10.9.0.1", &["192.0.2.1", "10.9.0.2", "192.0.2.9"]);
    // Also the first time that it compiles, as after a restart.
    f.workloads(&[claiming(second.clone(), 2, false), first.clone()]);
    let compiled = f.publish();
    assert_eq!(*compiled.state.endpoints[&ip("10.9.0.1")].tunnels, [ip("192.0.2.9")]);
    assert_eq!(*compiled.state.endpoints[&ip("10.9.0.2")].tunnels, [ip("192.0.2.1")]);
    let warnings: Vec<_> = compiled.warnings.iter().cloned().collect();
    assert_eq!(warnings.len(), 2, "{warnings:?}");
    assert!(warnings.iter().all(|warning| warning.contains("shop/db-1")), "{warnings:?}");
    // Who only says to have it gives way to who connects from it.
    f.workloads(&[claiming(second, 2, true), first]);
    let compiled = f.publish();
    assert_eq!(*compiled.state.endpoints[&ip("10.9.0.1")].tunnels, [ip("192.0.2.1"), ip("192.0.2.9")]);
    assert_eq!(*compiled.state.endpoints[&ip("10.9.0.2")].tunnels, Vec::<IpAddr>::new());
}

#[test]
fn a_workload_without_its_group_is_left_out() {
    let mut f = Fixture::new();
    f.workloads(&[member("db-1", "10.9.0.1", &[])]);
    let compiled = f.compile();
    assert!(compiled.state.endpoints.is_empty() && compiled.nodes.is_empty());
    assert!(compiled.warnings.iter().any(|warning| warning.contains("group shop/db is not known")));
    assert_eq!(
        f.index.groups_in_use(),
        BTreeSet::from([ObjectKey::new(Kind::ExternalWorkloadGroup, "shop", "db")])
    );
}

#[test]
fn whom_a_rejected_object_concerns_is_told() {
    let mut f = Fixture::new();
    f.put(&group("db", "{app: db}"));
    f.put(
        "{apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: {name: p, namespace: shop}, \
         spec: {podSelector: {matchLabels: {app: db}}}}\n---\n\
         {apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: {name: q, namespace: shop}, \
         spec: {podSelector: {matchLabels: {app: other}}}}",
    );
    f.workloads(&[member("db-1", "10.9.0.1", &[])]);
    let rejected = |kind, name: &str| Rejected {
        file: "p.yaml".into(),
        position: crate::manifest::Position { line: 3, column: 1 },
        key: Some(ObjectKey::new(kind, "shop", name)),
        reason: "spec.x: unknown field".into(),
        instead: Instead::LastGood,
    };
    f.index.set_rejected(vec![
        rejected(Kind::NetworkPolicy, "p"),
        rejected(Kind::NetworkPolicy, "q"),
        rejected(Kind::ExternalWorkloadGroup, "db"),
        rejected(Kind::ExternalWorkloadGroup, "other"),
    ]);
    assert_eq!(
        f.compile().nodes.values().next().unwrap().rejected,
        [
            "NetworkPolicy/shop/p: spec.x: unknown field (p.yaml:3)",
            "ExternalWorkloadGroup/shop/db: spec.x: unknown field (p.yaml:3)",
        ]
    );
}

#[test]
fn the_mark_of_a_host_follows_its_endpoint() {
    let mut f = Fixture::new();
    f.put(&group("db", "{app: one}"));
    f.workloads(&[member("db-1", "10.9.0.1", &[])]);
    f.publish();
    f.put(&group("db", "{app: two}"));
    let compiled = f.publish();
    let settings = compiled.nodes.values().next().unwrap();
    assert_eq!((settings.identity.get(), settings.mark.get()), (257, 256));
    assert!(f.index.advance(Some(f.generation), f.now));
    let compiled = f.publish();
    let settings = compiled.nodes.values().next().unwrap();
    assert_eq!((settings.identity.get(), settings.mark.get()), (257, 257));
}

#[test]
fn the_order_of_changes_does_not_matter() {
    let parts = [
        pod("a", "{app: web}", "n1", "10.1.0.1"),
        group("db", "{app: db}"),
        "{apiVersion: v1, kind: Namespace, metadata: {name: shop, labels: {team: blue}}}".to_owned(),
        "{apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: {name: p, namespace: shop}, \
         spec: {podSelector: {}, ingress: [{from: [{podSelector: {matchLabels: {app: web}}}]}]}}"
            .to_owned(),
    ];
    let numbers: Arc<BTreeMap<Labels, Identity>> = {
        let mut f = Fixture::new();
        f.put(&parts.concat().replace("}{", "}\n---\n{"));
        f.workloads(&[member("db-1", "10.9.0.1", &["192.0.2.1"])]);
        f.compile();
        f.numbers
    };
    let mut results = Vec::new();
    for order in permutations(parts.len()) {
        for workloads_at in 0..=parts.len() {
            let mut f = Fixture::new();
            f.numbers.clone_from(&numbers);
            for (step, part) in order.iter().enumerate() {
                if step == workloads_at {
                    f.workloads(&[member("db-1", "10.9.0.1", &["192.0.2.1"])]);
                }
                f.put(&parts[*part]);
                f.index.refresh();
            }
            f.workloads(&[member("db-1", "10.9.0.1", &["192.0.2.1"])]);
            results.push(f.compile());
        }
    }
    assert_eq!(results.len(), 24 * 5);
    assert!(results.windows(2).all(|pair| pair[0] == pair[1]));
}

fn permutations(count: usize) -> Vec<Vec<usize>> {
    let mut all = vec![Vec::new()];
    for next in 0..count {
        all = all
            .into_iter()
            .flat_map(|order: Vec<usize>| {
                (0..=order.len()).map(move |at| {
                    let mut order = order.clone();
                    order.insert(at, next);
                    order
                })
            })
            .collect();
    }
    all
}
