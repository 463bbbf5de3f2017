use std::sync::{Arc, Mutex};

use datapath::Address;
use datapath::abi::Bank;
use proptest::prelude::*;

use super::*;

/// What happened to the kernel, in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    Write(Bank),
    Store(Control),
    Grace,
}

type Journal = Arc<Mutex<Vec<Step>>>;
type Tree<K, V> = Arc<Mutex<BTreeMap<K, V>>>;

/// A table that outlives its publisher, as a pinned map does, and refuses writes when it is told to.
struct Recorded<K, V> {
    tree: Tree<K, V>,
    journal: Journal,
    capacity: usize,
}

impl<K: BankedKey + Send, V: Copy + Send> Table<K, V> for Recorded<K, V> {
    fn insert(&mut self, key: &K, value: &V) -> Result<(), TableError> {
        self.journal.lock().unwrap().push(Step::Write(key.bank().unwrap()));
        self.tree.lock().unwrap().insert(*key, *value);
        Ok(())
    }

    fn remove(&mut self, key: &K) -> Result<(), TableError> {
        self.journal.lock().unwrap().push(Step::Write(key.bank().unwrap()));
        self.tree.lock().unwrap().remove(key);
        Ok(())
    }

    fn entries(&self) -> Result<Vec<(K, V)>, TableError> {
        self.tree.lock().unwrap().entries()
    }

    fn capacity(&self) -> usize {
        self.capacity
    }
}

/// The pinned maps of a kernel.
#[derive(Clone, Default)]
struct Pinned {
    endpoints: Tree<EndpointKey, EndpointEntry>,
    classes: Tree<ClassKey, ClassEntry>,
    words: Arc<Mutex<(Control, [Option<Settings>; 2])>>,
    journal: Journal,
}

impl Switch for Pinned {
    fn control(&self) -> Result<Control, TableError> {
        Ok(self.words.lock().unwrap().0)
    }

    fn store(&mut self, control: Control) -> Result<(), TableError> {
        self.words.lock().unwrap().0 = control;
        self.journal.lock().unwrap().push(Step::Store(control));
        Ok(())
    }

    fn settings(&self, bank: Bank) -> Result<Settings, TableError> {
        Ok(of_bank(&self.words.lock().unwrap().1, bank).unwrap_or(NO_SETTINGS))
    }

    fn write_settings(&mut self, bank: Bank, settings: &Settings) -> Result<(), TableError> {
        self.journal.lock().unwrap().push(Step::Write(bank));
        *of_bank_mut(&mut self.words.lock().unwrap().1, bank) = Some(*settings);
        Ok(())
    }

    fn grace(&mut self) -> Result<(), TableError> {
        self.journal.lock().unwrap().push(Step::Grace);
        Ok(())
    }
}

const CAPACITY: usize = 12;

impl Pinned {
    fn adopt(&self) -> Publisher {
        let journal = Arc::clone(&self.journal);
        Publisher::adopt(Store {
            endpoints: Box::new(Recorded {
                tree: Arc::clone(&self.endpoints),
                journal: Arc::clone(&journal),
                capacity: CAPACITY,
            }),
            classes: Box::new(Recorded { tree: Arc::clone(&self.classes), journal, capacity: CAPACITY }),
            tunnels: Box::new(BTreeMap::new()),
            cidrs: Box::new(BTreeMap::new()),
            policy: Box::new(BTreeMap::new()),
            prefixes: Box::new(BTreeMap::new()),
            switch: Box::new(self.clone()),
        })
        .unwrap()
    }

    /// What a packet reads now.
    fn read(&self) -> Contents {
        let (control, settings) = *self.words.lock().unwrap();
        let bank = control.bank();
        let mut contents = Contents { settings: *of_bank(&settings, bank), ..Contents::default() };
        for (key, value) in self.endpoints.lock().unwrap().iter().filter(|(key, _)| key.bank() == Some(bank))
        {
            contents.endpoints.insert(key.in_bank(Bank::A), *value);
        }
        for (key, value) in self.classes.lock().unwrap().iter().filter(|(key, _)| key.bank() == Some(bank)) {
            contents.classes.insert(key.in_bank(Bank::A), *value);
        }
        contents
    }
}

fn contents(endpoints: &BTreeMap<u8, u32>, classes: &BTreeMap<u8, u32>) -> Contents {
    let endpoint = |(last, identity): (&u8, &u32)| {
        let key = EndpointKey { bank: 0, reserved: [0; 3], address: Address::from_v4([10, 0, 0, *last]) };
        let entry = EndpointEntry {
            identity: *identity,
            previous: 0,
            mark: *identity,
            tunnel_set: 0,
            tunnel: Address::NONE,
            flags: 0,
            reserved: 0,
        };
        (key, entry)
    };
    let class = |(identity, class): (&u8, &u32)| {
        (ClassKey { bank: 0, reserved: [0; 3], identity: u32::from(*identity) }, ClassEntry { class: *class })
    };
    Contents {
        endpoints: endpoints.iter().map(endpoint).collect(),
        classes: classes.iter().map(class).collect(),
        settings: Some(NO_SETTINGS),
        ..Contents::default()
    }
}

