//! What manifests would do, as it is told: the answer of `CheckPolicy`.

use policy::compare::Difference;
use policy::facts::Facts;
use policy::resolve::UnusableIdentities;
use policy::state::RuleAction;
use proto::v1;

use super::{Change, Checked, Effect, File, Refusal, effect, read};
use crate::index::parts;
use crate::manifest::{Kind, ObjectKey};

/// Says what files would do where these facts are in force.
///
/// # Errors
/// [`UnusableIdentities`]; a defect.
pub fn answer(facts: &Facts, files: &[File]) -> Result<v1::CheckPolicyResponse, UnusableIdentities> {
    let objects = read(files);
    let effect = effect(facts, &objects)?;
    let is_known = |key: &ObjectKey| {
        if key.kind == Kind::CiliumCidrGroup {
            facts.cidr_groups.contains_key(key.name.as_str())
        } else {
            parts::of(&facts.policies, key).next().is_some()
        }
    };
    Ok(response(&objects, effect, is_known))
}

/// Says of files what can be said without a mesh.
#[must_use]
pub fn form(files: &[File]) -> v1::CheckPolicyResponse {
    let objects = read(files);
    let nobody = vec![None; objects.len()];
    response(&objects, Effect { selects: nobody, ..Effect::default() }, |_key| false)
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
