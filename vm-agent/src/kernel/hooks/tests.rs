//! Needs root and the BPF object, as `tests/kernel.rs` does; here, because newer kernels never choose classifiers.

use std::process::Command;

use hostnet::Kernel as _;
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};

use super::*;
use crate::kernel::{TableSizes, programs};

const BPFFS: &str = "/sys/fs/bpf";

/// Runs a test on a host of its own, with one NIC, whose hooks are attached in that way.
fn isolated<F: Future<Output = ()>>(
    by: AttachedBy,
    test: impl FnOnce(Netlink, Hooks, HookedDevice) -> F + Send + 'static,
) {
    let host = std::thread::spawn(move || {
        unshare(CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWNS).unwrap();
        let none: Option<&str> = None;
        mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none).unwrap();
        mount(Some("bpf"), BPFFS, Some("bpf"), MsFlags::empty(), none).unwrap();
        run("ip link add eth0 type veth peer name far");
        let body = async {
            let mut netlink = Netlink::connect().unwrap();
            let ifindex = netlink.inventory().await.unwrap().link("eth0").unwrap().index;
            let hooks = Hooks { by, ..hooks() };
            test(netlink, hooks, HookedDevice { name: "eth0".to_owned(), ifindex }).await;
        };
        tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(body);
    });
    host.join().unwrap();
}

/// Hooks of a process that has just started.
fn hooks() -> Hooks {
    hooks_of("test")
}

fn hooks_of(mesh: &str) -> Hooks {
    let pins = Pins::new(BPFFS.as_ref(), mesh);
    drop(pins.lock().unwrap());
    let stubs = programs::load(&pins, TableSizes::default()).unwrap().stubs;
    Hooks::new(pins, stubs)
}

fn run(line: &str) {
    let mut words = line.split_whitespace();
    let status = Command::new(words.next().unwrap()).args(words).status().unwrap();
    assert!(status.success(), "{line}");
}

#[test]
fn this_kernel_has_links() {
    isolated(AttachedBy::Link, |_, hooks, _| async move {
        assert_eq!(Hooks::new(hooks.pins, hooks.stubs).by, AttachedBy::Link);
    });
}

#[test]
fn a_classifier_is_put_in_its_place_and_found_there() {
    isolated(AttachedBy::Classifier, |netlink, mut hooks, eth0| async move {
        for hook in [Hook::GuardIngress, Hook::MeshEgress] {
            assert_eq!(hooks.ensure(&netlink, hook, &eth0).await.unwrap(), Outcome::Attached);
            assert_eq!(hooks.ensure(&netlink, hook, &eth0).await.unwrap(), Outcome::InPlace);
        }
        drop(hooks);
        let mut adopted = Hooks { by: AttachedBy::Classifier, ..self::hooks() };
        assert_eq!(adopted.ensure(&netlink, Hook::GuardIngress, &eth0).await.unwrap(), Outcome::InPlace);
    });
}

#[test]
fn a_classifier_that_was_removed_is_put_back() {
    isolated(AttachedBy::Classifier, |netlink, mut hooks, eth0| async move {
        hooks.ensure(&netlink, Hook::GuardIngress, &eth0).await.unwrap();
        run("tc filter del dev eth0 ingress");
        assert_eq!(hooks.ensure(&netlink, Hook::GuardIngress, &eth0).await.unwrap(), Outcome::Attached);
        run("tc qdisc del dev eth0 clsact");
        assert_eq!(hooks.ensure(&netlink, Hook::GuardIngress, &eth0).await.unwrap(), Outcome::Attached);
        assert_eq!(hooks.ensure(&netlink, Hook::GuardIngress, &eth0).await.unwrap(), Outcome::InPlace);
    });
}

#[test]
fn an_older_stub_is_replaced_in_its_place() {
    for by in [AttachedBy::Link, AttachedBy::Classifier] {
        isolated(by, move |netlink, mut hooks, eth0| async move {
            hooks.ensure(&netlink, Hook::GuardIngress, &eth0).await.unwrap();
            // A pin that is gone makes the next process load a stub of its own.
            unpin(&hooks.pins.stable("stub_guard_ingress")).unwrap();
            let mut next = Hooks { by, ..self::hooks() };
            assert_eq!(next.ensure(&netlink, Hook::GuardIngress, &eth0).await.unwrap(), Outcome::Attached);
            assert_eq!(next.ensure(&netlink, Hook::GuardIngress, &eth0).await.unwrap(), Outcome::InPlace);
            let count = match by {
                AttachedBy::Link => {
                    SchedClassifier::query_tcx("eth0", TcAttachType::Ingress).unwrap().1.len()
                }
                AttachedBy::Classifier => 1,
            };
            assert_eq!(count, 1, "one stub, not two");
        });
    }
}

