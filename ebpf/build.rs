//! Tells the linker how to expand copies.

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    if std::env::var("CARGO_CFG_TARGET_ARCH").is_ok_and(|arch| arch == "bpf") {
        // In-order expansion turns every small memset into a call of a byte loop.
        println!("cargo:rustc-link-arg-bins=--disable-expand-memcpy-in-order");
    }
}
