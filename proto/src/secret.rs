//! What messages that carry a secret show of themselves: everything else. No log line, panic or failed test can then
//! give the secret away.

use std::fmt::{Debug, Formatter, Result};

use crate::v1::join_request::Credential;
use crate::v1::{AgentJoinRequest, CreateTokenResponse, JoinRequest, JoinToken};

impl Debug for JoinToken {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        let Self { gateways, root_pins, trust_domain, id, secret: _ } = self;
        f.debug_struct("JoinToken")
            .field("gateways", gateways)
            .field("root_pins", root_pins)
            .field("trust_domain", trust_domain)
            .field("id", id)
            .finish_non_exhaustive()
    }
}

impl Debug for JoinRequest {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        let Self { token_id, credential, csr: _, name, hostname, machine: _, report, agent_version } = self;
        f.debug_struct("JoinRequest")
            .field("token_id", token_id)
            .field("credential", credential)
            .field("name", name)
            .field("hostname", hostname)
            .field("report", report)
            .field("agent_version", agent_version)
            .finish_non_exhaustive()
    }
}

impl Debug for Credential {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        f.write_str(match self {
            Self::TokenSecret(_) => "TokenSecret(..)",
            Self::ServiceAccountToken(_) => "ServiceAccountToken(..)",
        })
    }
}

impl Debug for CreateTokenResponse {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        let Self { id, token: _, expires } = self;
        f.debug_struct("CreateTokenResponse")
            .field("id", id)
            .field("expires", expires)
            .finish_non_exhaustive()
    }
}

impl Debug for AgentJoinRequest {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        let Self { token: _, name, adopt } = self;
        f.debug_struct("AgentJoinRequest").field("name", name).field("adopt", adopt).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_message_shows_its_secret() {
        let secret = || b"canary".to_vec();
        let text = || "canary".to_owned();
        let token = JoinToken { secret: secret(), ..JoinToken::default() };
        let join = |credential| JoinRequest { credential: Some(credential), ..JoinRequest::default() };
        let (request, node) =
            (join(Credential::TokenSecret(secret())), join(Credential::ServiceAccountToken(text())));
        let created = CreateTokenResponse { token: text(), ..CreateTokenResponse::default() };
        let asked = AgentJoinRequest { token: text(), ..AgentJoinRequest::default() };
        let bytes = format!("{:?}", secret());
        let requests = [format!("{request:?}"), format!("{node:?}"), format!("{:?}", request.credential)];
        for shown in
            [format!("{token:?}"), format!("{created:?}"), format!("{asked:?}")].into_iter().chain(requests)
        {
            assert!(!shown.contains("canary") && !shown.contains(&bytes), "{shown}");
        }
    }
}
