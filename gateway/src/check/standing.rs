//! A cluster as a gateway would take it that starts now and knows nothing from before: whose numbers, addresses that rest
//! and last valid versions are not in it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crds::ExternalWorkload;
use policy::facts::Facts;
use policy::identity::Identity;
use policy::labels::Labels;
use policy::resolve::UnusableIdentities;
use policy::state::Default as Verdict;
use proto::v1;

use super::answer::response;
use super::{Checked, Effect, Refusal, numbers, selected};
use crate::index::{Compiled, Index, MeshSettings};
use crate::ledger;
use crate::manifest::{Kind, ObjectKey};
use crate::source::catalog::{Catalog, FileChange};
use crate::source::{Instead, Rejected};
use crate::store::{WorkloadName, Workloads};

/// A cluster, and what follows from it.
#[derive(Debug)]
pub struct Standing {
    catalog: Catalog,
    facts: Facts,
    compiled: Compiled,
    numbers: Arc<BTreeMap<Labels, Identity>>,
}

/// What the cluster says of a host.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Governed {
    /// Its identity labels in Cilium's serialised form.
    pub labels: String,
    /// What selects it, `Kind/namespace/name`.
    pub policies: BTreeSet<String>,
    /// Whether what no rule allows toward it is refused.
    pub ingress_default_deny: bool,
    /// Whether what no rule allows from it is refused.
    pub egress_default_deny: bool,
    /// Objects that concern it and are refused.
    pub rejected: Vec<String>,
    /// What its policies do not do as they are written.
    pub partly_enforced: Vec<String>,
}

impl Standing {
    /// Takes what a cluster has. `cluster` is its name, a label of every identity.
    ///
    /// # Errors
    /// [`UnusableIdentities`]; a defect.
    pub fn of(objects: Vec<FileChange>, cluster: &str) -> Result<Self, UnusableIdentities> {
        let workloads = joined(&objects);
        let mut catalog = Catalog::default();
        let mut index = Index::new(MeshSettings {
            cluster: cluster.to_owned(),
            pools: Vec::new(),
            pod_prefixes: Vec::new(),
            tunnel_port: 0,
        });
        for change in catalog.apply(objects) {
            index.apply(change);
        }
        index.set_rejected(catalog.rejected());
        index.set_workloads(Arc::new(workloads));
        index.refresh();
        let numbers = Arc::new(index.labels().cloned().zip(numbers()).collect::<BTreeMap<_, _>>());
        let compiled = index.compile(&numbers, None)?;
        Ok(Self { catalog, facts: index.facts().clone(), compiled, numbers })
    }

    /// The facts, for [`super::answer`].
    #[must_use]
    pub const fn facts(&self) -> &Facts {
        &self.facts
    }

    /// What the cluster has and would not be in force as it is written, one line each.
    #[must_use]
    pub fn rejected(&self) -> Vec<String> {
        self.catalog.rejected().iter().map(told).collect()
    }

    /// What policies, and groups of blocks, of these namespaces do; those without a namespace are among them.
    #[must_use]
    pub fn in_force(&self, is_wanted: impl Fn(&str) -> bool) -> v1::CheckPolicyResponse {
        let is_meant = |key: &ObjectKey| {
            (key.kind.is_policy() || key.kind == Kind::CiliumCidrGroup)
                && (key.namespace.is_empty() || is_wanted(&key.namespace))
        };
        let checked = |object| Checked { file: String::new(), line: 0, object };
        let rejected: Vec<_> = self.catalog.rejected();
        let is_valid = |key: &ObjectKey| !rejected.iter().any(|rejected| rejected.key.as_ref() == Some(key));
        let valid = self.catalog.in_force().iter().filter(|(key, _)| is_meant(key) && is_valid(key));
        let mut objects: Vec<_> =
            valid.map(|(key, object)| checked(Ok((key.clone(), object.clone())))).collect();
        for rejected in rejected.iter().filter(|rejected| rejected.key.as_ref().is_some_and(is_meant)) {
            let (key, reason) = (rejected.key.clone(), reason(rejected));
            objects.push(checked(Err(Refusal { key, reason })));
        }
        let selects = objects.iter().map(|checked| selected(&self.facts, checked)).collect();
        let warnings = self.compiled.warnings.clone();
        let effect = Effect { selects, warnings, ..Effect::default() };
        response(&objects, effect, |_key| false)
    }

    /// What governs a host; `None` where none of that name has joined, or its group is missing.
    #[must_use]
    pub fn governed(&self, name: &WorkloadName) -> Option<Governed> {
        let workload = self.facts.workloads.get(name.to_string().as_str())?;
        let labels = self.facts.labels_of_workload(workload);
        let selecting = self.facts.policies.values().filter(|policy| policy.subject.matches(&labels));
        let whole = |origin: &str| origin.split_once('#').map_or(origin, |(object, _)| object).to_owned();
        let policy = self.numbers.get(&labels).and_then(|number| self.compiled.state.policies.get(number));
        let settings = self.compiled.nodes.get(name);
        Some(Governed {
            labels: labels.to_string(),
            policies: selecting.map(|policy| whole(&policy.origin)).collect(),
            ingress_default_deny: policy.is_some_and(|policy| is_denied(&policy.ingress.default)),
            egress_default_deny: policy.is_some_and(|policy| is_denied(&policy.egress.default)),
            rejected: settings.map(|settings| settings.rejected.clone()).unwrap_or_default(),
            partly_enforced: settings.map(|settings| settings.partly_enforced.clone()).unwrap_or_default(),
        })
    }
}

