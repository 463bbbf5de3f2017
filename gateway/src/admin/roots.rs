//! The rotation of the root.

use proto::v1;
use proto::v1::change_roots_request::Change;

use super::caller::Caller;
use super::show::seconds;
use super::{AdminError, AdminService, blocking};
use crate::audit::Event;
use crate::ca::Standing;

impl AdminService {
    pub(super) async fn roots(&self) -> Result<v1::ListRootsResponse, AdminError> {
        let ca = self.ca.clone();
        let standings = blocking(move || Ok(ca.standings()?)).await?;
        Ok(v1::ListRootsResponse { roots: standings.into_iter().map(shown).collect() })
    }

    pub(super) async fn rotate(
        &self,
        request: v1::ChangeRootsRequest,
        caller: &Caller,
    ) -> Result<(), AdminError> {
        let v1::ChangeRootsRequest { change, force } = request;
        let change = change.ok_or(AdminError::NoChange)?;
        let (ca, now) = (self.ca.clone(), self.clock.now());
        let (what, root) = blocking(move || {
            Ok(match change {
                Change::Add(v1::AddRoot {}) => ("added", ca.add(now)?),
                Change::Activate(id) => {
                    ca.activate(&id, force, now)?;
                    ("activated", id)
                }
                Change::Retire(id) => {
                    ca.retire(&id, force, now)?;
                    ("retired", id)
                }
            })
        })
        .await?;
        tracing::info!(root, what, force, by = %caller, "roots changed");
        self.audit.record(&Event::RootsChanged { root, what, force, by: caller.to_string() }, now);
        Ok(())
    }
}

fn shown(standing: Standing) -> v1::Root {
    let count = |count: usize| u32::try_from(count).unwrap_or(u32::MAX);
    v1::Root {
        id: standing.id,
        active: standing.active,
        added: seconds(standing.added_at),
        expires: seconds(standing.expires),
        trusted_by: count(standing.trusted_by),
        signed: count(standing.signed),
        hosts: count(standing.hosts),
    }
}
