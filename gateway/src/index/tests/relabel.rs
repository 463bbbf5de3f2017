//! Changes of identities: their phases, changes on top of changes, and restarts in between.

use super::*;

/// Identity, previous and mark of an address: receivers accept all three, senders write the mark.
fn on_wire(compiled: &Compiled, address: &str) -> (u32, Option<u32>, u32) {
    let endpoint = &compiled.state.endpoints[&ip(address)];
    (endpoint.identity.get(), endpoint.previous.map(Identity::get), endpoint.mark.get())
}

#[test]
fn a_relabel_goes_through_its_three_phases_as_receivers_confirm() {
    let mut f = Fixture::new();
    f.put(&pod("a", "{app: one}", "n1", "10.1.0.1"));
    f.publish();
    f.put(&pod("a", "{app: two}", "n1", "10.1.0.1"));
    let first = f.publish();
    assert_eq!(on_wire(&first, "10.1.0.1"), (257, Some(256), 256));
    assert!(!f.index.advance(Some(f.generation - 1), f.now), "receivers have not confirmed");
    assert!(f.index.advance(Some(f.generation), f.now));
    assert_eq!(on_wire(&f.publish(), "10.1.0.1"), (257, Some(256), 257));
    assert!(!f.index.advance(Some(f.generation - 1), f.now));
    assert!(f.index.advance(Some(f.generation), f.now));
    assert_eq!(on_wire(&f.publish(), "10.1.0.1"), (257, None, 257));
    assert_eq!(f.index.deadline(), None);
}

#[test]
fn a_silent_receiver_does_not_hold_a_relabel_for_ever() {
    let mut f = Fixture::new();
    f.put(&pod("a", "{app: one}", "n1", "10.1.0.1"));
    f.publish();
    f.put(&pod("a", "{app: two}", "n1", "10.1.0.1"));
    f.publish();
    assert_eq!(f.index.deadline(), Some(f.now + LONGEST_PHASE));
    assert!(!f.index.advance(Some(0), f.now + LONGEST_PHASE.mul_f32(0.99)));
    assert!(f.index.advance(Some(0), f.now + LONGEST_PHASE));
    assert_eq!(on_wire(&f.compile(), "10.1.0.1"), (257, Some(256), 257));
}

#[test]
fn without_receivers_a_relabel_waits_for_nobody() {
    let mut f = Fixture::new();
    f.put(&pod("a", "{app: one}", "n1", "10.1.0.1"));
    f.publish();
    f.put(&pod("a", "{app: two}", "n1", "10.1.0.1"));
    f.publish();
    assert!(f.index.advance(None, f.now));
}

#[test]
fn a_relabel_during_a_relabel_keeps_what_senders_write() {
    let mut f = Fixture::new();
    f.put(&pod("a", "{app: one}", "n1", "10.1.0.1"));
    f.publish();
    f.put(&pod("a", "{app: two}", "n1", "10.1.0.1"));
    f.publish();
    f.put(&pod("a", "{app: three}", "n1", "10.1.0.1"));
    assert_eq!(on_wire(&f.publish(), "10.1.0.1"), (258, Some(256), 256));
    assert!(f.index.advance(Some(f.generation), f.now));
    assert_eq!(on_wire(&f.publish(), "10.1.0.1"), (258, Some(256), 258));
    // Some senders write 258 now and some still 256; policy uses the newest identity all the same.
    f.put(&pod("a", "{app: two}", "n1", "10.1.0.1"));
    assert_eq!(on_wire(&f.publish(), "10.1.0.1"), (257, Some(256), 258));
    assert!(f.index.advance(Some(f.generation), f.now));
    assert_eq!(on_wire(&f.publish(), "10.1.0.1"), (257, Some(258), 257));
    f.put(&pod("a", "{app: three}", "n1", "10.1.0.1"));
    assert_eq!(on_wire(&f.publish(), "10.1.0.1"), (258, Some(257), 257));
    for _ in 0..2 {
        assert!(f.index.advance(Some(f.generation), f.now));
        f.publish();
    }
    assert_eq!(on_wire(&f.publish(), "10.1.0.1"), (258, None, 258));
    assert_eq!(f.index.deadline(), None);
}

