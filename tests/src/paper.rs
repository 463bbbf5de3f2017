//! A mesh on paper: a few endpoints, manifests of every language, and what becomes of a flow by the specification and
//! by the maps, which have to agree.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use anyhow::{Context, Result, bail, ensure};
use datapath::abi::Bank;
use datapath::model::Model;
use datapath::{Address, Direction};
use gateway::index::services::Services;
use gateway::manifest::{Object, manifests, node};
use policy::evaluate::{Flow, Reason, evaluate};
use policy::facts::{Facts, NamedPort, Pod, Workload};
use policy::identity::Identity;
use policy::lower::Lowered;
use policy::state::{Policy, Role, RuleAction, State};
use serde_json::{Value, json};

use crate::fuzz::tables;

/// IP protocol number.
pub const TCP: u8 = 6;
/// IP protocol number.
pub const UDP: u8 = 17;
/// IP protocol number.
pub const SCTP: u8 = 132;
/// Protocols with ports, both ICMPs, GRE, ESP.
pub const PROTOCOLS: [u8; 7] = [TCP, UDP, SCTP, 1, 58, 47, 50];

/// An address that nobody has.
pub const NOBODY: &str = "203.0.113.1";

/// Whoever is in the mesh.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A pod.
    Pod,
    /// An external workload, which is governed.
    Workload,
    /// A transit node.
    Node,
}

