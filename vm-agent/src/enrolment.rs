//! Asking gateways to take this host in, and telling them that it leaves.

use std::sync::Arc;
use std::time::Duration;

use pki::{KeyPair, Principal, SpiffeId, TrustDomain};
use proto::v1::enrollment_client::EnrollmentClient;
use proto::v1::{JoinRequest, JoinResponse, LeaveRequest};
use tokio::time::timeout;
use tonic::{Code, Status};

use crate::agent::Agent;
use crate::credentials::{Credentials, InvalidCredentials};
use crate::member::Member;
use crate::transport::{self, ConnectError, Dialer};

mod invitation;

pub use invitation::{InvalidInvitation, Invitation, Proof, account, gateways};

/// How long a gateway may take to answer.
const ANSWER: Duration = Duration::from_secs(20);
/// How long to wait before a join is asked for again that was not answered.
const PAUSES: [Duration; 2] = [Duration::from_secs(1), Duration::from_secs(3)];

/// A join or a leave that no gateway agreed to.
#[derive(Debug, thiserror::Error)]
pub enum EnrolmentError {
    /// A gateway said no.
    #[error("gateway {gateway} refused: {reason}")]
    Refused {
        /// Which one.
        gateway: String,
        /// Its words.
        reason: String,
    },
    /// No gateway answered.
    #[error("no gateway could be reached; tried {0}")]
    Unreachable(String),
    /// A gateway was asked and did not answer: it may have taken this host in.
    #[error(
        "no gateway answered, and one may have taken this host in: join with the same token again; tried {0}"
    )]
    Unanswered(String),
    /// What a gateway gave is of no use.
    #[error(transparent)]
    Credentials(#[from] InvalidCredentials),
    /// TLS cannot be set up.
    #[error(transparent)]
    Tls(#[from] pki::tls::TlsError),
}

/// What a gateway gave.
#[derive(Debug)]
pub struct Joined {
    /// The gateway that agreed.
    pub gateway: String,
    /// The certificate and the roots.
    pub credentials: Credentials,
    /// The rest of its answer.
    pub response: JoinResponse,
}

/// Asks the gateways of an invitation in turn until one agrees or refuses.
///
/// # Errors
/// [`EnrolmentError`] with everything that was tried.
pub async fn join(
    agent: &Agent,
    invitation: &Invitation,
    key: Arc<KeyPair>,
    mut request: JoinRequest,
) -> Result<Joined, EnrolmentError> {
    let Invitation { gateways, pins, domain, proof: _ } = invitation;
    let mut tried = Vec::new();
    let mut is_asked = false;
    for gateway in agent.gateways(gateways) {
        let tls = pki::tls::client_by_pins(pins, domain, agent.time.clone())?;
        let mut answer = ask(&agent.dialer(), &gateway, tls.clone(), request.clone(), &mut is_asked).await;
        if let Ok(response) = &answer
            && !response.request_for.is_empty()
        {
            request.csr = named(&key, domain, &response.request_for)?;
            answer = ask(&agent.dialer(), &gateway, tls, request.clone(), &mut is_asked).await;
        }
        match answer {
            Ok(mut response) => {
                let chain = std::mem::take(&mut response.certificate_chain);
                let bundle = std::mem::take(&mut response.trust_bundle);
                let credentials = Credentials::given(key, chain, bundle)?;
                return Ok(Joined { gateway, credentials, response });
            }
            Err(Answer::Refused(status)) => {
                return Err(EnrolmentError::Refused { gateway, reason: transport::describe(&status) });
            }
            Err(Answer::Lost(reason)) => tried.push(reason),
        }
    }
    let tried = tried.join("; ");
    Err(if is_asked { EnrolmentError::Unanswered(tried) } else { EnrolmentError::Unreachable(tried) })
}

/// A request that names whom it is for, as an authority wants it that signs requests as they are.
fn named(key: &KeyPair, domain: &TrustDomain, id: &str) -> Result<Vec<u8>, InvalidCredentials> {
    let unusable =
        |reason: String| InvalidCredentials::Given(format!("it asks for a request for {id}: {reason}"));
    let id: SpiffeId = id.parse().map_err(|error: pki::InvalidSpiffeId| unusable(error.to_string()))?;
    if id.trust_domain() != domain || !matches!(id.principal(), Principal::Workload { .. }) {
        return Err(unusable(format!("that is no workload of {domain}")));
    }
    key.request_for(&id).map_err(|error| unusable(error.to_string()))
}

/// Why a gateway did not do what it was asked.
enum Answer {
    /// Another one may.
    Lost(String),
    /// No other one will.
    Refused(Status),
}

impl From<ConnectError> for Answer {
    fn from(error: ConnectError) -> Self {
        Self::Lost(error.to_string())
    }
}

/// Asks a gateway, and again where no answer came: it gives the same answer to the same key, although the token is used
/// up by the first one.
/// `is_asked` is set once the question may have arrived.
async fn ask(
    dialer: &Dialer,
    gateway: &str,
    tls: rustls::ClientConfig,
    request: JoinRequest,
    is_asked: &mut bool,
) -> Result<JoinResponse, Answer> {
    let mut pauses = PAUSES.into_iter();
    loop {
        let answer = match dialer.connect(gateway, tls.clone()).await {
            Ok(connection) => {
                *is_asked = true;
                let mut client = EnrollmentClient::new(connection.channel);
                answered(gateway, timeout(ANSWER, client.join(request.clone())).await)
            }
            Err(error) => Err(error.into()),
        };
        match (answer, pauses.next()) {
            (Err(Answer::Lost(reason)), Some(pause)) if *is_asked => {
                tracing::info!(gateway, reason, "no answer to the join: asking again");
                tokio::time::sleep(pause).await;
            }
            (answer, _) => return answer,
        }
    }
}

fn answered<T>(
    gateway: &str,
    answer: Result<Result<tonic::Response<T>, Status>, tokio::time::error::Elapsed>,
) -> Result<T, Answer> {
    let answer =
        answer.map_err(|_elapsed| Answer::Lost(format!("{gateway}: no answer in {} s", ANSWER.as_secs())))?;
    answer.map(tonic::Response::into_inner).map_err(|status| {
        let elsewhere = [Code::Unavailable, Code::DeadlineExceeded, Code::Cancelled, Code::Unknown];
        if elsewhere.contains(&status.code()) {
            Answer::Lost(format!("{gateway}: {}", transport::describe(&status)))
        } else {
            Answer::Refused(status)
        }
    })
}

/// Tells a gateway that this host leaves.
///
/// # Errors
/// [`EnrolmentError`]; where the gateway does not know the host any more, there was nothing to tell.
pub async fn leave(agent: &Agent, member: &Member) -> Result<(), EnrolmentError> {
    let credentials =
        member.credentials.borrow().clone().ok_or(InvalidCredentials::Missing("the certificate"))?;
    tell(agent, &credentials, member.not_earlier, &member.enrolment().gateways).await
}

/// The same for a host that nothing is brought up for.
///
/// # Errors
/// As [`leave`].
pub async fn tell(
    agent: &Agent,
    credentials: &Credentials,
    not_earlier: pki::UnixTime,
    gateways: &[String],
) -> Result<(), EnrolmentError> {
    let mut tried = Vec::new();
    for gateway in agent.gateways(gateways) {
        let tls = credentials.tls(not_earlier, agent.time.clone())?;
        match say(&agent.dialer(), &gateway, tls).await {
            Ok(()) => return Ok(()),
            Err(Answer::Refused(status)) if is_unknown(&status) => return Ok(()),
            Err(Answer::Refused(status)) => {
                return Err(EnrolmentError::Refused { gateway, reason: transport::describe(&status) });
            }
            Err(Answer::Lost(reason)) => tried.push(reason),
        }
    }
    Err(EnrolmentError::Unreachable(tried.join("; ")))
}

/// Whether the gateway has forgotten this host already: it was deleted, or revoked by a replacement.
fn is_unknown(status: &Status) -> bool {
    [Code::NotFound, Code::PermissionDenied].contains(&status.code())
}

async fn say(dialer: &Dialer, gateway: &str, tls: rustls::ClientConfig) -> Result<(), Answer> {
    let connection = dialer.connect(gateway, tls).await?;
    let mut client = EnrollmentClient::new(connection.channel);
    answered(gateway, timeout(ANSWER, client.leave(LeaveRequest {})).await).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(status: Status) -> Result<(), Answer> {
        answered("gw:7443", Ok(Err(status)))
    }

    #[test]
    fn a_gateway_that_stops_is_not_one_that_refuses() {
        assert!(
            matches!(of(Status::unavailable("stopping")), Err(Answer::Lost(text)) if text.contains("gw:7443"))
        );
        assert!(matches!(of(Status::permission_denied("used")), Err(Answer::Refused(_))));
        assert!(matches!(of(Status::already_exists("held by")), Err(Answer::Refused(_))));
    }

    #[test]
    fn a_request_names_a_workload_of_the_trust_domain_alone() {
        let (key, domain) = (KeyPair::generate().unwrap(), TrustDomain::try_new("outrigger.local").unwrap());
        let id = "spiffe://outrigger.local/ns/shop/ew/db-1";
        let csr = pki::CheckedCsr::from_der(&named(&key, &domain, id).unwrap()).unwrap();
        assert!(csr.names_only(&id.parse().unwrap()));
        for foreign in
            ["spiffe://elsewhere/ns/shop/ew/db-1", "spiffe://outrigger.local/gateway/g", "spiffe://x", "db-1"]
        {
            assert!(named(&key, &domain, foreign).is_err(), "{foreign}");
        }
    }

    #[test]
    fn a_host_that_is_forgotten_has_nothing_to_tell() {
        assert!(is_unknown(&Status::permission_denied("deleted")));
        assert!(!is_unknown(&Status::internal("store")));
    }
}