fn tree() -> impl Strategy<Value = BTreeMap<u8, u32>> {
    prop::collection::btree_map(0_u8..10, 1_u32..5, 0..8)
}

/// One thing that happens to a publisher.
#[derive(Clone, Debug)]
enum Action {
    /// A state is written and published.
    Publish(BTreeMap<u8, u32>, BTreeMap<u8, u32>),
    /// A state is written, and then something else fails.
    Abandon(BTreeMap<u8, u32>, BTreeMap<u8, u32>),
    /// The agent dies and another one adopts what is there.
    Restart,
    /// There is time for the grace period at once.
    Settle,
}

fn action() -> impl Strategy<Value = Action> {
    prop_oneof![
        4 => (tree(), tree()).prop_map(|(endpoints, classes)| Action::Publish(endpoints, classes)),
        1 => (tree(), tree()).prop_map(|(endpoints, classes)| Action::Abandon(endpoints, classes)),
        1 => Just(Action::Restart),
        1 => Just(Action::Settle),
    ]
}

/// No write touches the active bank, nor the other one between a store and the next grace period.
fn assert_law(journal: &[Step]) {
    let mut active = Control::UNPUBLISHED;
    let mut settled = true;
    for step in journal {
        match step {
            Step::Write(bank) => {
                assert_ne!(*bank, active.bank(), "the active bank was written: {journal:?}");
                assert!(settled, "a bank in its grace period was written: {journal:?}");
            }
            Step::Store(control) => {
                active = *control;
                settled = false;
            }
            Step::Grace => settled = true,
        }
    }
}

proptest! {
    #[test]
    fn packets_read_one_whole_publication(actions in prop::collection::vec(action(), 1..20)) {
        let kernel = Pinned::default();
        let mut publisher = kernel.adopt();
        let mut published: Option<Contents> = None;
        for action in actions {
            match action {
                Action::Publish(endpoints, classes) => {
                    let wanted = contents(&endpoints, &classes);
                    if publisher.prepare(&wanted).is_ok() {
                        publisher.commit(0).unwrap();
                        published = Some(wanted);
                    }
                }
                Action::Abandon(endpoints, classes) => drop(publisher.prepare(&contents(&endpoints, &classes))),
                Action::Restart => publisher = kernel.adopt(),
                Action::Settle => publisher.settle().unwrap(),
            }
            if let Some(published) = &published {
                prop_assert_eq!(&kernel.read(), published);
                prop_assert!(publisher.runs(published));
            }
            assert_law(&kernel.journal.lock().unwrap());
        }
    }
}

fn many(count: u8) -> Contents {
    contents(&(0..count).map(|last| (last, 7)).collect(), &BTreeMap::new())
}

#[test]
fn a_state_that_does_not_fit_is_refused_before_anything_is_written() {
    let kernel = Pinned::default();
    let mut publisher = kernel.adopt();
    publisher.prepare(&many(7)).unwrap();
    publisher.commit(0).unwrap();
    publisher.settle().unwrap();
    let before = kernel.journal.lock().unwrap().len();
    let refused = publisher.prepare(&many(6)).unwrap_err();
    assert!(matches!(refused, TableError::Full { table: "ENDPOINTS", needed: 13, capacity: CAPACITY }));
    assert_eq!(kernel.journal.lock().unwrap().len(), before);
    publisher.prepare(&many(5)).unwrap();
}

#[test]
fn what_is_the_same_is_not_written_again() {
    let kernel = Pinned::default();
    let mut publisher = kernel.adopt();
    for _ in 0..2 {
        publisher.prepare(&many(5)).unwrap();
        publisher.commit(0).unwrap();
    }
    kernel.journal.lock().unwrap().clear();
    publisher.prepare(&many(5)).unwrap();
    let settings_only = [Step::Grace, Step::Write(publisher.control().bank().other())];
    assert_eq!(*kernel.journal.lock().unwrap(), settings_only);
}

#[test]
fn a_publication_names_its_programs_and_the_next_epoch() {
    let kernel = Pinned::default();
    let mut publisher = kernel.adopt();
    let first = publisher.commit(0).unwrap();
    let second = publisher.commit(3).unwrap();
    assert_eq!((first.epoch(), second.epoch()), (1, 2));
    assert_eq!((first.bank(), second.bank()), (Bank::B, Bank::A));
    assert_eq!(second.program_set(), 3);
}

#[test]
fn a_new_owner_waits_before_its_first_write() {
    let kernel = Pinned::default();
    kernel.adopt().commit(0).unwrap();
    kernel.journal.lock().unwrap().clear();
    kernel.adopt().prepare(&many(1)).unwrap();
    assert_eq!(kernel.journal.lock().unwrap().first(), Some(&Step::Grace));
}
