//! `CheckPolicy`: what manifests would do, as it is told.

use policy::compare::Difference;
use policy::state::RuleAction;
use proto::v1;

use crate::check::{Change, Checked, Effect, File, Refusal};
use crate::manifest::ObjectKey;

pub(super) fn files(request: v1::CheckPolicyRequest) -> Vec<File> {
    request.files.into_iter().map(|file| File { name: file.name, text: file.text }).collect()
}

pub(super) fn response(
    objects: &[Checked],
    effect: Effect,
    is_known: impl Fn(&ObjectKey) -> bool,
) -> v1::CheckPolicyResponse {
    let Effect { selects, warnings, changes, omitted } = effect;
    let objects = objects.iter().zip(selects).map(|(checked, selects)| {
        let key = match &checked.object {
            Ok((key, _)) => Some(key),
            Err(Refusal { key, .. }) => key.as_ref(),
        };
        v1::CheckedObject {
            file: checked.file.clone(),
            line: checked.line,
            object: key.map(ToString::to_string).unwrap_or_default(),
            refused: checked.object.as_ref().err().map(|refusal| refusal.reason.clone()).unwrap_or_default(),
            is_policy: selects.is_some(),
            selects: selects.into_iter().flatten().map(|name| name.to_string()).collect(),
            replaces: key.is_some_and(&is_known),
        }
    });
    v1::CheckPolicyResponse {
        objects: objects.collect(),
        warnings: warnings.into_iter().collect(),
        changes: changes.into_iter().map(change).collect(),
        omitted: u32::try_from(omitted).unwrap_or(u32::MAX),
    }
}

fn change(change: Change) -> v1::VerdictChange {
    let Change { workloads, difference, remote_owner } = change;
    let Difference { direction, remote, identity, endpoints, ports, before, after } = difference;
    v1::VerdictChange {
        workloads: workloads.iter().map(ToString::to_string).collect(),
        direction: direction.name().to_owned(),
        remote: remote.to_string(),
        remote_is_endpoint: identity.is_some(),
        remote_owner: remote_owner.as_deref().map(str::to_owned).unwrap_or_default(),
        remotes: u32::try_from(endpoints).unwrap_or(u32::MAX),
        ports: ports.to_string(),
        before: verdict(before.0).to_owned(),
        before_rule: before.1,
        after: verdict(after.0).to_owned(),
        after_rule: after.1,
    }
}

const fn verdict(action: RuleAction) -> &'static str {
    match action {
        RuleAction::Allow => "allow",
        RuleAction::Pass | RuleAction::Deny => "deny",
    }
}
