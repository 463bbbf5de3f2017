//! Where things lie in the work tree.

use std::path::{Path, PathBuf};

/// The workspace's root folder.
pub(crate) fn root() -> &'static Path {
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR"));
    manifest.parent().unwrap_or(manifest)
}

/// The folder that build results go to.
pub(crate) fn target() -> PathBuf {
    root().join("target")
}

/// The BPF object that the agent embeds.
pub(crate) fn bpf_object() -> PathBuf {
    target().join("bpf/outrigger.bpf.o")
}
