//! Needs root and the BPF object, as `tests/kernel.rs` does.

use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};

use super::*;
use crate::kernel::publish::Publisher;

const BPFFS: &str = "/sys/fs/bpf";

fn isolated(test: impl FnOnce(&Pins) + Send + 'static) {
    let host = std::thread::spawn(move || {
        unshare(CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWNS).unwrap();
        let none: Option<&str> = None;
        mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none).unwrap();
        mount(Some("bpf"), BPFFS, Some("bpf"), MsFlags::empty(), none).unwrap();
        let pins = Pins::new(BPFFS.as_ref(), "test");
        drop(pins.lock().unwrap());
        test(&pins);
    });
    host.join().unwrap();
}

/// Loads, publishes and clears up, as the owner of kernel state does.
fn run(pins: &Pins) -> bool {
    let Loaded { mut programs, store, is_adopted, .. } = load(pins, TableSizes::default()).unwrap();
    let mut publisher = Publisher::adopt(store).unwrap();
    publisher.commit(programs.set()).unwrap();
    publisher.settle().unwrap();
    programs.retire().unwrap();
    is_adopted
}

#[test]
fn what_is_pinned_of_the_same_object_is_not_verified_again() {
    isolated(|pins| {
        assert!(!run(pins));
        assert!(run(pins) && run(pins));
    });
}

#[test]
fn what_another_object_left_is_replaced() {
    isolated(|pins| {
        run(pins);
        pins.set_object("another").unwrap();
        assert!(!run(pins));
        assert!(run(pins));
    });
}

#[test]
fn what_is_not_whole_is_loaded_again() {
    isolated(|pins| {
        run(pins);
        unpin(&pins.versioned("mesh_ingress")).unwrap();
        assert!(!run(pins));
        assert!(run(pins));
        // A table that is made anew is not the one that the programs read.
        unpin(&pins.versioned("CLASSES")).unwrap();
        assert!(!run(pins));
        assert!(run(pins));
    });
}