/// What `tc` says about eth0.
fn tc(words: &str) -> String {
    let mut words = words.split_whitespace();
    let kind = words.next().unwrap();
    let shown = Command::new("tc").args([kind, "show", "dev", "eth0"]).args(words).output().unwrap().stdout;
    String::from_utf8(shown).unwrap()
}

/// What leaving takes off eth0.
async fn leave(netlink: &Netlink, mesh: &str, eth0: &HookedDevice) -> Vec<String> {
    let pins = Pins::new(BPFFS.as_ref(), mesh);
    let removed = remove_classifier(netlink, &pins, eth0).await.unwrap();
    pins.remove_all().unwrap();
    removed
}

#[test]
fn our_classifier_goes_and_others_stay() {
    isolated(AttachedBy::Classifier, |netlink, mut hooks, eth0| async move {
        hooks.ensure(&netlink, Hook::GuardIngress, &eth0).await.unwrap();
        let other = ["filter", "add", "dev", "eth0", "ingress", "prio", "5", "bpf", "bytecode", "1,6 0 0 0"];
        assert!(Command::new("tc").args(other).status().unwrap().success());
        assert_eq!(leave(&netlink, "test", &eth0).await, ["classifier on eth0"]);
        assert!(leave(&netlink, "test", &eth0).await.is_empty());
        let shown = tc("filter ingress");
        assert!(shown.contains("pref 5 ") && !shown.contains("pref 1 "), "{shown}");
    });
}

#[test]
fn two_meshes_share_a_device_and_the_last_one_clears_it() {
    isolated(AttachedBy::Classifier, |netlink, mut first, eth0| async move {
        let mut second = Hooks { by: AttachedBy::Classifier, ..hooks_of("second") };
        for _ in 0..2 {
            first.ensure(&netlink, Hook::GuardIngress, &eth0).await.unwrap();
            second.ensure(&netlink, Hook::GuardIngress, &eth0).await.unwrap();
        }
        for hooks in [&mut first, &mut second] {
            let found = hooks.ensure(&netlink, Hook::GuardIngress, &eth0).await.unwrap();
            assert_eq!(found, Outcome::InPlace, "each mesh has its own guard");
        }
        assert_eq!(tc("filter ingress").matches("direct-action").count(), 2);
        assert_eq!(leave(&netlink, "test", &eth0).await, ["classifier on eth0"]);
        let left = second.ensure(&netlink, Hook::GuardIngress, &eth0).await.unwrap();
        assert_eq!(left, Outcome::InPlace, "one mesh took the guard of the other along");
        assert_eq!(leave(&netlink, "second", &eth0).await, ["classifier on eth0", "clsact of eth0"]);
        assert!(!tc("qdisc").contains("clsact"), "{}", tc("qdisc"));
    });
}

#[test]
fn a_device_that_is_gone_is_forgotten() {
    isolated(AttachedBy::Classifier, |netlink, mut hooks, eth0| async move {
        hooks.ensure(&netlink, Hook::GuardIngress, &eth0).await.unwrap();
        let places = BTreeSet::from([(Hook::GuardIngress, eth0.ifindex)]);
        hooks.keep_only(&places, |ifindex| ifindex == eth0.ifindex).unwrap();
        assert!(hooks.pins.has_made_qdisc(eth0.ifindex));
        hooks.keep_only(&BTreeSet::new(), |_| false).unwrap();
        assert!(!hooks.pins.has_made_qdisc(eth0.ifindex), "the next device of this number is taken for it");
    });
}

#[test]
fn a_clsact_of_others_stays() {
    isolated(AttachedBy::Classifier, |netlink, mut hooks, eth0| async move {
        run("tc qdisc add dev eth0 clsact");
        hooks.ensure(&netlink, Hook::GuardIngress, &eth0).await.unwrap();
        assert_eq!(leave(&netlink, "test", &eth0).await, ["classifier on eth0"]);
        assert!(tc("qdisc").contains("clsact"), "{}", tc("qdisc"));
    });
}
