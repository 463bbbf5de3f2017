//! Tiers and priorities: `ClusterNetworkPolicy`, `AdminNetworkPolicy` and `BaselineAdminNetworkPolicy` above and below what
//! teams write.

use serde_json::{Value, json};

use super::{WAYS, Way, case, for_subject};
use crate::conformance::case::{Case, Feature};

/// What a rule of a tier says; `None`: there is no such object.
type Said = Option<&'static str>;

pub(super) fn features() -> Vec<Feature> {
    let feature = |name: &str, cases| Feature { name: name.to_owned(), cases };
    vec![
        feature("ClusterNetworkPolicy tiers", tiers()),
        feature("ClusterNetworkPolicy priorities", priorities()),
        feature("AdminNetworkPolicy", admin()),
    ]
}

fn cluster(name: &str, tier: &str, priority: u16, action: &str, namespace: &str, way: Way) -> Value {
    let peers = json!([{"namespaces": {"matchLabels": {"ns": namespace}}}]);
    json!({
        "apiVersion": "policy.networking.k8s.io/v1alpha2", "kind": "ClusterNetworkPolicy",
        "metadata": {"name": name},
        "spec": {
            "tier": tier, "priority": priority, "subject": subject(),
            way.field: [{"action": action, way.peers: peers}],
        },
    })
}

fn old(kind: &str, name: &str, action: &str, namespace: &str, way: Way) -> Value {
    let peers = json!([{"namespaces": {"matchLabels": {"ns": namespace}}}]);
    let mut object = json!({
        "apiVersion": "policy.networking.k8s.io/v1alpha1", "kind": kind, "metadata": {"name": name},
        "spec": {"subject": subject(), way.field: [{"action": action, way.peers: peers}]},
    });
    if kind == "AdminNetworkPolicy" {
        object["spec"]["priority"] = json!(50);
    }
    object
}

fn subject() -> Value {
    json!({"pods": {"namespaceSelector": {"matchLabels": {"ns": "x"}}, "podSelector": {"matchLabels": {"pod": "a"}}}})
}

/// What a team says: nothing, everything is allowed, nothing is.
fn team(said: Said, way: Way) -> Option<Value> {
    said.map(|said| for_subject("team", way, &if said == "Accept" { json!([{}]) } else { json!([]) }))
}

/// The tiers as the documents of the API describe them, for a peer that all of them are about.
fn decides(admin: Said, team: Said, baseline: Said) -> bool {
    match (admin, team) {
        (Some("Accept" | "Allow"), _) => true,
        (Some("Deny"), _) => false,
        (_, Some(said)) => said == "Accept",
        (_, None) => baseline != Some("Deny"),
    }
}

/// Above is said something about namespace y, below about y too; z is nobody's concern but the team's.
fn tiers() -> Vec<Case> {
    let mut cases = Vec::new();
    let said = [None, Some("Accept"), Some("Deny"), Some("Pass")];
    for way in WAYS {
        for above in said {
            for below in said {
                for between in [None, Some("Accept"), Some("Deny")] {
                    let mut objects: Vec<Value> = team(between, way).into_iter().collect();
                    objects.extend(above.map(|action| cluster("above", "Admin", 10, action, "y", way)));
                    objects.extend(below.map(|action| cluster("below", "Baseline", 10, action, "y", way)));
                    let name =
                        format!("{}: admin {above:?}, team {between:?}, baseline {below:?}", way.field);
                    cases.push(case(name, objects, way, |other| match other.namespace {
                        "y" => decides(above, between, below),
                        _ => decides(None, between, None),
                    }));
                }
            }
        }
    }
    cases
}

/// Of two objects of a tier the one with the lower number decides; of equal ones deny before pass before accept.
fn priorities() -> Vec<Case> {
    const ACTIONS: [&str; 3] = ["Deny", "Pass", "Accept"];
    let mut cases = Vec::new();
    let way = WAYS[0];
    for (first, one) in ACTIONS.into_iter().enumerate() {
        for (second, two) in ACTIONS.into_iter().enumerate() {
            for (of_one, of_two) in [(10, 20), (20, 10), (10, 10), (0, 1000)] {
                let winner = match of_one.cmp(&of_two) {
                    std::cmp::Ordering::Equal if first > second => two,
                    std::cmp::Ordering::Less | std::cmp::Ordering::Equal => one,
                    std::cmp::Ordering::Greater => two,
                };
                for between in ["Accept", "Deny"] {
                    let mut objects = vec![
                        cluster("one", "Admin", of_one, one, "y", way),
                        cluster("two", "Admin", of_two, two, "y", way),
                    ];
                    objects.extend(team(Some(between), way));
                    let name = format!("{one} at {of_one}, {two} at {of_two}, team {between}");
                    cases.push(case(name, objects, way, |other| match other.namespace {
                        "y" => decides(Some(winner), Some(between), None),
                        _ => between == "Accept",
                    }));
                }
            }
        }
    }
    cases
}

/// The kinds that came before, in the same tiers.
fn admin() -> Vec<Case> {
    let mut cases = Vec::new();
    for way in WAYS {
        for above in [None, Some("Allow"), Some("Deny"), Some("Pass")] {
            for below in [None, Some("Allow"), Some("Deny")] {
                for between in [None, Some("Accept"), Some("Deny")] {
                    let mut objects: Vec<Value> = team(between, way).into_iter().collect();
                    objects.extend(above.map(|action| old("AdminNetworkPolicy", "above", action, "y", way)));
                    objects.extend(
                        below.map(|action| old("BaselineAdminNetworkPolicy", "default", action, "y", way)),
                    );
                    let name =
                        format!("{}: admin {above:?}, team {between:?}, baseline {below:?}", way.field);
                    cases.push(case(name, objects, way, |other| match other.namespace {
                        "y" => decides(above, between, below),
                        _ => decides(None, between, None),
                    }));
                }
            }
        }
    }
    cases
}
