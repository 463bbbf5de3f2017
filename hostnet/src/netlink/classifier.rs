//! BPF classifiers of a device, for kernels without tc links.

use std::io;

use futures_util::TryStreamExt;
use netlink_packet_route::tc::{TcAttribute, TcFilterBpfOption, TcHandle, TcMessage, TcOption};

use super::{Netlink, into_io};

/// A BPF classifier on a device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Classifier {
    /// The id of its program, where the kernel tells it.
    pub program_id: Option<u32>,
}

const KIND: &str = "bpf";
const CLSACT: &str = "clsact";
/// The handle that every `clsact` has.
const CLSACT_HANDLE: TcHandle = TcHandle { major: 0xffff, minor: 0 };

impl Netlink {
    /// The BPF classifier at a priority and handle of a device's `clsact`; `None` when there is none.
    ///
    /// # Errors
    /// What the kernel says, except that the device has no `clsact`.
    pub async fn classifier(
        &self,
        ifindex: u32,
        ingress: bool,
        priority: u16,
        handle: u32,
    ) -> io::Result<Option<Classifier>> {
        let index = i32::try_from(ifindex).map_err(io::Error::other)?;
        let mut filters = self.handle.traffic_filter(index);
        let request = filters.get();
        let request = if ingress { request.ingress() } else { request.egress() };
        let mut found = request.execute();
        loop {
            match found.try_next().await.map_err(into_io) {
                Ok(Some(message)) if is_at(&message, priority, handle) => return Ok(Some(of(&message))),
                Ok(Some(_)) => {}
                Ok(None) => return Ok(None),
                Err(error) if error.kind() == io::ErrorKind::InvalidInput => return Ok(None),
                Err(error) => return Err(error),
            }
        }
    }
}

impl Netlink {
    /// Removes the `clsact` of a device if it has one without any classifier; tells whether.
    ///
    /// # Errors
    /// What the kernel says.
    pub async fn remove_empty_clsact(&self, ifindex: u32) -> io::Result<bool> {
        let index = i32::try_from(ifindex).map_err(io::Error::other)?;
        let mut disciplines = self.handle.qdisc().get().execute();
        let mut has_clsact = false;
        while let Some(message) = disciplines.try_next().await.map_err(into_io)? {
            let is_clsact = message.attributes.contains(&TcAttribute::Kind(CLSACT.to_owned()));
            has_clsact |= message.header.index == index && is_clsact;
        }
        if !has_clsact
            || self.has_classifiers(index, true).await?
            || self.has_classifiers(index, false).await?
        {
            return Ok(false);
        }
        let mut request = self.handle.qdisc().del(index);
        request.message_mut().header.parent = TcHandle::CLSACT;
        request.message_mut().header.handle = CLSACT_HANDLE;
        request.execute().await.map_err(into_io)?;
        Ok(true)
    }

    async fn has_classifiers(&self, index: i32, ingress: bool) -> io::Result<bool> {
        let mut filters = self.handle.traffic_filter(index);
        let request = filters.get();
        let request = if ingress { request.ingress() } else { request.egress() };
        Ok(request.execute().try_next().await.map_err(into_io)?.is_some())
    }
}

/// The upper half of `info` is the priority.
fn is_at(message: &TcMessage, priority: u16, handle: u32) -> bool {
    message.header.info >> 16 == u32::from(priority)
        && u32::from(message.header.handle) == handle
        && message.attributes.contains(&TcAttribute::Kind(KIND.to_owned()))
}

fn of(message: &TcMessage) -> Classifier {
    let mut program_id = None;
    for attribute in &message.attributes {
        let TcAttribute::Options(options) = attribute else { continue };
        for option in options {
            if let TcOption::Bpf(TcFilterBpfOption::ProgId(id)) = option {
                program_id = Some(*id);
            }
        }
    }
    Classifier { program_id }
}
