//! What happens over time: leases, leaving, and what is nobody's to select.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::{Arc, Mutex};

use k8s_openapi::api::core::v1 as api;
use pki::KeyHash;
use policy::facts::Facts;
use policy::state::{Mode, Scope};
use tokio::sync::oneshot;

use super::*;
use crate::backends::plan::Change;
use crate::backends::slice;
use crate::manifest::Group;
use crate::mesh_view::{Declared, Summary, WorkloadView};
use crate::store::{Pools, Target, Workload};

/// Who has a session.
struct Mesh {
    group: Arc<Group>,
    connected: Mutex<Vec<String>>,
}

impl MeshView for Mesh {
    fn group_exists(&self, _namespace: &str, _name: &str) -> bool {
        true
    }

    fn promised(&self, _except: &WorkloadName) -> BTreeSet<IpAddr> {
        BTreeSet::new()
    }

    fn declared(&self, _name: &WorkloadName) -> Option<Declared> {
        None
    }

    fn backend(&self, workload: &Workload) -> Option<Backend> {
        let connected = self.connected.lock().unwrap().contains(&workload.name.name);
        Some(Backend { group: self.group.clone(), zone: None, connected, ready: connected.then_some(true) })
    }

    fn summary(&self) -> Summary {
        Summary { synced: true, ..Summary::default() }
    }

    fn facts(&self) -> oneshot::Receiver<Facts> {
        oneshot::channel().1
    }

    fn republish(&self) {}

    fn workload(&self, _name: &WorkloadName) -> Option<WorkloadView> {
        None
    }
}

struct World {
    decider: Decider,
    mesh: Mesh,
    workloads: Workloads,
    seen: Seen,
    now: Instant,
}

fn workload(namespace: &str, name: &str, address: [u8; 4]) -> Workload {
    Workload {
        name: WorkloadName::try_new(namespace, name).unwrap(),
        target: Target::Group { namespace: namespace.to_owned(), name: "db".to_owned() },
        key: KeyHash::of_spki(name.as_bytes()),
        previous_key: None,
        machine: String::new(),
        addresses: vec![address.into()],
        underlay: Vec::new(),
        claims: BTreeMap::new(),
        agent_version: String::new(),
        joined_at: 0,
        joined_with: String::new(),
        certificate_expires: 0,
        ephemeral: false,
    }
}

fn service() -> api::Service {
    let text = serde_json::json!({
        "metadata": {"name": "db", "namespace": "shop", "uid": "u1",
            "annotations": {"outrigger.dev/external-workloads": "enabled"}},
        "spec": {"selector": {"app": "db"}, "ports": [{"port": 5432}]},
    });
    serde_json::from_value(text).unwrap()
}

impl World {
    /// Four hosts that have a session, one more elsewhere, and one with an address of nobody's pool.
    fn new() -> Self {
        let mut workloads = Workloads::default();
        for (namespace, name, address) in [
            ("shop", "db-1", [10, 0, 0, 1]),
            ("shop", "db-2", [10, 0, 0, 2]),
            ("shop", "db-3", [10, 0, 0, 3]),
            ("shop", "db-4", [10, 0, 0, 4]),
            ("bank", "db-5", [10, 0, 0, 5]),
            ("shop", "odd", [192, 0, 2, 1]),
        ] {
            let workload = workload(namespace, name, address);
            workloads.insert(workload.name.clone(), Arc::new(workload));
        }
        let group = Arc::new(Group {
            labels: BTreeMap::from([("app".to_owned(), "db".to_owned())]),
            service_account: "default".to_owned(),
            ports: Vec::new(),
            mode: Mode::Enforce,
            scope: Scope::Mesh,
            nic_mode: Mode::Audit,
            probes: Vec::new(),
            zone: None,
        });
        let connected = workloads.keys().map(|name| name.name.clone()).collect();
        let pools = Pools::try_new(&["10.0.0.0/24".parse().unwrap()]).unwrap();
        let settings = Settings { lease: Duration::from_mins(1), stale_share: 50, pools };
        let mut seen = Seen::default();
        let wish = Wish::of(&service()).unwrap();
        seen.services.listed([(("shop".to_owned(), "db".to_owned()), wish)].into());
        seen.slices.listed(BTreeMap::new());
        let now = Instant::now();
        let mesh = Mesh { group, connected: Mutex::new(connected) };
        let mut world = Self { decider: Decider::new(settings, now), mesh, workloads, seen, now };
        world.wait(1);
        world
    }

    /// Lets seconds pass, and does what is decided; how many writes that took.
    fn wait(&mut self, seconds: u64) -> usize {
        let mut writes = 0;
        for _ in 0..seconds {
            self.now += Duration::from_secs(1);
            writes += self.step();
        }
        writes
    }

