//! Identity numbers, in Cilium's ranges so that both can meet on one wire.

use serde::{Deserialize, Serialize};

/// The number of a set of security-relevant labels.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Identity(u32);

/// A number that cannot be an identity on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("identity {0} does not fit a VNI: identities are 1 to 16777215")]
pub struct InvalidIdentity(pub u32);

impl Identity {
    /// The host itself.
    pub const HOST: Self = Self(1);
    /// Addresses outside the mesh.
    pub const WORLD: Self = Self(2);
    /// Other nodes of the cluster, transit nodes among them.
    pub const REMOTE_NODE: Self = Self(6);
    /// The first number that may be allocated within a cluster.
    pub const FIRST_ALLOCATED: u32 = 256;
    /// The last number that may be allocated within a cluster.
    pub const LAST_ALLOCATED: u32 = 65_535;

    /// Checks that the number fits the 24 bits of a VNI and is not 0.
    ///
    /// # Errors
    /// [`InvalidIdentity`] otherwise: a number is refused, never truncated.
    pub const fn try_new(number: u32) -> Result<Self, InvalidIdentity> {
        if number == 0 || number > 0x00ff_ffff { Err(InvalidIdentity(number)) } else { Ok(Self(number)) }
    }

    /// The number.
    #[must_use]
    pub const fn get(self) -> u32 {
        self.0
    }

    /// Whether the number is one of the reserved 1–255.
    #[must_use]
    pub const fn is_reserved(self) -> bool {
        self.0 < Self::FIRST_ALLOCATED
    }
}

impl std::fmt::Display for Identity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}
