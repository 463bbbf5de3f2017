//! Follows what of the cluster this is about: namespaces, groups, hosts that joined, and `NetworkPolicy`s, those of users and
//! those of its own.

use std::net::IpAddr;
use std::sync::Arc;

use crds::{ExternalWorkload, ExternalWorkloadGroup};
use k8s_openapi::api::core::v1 as api;
use k8s_openapi::api::networking::v1::{NetworkPolicy, NetworkPolicySpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use kube::api::{Api, ApiResource, DynamicObject};
use kube::{Client, ResourceExt as _};
use policy::facts::Namespace;
use policy::networkpolicy;
use policy::rules::PolicyObject;
use serde_json::{Map, Value};

use crate::manifest::companion::owner_of;
use crate::manifest::{self, Group, Manifest, Node, Object};
use crate::source::cluster::select;
use crate::watched::{self, Kind, config};

/// What the cluster has, as it was seen last.
pub(super) type Observed = watched::Observed<Seen>;

/// The objects.
#[derive(Debug, Default)]
pub(super) struct Seen {
    pub(super) namespaces: Kind<Arc<Namespace>>,
    pub(super) groups: Kind<Arc<Group>>,
    pub(super) hosts: Kind<Host>,
    pub(super) policies: Kind<Policy>,
}

/// A host that joined, and is not being revoked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Host {
    /// In its own namespace.
    pub(super) group: String,
    pub(super) addresses: Vec<IpAddr>,
}

/// A `NetworkPolicy`.
#[derive(Clone, Debug)]
pub(super) struct Policy {
    pub(super) uid: String,
    pub(super) version: String,
    /// Whether it is being deleted.
    pub(super) ending: bool,
    pub(super) content: Content,
}

/// Whose policy it is.
#[derive(Clone, Debug)]
pub(super) enum Content {
    /// Somebody's: what it says, or why that cannot be read.
    Theirs(Box<Result<Theirs, String>>),
    /// A companion.
    Own(Box<Own>),
}

/// What a policy says.
#[derive(Clone, Debug)]
pub(super) struct Theirs {
    /// Its `podSelector`, as it is written.
    pub(super) selector: LabelSelector,
    pub(super) rules: PolicyObject,
}

/// A companion.
#[derive(Clone, Debug)]
pub(super) struct Own {
    /// The number of the policy that owns it.
    pub(super) owner: String,
    /// What it says; `None`: something that no companion says.
    pub(super) spec: Option<NetworkPolicySpec>,
}

impl Seen {
    /// Whether it is known what there is now.
    pub(super) const fn is_current(&self) -> bool {
        self.namespaces.is_current()
            && self.groups.is_current()
            && self.hosts.is_current()
            && self.policies.is_current()
    }

    /// Why it is not known: verb and resource of what is forbidden are among it.
    pub(super) fn trouble(&self) -> String {
        let troubles =
            [self.namespaces.trouble(), self.groups.trouble(), self.hosts.trouble(), self.policies.trouble()];
        let all: Vec<&str> = troubles.into_iter().flatten().collect();
        if all.is_empty() { "the cluster is being read".to_owned() } else { all.join("; ") }
    }
}

/// Follows until it is dropped.
pub(super) async fn follow(client: Client, observed: Arc<Observed>) {
    let api = |resource: &ApiResource| Api::<DynamicObject>::all_with(client.clone(), resource);
    let hosts = Api::<ExternalWorkload>::all(client.clone());
    tokio::join!(
        observed.follow(
            "Namespace",
            api(&of_namespaces()),
            config(),
            |object| Some(namespace(object)),
            |seen| &mut seen.namespaces
        ),
        observed.follow("ExternalWorkloadGroup", api(&of_groups()), config(), group, |seen| &mut seen.groups),
        observed.follow("ExternalWorkload", hosts, config(), host, |seen| &mut seen.hosts),
        observed.follow("NetworkPolicy", api(&of_policies()), config(), policy, |seen| &mut seen.policies),
    );
}

fn of_namespaces() -> ApiResource {
    ApiResource::erase::<api::Namespace>(&())
}

fn of_groups() -> ApiResource {
    ApiResource::erase::<ExternalWorkloadGroup>(&())
}

fn of_policies() -> ApiResource {
    ApiResource::erase::<NetworkPolicy>(&())
}

/// One that cannot be read has labels of which nothing is known to be absent.
fn namespace(object: &DynamicObject) -> Arc<Namespace> {
    match read(manifest::Kind::Namespace, &of_namespaces(), object) {
        Ok(Object::Namespace(namespace)) => namespace,
        _ => Arc::new(Namespace { unreadable: true, ..Namespace::default() }),
    }
}

/// One that cannot be read is none: its workloads are nobody's peers.
fn group(object: &DynamicObject) -> Option<Arc<Group>> {
    match read(manifest::Kind::ExternalWorkloadGroup, &of_groups(), object) {
        Ok(Object::Group(group)) => Some(group),
        Ok(_) => None,
        Err(reason) => {
            let (namespace, name) = (object.namespace(), object.name_any());
            tracing::warn!(namespace, name, reason, "a group cannot be read, and its workloads get nothing");
            None
        }
    }
}

fn read(kind: manifest::Kind, resource: &ApiResource, object: &DynamicObject) -> Result<Object, String> {
    let (_name, value) = select::object(kind, resource, object.clone());
    Manifest::read(Node::from_json(&value)).object.map_err(|error| error.to_string())
}

fn host(object: &ExternalWorkload) -> Option<Host> {
    let is_revoked = object.metadata.deletion_timestamp.is_some();
    object.spec.recorded.as_ref().filter(|_| !is_revoked)?;
    let addresses = object.spec.addresses.iter().filter_map(|address| address.0.parse::<IpAddr>().ok());
    Some(Host {
        group: object.spec.group.clone(),
        addresses: addresses.map(|address| address.to_canonical()).collect(),
    })
}

pub(super) fn policy(object: &DynamicObject) -> Option<Policy> {
    // What it says may be somebody's change, which is changed back.
    let content = if let Ok(owner) = owner_of(&object.metadata) {
        let spec = object.data.get("spec").cloned().unwrap_or_default();
        Content::Own(Box::new(Own { owner: owner.uid.clone(), spec: serde_json::from_value(spec).ok() }))
    } else {
        Content::Theirs(Box::new(theirs(object)))
    };
    Some(Policy {
        uid: object.metadata.uid.clone()?,
        version: object.metadata.resource_version.clone()?,
        ending: object.metadata.deletion_timestamp.is_some(),
        content,
    })
}

fn theirs(object: &DynamicObject) -> Result<Theirs, String> {
    let (_name, value) = select::object(manifest::Kind::NetworkPolicy, &of_policies(), object.clone());
    let rules = networkpolicy::parse(&value).map_err(|error| error.to_string())?;
    let selector = value.pointer("/spec/podSelector").cloned().unwrap_or_else(|| Value::Object(Map::new()));
    let selector = serde_json::from_value(selector).map_err(|error| error.to_string())?;
    Ok(Theirs { selector, rules })
}
