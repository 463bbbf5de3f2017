//! What the mesh is made of: manifests of which some are in the folder, and hosts that may have joined.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use anyhow::{Context as _, Result, anyhow};
use gateway::manifest::{Manifest, Object, ObjectKey};
use gateway::source::Change;
use gateway::store::{Workload, Workloads};

use crate::compiler;

/// Every version of every object that the folder may have; `None`: it is not there.
pub struct Library(Vec<Vec<Option<(ObjectKey, Object)>>>);

/// The folder.
#[derive(Clone)]
pub(super) struct Source {
    library: Arc<Library>,
    chosen: Vec<usize>,
}

/// The machines there are. The last two are one workload: whichever joined last has its name.
const HOSTS: [(&str, Option<&str>, &str, &str); 5] = [
    ("db-1", Some("db"), "10.9.0.1", "192.0.2.1"),
    ("web-1", Some("web"), "10.9.0.2", "192.0.2.2"),
    ("n1", None, "10.9.0.3", "192.0.2.3"),
    ("db-2", Some("db"), "10.9.0.4", "192.0.2.4"),
    ("db-2", Some("db"), "10.9.0.4", "192.0.2.5"),
];

/// How many these are.
pub(super) const MACHINES: usize = HOSTS.len();

/// The workload that a machine joins as, with a key of that number: every join makes a new one.
pub(super) fn workload(machine: usize, key: usize) -> Result<Arc<Workload>> {
    let (name, group, address, underlay) = HOSTS.get(machine).context("a machine")?;
    Ok(Arc::new(compiler::workload(name, *group, address, underlay, u8::try_from(key)?)?))
}

/// The machines that have joined at first: one for each workload.
pub(super) fn joined() -> Result<Workloads> {
    let first = (0..MACHINES - 1).map(|machine| workload(machine, machine));
    first.map(|workload| workload.map(|workload| (workload.name.clone(), workload))).collect()
}

impl Library {
    /// Reads all manifests.
    pub fn read() -> Result<Self> {
        let mut all = Vec::new();
        for (name, node, address, other) in [
            ("a", "n1", "10.1.0.1", "10.1.0.2"),
            ("b", "n1", "10.1.0.2", "10.1.0.1"),
            ("c", "n2", "10.1.0.3", "10.1.0.4"),
        ] {
            let pod = |app: &str, address| compiler::pod(name, &format!("{{app: {app}}}"), node, address);
            let texts = [
                Some(pod("web", address)),
                Some(pod("api", address)),
                Some(pod("job", address)),
                None,
                Some(pod("web", other)),
            ];
            all.push(versions(&texts)?);
        }
        for name in ["db", "web"] {
            let group = |tier: &str| Some(compiler::group(name, &format!("{{app: {name}, tier: {tier}}}")));
            all.push(versions(&[group("one"), group("two"), group("three")])?);
        }
        all.push(versions(&[
            None,
            Some(policy("db", "{podSelector: {matchLabels: {app: web}}}")),
            Some(policy("db", "{podSelector: {matchLabels: {app: api}}}")),
            Some(policy("db", "{ipBlock: {cidr: 10.1.0.0/30, except: [10.1.0.2/32]}}")),
        ])?);
        all.push(versions(&[None, Some(policy("web", "{podSelector: {matchLabels: {tier: two}}}"))])?);
        let namespace = |team: &str| {
            format!("{{apiVersion: v1, kind: Namespace, metadata: {{name: shop, labels: {{team: {team}}}}}}}")
        };
        all.push(versions(&[Some(namespace("blue")), Some(namespace("red"))])?);
        Ok(Self(all))
    }
}

fn policy(app: &str, from: &str) -> String {
    format!(
        "{{apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: {{name: {app}, namespace: shop}}, \
         spec: {{podSelector: {{matchLabels: {{app: {app}}}}}, ingress: [{{from: [{from}]}}]}}}}"
    )
}

fn versions(texts: &[Option<String>]) -> Result<Vec<Option<(ObjectKey, Object)>>> {
    let read = |text: &String| {
        let Manifest { key, object, .. } =
            compiler::read(text)?.into_iter().next().context("one object in a text")?;
        let object = object.map_err(|error| anyhow!("{error}"))?;
        Ok((key.context("an object without a name")?, object))
    };
    texts.iter().map(|text| text.as_ref().map(read).transpose()).collect()
}

/// Whether two pods have one address: who of them has it is forgotten with the gateway's process.
pub(super) fn is_contested(objects: &BTreeMap<ObjectKey, Object>) -> bool {
    let pods = objects.values().filter_map(|object| match object {
        Object::Pod(pod) => Some(pod),
        Object::Namespace(_)
        | Object::Policies(_)
        | Object::CidrGroup(_)
        | Object::Service(_)
        | Object::EndpointSlice(_)
        | Object::Group(_)
        | Object::Workload(_) => None,
    });
    let mut addresses = BTreeSet::new();
    pods.flat_map(|pod| &pod.addresses).any(|address| !addresses.insert(*address))
}

impl Source {
    /// The folder with the first version of everything.
    #[must_use]
    pub(super) fn new(library: Arc<Library>) -> Self {
        let chosen = vec![0; library.0.len()];
        Self { library, chosen }
    }

    /// Saves another version of an object. What becomes of an object is told once the folder is read.
    pub(super) fn save(&mut self, object: usize, version: usize) {
        let count = self.chosen.len().max(1);
        let at = object % count;
        let versions = self.library.0.get(at).map_or(1, Vec::len);
        if let Some(chosen) = self.chosen.get_mut(at) {
            *chosen = version % versions;
        }
    }

    /// What the folder has now.
    #[must_use]
    pub(super) fn objects(&self) -> BTreeMap<ObjectKey, Object> {
        let chosen = self.library.0.iter().zip(&self.chosen);
        chosen.filter_map(|(versions, chosen)| versions.get(*chosen).cloned().flatten()).collect()
    }

    /// What leads from what was read before to what the folder has now.
    #[must_use]
    pub(super) fn changes(&self, read: &BTreeMap<ObjectKey, Object>) -> Vec<Change> {
        let now = self.objects();
        let gone = read.keys().filter(|key| !now.contains_key(*key)).cloned().map(Change::Delete);
        let put = now.iter().filter(|(key, object)| read.get(*key) != Some(*object));
        gone.chain(put.map(|(key, object)| Change::Put(key.clone(), object.clone()))).collect()
    }
}

impl std::fmt::Debug for Source {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Source").field("chosen", &self.chosen).finish_non_exhaustive()
    }
}
