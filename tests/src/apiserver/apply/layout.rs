//! Which parts of an object are fields of their own: what a custom resource's schema says, or for Kubernetes' own kinds
//! a table of the lists that the tests touch.

use serde_json::{Map, Value};

use crate::apiserver::kind::{Kind, Shape};
use crate::apiserver::schema::{ListType, Schema};

/// The layout of a part of an object.
#[derive(Clone, Debug)]
pub(super) struct Layout<'a> {
    schema: Option<&'a Schema>,
    /// Whether a schema says it, or the table.
    custom: bool,
    path: String,
}

/// How the items of a list are told apart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Lists {
    Atomic,
    Set,
    Keys(Vec<String>),
}

/// Lists of Kubernetes' own kinds that are no single value, by the end of their path.
const LISTS: &[(&str, &[&str])] = &[
    ("metadata.finalizers", &[]),
    ("metadata.ownerReferences", &["uid"]),
    ("status.conditions", &["type"]),
    ("spec.containers", &["name"]),
    ("spec.initContainers", &["name"]),
    ("spec.volumes", &["name"]),
    ("containers.ports", &["containerPort", "protocol"]),
    ("containers.env", &["name"]),
    ("containers.volumeMounts", &["mountPath"]),
    ("status.podIPs", &["ip"]),
    ("status.addresses", &["type"]),
    ("Service.spec.ports", &["port", "protocol"]),
    ("ServiceAccount.secrets", &["name"]),
];

/// Maps that are one value.
const MAPS: &[&str] = &[
    "selector",
    "podSelector",
    "namespaceSelector",
    "roleRef",
    "nodeAffinity",
    "involvedObject",
    "targetRef",
];

impl<'a> Layout<'a> {
    /// That of a whole object.
    pub(super) fn of(kind: &'a Kind) -> Self {
        match &kind.shape {
            Shape::Custom(schema) => Self { schema: Some(&**schema), custom: true, path: kind.kind.clone() },
            Shape::Typed(_) => Self { schema: None, custom: false, path: kind.kind.clone() },
        }
    }

    pub(super) fn field(&self, name: &str) -> Self {
        let path = format!("{}.{name}", self.path);
        // Metadata is the same everywhere.
        let custom = self.custom && name != "metadata";
        Self { schema: self.schema.and_then(|schema| schema.field(name)), custom, path }
    }

    pub(super) fn item(&self) -> Self {
        Self { schema: self.schema.and_then(|schema| schema.items.as_deref()), ..self.clone() }
    }

    /// What is below a step.
    pub(super) fn below(&self, key: &str) -> Self {
        key.strip_prefix("f:").map_or_else(|| self.item(), |name| self.field(name))
    }

    pub(super) fn is_atomic_map(&self) -> bool {
        let last = self.path.rsplit('.').next().unwrap_or_default();
        if self.custom { self.schema.is_some_and(|schema| schema.atomic_map) } else { MAPS.contains(&last) }
    }

    pub(super) fn lists(&self) -> Lists {
        if self.custom {
            return match self.schema.map(|schema| &schema.list) {
                Some(ListType::Set) => Lists::Set,
                Some(ListType::Map(keys)) => Lists::Keys(keys.clone()),
                Some(ListType::Atomic) | None => Lists::Atomic,
            };
        }
        match LISTS.iter().find(|(path, _)| self.path.ends_with(&format!(".{path}")) || self.path == *path) {
            Some((_, [])) => Lists::Set,
            Some((_, keys)) => Lists::Keys(keys.iter().map(|key| (*key).to_owned()).collect()),
            None => Lists::Atomic,
        }
    }

    /// What is at a step of a value.
    pub(super) fn at<'v>(&self, value: &'v Value, key: &str) -> Option<(Self, &'v Value)> {
        if let Some(name) = key.strip_prefix("f:") {
            return Some((self.field(name), value.get(name)?));
        }
        let lists = self.lists();
        value.as_array()?.iter().find(|item| lists.key(item) == key).map(|item| (self.item(), item))
    }

    /// Where a step leads in a list; 0 for a field that is there.
    pub(super) fn index(&self, value: &Value, key: &str) -> Option<usize> {
        if let Some(name) = key.strip_prefix("f:") {
            return value.get(name).map(|_| 0);
        }
        let lists = self.lists();
        value.as_array()?.iter().position(|item| lists.key(item) == key)
    }

    /// The value to which a step leads.
    #[expect(clippy::unused_self, reason = "it reads as a question to the layout, as its sisters do")]
    pub(super) fn slot<'v>(&self, value: &'v mut Value, key: &str, index: usize) -> Option<&'v mut Value> {
        match key.strip_prefix("f:") {
            Some(name) => value.get_mut(name),
            None => value.get_mut(index),
        }
    }
}

impl Lists {
    /// The step to an item.
    pub(super) fn key(&self, item: &Value) -> String {
        match self {
            Self::Atomic | Self::Set => format!("v:{item}"),
            Self::Keys(keys) => {
                let known = keys.iter().filter_map(|key| {
                    // A port without a protocol is one of TCP.
                    let absent = (key == "protocol").then(|| Value::from("TCP"));
                    Some((key.clone(), item.get(key).cloned().or(absent)?))
                });
                format!("k:{}", Value::Object(known.collect::<Map<_, _>>()))
            }
        }
    }
}
