//! Follows what of the cluster this is about: Services that ask for external workloads, and the gateway's own slices.

use std::sync::Arc;

use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::Client;
use kube::api::Api;

use super::service::Wish;
use super::slice::Slice;
use crate::manifest::MANAGED_BY;
use crate::watched::{self, Kind, config};

pub(super) use crate::watched::Key;

/// What the cluster has, as it was seen last.
pub(super) type Observed = watched::Observed<Seen>;

/// The objects.
#[derive(Debug, Default)]
pub(super) struct Seen {
    pub(super) services: Kind<Wish>,
    pub(super) slices: Kind<Slice>,
}

impl Seen {
    /// Whether all was listed once: before that, what is missing may be there.
    pub(super) const fn is_whole(&self) -> bool {
        self.services.is_listed() && self.slices.is_listed()
    }

    /// Whether it is known what there is now.
    pub(super) const fn is_current(&self) -> bool {
        self.services.is_current() && self.slices.is_current()
    }
}

/// Follows until it is dropped.
pub(super) async fn follow(client: Client, observed: Arc<Observed>) {
    let services = Api::<Service>::all(client.clone());
    let slices = Api::<EndpointSlice>::all(client);
    let own = format!("{}={}", MANAGED_BY.0, MANAGED_BY.1);
    tokio::join!(
        observed.follow("Service", services, config(), Wish::of, |seen| &mut seen.services),
        observed.follow("EndpointSlice", slices, config().labels(&own), Slice::read, |seen| &mut seen.slices),
    );
}