    fn step(&mut self) -> usize {
        let decided = self.decider.decide(&self.seen, &self.workloads, &self.mesh, self.now);
        let Some(Decided { work, orphans }) = decided else { return 0 };
        let mut writes = orphans.len();
        for orphan in orphans {
            self.seen.slices.objects.remove(&(orphan.namespace, orphan.name));
        }
        for Work { service, plan, .. } in work {
            let Some(service) = service else { continue };
            writes += plan.changes.len();
            for change in plan.changes {
                let (name, object) = match change {
                    Change::Create(shape, endpoints) => {
                        ("new".to_owned(), slice::object(&service.owner, &shape, &endpoints, None))
                    }
                    Change::Update(name, endpoints) => {
                        let before = &self.seen.slices.objects[&("shop".to_owned(), name.clone())];
                        let object = slice::object(&service.owner, &before.shape, &endpoints, Some(before));
                        (name, object)
                    }
                    Change::Delete(name) => {
                        self.seen.slices.objects.remove(&("shop".to_owned(), name));
                        continue;
                    }
                };
                let found = Slice { name: name.clone(), ..Slice::read(&object).unwrap() };
                self.seen.slices.objects.insert(("shop".to_owned(), name), found);
            }
        }
        writes
    }

    /// The names of those behind the Service; with a mark those that are not ready, and those that end.
    fn behind(&self) -> Vec<String> {
        let all = self.seen.slices.objects.values().flat_map(|slice| &slice.endpoints);
        let shown = all.map(|endpoint| match endpoint.conditions {
            slice::Conditions { terminating: true, .. } => format!("{}†", endpoint.workload),
            slice::Conditions { ready: false, .. } => format!("{}?", endpoint.workload),
            _ => endpoint.workload.clone(),
        });
        let mut all: Vec<String> = shown.collect();
        all.sort();
        all
    }

    fn fall_silent(&self, names: &[&str]) {
        self.mesh.connected.lock().unwrap().retain(|name| !names.contains(&name.as_str()));
    }
}

#[test]
fn hosts_of_another_namespace_and_foreign_addresses_are_nobody_behind_it() {
    let mut world = World::new();
    assert_eq!(world.behind(), ["db-1", "db-2", "db-3", "db-4"]);
    assert_eq!(world.wait(300), 0, "nothing is written while all is as it was");
}

#[test]
fn who_is_silent_stays_for_its_lease_and_half_of_them_for_ever() {
    let mut world = World::new();
    world.fall_silent(&["db-1"]);
    assert_eq!(world.wait(60), 0);
    assert_eq!(world.wait(2), 1);
    assert_eq!(world.behind(), ["db-2", "db-3", "db-4"]);
    // All are silent now: that is more likely the network.
    world.fall_silent(&["db-2", "db-3", "db-4", "odd"]);
    world.wait(300);
    assert_eq!(world.behind(), ["db-3", "db-4"]);
    let decided = world.decider.decide(&world.seen, &world.workloads, &world.mesh, world.now).unwrap();
    let told: Vec<_> = decided.work[0].plan.notes.iter().map(|note| note.reason).collect();
    assert_eq!(told, ["StaleEndpointsKept"]);
    world.mesh.connected.lock().unwrap().extend(["db-1", "db-2", "db-3", "db-4"].map(str::to_owned));
    world.wait(1);
    assert_eq!(world.behind(), ["db-1", "db-2", "db-3", "db-4"]);
}

#[test]
fn time_in_which_nobody_could_have_heard_of_it_is_nobodys_lease() {
    let mut world = World::new();
    world.fall_silent(&["db-1"]);
    world.wait(30);
    // The machine slept, and then the API server was away.
    world.now += Duration::from_hours(1);
    world.wait(1);
    world.seen.slices.lost("away".to_owned());
    assert_eq!(world.wait(600), 0);
    let again = std::mem::take(&mut world.seen.slices.objects);
    world.seen.slices.listed(again);
    assert_eq!(world.wait(20), 0);
    assert_eq!(world.wait(20), 1, "its lease goes on from there");
    assert_eq!(world.behind(), ["db-2", "db-3", "db-4"]);
    // Another gateway, or one that starts, begins to count anew, and takes what is there as it is.
    let mut other = World::new();
    other.seen.slices.objects.clone_from(&world.seen.slices.objects);
    other.fall_silent(&["db-2"]);
    other.decider = Decider::new(other.decider.settings.clone(), other.now);
    other.wait(59);
    assert_eq!(other.behind(), ["db-1", "db-2", "db-3", "db-4"]);
}

#[test]
fn who_leaves_ends_for_a_while_and_what_is_not_known_is_not_decided() {
    let mut world = World::new();
    world.workloads.remove(&WorkloadName::try_new("shop", "db-2").unwrap());
    world.wait(1);
    assert_eq!(world.behind(), ["db-1", "db-2†", "db-3", "db-4"]);
    assert_eq!(world.wait(29), 0);
    assert_eq!(world.wait(2), 1);
    assert_eq!(world.behind(), ["db-1", "db-3", "db-4"]);
    world.seen.services.objects.clear();
    assert_eq!(world.wait(1), 1, "the Service is gone");
    assert!(world.behind().is_empty());
    let mut blind = World::new();
    blind.seen = Seen::default();
    assert_eq!(blind.wait(5), 0);
}
