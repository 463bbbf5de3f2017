//! Joining: everything that can be checked is checked before the token is used.

use std::sync::Arc;
use std::time::Duration;

use pki::KeyPair;
use proto::v1::{AgentJoinRequest, JoinProgress, JoinRequest, JoinResponse, JoinResult};
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout};
use tonic::Status;
use zeroize::Zeroizing;

use super::{OperationError, Operations, kernel_config};
use crate::agent::{Agent, Standing};
use crate::credentials::{Credentials, save_key};
use crate::enrolment::{self, EnrolmentError, Invitation, Joined};
use crate::kernel::{self, KernelError, preflight};
use crate::member::{self, Member, host_report};
use crate::selection;
use crate::session::Version;
use crate::state_dir::{Enrolment, StateFile};

/// How long the first state may take.
const FIRST_STATE: Duration = Duration::from_secs(30);
/// Room that the files of a join need on the disk.
const ROOM: usize = 16 * 1024;

/// Where the steps go.
pub(super) type Progress = mpsc::Sender<Result<JoinProgress, Status>>;

/// A join that may be asked for again: with its token, or by its account, a gateway gives its answer to this key only. The key is on no disk,
/// of which there might be a copy.
pub(super) struct Unanswered {
    with: String,
    key: Arc<KeyPair>,
}

impl std::fmt::Debug for Unanswered {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Unanswered").field("with", &self.with).finish_non_exhaustive()
    }
}

impl Operations {
    pub(super) async fn join(
        &mut self,
        request: AgentJoinRequest,
        progress: &Progress,
    ) -> Result<JoinResult, OperationError> {
        let began = Instant::now();
        if let Standing::Leaving(_) = self.agent.report().standing {
            self.go().await?;
        }
        let existing = Enrolment::load(&self.agent.state)?;
        let version = if request.adopt {
            self.adopt(existing, progress).await?
        } else {
            self.refuse_second(existing)?;
            let AgentJoinRequest { token, name, adopt: _ } = request;
            let text = Zeroizing::new(token);
            self.join_first(name, progress, || Ok(Invitation::of_token(proto::token::decode(&text)?)?))
                .await?
        };
        Ok(result(&version, began.elapsed()))
    }

    /// Joins as a host that has not.
    pub(super) async fn join_first(
        &mut self,
        name: String,
        progress: &Progress,
        invite: impl FnOnce() -> Result<Invitation, OperationError>,
    ) -> Result<Version, OperationError> {
        let joined = match invite() {
            Ok(invitation) => self.enrol(invitation, name, progress).await,
            Err(error) => Err(error),
        };
        if joined.is_err() && self.agent.member().is_none() && self.leaving.is_none() {
            // Nothing of a failed join stays; without a membership the key is worth nothing.
            self.agent.state.remove(&StateFile::ALL)?;
            self.agent.tell(|report| report.standing = Standing::Unjoined);
        }
        joined
    }

    fn refuse_second(&self, existing: Option<Enrolment>) -> Result<(), OperationError> {
        let Some(enrolment) = existing else { return Ok(()) };
        match self.agent.report().standing {
            Standing::Clone(reason) => Err(OperationError::Clone(reason)),
            Standing::Unjoined
            | Standing::Joining
            | Standing::Member
            | Standing::Failed(_)
            | Standing::Leaving(_) => Err(OperationError::AlreadyJoined(enrolment.workload)),
        }
    }

