//! Definitions of custom resources: what they serve, and what is wrong with them.

use std::sync::Arc;

use serde_json::{Value, json};

use super::failure::{Answer, Cause, Failure};
use super::kind::{Bucket, Kind, Shape};
use super::object;
use super::schema::Schema;
use super::state::State;

/// Where definitions are kept.
pub(super) fn bucket() -> Bucket {
    Bucket { group: "apiextensions.k8s.io".to_owned(), plural: "customresourcedefinitions".to_owned() }
}

/// The kinds that a definition serves, one for each served version; an error names all that is wrong with it.
pub(super) fn kinds(definition: &Kind, crd: &Value) -> Answer<Vec<Kind>> {
    let mut causes = Vec::new();
    let kinds = read(crd, &mut causes);
    if causes.is_empty() { Ok(kinds) } else { Err(Failure::invalid(definition, object::name(crd), &causes)) }
}

fn read(crd: &Value, causes: &mut Vec<Cause>) -> Vec<Kind> {
    let (group, plural) = (object::text(crd, "/spec/group"), object::text(crd, "/spec/names/plural"));
    if object::name(crd) != format!("{plural}.{group}") {
        let message =
            format!("Invalid value: {:?}: must be spec.names.plural+\".\"+spec.group", object::name(crd));
        causes.push(Cause::invalid("metadata.name", message));
    }
    for (pointer, field) in [
        ("/spec/group", "spec.group"),
        ("/spec/names/plural", "spec.names.plural"),
        ("/spec/names/kind", "spec.names.kind"),
    ] {
        if object::text(crd, pointer).is_empty() {
            causes.push(Cause::required(field, ""));
        }
    }
    let scope = object::text(crd, "/spec/scope");
    if !["Namespaced", "Cluster"].contains(&scope) {
        let message = format!("Unsupported value: {scope:?}: supported values: \"Cluster\", \"Namespaced\"");
        causes.push(Cause::invalid("spec.scope", message));
    }
    if !["", "None"].contains(&object::text(crd, "/spec/conversion/strategy")) {
        causes
            .push(Cause::invalid("spec.conversion.strategy", "the API double does not know how to convert"));
    }
    let versions = object::list(crd, "/spec/versions");
    if versions.iter().filter(|version| flag(version, "storage")).count() != 1 {
        let message = "Invalid value: must have exactly one version marked as storage version";
        causes.push(Cause::invalid("spec.versions", message));
    }
    let served: Vec<Option<Kind>> =
        versions.iter().enumerate().map(|(index, version)| version_of(crd, index, version, causes)).collect();
    served.into_iter().flatten().collect()
}

/// The kind of a version; none if it is not served, or wrong.
fn version_of(crd: &Value, index: usize, version: &Value, causes: &mut Vec<Cause>) -> Option<Kind> {
    let path = format!("spec.versions[{index}]");
    let schema_path = format!("{path}.schema.openAPIV3Schema");
    let subresources = version.get("subresources").and_then(Value::as_object);
    for unknown in subresources.into_iter().flat_map(|map| map.keys()).filter(|key| *key != "status") {
        let message = "the API double does not know this subresource";
        causes.push(Cause::invalid(format!("{path}.subresources.{unknown}"), message));
    }
    let Some(schema) = version.pointer("/schema/openAPIV3Schema") else {
        causes.push(Cause::required(schema_path, "schemas are required"));
        return None;
    };
    let schema = match Schema::root(schema, &schema_path) {
        Ok(schema) => schema,
        Err(found) => {
            causes.extend(found);
            return None;
        }
    };
    let texts = |pointer: &str| {
        object::list(crd, pointer)
            .iter()
            .filter_map(Value::as_str)
            .map(str::to_owned)
            .collect::<Vec<String>>()
    };
    let kind = object::text(crd, "/spec/names/kind").to_owned();
    let singular = object::text(crd, "/spec/names/singular");
    flag(version, "served").then(|| Kind {
        group: object::text(crd, "/spec/group").to_owned(),
        version: object::text(version, "/name").to_owned(),
        plural: object::text(crd, "/spec/names/plural").to_owned(),
        singular: if singular.is_empty() { kind.to_lowercase() } else { singular.to_owned() },
        short: texts("/spec/names/shortNames"),
        categories: texts("/spec/names/categories"),
        namespaced: object::text(crd, "/spec/scope") == "Namespaced",
        status: subresources.is_some_and(|map| map.contains_key("status")),
        generation: true,
        review: false,
        shape: Shape::Custom(Arc::new(schema)),
        kind,
    })
}

