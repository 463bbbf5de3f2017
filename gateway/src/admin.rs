//! The administration service: over a root-only unix socket, or for certificates of administrators over TLS.

mod caller;
mod error;
mod roots;
mod show;

use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;
use pki::{Asked, CheckedCsr, SpiffeId};
use proto::v1;
use proto::v1::admin_server::Admin;
use secrecy::ExposeSecret as _;
use tonic::{Request, Response, Status};

use crate::audit::{Audit, Event};
use crate::ca::{Ca, Certificate, SignError};
use crate::check::{self, File};
use crate::clock::Clock;
use crate::enrollment::Settings;
use crate::mesh_view::MeshView;
use crate::metrics::Metrics;
use crate::store::{Minted, Minting, Store, StoreError, Target, WorkloadName};

use caller::Caller;
pub use error::AdminError;

/// How long a token is valid where nothing else is asked for.
const TOKEN_TTL: Duration = Duration::from_hours(24);
/// The longest time a token is valid.
const MAX_TOKEN_TTL: Duration = Duration::from_hours(365 * 24);
/// The most joins one token allows.
const MAX_USES: u32 = 10_000;
/// How long an administrator's certificate is valid.
const ADMIN_LIFETIME: Duration = Duration::from_hours(24);

/// The service, and all it stands on. Cloning shares it.
#[derive(Clone)]
pub struct AdminService {
    /// What is kept.
    pub store: Arc<Store>,
    /// Who issues.
    pub ca: Arc<Ca>,
    /// The compiled mesh.
    pub mesh: Arc<dyn MeshView>,
    /// Where it is written down.
    pub audit: Arc<Audit>,
    /// How often it happens.
    pub metrics: Metrics,
    /// The time.
    pub clock: Clock,
    /// What tokens carry.
    pub settings: Arc<Settings>,
}

#[tonic::async_trait]
impl Admin for AdminService {
    async fn create_token(
        &self,
        request: Request<v1::CreateTokenRequest>,
    ) -> Result<Response<v1::CreateTokenResponse>, Status> {
        let caller = self.caller(&request)?;
        let request = request.into_inner();
        let minting = Minting {
            target: self.target(&request)?,
            bound_to: None,
            ttl: ttl(request.ttl_seconds)?,
            uses: uses(request.uses)?,
            source_prefixes: prefixes(&request.source_prefixes)?,
            ephemeral: request.ephemeral,
        };
        Ok(Response::new(self.mint(minting, &caller).await?))
    }

    async fn check_policy(
        &self,
        request: Request<v1::CheckPolicyRequest>,
    ) -> Result<Response<v1::CheckPolicyResponse>, Status> {
        self.caller(&request)?;
        let files = request.into_inner().files.into_iter();
        let files: Vec<_> = files.map(|file| File { name: file.name, text: file.text }).collect();
        let facts = self.mesh.facts().await.map_err(|_closed| AdminError::NotSynced)?;
        Ok(Response::new(blocking(move || Ok(check::answer(&facts, &files)?)).await?))
    }

    async fn list_tokens(
        &self,
        request: Request<v1::ListTokensRequest>,
    ) -> Result<Response<v1::ListTokensResponse>, Status> {
        self.caller(&request)?;
        let store = self.store.clone();
        let tokens = blocking(move || Ok(store.tokens()?)).await?;
        Ok(Response::new(v1::ListTokensResponse { tokens: tokens.into_iter().map(show::token).collect() }))
    }

    async fn revoke_token(
        &self,
        request: Request<v1::RevokeTokenRequest>,
    ) -> Result<Response<v1::RevokeTokenResponse>, Status> {
        let caller = self.caller(&request)?;
        let id = request.into_inner().id;
        let (store, wanted) = (self.store.clone(), id.clone());
        let token = blocking(move || Ok(store.revoke_token(&wanted)?)).await?;
        let token = token.ok_or(AdminError::NoToken(id))?.id;
        tracing::info!(token, by = %caller, "token revoked");
        self.audit.record(&Event::TokenRevoked { token, by: caller.to_string() }, self.clock.now());
        Ok(Response::new(v1::RevokeTokenResponse {}))
    }

    async fn list_workloads(
        &self,
        request: Request<v1::ListWorkloadsRequest>,
    ) -> Result<Response<v1::ListWorkloadsResponse>, Status> {
        self.caller(&request)?;
        let service = self.clone();
        let workloads = blocking(move || {
            let all = service.store.workloads();
            all.values().map(|workload| service.show(workload)).collect::<Result<Vec<_>, _>>()
        })
        .await?;
        Ok(Response::new(v1::ListWorkloadsResponse { workloads }))
    }

