//! Which machine this is: the local state is bound to it, so that a copied disk is told apart from a restart.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use sha2::{Digest as _, Sha256};

/// SHA-256 of the machine id and the hardware's UUID.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Machine([u8; 32]);

/// The machine cannot be told.
#[derive(Debug, thiserror::Error)]
pub enum UnknownMachine {
    /// A file is there and cannot be read: guessing would look like another machine.
    #[error("reading {}: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The machine id is missing or not yet set.
    #[error("{} holds no machine id: run `systemd-machine-id-setup`", .0.display())]
    NoMachineId(PathBuf),
}

/// A text that is no machine hash.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a machine hash is 64 hexadecimal digits")]
pub struct InvalidMachine;

impl Machine {
    /// Reads the two files. Hardware without a UUID is fine, a machine without an id is not.
    ///
    /// # Errors
    /// [`UnknownMachine`], naming the file.
    pub fn observe(machine_id_file: &Path, dmi_uuid_file: &Path) -> Result<Self, UnknownMachine> {
        let id = read(machine_id_file)?.filter(|id| id != "uninitialized");
        let id = id.ok_or_else(|| UnknownMachine::NoMachineId(machine_id_file.to_owned()))?;
        let uuid = read(dmi_uuid_file)?.unwrap_or_default().to_ascii_lowercase();
        Ok(Self(Sha256::new().chain_update(id).chain_update(uuid).finalize().into()))
    }

    /// The bytes, as they stand on the wire.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

/// The trimmed content; `None` for a missing or empty file.
fn read(path: &Path) -> Result<Option<String>, UnknownMachine> {
    match std::fs::read_to_string(path) {
        Ok(text) => Ok(Some(text.trim().to_owned()).filter(|text| !text.is_empty())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(UnknownMachine::Read { path: path.to_owned(), source }),
    }
}

impl fmt::Display for Machine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

impl fmt::Debug for Machine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Machine({self})")
    }
}

impl FromStr for Machine {
    type Err = InvalidMachine;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let mut bytes = [0; 32];
        hex::decode_to_slice(text, &mut bytes).map_err(|_malformed| InvalidMachine)?;
        Ok(Self(bytes))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn machine(id: Option<&str>, uuid: Option<&str>) -> Result<Machine, UnknownMachine> {
        let folder = tempfile::tempdir().unwrap();
        let write = |name: &str, content: Option<&str>| {
            let path = folder.path().join(name);
            if let Some(content) = content {
                std::fs::write(&path, content).unwrap();
            }
            path
        };
        Machine::observe(&write("machine-id", id), &write("product_uuid", uuid))
    }

    #[test]
    fn both_halves_count() {
        let one = machine(Some("aa\n"), Some("UU\n")).unwrap();
        assert_eq!(one, machine(Some("aa"), Some("uu")).unwrap());
        assert_ne!(one, machine(Some("ab"), Some("uu")).unwrap());
        assert_ne!(one, machine(Some("aa"), Some("vv")).unwrap());
        assert_eq!(one.to_string().parse(), Ok(one));
    }

    #[test]
    fn hardware_without_a_uuid_is_fine() {
        assert_eq!(machine(Some("aa"), None).unwrap(), machine(Some("aa"), Some("")).unwrap());
    }

    #[test]
    fn a_missing_machine_id_is_named() {
        for id in [None, Some(""), Some("uninitialized\n")] {
            let error = machine(id, Some("uu")).unwrap_err().to_string();
            assert!(error.contains("machine-id") && error.contains("systemd-machine-id-setup"), "{error}");
        }
    }
}
