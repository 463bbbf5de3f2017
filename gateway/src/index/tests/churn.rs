//! Pods that come and go, and whose addresses others get: nothing of who left stays.

use std::time::Duration;

use super::*;

/// Pods that live at a time, and those that come and go in each step, of a second.
const ALIVE: usize = 1000;
const STEP: usize = 100;

/// Seconds: a few, or as many as ten thousand pods take with `OUTRIGGER_LONG`.
fn steps() -> usize {
    if std::env::var_os("OUTRIGGER_LONG").is_some() { 10_000 / STEP } else { 6 }
}

/// What the addresses of pods that left at the same time are given to.
fn of(number: usize) -> String {
    let at = number % (ALIVE + STEP / 2);
    pod(
        &format!("p{number}"),
        &format!("{{app: l{}, version: v{}}}", number % 7, number / 450),
        &format!("n{}", number % 5),
        &format!("10.1.{}.{}", at / 250, at % 250 + 1),
    )
}

/// Publishes, and all receivers confirm it, until no identity is being changed.
fn settle(f: &mut Fixture) -> Compiled {
    for _ in 0..8 {
        let compiled = f.publish();
        f.index.advance(Some(f.generation), f.now);
        if f.index.relabel_rounds().is_empty() {
            return compiled;
        }
    }
    panic!("identities are being changed for ever: {:?}", f.index.relabel_rounds());
}

#[test]
fn pods_that_come_and_go_leave_nothing_behind() {
    let mut f = Fixture::new();
    f.put(&group("db", "{app: db}"));
    let target = Target::Group { namespace: "shop".into(), name: "db".into() };
    f.workloads(&[record("db-1", target, "10.9.0.1", &["192.0.2.1"])]);
    f.put(&policy_for("{app: db}"));
    let nobody = settle(&mut f);
    for number in 0..ALIVE {
        f.put(&of(number));
    }
    let mut last = ALIVE;
    settle(&mut f);
    for _ in 0..steps() {
        for _ in 0..STEP {
            f.delete(Kind::Pod, "shop", &format!("p{}", last - ALIVE));
            f.put(&of(last));
            last += 1;
        }
        f.now += Duration::from_secs(1);
        // Told while identities are being changed, and once they are.
        f.publish();
        let settled = settle(&mut f);
        let pods = f.index.facts().pods.len();
        assert_eq!((pods, settled.state.endpoints.len()), (ALIVE, ALIVE + 1));
        let mut anew = Fixture::new();
        anew.numbers = Arc::clone(&f.numbers);
        anew.put(&group("db", "{app: db}"));
        anew.index.set_workloads(Arc::clone(&f.index.workloads));
        anew.put(&policy_for("{app: db}"));
        (last - ALIVE..last).for_each(|number| anew.put(&of(number)));
        assert_eq!(settled.state, anew.publish().state, "after {last}");
    }
    for number in last - ALIVE..last {
        f.delete(Kind::Pod, "shop", &format!("p{number}"));
    }
    assert_eq!(settle(&mut f).state, nobody.state);
    assert_eq!(f.index.labels().len(), 1, "labels of pods that are gone need a number");
    assert!(f.index.pods.is_empty() && f.index.pods_in_facts.is_empty() && f.index.facts.pods.is_empty());
    assert_eq!(format!("{:?}", f.index.addresses), format!("{:?}", Holders::default()));
}

fn policy_for(labels: &str) -> String {
    format!(
        "{{apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: {{name: db, namespace: shop}}, \
         spec: {{podSelector: {{matchLabels: {labels}}}, ingress: [{{from: [{{podSelector: {{matchLabels: {{app: l1}}}}}}]}}]}}}}"
    )
}
