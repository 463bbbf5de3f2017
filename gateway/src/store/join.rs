//! Joining: one transaction from the token to the workload. Either all of it happened, or nothing did. The certificate is
//! signed before it, since that may take long: whether the host may have it is asked then, and again in the transaction.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Duration;

use pki::{KeyHash, UnixTime};
use zeroize::Zeroizing;

use super::address::{self, PoolError};
use super::claim;
use super::ledger::Transaction;
use super::record::{Target, Token, Workload, WorkloadName};
use super::table::{REVOKED_KEYS, SEEN, TOKENS, WORKLOADS, get, put};
use super::token::{self, TokenRefusal};
use super::workload::RevokedKey;
use super::{Reach, Store, StoreError};

/// How long a node that joined by its service account keeps its place from another machine that says to be the same node:
/// two that fight for it change places once a minute at most, and each time is told.
const KEEPS_PLACE: Duration = Duration::from_mins(1);
/// What `joined_with` begins with where no token was used; no name of a token has a colon.
const ACCOUNT: &str = "serviceaccount:";

/// What lets a host join.
#[derive(Clone)]
pub enum Proof {
    /// A one-time token.
    Token {
        /// Its name.
        id: String,
        /// Its secret.
        secret: Zeroizing<Vec<u8>>,
    },
    /// The cluster's word for what it is: the token of a pod on that node, which was reviewed.
    Account {
        /// The pod's service account, `namespace/name`.
        account: String,
        /// The cluster node.
        target: Target,
    },
}

/// A host that wants to join.
#[derive(Clone)]
pub struct Joining {
    /// What lets it.
    pub proof: Proof,
    /// The name it is to have.
    pub name: WorkloadName,
    /// The hash of its key.
    pub key: KeyHash,
    /// SHA-256 of machine-id and DMI UUID.
    pub machine: Vec<u8>,
    /// Where its tunnel packets come from.
    pub underlay: Vec<IpAddr>,
    /// Where its connection comes from, if that proves an address.
    pub source: Option<IpAddr>,
    /// Its agent's version.
    pub agent_version: String,
    /// Mesh addresses that its object asks for; else the pools decide.
    pub wanted: Vec<IpAddr>,
    /// Mesh addresses that objects of others ask for: the pools keep these for them.
    pub promised: BTreeSet<IpAddr>,
}

/// Why a host may not join. Everything here is harmless to tell one that has the token's secret.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum JoinRefusal {
    /// The token is refused.
    #[error(transparent)]
    Token(#[from] TokenRefusal),
    /// The name is in another namespace than the token's.
    #[error("the token is for namespace {expected}, not for {name}")]
    Namespace {
        /// The name asked for.
        name: WorkloadName,
        /// The token's namespace.
        expected: String,
    },
    /// The token is for one workload.
    #[error("the token replaces workload {bound_to} and nothing else: join with --name {}", bound_to.name)]
    Bound {
        /// The workload it is for.
        bound_to: WorkloadName,
    },
    /// The workload to be replaced is gone.
    #[error("workload {0}, which the token replaces, was deleted or replaced since: ask for another token")]
    Gone(WorkloadName),
    /// Another host has the name.
    #[error(
        "the name {name} is held by another host, last seen at {}: join with another --name, or ask for `outrigger-gateway workload replace {name}` if this host takes its place",
        pki::display_time(*last_seen)
    )]
    NameHeld {
        /// The name.
        name: WorkloadName,
        /// When its holder was last seen.
        last_seen: UnixTime,
    },
    /// Another machine is this node since a moment ago.
    #[error(
        "node {name} joined from another machine {} s ago: two machines say to be this node. If the other one is gone, this one has its place in {} s",
        ago.as_secs(), KEEPS_PLACE.saturating_sub(*ago).as_secs()
    )]
    PlaceKept {
        /// The node.
        name: WorkloadName,
        /// When the other machine joined.
        ago: Duration,
    },
    /// Another workload has the key.
    #[error("this host's key is the one of workload {0}: it was copied, run `outrigger seal` on it first")]
    KeyHeld(WorkloadName),
    /// The key was revoked.
    #[error("this host's key was revoked when workload {workload} was {reason}: remove it and join anew")]
    KeyRevoked {
        /// Whose key it was.
        workload: WorkloadName,
        /// Why it was revoked.
        reason: String,
    },
    /// There is no address.
    #[error(transparent)]
    Address(#[from] PoolError),
}

/// Why a host did not join; nothing was changed.
#[derive(Debug, thiserror::Error)]
pub enum JoinError {
    /// It may not.
    #[error(transparent)]
    Refused(#[from] JoinRefusal),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl JoinRefusal {
    /// The reason as one word, for the audit log and metrics.
    #[must_use]
    pub const fn reason(&self) -> &'static str {
        match self {
            Self::Token(refusal) => refusal.reason(),
            Self::Namespace { .. } => "namespace",
            Self::Bound { .. } => "token-bound",
            Self::Gone(_) => "workload-gone",
            Self::NameHeld { .. } => "name-held",
            Self::PlaceKept { .. } => "place-kept",
            Self::KeyHeld(_) => "key-held",
            Self::KeyRevoked { .. } => "key-revoked",
            Self::Address(_) => "address",
        }
    }
}

