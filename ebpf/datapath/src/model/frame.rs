//! A packet in memory.

use zerocopy::FromBytes;

use crate::Packet;

const ETHERNET: usize = 14;

/// A packet from its network header on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Frame<'a> {
    /// What the network header is.
    pub ethertype: u16,
    /// The packet.
    pub bytes: &'a [u8],
    /// Where it is.
    pub ifindex: u32,
    /// Where it came in; 0 = it was made here.
    pub arrived_by: u32,
    /// Bytes of a segment, if it is a super packet.
    pub segment_size: u32,
}

impl<'a> Frame<'a> {
    /// Of an Ethernet frame; `None` when even that header is truncated.
    #[must_use]
    pub fn of_ethernet(frame: &'a [u8]) -> Option<Self> {
        let (header, bytes) = frame.split_at_checked(ETHERNET)?;
        let [.., high, low] = *header else { return None };
        Some(Self {
            ethertype: u16::from_be_bytes([high, low]),
            bytes,
            ifindex: 0,
            arrived_by: 0,
            segment_size: 0,
        })
    }

    /// Of an IP packet, which tells its version.
    #[must_use]
    pub fn of_ip(bytes: &'a [u8]) -> Self {
        let version = bytes.first().map_or(0, |byte| byte >> 4);
        let ethertype = if version == 6 { 0x86dd } else { 0x0800 };
        Self { ethertype, bytes, ifindex: 0, arrived_by: 0, segment_size: 0 }
    }
}

impl Packet for Frame<'_> {
    fn ethertype(&self) -> u16 {
        self.ethertype
    }

    fn length(&self) -> u32 {
        u32::try_from(self.bytes.len()).unwrap_or(u32::MAX)
    }

    fn ifindex(&self) -> u32 {
        self.ifindex
    }

    fn arrived_by(&self) -> u32 {
        self.arrived_by
    }

    fn segment_size(&self) -> u32 {
        self.segment_size
    }

    fn load<T: FromBytes>(&self, offset: u32) -> Option<T> {
        let start = usize::try_from(offset).ok()?;
        let end = start.checked_add(size_of::<T>())?;
        T::read_from_bytes(self.bytes.get(start..end)?).ok()
    }
}
