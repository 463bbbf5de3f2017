//! What all Kubernetes objects have alike: header and metadata, read strictly.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::Value;

use crate::labels::syntax;
use crate::selector::FieldError;

/// The namespace of objects that name none, as with `kubectl`.
pub(crate) const DEFAULT_NAMESPACE: &str = "default";

/// A kind of policy object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct KindOfObject {
    /// API group and version.
    pub(crate) api_version: &'static str,
    /// The kind, first part of every origin.
    pub(crate) name: &'static str,
    /// Whether its objects live in a namespace.
    pub(crate) namespaced: bool,
}

/// A policy object that is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}{}", .name.as_ref().map(|name| format!("{name}: ")).unwrap_or_default(), joined(.errors))]
pub struct InvalidObject {
    /// `Kind/namespace/name`, where readable.
    pub name: Option<String>,
    /// Everything that is wrong, at least one.
    pub errors: Vec<FieldError>,
}

fn joined(errors: &[FieldError]) -> String {
    errors.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
}

/// `metav1.ObjectMeta`: what matters, and by name what the API server and `kubectl` add.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct Metadata {
    pub(crate) name: String,
    pub(crate) namespace: Option<String>,
    #[serde(rename = "labels")]
    _labels: Option<BTreeMap<String, String>>,
    #[serde(rename = "annotations")]
    _annotations: Option<BTreeMap<String, String>>,
    #[serde(rename = "uid")]
    _uid: Option<IgnoredAny>,
    #[serde(rename = "resourceVersion")]
    _resource_version: Option<IgnoredAny>,
    #[serde(rename = "generation")]
    _generation: Option<IgnoredAny>,
    #[serde(rename = "generateName")]
    _generate_name: Option<IgnoredAny>,
    #[serde(rename = "selfLink")]
    _self_link: Option<IgnoredAny>,
    #[serde(rename = "creationTimestamp")]
    _creation_timestamp: Option<IgnoredAny>,
    #[serde(rename = "deletionTimestamp")]
    _deletion_timestamp: Option<IgnoredAny>,
    #[serde(rename = "deletionGracePeriodSeconds")]
    _deletion_grace_period_seconds: Option<IgnoredAny>,
    #[serde(rename = "ownerReferences")]
    _owner_references: Option<IgnoredAny>,
    #[serde(rename = "finalizers")]
    _finalizers: Option<IgnoredAny>,
    #[serde(rename = "managedFields")]
    _managed_fields: Option<IgnoredAny>,
}

impl Metadata {
    /// The namespace; `default` where none is given.
    pub(crate) fn namespace(&self) -> &str {
        self.namespace.as_deref().unwrap_or(DEFAULT_NAMESPACE)
    }
}

impl KindOfObject {
    /// What is wrong before `spec`.
    pub(crate) fn check(self, api_version: &str, kind: &str, metadata: &Metadata) -> Vec<FieldError> {
        let mut errors = Vec::new();
        if api_version != self.api_version {
            let message = format!("is {api_version:?}, expected {:?}", self.api_version);
            errors.push(FieldError::new("apiVersion", message));
        }
        if kind != self.name {
            errors.push(FieldError::new("kind", format!("is {kind:?}, expected {:?}", self.name)));
        }
        if !syntax::is_subdomain(&metadata.name) {
            let message = format!("{:?} is no DNS subdomain (RFC 1123)", metadata.name);
            errors.push(FieldError::new("metadata.name", message));
        }
        match &metadata.namespace {
            Some(namespace) if !self.namespaced => {
                let message = format!("is {namespace:?}, but a {} has no namespace", self.name);
                errors.push(FieldError::new("metadata.namespace", message));
            }
            _ if self.namespaced && !syntax::is_dns_label(metadata.namespace()) => {
                let message = format!("{:?} is no DNS label (RFC 1123)", metadata.namespace());
                errors.push(FieldError::new("metadata.namespace", message));
            }
            _ => {}
        }
        errors
    }

    /// `Kind/namespace/name`, or `Kind/name` for kinds without a namespace.
    pub(crate) fn origin(self, namespace: &str, name: &str) -> String {
        if self.namespaced {
            format!("{}/{namespace}/{name}", self.name)
        } else {
            format!("{}/{name}", self.name)
        }
    }

    /// The origin of a raw object, where it can be read.
    pub(crate) fn name_of(self, raw: &Value) -> Option<String> {
        let metadata = raw.get("metadata")?;
        let name = metadata.get("name")?.as_str()?;
        let namespace = match metadata.get("namespace") {
            None | Some(Value::Null) => DEFAULT_NAMESPACE,
            Some(namespace) => namespace.as_str()?,
        };
        (syntax::is_subdomain(name) && syntax::is_dns_label(namespace)).then(|| self.origin(namespace, name))
    }

    /// Decodes a raw object; what is wrong is named with its path.
    pub(crate) fn decode<'de, T: Deserialize<'de>>(self, raw: &'de Value) -> Result<T, InvalidObject> {
        serde_path_to_error::deserialize(raw).map_err(|error| {
            let path = error.path().to_string();
            self.refused(raw, vec![FieldError::new(path, error.into_inner().to_string())])
        })
    }

    /// The refusal of a raw object.
    pub(crate) fn refused(self, raw: &Value, errors: Vec<FieldError>) -> InvalidObject {
        InvalidObject { name: self.name_of(raw), errors }
    }
}
