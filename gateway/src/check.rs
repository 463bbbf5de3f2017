//! What manifests would do if they were in force: whether they are valid, whom they select, and which flows would be
//! decided differently. Pure but for [`File::open`]; nothing is put in force.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Read as _};
use std::path::Path;
use std::sync::Arc;

use policy::compare::{self, Difference};
use policy::facts::Facts;
use policy::identity::Identity;
use policy::labels::Labels;
use policy::resolve::{Resolved, UnusableIdentities, identity_labels, resolve};

use crate::index::parts;
use crate::manifest::{Object, ObjectKey, manifests, node};

mod answer;
mod show;
mod standing;
#[cfg(test)]
mod tests;

pub use answer::{answer, form};
pub use show::{Extent, as_json, as_text, refusals};
pub use standing::{Governed, Standing};

/// How many differences are told; a policy that isolates a large mesh has many.
const MOST_CHANGES: usize = 1000;

/// A file that is asked about.
#[derive(Clone, Debug)]
pub struct File {
    /// Its name.
    pub name: String,
    /// What is in it.
    pub text: String,
}

/// A file that cannot be read.
#[derive(Debug, thiserror::Error)]
#[error("{name} cannot be read: {source}")]
pub struct Unreadable {
    /// Its name.
    name: String,
    /// Why.
    source: io::Error,
}

/// An object of the files.
#[derive(Clone, Debug)]
pub struct Checked {
    /// The file.
    pub file: String,
    /// The line where it stands, or where it is wrong.
    pub line: u64,
    /// What it is called, and what it says; or why it is refused.
    pub object: Result<(ObjectKey, Object), Refusal>,
}

/// Why an object is refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// Its name, where that can be read.
    pub key: Option<ObjectKey>,
    /// What is wrong, with field and value.
    pub reason: String,
}

/// What the objects would do.
#[derive(Clone, Debug, Default)]
pub struct Effect {
    /// Whom each object selects, in the order of the objects; `None` = it is no policy.
    pub selects: Vec<Option<BTreeSet<Arc<str>>>>,
    /// What is valid and would surprise, and is not so without the objects.
    pub warnings: BTreeSet<String>,
    /// The flows of workloads that would be decided differently.
    pub changes: Vec<Change>,
    /// How many more there are.
    pub omitted: usize,
}

/// A difference for some workloads.
#[derive(Clone, Debug)]
pub struct Change {
    /// Who: workloads of one identity.
    pub workloads: BTreeSet<Arc<str>>,
    /// What.
    pub difference: Difference,
    /// Who has the address of the other end, where one does.
    pub remote_owner: Option<Arc<str>>,
}

impl File {
    /// Opens a file; `-` is standard input.
    ///
    /// # Errors
    /// [`Unreadable`].
    pub fn open(path: &Path) -> Result<Self, Unreadable> {
        let (name, text) = if path.as_os_str() == "-" {
            let mut text = String::new();
            ("standard input".to_owned(), io::stdin().read_to_string(&mut text).map(|_size| text))
        } else {
            (path.display().to_string(), std::fs::read_to_string(path))
        };
        match text {
            Ok(text) => Ok(Self { name, text }),
            Err(source) => Err(Unreadable { name, source }),
        }
    }
}

/// Reads the files; nothing that is wrong is left out.
#[must_use]
pub fn read(files: &[File]) -> Vec<Checked> {
    files.iter().flat_map(read_file).collect()
}

fn read_file(file: &File) -> Vec<Checked> {
    let checked = |line, object| Checked { file: file.name.clone(), line, object };
    let documents = match node::parse(&file.text) {
        Ok(documents) => documents,
        Err(invalid) => {
            let refusal = Refusal { key: None, reason: invalid.message };
            return vec![checked(invalid.position.line, Err(refusal))];
        }
    };
    let read = documents.into_iter().flat_map(manifests);
    read.map(|manifest| {
        let start = manifest.node.position.line;
        match (manifest.object, manifest.key) {
            (Ok(object), Some(key)) => checked(start, Ok((key, object))),
            (Err(invalid), key) => {
                let reason = format!("{}: {}", invalid.field, invalid.message);
                checked(invalid.position.line, Err(Refusal { key, reason }))
            }
            (Ok(_), None) => {
                let reason = "metadata.name: cannot be read".to_owned();
                checked(start, Err(Refusal { key: None, reason }))
            }
        }
    })
    .collect()
}