    async fn enrol(
        &mut self,
        invitation: Invitation,
        name: String,
        progress: &Progress,
    ) -> Result<Version, OperationError> {
        check(&self.agent)?;
        self.agent.state.reserve(ROOM)?;
        let key = self.key(&invitation)?;
        save_key(&key, &self.agent.state)?;
        step(progress, "this host has what the mesh needs, and a key").await;

        let Joined { gateway, credentials, response } = self.ask(&invitation, key, name).await?;
        let workload = format!("{}/{}", response.namespace, response.name);
        step(progress, &format!("gateway {gateway} accepted this host as {workload}")).await;

        let enrolment = self.enrolment(&invitation, &credentials, response);
        let saved = credentials.save(&self.agent.state).and_then(|()| enrolment.save(&self.agent.state));
        let brought_up = match saved {
            Ok(()) => self.start_kernel().await.map_err(OperationError::from),
            Err(error) => Err(error.into()),
        };
        match brought_up {
            Ok(kernel) => self.begin(Member::new(kernel, enrolment, Some(credentials), None)),
            Err(error) => {
                let untold =
                    enrolment::tell(&self.agent, &credentials, self.agent.now(), &enrolment.gateways)
                        .await
                        .err();
                let left = kernel::remove(&kernel_config(&self.agent)).await.err();
                let (untold, left) =
                    (untold.map(|error| error.to_string()), left.map(|error| error.to_string()));
                tracing::warn!(untold, left, "the join is undone");
                return Err(OperationError::NotEnforced { reason: error.to_string() });
            }
        }
        self.first_state(&workload, true, progress).await
    }

    /// Asks gateways. One that may have agreed is asked again with the same key.
    pub(super) async fn ask(
        &mut self,
        invitation: &Invitation,
        key: Arc<KeyPair>,
        name: String,
    ) -> Result<Joined, OperationError> {
        let request = self.request(invitation, &key, name).await?;
        let joined = enrolment::join(&self.agent, invitation, key.clone(), request).await;
        if let Err(EnrolmentError::Unanswered(_)) = joined {
            self.unanswered = Some(Unanswered { with: invitation.proof.name().to_owned(), key });
        }
        Ok(joined?)
    }

    /// What a gateway's answer makes of this host.
    pub(super) fn enrolment(
        &self,
        invitation: &Invitation,
        credentials: &Credentials,
        response: JoinResponse,
    ) -> Enrolment {
        let workload = format!("{}/{}", response.namespace, response.name);
        let known =
            if response.gateways.is_empty() { invitation.gateways.clone() } else { response.gateways };
        let mut enrolment = Enrolment::new(workload, credentials.trust_domain(), known, self.agent.machine);
        enrolment.account = invitation.proof.account().map(str::to_owned);
        enrolment.mesh_addresses = response
            .mesh_addresses
            .iter()
            .filter_map(|bytes| proto::convert::address_from_wire(bytes).ok())
            .collect();
        enrolment
    }

    /// The key of such a join that was not answered, else a new one.
    pub(super) fn key(&self, invitation: &Invitation) -> Result<Arc<KeyPair>, OperationError> {
        match &self.unanswered {
            Some(Unanswered { with, key }) if with == invitation.proof.name() => Ok(key.clone()),
            Some(_) | None => {
                let key = KeyPair::generate().map_err(|error| OperationError::Key(error.to_string()))?;
                Ok(Arc::new(key))
            }
        }
    }

    async fn request(
        &self,
        invitation: &Invitation,
        key: &KeyPair,
        name: String,
    ) -> Result<JoinRequest, OperationError> {
        let csr = key.request().map_err(|error| OperationError::Key(error.to_string()))?;
        let underlay = member::underlay(&self.agent).await.map_err(OperationError::Underlay)?;
        if underlay.is_empty() {
            return Err(KernelError::NoUnderlay.into());
        }
        let (token_id, credential) = invitation.proof.credential();
        Ok(JoinRequest {
            token_id,
            credential: Some(credential),
            csr,
            name,
            hostname: self.agent.hostname(),
            machine: self.agent.machine.as_bytes().to_vec(),
            report: Some(host_report(&underlay)),
            agent_version: env!("CARGO_PKG_VERSION").to_owned(),
        })
    }

