//! Joining by itself, on a cluster node: whenever there is no membership, or one that cannot go on as it is. What the kernel
//! runs goes on meanwhile.

use std::sync::{Arc, PoisonError};
use std::time::Duration;

use rand::rngs::StdRng;
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::{OperationError, Operations};
use crate::agent::{Agent, ENFORCEMENT, Standing, Topic};
use crate::config::AccountFiles;
use crate::credentials::save_key;
use crate::enrolment::{self, Invitation, Joined};
use crate::member::Member;
use crate::session::Backoff;
use crate::state_dir::Enrolment;

/// Waits between attempts.
const FIRST_WAIT: Duration = Duration::from_secs(1);
const LAST_WAIT: Duration = Duration::from_mins(1);
/// The least wait after a join that was undone: each makes a key, which is revoked with it.
const UNDONE_WAIT: Duration = Duration::from_mins(2);

/// The way in that this agent has of its own.
pub(super) struct OwnWay {
    files: AccountFiles,
    backoff: Backoff,
    rng: StdRng,
    due: Instant,
    /// When it last joined so.
    joined: Option<Instant>,
    /// An administrator let this node leave.
    has_left: bool,
}

/// What there is to do.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Need {
    /// This node has not joined.
    Join,
    /// Its state is of another machine.
    Discard,
    /// It is a member, and cannot go on as that.
    Anew(String),
}

impl OwnWay {
    pub(super) fn of(agent: &Agent, rng: StdRng) -> Option<Self> {
        let files = agent.config.account.clone()?;
        let backoff = Backoff::new(FIRST_WAIT, LAST_WAIT);
        Some(Self { files, backoff, rng, due: Instant::now(), joined: None, has_left: false })
    }
}

impl std::fmt::Debug for OwnWay {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("OwnWay").field("files", &self.files).finish_non_exhaustive()
    }
}

impl Operations {
    /// When something is to be done; `None`: nothing is.
    pub(super) fn own_way_due(&self) -> Option<Instant> {
        let own = self.own.as_ref()?;
        self.need().map(|_need| own.due)
    }

    fn need(&self) -> Option<Need> {
        if self.own.as_ref()?.has_left {
            return None;
        }
        match self.agent.report().standing {
            Standing::Unjoined => Some(Need::Join),
            Standing::Clone(_) => Some(Need::Discard),
            Standing::Member => {
                let refused = self.agent.refused.borrow().clone()?;
                let member = self.agent.member()?;
                let key = member.credentials.borrow().as_ref().map(|held| held.key().hash());
                (refused.key == key).then_some(Need::Anew(refused.reason))
            }
            Standing::Joining | Standing::Failed(_) | Standing::Leaving(_) => None,
        }
    }

    /// Does what there is to do; what comes of it is in `status`.
    pub(super) async fn go_own_way(&mut self) {
        let Some(need) = self.need() else { return };
        let done = match &need {
            Need::Join => self.join_by_account().await,
            Need::Discard => match self.go().await {
                Ok(_removed) => self.join_by_account().await,
                Err(error) => Err(error),
            },
            Need::Anew(reason) => self.join_anew(reason).await,
        };
        let Some(own) = &mut self.own else { return };
        let error = match done {
            // The kernel may still say no; then it is a member all the same.
            Ok(()) | Err(OperationError::NoState { .. }) => {
                let now = Instant::now();
                // Who is refused right after each join does not join all the time.
                if own.joined.is_none_or(|before| now.saturating_duration_since(before) > 2 * LAST_WAIT) {
                    own.backoff.reset();
                }
                (own.joined, own.due) = (Some(now), now + own.backoff.next(&mut own.rng));
                self.unanswered = None;
                return self.agent.warn(Topic::Account, None);
            }
            Err(error) => error,
        };
        let (text, least) = if let OperationError::NotEnforced { reason } = &error {
            (format!("{reason}. The join was undone"), UNDONE_WAIT)
        } else {
            (error.to_string(), Duration::ZERO)
        };
        let wait = own.backoff.next(&mut own.rng).max(least);
        own.due = Instant::now() + wait;
        tracing::warn!(reason = text, ?wait, "not joined by the service account, which is tried again");
        let again = format!("{text}; tried again in {} s", wait.as_secs().max(1));
        match need {
            Need::Anew(why) => {
                let text = format!("this node has to join anew ({why}), and has not: {again}");
                self.agent.warn(Topic::Account, Some(text));
            }
            Need::Join | Need::Discard => self.waits(again),
        }
    }

    /// This node has not joined yet.
    pub(super) fn waits(&self, reason: String) {
        self.agent.health.unready(ENFORCEMENT, reason.clone());
        self.agent.tell(|report| report.session.error = reason);
    }

    /// An administrator took this node out of the mesh: it does not come back by itself, until its agent is started again.
    pub(super) fn stays_away(&mut self) {
        let Some(own) = &mut self.own else { return };
        own.has_left = true;
        let text = "this node left when it was asked to; its agent joins again by the service account once it is started anew";
        self.agent.tell(|report| text.clone_into(&mut report.session.error));
    }

    /// Whether a membership on disk is still that of this agent's pod; says so to whoever has it renewed if not.
    pub(super) fn check_account(&self, enrolment: &Enrolment, member: &Member) {
        let Some(files) = &self.agent.config.account else { return };
        let held = member.credentials.borrow().as_ref().map(|held| held.key().hash());
        if held.is_none() {
            return self.agent.refuse(None, "its certificate or key cannot be read".to_owned());
        }
        // Without a token there is nothing to compare, and nothing to join with.
        let Ok((account, _token)) = enrolment::account(&files.token) else { return };
        if let Some(before) = enrolment.account.as_ref().filter(|before| **before != account) {
            let reason =
                format!("it joined by the service account {before}, and its agent's is {account} now");
            self.agent.refuse(held, reason);
        }
    }

    async fn join_by_account(&mut self) -> Result<(), OperationError> {
        let Some(files) = self.own.as_ref().map(|own| own.files.clone()) else { return Ok(()) };
        // Nobody waits for the steps.
        let (progress, steps) = mpsc::channel(1);
        drop(steps);
        let invite = || Ok(Invitation::of_account(&files)?);
        self.join_first(String::new(), &progress, invite).await.map(drop)
    }

    /// Joins with another key in the place of this very node. The state in force stays until the gateway gives another one.
    async fn join_anew(&mut self, reason: &str) -> Result<(), OperationError> {
        let (Some(own), Some(member)) = (&self.own, self.agent.member()) else { return Ok(()) };
        let invitation = Invitation::of_account(&own.files)?;
        let key = self.key(&invitation)?;
        let Joined { gateway, credentials, response } =
            self.ask(&invitation, key.clone(), String::new()).await?;
        let joined = self.enrolment(&invitation, &credentials, response);
        {
            let _writing = self.agent.writing.lock().unwrap_or_else(PoisonError::into_inner);
            // A crash between these leaves what cannot be read, and so another join.
            save_key(&key, &self.agent.state)?;
            credentials.save(&self.agent.state)?;
            let changed = member.change_enrolment(|enrolment| {
                enrolment.workload = joined.workload;
                enrolment.gateways = joined.gateways;
                enrolment.mesh_addresses = joined.mesh_addresses;
                enrolment.account = joined.account;
            });
            changed.map_or(Ok(()), |enrolment| enrolment.save(&self.agent.state))?;
        }
        tracing::info!(reason, gateway, workload = member.enrolment().workload, "this node joined anew");
        self.agent.warn(Topic::Certificate, None);
        member.credentials.send_replace(Some(Arc::new(credentials)));
        Ok(())
    }
}
