//! A kind of objects that is served: its names and what may be done with it.

use std::sync::Arc;

use serde_json::Value;

use super::schema::Schema;

/// Where objects of one kind are kept, whatever version they are asked for in.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Bucket {
    pub(super) group: String,
    pub(super) plural: String,
}

/// What a kind is checked and completed with before it is stored; the error is a text for a person.
pub(super) type Typed = fn(Value) -> Result<Value, String>;

/// One version of a kind of objects.
#[expect(clippy::struct_excessive_bools, clippy::struct_field_names, reason = "as discovery says them")]
#[derive(Clone, Debug)]
pub(super) struct Kind {
    pub(super) group: String,
    pub(super) version: String,
    pub(super) kind: String,
    pub(super) plural: String,
    pub(super) singular: String,
    pub(super) short: Vec<String>,
    pub(super) categories: Vec<String>,
    pub(super) namespaced: bool,
    /// Whether `/status` is a subresource.
    pub(super) status: bool,
    /// Whether `metadata.generation` counts changes outside of the status.
    pub(super) generation: bool,
    /// Only `create`, and nothing is kept.
    pub(super) review: bool,
    pub(super) shape: Shape,
}

/// What the objects of a kind look like.
#[derive(Clone, Debug)]
pub(super) enum Shape {
    /// As a type of Kubernetes' own.
    Typed(Typed),
    /// As a definition says.
    Custom(Arc<Schema>),
}

impl Kind {
    /// `v1` or `apps/v1`.
    pub(super) fn api_version(&self) -> String {
        if self.group.is_empty() { self.version.clone() } else { format!("{}/{}", self.group, self.version) }
    }

    /// `pods` or `leases.coordination.k8s.io`, as messages name it.
    pub(super) fn qualified(&self) -> String {
        if self.group.is_empty() { self.plural.clone() } else { format!("{}.{}", self.plural, self.group) }
    }

    /// `Pod` or `Lease.coordination.k8s.io`, as messages name it.
    pub(super) fn qualified_kind(&self) -> String {
        if self.group.is_empty() { self.kind.clone() } else { format!("{}.{}", self.kind, self.group) }
    }

    pub(super) fn bucket(&self) -> Bucket {
        // Both APIs of events show the same objects.
        let group = if self.plural == "events" { String::new() } else { self.group.clone() };
        Bucket { group, plural: self.plural.clone() }
    }

    /// The verbs that discovery lists.
    pub(super) fn verbs(&self) -> &'static [&'static str] {
        if self.review {
            &["create"]
        } else {
            &["create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"]
        }
    }
}
