//! The enrollment service: how a host gets a certificate, keeps it, and gives it back.

mod error;
mod host;
mod name;

use std::sync::Arc;
use std::time::Duration;

use pki::{Asked, CheckedCsr, SpiffeId, TrustDomain};
use proto::v1;
use proto::v1::enrollment_server::Enrollment;
use proto::v1::join_request::Credential;
use tonic::{Request, Response, Status};
use zeroize::Zeroizing;

use crate::accounts::{Accounts, Reviewed};
use crate::audit::{self, Audit, Event};
use crate::authorization::authorise;
use crate::ca::{self, Ca, Certificate, SignError};
use crate::clock::Clock;
use crate::mesh_view::MeshView;
use crate::metrics::Metrics;
use crate::store::{Joining, Proof, Store, StoreError, Target, Workload, WorkloadName};
use crate::tls::PeerIdentity;

pub use error::EnrollmentError;

/// What every certificate and every answer has.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The trust domain.
    pub trust_domain: TrustDomain,
    /// How long certificates are valid.
    pub certificate_ttl: Duration,
    /// How long after its end a certificate may still be renewed.
    pub renew_grace: Duration,
    /// Where hosts reach gateways, `host:port`.
    pub gateways: Vec<String>,
}

/// The service, and all it stands on. Cloning shares it.
#[derive(Clone)]
pub struct EnrollmentService {
    /// What is kept.
    pub store: Arc<Store>,
    /// Who issues.
    pub ca: Arc<Ca>,
    /// Whose pods make cluster nodes a part of the mesh.
    pub accounts: Arc<Accounts>,
    /// Which groups there are.
    pub mesh: Arc<dyn MeshView>,
    /// Where it is written down.
    pub audit: Arc<Audit>,
    /// How often it happens.
    pub metrics: Metrics,
    /// The time.
    pub clock: Clock,
    /// The rest.
    pub settings: Arc<Settings>,
}

/// What lets a host join, and as what.
struct Admitted {
    proof: Proof,
    target: Target,
    name: WorkloadName,
}

/// A host that joined.
struct Joined {
    workload: Workload,
    certificate: Certificate,
}

#[tonic::async_trait]
impl Enrollment for EnrollmentService {
    async fn join(&self, request: Request<v1::JoinRequest>) -> Result<Response<v1::JoinResponse>, Status> {
        let peer = peer(&request)?;
        let request = request.into_inner();
        let (token, name) = (credential_name(&request), wanted_name(&request));
        let remote = peer.remote.ip().to_string();
        match self.admit(&peer, request).await {
            Ok(Joined { workload, certificate }) => {
                self.metrics.joined("ok");
                self.metrics.issued("workload");
                tracing::info!(workload = %workload.name, target = %workload.target, remote, "workload joined");
                if let Some(replaced) = workload.previous_key.filter(|_| workload.joined_by_account()) {
                    // Once is a new disk. Again and again it is two machines that say to be one node.
                    tracing::warn!(workload = %workload.name, remote, %replaced, "a node joined in the place of its former self");
                }
                self.audit.record(&joined_event(&workload, &remote), self.clock.now());
                Ok(Response::new(self.welcome(workload, &certificate)))
            }
            Err(EnrollmentError::Sign(SignError::Unnamed { id, .. })) => {
                Ok(Response::new(v1::JoinResponse { request_for: id, ..v1::JoinResponse::default() }))
            }
            Err(error) => {
                self.metrics.joined(error.reason());
                tracing::info!(name, remote, reason = error.reason(), %error, "join refused");
                let (reason, detail) = (error.reason(), error.to_string());
                let event = Event::JoinRefused { token, name, remote, reason, detail };
                self.audit.record(&event, self.clock.now());
                Err(error.into())
            }
        }
    }

    async fn renew(&self, request: Request<v1::RenewRequest>) -> Result<Response<v1::RenewResponse>, Status> {
        let peer = peer(&request)?;
        match self.prolong(&peer, &request.into_inner().csr).await {
            Ok(certificate) => {
                self.metrics.renewed("ok");
                self.metrics.issued("workload");
                Ok(Response::new(v1::RenewResponse {
                    certificate_chain: der(&certificate),
                    trust_bundle: certificate.roots.certificates(),
                    gateways: self.settings.gateways.clone(),
                }))
            }
            Err(error) => {
                self.refused_renewal(&peer, &error);
                Err(error.into())
            }
        }
    }

