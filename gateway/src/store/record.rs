//! What the store keeps, as JSON in its tables: a field that is added later needs `#[serde(default)]`.

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;
use std::time::Duration;

use ipnet::IpNet;
use pki::{KeyHash, UnixTime};
use policy::state::Role;
use serde::{Deserialize, Serialize};

use super::claim::Claim;

/// The name of an external workload: `namespace/name`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct WorkloadName {
    /// Its namespace.
    pub namespace: String,
    /// Its name in the namespace.
    pub name: String,
}

/// A text that names no workload.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no `namespace/name`")]
pub struct InvalidWorkloadName(pub String);

/// What a token lets its bearer become.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", rename_all_fields = "camelCase")]
pub enum Target {
    /// A member of an external workload group.
    Group {
        /// The group's namespace, and the member's.
        namespace: String,
        /// The group's name.
        name: String,
    },
    /// The transit node of a cluster node.
    TransitNode {
        /// The cluster node.
        node: String,
    },
    /// A cluster node whose tunnels go to transit nodes.
    Node {
        /// The cluster node.
        node: String,
    },
}

/// A workload that joined.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Workload {
    /// Its name, fixed at the first join.
    pub name: WorkloadName,
    /// What it is.
    pub target: Target,
    /// The hash of its key: who proves another one is not this workload.
    #[serde(with = "as_text")]
    pub key: KeyHash,
    /// The hash of the key it had before it was replaced.
    #[serde(default, with = "as_optional_text")]
    pub previous_key: Option<KeyHash>,
    /// SHA-256 of machine-id and DMI UUID, in hexadecimal digits.
    pub machine: String,
    /// Its mesh addresses: at most one IPv4 and one IPv6.
    pub addresses: Vec<IpAddr>,
    /// Where its tunnel packets come from, preferred first.
    pub underlay: Vec<IpAddr>,
    /// Its claims to these addresses.
    #[serde(default)]
    pub claims: BTreeMap<IpAddr, Claim>,
    /// The agent's version, as last reported.
    pub agent_version: String,
    /// When it joined, in seconds since 1970.
    pub joined_at: u64,
    /// The token it joined with.
    #[serde(default)]
    pub joined_with: String,
    /// When its latest certificate stops being valid, in seconds since 1970.
    pub certificate_expires: u64,
    /// Whether it is forgotten once it is away for long.
    #[serde(default)]
    pub ephemeral: bool,
}

/// A join token, without its secret.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Token {
    /// Its public name.
    pub id: String,
    /// SHA-256 of its secret, in hexadecimal digits.
    pub secret_hash: String,
    /// What it lets its bearer become.
    pub target: Target,
    /// The workload that may be taken over with it, and nothing else.
    pub bound_to: Option<WorkloadName>,
    /// The hash of the key that workload had when the token was minted: whoever has the name after it is another one.
    #[serde(default, with = "as_optional_text")]
    pub bound_key: Option<KeyHash>,
    /// When it was minted, in seconds since 1970.
    pub created_at: u64,
    /// From when it is refused, in seconds since 1970.
    pub expires_at: u64,
    /// How many joins it allowed at first; 0 in one of an older gateway.
    #[serde(default)]
    pub max_uses: u32,
    /// How many joins it still allows.
    pub uses_left: u32,
    /// Where hosts have to come from; none: from anywhere.
    #[serde(default)]
    pub source_prefixes: Vec<IpNet>,
    /// Whether hosts that joined with it are forgotten once they are away for long.
    #[serde(default)]
    pub ephemeral: bool,
    /// Whether an administrator revoked it.
    pub revoked: bool,
    /// The workloads that joined with it.
    pub used_by: Vec<WorkloadName>,
}

impl WorkloadName {
    /// Puts a name together; both parts must be valid object names.
    ///
    /// # Errors
    /// [`InvalidWorkloadName`] otherwise.
    pub fn try_new(namespace: &str, name: &str) -> Result<Self, InvalidWorkloadName> {
        if pki::is_dns1123_label(namespace) && pki::is_dns1123_subdomain(name) {
            Ok(Self { namespace: namespace.to_owned(), name: name.to_owned() })
        } else {
            Err(InvalidWorkloadName(format!("{namespace}/{name}")))
        }
    }
}