    async fn describe_workload(
        &self,
        request: Request<v1::DescribeWorkloadRequest>,
    ) -> Result<Response<v1::DescribeWorkloadResponse>, Status> {
        self.caller(&request)?;
        let request = request.into_inner();
        let name = name(&request.namespace, &request.name)?;
        let service = self.clone();
        let described = blocking(move || {
            let workload =
                service.store.workload(&name).ok_or_else(|| AdminError::NoWorkload(name.clone()))?;
            let view = service.mesh.workload(&name).unwrap_or_default();
            Ok(v1::DescribeWorkloadResponse {
                workload: Some(service.show(&workload)?),
                labels: view.labels,
                policies: view.policies,
                ingress_default_deny: view.ingress_default_deny,
                egress_default_deny: view.egress_default_deny,
            })
        })
        .await?;
        Ok(Response::new(described))
    }

    async fn replace_workload(
        &self,
        request: Request<v1::ReplaceWorkloadRequest>,
    ) -> Result<Response<v1::CreateTokenResponse>, Status> {
        let caller = self.caller(&request)?;
        let request = request.into_inner();
        let name = name(&request.namespace, &request.name)?;
        let workload = self.store.workload(&name).ok_or_else(|| AdminError::NoWorkload(name.clone()))?;
        let minting = Minting {
            target: workload.target.clone(),
            bound_to: Some(name),
            ttl: ttl(request.ttl_seconds)?,
            uses: 1,
            source_prefixes: Vec::new(),
            ephemeral: workload.ephemeral,
        };
        Ok(Response::new(self.mint(minting, &caller).await?))
    }

    async fn delete_workload(
        &self,
        request: Request<v1::DeleteWorkloadRequest>,
    ) -> Result<Response<v1::DeleteWorkloadResponse>, Status> {
        let caller = self.caller(&request)?;
        let request = request.into_inner();
        let name = name(&request.namespace, &request.name)?;
        let now = self.clock.now();
        let (store, wanted) = (self.store.clone(), name.clone());
        blocking(move || Ok(store.remove(&wanted, now, "deleted")?)).await?;
        tracing::info!(workload = %name, by = %caller, "workload deleted");
        self.audit.record(&Event::Deleted { workload: name.to_string(), by: caller.to_string() }, now);
        Ok(Response::new(v1::DeleteWorkloadResponse {}))
    }

    async fn issue_admin(
        &self,
        request: Request<v1::IssueAdminRequest>,
    ) -> Result<Response<v1::IssueAdminResponse>, Status> {
        let caller = self.caller(&request)?;
        if !matches!(caller, Caller::Socket { .. }) {
            return Err(AdminError::SocketOnly.into());
        }
        let request = request.into_inner();
        let now = self.clock.now();
        let csr = CheckedCsr::from_der(&request.csr).map_err(AdminError::from)?;
        let id = SpiffeId::admin(&self.settings.trust_domain, &request.name).map_err(AdminError::from)?;
        let asked = Asked { csr: &csr, id: &id, now, lifetime: ADMIN_LIFETIME };
        let Certificate { issued, roots, .. } = match self.ca.issue(&asked).await {
            Ok(certificate) => certificate,
            Err(SignError::Unnamed { id, .. }) => {
                let answer = v1::IssueAdminResponse { request_for: id, ..v1::IssueAdminResponse::default() };
                return Ok(Response::new(answer));
            }
            Err(error) => return Err(AdminError::from(error).into()),
        };
        let expires = issued.expires.as_secs();
        self.metrics.issued("admin");
        tracing::info!(admin = request.name, by = %caller, "administrator's certificate issued");
        self.audit.record(&Event::AdminIssued { admin: request.name, expires, by: caller.to_string() }, now);
        Ok(Response::new(v1::IssueAdminResponse {
            certificate_chain: issued.chain.iter().map(|certificate| certificate.to_vec()).collect(),
            trust_bundle: roots.certificates(),
            expires: show::seconds(expires),
            request_for: String::new(),
        }))
    }

    async fn list_roots(
        &self,
        request: Request<v1::ListRootsRequest>,
    ) -> Result<Response<v1::ListRootsResponse>, Status> {
        self.caller(&request)?;
        Ok(Response::new(self.roots().await?))
    }

    async fn change_roots(
        &self,
        request: Request<v1::ChangeRootsRequest>,
    ) -> Result<Response<v1::ListRootsResponse>, Status> {
        let caller = self.caller(&request)?;
        if !matches!(caller, Caller::Socket { .. }) {
            return Err(AdminError::SocketOnly.into());
        }
        self.rotate(request.into_inner(), &caller).await?;
        Ok(Response::new(self.roots().await?))
    }

    async fn accept_restored(
        &self,
        request: Request<v1::AcceptRestoredRequest>,
    ) -> Result<Response<v1::AcceptRestoredResponse>, Status> {
        let caller = self.caller(&request)?;
        if !matches!(caller, Caller::Socket { .. }) {
            return Err(AdminError::SocketOnly.into());
        }
        let store = self.store.clone();
        blocking(move || Ok(store.accept_restored()?)).await?;
        self.mesh.republish();
        tracing::warn!(by = %caller, "the gateway's state counts from now on, whatever hosts have");
        self.audit.record(&Event::RestoreAccepted { by: caller.to_string() }, self.clock.now());
        Ok(Response::new(v1::AcceptRestoredResponse {}))
    }