impl Store {
    /// Whether a host would join now; changes nothing.
    ///
    /// # Errors
    /// [`JoinError`], as [`Store::join`].
    pub fn check_join(&self, joining: &Joining, now: UnixTime) -> Result<(), JoinError> {
        self.try_out(|transaction| self.member(transaction, joining, now).map(drop))
    }

    /// Lets a host join that has a certificate until `expires`: uses the token, gives addresses, records the key. A host
    /// that joined with this token already, and asks again because the answer was lost, is given the same again: it
    /// proves the same key.
    ///
    /// # Errors
    /// [`JoinError`]; then nothing changed.
    pub fn join(&self, joining: &Joining, expires: UnixTime, now: UnixTime) -> Result<Workload, JoinError> {
        self.write_workloads(Reach::Everywhere, |transaction| {
            let mut workload = self.member(transaction, joining, now)?;
            workload.underlay.clone_from(&joining.underlay);
            workload.agent_version.clone_from(&joining.agent_version);
            workload.certificate_expires = expires.as_secs();
            claim::renew(transaction, &mut workload, joining.source)?;
            let key = joining.name.to_string();
            put(transaction, WORKLOADS, &key, &workload)?;
            let mut seen = transaction.open_table(SEEN).map_err(StoreError::from)?;
            seen.insert(key.as_str(), now.as_secs()).map_err(StoreError::from)?;
            Ok((workload.clone(), vec![(joining.name.clone(), Some(workload))]))
        })
    }

    /// The workload that a host becomes, or is already.
    fn member(
        &self,
        transaction: &Transaction,
        joining: &Joining,
        now: UnixTime,
    ) -> Result<Workload, JoinError> {
        match &joining.proof {
            Proof::Token { id, secret } => {
                let token = token::valid(
                    &transaction.open_table(TOKENS).map_err(StoreError::from)?,
                    id,
                    secret,
                    joining.source,
                    now,
                )?;
                let token = token.map_err(JoinRefusal::from)?;
                match joined_before(transaction, joining, id)? {
                    Some(workload) => Ok(workload),
                    None => self.admit(transaction, joining, token, now),
                }
            }
            Proof::Account { account, target } => {
                let with = format!("{ACCOUNT}{account}");
                let before = joined_before(transaction, joining, &with)?;
                if let Some(workload) = before.filter(|before| before.target == *target) {
                    return Ok(workload);
                }
                let existing = place(transaction, joining, target, now)?;
                let becoming = Becoming { target: target.clone(), with, ephemeral: false };
                self.settle(transaction, joining, becoming, existing, now)
            }
        }
    }

    /// Uses the token for a host that has not joined.
    fn admit(
        &self,
        transaction: &Transaction,
        joining: &Joining,
        token: Token,
        now: UnixTime,
    ) -> Result<Workload, JoinError> {
        let mut token = token::unused(token).map_err(JoinRefusal::from)?;
        let existing = holder(transaction, joining, &token)?;
        token.uses_left = token.uses_left.saturating_sub(1);
        token.used_by.push(joining.name.clone());
        put(transaction, TOKENS, &token.id, &token)?;
        let becoming = Becoming { target: token.target, with: token.id, ephemeral: token.ephemeral };
        self.settle(transaction, joining, becoming, existing, now)
    }

    /// Makes the workload, in the place of who has its name now.
    fn settle(
        &self,
        transaction: &Transaction,
        joining: &Joining,
        becoming: Becoming,
        existing: Option<Workload>,
        now: UnixTime,
    ) -> Result<Workload, JoinError> {
        self.check_key(transaction, joining)?;
        let addresses = self.addresses(transaction, joining, existing.as_ref(), now)?;
        if let Some(existing) = existing.as_ref().filter(|existing| existing.key != joining.key) {
            RevokedKey::new(&joining.name, now, "replaced").keep(transaction, existing.key)?;
        }
        Ok(Workload {
            name: joining.name.clone(),
            target: becoming.target,
            key: joining.key,
            previous_key: existing.map(|existing| existing.key),
            machine: hex::encode(&joining.machine),
            addresses,
            underlay: Vec::new(),
            claims: BTreeMap::new(),
            agent_version: String::new(),
            joined_at: now.as_secs(),
            joined_with: becoming.with,
            certificate_expires: 0,
            ephemeral: becoming.ephemeral,
        })
    }

    /// A key belongs to one workload, and never comes back once it was revoked.
    fn check_key(&self, transaction: &Transaction, joining: &Joining) -> Result<(), JoinError> {
        let other = |workload: &&std::sync::Arc<Workload>| {
            workload.key == joining.key && workload.name != joining.name
        };
        if let Some(other) = self.workloads().values().find(other) {
            return Err(JoinRefusal::KeyHeld(other.name.clone()).into());
        }
        let table = transaction.open_table(REVOKED_KEYS).map_err(StoreError::from)?;
        let revoked: Option<RevokedKey> = get(&table, "revoked_keys", &joining.key.to_string())?;
        match revoked {
            Some(RevokedKey { workload, reason, .. }) => {
                Err(JoinRefusal::KeyRevoked { workload, reason }.into())
            }
            None => Ok(()),
        }
    }

