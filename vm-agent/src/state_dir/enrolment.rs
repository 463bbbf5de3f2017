//! Who this host is: written at join, read at start, bound to the machine.

use std::collections::BTreeSet;
use std::net::IpAddr;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use super::{StateDir, StateError, StateFile};
use crate::machine::Machine;

/// The form of the file; another one is refused, never guessed.
const VERSION: u32 = 1;

/// What the join gave this host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Enrolment {
    version: u32,
    /// `namespace/name` of the external workload; fixed at the first join.
    pub workload: String,
    /// The trust domain of its certificate.
    pub trust_domain: String,
    /// Where gateways listen, `host:port`.
    pub gateways: Vec<String>,
    /// Its mesh addresses.
    pub mesh_addresses: Vec<IpAddr>,
    /// The service account it joined by, `namespace/name`; `None`: it joined with a token.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub account: Option<String>,
    /// The mesh prefixes of the last good state: they stay unreachable when that state cannot be read.
    pub prefixes: BTreeSet<IpNet>,
    machine: String,
}

/// An enrolment that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum InvalidEnrolment {
    /// The file cannot be read.
    #[error(transparent)]
    State(#[from] StateError),
    /// The content is not what an agent writes.
    #[error("{path}: {reason}")]
    Content {
        /// The file.
        path: String,
        /// What is wrong.
        reason: String,
    },
}

impl Enrolment {
    /// An enrolment of this machine.
    #[must_use]
    pub fn new(workload: String, trust_domain: String, gateways: Vec<String>, machine: Machine) -> Self {
        Self {
            version: VERSION,
            workload,
            trust_domain,
            gateways,
            mesh_addresses: Vec::new(),
            account: None,
            prefixes: BTreeSet::new(),
            machine: machine.to_string(),
        }
    }

    /// Reads it; `None` if this host did not join.
    ///
    /// # Errors
    /// [`InvalidEnrolment`] if the file cannot be read or understood.
    pub fn load(state: &StateDir) -> Result<Option<Self>, InvalidEnrolment> {
        let Some(bytes) = state.read(StateFile::Enrolment)? else { return Ok(None) };
        let content = |reason: String| InvalidEnrolment::Content {
            path: state.path().join(StateFile::Enrolment.name()).display().to_string(),
            reason,
        };
        let enrolment: Self = serde_json::from_slice(&bytes).map_err(|error| content(error.to_string()))?;
        if enrolment.version != VERSION {
            return Err(content(format!(
                "form {} is not form {VERSION}, which this agent reads",
                enrolment.version
            )));
        }
        Ok(Some(enrolment))
    }

    /// Writes it.
    ///
    /// # Errors
    /// [`StateError::Write`].
    pub fn save(&self, state: &StateDir) -> Result<(), StateError> {
        let mut bytes = serde_json::to_vec_pretty(self).map_err(|error| StateError::Write {
            path: state.path().join(StateFile::Enrolment.name()),
            source: error.into(),
        })?;
        bytes.push(b'\n');
        state.write(StateFile::Enrolment, &bytes)
    }

    /// Whether the state was made on this machine; false on a clone of it.
    #[must_use]
    pub fn belongs_to(&self, machine: Machine) -> bool {
        self.machine == machine.to_string()
    }

    /// Binds the state to another machine: it was restored there, and the old one is gone.
    pub fn adopt(&mut self, machine: Machine) {
        self.machine = machine.to_string();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn machine(digit: &str) -> Machine {
        digit.repeat(64).parse().unwrap()
    }

    fn enrolment() -> Enrolment {
        let gateways = vec!["gw.example:7443".to_owned()];
        Enrolment::new("shop/db".to_owned(), "outrigger.local".to_owned(), gateways, machine("a"))
    }

    #[test]
    fn reads_what_it_wrote() {
        let root = tempfile::tempdir().unwrap();
        let state = StateDir::open(root.path(), "default").unwrap();
        assert!(Enrolment::load(&state).unwrap().is_none());
        let mut enrolment = enrolment();
        enrolment.prefixes.insert("10.244.240.0/20".parse().unwrap());
        enrolment.save(&state).unwrap();
        assert_eq!(Enrolment::load(&state).unwrap(), Some(enrolment));
    }

    #[test]
    fn a_clone_is_told_apart_until_it_is_adopted() {
        let mut enrolment = enrolment();
        assert!(enrolment.belongs_to(machine("a")));
        assert!(!enrolment.belongs_to(machine("b")));
        enrolment.adopt(machine("b"));
        assert!(enrolment.belongs_to(machine("b")) && !enrolment.belongs_to(machine("a")));
    }

    #[test]
    fn a_damaged_or_newer_file_is_refused_by_name() {
        let root = tempfile::tempdir().unwrap();
        let state = StateDir::open(root.path(), "default").unwrap();
        let newer = serde_json::to_string(&Enrolment { version: 2, ..enrolment() }).unwrap();
        for content in ["{", "{}", newer.as_str()] {
            state.write(StateFile::Enrolment, content.as_bytes()).unwrap();
            let error = Enrolment::load(&state).unwrap_err().to_string();
            assert!(error.contains("enrolment.json"), "{error}");
        }
    }
}
