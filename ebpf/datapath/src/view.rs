//! What every step of the decision about one packet looks at.

use crate::{
    Address, Direction, Outer, Tables,
    abi::{Bank, Settings, settings_flag},
};

/// The tables as one packet sees them.
pub(crate) struct View<'a, T: Tables> {
    pub(crate) tables: &'a T,
    pub(crate) settings: &'a Settings,
    pub(crate) outer: &'a Outer,
    pub(crate) bank: Bank,
    pub(crate) epoch: u32,
    /// Ticks of the monotonic clock.
    pub(crate) now: u32,
    pub(crate) direction: Direction,
}

impl<T: Tables> View<'_, T> {
    /// Whether an address is this host's mesh address.
    #[inline(always)]
    pub(crate) fn is_own(&self, address: Address) -> bool {
        is_own(self.settings, address)
    }

    /// Whether policy only reports.
    #[inline(always)]
    pub(crate) fn is_audit(&self) -> bool {
        self.settings.flags & settings_flag::AUDIT != 0
    }
}

/// Whether an address is the mesh address of a host with these settings.
#[inline(always)]
pub(crate) fn is_own(settings: &Settings, address: Address) -> bool {
    address != Address::NONE && (address == settings.address_v4 || address == settings.address_v6)
}
