//! Named checks that say whether a daemon does its work.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

/// The checks of one daemon. Ready when every declared check is; cloning shares them.
#[derive(Clone, Debug, Default)]
pub struct Health {
    checks: Arc<Mutex<BTreeMap<&'static str, Option<String>>>>,
}

impl Health {
    /// Declares a check, not ready yet for the reason given.
    pub fn declare(&self, check: &'static str, reason: impl Into<String>) {
        self.set(check, Some(reason.into()));
    }

    /// The check passes.
    pub fn ready(&self, check: &'static str) {
        self.set(check, None);
    }

    /// The check fails, with what a person should know.
    pub fn unready(&self, check: &'static str, reason: impl Into<String>) {
        self.set(check, Some(reason.into()));
    }

    /// The failing checks and their reasons; empty when ready.
    #[must_use]
    pub fn failing(&self) -> BTreeMap<&'static str, String> {
        let checks = self.checks.lock().unwrap_or_else(PoisonError::into_inner);
        checks.iter().filter_map(|(&check, state)| Some((check, state.clone()?))).collect()
    }

    fn set(&self, check: &'static str, state: Option<String>) {
        self.checks.lock().unwrap_or_else(PoisonError::into_inner).insert(check, state);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ready_only_when_every_declared_check_is() {
        let health = Health::default();
        health.declare("kernel", "not attached");
        health.declare("session", "connecting");
        health.ready("kernel");
        assert_eq!(health.failing(), BTreeMap::from([("session", "connecting".to_owned())]));
        health.ready("session");
        assert!(health.failing().is_empty());
        health.unready("kernel", "detached");
        assert_eq!(health.failing().len(), 1);
    }
}
