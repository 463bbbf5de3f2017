//! cert-manager signs: a `CertificateRequest` for each certificate, removed once it is answered. It signs requests as they
//! are, so that these name whom they are for.

mod request;

use std::path::PathBuf;
use std::time::Duration;

use kube::Client;
use kube::api::{Api, DeleteParams, ListParams, PostParams};
use pki::{Asked, CertificateDer};
use tokio::sync::OnceCell;

use super::{SignFailure, Signed, Signer};
use crate::source::cluster;
use request::{Answer, CertificateRequest, LABEL};

/// How often an answer is looked for.
const LOOK: Duration = Duration::from_millis(250);
/// A request that is older was left behind by a gateway that was killed.
const LEFT_BEHIND: Duration = Duration::from_mins(10);

/// Which issuer, and where requests to it are made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// The issuer.
    pub name: String,
    /// `Issuer` or `ClusterIssuer`, or what an issuer of somebody else's is.
    pub kind: String,
    /// The group of that.
    pub group: String,
    /// Where requests are made.
    pub namespace: String,
    /// How the API is reached; `None`: as a pod of the cluster.
    pub kubeconfig: Option<PathBuf>,
}

/// An issuer of cert-manager.
pub struct CertManager {
    settings: Settings,
    name: String,
    elsewhere: String,
    client: OnceCell<Client>,
}

/// Removes a request, whatever became of it.
struct Removal {
    api: Api<CertificateRequest>,
    name: String,
}

impl CertManager {
    /// A client; nothing is asked yet.
    #[must_use]
    pub fn new(settings: Settings) -> Self {
        let Settings { name, kind, namespace, .. } = &settings;
        let called = format!("cert-manager ({kind} {name}, requests in {namespace})");
        let elsewhere = format!(
            "change {kind} {name} once every host trusts its new root (`ca.trustBundle`); hosts follow"
        );
        Self { name: called, elsewhere, client: OnceCell::new(), settings }
    }

    async fn requests(&self) -> Result<Api<CertificateRequest>, SignFailure> {
        let made = self.client.get_or_try_init(|| async {
            let settings = cluster::Settings { kubeconfig: self.settings.kubeconfig.clone() };
            cluster::client(&settings).await.map_err(|error| SignFailure::Refused(error.to_string()))
        });
        Ok(Api::namespaced(made.await?.clone(), &self.settings.namespace))
    }

    /// Removes what a gateway that was killed has left behind.
    async fn tidy(&self) -> Result<(), SignFailure> {
        let api = self.requests().await?;
        let listed = api.list(&ListParams::default().labels(LABEL)).await.map_err(failed)?;
        let now = k8s_openapi::jiff::Timestamp::now();
        for request in listed.items {
            let made = request.metadata.creation_timestamp.as_ref().map_or(now, |at| at.0);
            let is_old = now.duration_since(made).unsigned_abs() > LEFT_BEHIND;
            if let (true, Some(name)) = (is_old, request.metadata.name) {
                drop(Removal { api: api.clone(), name });
            }
        }
        Ok(())
    }
}

#[tonic::async_trait]
impl Signer for CertManager {
    fn name(&self) -> &str {
        &self.name
    }

    fn elsewhere(&self) -> &str {
        &self.elsewhere
    }

    fn signs_as_requested(&self) -> bool {
        true
    }

    async fn sign(&self, asked: &Asked<'_>) -> Result<Signed, SignFailure> {
        let api = self.requests().await?;
        let request = CertificateRequest::of(asked, &self.settings);
        let made = api.create(&PostParams::default(), &request).await.map_err(failed)?;
        let name = made.metadata.name.unwrap_or_default();
        let removal = Removal { api, name };
        loop {
            let request = removal.api.get(&removal.name).await.map_err(failed)?;
            match request.answer() {
                Answer::None => tokio::time::sleep(LOOK).await,
                Answer::Refused(reason) => return Err(SignFailure::Refused(reason)),
                Answer::Signed { certificate, ca } => {
                    let read = |pem: &[u8]| -> Result<Vec<CertificateDer<'static>>, SignFailure> {
                        let pem = String::from_utf8_lossy(pem);
                        pki::certificates_from_pem(&pem).map_err(|error| {
                            SignFailure::Refused(format!("its answer holds no certificates: {error}"))
                        })
                    };
                    let mut chain = read(&certificate)?;
                    let mut authorities = chain.get(1..).unwrap_or_default().to_vec();
                    if let Some(ca) = ca.filter(|ca| !ca.is_empty()) {
                        let ca = read(&ca)?;
                        chain.extend(ca.iter().cloned());
                        authorities.extend(ca);
                    }
                    return Ok(Signed { chain, authorities });
                }
            }
        }
    }

    async fn authorities(&self) -> Result<Vec<CertificateDer<'static>>, SignFailure> {
        self.tidy().await?;
        Ok(Vec::new())
    }
}

impl Drop for Removal {
    fn drop(&mut self) {
        let (api, name) = (self.api.clone(), std::mem::take(&mut self.name));
        // Also where nobody waits for the answer any more.
        tokio::spawn(async move {
            if let Err(error) = api.delete(&name, &DeleteParams::default()).await {
                tracing::info!(%error, request = name, "a request for a certificate is left behind");
            }
        });
    }
}

fn failed(error: kube::Error) -> SignFailure {
    let kube::Error::Api(status) = error else { return SignFailure::Unavailable(error.to_string()) };
    let text = format!("HTTP {}: {}", status.code, status.message);
    match status.code {
        408 | 409 | 429 | 500..=599 => SignFailure::Unavailable(text),
        404 => SignFailure::Refused(format!("{text} (is cert-manager installed?)")),
        _ => SignFailure::Refused(text),
    }
}
