//! Random histories: an index that goes on from what it had finds what one that looks at everything anew finds, and what
//! the plain resolution of its facts finds.

use proptest::prelude::*;

use super::*;
use crate::manifest::Position;

/// What happens. Small numbers, so that names, labels and addresses collide.
#[derive(Clone, Debug)]
enum Happening {
    Pod {
        name: u8,
        label: u8,
        node: u8,
        address: u8,
        port: u16,
    },
    Namespace {
        name: u8,
        label: u8,
        unreadable: bool,
    },
    Policy {
        name: u8,
        subject: u8,
        peer: u8,
        port: u8,
    },
    Group {
        name: u8,
        label: u8,
        audit: bool,
        port: u16,
    },
    Delete(Kind, u8),
    /// Workloads by number, with their group, and the addresses they report.
    Workloads(Vec<(u8, u8, u8)>),
    Rejected(Option<(Kind, u8)>),
    /// Receivers confirm what was published.
    Confirmed,
    /// Nobody confirms anything for longer than anybody waits.
    Patience,
    /// The gateway restarts.
    Restart,
}

const NAMES: std::ops::Range<u8> = 0..3;
const NAMESPACES: [&str; 3] = ["shop", "bank", "lab"];

fn kind() -> impl Strategy<Value = Kind> {
    prop::sample::select(vec![Kind::Pod, Kind::Namespace, Kind::NetworkPolicy, Kind::ExternalWorkloadGroup])
}

fn happening() -> impl Strategy<Value = Happening> {
    let port = 80..82_u16;
    prop_oneof![
        4 => (0..5_u8, NAMES, NAMES, 0..6_u8, port.clone()).prop_map(
            |(name, label, node, address, port)| Happening::Pod { name, label, node, address, port }),
        2 => (NAMES, NAMES, prop::bool::weighted(0.2)).prop_map(
            |(name, label, unreadable)| Happening::Namespace { name, label, unreadable }),
        4 => (NAMES, 0..4_u8, 0..5_u8, NAMES).prop_map(
            |(name, subject, peer, port)| Happening::Policy { name, subject, peer, port }),
        3 => (NAMES, NAMES, any::<bool>(), port).prop_map(
            |(name, label, audit, port)| Happening::Group { name, label, audit, port }),
        3 => (kind(), NAMES).prop_map(|(kind, name)| Happening::Delete(kind, name)),
        3 => prop::collection::vec((0..4_u8, 0..4_u8, 0..4_u8), 0..5).prop_map(Happening::Workloads),
        1 => prop::option::of((kind(), NAMES)).prop_map(Happening::Rejected),
        2 => Just(Happening::Confirmed),
        1 => Just(Happening::Patience),
        1 => Just(Happening::Restart),
    ]
}

fn namespace(number: u8) -> &'static str {
    NAMESPACES[usize::from(number)]
}

/// Where the object with that number is.
fn place(kind: Kind, number: u8) -> ObjectKey {
    if kind == Kind::Namespace {
        ObjectKey::new(kind, "", namespace(number))
    } else {
        ObjectKey::new(kind, "shop", &format!("o{number}"))
    }
}

impl Happening {
    fn happen(&self, f: &mut Fixture) {
        match self {
            Self::Pod { name, label, node, address, port } => f.put(&format!(
                "{{apiVersion: v1, kind: Pod, metadata: {{name: o{name}, namespace: shop, labels: {{app: l{label}}}}}, \
                 spec: {{nodeName: n{node}, containers: [{{name: c, ports: [{{name: web, containerPort: {port}}}]}}]}}, \
                 status: {{podIPs: [{{ip: \"10.{}.0.{address}\"}}]}}}}",
                // One is among the addresses that only the gateway gives.
                if *address == 0 { 9 } else { 1 },
            )),
            Self::Namespace { name, label, unreadable } => {
                let labels = BTreeMap::from([("team".to_owned(), format!("l{label}"))]);
                let made = policy::facts::Namespace { labels, unreadable: *unreadable };
                let key = place(Kind::Namespace, *name);
                f.index.apply(Change::Put(key, Object::Namespace(Arc::new(made))));
            }
            Self::Policy { name, subject, peer, port } => f.put(&policy_text(*name, *subject, *peer, *port)),
            Self::Group { name, label, audit, port } => f.put(&format!(
                "{{apiVersion: outrigger.dev/v1alpha1, kind: ExternalWorkloadGroup, \
                 metadata: {{name: o{name}, namespace: shop}}, spec: {{mode: {}, template: {{labels: {{app: l{label}}}, \
                 ports: [{{name: web, port: {port}}}]}}}}}}",
                if *audit { "audit" } else { "enforce" },
            )),
            Self::Delete(kind, name) => f.index.apply(Change::Delete(place(*kind, *name))),
            Self::Workloads(workloads) => {
                let workloads: Vec<_> = workloads.iter().map(|(name, group, at)| of_group(*name, *group, *at)).collect();
                f.workloads(&workloads);
            }
            Self::Rejected(rejected) => {
                let rejected = rejected.map(|(kind, name)| Rejected {
                    file: "p.yaml".into(),
                    position: Position { line: 1, column: 1 },
                    key: Some(place(kind, name)),
                    reason: "wrong".into(),
                    instead: Instead::LastGood,
                });
                f.index.set_rejected(rejected.into_iter().collect());
            }
            Self::Confirmed => drop(f.index.advance(Some(f.generation), f.now)),
            Self::Patience => {
                f.now += LONGEST_PHASE;
                f.index.advance(Some(0), f.now);
            }
            Self::Restart => {
                let mut next = anew(&f.index);
                next.relabels = Relabels::default();
                next.resume_relabels(f.index.relabel_rounds());
                f.index = next;
                f.published = None;
            }
        }
    }
}

