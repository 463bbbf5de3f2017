//! The real kernel, through rtnetlink, in the network namespace of the calling thread.

use std::io;

use tokio::task::JoinHandle;

use crate::inventory::Inventory;
use crate::kernel::{ApplyError, Kernel};
use crate::plan::Operation;

mod classifier;
mod dump;
mod request;

pub use classifier::Classifier;

/// A connection to rtnetlink. It serves the network namespace that the thread was in when it was made.
pub struct Netlink {
    handle: rtnetlink::Handle,
    connection: JoinHandle<()>,
}

impl Netlink {
    /// Connects; needs a running tokio runtime.
    ///
    /// # Errors
    /// What the socket says.
    pub fn connect() -> io::Result<Self> {
        let (connection, handle, _) = rtnetlink::new_connection()?;
        Ok(Self { handle, connection: tokio::spawn(connection) })
    }
}

impl Drop for Netlink {
    fn drop(&mut self) {
        self.connection.abort();
    }
}

impl Kernel for Netlink {
    async fn inventory(&mut self) -> io::Result<Inventory> {
        dump::inventory(&self.handle).await.map_err(into_io)
    }

    async fn apply(&mut self, operation: &Operation) -> Result<(), ApplyError> {
        let done = request::execute(&self.handle, operation).await.map_err(into_io);
        match done {
            Ok(()) => Ok(()),
            Err(error) => request::judge(operation, error),
        }
    }
}

fn into_io(error: rtnetlink::Error) -> io::Error {
    if let rtnetlink::Error::NetlinkError(message) = &error {
        message.to_io()
    } else {
        io::Error::other(error)
    }
}