#[test]
fn whatever_is_under_way_labels_and_rules_are_of_the_same_time() {
    let mut f = Fixture::new();
    let put = |f: &mut Fixture, gold: &str, lead: &str| {
        f.put(&pod("x", &format!("{{app: {gold}}}"), "n1", "10.1.0.1"));
        f.put(&pod("z", &format!("{{app: {lead}}}"), "n1", "10.1.0.2"));
    };
    put(&mut f, "one", "two");
    f.publish();
    let identities = |compiled: &Compiled| [on_wire(compiled, "10.1.0.1").0, on_wire(compiled, "10.1.0.2").0];
    for confirmations in 0..4 {
        put(&mut f, "two", "one");
        let swapped = identities(&f.publish());
        for _ in 0..confirmations {
            f.index.advance(Some(f.generation), f.now);
            assert_eq!(identities(&f.publish()), swapped);
        }
        put(&mut f, "one", "two");
        let [x, z] = swapped;
        assert_eq!(identities(&f.publish()), [z, x], "after {confirmations} confirmations");
    }
}

const STEPS: u32 = 5;

/// Whatever senders write after one of the latest states, receivers that have an adjacent one know it.
#[test]
fn neighbours_in_time_understand_each_other_whatever_changes_when() {
    for script in 0..4_u32.pow(STEPS) {
        let mut f = Fixture::new();
        f.put(&pod("a", "{app: l0}", "n1", "10.1.0.1"));
        let mut before = on_wire(&f.publish(), "10.1.0.1");
        let mut confirmed = before;
        for step in 0..STEPS {
            match (script / 4_u32.pow(step)) % 4 {
                0 => {
                    f.index.advance(Some(f.generation), f.now);
                    confirmed = before;
                }
                label => f.put(&pod("a", &format!("{{app: l{label}}}"), "n1", "10.1.0.1")),
            }
            let (identity, previous, mark) = on_wire(&f.publish(), "10.1.0.1");
            let knows = |(known, also, told): (u32, Option<u32>, u32), written: u32| {
                written == known || Some(written) == also || written == told
            };
            for (_, _, written) in [before, confirmed] {
                assert!(
                    knows((identity, previous, mark), written),
                    "script {script}, step {step}: {written} is written, {identity}, {previous:?} and {mark} are known"
                );
            }
            for receiver in [before, confirmed] {
                assert!(knows(receiver, mark), "script {script}, step {step}: {mark} is unknown");
            }
            before = (identity, previous, mark);
        }
    }
}

#[test]
fn a_restart_goes_on_with_the_phase() {
    let mut f = Fixture::new();
    f.put(&pod("a", "{app: one}", "n1", "10.1.0.1"));
    f.publish();
    f.put(&pod("a", "{app: two}", "n1", "10.1.0.1"));
    f.publish();
    for (phase, mark) in [(false, 256), (true, 257)] {
        let mut next = Fixture::new();
        next.numbers.clone_from(&f.numbers);
        next.index.resume_relabels(f.index.relabel_rounds());
        next.put(&pod("a", "{app: two}", "n1", "10.1.0.1"));
        assert_eq!(on_wire(&next.publish(), "10.1.0.1"), (257, Some(256), mark), "marked: {phase}");
        assert!(!next.index.advance(Some(next.generation - 1), next.now), "receivers have not confirmed");
        assert!(next.index.advance(Some(next.generation), next.now));
        f.index.advance(Some(f.generation), f.now);
        f.publish();
    }
    assert_eq!(f.index.relabel_rounds(), BTreeMap::new());
}

#[test]
fn a_restart_does_not_go_on_for_somebody_else() {
    let mut f = Fixture::new();
    f.put(&pod("a", "{app: one}", "n1", "10.1.0.1"));
    f.publish();
    f.put(&pod("a", "{app: two}", "n1", "10.1.0.1"));
    f.publish();
    f.index.advance(Some(f.generation), f.now);
    for (name, labels, expected) in [("b", "{app: two}", 257), ("a", "{app: one}", 256)] {
        let mut next = Fixture::new();
        next.numbers.clone_from(&f.numbers);
        let mut rounds = f.index.relabel_rounds();
        if name == "a" {
            for round in rounds.values_mut() {
                round.relabel.mark = round.relabel.previous;
            }
        }
        next.index.resume_relabels(rounds);
        next.put(&pod(name, labels, "n1", "10.1.0.1"));
        assert_eq!(on_wire(&next.publish(), "10.1.0.1"), (expected, None, expected), "{name}");
        assert_eq!(next.index.deadline(), None);
    }
}

#[test]
fn an_address_that_goes_ends_its_relabel() {
    let mut f = Fixture::new();
    f.put(&pod("a", "{app: one}", "n1", "10.1.0.1"));
    f.publish();
    f.put(&pod("a", "{app: two}", "n1", "10.1.0.1"));
    f.publish();
    f.delete(Kind::Pod, "shop", "a");
    f.publish();
    f.put(&pod("a", "{app: three}", "n1", "10.1.0.1"));
    assert_eq!(on_wire(&f.publish(), "10.1.0.1"), (258, None, 258));
}
