//! What was decided about policies of the NICs, on disk: which one is confirmed, tried, refused.

use std::sync::Arc;

use policy::state::Policy;
use prost::Message as _;
use proto::convert::policy_to_wire;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::failsafe::Failsafes;
use crate::state_dir::{StateDir, StateError, StateFile};

/// Names a policy, or failsafes, by the content.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Digest([u8; 32]);

impl Digest {
    /// The digest of a policy.
    #[must_use]
    pub fn of(policy: &Policy) -> Self {
        Self(Sha256::digest(policy_to_wire(policy).encode_to_vec()).into())
    }

    fn of_failsafes(failsafes: &Failsafes) -> Self {
        Self(Sha256::digest(failsafes.canonical()).into())
    }
}

/// What was decided.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Record {
    pub(super) confirmed: Option<Arc<Policy>>,
    pub(super) trial: Option<Digest>,
    /// Of the mesh in which that was confirmed.
    pub(super) tunnel_port: u16,
    /// With which failsafes these were tried.
    pub(super) failsafes: Option<Digest>,
    pub(super) rejected: Option<Rejected>,
    /// Until when policy is only reported, seconds since 1970; 0 = it is enforced.
    pub audit_until: u64,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Rejected {
    digest: Digest,
    reason: String,
}

impl Record {
    /// Reads it. What cannot be read counts as nothing: everything is tried again, with a deadline.
    #[must_use]
    pub fn load(state: &StateDir) -> Self {
        let read = || -> Result<Self, String> {
            let bytes = state.read(StateFile::Nic).map_err(|error| error.to_string())?;
            let Some(bytes) = bytes else { return Ok(Self::default()) };
            serde_json::from_slice(&bytes).map_err(|error| error.to_string())
        };
        read().unwrap_or_else(|error| {
            tracing::warn!(error, "what was decided about the NICs cannot be read");
            Self::default()
        })
    }

    /// Writes it; nothing to remember leaves no file.
    ///
    /// # Errors
    /// [`StateError`]; what was decided before is still there.
    pub fn save(&self, state: &StateDir) -> Result<(), StateError> {
        if *self == Self::default() {
            return state.remove(&[StateFile::Nic]).map(drop);
        }
        state.write(StateFile::Nic, &serde_json::to_vec(self).unwrap_or_default())
    }

    /// The policy that is known to do no harm.
    #[must_use]
    pub fn confirmed(&self) -> Option<(Digest, Arc<Policy>)> {
        self.confirmed.as_ref().map(|policy| (Digest::of(policy), Arc::clone(policy)))
    }

    /// Whether it is this one.
    #[must_use]
    pub fn is_confirmed(&self, digest: Digest) -> bool {
        self.confirmed().is_some_and(|(confirmed, _)| confirmed == digest)
    }

    /// Why this one is not tried again.
    #[must_use]
    pub fn rejected(&self, digest: Digest) -> Option<&str> {
        self.rejected.as_ref().filter(|rejected| rejected.digest == digest).map(|one| one.reason.as_str())
    }

    /// A trial begins.
    #[must_use]
    pub fn trying(&self, digest: Digest, failsafes: &Failsafes) -> Self {
        let failsafes = Some(Digest::of_failsafes(failsafes));
        Self { trial: Some(digest), rejected: None, failsafes, ..self.clone() }
    }

    /// Nothing is known of any policy; what an administrator asked for holds for its time.
    #[must_use]
    pub fn cleared(&self, now: u64) -> Self {
        let audit_until = if self.audit_until > now { self.audit_until } else { 0 };
        Self { audit_until, ..Self::default() }
    }

    /// It ended, and nothing is known.
    #[must_use]
    pub fn untried(&self) -> Self {
        Self { trial: None, ..self.clone() }
    }

    /// It did no harm.
    #[must_use]
    pub fn confirming(&self, policy: &Arc<Policy>, tunnel_port: u16) -> Self {
        Self { confirmed: Some(Arc::clone(policy)), tunnel_port, trial: None, rejected: None, ..self.clone() }
    }

    /// It did.
    #[must_use]
    pub fn rejecting(&self, digest: Digest, reason: &str) -> Self {
        let rejected = Rejected { digest, reason: reason.to_owned() };
        Self { trial: None, rejected: Some(rejected), ..self.clone() }
    }

    /// What a process finds that starts: a trial has no one left to confirm it, and nothing counts that was tried with
    /// other failsafes.
    #[must_use]
    pub fn at_start(self, failsafes: &Failsafes) -> Self {
        if self.failsafes != Some(Digest::of_failsafes(failsafes)) {
            return Self { audit_until: self.audit_until, ..Self::default() };
        }
        match self.trial {
            Some(digest) => self.rejecting(digest, "the agent ended before the policy was confirmed"),
            None => self,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_trial_that_nobody_ended_has_failed() {
        let root = tempfile::tempdir().unwrap();
        let state = StateDir::open(root.path(), "blue").unwrap();
        let policy = Arc::new(Policy::unrestricted());
        let digest = Digest::of(&policy);
        let failsafes = Failsafes::default();
        Record::default().trying(digest, &failsafes).save(&state).unwrap();
        let found = Record::load(&state).at_start(&failsafes);
        assert!(found.rejected(digest).is_some() && !found.is_confirmed(digest));
        let confirmed = found.trying(digest, &failsafes).confirming(&policy, 8479);
        confirmed.save(&state).unwrap();
        let found = Record::load(&state).at_start(&failsafes);
        assert!(found.is_confirmed(digest) && found.rejected(digest).is_none());
        let fewer = Failsafes { kinds: Vec::new(), ..failsafes };
        assert_eq!(found.at_start(&fewer), Record::default(), "never tried with these");
        Record::default().save(&state).unwrap();
        assert!(state.read(StateFile::Nic).unwrap().is_none());
        state.write(StateFile::Nic, b"{").unwrap();
        assert_eq!(Record::load(&state), Record::default());
    }
}
