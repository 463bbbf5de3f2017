//! The control word: one 4-byte store that publishes everything.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::Direction;

/// How many program sets the program array has room for.
pub const PROGRAM_SETS: u32 = 4;

/// Which of the two copies of every banked table a packet reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Bank {
    /// The first copy.
    A = 0,
    /// The second copy.
    B = 1,
}

impl Bank {
    /// The number in keys.
    #[must_use]
    #[inline(always)]
    #[expect(clippy::as_conversions, reason = "`From` is not const; the enum is one byte")]
    pub const fn number(self) -> u8 {
        self as u8
    }

    /// The other bank.
    #[must_use]
    pub const fn other(self) -> Self {
        match self {
            Self::A => Self::B,
            Self::B => Self::A,
        }
    }
}

/// A bank of one of the two policies: that of the mesh, or that of the NICs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(transparent)]
pub struct Place(u8);

impl Place {
    const NIC: u8 = 2;

    /// Of the mesh.
    #[must_use]
    #[inline(always)]
    pub const fn mesh(bank: Bank) -> Self {
        Self(bank.number())
    }

    /// Of the NICs.
    #[must_use]
    #[inline(always)]
    pub const fn nic(bank: Bank) -> Self {
        Self(bank.number() | Self::NIC)
    }

    /// The place with this number in keys; `None` for a number that is none.
    #[must_use]
    pub const fn of_number(number: u8) -> Option<Self> {
        if number <= (Self::NIC | 1) { Some(Self(number)) } else { None }
    }

    /// The same in that bank.
    #[must_use]
    pub const fn in_bank(self, bank: Bank) -> Self {
        Self(self.0 & Self::NIC | bank.number())
    }

    /// Its bank.
    #[must_use]
    pub const fn bank(self) -> Bank {
        if self.0 & 1 == 0 { Bank::A } else { Bank::B }
    }

    /// The number in keys.
    #[must_use]
    #[inline(always)]
    pub const fn number(self) -> u8 {
        self.0
    }

    /// Whether it belongs to the NICs.
    #[must_use]
    #[inline(always)]
    pub const fn is_nic(self) -> bool {
        self.0 & Self::NIC != 0
    }
}

/// A place programs are attached to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Hook {
    /// From the tunnel, on the mesh device.
    MeshIngress = 0,
    /// Into the tunnel, on the mesh device.
    MeshEgress = 1,
    /// Ingress of every other device.
    GuardIngress = 2,
    /// Egress of every other device.
    GuardEgress = 3,
}

impl Hook {
    /// How many there are.
    pub const COUNT: u32 = 4;
    /// All of them in the order of their numbers.
    pub const ALL: [Self; 4] = [Self::MeshIngress, Self::MeshEgress, Self::GuardIngress, Self::GuardEgress];

    /// The name of this hook's program; the stub is called `stub_` + this.
    #[must_use]
    pub const fn program(self) -> &'static str {
        match self {
            Self::MeshIngress => "mesh_ingress",
            Self::MeshEgress => "mesh_egress",
            Self::GuardIngress => "guard_ingress",
            Self::GuardEgress => "guard_egress",
        }
    }

    /// Seen from this host.
    #[must_use]
    #[inline(always)]
    pub const fn direction(self) -> Direction {
        match self {
            Self::MeshIngress | Self::GuardIngress => Direction::Ingress,
            Self::MeshEgress | Self::GuardEgress => Direction::Egress,
        }
    }

    /// The index of this hook's program of a set in `PROGRAMS`.
    #[must_use]
    #[inline(always)]
    #[expect(clippy::as_conversions, reason = "`From` is not const; the enum is one byte")]
    pub const fn program_index(self, set: u32) -> u32 {
        set * Self::COUNT + (self as u32)
    }
}

/// The word every packet reads once: bit 0 the active bank, bits 1–2 the program set, bits 3–31 the epoch,
/// which counts publications and wraps (skipping 0). `0` is what a new map holds: nothing was published, drop.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(transparent)]
pub struct Control(pub u32);

impl Control {
    /// Nothing was published yet.
    pub const UNPUBLISHED: Self = Self(0);
    const SET_SHIFT: u32 = 1;
    const SET_MASK: u32 = PROGRAM_SETS - 1;
    const EPOCH_SHIFT: u32 = 3;

    /// Composes a word; `set` below [`PROGRAM_SETS`], `epoch` below 2^29, both truncated.
    #[must_use]
    #[expect(clippy::as_conversions, reason = "`From` is not const; the enum is one byte")]
    pub const fn new(bank: Bank, set: u32, epoch: u32) -> Self {
        Self((bank as u32) | ((set & Self::SET_MASK) << Self::SET_SHIFT) | (epoch << Self::EPOCH_SHIFT))
    }

    /// The active bank.
    #[must_use]
    #[inline(always)]
    pub const fn bank(self) -> Bank {
        if self.0 & 1 == 0 { Bank::A } else { Bank::B }
    }

    /// The program set that runs.
    #[must_use]
    #[inline(always)]
    pub const fn program_set(self) -> u32 {
        (self.0 >> Self::SET_SHIFT) & Self::SET_MASK
    }

    /// The number of the publication.
    #[must_use]
    #[inline(always)]
    pub const fn epoch(self) -> u32 {
        self.0 >> Self::EPOCH_SHIFT
    }

    /// The word of the next publication: the other bank, the same programs, the next epoch.
    #[must_use]
    pub const fn next(self) -> Self {
        let epoch = (self.epoch() + 1) & (u32::MAX >> Self::EPOCH_SHIFT);
        Self::new(self.bank().other(), self.program_set(), if epoch == 0 { 1 } else { epoch })
    }
}
