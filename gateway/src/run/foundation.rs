//! What the daemon stands on: the store, the roots, the audit log. A cluster that has the state is waited for.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result};
use telemetry::service;
use telemetry::shutdown::Shutdown;

use crate::accounts::Accounts;
use crate::audit::Audit;
use crate::ca::cert_manager::CertManager;
use crate::ca::vault::Vault;
use crate::ca::{Ca, External, Signer};
use crate::clock::Clock;
use crate::config::{self, Config};
use crate::enrollment::Settings;
use crate::ledger::ClusterLedger;
use crate::metrics::Metrics;
use crate::session::SessionMetrics;
use crate::store::{self, Ledger, OpenError, Store, StoreError};
use crate::tls::ConnectionMetrics;

/// How long an address or identity rests before another may have it: as long as a certificate is valid, within which
/// every agent has come back or lost its right to.
const QUARANTINE: Duration = Duration::from_hours(24);
/// Between two attempts to read the state of a cluster.
const AGAIN: Duration = Duration::from_secs(2);
/// How long an authority elsewhere may take: less than hosts wait for their answer.
const CA_DEADLINE: Duration = Duration::from_secs(8);

/// What everything stands on.
pub(super) struct Foundation {
    pub(super) store: Arc<Store>,
    pub(super) ca: Arc<Ca>,
    pub(super) audit: Arc<Audit>,
    pub(super) metrics: Metrics,
    pub(super) sessions: SessionMetrics,
    pub(super) connections: ConnectionMetrics,
    pub(super) settings: Arc<Settings>,
    pub(super) accounts: Arc<Accounts>,
}

/// Opens the store and what it holds. A cluster that has its records and does not answer is waited for; `None` if the
/// gateway is to end before that.
pub(super) async fn lay(
    config: &Config,
    clock: &Clock,
    ledger: Option<&Arc<ClusterLedger>>,
    shutdown: &Shutdown,
) -> Result<Option<Foundation>> {
    loop {
        let (config, clock) = (config.clone(), clock.clone());
        let client = ledger.map(|ledger| ledger.client().clone());
        let accounts = Arc::new(Accounts::new(client, config.nodes.clone()));
        let ledger: Option<Arc<dyn Ledger>> = match ledger {
            Some(ledger) => Some(ledger.clone()),
            None => None,
        };
        let laid =
            tokio::task::spawn_blocking(move || Foundation::lay(&config, &clock, ledger, accounts)).await?;
        let error = match laid {
            Ok(foundation) => return Ok(Some(foundation)),
            Err(error) => error,
        };
        if !error.chain().any(is_of_ledger) {
            return Err(error);
        }
        service::status("waiting for the cluster that has the state");
        tracing::warn!(error = format!("{error:#}"), "the state is not known yet, and no host is served");
        tokio::select! {
            () = tokio::time::sleep(AGAIN) => {}
            () = shutdown.wait() => return Ok(None),
        }
    }
}

/// Whether it is the cluster that failed, which may be better later.
fn is_of_ledger(error: &(dyn std::error::Error + 'static)) -> bool {
    let is_ledger = |error: &StoreError| matches!(error, StoreError::Ledger(_));
    let of_open = error.downcast_ref::<OpenError>();
    let is_open =
        of_open.is_some_and(|error| matches!(error, OpenError::Content { source, .. } if is_ledger(source)));
    is_open || error.downcast_ref::<StoreError>().is_some_and(is_ledger)
}

impl Foundation {
    fn lay(
        config: &Config,
        clock: &Clock,
        ledger: Option<Arc<dyn Ledger>>,
        accounts: Arc<Accounts>,
    ) -> Result<Self> {
        let settings = store::Settings {
            pools: config.workload_pools.clone(),
            cluster_id: config.cluster_id,
            quarantine: QUARANTINE,
        };
        let store = Arc::new(Store::open_with(&config.state_dir, settings, ledger)?);
        let ca = open_ca(config, &store, clock).context("the roots of the mesh")?;
        let audit = Audit::open(&config.audit_log)?;
        if config.advertise.is_empty() {
            tracing::warn!(
                "`advertise` is not set: no token can be made, because hosts would not know where to go"
            );
        }
        let settings = Settings {
            trust_domain: config.trust_domain.clone(),
            certificate_ttl: config.certificate_ttl,
            renew_grace: config.renew_grace,
            gateways: config.advertise.clone(),
        };
        Ok(Self {
            store,
            ca: Arc::new(ca),
            audit: Arc::new(audit),
            metrics: Metrics::default(),
            sessions: SessionMetrics::default(),
            connections: ConnectionMetrics::default(),
            settings: Arc::new(settings),
            accounts,
        })
    }
}

fn open_ca(config: &Config, store: &Arc<Store>, clock: &Clock) -> Result<Ca, store::RootError> {
    let (store, domain, now) = (store.clone(), &config.trust_domain, clock.now());
    let config::Ca::External { signer, trust_bundle } = &config.ca else {
        return Ca::open(store, domain, now);
    };
    let signer: Arc<dyn Signer> = match signer.clone() {
        config::Signer::Vault(settings) => Arc::new(Vault::new(*settings)),
        config::Signer::CertManager(settings) => Arc::new(CertManager::new(settings)),
    };
    let trust_bundle = trust_bundle.clone();
    Ca::open_external(store, domain, External { signer, trust_bundle, deadline: CA_DEADLINE }, now)
}