    async fn leave(&self, request: Request<v1::LeaveRequest>) -> Result<Response<v1::LeaveResponse>, Status> {
        let peer = peer(&request)?;
        let now = self.clock.now();
        let grace = self.settings.renew_grace;
        let (store, caller) = (self.store.clone(), peer.clone());
        let left = blocking(move || {
            let workload = authorise(&store, &caller, now, grace)?;
            store.leave(&workload.name, workload.key, now)?;
            Ok(workload.name.clone())
        })
        .await?;
        self.metrics.left();
        let remote = peer.remote.ip().to_string();
        tracing::info!(workload = %left, remote, "workload left");
        self.audit.record(&Event::Left { workload: left.to_string(), remote }, now);
        Ok(Response::new(v1::LeaveResponse {}))
    }
}

impl EnrollmentService {
    async fn admit(
        &self,
        peer: &PeerIdentity,
        mut request: v1::JoinRequest,
    ) -> Result<Joined, EnrollmentError> {
        let credential = request.credential.take();
        let csr = CheckedCsr::from_der(&request.csr)?;
        // A cluster may put other addresses in the place of its nodes'.
        let is_node = matches!(credential, Some(Credential::ServiceAccountToken(_)));
        let from = peer.source().filter(|_| !is_node);
        let host = host::Host::try_new(request.report.as_ref(), &request.machine, from)?;
        let now = self.clock.now();
        let admitted = match credential {
            Some(Credential::TokenSecret(secret)) => {
                self.by_token(peer, &request, Zeroizing::new(secret), &csr, now).await?
            }
            Some(Credential::ServiceAccountToken(token)) => {
                let Reviewed { account, target } = self.accounts.review(Zeroizing::new(token)).await?;
                let name = name::of_node(&target, &request.name)?;
                Admitted { proof: Proof::Account { account, target: target.clone() }, target, name }
            }
            None => return Err(EnrollmentError::NoCredential),
        };
        let wanted = self.declared_addresses(&admitted.target, &admitted.name)?;
        let promised = self.mesh.promised(&admitted.name);
        let joining = Joining {
            proof: admitted.proof,
            name: admitted.name,
            key: csr.key_hash(),
            machine: host.machine,
            source: peer.source().filter(|source| host.underlay.contains(source)),
            underlay: host.underlay,
            agent_version: shortened(&request.agent_version),
            wanted,
            promised,
        };
        let (store, checked) = (self.store.clone(), joining.clone());
        blocking(move || Ok(store.check_join(&checked, now)?)).await?;
        let certificate = self.issue(&csr, &joining.name, now).await?;
        // Signing may have taken a while, and what was checked may have changed.
        let (store, now) = (self.store.clone(), self.clock.now());
        blocking(move || {
            let workload = store.join(&joining, certificate.issued.expires, now)?;
            ca::record(&store, &workload.name, certificate.given());
            Ok(Joined { workload, certificate })
        })
        .await
    }

    async fn by_token(
        &self,
        peer: &PeerIdentity,
        request: &v1::JoinRequest,
        secret: Zeroizing<Vec<u8>>,
        csr: &CheckedCsr,
        now: pki::UnixTime,
    ) -> Result<Admitted, EnrollmentError> {
        let id = request.token_id.clone();
        let token = {
            let (store, id, secret) = (self.store.clone(), id.clone(), secret.clone());
            let (key, source) = (csr.key_hash(), peer.source());
            blocking(move || Ok(store.check_token(&id, &secret, key, source, now)??)).await?
        };
        let name = name::of(&token, &request.name, &request.hostname)?;
        Ok(Admitted { proof: Proof::Token { id, secret }, target: token.target, name })
    }

    /// The group must exist; what is declared by hand must agree with what the host may become.
    fn declared_addresses(
        &self,
        target: &Target,
        name: &WorkloadName,
    ) -> Result<Vec<std::net::IpAddr>, EnrollmentError> {
        if let Target::Group { namespace, name: group } = target
            && !self.mesh.group_exists(namespace, group)
        {
            return Err(EnrollmentError::NoGroup(target.group()));
        }
        let Some(declared) = self.mesh.declared(name) else { return Ok(Vec::new()) };
        if declared.group != *target {
            let (name, declared) = (name.clone(), declared.group.to_string());
            return Err(EnrollmentError::OtherGroup { name, declared, token: target.to_string() });
        }
        Ok(declared.addresses)
    }

