//! Where a gateway's objects are: in a folder of manifests, or in a cluster's API. Tests say what a file has, and do not
//! know which it is.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use anyhow::{Context, Result};
use serde_json::{Value, json};

use crate::apiserver::fixture::ApiServer;
use crate::host::Host;
use crate::json as values;
use crate::wait::monotonic_ns;

/// When it says `kubernetes`, the gateways of all tests have a cluster as their source.
const SOURCE: &str = "OUTRIGGER_TEST_SOURCE";
/// Whom the gateway is to the API server.
pub const USER: &str = "gateway";
/// What it may list and watch, as `docs/kubernetes.md` has it.
pub const RIGHTS: [(&str, &[&str]); 6] = [
    ("", &["namespaces", "pods", "services"]),
    ("discovery.k8s.io", &["endpointslices"]),
    ("networking.k8s.io", &["networkpolicies"]),
    ("cilium.io", &["ciliumnetworkpolicies", "ciliumclusterwidenetworkpolicies", "ciliumcidrgroups"]),
    (
        "policy.networking.k8s.io",
        &["clusternetworkpolicies", "adminnetworkpolicies", "baselineadminnetworkpolicies"],
    ),
    ("outrigger.dev", &["externalworkloads", "externalworkloadgroups"]),
];

/// What it may do besides, in every namespace: the state of record, as `docs/kubernetes.md` has it.
pub const STATE_RIGHTS: [(&str, &[&str], &[&str]); 4] = [
    (
        "outrigger.dev",
        &["externalworkloads", "jointokens"],
        &["get", "list", "watch", "create", "patch", "delete"],
    ),
    ("outrigger.dev", &["externalworkloads/status", "jointokens/status"], &["patch"]),
    ("events.k8s.io", &["events"], &["create", "patch"]),
    // Of Services that ask for external workloads.
    ("discovery.k8s.io", &["endpointslices"], &["create", "update", "delete"]),
];
/// And in its own namespace.
pub const OWN_RIGHTS: [(&str, &[&str], &[&str]); 3] = [
    ("coordination.k8s.io", &["leases"], &["get", "create", "update"]),
    ("outrigger.dev", &["meshrecords"], &["get", "list", "create", "update", "delete"]),
    ("", &["secrets"], &["get", "create", "update"]),
];
/// What it may do besides where nodes join by their pods' service accounts: everywhere, and in its own namespace.
pub const NODE_RIGHTS: [(&str, &[&str], &[&str]); 1] =
    [("authentication.k8s.io", &["tokenreviews"], &["create"])];
/// The same in its own namespace.
pub const OWN_NODE_RIGHTS: [(&str, &[&str], &[&str]); 1] =
    [("", &["configmaps"], &["get", "create", "update"])];
/// Whom the process that keeps companions is to the API server.
pub const COMPANIONS: &str = "companions";
/// What it may list and watch, as `docs/companions.md` has it.
pub const COMPANION_RIGHTS: [(&str, &[&str]); 3] = [
    ("", &["namespaces"]),
    ("networking.k8s.io", &["networkpolicies"]),
    ("outrigger.dev", &["externalworkloads", "externalworkloadgroups"]),
];
/// And what it may do in the namespaces that are listed.
pub const COMPANION_WRITES: [(&str, &[&str], &[&str]); 2] = [
    ("networking.k8s.io", &["networkpolicies"], &["create", "update", "delete"]),
    ("events.k8s.io", &["events"], &["create", "patch"]),
];
/// The gateway's own namespace.
pub const NAMESPACE: &str = "outrigger-system";

/// Kinds that other projects define; their own definitions are not ours to copy, and the gateway checks all by itself.
const FOREIGN: [(&str, &str, &str, &str); 6] = [
    ("cilium.io", "v2", "CiliumNetworkPolicy", "Namespaced"),
    ("cilium.io", "v2", "CiliumClusterwideNetworkPolicy", "Cluster"),
    ("cilium.io", "v2", "CiliumCIDRGroup", "Cluster"),
    ("policy.networking.k8s.io", "v1alpha2", "ClusterNetworkPolicy", "Cluster"),
    ("policy.networking.k8s.io", "v1alpha1", "AdminNetworkPolicy", "Cluster"),
    ("policy.networking.k8s.io", "v1alpha1", "BaselineAdminNetworkPolicy", "Cluster"),
];

