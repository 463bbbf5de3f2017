//! What lies where in the work tree.

use std::{
    env, fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result};
use cargo_metadata::{Metadata, MetadataCommand};
use walkdir::{DirEntry, WalkDir};

/// Folders of results, not of sources.
const NOT_SOURCE: [&str; 4] = [".git", "artifacts", "node_modules", "target"];

/// A text file of the work tree.
pub(crate) struct TextFile {
    /// Where it is, from the root.
    pub(crate) path: PathBuf,
    /// What it says.
    pub(crate) text: String,
}

impl TextFile {
    /// The path as a person would name it.
    pub(crate) fn name(&self) -> String {
        self.path.display().to_string()
    }
}

/// The workspace's root folder.
pub(crate) fn root() -> &'static Path {
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR"));
    manifest.parent().unwrap_or(manifest)
}

/// The folder that build results go to.
pub(crate) fn target() -> PathBuf {
    env::var_os("CARGO_TARGET_DIR").map_or_else(|| root().join("target"), |folder| root().join(folder))
}

/// The BPF object that the agent embeds.
pub(crate) fn bpf_object() -> PathBuf {
    root().join("target/bpf/outrigger.bpf.o")
}

/// What cargo knows of the workspace and of all that it uses.
pub(crate) fn metadata() -> Result<Metadata> {
    MetadataCommand::new().current_dir(root()).exec().context("read cargo metadata")
}

/// Every text file of the work tree.
pub(crate) fn files() -> Result<Vec<TextFile>> {
    let mut files = Vec::new();
    for entry in WalkDir::new(root()).sort_by_file_name().into_iter().filter_entry(is_source) {
        let entry = entry.context("walk the work tree")?;
        if !entry.file_type().is_file() {
            continue;
        }
        let bytes = fs::read(entry.path()).with_context(|| format!("read {}", entry.path().display()))?;
        if let Ok(text) = String::from_utf8(bytes) {
            let path = entry.path().strip_prefix(root()).unwrap_or(entry.path()).to_owned();
            files.push(TextFile { path, text });
        }
    }
    Ok(files)
}

fn is_source(entry: &DirEntry) -> bool {
    // `.git` is a file in a second work tree.
    !NOT_SOURCE.iter().any(|name| entry.file_name() == *name)
}
