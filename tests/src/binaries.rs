//! Where the programs under test are.

use std::path::PathBuf;

use anyhow::{Context, Result, bail};

/// The programs that the fixtures start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Binary {
    /// The daemon of a host or transit node.
    Agent,
    /// The double of the Kubernetes API server, of this package.
    ApiServer,
    /// The command of a host.
    Command,
    /// The gateway and its command.
    Gateway,
    /// The plugin of kubectl.
    Kubectl,
    /// The simulated agents of this package.
    Swarm,
    /// The traffic tools of this package.
    Traffic,
}

impl Binary {
    /// The name of the file.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Agent => "outrigger-agent",
            Self::ApiServer => "apiserver",
            Self::Command => "outrigger",
            Self::Kubectl => "kubectl-outrigger",
            Self::Gateway => "outrigger-gateway",
            Self::Swarm => "swarm",
            Self::Traffic => "traffic",
        }
    }

    /// The file; an error with the command that makes it if it is not there.
    pub fn path(self) -> Result<PathBuf> {
        let path = folder()?.join(self.name());
        if path.is_file() {
            return Ok(path);
        }
        bail!("{} is not built; `cargo build --bins` builds it", path.display())
    }
}

/// `OUTRIGGER_BIN`, or the folder of the build profile this program is in.
pub fn folder() -> Result<PathBuf> {
    if let Some(folder) = std::env::var_os("OUTRIGGER_BIN") {
        return Ok(PathBuf::from(folder));
    }
    let own = std::env::current_exe().context("cannot find this program's own file")?;
    let folder = own.parent().context("this program's file is in no folder")?;
    // Test programs are one folder deeper.
    let profile = if folder.ends_with("deps") { folder.parent() } else { Some(folder) };
    Ok(profile.context("no build folder")?.to_path_buf())
}
