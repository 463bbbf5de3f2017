//! Leaving and sealing: nothing is left behind.

use proto::v1::{AgentLeaveResponse, SealResponse};

use super::{OperationError, Operations};
use crate::agent::Standing;
use crate::credentials::Credentials;
use crate::enrolment;
use crate::state_dir::Enrolment;

impl Operations {
    pub(super) async fn leave(&mut self, force: bool) -> Result<AgentLeaveResponse, OperationError> {
        let standing = self.agent.report().standing;
        if standing == Standing::Unjoined {
            return Err(OperationError::NotJoined);
        }
        // It was told when a leave began that is not complete.
        let is_told = matches!(standing, Standing::Leaving(_));
        let told = if is_told { Ok(()) } else { self.tell(&standing).await };
        let gateway_error = match told {
            Ok(()) => String::new(),
            Err(reason) if force || matches!(standing, Standing::Clone(_)) => reason,
            Err(reason) => return Err(OperationError::Untold(reason)),
        };
        let removed = self.go().await?;
        self.stays_away();
        tracing::info!(count = removed.len(), "left the mesh");
        Ok(AgentLeaveResponse { removed, gateway_error })
    }

    /// Tells a gateway, unless this is a copy: the original stays a member.
    async fn tell(&self, standing: &Standing) -> Result<(), String> {
        if let Standing::Clone(_) = standing {
            return Err("the state belongs to another machine, which stays a member".to_owned());
        }
        if let Some(member) = self.agent.member() {
            return enrolment::leave(&self.agent, &member).await.map_err(|error| error.to_string());
        }
        let enrolment = Enrolment::load(&self.agent.state).map_err(|error| error.to_string())?;
        let gateways = enrolment.map(|enrolment| enrolment.gateways).unwrap_or_default();
        let credentials = Credentials::load(&self.agent.state).map_err(|error| error.to_string())?;
        let told = enrolment::tell(&self.agent, &credentials, self.agent.now(), &gateways).await;
        told.map_err(|error| error.to_string())
    }

    /// Removes everything without telling anybody: copies of the disk join by themselves.
    pub(super) async fn seal(&mut self) -> Result<SealResponse, OperationError> {
        let removed = self.go().await?;
        self.stays_away();
        tracing::info!(count = removed.len(), "sealed");
        Ok(SealResponse { removed })
    }
}
