//! What enrollment and administration ask the compiled mesh: a small window, so that they need neither the index nor
//! the sessions.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use policy::facts::Facts;
use tokio::sync::oneshot;

use crate::manifest::Group;
use crate::store::{Target, Workload, WorkloadName};

/// The reason of a condition of which nobody knows yet whether it holds: what was known before may still be true.
pub const PENDING: &str = "Pending";

/// The compiled mesh, as seen by enrollment and administration. Calls do not block.
pub trait MeshView: Send + Sync + 'static {
    /// Whether an external workload group exists.
    fn group_exists(&self, namespace: &str, name: &str) -> bool;

    /// What the source declares about a workload, by hand and before it joins.
    fn declared(&self, name: &WorkloadName) -> Option<Declared>;

    /// The mesh addresses that the source declares for any other workload.
    fn promised(&self, except: &WorkloadName) -> BTreeSet<IpAddr>;

    /// What a workload that joined is to Services; `None` where its group is not known, and for transit nodes.
    fn backend(&self, workload: &Workload) -> Option<Backend>;

    /// The state as a whole.
    fn summary(&self) -> Summary;

    /// Asks for all facts; the answer does not come where nothing is compiled any more.
    fn facts(&self) -> oneshot::Receiver<Facts>;

    /// Publishes the state anew, under the next number.
    fn republish(&self);

    /// One workload; `None` where the mesh does not have it yet.
    fn workload(&self, name: &WorkloadName) -> Option<WorkloadView>;
}

/// A workload that an `ExternalWorkload` object declares.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Declared {
    /// The group it must join.
    pub group: Target,
    /// The mesh addresses it is to have; empty: from the pools.
    pub addresses: Vec<IpAddr>,
    /// The zone that its object says.
    pub zone: Option<String>,
    /// Whether its object says probes; `None`: its group does.
    pub is_probed: Option<bool>,
}

/// A workload as something behind Services.
#[derive(Clone, Debug, PartialEq)]
pub struct Backend {
    /// Its group: labels, named ports.
    pub group: Arc<Group>,
    /// Where it is.
    pub zone: Option<String>,
    /// Whether its agent has a session with a gateway.
    pub connected: bool,
    /// Whether it serves, as far as that is known.
    pub ready: Option<bool>,
}

/// The state as a whole.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    /// The generation agents are sent.
    pub generation: u64,
    /// Whether the source was read whole.
    pub synced: bool,
    /// Sessions of agents that are open.
    pub sessions: u32,
    /// Addresses in the mesh.
    pub endpoints: u32,
    /// Identities in use.
    pub identities: u32,
    /// Policy objects in force.
    pub policies: u32,
    /// Objects that are refused.
    pub rejected: Vec<RejectedObject>,
    /// What is valid and will surprise: rules that are not enforced, sets that are empty.
    pub warnings: Vec<String>,
}

/// An object of the source that is refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RejectedObject {
    /// The file, with the line where it is known.
    pub file: String,
    /// `Kind/namespace/name`; empty where it cannot be read.
    pub object: String,
    /// Why.
    pub reason: String,
    /// Whether an older version stays in force.
    pub last_good_in_force: bool,
}

/// One workload, as the mesh has it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WorkloadView {
    /// Its identity; 0: none yet.
    pub identity: u32,
    /// Its labels in Cilium's serialised form.
    pub labels: String,
    /// Policies that select it, `Kind/namespace/name`.
    pub policies: Vec<String>,
    /// Whether what no rule allows toward it is refused.
    pub ingress_default_deny: bool,
    /// Whether what no rule allows from it is refused.
    pub egress_default_deny: bool,
    /// Whether its agent has a session.
    pub connected: bool,
    /// The generation it acknowledged last.
    pub acked_generation: u64,
    /// Why it rejected the last generation; empty: it did not.
    pub rejected_reason: String,
    /// What else is known, by condition type (`DuplicateHost`): status, reason and message.
    pub conditions: BTreeMap<String, ConditionView>,
}

/// A condition of a workload.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ConditionView {
    /// Whether it holds.
    pub status: bool,
    /// One word in CamelCase.
    pub reason: String,
    /// A sentence.
    pub message: String,
}