/// What the objects would do where these facts are in force. Objects that are refused do nothing; of those that are no
/// policies and no groups of blocks it is not told.
///
/// # Errors
/// [`UnusableIdentities`]; a defect.
pub fn effect(facts: &Facts, objects: &[Checked]) -> Result<Effect, UnusableIdentities> {
    let identities: BTreeMap<Labels, Identity> = identity_labels(facts).into_iter().zip(numbers()).collect();
    let mut after = facts.clone();
    for (key, object) in objects.iter().filter_map(|checked| checked.object.as_ref().ok()) {
        match object {
            Object::Policies(policies) => parts::replace(&mut after.policies, key, policies),
            Object::CidrGroup(group) => {
                after.cidr_groups.insert(key.name.as_str().into(), Arc::clone(group));
            }
            Object::Namespace(_)
            | Object::Pod(_)
            | Object::Service(_)
            | Object::EndpointSlice(_)
            | Object::Group(_)
            | Object::Workload(_) => {}
        }
    }
    let selects = objects.iter().map(|checked| selected(facts, checked)).collect();
    let (before, after) = (resolve(facts, &identities)?, resolve(&after, &identities)?);
    let mut changes = changes(facts, &identities, &before, &after);
    let omitted = changes.len().saturating_sub(MOST_CHANGES);
    changes.truncate(MOST_CHANGES);
    let warnings = after.warnings.difference(&before.warnings).cloned().collect();
    Ok(Effect { selects, warnings, changes, omitted })
}

/// Numbers for label sets; they are seen by nobody.
fn numbers() -> impl Iterator<Item = Identity> {
    (Identity::FIRST_ALLOCATED..=Identity::LAST_ALLOCATED).filter_map(|number| Identity::try_new(number).ok())
}

fn selected(facts: &Facts, checked: &Checked) -> Option<BTreeSet<Arc<str>>> {
    let Ok((_, Object::Policies(policies))) = &checked.object else { return None };
    let workloads = facts.workloads.iter().filter(|(_, workload)| !workload.role.is_cluster_node());
    let chosen = workloads.filter(|(_, workload)| {
        let labels = facts.labels_of_workload(workload);
        policies.iter().any(|policy| policy.subject.matches(&labels))
    });
    Some(chosen.map(|(name, _)| Arc::clone(name)).collect())
}

fn changes(
    facts: &Facts,
    identities: &BTreeMap<Labels, Identity>,
    before: &Resolved,
    after: &Resolved,
) -> Vec<Change> {
    let mut members: BTreeMap<Identity, BTreeSet<Arc<str>>> = BTreeMap::new();
    for (name, workload) in facts.workloads.iter().filter(|(_, workload)| !workload.role.is_cluster_node()) {
        if let Some(identity) = identities.get(&facts.labels_of_workload(workload)) {
            members.entry(*identity).or_default().insert(Arc::clone(name));
        }
    }
    let endpoints = &after.state.endpoints;
    let mut changes = Vec::new();
    for (identity, workloads) in members {
        let policies = before.state.policies.get(&identity).zip(after.state.policies.get(&identity));
        let Some((before, after)) = policies else { continue };
        let remotes = endpoints.iter().map(|(address, endpoint)| (*address, endpoint.identity));
        for difference in compare::differences(before, after, remotes) {
            let remote_owner = endpoints.get(&difference.remote).and_then(|endpoint| endpoint.owner.clone());
            changes.push(Change { workloads: workloads.clone(), difference, remote_owner });
        }
    }
    changes
}
