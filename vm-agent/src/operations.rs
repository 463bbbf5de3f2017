//! The one owner of the membership: brings it up at start, joins, leaves, seals. One thing at a time.

use std::path::PathBuf;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use proto::token::InvalidToken;
use proto::v1::{AgentJoinRequest, AgentLeaveResponse, JoinProgress, SealResponse};
use rand::rngs::StdRng;
use telemetry::pulse::Pulse;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tonic::Status;

use crate::agent::{Agent, ENFORCEMENT, Report, Standing, Topic};
use crate::config::OnFailure;
use crate::credentials::{Credentials, InvalidCredentials};
use crate::enrolment::{EnrolmentError, InvalidInvitation};
use crate::kernel::{self, Kernel, KernelConfig, KernelError, NicConfig, Reconcile, TableSizes};
use crate::machine::UnknownMachine;
use crate::member::{self, Member};
use crate::state_dir::{Enrolment, InvalidEnrolment, StateError, StateFile};

mod account;
mod join;
mod leave;

/// How often something that could not be brought up is tried again.
const RETRY: Duration = Duration::from_secs(10);
/// How long the first enforcement may take before the service counts as started all the same.
const FIRST: Duration = Duration::from_secs(20);
/// Hooks are verified this often even if nothing seems to have changed.
const VERIFY: Duration = Duration::from_secs(10);

