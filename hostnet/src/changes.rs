//! A stream that says "something changed".

use std::io;

use futures_util::{FutureExt, StreamExt};
use rtnetlink::MulticastGroup;
use tokio::task::JoinHandle;

/// Notifications about links, addresses, routes and classifiers of a network namespace. What changed is not said:
/// whoever wants to know looks.
pub struct Changes {
    messages: std::pin::Pin<Box<dyn futures_util::Stream<Item = ()> + Send>>,
    connection: JoinHandle<()>,
}

impl Changes {
    /// Subscribes in the network namespace of the calling thread; needs a running tokio runtime.
    ///
    /// # Errors
    /// What the socket says.
    pub fn subscribe() -> io::Result<Self> {
        let (connection, _, messages) = rtnetlink::new_multicast_connection(&[
            MulticastGroup::Link,
            MulticastGroup::Tc,
            MulticastGroup::Ipv4Ifaddr,
            MulticastGroup::Ipv6Ifaddr,
            MulticastGroup::Ipv4Route,
            MulticastGroup::Ipv6Route,
        ])?;
        Ok(Self { messages: messages.map(drop).boxed(), connection: tokio::spawn(connection) })
    }

    /// Waits for a change; any number of changes that happened meanwhile are one. `None` when the socket is lost,
    /// after which the caller has to look by itself from time to time or subscribe again.
    pub async fn next(&mut self) -> Option<()> {
        self.messages.next().await?;
        while let Some(Some(())) = self.messages.next().now_or_never() {}
        Some(())
    }
}

impl Drop for Changes {
    fn drop(&mut self) {
        self.connection.abort();
    }
}
