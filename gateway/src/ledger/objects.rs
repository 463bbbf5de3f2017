//! Hosts and tokens as objects of the cluster, and back. What a host's object says in `spec` was decided once and stays; its
//! status can be found out again.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::str::FromStr;

use crds::{
    Address, ExternalWorkload, ExternalWorkloadSpec, JoinToken, JoinTokenSpec, JoinTokenStatus, Prefix,
    RELEASE, Recorded, Replaced,
};
use jiff::Timestamp;
use kube::ResourceExt as _;
use serde::Serialize;
use zeroize::Zeroizing;

use crate::store::{Bytes, Claim, LedgerError, Target, Token, Workload, WorkloadName};

/// Who made an object.
pub(crate) const MANAGED_BY: (&str, &str) = ("app.kubernetes.io/managed-by", "outrigger-gateway");
/// Names of workloads that a token's status lists.
const LISTED: usize = 64;

/// The workload that an object records; `None` where no host has joined.
///
/// # Errors
/// What cannot be read of it, with its name.
pub(super) fn workload(object: &ExternalWorkload) -> Result<Option<Workload>, LedgerError> {
    let Some(recorded) = &object.spec.recorded else { return Ok(None) };
    let (namespace, name) = (object.namespace().unwrap_or_default(), object.name_any());
    let at = |field: &str, value: &str| {
        LedgerError(format!("ExternalWorkload {namespace}/{name}: {field}: {value:?} cannot be read"))
    };
    let status = object.status.clone().unwrap_or_default();
    let mut claims = BTreeMap::new();
    let mut underlay = Vec::new();
    for claim in &status.underlay {
        let address: IpAddr = parse(&claim.address).ok_or_else(|| at("status.underlay", &claim.address))?;
        underlay.push(address);
        claims.insert(address, Claim { proved: claim.proved, order: claim.order });
    }
    let addresses = object.spec.addresses.iter().map(|Address(text)| {
        let address: IpAddr = parse(text).ok_or_else(|| at("spec.addresses", text))?;
        Ok(address.to_canonical())
    });
    let key = |field, text: &String| parse(text).ok_or_else(|| at(field, text));
    let previous = recorded.previous_key_hash.as_ref();
    Ok(Some(Workload {
        name: WorkloadName::try_new(&namespace, &name).map_err(|error| LedgerError(error.to_string()))?,
        target: Target::Group { namespace: namespace.clone(), name: object.spec.group.clone() },
        key: key("spec.recorded.keyHash", &recorded.key_hash)?,
        previous_key: previous.map(|text| key("spec.recorded.previousKeyHash", text)).transpose()?,
        machine: recorded.machine.clone(),
        addresses: addresses.collect::<Result<_, LedgerError>>()?,
        underlay,
        claims,
        agent_version: status.agent_version.unwrap_or_default(),
        joined_at: seconds(&recorded.joined_at)
            .ok_or_else(|| at("spec.recorded.joinedAt", &recorded.joined_at))?,
        joined_with: recorded.joined_with.clone(),
        certificate_expires: status.certificate_expires.as_deref().and_then(seconds).unwrap_or_default(),
        ephemeral: recorded.ephemeral,
    }))
}

/// What an object is to say of a workload; what an administrator said in it stays.
pub(super) fn spec(workload: &Workload, declared: Option<&ExternalWorkloadSpec>) -> ExternalWorkloadSpec {
    let group = match &workload.target {
        Target::Group { name, .. } => name.clone(),
        Target::TransitNode { .. } | Target::Node { .. } => String::new(),
    };
    ExternalWorkloadSpec {
        group,
        addresses: addresses(workload, declared),
        scope: declared.and_then(|declared| declared.scope),
        nic_mode: declared.and_then(|declared| declared.nic_mode),
        probes: declared.and_then(|declared| declared.probes.clone()),
        recorded: Some(Recorded {
            key_hash: workload.key.to_string(),
            previous_key_hash: workload.previous_key.map(|key| key.to_string()),
            machine: workload.machine.clone(),
            joined_at: pki::display_time(crate::store::unix_time(workload.joined_at)),
            joined_with: workload.joined_with.clone(),
            ephemeral: workload.ephemeral,
        }),
    }
}

/// The addresses, as an administrator wrote them where that means the same.
fn addresses(workload: &Workload, declared: Option<&ExternalWorkloadSpec>) -> Vec<Address> {
    let declared = declared.map_or(&[][..], |declared| &declared.addresses);
    let is_one =
        |text: &str, address: IpAddr| parse::<IpAddr>(text).is_some_and(|own| own.to_canonical() == address);
    let written = |address: IpAddr| declared.iter().find(|Address(text)| is_one(text, address)).cloned();
    let all = workload.addresses.iter();
    all.map(|address| written(*address).unwrap_or_else(|| Address(address.to_string()))).collect()
}

/// A new object of a workload that nobody declared.
pub(super) fn object(workload: &Workload) -> ExternalWorkload {
    let mut object = ExternalWorkload::new(&workload.name.name, spec(workload, None));
    object.metadata.namespace = Some(workload.name.namespace.clone());
    object.metadata.finalizers = Some(vec![RELEASE.to_owned()]);
    object.labels_mut().insert(MANAGED_BY.0.to_owned(), MANAGED_BY.1.to_owned());
    object
}

/// Those that share no address and no key with one that joined before them.
pub(super) fn without_conflicts(mut workloads: Vec<Workload>) -> Vec<Workload> {
    workloads.sort_by(|a, b| (a.joined_at, &a.name).cmp(&(b.joined_at, &b.name)));
    let (mut addresses, mut keys) = (BTreeSet::new(), BTreeSet::new());
    workloads.retain(|workload| {
        let shared = workload.addresses.iter().find(|address| addresses.contains(*address));
        let is_alone = shared.is_none() && keys.insert(*workload.key.as_bytes());
        if is_alone {
            addresses.extend(workload.addresses.iter().copied());
        } else {
            tracing::error!(workload = %workload.name, address = ?shared,
                "a host is not served: its object has the address or the key of one that joined before");
        }
        is_alone
    });
    workloads
}