    /// The addresses: those asked for, else those it had, else new ones.
    fn addresses(
        &self,
        transaction: &Transaction,
        joining: &Joining,
        existing: Option<&Workload>,
        now: UnixTime,
    ) -> Result<Vec<IpAddr>, JoinError> {
        let mut taken = self.taken(transaction, now)?;
        taken.promised.clone_from(&joining.promised);
        let pools = &self.settings.pools;
        pools.check(&joining.name, &joining.wanted, &taken).map_err(JoinRefusal::from)?;
        let had = existing.map_or(&[][..], |existing| &existing.addresses);
        let wanted: Vec<IpAddr> = joining.wanted.iter().chain(had).copied().collect();
        let addresses = pools.allocate(&joining.name, &wanted, &taken).map_err(JoinRefusal::from)?;
        let left: Vec<IpAddr> = had.iter().filter(|had| !addresses.contains(had)).copied().collect();
        address::release(transaction, &joining.name, &left, now)?;
        address::occupy(transaction, &addresses)?;
        Ok(addresses)
    }
}

/// What a host becomes, and by what.
struct Becoming {
    target: Target,
    with: String,
    ephemeral: bool,
}

impl Workload {
    /// Whether it is a cluster node whose pod's service account let it join. Between it and the gateway the cluster may put
    /// other addresses in the place of its own.
    #[must_use]
    pub fn joined_by_account(&self) -> bool {
        self.joined_with.starts_with(ACCOUNT)
    }
}

/// The workload that this very host became with this token, or by this account.
fn joined_before(
    transaction: &Transaction,
    joining: &Joining,
    with: &str,
) -> Result<Option<Workload>, JoinError> {
    let table = transaction.open_table(WORKLOADS).map_err(StoreError::from)?;
    let found: Option<Workload> = get(&table, "workloads", &joining.name.to_string())?;
    Ok(found.filter(|found| {
        found.joined_with(with, joining.key) && found.machine == hex::encode(&joining.machine)
    }))
}

/// Who is the cluster node now, if its pod may take its place.
fn place(
    transaction: &Transaction,
    joining: &Joining,
    target: &Target,
    now: UnixTime,
) -> Result<Option<Workload>, JoinError> {
    let name = &joining.name;
    if name.namespace != target.namespace() {
        let expected = target.namespace().to_owned();
        return Err(JoinRefusal::Namespace { name: name.clone(), expected }.into());
    }
    let table = transaction.open_table(WORKLOADS).map_err(StoreError::from)?;
    let existing: Option<Workload> = get(&table, "workloads", &name.to_string())?;
    let Some(existing) = existing else { return Ok(None) };
    if let Target::Group { .. } = existing.target {
        let last_seen = super::unix_time(existing.joined_at);
        return Err(JoinRefusal::NameHeld { name: name.clone(), last_seen }.into());
    }
    let ago = Duration::from_secs(now.as_secs().saturating_sub(existing.joined_at));
    if existing.machine != hex::encode(&joining.machine) && ago < KEEPS_PLACE {
        return Err(JoinRefusal::PlaceKept { name: name.clone(), ago }.into());
    }
    Ok(Some(existing))
}

/// Who has the name now, if the token may take it over.
fn holder(
    transaction: &Transaction,
    joining: &Joining,
    token: &Token,
) -> Result<Option<Workload>, JoinError> {
    let name = &joining.name;
    let expected = token.bound_to.as_ref().map_or(token.target.namespace(), |bound| &bound.namespace);
    if name.namespace != expected {
        return Err(JoinRefusal::Namespace { name: name.clone(), expected: expected.to_owned() }.into());
    }
    if let Some(bound_to) = token.bound_to.as_ref().filter(|bound| *bound != name) {
        return Err(JoinRefusal::Bound { bound_to: bound_to.clone() }.into());
    }
    let key = name.to_string();
    let table = transaction.open_table(WORKLOADS).map_err(StoreError::from)?;
    let existing: Option<Workload> = get(&table, "workloads", &key)?;
    match (existing, &token.bound_to) {
        (Some(existing), None) => {
            let seen = transaction.open_table(SEEN).map_err(StoreError::from)?;
            let seen = redb::ReadableTable::get(&seen, key.as_str()).map_err(StoreError::from)?;
            let last_seen = super::unix_time(seen.map_or(existing.joined_at, |seen| seen.value()));
            Err(JoinRefusal::NameHeld { name: name.clone(), last_seen }.into())
        }
        (Some(existing), Some(_)) if token.bound_key.is_some_and(|key| key != existing.key) => {
            Err(JoinRefusal::Gone(name.clone()).into())
        }
        (None, Some(_)) => Err(JoinRefusal::Gone(name.clone()).into()),
        (existing, _) => Ok(existing),
    }
}
