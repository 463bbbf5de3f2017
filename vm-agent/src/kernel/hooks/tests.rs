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
    let pins = Pins::new(BPFFS.as_ref(), "test");
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

#[test]
fn our_classifier_goes_and_others_stay() {
    isolated(AttachedBy::Classifier, |netlink, mut hooks, eth0| async move {
        hooks.ensure(&netlink, Hook::GuardIngress, &eth0).await.unwrap();
        let other = ["filter", "add", "dev", "eth0", "ingress", "prio", "5", "bpf", "bytecode", "1,6 0 0 0"];
        assert!(Command::new("tc").args(other).status().unwrap().success());
        assert!(remove_classifier(&netlink, eth0.ifindex, &eth0.name).await);
        assert!(!remove_classifier(&netlink, eth0.ifindex, &eth0.name).await);
        let shown = Command::new("tc").args(["filter", "show", "dev", "eth0", "ingress"]).output().unwrap();
        let shown = String::from_utf8(shown.stdout).unwrap();
        assert!(shown.contains("pref 5 ") && !shown.contains("pref 1 "), "{shown}");
    });
}
