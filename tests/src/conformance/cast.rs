//! The cluster of all cases: namespaces x, y, z with a, b, c each, which serve on 80 and 81. In every namespace one of
//! them is an external workload.

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;

use serde_json::{Value, json};

use super::case::Step;

/// The namespaces; each has the label `ns`.
pub const NAMESPACES: [&str; 3] = ["x", "y", "z"];
/// The names in each namespace; each is also the label `pod`.
pub const PODS: [&str; 3] = ["a", "b", "c"];
/// How many there are in all.
pub const MEMBERS: usize = NAMESPACES.len() * PODS.len();
/// Those that are external workloads: `x/a`, `y/b`, `z/c`.
pub const WORKLOADS: [usize; 3] = [0, 4, 8];
/// The ports they serve on, with TCP, UDP and SCTP.
pub const PORTS: [u16; 2] = [80, 81];

/// One end of a flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Actor {
    /// Of the cast, by number.
    Member(usize),
    /// A node of the cluster.
    Node,
    /// An address that nobody in the mesh has.
    World,
}

impl Actor {
    /// Everybody.
    pub fn all() -> impl Iterator<Item = Self> {
        (0..MEMBERS).map(Self::Member).chain([Self::Node, Self::World])
    }

    /// The namespace and the name of a member.
    #[must_use]
    pub fn name(self) -> Option<(&'static str, &'static str)> {
        let Self::Member(number) = self else { return None };
        Some((*NAMESPACES.get(number / PODS.len())?, *PODS.get(number % PODS.len())?))
    }
}

impl fmt::Display for Actor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self, self.name()) {
            (_, Some((namespace, name))) => write!(f, "{namespace}/{name}"),
            (Self::World, _) => f.write_str("world"),
            _ => f.write_str("node"),
        }
    }
}

/// Everybody's addresses, IPv4 first.
#[derive(Clone, Debug)]
pub struct Addresses(BTreeMap<Actor, [IpAddr; 2]>);

impl Addresses {
    /// These.
    pub fn new(addresses: impl IntoIterator<Item = (Actor, [IpAddr; 2])>) -> Self {
        Self(addresses.into_iter().collect())
    }

    /// Those of the model.
    #[must_use]
    pub fn of_model() -> Self {
        let v4 =
            |group: u8, number: usize| IpAddr::from([10, 100, group, u8::try_from(number).unwrap_or(255)]);
        let v6 = |group: u16, number: usize| {
            IpAddr::from([0xfd00, 0x100, group, 0, 0, 0, 0, u16::try_from(number).unwrap_or(255)])
        };
        let members = (0..MEMBERS).map(|number| {
            let group = if WORKLOADS.contains(&number) { 240 } else { 1 };
            (Actor::Member(number), [v4(group, number + 2), v6(group.into(), number + 2)])
        });
        let node = (Actor::Node, [v4(241, 1), v6(241, 1)]);
        let world =
            (Actor::World, [IpAddr::from([203, 0, 113, 7]), IpAddr::from([0x2001, 0xdb8, 0, 0, 0, 0, 0, 7])]);
        Self::new(members.chain([node, world]))
    }

    /// The address of somebody.
    #[must_use]
    pub fn of(&self, actor: Actor, is_v6: bool) -> Option<IpAddr> {
        let [v4, v6] = self.0.get(&actor)?;
        Some(if is_v6 { *v6 } else { *v4 })
    }

    /// Both addresses of somebody.
    #[must_use]
    pub fn both(&self, actor: Actor) -> Option<[IpAddr; 2]> {
        self.0.get(&actor).copied()
    }

    /// Learns somebody's addresses.
    pub fn put(&mut self, actor: Actor, addresses: [IpAddr; 2]) {
        self.0.insert(actor, addresses);
    }