fn flag(value: &Value, key: &str) -> bool {
    value.get(key).and_then(Value::as_bool).unwrap_or(false)
}

/// Completes a definition that is about to be stored: it is established at once.
pub(super) fn established(crd: &mut Value) {
    let mut names = crd.pointer("/spec/names").cloned().unwrap_or_default();
    let kind = object::text(&names, "/kind").to_owned();
    for (key, name) in [("singular", kind.to_lowercase()), ("listKind", format!("{kind}List"))] {
        object::map_mut(&mut names).entry(key).or_insert_with(|| name.into());
    }
    let storage = object::list(crd, "/spec/versions").iter().find(|version| flag(version, "storage"));
    let storage = storage.and_then(|version| version.get("name")).cloned().unwrap_or_default();
    let mut stored: Vec<Value> = object::list(crd, "/status/storedVersions").to_vec();
    if !stored.contains(&storage) {
        stored.push(storage);
    }
    let since = object::list(crd, "/status/conditions")
        .iter()
        .map(|condition| object::text(condition, "/lastTransitionTime"));
    let since = since.map(str::to_owned).next().unwrap_or_else(object::now);
    let condition = |what: &str, reason: &str, message: &str| json!({"type": what, "status": "True", "reason": reason, "message": message, "lastTransitionTime": since});
    let status = json!({
        "acceptedNames": names,
        "storedVersions": stored,
        "conditions": [
            condition("NamesAccepted", "NoConflicts", "no conflicts found"),
            condition("Established", "InitialNamesAccepted", "the initial names have been accepted"),
        ],
    });
    if let Some(spec) = crd.pointer_mut("/spec") {
        object::map_mut(spec).insert("names".to_owned(), names);
        object::map_mut(spec).entry("conversion").or_insert_with(|| json!({"strategy": "None"}));
    }
    object::map_mut(crd).insert("status".to_owned(), status);
}

impl State {
    /// Serves what a definition says, and no longer what it said before.
    pub(super) fn serve(&mut self, crd: &Value) -> Answer<()> {
        let definition = self.kinds.of(&bucket()).ok_or_else(Failure::unknown_path)?;
        let kinds = kinds(&definition, crd)?;
        self.kinds.remove(&instances(crd));
        for kind in kinds {
            self.kinds.insert(kind);
        }
        Ok(())
    }

    /// Serves all stored definitions.
    pub(super) fn serve_all(&mut self) -> Answer<()> {
        self.kinds = super::kinds::Kinds::built_in();
        let all: Vec<Arc<Value>> = self.store.list(&bucket()).cloned().collect();
        all.iter().try_for_each(|crd| self.serve(crd))
    }

    /// A definition is gone, and all its objects are.
    pub(super) fn unserve(&mut self, crd: &Value) -> Answer<()> {
        let instances = instances(crd);
        let all: Vec<Arc<Value>> = self.store.list(&instances).cloned().collect();
        for object in all {
            self.remove(&instances, object::namespace(&object), object::name(&object))?;
        }
        self.kinds.remove(&instances);
        Ok(())
    }
}

/// Where its objects are kept.
fn instances(crd: &Value) -> Bucket {
    let [group, plural] =
        ["/spec/group", "/spec/names/plural"].map(|pointer| object::text(crd, pointer).to_owned());
    Bucket { group, plural }
}
