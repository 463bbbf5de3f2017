//! Embeds the BPF object, which `cargo xtask bpf` builds with a compiler of its own.

use std::path::PathBuf;
use std::{env, fs};

fn main() {
    if let Err(error) = embed() {
        println!("cargo::error={error}");
    }
}

fn embed() -> Result<(), String> {
    let variable =
        |name: &str| env::var_os(name).map(PathBuf::from).ok_or(format!("{name} is not set by cargo"));
    println!("cargo::rerun-if-env-changed=CARGO_TARGET_DIR");
    let workspace = variable("CARGO_MANIFEST_DIR")?.join("..");
    let target = env::var_os("CARGO_TARGET_DIR").map_or_else(|| workspace.join("target"), PathBuf::from);
    let object = target.join("bpf/outrigger.bpf.o");
    println!("cargo::rerun-if-changed={}", object.display());
    let copy = variable("OUT_DIR")?.join("outrigger.bpf.o");
    let explain =
        |error| format!("{} cannot be embedded ({error}); run `cargo xtask bpf` first", object.display());
    fs::copy(&object, &copy).map(drop).map_err(explain)
}