    async fn prolong(&self, peer: &PeerIdentity, csr: &[u8]) -> Result<Certificate, EnrollmentError> {
        let csr = CheckedCsr::from_der(csr)?;
        let now = self.clock.now();
        let (service, caller, asked) = (self.clone(), peer.clone(), csr.key_hash());
        let workload = blocking(move || {
            let workload = authorise(&service.store, &caller, now, service.settings.renew_grace)?;
            if asked != workload.key {
                return Err(EnrollmentError::OtherKey(workload.name.clone()));
            }
            if let Some(svid) = &caller.svid {
                service.store.confirm_given(&workload.name, svid.not_after().as_secs())?;
            }
            Ok(workload)
        })
        .await?;
        let certificate = self.issue(&csr, &workload.name, now).await?;
        let (store, given, name) = (self.store.clone(), certificate.given(), workload.name.clone());
        let until = certificate.issued.expires;
        blocking(move || {
            store.renew(&workload.name, workload.key, until)?;
            ca::record(&store, &workload.name, given);
            Ok(())
        })
        .await?;
        let expired = peer.expired(now);
        let remote = peer.remote.ip().to_string();
        tracing::info!(workload = %name, expired, remote, "certificate renewed");
        let event = Event::Renewed { workload: name.to_string(), expires: until.as_secs(), expired, remote };
        self.audit.record(&event, now);
        Ok(certificate)
    }

    fn refused_renewal(&self, peer: &PeerIdentity, error: &EnrollmentError) {
        self.metrics.renewed(error.reason());
        let name = peer.spiffe_id().map(ToString::to_string).unwrap_or_default();
        let remote = peer.remote.ip().to_string();
        tracing::info!(peer = name, remote, reason = error.reason(), %error, "renewal refused");
        let (reason, detail) = (error.reason(), error.to_string());
        self.audit.record(&Event::RenewRefused { peer: name, remote, reason, detail }, self.clock.now());
    }

    /// Whoever signs may take long: nothing is locked meanwhile.
    async fn issue(
        &self,
        csr: &CheckedCsr,
        name: &WorkloadName,
        now: pki::UnixTime,
    ) -> Result<Certificate, SignError> {
        let id = SpiffeId::workload(&self.settings.trust_domain, &name.namespace, &name.name);
        let id = id.map_err(pki::IssueError::from)?;
        self.ca.issue(&Asked { csr, id: &id, now, lifetime: self.settings.certificate_ttl }).await
    }

    fn welcome(&self, workload: Workload, certificate: &Certificate) -> v1::JoinResponse {
        v1::JoinResponse {
            certificate_chain: der(certificate),
            trust_bundle: certificate.roots.certificates(),
            namespace: workload.name.namespace,
            name: workload.name.name,
            mesh_addresses: workload.addresses.iter().map(|address| host::bytes(*address)).collect(),
            gateways: self.settings.gateways.clone(),
            request_for: String::new(),
        }
    }
}

/// Runs what waits for the disk where it holds up nobody.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, EnrollmentError> + Send + 'static,
) -> Result<T, EnrollmentError> {
    let done = tokio::task::spawn_blocking(work).await;
    done.unwrap_or_else(|error| Err(StoreError::Database(error.to_string()).into()))
}

fn peer<T>(request: &Request<T>) -> Result<PeerIdentity, Status> {
    request.extensions().get().cloned().ok_or_else(|| Status::internal("the connection has no peer"))
}

fn der(certificate: &Certificate) -> Vec<Vec<u8>> {
    certificate.issued.chain.iter().map(|certificate| certificate.to_vec()).collect()
}

fn joined_event(workload: &Workload, remote: &str) -> Event {
    Event::Joined {
        workload: workload.name.to_string(),
        target: workload.target.to_string(),
        token: workload.joined_with.clone(),
        key: workload.key.to_string(),
        replaced_key: workload.previous_key.map(|key| key.to_string()),
        addresses: audit::text(&workload.addresses),
        remote: remote.to_owned(),
    }
}

/// What a request shows, for the log, without its secret.
fn credential_name(request: &v1::JoinRequest) -> String {
    match &request.credential {
        Some(Credential::ServiceAccountToken(_)) => "serviceaccount".to_owned(),
        Some(Credential::TokenSecret(_)) | None => shortened(&request.token_id),
    }
}

/// The name a request asks for, for the log.
fn wanted_name(request: &v1::JoinRequest) -> String {
    shortened(if request.name.is_empty() { &request.hostname } else { &request.name })
}

/// What a stranger sent, short enough for a log.
fn shortened(text: &str) -> String {
    text.chars().take(64).filter(|c| !c.is_control()).collect()
}
