//! The gateway's compiler in memory: manifests and workloads in, compiled state out. No process, no clock but the
//! test's.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, ensure};
use gateway::index::{Compiled, Index, MeshSettings};
use gateway::manifest::{Kind, Manifest, ObjectKey, manifests, node};
use gateway::source::Change;
use gateway::store::{Target, Workload, WorkloadName};
use policy::identity::Identity;
use policy::labels::Labels;
use policy::state::Endpoint;

/// Where mesh addresses come from.
pub const POOL: &str = "10.9.0.0/24";

/// A compiler with numbers for the label sets it meets, given in the order of their first appearance.
#[derive(Debug)]
pub struct Compiler {
    index: Index,
    workloads: BTreeMap<WorkloadName, Arc<Workload>>,
    /// The numbers given so far.
    pub numbers: Arc<BTreeMap<Labels, Identity>>,
    published: Option<Compiled>,
    generation: u64,
    now: Instant,
}

impl Compiler {
    /// One without facts.
    pub fn try_new() -> Result<Self> {
        let settings = MeshSettings {
            cluster: "default".to_owned(),
            pools: vec![POOL.parse()?],
            pod_prefixes: Vec::new(),
            tunnel_port: 8479,
        };
        Ok(Self {
            index: Index::new(settings),
            workloads: BTreeMap::new(),
            numbers: Arc::default(),
            published: None,
            generation: 0,
            now: Instant::now(),
        })
    }

    /// Reads documents, each of which has to be valid.
    pub fn put(&mut self, yaml: &str) -> Result<()> {
        for Manifest { key, object, .. } in read(yaml)? {
            let object = object.map_err(|error| anyhow!("{error}"))?;
            self.index.apply(Change::Put(key.context("an object without a name")?, object));
        }
        Ok(())
    }

    /// Forgets an object of the namespace `shop`.
    pub fn delete(&mut self, kind: Kind, name: &str) {
        self.index.apply(Change::Delete(ObjectKey::new(kind, "shop", name)));
    }

    /// Adds a member of a group of the namespace `shop`, or the transit node of that name if there is no group.
    pub fn join(&mut self, name: &str, group: Option<&str>, address: &str, underlay: &str) -> Result<()> {
        let workload = workload(name, group, address, underlay, 7)?;
        self.workloads.insert(workload.name.clone(), Arc::new(workload));
        self.index.set_workloads(Arc::new(self.workloads.clone()));
        Ok(())
    }

    /// Brings the facts up to date without compiling them.
    pub fn refresh(&mut self) {
        self.index.refresh();
        let new: Vec<Labels> =
            self.index.labels().filter(|labels| !self.numbers.contains_key(labels)).cloned().collect();
        for labels in new {
            let number = Identity::FIRST_ALLOCATED + u32::try_from(self.numbers.len()).unwrap_or_default();
            if let Ok(identity) = Identity::try_new(number) {
                Arc::make_mut(&mut self.numbers).insert(labels, identity);
            }
        }
    }

    /// Compiles what is known.
    pub fn compile(&mut self) -> Result<Compiled> {
        self.refresh();
        self.index.compile(&self.numbers, self.published.as_ref()).map_err(|error| anyhow!("{error}"))
    }

    /// Compiles, and publishes it.
    pub fn publish(&mut self) -> Result<Compiled> {
        let compiled = self.compile()?;
        self.generation += 1;
        self.published = Some(compiled.clone());
        self.index.published(self.generation, self.now);
        Ok(compiled)
    }

    /// So much time passes in which a receiver says nothing; whether the next state differs.
    pub fn silence(&mut self, time: Duration) -> bool {
        self.now += time;
        self.index.advance(Some(0), self.now)
    }
}

/// A member of a group of the namespace `shop`, or the transit node of that name if there is no group; a host with a
/// key of that number.
pub fn workload(name: &str, group: Option<&str>, address: &str, underlay: &str, key: u8) -> Result<Workload> {
    let target = match group {
        Some(group) => Target::Group { namespace: "shop".to_owned(), name: group.to_owned() },
        None => Target::TransitNode { node: name.to_owned() },
    };
    let name = WorkloadName::try_new(target.namespace(), name)?;
    Ok(Workload {
        name,
        target,
        key: pki::KeyHash::try_from_bytes(&[key; 32]).context("32 bytes")?,
        previous_key: None,
        machine: String::new(),
        addresses: vec![address.parse()?],
        underlay: vec![underlay.parse()?],
        claims: BTreeMap::new(),
        agent_version: String::new(),
        joined_at: 0,
        joined_with: String::new(),
        certificate_expires: 0,
        ephemeral: false,
    })
}

/// The objects of a text, valid or not.
pub fn read(yaml: &str) -> Result<Vec<Manifest>> {
    let documents = node::parse(yaml).map_err(|error| anyhow!("{}", error.message))?;
    let objects: Vec<_> = documents.into_iter().flat_map(manifests).collect();
    ensure!(!objects.is_empty(), "no object in {yaml}");
    Ok(objects)
}

/// The endpoint of an address.
pub fn endpoint<'a>(compiled: &'a Compiled, address: &str) -> Result<&'a Endpoint> {
    let address: IpAddr = address.parse()?;
    compiled
        .state
        .endpoints
        .get(&address)
        .map(|endpoint| &**endpoint)
        .with_context(|| format!("no {address}"))
}

/// A Pod of the namespace `shop`, with labels in YAML's flow style.
#[must_use]
pub fn pod(name: &str, labels: &str, node: &str, address: &str) -> String {
    format!(
        "---\n{{apiVersion: v1, kind: Pod, metadata: {{name: {name}, namespace: shop, labels: {labels}}}, \
         spec: {{nodeName: {node}}}, status: {{podIPs: [{{ip: \"{address}\"}}]}}}}\n"
    )
}

/// An ExternalWorkloadGroup of the namespace `shop`.
#[must_use]
pub fn group(name: &str, labels: &str) -> String {
    format!(
        "---\n{{apiVersion: outrigger.dev/v1alpha1, kind: ExternalWorkloadGroup, \
         metadata: {{name: {name}, namespace: shop}}, spec: {{template: {{labels: {labels}}}}}}}\n"
    )
}
