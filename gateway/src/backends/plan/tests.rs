//! What is planned, carried out on slices in memory: what every consumer may rely on after each change.

use std::collections::BTreeMap;

use policy::facts::NamedPort;
use policy::state::{Mode, Scope};

use super::*;
use crate::backends::slice::{self, Owner};

fn group(labels: &[(&str, &str)], ports: &[(&str, u16)]) -> Arc<Group> {
    let text = |(key, value): &(&str, &str)| ((*key).to_owned(), (*value).to_owned());
    let port =
        |(name, number): &(&str, u16)| NamedPort { name: (*name).to_owned(), protocol: 6, number: *number };
    Arc::new(Group {
        labels: labels.iter().map(text).collect(),
        service_account: "default".to_owned(),
        ports: ports.iter().map(port).collect(),
        mode: Mode::Enforce,
        scope: Scope::Mesh,
        nic_mode: Mode::Audit,
        probes: Vec::new(),
        zone: None,
    })
}

fn member(number: u16) -> Member {
    let [high, low] = number.to_be_bytes();
    Member {
        name: format!("db-{number}"),
        addresses: vec![[10, 0, high, low].into()],
        group: group(&[("app", "db"), ("tier", "data")], &[("sql", 5432)]),
        zone: None,
        ready: Some(true),
        overdue: None,
    }
}

fn service() -> Service {
    Service {
        owner: Owner {
            namespace: "shop".to_owned(),
            name: "db".to_owned(),
            uid: "u1".to_owned(),
            headless: false,
        },
        selector: BTreeMap::from([("app".to_owned(), "db".to_owned())]),
        ports: vec![port("sql", TargetPort::Number(5432))],
        families: [Family::V4, Family::V6].into(),
        takes_unready: false,
        prefers_zone: false,
    }
}

fn port(name: &str, target: TargetPort) -> ServicePort {
    ServicePort { name: name.to_owned(), protocol: "TCP".to_owned(), target, app_protocol: None }
}

/// A cluster's slices, as objects.
struct World {
    service: Service,
    slices: BTreeMap<String, Slice>,
    number: u32,
    lingers: bool,
    share: u8,
}

impl World {
    fn new() -> Self {
        Self { service: service(), slices: BTreeMap::new(), number: 0, lingers: true, share: 50 }
    }

    fn planned(&self, members: &[Member]) -> Plan {
        let existing: Vec<&Slice> = self.slices.values().collect();
        let rules = Rules { stale_share: self.share, lingers: &|_| self.lingers };
        plan(&self.service, members, &existing, &rules)
    }

    /// Does what is planned, and returns how many writes that took; after it there is nothing to do.
    fn settle(&mut self, members: &[Member]) -> usize {
        let Plan { changes, .. } = self.planned(members);
        let count = changes.len();
        for change in changes {
            self.number += 1;
            match change {
                Change::Create(shape, endpoints) => {
                    let mut object = slice::object(&self.service.owner, &shape, &endpoints, None);
                    object.metadata.name = Some(format!("db-ew-{:04}", self.number));
                    self.store(&object);
                }
                Change::Update(name, endpoints) => {
                    let before = &self.slices[&name];
                    let object = slice::object(&self.service.owner, &before.shape, &endpoints, Some(before));
                    self.store(&object);
                }
                Change::Delete(name) => drop(self.slices.remove(&name)),
            }
        }
        assert_eq!(self.planned(members).changes, [], "what was written is what was wanted");
        count
    }

    fn store(&mut self, object: &k8s_openapi::api::discovery::v1::EndpointSlice) {
        let slice = Slice::read(object).unwrap();
        assert!(slice.intact, "{object:?}");
        self.slices.insert(slice.name.clone(), slice);
    }

    /// The endpoints: each once.
    fn endpoints(&self) -> BTreeMap<String, Endpoint> {
        let mut all = BTreeMap::new();
        for slice in self.slices.values() {
            assert!((1..=MOST).contains(&slice.endpoints.len()), "{slice:?}");
            for endpoint in &slice.endpoints {
                assert_eq!(Family::of(endpoint.address), slice.shape.family);
                let again = all.insert(endpoint.address.to_string(), endpoint.clone());
                assert_eq!(again, None, "an address is in one slice");
            }
        }
        all
    }

    fn conditions(&self, address: &str) -> [bool; 3] {
        let Conditions { ready, serving, terminating } = self.endpoints()[address].conditions;
        [ready, serving, terminating]
    }
}

