//! What the service manager is told: when this host's part of the mesh stands, and what it does.

use std::sync::Arc;

use tokio::sync::oneshot;

use crate::agent::{Agent, Phase, Report, Standing};
use crate::kernel::Applied;
use crate::member::Member;

/// Tells the service manager that the agent is ready once a state is enforced, or where there is none to enforce; and
/// its phase, whenever it changes.
pub async fn run(agent: Arc<Agent>, started: oneshot::Receiver<()>) {
    // Without a start there is nothing to announce; the agent is stopping.
    let _stopping = started.await;
    let (mut members, mut reports) = (agent.member.subscribe(), agent.reports());
    let (mut is_ready, mut said) = (false, String::new());
    loop {
        let member = members.borrow_and_update().clone();
        let report = reports.borrow_and_update().clone();
        let mut answers = member.as_ref().map(|member| member.kernel.applied());
        let applied = answers.as_mut().map(|answers| answers.borrow_and_update().clone());
        let status = describe(&report, member.as_deref(), applied.as_ref());
        if !is_ready && stands(&report, applied.as_ref()) {
            telemetry::service::ready(&status);
            is_ready = true;
        } else if status != said {
            telemetry::service::status(&status);
        }
        said = status;
        let answered = async {
            match &mut answers {
                Some(answers) => drop(answers.changed().await),
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            changed = members.changed() => if changed.is_err() { return },
            changed = reports.changed() => if changed.is_err() { return },
            () = answered => {}
        }
    }
}

/// Whether a state is enforced, or there is none that could be.
fn stands(report: &Report, applied: Option<&Applied>) -> bool {
    match report.standing {
        Standing::Unjoined | Standing::Clone(_) => true,
        Standing::Joining | Standing::Member | Standing::Failed(_) | Standing::Leaving(_) => {
            applied.is_some_and(|applied| applied.tag.is_some())
        }
    }
}

fn describe(report: &Report, member: Option<&Member>, applied: Option<&Applied>) -> String {
    let phase = report.phase(applied);
    match (phase, applied.and_then(|applied| applied.tag), member) {
        (Phase::Unjoined, ..) => match report.error(applied) {
            error if error.is_empty() => "not a member of a mesh: `outrigger join`".to_owned(),
            error => format!("not a member of a mesh: {error}"),
        },
        (Phase::Enforcing, Some(tag), Some(member)) => {
            let trouble = applied.and_then(|applied| applied.trouble.as_ref());
            let trouble = trouble.map(|trouble| format!("; {trouble}")).unwrap_or_default();
            format!("{} enforces generation {}{trouble}", member.enrolment().workload, tag.counter)
        }
        _ => match report.error(applied) {
            error if error.is_empty() => phase.name().to_owned(),
            error => format!("{}: {error}", phase.name()),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::{Refusal, Tag};

    #[test]
    fn the_agent_stands_when_it_enforces_or_has_nothing_to_enforce() {
        let of = |standing| Report { standing, ..Report::default() };
        let refused = Refusal { tag: Tag::default(), reason: "full".to_owned(), retrying: true };
        let refused = Applied { refused: Some(refused), ..Applied::default() };
        let enforced = Applied { tag: Some(Tag::default()), ..Applied::default() };
        assert!(stands(&of(Standing::Unjoined), None));
        assert!(stands(&of(Standing::Clone("copy".to_owned())), None));
        assert!(!stands(&of(Standing::Joining), None));
        assert!(!stands(&of(Standing::Failed("no bpffs".to_owned())), None));
        assert!(!stands(&of(Standing::Member), Some(&refused)));
        assert!(stands(&of(Standing::Member), Some(&enforced)));
        let text = describe(&of(Standing::Failed("no bpffs".to_owned())), None, None);
        assert_eq!(text, "failed: no bpffs");
    }
}
