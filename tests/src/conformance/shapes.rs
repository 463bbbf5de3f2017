//! Systematic cases: every combination of the forms that an API has. What is expected of each is written beside the form,
//! as a plain question about the other end: an independent, naive reading.

#![expect(clippy::indexing_slicing, reason = "fields of JSON objects that are made here")]

mod cilium;
mod network;
mod tiers;

use serde_json::{Value, json};

use super::case::{Case, Feature, Step};
use super::cast::Actor;
use super::table::{Kind, Table, USUAL};

/// `x/a`, whom the policies of these cases govern.
const SUBJECT: Actor = Actor::Member(0);

/// All of them.
#[must_use]
pub fn features() -> Vec<Feature> {
    let mut all = network::features();
    all.extend(cilium::features());
    all.extend(tiers::features());
    all
}

/// Ingress or egress, and what the languages call the ends.
#[derive(Clone, Copy, Debug)]
struct Way {
    is_ingress: bool,
    /// `ingress`, `egress`.
    field: &'static str,
    /// `from`, `to`.
    peers: &'static str,
    /// `Ingress`, `Egress`.
    kind: &'static str,
}

const WAYS: [Way; 2] = [
    Way { is_ingress: true, field: "ingress", peers: "from", kind: "Ingress" },
    Way { is_ingress: false, field: "egress", peers: "to", kind: "Egress" },
];

/// The other end of a flow, as a naive reader sees it.
#[derive(Clone, Copy, Debug)]
struct Other {
    actor: Actor,
    namespace: &'static str,
    pod: &'static str,
    is_v6: bool,
    kind: Kind,
}

impl Other {
    fn is_member(&self) -> bool {
        !self.pod.is_empty()
    }

    fn is(&self, name: &str) -> bool {
        self.actor.to_string() == name
    }
}

/// A case about flows between `x/a` and everybody: `allowed` says which come about.
fn case(name: String, objects: Vec<Value>, way: Way, allowed: impl Fn(&Other) -> bool) -> Case {
    let mut rows = Vec::new();
    for actor in Actor::all().filter(|actor| *actor != SUBJECT) {
        let (namespace, pod) = actor.name().unwrap_or_default();
        for (is_v6, family) in [(false, "v4"), (true, "v6")] {
            let other = |kind| Other { actor, namespace, pod, is_v6, kind };
            let denied: Vec<String> =
                USUAL.iter().filter(|kind| !allowed(&other(**kind))).map(ToString::to_string).collect();
            let (from, to) = if way.is_ingress { (actor, SUBJECT) } else { (SUBJECT, actor) };
            if !denied.is_empty() {
                rows.push(format!("deny {from} -> {to} : {family} {}", denied.join(" ")));
            }
        }
    }
    Case { name, ..of_rows(objects, &rows) }
}

fn of_rows(objects: Vec<Value>, rows: &[String]) -> Case {
    // Rows that are made here are well-formed; one that were not would fail its case.
    let table = Table::parse(rows).unwrap_or_default();
    Case { steps: vec![Step { put: objects, table, ..Step::default() }], ..Case::default() }
}

fn network_policy(namespace: &str, name: &str, spec: &Value) -> Value {
    json!({
        "apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy",
        "metadata": {"namespace": namespace, "name": name}, "spec": spec,
    })
}

/// A NetworkPolicy for `x/a` with these rules of one direction.
fn for_subject(name: &str, way: Way, rules: &Value) -> Value {
    let select = json!({"matchLabels": {"pod": "a"}});
    network_policy("x", name, &json!({"podSelector": select, "policyTypes": [way.kind], way.field: rules}))
}
