//! A case in the pure model: manifests, facts, `resolve`, `evaluate`, and the datapath's own code over `lower`. All nine
//! of the cast are governed here, as all pods are in the upstream suites.

use std::collections::BTreeMap;
use std::sync::Arc;

use anyhow::{Context, Result, bail};
use datapath::abi::Bank;
use datapath::model::Model;
use datapath::{Address, Direction};
use gateway::index::services::Services;
use gateway::manifest::node;
use gateway::manifest::{Manifest, Object, ObjectKey, manifests};
use policy::evaluate::{Flow, evaluate};
use policy::facts::{Facts, Pod, Workload};
use policy::identity::Identity;
use policy::state::{Role, RuleAction, State};

use super::cast::{Actor, Addresses, MEMBERS, Scene, WORKLOADS};
use super::table::Probe;
use crate::fuzz::tables;

/// The cluster, step by step.
#[derive(Debug)]
pub struct Judge {
    addresses: Addresses,
    /// The last valid version of each object, or what stands in for it.
    in_force: BTreeMap<ObjectKey, Object>,
    state: State,
    maps: BTreeMap<Identity, Model>,
}

/// What one probe comes to.
#[derive(Clone, Copy, Debug)]
pub struct Judged {
    /// What the sender's policy says; `None` where nobody is governed.
    pub egress: Option<bool>,
    /// What the receiver's says.
    pub ingress: Option<bool>,
}

impl Judged {
    /// Whether the flow comes about where all nine are governed.
    #[must_use]
    pub fn allowed(self) -> bool {
        self.egress != Some(false) && self.ingress != Some(false)
    }

    /// The same where only external workloads are.
    #[must_use]
    pub fn allowed_live(self, probe: &Probe) -> bool {
        let governs = |actor| matches!(actor, Actor::Member(number) if WORKLOADS.contains(&number));
        (self.egress != Some(false) || !governs(probe.from))
            && (self.ingress != Some(false) || !governs(probe.to))
    }
}

impl Judge {
    /// Nothing yet.
    #[must_use]
    pub fn new(addresses: Addresses) -> Self {
        Self { addresses, in_force: BTreeMap::new(), state: State::default(), maps: BTreeMap::new() }
    }

    /// Takes over what there is now.
    pub fn take(&mut self, scene: &Scene) -> Result<()> {
        let mut before = std::mem::take(&mut self.in_force);
        for text in scene.manifests() {
            for manifest in node::parse(&text)?.into_iter().flat_map(manifests) {
                self.put(&manifest, &mut before);
            }
        }
        let facts = self.facts()?;
        let labels = policy::resolve::identity_labels(&facts).into_iter();
        let numbered = labels.zip(Identity::FIRST_ALLOCATED..);
        let numbers = numbered
            .map(|(labels, number)| Ok((labels, Identity::try_new(number)?)))
            .collect::<Result<_>>()?;
        self.state = policy::resolve(&facts, &numbers)?.state;
        self.maps =
            self.state.policies.iter().map(|(identity, policy)| (*identity, in_maps(policy))).collect();
        Ok(())
    }

    fn put(&mut self, manifest: &Manifest, before: &mut BTreeMap<ObjectKey, Object>) {
        let Some(key) = manifest.key.clone() else { return };
        let object = match manifest.object.as_ref() {
            Ok(object) => Some(object.clone()),
            Err(_refused) => before.remove(&key).or_else(|| manifest.stand_in()),
        };
        self.in_force.extend(object.map(|object| (key, object)));
    }

    fn facts(&self) -> Result<Facts> {
        let mut facts = Facts { cluster: "default".to_owned(), ..Facts::default() };
        let mut services = Services::default();
        for (key, object) in &self.in_force {
            let name: Arc<str> = format!("{}/{}", key.namespace, key.name).into();
            match object {
                Object::Namespace(namespace) => {
                    facts.namespaces.insert(key.name.clone(), Arc::clone(namespace));
                }
                Object::Pod(_) | Object::Group(_) => self.endpoint(key, object, name, &mut facts)?,
                Object::Policies(policies) => {
                    let parts =
                        policies.iter().map(|policy| (Arc::clone(&policy.origin), Arc::clone(policy)));
                    facts.policies.extend(parts);
                }
                Object::CidrGroup(group) => {
                    facts.cidr_groups.insert(key.name.as_str().into(), Arc::clone(group));
                }
                Object::Service(service) => {
                    services.put(key, Some(Arc::clone(service)), &mut facts.services);
                }
                Object::EndpointSlice(slice) => {
                    services.put_slice(key, Some(Arc::clone(slice)), &mut facts.services);
                }
                Object::Workload(_) => bail!("{key}: this kind is no part of cases"),
            }
        }
        let addresses = self.addresses_of(Actor::Node)?;
        let node = Workload { addresses, role: Role::Transit, ..Workload::default() };
        facts.workloads.insert("outrigger/node".into(), Arc::new(node));
        Ok(facts)
    }

