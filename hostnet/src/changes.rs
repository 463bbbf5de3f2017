//! A stream that says "something changed".

use std::io;

use futures_util::FutureExt;
use netlink_sys::protocols::NETLINK_ROUTE;
use netlink_sys::{AsyncSocket, AsyncSocketExt, TokioSocket};
use nix::errno::Errno;

/// Links, classifiers, addresses and routes of both families (`RTNLGRP_*`, rtnetlink(7)).
const GROUPS: [u32; 6] = [1, 4, 5, 7, 9, 11];
/// Notifications that are one change at most, so that a host which never rests does not keep its reader.
const AT_ONCE: usize = 10_000;

/// Notifications about links, addresses, routes and classifiers of a network namespace. What changed is not said:
/// whoever wants to know looks. Nothing is read while nobody waits: notifications stay in the socket, and those that do
/// not fit are changes too.
pub struct Changes {
    socket: TokioSocket,
    /// The kernel cuts off what does not fit, which is all that nobody reads.
    head: Vec<u8>,
}

impl Changes {
    /// Subscribes in the network namespace of the calling thread; needs a running tokio runtime.
    ///
    /// # Errors
    /// What the socket says.
    pub fn subscribe() -> io::Result<Self> {
        let mut socket = TokioSocket::new(NETLINK_ROUTE)?;
        socket.socket_mut().bind_auto()?;
        for group in GROUPS {
            socket.socket_mut().add_membership(group)?;
        }
        Ok(Self { socket, head: Vec::with_capacity(64) })
    }

    /// Waits for a change; any number of changes that happened meanwhile are one. `None` when the socket is lost,
    /// after which the caller has to look by itself from time to time or subscribe again. Cancel safe.
    pub async fn next(&mut self) -> Option<()> {
        self.receive().await.ok()?;
        for _ in 0..AT_ONCE {
            match self.receive().now_or_never() {
                Some(received) => received.ok()?,
                None => break,
            }
        }
        Some(())
    }

    async fn receive(&mut self) -> io::Result<()> {
        self.head.clear();
        match self.socket.recv(&mut self.head).await {
            Err(error) if error.raw_os_error().map(Errno::from_raw) == Some(Errno::ENOBUFS) => Ok(()),
            received => received,
        }
    }
}
