//! What is written into the audit log.

use std::collections::BTreeMap;

use serde::Serialize;

/// One event. Names are `namespace/name`; times are seconds since 1970; `by` is an administrator, `remote` an address.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "event", rename_all = "kebab-case", rename_all_fields = "camelCase")]
#[expect(missing_docs, reason = "the fields are named as in the log, and their meaning is above")]
pub enum Event {
    /// A token was minted; `bound_to` is the workload it replaces.
    TokenMinted {
        token: String,
        target: String,
        #[serde(skip_serializing_if = "String::is_empty")]
        bound_to: String,
        expires: u64,
        uses: u32,
        by: String,
    },
    /// A token was revoked.
    TokenRevoked { token: String, by: String },
    /// A host joined, with this token and key; `replaced_key` is the key that was revoked for it.
    Joined {
        workload: String,
        target: String,
        token: String,
        key: String,
        #[serde(skip_serializing_if = "Option::is_none")]
        replaced_key: Option<String>,
        addresses: Vec<String>,
        remote: String,
    },
    /// A host was refused.
    JoinRefused { token: String, name: String, remote: String, reason: &'static str, detail: String },
    /// A certificate was renewed; `expired`: the old one was no longer valid.
    Renewed { workload: String, expires: u64, expired: bool, remote: String },
    /// A renewal was refused.
    RenewRefused { peer: String, remote: String, reason: &'static str, detail: String },
    /// A workload left by itself.
    Left { workload: String, remote: String },
    /// A workload was deleted.
    Deleted { workload: String, by: String },
    /// An administrator's certificate was issued.
    AdminIssued { admin: String, expires: u64, by: String },
    /// A root was `added`, `activated` or `retired`; `force`: whoever would be lost by it.
    RootsChanged { root: String, what: &'static str, force: bool, by: String },
    /// The gateway's state counts although hosts have newer ones.
    RestoreAccepted { by: String },
    /// A call of the administration was refused.
    AdminRefused { peer: String, remote: String, detail: String },
    /// What an agent did about the policy of its NICs: `trial`, `enforce`, `reverted`, `audit`, `off`, in its own words.
    NicPolicy {
        workload: String,
        state: String,
        #[serde(skip_serializing_if = "String::is_empty")]
        message: String,
    },
    /// A state was published that manifests changed: each such file with the SHA-256 of what it says now, `gone` or
    /// `unreadable`. The first one of a process names them all; later states without a line were made of the same files.
    Published { generation: u64, files: BTreeMap<String, String> },
}

impl Event {
    /// Whether somebody without any right can cause it.
    #[must_use]
    pub const fn is_a_strangers(&self) -> bool {
        matches!(self, Self::JoinRefused { .. } | Self::RenewRefused { .. } | Self::AdminRefused { .. })
    }
}
