//! Crates depend on each other in one direction, and the pure ones stay pure.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context as _, Result};
use cargo_metadata::{DependencyKind, Metadata, PackageId};

use super::Finding;
use crate::workspace;

/// How far each crate is from the packet. A crate may use those that are strictly nearer.
const RANKS: [(&str, u32); 16] = [
    ("config", 0),
    ("console", 0),
    ("crds", 0),
    ("datapath", 0),
    ("ebpf", 1),
    ("hostnet", 1),
    ("pki", 1),
    ("policy", 1),
    ("telemetry", 1),
    ("proto", 2),
    ("gateway", 3),
    ("vm-agent", 3),
    ("cli", 4),
    ("kubectl-outrigger", 4),
    ("e2e", 5),
    ("xtask", 5),
];

/// What a pure crate never reaches, not even by way of another.
const UNREACHABLE: [(&str, &[&str]); 2] = [
    ("policy", &["tokio", "tonic", "kube", "aya", "rustls", "hyper"]),
    ("datapath", &["tokio", "tonic", "kube", "aya", "aya-ebpf", "serde", "libc"]),
];

/// The only crates that `datapath` may use: it is built for the kernel.
const DATAPATH_USES: [&str; 1] = ["zerocopy"];

/// Who uses whom.
#[derive(Debug, Default)]
struct Uses {
    /// Crates of this workspace, with those that they use for any purpose.
    members: BTreeMap<String, BTreeSet<String>>,
    /// Crates of this workspace, with those that they use outside their tests.
    normal: BTreeMap<String, BTreeSet<String>>,
    /// Crates of this workspace, with all that is linked into them.
    reached: BTreeMap<String, BTreeSet<String>>,
}

pub(super) fn check() -> Result<Vec<Finding>> {
    let uses = Uses::read(&workspace::metadata()?)?;
    Ok([uses.upward(), uses.impure(), uses.beyond_zerocopy()].concat())
}

impl Uses {
    fn read(metadata: &Metadata) -> Result<Self> {
        let mut uses = Self::default();
        for package in metadata.workspace_packages() {
            let name = package.name.to_string();
            let members = package.dependencies.iter().filter(|dependency| dependency.path.is_some());
            let normal =
                package.dependencies.iter().filter(|dependency| dependency.kind == DependencyKind::Normal);
            uses.members.insert(name.clone(), members.map(|dependency| dependency.name.clone()).collect());
            uses.normal.insert(name.clone(), normal.map(|dependency| dependency.name.clone()).collect());
            uses.reached.insert(name, reached(metadata, &package.id)?);
        }
        Ok(uses)
    }

    /// Crates that use one of their own rank or above.
    fn upward(&self) -> Vec<Finding> {
        let ranks = BTreeMap::from(RANKS);
        let mut findings = Vec::new();
        for (name, used) in &self.members {
            let Some(rank) = ranks.get(name.as_str()) else {
                findings.push(Finding::new(name, "has no rank in xtask/src/gate/direction.rs"));
                continue;
            };
            let wrong = used.iter().filter(|used| ranks.get(used.as_str()).is_none_or(|below| below >= rank));
            findings.extend(wrong.map(|used| Finding::new(name, format!("may not use `{used}`"))));
        }
        findings
    }

    /// Pure crates that reach what has a runtime, a network or a kernel in it.
    fn impure(&self) -> Vec<Finding> {
        let banned =
            UNREACHABLE.into_iter().flat_map(|(name, banned)| banned.iter().map(move |other| (name, *other)));
        let reached =
            banned.filter(|(name, other)| self.reached.get(*name).is_some_and(|all| all.contains(*other)));
        reached.map(|(name, other)| Finding::new(name, format!("is pure, yet reaches `{other}`"))).collect()
    }

    /// What `datapath` uses beside the one crate it may use.
    fn beyond_zerocopy(&self) -> Vec<Finding> {
        let used = self.normal.get("datapath").into_iter().flatten();
        let more = used.filter(|used| !DATAPATH_USES.contains(&used.as_str()));
        more.map(|used| Finding::new("datapath", format!("may use only zerocopy, not `{used}`"))).collect()
    }
}

/// Names of all packages that are linked into `start`.
fn reached(metadata: &Metadata, start: &PackageId) -> Result<BTreeSet<String>> {
    let resolve = metadata.resolve.as_ref().context("cargo metadata resolved nothing")?;
    let edges: BTreeMap<_, _> = resolve.nodes.iter().map(|node| (&node.id, node)).collect();
    let names: BTreeMap<_, _> =
        metadata.packages.iter().map(|package| (&package.id, &package.name)).collect();
    let (mut seen, mut open) = (BTreeSet::new(), vec![start]);
    while let Some(id) = open.pop() {
        for dependency in edges.get(id).map(|node| node.deps.as_slice()).unwrap_or_default() {
            let linked = dependency.dep_kinds.iter().any(|kind| kind.kind == DependencyKind::Normal);
            if linked && seen.insert(&dependency.pkg) {
                open.push(&dependency.pkg);
            }
        }
    }
    Ok(seen.into_iter().filter_map(|id| names.get(id)).map(ToString::to_string).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn graph(edges: &[(&str, &[&str])]) -> BTreeMap<String, BTreeSet<String>> {
        let owned = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        edges.iter().map(|(name, used)| ((*name).to_owned(), owned(used))).collect()
    }

    #[test]
    fn daemons_that_use_each_other_are_found() {
        let members = graph(&[("vm-agent", &["gateway", "policy"]), ("policy", &["datapath"])]);
        let uses = Uses { members, ..Uses::default() };
        assert_eq!(uses.upward(), [Finding::new("vm-agent", "may not use `gateway`")]);
    }

    #[test]
    fn a_crate_without_a_rank_is_found() {
        let uses = Uses { members: graph(&[("common", &[])]), ..Uses::default() };
        assert_eq!(uses.upward(), [Finding::new("common", "has no rank in xtask/src/gate/direction.rs")]);
    }

    #[test]
    fn a_runtime_under_a_pure_crate_is_found() {
        let uses = Uses { reached: graph(&[("policy", &["ipnet", "tokio"])]), ..Uses::default() };
        assert_eq!(uses.impure(), [Finding::new("policy", "is pure, yet reaches `tokio`")]);
    }

    #[test]
    fn a_second_dependency_of_the_datapath_is_found() {
        let uses = Uses { normal: graph(&[("datapath", &["bitflags", "zerocopy"])]), ..Uses::default() };
        assert_eq!(
            uses.beyond_zerocopy(),
            [Finding::new("datapath", "may use only zerocopy, not `bitflags`")]
        );
    }
}