#[test]
fn endpoints_are_in_full_slices_and_a_change_rewrites_one() {
    let mut world = World::new();
    let mut members: Vec<Member> = (0..250).map(member).collect();
    assert_eq!(world.settle(&members), 3);
    assert_eq!(world.endpoints().len(), 250);
    members[17].ready = Some(false);
    assert_eq!(world.settle(&members), 1);
    assert_eq!(world.conditions("10.0.0.17"), [false, false, false]);
    // Those that go make room for those that come.
    world.lingers = false;
    let gone = members.remove(120);
    members.push(member(1000));
    assert_eq!(world.settle(&members), 1, "{gone:?}");
    members.extend((2000..2100).map(member));
    assert_eq!(world.settle(&members), 2, "one is filled, and one is new");
    assert_eq!(world.endpoints().len(), 350);
    assert_eq!(world.slices.len(), 4);
    members.retain(|member| member.name == "db-0");
    assert_eq!(world.settle(&members), 4, "empty ones go");
    assert_eq!(world.settle(&[]), 1);
    assert!(world.slices.is_empty());
}

#[test]
fn families_and_ports_have_slices_of_their_own() {
    let mut world = World::new();
    world.service.ports = vec![
        ServicePort {
            app_protocol: Some("kubernetes.io/h2c".to_owned()),
            ..port("sql", TargetPort::Name("sql".to_owned()))
        },
        port("metrics", TargetPort::Number(9187)),
    ];
    let mut members: Vec<Member> = (0..3).map(member).collect();
    members[0].addresses.push("fd00::1".parse().unwrap());
    members[1].group = group(&[("app", "db")], &[("sql", 6432)]);
    members[2].group = group(&[("app", "db")], &[]);
    world.settle(&members);
    let ports: Vec<_> = world
        .slices
        .values()
        .map(|slice| {
            let ports = slice.shape.ports.iter();
            let ports = ports.map(|port| (port.name.as_str(), port.number, port.app_protocol.as_deref()));
            (slice.endpoints[0].address.to_string(), ports.collect::<Vec<_>>())
        })
        .collect();
    let (metrics, h2c) = (("metrics", 9187, None), Some("kubernetes.io/h2c"));
    assert_eq!(
        ports,
        [
            ("10.0.0.2".to_owned(), vec![metrics]),
            ("10.0.0.0".to_owned(), vec![metrics, ("sql", 5432, h2c)]),
            ("10.0.0.1".to_owned(), vec![metrics, ("sql", 6432, h2c)]),
            ("fd00::1".to_owned(), vec![metrics, ("sql", 5432, h2c)]),
        ]
    );
    let notes = world.planned(&members).notes;
    let note = notes.first().unwrap();
    assert!(note.reason == "PortNotFound" && note.text.contains("\"sql\"") && note.text.contains("db-2"));
    // Without any of the ports it is no endpoint at all.
    world.service.ports.pop();
    world.service.families = [Family::V4].into();
    world.settle(&members);
    assert_eq!(world.endpoints().into_keys().collect::<Vec<_>>(), ["10.0.0.0", "10.0.0.1"]);
}

#[test]
fn only_who_has_all_labels_of_the_selector_is_behind_it() {
    let mut world = World::new();
    world.service.selector.insert("tier".to_owned(), "data".to_owned());
    let mut members: Vec<Member> = (0..2).map(member).collect();
    members[0].group = group(&[("app", "db")], &[]);
    world.settle(&members);
    assert_eq!(world.endpoints().into_keys().collect::<Vec<_>>(), ["10.0.0.1"]);
}

#[test]
fn a_silent_workload_stays_as_it_was_until_its_lease_ends() {
    let mut world = World::new();
    let mut members: Vec<Member> = (0..4).map(member).collect();
    members[1].ready = Some(false);
    members[3].ready = None;
    world.settle(&members);
    assert_eq!(world.conditions("10.0.0.3"), [false; 3], "nobody has heard of it yet");
    for member in &mut members {
        member.ready = None;
    }
    assert_eq!(world.settle(&members), 0, "nothing is known of anybody");
    for (member, seconds) in members.iter_mut().zip([5, 9, 7]) {
        member.overdue = Some(Duration::from_secs(seconds));
    }
    world.settle(&members);
    assert_eq!(
        world.endpoints().into_keys().collect::<Vec<_>>(),
        ["10.0.0.0", "10.0.0.3"],
        "half of them go, those that are silent for longest"
    );
    let notes = world.planned(&members).notes;
    assert_eq!(notes.first().unwrap().reason, "StaleEndpointsKept");
    assert!(notes.first().unwrap().text.contains("3 of 4"), "{notes:?}");
    members[0].overdue = None;
    assert!(world.planned(&members).notes.is_empty());
    // Who comes back is there again, as it says then.
    members[1] = member(1);
    world.settle(&members);
    assert_eq!(world.conditions("10.0.0.1"), [true, true, false]);
    world.share = 100;
    for member in &mut members {
        member.overdue = Some(Duration::ZERO);
    }
    world.settle(&members);
    assert!(world.endpoints().is_empty(), "an administrator wanted it so");
}

