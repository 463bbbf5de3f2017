//! Renews the certificate at half of its remaining life, when a gateway asks for it, and an expired one at once.

use std::sync::Arc;
use std::time::Duration;

use proto::v1::RenewRequest;
use proto::v1::enrollment_client::EnrollmentClient;
use rand::rngs::StdRng;
use rand::{Rng, RngExt as _};
use tokio::time::{Instant, sleep, timeout};
use tonic::Code;

use crate::agent::{Agent, Topic};
use crate::credentials::Credentials;
use crate::member::Member;
use crate::session::Backoff;
use crate::transport;

/// How long a gateway may take to answer.
const ANSWER: Duration = Duration::from_secs(10);
/// The clock is looked at this often: it may jump, and sleep may not count.
const LOOK: Duration = Duration::from_secs(30);
/// Waits between attempts.
const FIRST_WAIT: Duration = Duration::from_secs(1);
const LAST_WAIT: Duration = Duration::from_mins(1);

/// Keeps the certificates of memberships valid.
pub async fn run(agent: Arc<Agent>, mut rng: StdRng) {
    let mut members = agent.member.subscribe();
    loop {
        let member = members.borrow_and_update().clone();
        let changed = members.changed();
        let closed = match member {
            Some(member) => tokio::select! {
                () = follow(&agent, &member, &mut rng) => false,
                changed = changed => changed.is_err(),
            },
            None => changed.await.is_err(),
        };
        if closed {
            return;
        }
    }
}

/// Renews as long as the membership lasts.
async fn follow(agent: &Arc<Agent>, member: &Arc<Member>, rng: &mut StdRng) {
    let mut backoff = Backoff::new(FIRST_WAIT, LAST_WAIT);
    let mut credentials = member.credentials.subscribe();
    loop {
        let Some(held) = credentials.borrow_and_update().clone() else {
            // There is no key to prove, until there is another one; `status` says so. The sender is in the membership.
            let _changed = credentials.changed().await;
            continue;
        };
        wait(agent, member, &held, rng).await;
        match renew(agent, member, &held).await {
            Ok(renewed) => {
                tracing::info!(expires = %pki::display_time(renewed.expires()), "certificate renewed");
                let saved = renewed.save(&agent.state);
                agent.warn(Topic::Certificate, saved.err().map(|error| error.to_string()));
                // What was asked for meanwhile is asked for again by the next session.
                member.renewal.send_replace(None);
                member.credentials.send_replace(Some(Arc::new(renewed)));
                backoff.reset();
            }
            Err(NotRenewed { reason, is_final }) => {
                tracing::warn!(reason, "certificate not renewed");
                let expired = held.remaining(agent.now()).is_zero();
                if expired || is_final {
                    agent
                        .refuse(Some(held.key().hash()), format!("the certificate is not renewed: {reason}"));
                }
                let what = if expired {
                    "the certificate has expired and was not renewed"
                } else {
                    "the certificate was not renewed"
                };
                let text = format!("{what}: {reason}");
                agent.warn(Topic::Certificate, Some(text.clone()));
                if expired {
                    agent.tell(|report| report.session.error = text);
                }
                sleep(backoff.next(rng)).await;
            }
        }
    }
}

/// Until renewal is due: half of what remained when the wait began, less up to a fifth of that, or when it is asked for.
async fn wait(agent: &Agent, member: &Member, held: &Credentials, rng: &mut StdRng) {
    let by_age = Instant::now() + share(held.remaining(agent.now()), rng);
    let mut asked = member.renewal.subscribe();
    loop {
        let due = asked.borrow_and_update().map_or(by_age, |asked| asked.min(by_age));
        let left = due.saturating_duration_since(Instant::now());
        if left.is_zero() || held.remaining(agent.now()).is_zero() {
            return;
        }
        // The sender is in the membership.
        let _changed = timeout(LOOK.min(left), asked.changed()).await;
    }
}

fn share<R: Rng>(remaining: Duration, rng: &mut R) -> Duration {
    remaining.mul_f64(rng.random_range(0.4..=0.5))
}

/// Why there is no new certificate.
struct NotRenewed {
    reason: String,
    /// Whether no gateway will ever give one to this key.
    is_final: bool,
}

/// Asks the gateways in turn.
async fn renew(agent: &Agent, member: &Member, held: &Credentials) -> Result<Credentials, NotRenewed> {
    let not_now = |reason: String| NotRenewed { reason, is_final: false };
    let csr = held.key().request_for(held.id()).map_err(|error| not_now(error.to_string()))?;
    let mut tried = Vec::new();
    for gateway in agent.gateways(&member.enrolment().gateways) {
        match ask(agent, member, held, &gateway, csr.clone()).await {
            Ok(renewed) => return Ok(renewed),
            Err(Answer::Refused(reason)) => return Err(not_now(reason)),
            Err(Answer::Final(reason)) => return Err(NotRenewed { reason, is_final: true }),
            Err(Answer::Lost(reason)) => tried.push(reason),
        }
    }
    Err(not_now(if tried.is_empty() { "no gateway is known".to_owned() } else { tried.join("; ") }))
}

/// Why a gateway did not renew.
enum Answer {
    /// Another gateway may.
    Lost(String),
    /// No gateway will.
    Refused(String),
    /// No gateway ever will: the key was revoked, or its certificate is too old.
    Final(String),
}

async fn ask(
    agent: &Agent,
    member: &Member,
    held: &Credentials,
    gateway: &str,
    csr: Vec<u8>,
) -> Result<Credentials, Answer> {
    let lost = |reason: String| Answer::Lost(reason);
    let tls = held.tls(member.not_earlier, agent.time.clone()).map_err(|error| lost(error.to_string()))?;
    let connection = agent.dialer().connect(gateway, tls).await.map_err(|error| lost(error.to_string()))?;
    let mut client = EnrollmentClient::new(connection.channel);
    let answer = timeout(ANSWER, client.renew(RenewRequest { csr })).await;
    let answer = answer.map_err(|_elapsed| lost(format!("{gateway}: no answer")))?;
    let response = answer.map_err(|status| {
        let said = format!("{gateway}: {}", transport::describe(&status));
        if [Code::PermissionDenied, Code::Unauthenticated].contains(&status.code()) {
            Answer::Final(said)
        } else if status.code() == Code::FailedPrecondition {
            Answer::Refused(said)
        } else {
            Answer::Lost(said)
        }
    })?;
    let response = response.into_inner();
    Credentials::given(held.key().clone(), response.certificate_chain, response.trust_bundle)
        .map_err(|error| Answer::Refused(format!("{gateway}: {error}")))
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng as _;

    use super::*;

    #[test]
    fn renewal_is_due_in_the_first_half_and_hosts_spread() {
        let mut rng = StdRng::seed_from_u64(7);
        let day = Duration::from_hours(24);
        let shares: Vec<_> = (0..50).map(|_| share(day, &mut rng)).collect();
        assert!(shares.iter().all(|share| *share >= day * 2 / 5 && *share <= day / 2));
        assert!(
            shares.iter().max().unwrap().saturating_sub(*shares.iter().min().unwrap())
                > Duration::from_hours(1)
        );
        assert_eq!(share(Duration::ZERO, &mut rng), Duration::ZERO, "an expired certificate is due at once");
    }
}