/// Where objects are.
#[derive(Debug)]
pub enum Objects {
    /// A folder.
    Folder(PathBuf),
    /// A cluster's API.
    Cluster(Box<Cluster>),
}

/// A cluster's API, and what each file has there.
#[derive(Debug)]
pub struct Cluster {
    /// The API server.
    pub server: ApiServer,
    files: Mutex<BTreeMap<String, BTreeSet<Named>>>,
}

/// Version, kind, namespace and name.
type Named = [String; 4];

impl Objects {
    /// As the variable of the environment says.
    pub fn try_new(host: &Host, folder: &Path) -> Result<Self> {
        match std::env::var(SOURCE).as_deref() {
            Ok("kubernetes") => Self::cluster(host),
            Ok(other) if other != "files" => anyhow::bail!("{SOURCE}={other}: `files` or `kubernetes`"),
            _ => Ok(Self::Folder(folder.to_owned())),
        }
    }

    /// In a cluster's API on this machine, which has the kinds of all projects.
    pub fn cluster(host: &Host) -> Result<Self> {
        let server = ApiServer::start_with(host, &[USER, COMPANIONS], &[])?;
        for definition in crds::definitions() {
            server.apply(&serde_json::to_string(&definition)?)?;
        }
        for (group, version, kind, scope) in FOREIGN {
            server.apply(&foreign(group, version, kind, scope).to_string())?;
        }
        let own = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}});
        server.apply(&own.to_string())?;
        let cluster = Cluster { server, files: Mutex::default() };
        cluster.grant(&RIGHTS)?;
        Ok(Self::Cluster(Box::new(cluster)))
    }

    /// Lines of a gateway's configuration.
    #[must_use]
    pub fn settings(&self) -> String {
        match self {
            Self::Folder(folder) => format!("manifests: {}\n", folder.display()),
            Self::Cluster(cluster) => {
                let kubeconfig = cluster.server.kubeconfig(USER);
                format!("source: kubernetes\nkubeconfig: {}\nnamespace: {NAMESPACE}\n", kubeconfig.display())
            }
        }
    }

    /// Makes a file have this text; returns when, by the monotonic clock.
    pub fn apply(&self, file: &str, yaml: &str) -> Result<u64> {
        match self {
            Self::Folder(folder) => {
                let (path, draft) = (folder.join(file), folder.with_extension("draft"));
                std::fs::write(&draft, yaml).with_context(|| format!("cannot write {}", draft.display()))?;
                let saved = monotonic_ns();
                std::fs::rename(&draft, &path).with_context(|| format!("cannot save {}", path.display()))?;
                Ok(saved)
            }
            Self::Cluster(cluster) => cluster.apply(file, yaml),
        }
    }

    /// Removes a file.
    pub fn remove(&self, file: &str) -> Result<()> {
        match self {
            Self::Folder(folder) => {
                let path = folder.join(file);
                std::fs::remove_file(&path).with_context(|| format!("cannot remove {}", path.display()))
            }
            Self::Cluster(cluster) => cluster.replace(file, &BTreeSet::new()),
        }
    }
}

impl Cluster {
    /// Lets the gateway list and watch these resources of groups, and keep its state; nothing else.
    pub fn grant(&self, rights: &[(&str, &[&str])]) -> Result<()> {
        let watched = rights.iter().map(|(group, resources)| rule(group, resources, &["list", "watch"]));
        let kept = STATE_RIGHTS.iter().map(|(group, resources, verbs)| rule(group, resources, verbs));
        self.bind(USER, "ClusterRole", "", &watched.chain(kept).collect::<Vec<_>>())?;
        let own = OWN_RIGHTS.iter().map(|(group, resources, verbs)| rule(group, resources, verbs));
        self.bind(USER, "Role", NAMESPACE, &own.collect::<Vec<_>>())
    }