fn of_group(name: u8, group: u8, at: u8) -> Workload {
    let (address, underlay) = (format!("10.9.0.{}", name + 1), format!("192.0.2.{at}"));
    let target = match group {
        3 if name.is_multiple_of(2) => Target::TransitNode { node: format!("n{name}") },
        3 => Target::Node { node: format!("n{name}") },
        group => Target::Group { namespace: "shop".into(), name: format!("o{group}") },
    };
    record(&format!("w{name}"), target, &address, &[&underlay])
}

fn policy_text(name: u8, subject: u8, peer: u8, port: u8) -> String {
    let subject =
        if subject == 3 { "{}".to_owned() } else { format!("{{matchLabels: {{app: l{subject}}}}}") };
    let peer = match peer {
        3 => "namespaceSelector: {matchLabels: {team: l1}}".to_owned(),
        4 => "ipBlock: {cidr: 10.1.0.0/30}".to_owned(),
        label => format!("podSelector: {{matchLabels: {{app: l{label}}}}}"),
    };
    let port = ["80", "web", "81"][usize::from(port)];
    format!(
        "{{apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: {{name: o{name}, namespace: shop}}, \
         spec: {{podSelector: {subject}, policyTypes: [Ingress, Egress], \
         ingress: [{{from: [{{{peer}}}], ports: [{{port: {port}}}]}}], egress: [{{to: [{{{peer}}}], ports: [{{port: {port}}}]}}]}}}}"
    )
}

/// An index with the same facts that has found nothing out yet.
fn anew(index: &Index) -> Index {
    let mut anew = Index::new(index.settings.clone());
    anew.facts.namespaces.clone_from(&index.facts.namespaces);
    anew.facts.policies.clone_from(&index.facts.policies);
    anew.pods.clone_from(&index.pods);
    anew.groups.clone_from(&index.groups);
    anew.declared.clone_from(&index.declared);
    anew.rejected.clone_from(&index.rejected);
    anew.set_workloads(Arc::clone(&index.workloads));
    anew.stale.pods = true;
    // What history decides: who came first, and what is under way.
    anew.addresses.clone_from(&index.addresses);
    anew.relabels.clone_from(&index.relabels);
    anew
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn an_index_finds_what_a_new_one_would(
        prefixes in any::<bool>(),
        happenings in prop::collection::vec(happening(), 1..80),
    ) {
        let pod_prefixes = if prefixes { vec!["10.1.0.0/16".parse().unwrap()] } else { Vec::new() };
        let mut f = Fixture::with(MeshSettings { pod_prefixes, ..settings() });
        for happening in &happenings {
            happening.happen(&mut f);
            let mut anew = anew(&f.index);
            let before = f.published.clone();
            let compiled = f.publish();
            anew.refresh();
            prop_assert_eq!(&compiled, &anew.compile(&f.numbers, before.as_ref()).unwrap(), "after {:?}", happening);
            let plain = policy::resolve::resolve(&f.index.facts, &f.numbers).unwrap();
            prop_assert_eq!(&compiled.state, &plain.state, "after {:?}", happening);
            prop_assert_eq!(f.index.relabel_rounds(), anew.relabel_rounds(), "after {:?}", happening);
        }
    }
}