/// The token that an object is.
///
/// # Errors
/// What cannot be read of it, with its name.
pub(super) fn token(object: &JoinToken) -> Result<Token, LedgerError> {
    let (namespace, name) = (object.namespace().unwrap_or_default(), object.name_any());
    let JoinTokenSpec {
        group,
        ttl,
        max_uses,
        source_cidrs,
        ephemeral,
        secret_hash,
        replaces,
        revoked,
        not_after,
    } = object.spec.clone();
    let at = |field: &str, value: &str| {
        LedgerError(format!("JoinToken {namespace}/{name}: {field}: {value:?} cannot be read"))
    };
    let created = object.metadata.creation_timestamp.as_ref().map(|created| created.0.as_second());
    let created_at = created.and_then(|created| u64::try_from(created).ok()).unwrap_or_default();
    let lasts = ttl.parse::<crate::config::Lasting>().map_err(|_malformed| at("spec.ttl", &ttl))?;
    let by_ttl = created_at.saturating_add(lasts.0.as_secs());
    let expires_at = match not_after.as_deref() {
        Some(text) => seconds(text).ok_or_else(|| at("spec.notAfter", text))?.min(by_ttl),
        None => by_ttl,
    };
    let status = object.status.clone().unwrap_or_default();
    let in_namespace = |name: &str| {
        WorkloadName::try_new(&namespace, name).map_err(|_malformed| at("spec.replaces.workload", name))
    };
    let bound_key = replaces.as_ref().and_then(|replaced| replaced.key_hash.as_ref());
    let prefixes =
        source_cidrs.iter().map(|Prefix(text)| parse(text).ok_or_else(|| at("spec.sourceCIDRs", text)));
    Ok(Token {
        id: format!("{namespace}/{name}"),
        secret_hash,
        target: Target::Group { namespace: namespace.clone(), name: group },
        bound_to: replaces.as_ref().map(|replaced| in_namespace(&replaced.workload)).transpose()?,
        bound_key: bound_key
            .map(|text| parse(text).ok_or_else(|| at("spec.replaces.keyHash", text)))
            .transpose()?,
        created_at,
        expires_at,
        max_uses,
        uses_left: status.uses_left.unwrap_or(max_uses).min(max_uses),
        source_prefixes: prefixes.collect::<Result<_, _>>()?,
        ephemeral,
        revoked,
        used_by: status.used_by.iter().filter_map(|name| in_namespace(name).ok()).collect(),
    })
}

/// Counts hosts that joined with a token and that its status does not know of.
pub(super) fn count_uses(token: &mut Token, joined: &[String]) {
    for name in joined.iter().filter_map(|name| name.parse::<WorkloadName>().ok()) {
        if !token.used_by.contains(&name) {
            token.uses_left = token.uses_left.saturating_sub(1);
            token.used_by.push(name);
        }
    }
    let used = u32::try_from(token.used_by.len()).unwrap_or(u32::MAX);
    token.uses_left = token.uses_left.min(token.max_uses.saturating_sub(used));
}

/// A new object of a token.
pub(super) fn token_object(token: &Token, namespace: &str, name: &str, group: &str) -> JoinToken {
    let replaces = token.bound_to.as_ref().map(|workload| Replaced {
        workload: workload.name.clone(),
        key_hash: token.bound_key.map(|key| key.to_string()),
    });
    let spec = JoinTokenSpec {
        group: group.to_owned(),
        ttl: format!("{}s", token.expires_at.saturating_sub(token.created_at).max(1)),
        max_uses: token.max_uses,
        source_cidrs: token.source_prefixes.iter().map(|prefix| Prefix(prefix.to_string())).collect(),
        ephemeral: token.ephemeral,
        secret_hash: token.secret_hash.clone(),
        replaces,
        revoked: token.revoked,
        not_after: Some(pki::display_time(crate::store::unix_time(token.expires_at))),
    };
    let mut object = JoinToken::new(name, spec);
    object.metadata.namespace = Some(namespace.to_owned());
    object.labels_mut().insert(MANAGED_BY.0.to_owned(), MANAGED_BY.1.to_owned());
    object
}

/// What a token's object is to say of its uses; the rest is written elsewhere.
pub(super) fn token_status(token: &Token, before: Option<&JoinTokenStatus>) -> JoinTokenStatus {
    let first = token.used_by.len().saturating_sub(LISTED);
    let used_by = token.used_by.iter().skip(first);
    JoinTokenStatus {
        uses_left: Some(token.uses_left),
        used_by: used_by.map(|name| name.name.clone()).collect(),
        expires: Some(pki::display_time(crate::store::unix_time(token.expires_at))),
        bootstrap: before.and_then(|before| before.bootstrap.clone()),
        conditions: before.map(|before| before.conditions.clone()).unwrap_or_default(),
    }
}

/// A record in JSON.
///
/// # Errors
/// Never for records of the store.
pub(super) fn encode(record: &impl Serialize) -> Result<Bytes, LedgerError> {
    let bytes = serde_json::to_vec(record).map_err(|error| LedgerError(error.to_string()))?;
    Ok(Bytes(Zeroizing::new(bytes)))
}

fn parse<T: FromStr>(text: &str) -> Option<T> {
    text.parse().ok()
}

/// Seconds since 1970.
fn seconds(text: &str) -> Option<u64> {
    let at: Timestamp = text.parse().ok()?;
    u64::try_from(at.as_second()).ok()
}
