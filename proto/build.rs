//! Compiles the protocol files without an installed protoc.

use std::error::Error;

fn main() -> Result<(), Box<dyn Error>> {
    let files = ["mesh", "enrollment", "admin", "agent"].map(|name| format!("outrigger/v1/{name}.proto"));
    for file in &files {
        println!("cargo:rerun-if-changed={file}");
    }
    let descriptors = protox::compile(&files, ["."])?;
    // These carry a secret; the crate shows the rest of them.
    let secret = ["JoinToken", "JoinRequest", "CreateTokenResponse", "AgentJoinRequest"];
    tonic_prost_build::configure()
        .codec_path("crate::codec::Codec")
        .bytes(".outrigger.v1.Update.parts")
        .skip_debug(secret.map(|message| format!(".outrigger.v1.{message}")))
        .compile_fds(descriptors)?;
    Ok(())
}
