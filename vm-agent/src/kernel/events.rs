//! Events of the programs as a stream.
#![expect(unsafe_code, reason = "tokio wants a promise that the descriptor stays open while it is polled")]

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use aya::maps::{Map, MapData, RingBuf};
use datapath::abi::Event;
use futures_util::Stream;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use zerocopy::FromBytes;

use super::error::{KernelError, on_file, on_map};
use super::pins::Pins;
use super::programs::pinned;

const NAME: &str = "EVENTS";

/// The events of the ring buffer; never ends by itself.
pub struct Events {
    ring: AsyncFd<RingBuf<MapData>>,
}

impl Events {
    pub(super) fn open(pins: &Pins) -> Result<Self, KernelError> {
        let pin = pins.stable(NAME);
        let ring = RingBuf::try_from(Map::RingBuf(pinned(&pin, NAME)?)).map_err(on_map(NAME))?;
        // SAFETY: the ring owns the map whose descriptor it names, and never replaces or closes it.
        let ring = unsafe { AsyncFd::register_with_interest(ring, Interest::READABLE) };
        let ring = ring.map_err(|error| on_file("poll", pin)(error.into()))?;
        Ok(Self { ring })
    }
}

impl Stream for Events {
    type Item = Event;

    fn poll_next(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Event>> {
        let ring = &mut self.get_mut().ring;
        loop {
            while let Some(record) = ring.get_mut().next() {
                // Records of a newer version may be longer; what is too short is nobody's.
                if let Ok((event, _)) = Event::read_from_prefix(&record) {
                    return Poll::Ready(Some(event));
                }
            }
            match ready!(ring.poll_read_ready_mut(context)) {
                Ok(mut ready) => ready.clear_ready(),
                Err(_) => return Poll::Ready(None),
            }
        }
    }
}
