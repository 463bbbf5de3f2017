//! Structs of the ABI ↔ the byte arrays that map operations take.

use aya::Pod;
use datapath::abi::{
    Bank, CidrEntry, CidrKey, ClassEntry, ClassKey, EndpointEntry, EndpointKey, Place, PolicyEntry,
    PolicyKey, PrefixEntry, PrefixKey, Settings, TunnelEntry, TunnelKey,
};

/// A struct of the ABI, as bytes.
pub(in crate::kernel) trait Layout: Copy {
    /// A byte array of its size.
    type Bytes: Pod;

    /// Its bytes.
    fn to_bytes(&self) -> Self::Bytes;

    /// Of bytes; every bit pattern is a value.
    fn from_bytes(bytes: Self::Bytes) -> Self;
}

/// A key of a longest-prefix trie: the length of the prefix, then the data.
pub(in crate::kernel) trait TrieLayout: Copy {
    /// A byte array of the size of the data.
    type Data: Pod;

    /// The length of the prefix in bits, and the data.
    fn split(&self) -> (u32, Self::Data);

    /// The opposite of [`TrieLayout::split`].
    fn join(prefix_len: u32, data: Self::Data) -> Self;
}

/// A key that says which bank it belongs to.
pub(in crate::kernel) trait BankedKey: Copy + Ord {
    /// The same key in that bank.
    #[must_use]
    fn in_bank(self, bank: Bank) -> Self;

    /// Its bank; `None` for a number that is no bank.
    fn bank(&self) -> Option<Bank>;
}

macro_rules! layouts {
    ($($type:ty),* $(,)?) => {$(
        impl Layout for $type {
            type Bytes = [u8; size_of::<$type>()];

            fn to_bytes(&self) -> Self::Bytes {
                zerocopy::transmute!(*self)
            }

            fn from_bytes(bytes: Self::Bytes) -> Self {
                zerocopy::transmute!(bytes)
            }
        }
    )*};
}

macro_rules! trie_layouts {
    ($($type:ty),* $(,)?) => {$(
        impl TrieLayout for $type {
            type Data = [u8; size_of::<$type>() - size_of::<u32>()];

            fn split(&self) -> (u32, Self::Data) {
                let parts: Parts<{ size_of::<$type>() - size_of::<u32>() }> = zerocopy::transmute!(*self);
                (u32::from_ne_bytes(parts.prefix_len), parts.data)
            }

            fn join(prefix_len: u32, data: Self::Data) -> Self {
                zerocopy::transmute!(Parts { prefix_len: prefix_len.to_ne_bytes(), data })
            }
        }
    )*};
}

#[derive(zerocopy::FromBytes, zerocopy::IntoBytes)]
#[repr(C)]
struct Parts<const N: usize> {
    prefix_len: [u8; 4],
    data: [u8; N],
}

macro_rules! banked {
    ($($type:ty),* $(,)?) => {$(
        impl BankedKey for $type {
            fn in_bank(self, bank: Bank) -> Self {
                let place = Place::of_number(self.bank).unwrap_or(Place::mesh(bank));
                Self { bank: place.in_bank(bank).number(), ..self }
            }

            fn bank(&self) -> Option<Bank> {
                Place::of_number(self.bank).map(Place::bank)
            }
        }
    )*};
}

layouts!(
    CidrEntry,
    ClassEntry,
    ClassKey,
    EndpointEntry,
    EndpointKey,
    PolicyEntry,
    PrefixEntry,
    Settings,
    TunnelEntry,
    TunnelKey,
);
trie_layouts!(CidrKey, PolicyKey, PrefixKey);
banked!(CidrKey, ClassKey, EndpointKey, PolicyKey, PrefixKey, TunnelKey);
