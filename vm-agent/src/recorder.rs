//! Keeps on disk what the kernel runs, for the next boot.

use std::sync::Arc;

use crate::agent::{Agent, Topic};
use crate::member::Member;
use crate::session::Version;

mod disk;

pub use disk::Disk;

/// Writes each state that the kernel runs, the newest where several came while one was written. A full disk is a
/// warning: enforcement does not need the disk.
pub async fn run(agent: Arc<Agent>) {
    let mut members = agent.member.subscribe();
    loop {
        let member = members.borrow_and_update().clone();
        let Some(member) = member else {
            if members.changed().await.is_err() {
                return;
            }
            continue;
        };
        tokio::select! {
            () = follow(&agent, &member) => {}
            changed = members.changed() => {
                if changed.is_err() {
                    return;
                }
            }
        }
    }
}

async fn follow(agent: &Arc<Agent>, member: &Arc<Member>) {
    let mut running = member.running.subscribe();
    let mut disk = Disk::default();
    // The state that came from the disk is there already.
    let mut written = member.restored.as_ref().map(|version| version.tag);
    loop {
        let version = running.borrow_and_update().clone();
        if let Some(version) = version.filter(|version| Some(version.tag) != written) {
            written = Some(version.tag);
            let (agent, member) = (agent.clone(), member.clone());
            let mut known = std::mem::take(&mut disk);
            let task = tokio::task::spawn_blocking(move || {
                record(&agent, &member, &version, &mut known);
                known
            });
            match task.await {
                Ok(known) => disk = known,
                Err(error) => tracing::error!(%error, "writing the last good state was cut off"),
            }
        }
        if running.changed().await.is_err() {
            return;
        }
    }
}

/// Writes one state and what the enrolment takes from it.
fn record(agent: &Agent, member: &Member, version: &Version, disk: &mut Disk) {
    // Leaving takes the same lock after it has ended the membership, so that nothing is written behind its back.
    let _writing = agent.writing.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let is_current = agent.member().is_some_and(|current| std::ptr::eq(&raw const *current, member));
    if !is_current {
        return;
    }
    let settings = &version.state.settings;
    let changed = member.change_enrolment(|enrolment| {
        enrolment.mesh_addresses.clone_from(&settings.addresses);
        enrolment.prefixes = settings.prefixes.iter().copied().collect();
        if !version.node.gateways().is_empty() {
            enrolment.gateways = version.node.gateways().to_vec();
        }
    });
    let saved = changed.map_or(Ok(()), |enrolment| enrolment.save(&agent.state));
    agent.warn(Topic::Enrolment, saved.err().map(|error| error.to_string()));
    let written = disk.write(&agent.state, version.tag, agent.now().as_secs(), &version.node);
    let warning = written.err().map(|error| {
        tracing::warn!(%error, "the last good state was not written; a reboot would enforce an older one");
        format!("{error}: a reboot would enforce an older state")
    });
    agent.warn(Topic::Snapshot, warning);
    member.recorded.send_replace(Some(version.tag));
}