    /// Continues the membership of a machine that was restored here.
    async fn adopt(
        &mut self,
        existing: Option<Enrolment>,
        progress: &Progress,
    ) -> Result<Version, OperationError> {
        let mut enrolment = existing.ok_or(OperationError::NotJoined)?;
        if enrolment.belongs_to(self.agent.machine) {
            return Err(OperationError::NothingToAdopt);
        }
        enrolment.adopt(self.agent.machine);
        enrolment.save(&self.agent.state)?;
        step(progress, &format!("the state of {} now belongs to this machine", enrolment.workload)).await;
        self.restore().await;
        if let Standing::Failed(reason) = self.agent.report().standing {
            return Err(OperationError::NoState { workload: enrolment.workload, reason });
        }
        self.first_state(&enrolment.workload, false, progress).await
    }

    /// Waits for the first enforcement. A state that can never be enforced undoes the join, and so does for a host that
    /// is new one whose network it can take in part only: whoever asked is there to do something about it.
    async fn first_state(
        &mut self,
        workload: &str,
        is_new: bool,
        progress: &Progress,
    ) -> Result<Version, OperationError> {
        let member = self.agent.member().ok_or(OperationError::NotJoined)?;
        let (mut applied, mut running) = (member.kernel.applied(), member.running.subscribe());
        let refused = async {
            let refusal = applied
                .wait_for(|applied| applied.refused.is_some())
                .await
                .ok()
                .and_then(|it| it.refused.clone());
            match refusal {
                Some(refusal) => refusal.reason,
                // The kernel's owner is gone; the time limit says so.
                None => std::future::pending().await,
            }
        };
        let outcome = tokio::select! {
            version = async { running.wait_for(Option::is_some).await.ok().and_then(|version| version.clone()) } => Ok(version),
            reason = refused => Err(reason),
            () = tokio::time::sleep(FIRST_STATE) => Ok(None),
        };
        let trouble = member.kernel.applied().borrow().trouble.clone().filter(|_| is_new);
        match outcome.and_then(|version| trouble.map_or(Ok(version), Err)) {
            Ok(Some(version)) => {
                step(progress, &format!("generation {} is enforced", version.tag.counter)).await;
                Ok(version)
            }
            Ok(None) => {
                let error = self.agent.report().session.error;
                let reason =
                    if error.is_empty() { "no state came from the gateway".to_owned() } else { error };
                Err(OperationError::NoState { workload: workload.to_owned(), reason })
            }
            Err(reason) => {
                self.undo(&member).await?;
                Err(OperationError::NotEnforced { reason })
            }
        }
    }

    async fn undo(&mut self, member: &Arc<Member>) -> Result<(), OperationError> {
        let told = timeout(FIRST_STATE, enrolment::leave(&self.agent, member)).await;
        if !matches!(told, Ok(Ok(()))) {
            tracing::warn!("the gateway was not told that the join was undone");
        }
        self.go().await.map(drop)
    }
}

/// What can be known before the token is used.
fn check(agent: &Agent) -> Result<(), OperationError> {
    let config = kernel_config(agent);
    // A missing BPF file system at its usual place is mounted when the kernel's owner starts.
    let usual = config.bpffs.starts_with("/sys/fs/bpf");
    let found = preflight(&config).into_iter().filter_map(|condition| condition.result.err());
    let mut counts = found.filter(|error| !(usual && matches!(error, KernelError::NoBpffs { .. })));
    counts.next().map_or(Ok(()), |error| Err(error.into()))
}

async fn step(progress: &Progress, text: &str) {
    // Whoever asked may be gone; the join goes on.
    let _gone = progress.send(Ok(JoinProgress { step: text.to_owned(), result: None })).await;
}

fn result(version: &Version, elapsed: Duration) -> JoinResult {
    let state = &version.state;
    JoinResult {
        workload: state.settings.workload.clone(),
        mesh_addresses: state.settings.addresses.iter().map(ToString::to_string).collect(),
        identity: state.settings.identity.get(),
        policies: selection::policies(&state.policy),
        ingress_default_deny: selection::is_default_deny(&state.policy.ingress),
        egress_default_deny: selection::is_default_deny(&state.policy.egress),
        elapsed_ms: u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX),
    }
}
