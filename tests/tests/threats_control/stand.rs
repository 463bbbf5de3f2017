//! What these tests stand on: a cluster with the namespaces `shop` (groups `db`, `batch`) and `vault` (group `keys`), and
//! machines that have no agent.

use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::Result;
use e2e::cluster::{Cluster, namespace};
use e2e::host::Host;
use e2e::net::{Net, Underlay};
use e2e::shared::{Shared, World};

/// A label, a policy and names that only `vault` may know.
pub(crate) const CANARY: &str = "canary-of-vault";

/// The one that the tests share.
pub(crate) static STAND: Shared<Stand> = Shared::new();

/// A cluster, and machines as the tests need them.
pub(crate) struct Stand {
    pub(crate) cluster: Cluster,
    machines: AtomicU32,
}

impl World for Stand {
    fn make() -> Result<Self> {
        Self::with("")
    }

    fn net(&self) -> &Net {
        &self.cluster.net
    }
}

impl Stand {
    /// With further lines of the gateway's configuration.
    pub(crate) fn with(settings: &str) -> Result<Self> {
        let cluster = Cluster::try_with(Underlay::Dual, settings)?;
        cluster.group("db")?;
        cluster.group("batch")?;
        cluster.gateway.apply("vault.yaml", &namespace("vault", &[("team", CANARY)]))?;
        let of_vault = |yaml: String| yaml.replace("namespace: shop", "namespace: vault");
        let keys = of_vault(e2e::cluster::group("keys", &[("app", "keys"), ("tier", CANARY)], ""));
        cluster.gateway.apply("group-keys.yaml", &keys)?;
        let policy = of_vault(e2e::cluster::allow_ingress(CANARY, "keys", &["keys"], None));
        cluster.gateway.apply("policy-keys.yaml", &policy)?;
        let token = || cluster.gateway.token("vault/keys", &["--ttl", "1m"]);
        cluster.gateway.wait_status("the group to be read", |_| token().is_ok())?;
        Ok(Self { cluster, machines: AtomicU32::new(0) })
    }

    /// A new machine.
    pub(crate) fn machine(&self) -> Result<Host> {
        let number = self.machines.fetch_add(1, Ordering::Relaxed);
        self.cluster.net.host(&format!("machine-{number}"))
    }

    /// A token's text.
    pub(crate) fn token(&self, group: &str) -> Result<String> {
        Ok(self.cluster.gateway.token(group, &[])?.text)
    }
}
