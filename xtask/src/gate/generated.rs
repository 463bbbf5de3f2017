//! Files that programs write are never edited by hand: what is in the tree is what the generator writes now.

use std::path::Path;

use anyhow::{Context as _, Result};

use super::Finding;
use crate::{command, workspace};

pub(super) fn check() -> Result<Vec<Finding>> {
    Ok(stale_lock(workspace::root())?.into_iter().collect())
}

/// `Cargo.lock` is what the manifests of the workspace at `root` resolve to.
fn stale_lock(root: &Path) -> Result<Option<Finding>> {
    let mut cargo = command::cargo();
    cargo.args(["metadata", "--locked", "--format-version", "1"]).current_dir(root);
    let output = cargo.output().context("start cargo metadata")?;
    let said = String::from_utf8_lossy(&output.stderr);
    Ok((!output.status.success()).then(|| Finding::new("Cargo.lock", said.trim())))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    const MANIFEST: &str = "[package]\nname = \"a\"\nversion = \"0.1.0\"\nedition = \"2024\"\n[workspace]\n";
    const LOCK: &str = "version = 4\n\n[[package]]\nname = \"a\"\nversion = \"0.1.0\"\n";

    #[test]
    fn a_lock_of_other_manifests_is_found() {
        let folder = std::env::temp_dir().join(format!("outrigger-lock-{}", std::process::id()));
        fs::create_dir_all(folder.join("src")).unwrap();
        fs::write(folder.join("src/lib.rs"), "").unwrap();
        fs::write(folder.join("Cargo.toml"), MANIFEST).unwrap();
        fs::write(folder.join("Cargo.lock"), LOCK).unwrap();
        assert_eq!(stale_lock(&folder).unwrap(), None);
        fs::write(folder.join("Cargo.lock"), LOCK.replace("0.1.0", "0.2.0")).unwrap();
        assert!(stale_lock(&folder).unwrap().is_some());
        fs::remove_dir_all(&folder).unwrap();
    }
}
