//! Compiles the protocol files without an installed protoc.

use std::error::Error;

fn main() -> Result<(), Box<dyn Error>> {
    let files = ["mesh", "enrollment", "admin", "agent"].map(|name| format!("outrigger/v1/{name}.proto"));
    for file in &files {
        println!("cargo:rerun-if-changed={file}");
    }
    let descriptors = protox::compile(&files, ["."])?;
    tonic_prost_build::configure().bytes(".outrigger.v1.Update.parts").compile_fds(descriptors)?;
    Ok(())
}
