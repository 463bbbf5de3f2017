//! What is to be done for all policies, from what is known at one moment. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use k8s_openapi::api::networking::v1::{NetworkPolicy, NetworkPolicySpec};
use policy::facts::{Facts, Workload};

use super::config::{Config, SourceAddresses};
use super::follow::{Content, Policy, Seen, Theirs};
use super::metrics::State;
use super::object::companion;
use super::plan::{Members, Plan, plan};
use crate::manifest::companion::name_of;
use crate::watched::Key;

/// What is to be done.
#[derive(Debug, Default)]
pub(super) struct Decided {
    pub(super) work: Vec<Work>,
    /// What users should know about policies, by their names.
    pub(super) notes: BTreeMap<Key, Note>,
    /// Policies whose companions are as they should be.
    pub(super) kept: usize,
    /// Companions in namespaces that are not listed.
    pub(super) outside: usize,
}

/// One write.
#[derive(Debug)]
pub(super) struct Work {
    /// The policy that it is for; a companion whose policy is gone stands for itself.
    pub(super) about: Key,
    /// That policy's number.
    pub(super) uid: String,
    pub(super) change: Change,
}

/// What is written.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Change {
    /// A new companion.
    Create(Box<NetworkPolicy>),
    /// Another content of one, of which this version was seen.
    Update(Box<NetworkPolicy>),
    /// The one with this name goes, if it is still this one in this version.
    Delete { name: String, uid: String, version: String },
}

/// What users should know about a policy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Note {
    /// The policy's number.
    pub(super) uid: String,
    pub(super) state: State,
    pub(super) text: String,
}

/// What is to be done; `None` while it is not known what there is.
pub(super) fn decide(seen: &Seen, config: &Config) -> Option<Decided> {
    if !seen.is_current() {
        return None;
    }
    let members = members(seen, config);
    let mut decided = Decided::default();
    let mut wanted: BTreeSet<Key> = BTreeSet::new();
    for (key, policy) in &seen.policies.objects {
        let Content::Theirs(theirs) = &policy.content else { continue };
        if policy.ending || !config.namespaces.contains(&key.0) {
            continue;
        }
        match wish(theirs.as_ref().as_ref(), &members, config) {
            Ok(Some(spec)) => {
                let name = (key.0.clone(), name_of(&key.1));
                decided.keep(key, policy, seen.policies.objects.get(&name), *spec);
                wanted.insert(name);
            }
            Ok(None) => {}
            Err((state, text)) => decided.note(key, policy, state, text),
        }
    }
    for (key, policy) in &seen.policies.objects {
        let Content::Own(_) = &policy.content else { continue };
        if !config.namespaces.contains(&key.0) {
            decided.outside += 1;
        } else if !wanted.contains(key) && !policy.ending {
            decided.work.push(Work {
                about: key.clone(),
                uid: policy.uid.clone(),
                change: delete(key, policy),
            });
        }
    }
    Some(decided)
}

/// What the companion of a policy is to say; `None`: it needs none.
fn wish(
    theirs: Result<&Theirs, &String>,
    members: &[Members],
    config: &Config,
) -> Result<Option<Box<NetworkPolicySpec>>, (State, String)> {
    let theirs = theirs.map_err(|reason| (State::Unreadable, format!("it cannot be read: {reason}")))?;
    let most = config.max_blocks;
    let spec = match plan(&theirs.rules, &theirs.selector, members, most) {
        Plan::Nothing => return Ok(None),
        Plan::Companion(_) | Plan::TooLarge(_) if config.source_addresses == SourceAddresses::Masqueraded => {
            let text = "it selects external workloads, and gets no companion: `sourceAddresses: masqueraded` says that the \
                        cluster's CNI does not see their addresses, so that ipBlocks would match nobody, or nodes";
            return Err((State::Masqueraded, text.to_owned()));
        }
        Plan::TooLarge(blocks) => {
            let text = format!(
                "it gets no companion: that would have {blocks} ipBlocks, and `maxBlocks` is {most}; one for a part of \
                 the workloads would say nothing of the others"
            );
            return Err((State::TooLarge, text));
        }
        Plan::Companion(spec) => spec,
    };
    Ok(Some(spec))
}

/// Who may be selected: each group's hosts that joined. An address that two of them have is nobody's.
fn members(seen: &Seen, config: &Config) -> Vec<Members> {
    let facts = Facts {
        cluster: config.cluster_name.clone(),
        namespaces: seen
            .namespaces
            .objects
            .iter()
            .map(|((_, name), namespace)| (name.clone(), namespace.clone()))
            .collect(),
        ..Facts::default()
    };
    let mut holders: BTreeMap<IpAddr, usize> = BTreeMap::new();
    for address in seen.hosts.objects.values().flat_map(|host| &host.addresses) {
        *holders.entry(*address).or_default() += 1;
    }
    let is_usable =
        |address: &IpAddr| holders.get(address) == Some(&1) && config.workload_pools.contains(*address);
    let mut of_groups: BTreeMap<Key, BTreeSet<IpAddr>> = BTreeMap::new();
    for ((namespace, _), host) in &seen.hosts.objects {
        let addresses = of_groups.entry((namespace.clone(), host.group.clone())).or_default();
        addresses.extend(host.addresses.iter().filter(|address| is_usable(address)));
    }
    let members = of_groups.into_iter().filter_map(|(key, addresses)| {
        let group = seen.groups.objects.get(&key)?.clone();
        let labels = facts.labels_of_workload(&Workload {
            namespace: key.0,
            labels: group.labels.clone(),
            service_account: group.service_account.clone(),
            ..Workload::default()
        });
        Some(Members { labels, group, addresses })
    });
    members.collect()
}

impl Decided {
    /// Brings the companion of a policy in line; `there`: what has its name.
    fn keep(&mut self, key: &Key, policy: &Policy, there: Option<&Policy>, spec: NetworkPolicySpec) {
        let object = |spec, version| Box::new(companion((&key.0, &key.1), &policy.uid, spec, version));
        let change = match there.map(|there| (there, &there.content)) {
            None => Change::Create(object(spec, None)),
            Some((_, Content::Theirs(_))) => {
                let text = format!("it gets no companion: {} is the name of another policy", name_of(&key.1));
                return self.note(key, policy, State::NameTaken, text);
            }
            // Once it is gone, there is a new one.
            Some((there, _)) if there.ending => return,
            Some((there, Content::Own(own))) if own.owner != policy.uid => {
                delete(&(key.0.clone(), name_of(&key.1)), there)
            }
            Some((_, Content::Own(own))) if own.spec.as_ref() == Some(&spec) => {
                self.kept += 1;
                return;
            }
            Some((there, Content::Own(_))) => Change::Update(object(spec, Some(&there.version))),
        };
        self.work.push(Work { about: key.clone(), uid: policy.uid.clone(), change });
    }

    fn note(&mut self, key: &Key, policy: &Policy, state: State, text: String) {
        self.notes.insert(key.clone(), Note { uid: policy.uid.clone(), state, text });
    }
}

fn delete((_, name): &Key, policy: &Policy) -> Change {
    Change::Delete { name: name.clone(), uid: policy.uid.clone(), version: policy.version.clone() }
}

#[cfg(test)]
mod tests;