    /// A member of the cast is governed, whatever it is; another pod is only a peer.
    fn endpoint(&self, key: &ObjectKey, object: &Object, name: Arc<str>, facts: &mut Facts) -> Result<()> {
        let is_it = |actor: &Actor| actor.to_string() == *name;
        let namespace = key.namespace.clone();
        match (object, (0..MEMBERS).map(Actor::Member).find(is_it)) {
            (Object::Pod(pod), None) => {
                let pod = Pod {
                    namespace,
                    labels: pod.labels.clone(),
                    service_account: pod.service_account.clone(),
                    named_ports: pod.named_ports.clone(),
                    addresses: pod.addresses.clone(),
                    ..Pod::default()
                };
                facts.pods.insert(name, Arc::new(pod));
            }
            (Object::Pod(pod), Some(actor)) => {
                let workload = Workload {
                    namespace,
                    labels: pod.labels.clone(),
                    service_account: pod.service_account.clone(),
                    named_ports: pod.named_ports.clone(),
                    addresses: self.addresses_of(actor)?,
                    ..Workload::default()
                };
                facts.workloads.insert(name, Arc::new(workload));
            }
            (Object::Group(group), Some(actor)) => {
                let workload = Workload {
                    namespace,
                    labels: group.labels.clone(),
                    service_account: group.service_account.clone(),
                    named_ports: group.ports.clone(),
                    addresses: self.addresses_of(actor)?,
                    ..Workload::default()
                };
                facts.workloads.insert(name, Arc::new(workload));
            }
            // A group without members.
            _ => {}
        }
        Ok(())
    }

    fn addresses_of(&self, actor: Actor) -> Result<Vec<std::net::IpAddr>> {
        let both = [false, true].map(|is_v6| self.addresses.of(actor, is_v6));
        both.into_iter().map(|address| address.with_context(|| format!("{actor} has no address"))).collect()
    }

    /// What a probe comes to; an error where the specification and the maps disagree.
    pub fn judge(&self, probe: &Probe) -> Result<Judged> {
        Ok(Judged {
            egress: self.side(probe, probe.from, probe.to, Direction::Egress)?,
            ingress: self.side(probe, probe.to, probe.from, Direction::Ingress)?,
        })
    }

    fn side(&self, probe: &Probe, own: Actor, other: Actor, direction: Direction) -> Result<Option<bool>> {
        let address = |actor| self.addresses.of(actor, probe.is_v6).context("no address");
        let (own, remote) = (address(own)?, address(other)?);
        let Some(endpoint) = self.state.endpoints.get(&own) else { return Ok(None) };
        let Some(policy) = self.state.policies.get(&endpoint.identity) else { return Ok(None) };
        let flow = Flow {
            direction,
            identity: self.state.endpoints.get(&remote).map(|endpoint| endpoint.identity),
            remote,
            protocol: probe.kind.protocol,
            port: probe.kind.port,
        };
        let verdict = evaluate(policy, &flow);
        let allowed = verdict.action == RuleAction::Allow;
        let maps = self.maps.get(&endpoint.identity).context("a policy that is in no maps")?;
        if (tables::answer(maps, Bank::A, &flow).allowed == 1) != allowed {
            bail!("{probe}: the maps do not say {allowed}, as the specification does: {verdict:?}");
        }
        Ok(Some(allowed))
    }
}

fn in_maps(policy: &policy::state::Policy) -> Model {
    let mut model = Model::default();
    tables::fill(&mut model, Bank::A, &policy::lower(policy), [Address::NONE; 2], 256);
    model
}