    /// The text with `${x/a}` and `${x/a.6}` replaced by addresses.
    #[must_use]
    pub fn fill(&self, text: &str) -> String {
        self.0.iter().fold(text.to_owned(), |text, (actor, [v4, v6])| {
            text.replace(&format!("${{{actor}}}"), &v4.to_string())
                .replace(&format!("${{{actor}.6}}"), &v6.to_string())
        })
    }
}

/// What there is at one moment of a case.
#[derive(Clone, Debug)]
pub struct Scene {
    addresses: Addresses,
    labels: BTreeMap<String, BTreeMap<String, String>>,
    objects: BTreeMap<String, Value>,
}

impl Scene {
    /// The cluster without policies.
    #[must_use]
    pub fn new(addresses: Addresses) -> Self {
        let one = |key: &str, value: &str| BTreeMap::from([(key.to_owned(), value.to_owned())]);
        let namespaces = NAMESPACES.iter().map(|name| ((*name).to_owned(), one("ns", name)));
        let members = Actor::all().filter_map(|actor| Some((actor.to_string(), one("pod", actor.name()?.1))));
        Self { addresses, labels: namespaces.chain(members).collect(), objects: BTreeMap::new() }
    }

    /// Applies a step.
    pub fn apply(&mut self, step: &Step) {
        for object in &step.put {
            self.objects.insert(key(object), object.clone());
        }
        for key in &step.delete {
            self.objects.remove(key);
        }
        self.labels.extend(step.relabel.clone());
    }

    /// Whether there is such an object, or somebody with such a name.
    #[must_use]
    pub fn has(&self, name: &str) -> bool {
        self.objects.contains_key(name) || self.labels.contains_key(name)
    }

    /// The manifests of all there is, as documents.
    #[must_use]
    pub fn manifests(&self) -> Vec<String> {
        let none = BTreeMap::new();
        let labels = |name: &str| self.labels.get(name).unwrap_or(&none);
        let namespaces = NAMESPACES.iter().map(|name| {
            json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels(name)}})
        });
        let members = Actor::all().filter_map(|actor| self.member(actor, labels(&actor.to_string())));
        let all = namespaces.chain(members).chain(self.objects.values().cloned());
        all.map(|object| self.addresses.fill(&object.to_string())).collect()
    }

    fn member(&self, actor: Actor, labels: &BTreeMap<String, String>) -> Option<Value> {
        let (Actor::Member(number), Some((namespace, name))) = (actor, actor.name()) else { return None };
        let each = PORTS.iter().flat_map(|port| ["TCP", "UDP", "SCTP"].map(|protocol| (port, protocol)));
        let ports = |field: &str| -> Vec<Value> {
            let port = |(port, protocol): (&u16, &str)| {
                let name = format!("serve-{port}-{}", protocol.to_lowercase());
                json!({"name": name, field: port, "protocol": protocol})
            };
            each.clone().map(port).collect()
        };
        let metadata = |labels: Value| json!({"namespace": namespace, "name": name, "labels": labels});
        Some(if WORKLOADS.contains(&number) {
            json!({
                "apiVersion": "outrigger.dev/v1alpha1", "kind": "ExternalWorkloadGroup", "metadata": metadata(json!({})),
                "spec": {"template": {"labels": labels, "ports": ports("port")}},
            })
        } else {
            let address = |is_v6| self.addresses.of(actor, is_v6).map(|address| json!({"ip": address}));
            json!({
                "apiVersion": "v1", "kind": "Pod", "metadata": metadata(json!(labels)),
                "spec": {"nodeName": "node-1", "containers": [{"name": "main", "image": "none", "ports": ports("containerPort")}]},
                "status": {"podIPs": [address(false), address(true)]},
            })
        })
    }
}

/// What an object is called: `Kind/namespace/name`.
#[must_use]
pub fn key(object: &Value) -> String {
    let text = |path: &str| object.pointer(path).and_then(Value::as_str).unwrap_or_default();
    let parts = [text("/kind"), text("/metadata/namespace"), text("/metadata/name")];
    let parts: Vec<&str> = parts.into_iter().filter(|part| !part.is_empty()).collect();
    parts.join("/")
}