    /// Lets nodes join by their pods' service accounts, as far as the cluster is asked; or, without `reviews`, keeps the
    /// gateway from asking.
    pub fn grant_nodes(&self, reviews: bool) -> Result<()> {
        let of = |rights: &[(&str, &[&str], &[&str])]| -> Vec<Value> {
            rights.iter().map(|(group, resources, verbs)| rule(group, resources, verbs)).collect()
        };
        let everywhere = if reviews { of(&NODE_RIGHTS) } else { Vec::new() };
        self.bind_to("gateway-nodes", USER, "ClusterRole", "", &everywhere)?;
        self.bind_to("gateway-nodes", USER, "Role", NAMESPACE, &of(&OWN_NODE_RIGHTS))
    }

    /// Lets the process that keeps companions see what it needs, and write in a namespace.
    pub fn grant_companions(&self, namespace: &str, writes: &[(&str, &[&str], &[&str])]) -> Result<()> {
        let read =
            COMPANION_RIGHTS.iter().map(|(group, resources)| rule(group, resources, &["list", "watch"]));
        self.bind(COMPANIONS, "ClusterRole", "", &read.collect::<Vec<_>>())?;
        let writes = writes.iter().map(|(group, resources, verbs)| rule(group, resources, verbs));
        self.bind(COMPANIONS, "Role", namespace, &writes.collect::<Vec<_>>())
    }

    fn bind(&self, user: &str, kind: &str, namespace: &str, rules: &[Value]) -> Result<()> {
        self.bind_to(user, user, kind, namespace, rules)
    }

    fn bind_to(&self, name: &str, user: &str, kind: &str, namespace: &str, rules: &[Value]) -> Result<()> {
        const GROUP: &str = "rbac.authorization.k8s.io";
        let metadata = if namespace.is_empty() {
            json!({"name": name})
        } else {
            json!({"name": name, "namespace": namespace})
        };
        let version = format!("{GROUP}/v1");
        let role = json!({"apiVersion": version, "kind": kind, "metadata": metadata, "rules": rules});
        let binding = json!({
            "apiVersion": version, "kind": format!("{kind}Binding"), "metadata": metadata,
            "roleRef": {"apiGroup": GROUP, "kind": kind, "name": name},
            "subjects": [{"apiGroup": GROUP, "kind": "User", "name": user}],
        });
        self.server.apply(&role.to_string())?;
        self.server.apply(&binding.to_string()).map(drop)
    }

    fn apply(&self, file: &str, yaml: &str) -> Result<u64> {
        let saved = monotonic_ns();
        let stored = self.server.apply(yaml).with_context(|| file.to_owned())?;
        self.replace(file, &stored.iter().map(named).collect())?;
        Ok(saved)
    }

    /// Deletes what a file had and has no more.
    fn replace(&self, file: &str, now: &BTreeSet<Named>) -> Result<()> {
        let mut files = self.files.lock().unwrap_or_else(PoisonError::into_inner);
        let before = files.insert(file.to_owned(), now.clone()).unwrap_or_default();
        for [version, kind, namespace, name] in before.difference(now) {
            self.server.delete(version, kind, namespace, name)?;
        }
        Ok(())
    }
}

fn rule(group: &str, resources: &[&str], verbs: &[&str]) -> Value {
    json!({"apiGroups": [group], "resources": resources, "verbs": verbs})
}

fn named(object: &Value) -> Named {
    let metadata = values::at(object, &["metadata"]);
    [
        values::text(object, "apiVersion"),
        values::text(object, "kind"),
        values::text(metadata, "namespace"),
        values::text(metadata, "name"),
    ]
    .map(str::to_owned)
}

/// A definition that takes every field.
fn foreign(group: &str, version: &str, kind: &str, scope: &str) -> Value {
    let singular = kind.to_lowercase();
    let plural =
        singular.strip_suffix('y').map_or_else(|| format!("{singular}s"), |stem| format!("{stem}ies"));
    json!({
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": {
            "name": format!("{plural}.{group}"),
            // Names of this group are given by the project that it belongs to.
            "annotations": {"api-approved.kubernetes.io": "unapproved, for tests"},
        },
        "spec": {
            "group": group, "scope": scope,
            "names": {"kind": kind, "plural": plural, "singular": singular, "listKind": format!("{kind}List")},
            "versions": [{
                "name": version, "served": true, "storage": true,
                "schema": {"openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": true}},
            }],
        },
    })
}