/// The hosts that joined.
fn joined(objects: &[FileChange]) -> Workloads {
    let hosts = objects.iter().filter_map(|object| match object {
        FileChange::Object(name, value) if name.starts_with("ExternalWorkload/") => {
            serde_json::from_value::<ExternalWorkload>(value.clone()).ok()
        }
        FileChange::Object(..) | FileChange::Text(..) | FileChange::Unreadable(..) | FileChange::Gone(..) => {
            None
        }
    });
    let workloads = ledger::hosts(hosts).into_iter();
    workloads.map(|workload| (workload.name.clone(), Arc::new(workload))).collect()
}

const fn is_denied(default: &Verdict) -> bool {
    matches!(default, Verdict::Deny { .. })
}

fn told(rejected: &Rejected) -> String {
    let name = rejected.key.as_ref().map_or_else(|| rejected.file.clone(), ToString::to_string);
    format!("{name} is refused: {}", reason(rejected))
}

fn reason(rejected: &Rejected) -> String {
    let instead = match rejected.instead {
        Instead::Isolation => " (what it selects is isolated, or its last valid version stays in force)",
        Instead::Unreadable => " (no selector that asks for its labels matches it)",
        Instead::Nothing | Instead::LastGood | Instead::Other => "",
    };
    format!("{}{instead}", rejected.reason)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::super::{File, answer};
    use super::*;

    fn object(kind: &str, value: Value) -> FileChange {
        let name = |key: &str| value["metadata"][key].as_str().unwrap_or_default().to_owned();
        let parts = [kind.to_owned(), name("namespace"), name("name")];
        let name = parts.iter().filter(|part| !part.is_empty()).cloned().collect::<Vec<_>>().join("/");
        FileChange::Object(name, value)
    }

    fn policy(name: &str, spec: &Value) -> Value {
        json!({"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy",
            "metadata": {"namespace": "shop", "name": name}, "spec": spec})
    }

    fn cluster(policies: &[Value]) -> Standing {
        let own = |kind: &str, name: &str, spec: Value| {
            object(
                kind,
                json!({"apiVersion": "outrigger.dev/v1alpha1", "kind": kind,
                    "metadata": {"namespace": "shop", "name": name}, "spec": spec}),
            )
        };
        let recorded = json!({"keyHash": "7".repeat(64), "machine": "", "joinedAt": "2026-01-01T00:00:00Z"});
        let mut objects = vec![
            own("ExternalWorkloadGroup", "db", json!({"template": {"labels": {"app": "db"}}})),
            own(
                "ExternalWorkload",
                "db-1",
                json!({"group": "db", "addresses": ["10.9.0.1"], "recorded": recorded}),
            ),
            own("ExternalWorkload", "later", json!({"group": "db"})),
        ];
        objects.extend(policies.iter().map(|policy| object("NetworkPolicy", policy.clone())));
        Standing::of(objects, "default").unwrap()
    }

    #[test]
    fn a_host_is_governed_by_what_selects_it() {
        let standing = cluster(&[
            policy("db", &json!({"podSelector": {"matchLabels": {"app": "db"}}})),
            policy("web", &json!({"podSelector": {"matchLabels": {"app": "web"}}})),
        ]);
        let governed = standing.governed(&"shop/db-1".parse().unwrap()).unwrap();
        assert!(governed.labels.contains("k8s:app=db;"), "{governed:?}");
        assert_eq!(governed.policies, BTreeSet::from(["NetworkPolicy/shop/db".to_owned()]));
        assert!(governed.ingress_default_deny && !governed.egress_default_deny);
        assert_eq!(standing.governed(&"shop/later".parse().unwrap()), None, "nobody joined");
    }

    #[test]
    fn what_is_refused_is_told_and_isolates() {
        let odd = policy("odd", &json!({"podSelector": {}, "constraint": 1}));
        let standing = cluster(&[policy("db", &json!({"podSelector": {}})), odd]);
        let answer = standing.in_force(|namespace| namespace == "shop");
        let lines = super::super::as_text(&answer, super::super::Extent::InForce);
        assert!(lines.contains(&"NetworkPolicy/shop/db: valid, selects shop/db-1".to_owned()), "{lines:?}");
        assert!(
            lines.iter().any(|line| line.starts_with("NetworkPolicy/shop/odd: refused: spec.constraint")),
            "{lines:?}"
        );
        assert_eq!(standing.in_force(|_other| false).objects, []);
        assert_eq!(standing.rejected().len(), 1);
        let governed = standing.governed(&"shop/db-1".parse().unwrap()).unwrap();
        assert!(governed.policies.contains("NetworkPolicy/shop/odd"), "{governed:?}");
        assert_eq!(governed.rejected.len(), 1, "{governed:?}");
    }

    #[test]
    fn files_are_checked_against_it() {
        let standing = cluster(&[]);
        let text = policy("db", &json!({"podSelector": {}})).to_string();
        let answer = answer(standing.facts(), &[File { name: "new".to_owned(), text }]).unwrap();
        assert_eq!(answer.objects[0].selects, ["shop/db-1"]);
        assert!(answer.changes.iter().all(|change| change.after == "deny"), "{answer:?}");
        assert!(!answer.changes.is_empty());
    }
}