/// An operation that failed.
#[derive(Debug, thiserror::Error)]
pub enum OperationError {
    /// There is a membership already.
    #[error("this host has already joined as {0}; `outrigger leave` ends that")]
    AlreadyJoined(String),
    /// There is none.
    #[error("this host has not joined a mesh: run `outrigger join`")]
    NotJoined,
    /// The state belongs to another machine.
    #[error("{0}")]
    Clone(String),
    /// The state belongs to this machine already.
    #[error("there is nothing to adopt: the state belongs to this machine")]
    NothingToAdopt,
    /// The token cannot be read.
    #[error(transparent)]
    Token(#[from] InvalidToken),
    /// What lets this host join cannot be used.
    #[error(transparent)]
    Invitation(#[from] InvalidInvitation),
    /// A file cannot be read or written.
    #[error(transparent)]
    State(#[from] StateError),
    /// The enrolment cannot be read.
    #[error(transparent)]
    Enrolment(#[from] InvalidEnrolment),
    /// The machine cannot be told.
    #[error(transparent)]
    Machine(#[from] UnknownMachine),
    /// A key cannot be made.
    #[error("making a key: {0}")]
    Key(String),
    /// The underlay cannot be read.
    #[error("reading this host's addresses: {0}")]
    Underlay(std::io::Error),
    /// No gateway agreed.
    #[error(transparent)]
    Gateway(#[from] EnrolmentError),
    /// The certificate cannot be read.
    #[error(transparent)]
    Credentials(#[from] InvalidCredentials),
    /// The kernel refuses.
    #[error(transparent)]
    Kernel(#[from] KernelError),
    /// It joined, and its state cannot be enforced; the join was undone.
    #[error("{reason}. The join was undone; ask for a new token once that is solved")]
    NotEnforced {
        /// Why.
        reason: String,
    },
    /// It joined, and no state came in time; the agent goes on trying.
    #[error(
        "joined as {workload}, but nothing is enforced yet: {reason}. The agent goes on trying; see `outrigger status`"
    )]
    NoState {
        /// The workload.
        workload: String,
        /// What is known.
        reason: String,
    },
    /// The gateway cannot be told.
    #[error("{0}; nothing was changed. `outrigger leave --force` leaves without telling a gateway")]
    Untold(String),
}

impl From<OperationError> for Status {
    fn from(error: OperationError) -> Self {
        let text = error.to_string();
        match error {
            OperationError::NotJoined => Self::failed_precondition(text),
            OperationError::AlreadyJoined(_) => Self::already_exists(text),
            OperationError::Clone(_)
            | OperationError::NothingToAdopt
            | OperationError::Token(_)
            | OperationError::Invitation(_)
            | OperationError::State(_)
            | OperationError::Enrolment(_)
            | OperationError::Machine(_)
            | OperationError::Key(_)
            | OperationError::Underlay(_)
            | OperationError::Gateway(_)
            | OperationError::Credentials(_)
            | OperationError::Kernel(_)
            | OperationError::NotEnforced { .. }
            | OperationError::NoState { .. }
            | OperationError::Untold(_) => Self::aborted(text),
        }
    }
}

/// What the owner is asked.
#[derive(Debug)]
pub enum Command {
    /// Join; the steps and the result are sent as they come.
    Join(AgentJoinRequest, mpsc::Sender<Result<JoinProgress, Status>>),
    /// Leave; whether also when no gateway can be told.
    Leave(bool, oneshot::Sender<Result<AgentLeaveResponse, OperationError>>),
    /// Seal.
    Seal(oneshot::Sender<Result<SealResponse, OperationError>>),
}

/// The owner.
#[derive(Debug)]
pub struct Operations {
    agent: Arc<Agent>,
    commands: mpsc::Receiver<Command>,
    reconciles: mpsc::Sender<Reconcile>,
    /// The membership that was ended and could not be removed whole.
    leaving: Option<Arc<Member>>,
    /// A join that no gateway answered and one may have agreed to.
    unanswered: Option<join::Unanswered>,
    /// How this agent joins by itself; `None`: it does not.
    own: Option<account::OwnWay>,
}

impl Operations {
    /// The owner of this agent's membership; what changes the kernel is sent to the task that runs it. The generator decides
    /// about waits only.
    #[must_use]
    pub fn new(
        agent: Arc<Agent>,
        commands: mpsc::Receiver<Command>,
        reconciles: mpsc::Sender<Reconcile>,
        rng: StdRng,
    ) -> Self {
        let own = account::OwnWay::of(&agent, rng);
        Self { agent, commands, reconciles, leaving: None, unanswered: None, own }
    }

    /// Brings up what the previous run left, says so once, and then does what it is asked.
    pub async fn run(mut self, started: oneshot::Sender<()>, pulse: Pulse) {
        let first = pulse.step();
        self.restore().await;
        self.first_answer().await;
        drop(first);
        // Nobody waits when the agent is stopping.
        let _stopping = started.send(());
        let mut refused = self.agent.refused.subscribe();
        loop {
            let standing = self.agent.report().standing;
            let again = matches!(standing, Standing::Failed(_) | Standing::Leaving(_));
            let due = self.own_way_due();
            tokio::select! {
                command = self.commands.recv() => match command {
                    Some(command) => {
                        let _step = pulse.step();
                        self.execute(command).await;
                    }
                    None => return,
                },
                () = sleep_until(due.unwrap_or_else(Instant::now)), if due.is_some() => {
                    let _step = pulse.step();
                    self.go_own_way().await;
                }
                // Then there may be something to do. The sender is in the agent.
                _changed = refused.changed() => {}
                () = sleep(RETRY), if again => {
                    let _step = pulse.step();
                    if matches!(standing, Standing::Leaving(_)) {
                        // What still fails is told by the report.
                        drop(self.go().await);
                    } else {
                        self.restore().await;
                    }
                }
            }
        }
    }

    async fn execute(&mut self, command: Command) {
        // Whoever asked may be gone; what was begun is finished.
        match command {
            Command::Join(request, progress) => {
                let result = self.join(request, &progress).await;
                let last = match result {
                    Ok(result) => Ok(JoinProgress { step: String::new(), result: Some(result) }),
                    Err(error) => {
                        tracing::warn!(%error, "not joined");
                        Err(error.into())
                    }
                };
                let _gone = progress.send(last).await;
            }
            Command::Leave(force, answer) => drop(answer.send(self.leave(force).await)),
            Command::Seal(answer) => drop(answer.send(self.seal().await)),
        }
    }

    /// Brings up what is on disk.
    async fn restore(&mut self) {
        let enrolment = match Enrolment::load(&self.agent.state) {
            Ok(Some(enrolment)) => enrolment,
            Ok(None) => {
                self.agent.tell(|report| report.standing = Standing::Unjoined);
                return if self.own.is_some() {
                    self.waits("this node has not joined yet".to_owned());
                } else {
                    self.agent.health.ready(ENFORCEMENT);
                };
            }
            Err(error) => return self.failed(&error, None).await,
        };
        if !enrolment.belongs_to(self.agent.machine) {
            return self.is_clone(&enrolment);
        }
        self.agent.tell(|report| report.standing = Standing::Joining);
        let mut fallback = None;
        let restored = match member::restore(&self.agent) {
            Ok(restored) => restored,
            Err(reason) => {
                tracing::error!(
                    reason,
                    "the last good state is not enforced, a gateway is asked for the current one"
                );
                self.cannot_enforce(&reason, Some(&enrolment)).await;
                fallback = self.fallback(&enrolment);
                None
            }
        };
        let credentials = match Credentials::load(&self.agent.state) {
            Ok(credentials) => Some(credentials),
            Err(error) => {
                tracing::error!(%error, "no session is possible; the last good state stays enforced");
                self.agent.tell(|report| report.session.error = error.to_string());
                None
            }
        };
        match self.start_kernel().await {
            Ok(kernel) => {
                kernel.1.send_replace(fallback.map(Arc::new));
                let member = Member::new(kernel, enrolment.clone(), credentials, restored);
                self.check_account(&enrolment, &member);
                self.begin(member);
            }
            Err(error) => self.failed(&error, Some(&enrolment)).await,
        }
    }

    fn is_clone(&self, enrolment: &Enrolment) {
        let reason = format!(
            "the state of {} belongs to another machine: this one is a copy, and nothing is brought up. \
             `outrigger seal` and a new token make it a host of its own; `outrigger join --adopt` continues {} here \
             if the other machine is gone",
            enrolment.workload, enrolment.workload
        );
        tracing::error!(reason, "not brought up");
        self.agent.health.unready(ENFORCEMENT, reason.clone());
        self.agent.tell(|report| report.standing = Standing::Clone(reason));
    }

    fn begin(&self, member: Member) {
        tracing::info!(workload = member.enrolment().workload, "member of the mesh");
        self.agent.tell(|report| report.standing = Standing::Member);
        self.agent.member.send_replace(Some(Arc::new(member)));
    }

    /// Loads or adopts what the kernel runs; changes no device yet.
    async fn start_kernel(
        &self,
    ) -> Result<(Kernel, watch::Sender<Option<Arc<kernel::Target>>>), KernelError> {
        let (targets, receiver) = watch::channel(None);
        let (kernel, reconcile) = Kernel::start(kernel_config(&self.agent), receiver).await?;
        self.reconciles.send(reconcile).await.map_err(|_closed| KernelError::Stopped)?;
        Ok((kernel, targets))
    }

    async fn failed(&self, error: &(dyn std::error::Error + Send + Sync), enrolment: Option<&Enrolment>) {
        let reason = error.to_string();
        let known = matches!(&self.agent.report().standing, Standing::Failed(before) if *before == reason);
        if !known {
            tracing::error!(reason, "nothing can be brought up");
        }
        self.agent.health.unready(ENFORCEMENT, reason.clone());
        self.cannot_enforce(&reason, enrolment).await;
        self.agent.tell(|report| report.standing = Standing::Failed(reason));
    }

    /// What is enforced without a good state: on the NICs, where that was confirmed before.
    fn fallback(&self, enrolment: &Enrolment) -> Option<kernel::Target> {
        if self.agent.config.on_failure == OnFailure::Open {
            return None;
        }
        let state = Arc::new(self.agent.nic.record.borrow().fallback(enrolment)?);
        tracing::warn!("the last confirmed policy of the NICs is enforced there until a gateway is reached");
        let protected = member::literal_addresses(&self.agent.gateways(&enrolment.gateways));
        Some(kernel::Target { tag: None, state, protected })
    }

    /// The mesh is unreachable rather than reached by the default route.
    async fn cannot_enforce(&self, reason: &str, enrolment: Option<&Enrolment>) {
        let nic = match self.agent.config.on_failure {
            OnFailure::Failsafe => "failsafe: NICs are governed by the last policy that was confirmed there",
            OnFailure::Open => "open: no policy governs the NICs",
        };
        let mut text = format!(
            "the last good state cannot be enforced: {reason}; the mesh is unreachable (onFailure {nic})"
        );
        if let Some(Enrolment { prefixes, gateways, .. }) = enrolment {
            let protected = member::literal_addresses(gateways);
            match kernel::backstop(&kernel_config(&self.agent), prefixes, protected).await {
                Ok(left_out) => left_out.iter().for_each(|reason| text = format!("{text}; {reason}")),
                Err(error) => {
                    text = format!("{text}; not even its prefixes could be made unreachable: {error}");
                }
            }
        }
        self.agent.warn(Topic::Failure, Some(text));
    }

    /// Until the state of the previous run is enforced or refused; nothing to wait for without one.
    async fn first_answer(&self) {
        let Some(member) = self.agent.member() else { return };
        let is_fallback = member.targets.borrow().as_ref().is_some_and(|target| target.tag.is_none());
        if member.restored.is_none() && !is_fallback {
            return;
        }
        let mut applied = member.kernel.applied();
        let answered = applied.wait_for(|applied| {
            applied.tag.is_some() || applied.refused.is_some() || (is_fallback && applied.epoch != 0)
        });
        if timeout(FIRST, answered).await.is_err() {
            tracing::warn!("the last good state is not enforced yet");
        }
    }

    /// Ends the membership in this process; what is in the kernel and on disk stays.
    fn end(&self) -> Option<Arc<Member>> {
        self.agent.member.send_replace(None)
    }

    /// Ends the membership and removes what is in the kernel and on disk. What could not be removed whole is tried again
    /// until it is.
    async fn go(&mut self) -> Result<Vec<String>, OperationError> {
        let member = self.end().or_else(|| self.leaving.take());
        let removed = self.remove(member.as_ref()).await;
        if let Err(error) = &removed {
            let reason = format!(
                "leaving is not complete: {error}. It is tried again every {} s, and by `outrigger leave`",
                RETRY.as_secs()
            );
            tracing::error!(reason, "something of the membership is left");
            self.leaving = member;
            self.agent.health.unready(ENFORCEMENT, reason.clone());
            self.agent.tell(|report| report.standing = Standing::Leaving(reason));
        }
        removed
    }

    /// Removes what is in the kernel and on disk, and lists it.
    async fn remove(&self, member: Option<&Arc<Member>>) -> Result<Vec<String>, OperationError> {
        let mut removed = match member {
            Some(member) => match member.kernel.leave().await {
                Err(KernelError::Stopped) => kernel::remove(&kernel_config(&self.agent)).await?,
                removed => removed?,
            },
            None => kernel::remove(&kernel_config(&self.agent)).await?,
        };
        // Another mesh may have its own folder in it, and a mount is not ours.
        if std::fs::remove_dir(&self.agent.config.bpffs).is_ok() {
            removed.push(format!("folder {}", self.agent.config.bpffs.display()));
        }
        let files: Vec<PathBuf> = {
            // What writes beside the operations looks at the membership under this lock.
            let _writing = self.agent.writing.lock().unwrap_or_else(PoisonError::into_inner);
            let files = self.agent.state.remove(&StateFile::ALL)?;
            self.agent.nic.forget();
            files
        };
        removed.extend(files.iter().map(|path| format!("file {}", path.display())));
        self.agent.tell(|report| *report = Report::default());
        self.agent.health.ready(ENFORCEMENT);
        Ok(removed)
    }
}

/// What the owner of kernel state is told.
pub(crate) fn kernel_config(agent: &Agent) -> KernelConfig {
    let config = &agent.config;
    KernelConfig {
        mesh: config.mesh.to_string(),
        device: config.device.to_string(),
        bpffs: config.bpffs.clone(),
        mtu: config.mtu.map(crate::config::Mtu::get),
        allowed_cidrs: config.allowed_cidrs.clone(),
        underlay_addresses: config.underlay_addresses.clone(),
        sizes: TableSizes::default(),
        verify_every: VERIFY,
        nic: NicConfig { orders: agent.nic.orders.subscribe(), failsafes: config.failsafes.clone() },
        silent: agent.silent.subscribe(),
    }
}