/// One of them: namespace, name, address, and labels as `key=value`.
pub type Member = (Kind, &'static str, &'static str, &'static str, &'static [&'static str]);

/// Verdict and reason.
pub type Decision = (bool, String);

/// The endpoints, and what is in force.
#[derive(Debug)]
pub struct Mesh {
    members: Facts,
    state: State,
    maps: BTreeMap<Identity, (Model, Lowered)>,
}

impl Mesh {
    /// Without policies.
    pub fn of(members: &[Member]) -> Result<Self> {
        let mut facts = Facts { cluster: "default".to_owned(), ..Facts::default() };
        for (kind, namespace, name, address, labels) in members {
            let name: Arc<str> = format!("{namespace}/{name}").into();
            let labels = labels.iter().filter_map(|label| label.split_once('='));
            let labels = labels.map(|(key, value)| (key.to_owned(), value.to_owned())).collect();
            let (namespace, addresses) = ((*namespace).to_owned(), vec![address.parse()?]);
            let named_ports = vec![NamedPort { name: "web".to_owned(), protocol: TCP, number: 80 }];
            if *kind == Kind::Pod {
                let pod = Pod { namespace, labels, addresses, named_ports, ..Pod::default() };
                facts.pods.insert(name, Arc::new(pod));
            } else {
                let role = if *kind == Kind::Node { Role::Transit } else { Role::Host };
                let workload =
                    Workload { namespace, labels, addresses, named_ports, role, ..Workload::default() };
                facts.workloads.insert(name, Arc::new(workload));
            }
        }
        let mut mesh = Self { members: facts, state: State::default(), maps: BTreeMap::new() };
        mesh.apply(&[])?;
        Ok(mesh)
    }

    /// Puts these manifests in force, and no others. All have to be valid.
    pub fn apply(&mut self, objects: &[Value]) -> Result<()> {
        let mut facts = self.members.clone();
        let mut services = Services::default();
        for object in objects {
            for manifest in node::parse(&object.to_string())?.into_iter().flat_map(manifests) {
                let key = manifest.key.clone().context("an object without a name")?;
                match manifest.object {
                    Ok(Object::Policies(policies)) => {
                        facts
                            .policies
                            .extend(policies.iter().map(|p| (Arc::clone(&p.origin), Arc::clone(p))));
                    }
                    Ok(Object::CidrGroup(group)) => {
                        facts.cidr_groups.insert(key.name.as_str().into(), group);
                    }
                    Ok(Object::Namespace(namespace)) => {
                        facts.namespaces.insert(key.name.clone(), namespace);
                    }
                    Ok(Object::Service(service)) => services.put(&key, Some(service), &mut facts.services),
                    Ok(Object::EndpointSlice(slice)) => {
                        services.put_slice(&key, Some(slice), &mut facts.services);
                    }
                    Ok(_) => bail!("{key}: no part of these tests"),
                    Err(refused) => bail!("{refused}: {object}"),
                }
            }
        }
        let labels = policy::resolve::identity_labels(&facts).into_iter();
        let numbered = labels.zip(Identity::FIRST_ALLOCATED..);
        let numbers = numbered
            .map(|(labels, number)| Ok((labels, Identity::try_new(number)?)))
            .collect::<Result<_>>()?;
        self.state = policy::resolve(&facts, &numbers)?.state;
        self.maps.clear();
        for (identity, policy) in &self.state.policies {
            let lowered = policy::lower(policy);
            let mut model = Model::default();
            tables::fill(&mut model, Bank::A, &lowered, [Address::NONE; 2], identity.get());
            self.maps.insert(*identity, (model, lowered));
        }
        Ok(())
    }

    /// The compiled policy of the workload at `own`.
    pub fn policy(&self, own: &str) -> Result<&Policy> {
        let subject = self.state.endpoints.get(&own.parse()?).context("nobody has the address")?.identity;
        self.state.policies.get(&subject).map(|policy| &**policy).context("not governed")
    }

    /// What becomes of a flow of the workload at `own` with whoever is at `remote`.
    pub fn decide(
        &self,
        own: &str,
        direction: Direction,
        remote: &str,
        (protocol, port): (u8, u16),
    ) -> Result<Decision> {
        let (own, remote): (IpAddr, IpAddr) = (own.parse()?, remote.parse()?);
        let subject = self.state.endpoints.get(&own).context("nobody has the address")?.identity;
        let policy = self.state.policies.get(&subject).context("not governed")?;
        let identity = self.state.endpoints.get(&remote).map(|endpoint| endpoint.identity);
        let flow = Flow { direction, identity, remote, protocol, port };
        let verdict = evaluate(policy, &flow);
        let allowed = verdict.action == RuleAction::Allow;
        let (model, lowered) = self.maps.get(&subject).context("in no maps")?;
        let answer = tables::answer(model, Bank::A, &flow);
        ensure!((answer.allowed == 1) == allowed, "the maps do not say {verdict:?} about {flow:?}");
        ensure!(lowered.names.contains_key(&answer.rule), "a reason without a name: {flow:?}");
        let reason = match verdict.reason {
            Reason::Rule(rule) => rule.origin.to_string(),
            Reason::Default(default) => default.describe(direction),
        };
        Ok((allowed, reason))
    }

    /// Whether a flow is allowed toward a workload.
    pub fn enters(&self, own: &str, remote: &str, what: (u8, u16)) -> Result<bool> {
        Ok(self.decide(own, Direction::Ingress, remote, what)?.0)
    }

    /// Whether a flow of a workload is allowed.
    pub fn leaves(&self, own: &str, remote: &str, what: (u8, u16)) -> Result<bool> {
        Ok(self.decide(own, Direction::Egress, remote, what)?.0)
    }
}

/// Why the object is refused.
pub fn refusal(object: &Value) -> Result<String> {
    for manifest in node::parse(&object.to_string())?.into_iter().flat_map(manifests) {
        if let Err(refused) = &manifest.object {
            return Ok(refused.to_string());
        }
    }
    bail!("accepted: {object}")
}

/// The object with one more field.
#[must_use]
pub fn with(mut object: Value, field: &str, value: Value) -> Value {
    if let Some(fields) = object.as_object_mut() {
        fields.insert(field.to_owned(), value);
    }
    object
}

/// A `NetworkPolicy` of `shop`.
#[must_use]
pub fn network(name: &str, spec: &Value) -> Value {
    json!({"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy",
        "metadata": {"name": name, "namespace": "shop"}, "spec": spec})
}

/// A `CiliumNetworkPolicy` of `shop`.
#[must_use]
pub fn cilium(name: &str, spec: &Value) -> Value {
    json!({"apiVersion": "cilium.io/v2", "kind": "CiliumNetworkPolicy",
        "metadata": {"name": name, "namespace": "shop"}, "spec": spec})
}

/// A `CiliumClusterwideNetworkPolicy`.
#[must_use]
pub fn clusterwide(name: &str, spec: &Value) -> Value {
    json!({"apiVersion": "cilium.io/v2", "kind": "CiliumClusterwideNetworkPolicy",
        "metadata": {"name": name}, "spec": spec})
}

/// A `ClusterNetworkPolicy` for everybody, with rules of one direction.
#[must_use]
pub fn tiered(name: &str, tier: &str, priority: i64, direction: &str, rules: &Value) -> Value {
    let spec = json!({"tier": tier, "priority": priority, "subject": {"namespaces": {}}, direction: rules});
    json!({"apiVersion": "policy.networking.k8s.io/v1alpha2", "kind": "ClusterNetworkPolicy",
        "metadata": {"name": name}, "spec": spec})
}

/// An `AdminNetworkPolicy`, or a `BaselineAdminNetworkPolicy`, for everybody.
#[must_use]
pub fn admin(priority: Option<i64>, direction: &str, rules: &Value) -> Value {
    let (kind, name) = match priority {
        Some(_) => ("AdminNetworkPolicy", "old"),
        None => ("BaselineAdminNetworkPolicy", "default"),
    };
    let spec = json!({"subject": {"namespaces": {}}, direction: rules});
    let spec = priority.iter().fold(spec, |spec, priority| with(spec, "priority", json!(priority)));
    json!({"apiVersion": "policy.networking.k8s.io/v1alpha1", "kind": kind,
        "metadata": {"name": name}, "spec": spec})
}

/// Allows everybody everything, in both directions, as a team does.
#[must_use]
pub fn open() -> Value {
    network(
        "open",
        &json!({"podSelector": {}, "policyTypes": ["Ingress", "Egress"], "ingress": [{}], "egress": [{}]}),
    )
}

/// Isolates everybody of `shop` in both directions.
#[must_use]
pub fn closed() -> Value {
    network("closed", &json!({"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}))
}