impl fmt::Display for WorkloadName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

impl FromStr for WorkloadName {
    type Err = InvalidWorkloadName;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (namespace, name) = text.split_once('/').ok_or_else(|| InvalidWorkloadName(text.to_owned()))?;
        Self::try_new(namespace, name)
    }
}

impl TryFrom<String> for WorkloadName {
    type Error = InvalidWorkloadName;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<WorkloadName> for String {
    fn from(name: WorkloadName) -> Self {
        name.to_string()
    }
}

impl Token {
    /// Whether nobody has used or revoked it.
    #[must_use]
    pub const fn is_new(&self) -> bool {
        !self.revoked && self.used_by.is_empty() && self.uses_left == self.max_uses
    }

    /// Whether it is for hosts that come from there; who comes from nobody knows where is refused if that matters.
    #[must_use]
    pub fn allows(&self, source: Option<IpAddr>) -> bool {
        let is_inside = |source: IpAddr| self.source_prefixes.iter().any(|prefix| prefix.contains(&source));
        self.source_prefixes.is_empty() || source.is_some_and(is_inside)
    }
}

impl Target {
    /// The namespace that a workload of this target has.
    #[must_use]
    pub fn namespace(&self) -> &str {
        match self {
            Self::Group { namespace, .. } => namespace,
            Self::TransitNode { .. } | Self::Node { .. } => TRANSIT_NAMESPACE,
        }
    }

    /// The group as `namespace/name`; empty for a cluster node.
    #[must_use]
    pub fn group(&self) -> String {
        match self {
            Self::Group { namespace, name } => format!("{namespace}/{name}"),
            Self::TransitNode { .. } | Self::Node { .. } => String::new(),
        }
    }

    /// The cluster node; none for a member of a group.
    #[must_use]
    pub fn cluster_node(&self) -> Option<&str> {
        match self {
            Self::Group { .. } => None,
            Self::TransitNode { node } | Self::Node { node } => Some(node),
        }
    }

    /// The cluster node of a transit node; empty for others.
    #[must_use]
    pub fn transit_node(&self) -> &str {
        if let Self::TransitNode { node } = self { node } else { "" }
    }

    /// The cluster node that is no transit node; empty for others.
    #[must_use]
    pub fn node(&self) -> &str {
        if let Self::Node { node } = self { node } else { "" }
    }

    /// Its part in the mesh.
    #[must_use]
    pub const fn role(&self) -> Role {
        match self {
            Self::Group { .. } => Role::Host,
            Self::TransitNode { .. } => Role::Transit,
            Self::Node { .. } => Role::Node,
        }
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Group { namespace, name } => write!(f, "group {namespace}/{name}"),
            Self::TransitNode { node } => write!(f, "transit node {node}"),
            Self::Node { node } => write!(f, "node {node}"),
        }
    }
}

/// The namespace of cluster nodes.
pub const TRANSIT_NAMESPACE: &str = "outrigger-system";

/// A moment from its seconds.
#[must_use]
pub const fn unix_time(seconds: u64) -> UnixTime {
    UnixTime::since_unix_epoch(Duration::from_secs(seconds))
}

mod as_text {
    use pki::KeyHash;
    use serde::{Deserialize as _, Deserializer, Serializer, de};

    pub(super) fn serialize<S: Serializer>(hash: &KeyHash, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(hash)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<KeyHash, D::Error> {
        String::deserialize(from)?.parse().map_err(de::Error::custom)
    }
}

mod as_optional_text {
    use pki::KeyHash;
    use serde::{Deserialize as _, Deserializer, Serializer, de};

    #[expect(clippy::ref_option, reason = "the signature serde asks for")]
    pub(super) fn serialize<S: Serializer>(hash: &Option<KeyHash>, to: S) -> Result<S::Ok, S::Error> {
        match hash {
            Some(hash) => to.collect_str(hash),
            None => to.serialize_none(),
        }
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Option<KeyHash>, D::Error> {
        let text = Option::<String>::deserialize(from)?;
        text.map(|text| text.parse().map_err(de::Error::custom)).transpose()
    }
}