    async fn status(
        &self,
        request: Request<v1::GatewayStatusRequest>,
    ) -> Result<Response<v1::GatewayStatusResponse>, Status> {
        self.caller(&request)?;
        let mut summary = show::summary(self.mesh.summary());
        summary.warnings.extend(self.ca.trouble());
        Ok(Response::new(summary))
    }
}

impl AdminService {
    /// Who calls, if it may.
    fn caller<T>(&self, request: &Request<T>) -> Result<Caller, Status> {
        let now = self.clock.now();
        Caller::of(request.extensions(), now).map_err(|refused| {
            let (peer, remote, detail) = (refused.peer.clone(), refused.remote.clone(), refused.to_string());
            tracing::warn!(peer, remote, "administration refused");
            self.audit.record(&Event::AdminRefused { peer, remote, detail }, now);
            AdminError::from(refused).into()
        })
    }

    fn target(&self, request: &v1::CreateTokenRequest) -> Result<Target, AdminError> {
        match (request.group.as_str(), request.transit_node.as_str(), request.node.as_str()) {
            (group, "", "") if !group.is_empty() => {
                let WorkloadName { namespace, name } =
                    group.parse().map_err(|_malformed| AdminError::GroupName(group.to_owned()))?;
                if self.mesh.group_exists(&namespace, &name) {
                    Ok(Target::Group { namespace, name })
                } else if self.mesh.summary().synced {
                    Err(AdminError::NoGroup(group.to_owned()))
                } else {
                    Err(AdminError::NotSynced)
                }
            }
            ("", node, "") if pki::is_dns1123_subdomain(node) => {
                Ok(Target::TransitNode { node: node.to_owned() })
            }
            ("", "", node) if pki::is_dns1123_subdomain(node) => Ok(Target::Node { node: node.to_owned() }),
            ("", node, "") | ("", "", node) if !node.is_empty() => Err(AdminError::NodeName(node.to_owned())),
            _ => Err(AdminError::OneTarget),
        }
    }

    async fn mint(&self, minting: Minting, caller: &Caller) -> Result<v1::CreateTokenResponse, AdminError> {
        if self.settings.gateways.is_empty() {
            return Err(AdminError::NoAdvertise);
        }
        let now = self.clock.now();
        let store = self.store.clone();
        let Minted { token, secret } = blocking(move || Ok(store.mint(minting, now)?)).await?;
        let text = proto::token::encode(&v1::JoinToken {
            gateways: self.settings.gateways.clone(),
            root_pins: self.ca.roots().pins().iter().map(|pin| pin.as_bytes().to_vec()).collect(),
            trust_domain: self.settings.trust_domain.to_string(),
            id: token.id.clone(),
            secret: secret.to_vec(),
        });
        tracing::info!(token = token.id, target = %token.target, by = %caller, "token minted");
        let event = Event::TokenMinted {
            token: token.id.clone(),
            target: token.target.to_string(),
            bound_to: token.bound_to.map(|name| name.to_string()).unwrap_or_default(),
            expires: token.expires_at,
            uses: token.uses_left,
            by: caller.to_string(),
        };
        self.audit.record(&event, now);
        Ok(v1::CreateTokenResponse {
            id: token.id,
            token: text.expose_secret().to_owned(),
            expires: show::seconds(token.expires_at),
        })
    }

    fn show(&self, workload: &crate::store::Workload) -> Result<v1::Workload, AdminError> {
        let last_seen = self.store.last_seen(&workload.name)?.map_or(0, |at| at.as_secs());
        let view = self.mesh.workload(&workload.name).unwrap_or_default();
        let now = self.clock.now().as_secs();
        let last_seen = if view.connected { now } else { last_seen };
        Ok(show::workload(workload, view, last_seen))
    }
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, AdminError> + Send + 'static,
) -> Result<T, AdminError> {
    let done = tokio::task::spawn_blocking(work).await;
    done.unwrap_or_else(|error| Err(StoreError::Database(error.to_string()).into()))
}

fn name(namespace: &str, name: &str) -> Result<WorkloadName, AdminError> {
    Ok(WorkloadName::try_new(namespace, name)?)
}

fn ttl(seconds: u64) -> Result<Duration, AdminError> {
    let ttl = if seconds == 0 { TOKEN_TTL } else { Duration::from_secs(seconds) };
    if ttl > MAX_TOKEN_TTL { Err(AdminError::Ttl(seconds)) } else { Ok(ttl) }
}

fn prefixes(texts: &[String]) -> Result<Vec<IpNet>, AdminError> {
    texts.iter().map(|text| text.parse().map_err(|_malformed| AdminError::Prefix(text.clone()))).collect()
}

fn uses(uses: u32) -> Result<u32, AdminError> {
    if uses > MAX_USES { Err(AdminError::Uses(uses)) } else { Ok(uses.max(1)) }
}