#[test]
fn who_leaves_is_shown_as_one_that_ends_for_a_while() {
    let mut world = World::new();
    let mut members: Vec<Member> = (0..2).map(member).collect();
    world.settle(&members);
    members.remove(0);
    assert_eq!(world.settle(&members), 1);
    assert_eq!(world.conditions("10.0.0.0"), [false, false, true]);
    // It joins again before that is over.
    members.push(Member { ready: None, ..member(0) });
    world.settle(&members);
    assert_eq!(world.conditions("10.0.0.0"), [false; 3]);
    members.pop();
    world.settle(&members);
    world.lingers = false;
    world.settle(&members);
    assert_eq!(world.endpoints().into_keys().collect::<Vec<_>>(), ["10.0.0.1"]);
    // One that is not selected any more goes at once.
    world.lingers = true;
    members[0].group = group(&[("app", "other")], &[]);
    world.settle(&members);
    assert!(world.slices.is_empty());
}

#[test]
fn zones_hints_and_host_names_are_what_the_service_asks_for() {
    let mut world = World::new();
    let mut members: Vec<Member> = (0..2).map(member).collect();
    members[0].zone = Some("a".to_owned());
    world.settle(&members);
    let endpoint = &world.endpoints()["10.0.0.0"];
    assert_eq!((endpoint.zone.as_deref(), endpoint.hinted, &endpoint.hostname), (Some("a"), false, &None));
    (world.service.prefers_zone, world.service.owner.headless) = (true, true);
    world.settle(&members);
    let endpoint = &world.endpoints()["10.0.0.0"];
    assert!(endpoint.hinted && endpoint.hostname.as_deref() == Some("db-0"), "{endpoint:?}");
    assert!(!world.endpoints()["10.0.0.1"].hinted, "nobody knows where it is");
    assert!(world.slices.values().all(|slice| slice.headless));
    members[0].ready = Some(false);
    world.settle(&members);
    assert!(!world.endpoints()["10.0.0.0"].hinted, "nobody should prefer what is not ready");
    world.service.takes_unready = true;
    world.settle(&members);
    assert_eq!(world.conditions("10.0.0.0"), [true, false, false]);
}

#[test]
fn slices_that_were_spoiled_or_are_of_another_service_are_made_anew() {
    let mut world = World::new();
    let members: Vec<Member> = (0..3).map(member).collect();
    world.settle(&members);
    let (name, slice) = world.slices.iter_mut().next().unwrap();
    let copy = Slice { name: format!("{name}-copy"), ..slice.clone() };
    slice.endpoints.pop();
    slice.endpoints[0].conditions.ready = false;
    slice.intact = false;
    world.slices.insert(copy.name.clone(), copy);
    world.settle(&members);
    assert_eq!(world.endpoints().len(), 3);
    assert!(world.slices.values().all(|slice| slice.intact));
    // The Service was deleted and made again.
    world.service.owner.uid = "u2".to_owned();
    let slices = world.slices.len();
    assert_eq!(world.settle(&members), 1 + slices, "one comes, the others go");
    assert!(world.slices.values().all(|slice| slice.owner == "u2"));
}

#[test]
fn what_is_not_marked_as_the_gateways_own_is_not_read() {
    let shape = Shape { family: Family::V4, ports: Vec::new() };
    let mut object = slice::object(&service().owner, &shape, &[], None);
    assert!(Slice::read(&object).is_some());
    for by in ["endpointslice-controller.k8s.io", ""] {
        let labels = object.metadata.labels.as_mut().unwrap();
        labels.insert(crate::manifest::MANAGED_BY.0.to_owned(), by.to_owned());
        assert!(Slice::read(&object).is_none(), "{by:?}");
    }
}
