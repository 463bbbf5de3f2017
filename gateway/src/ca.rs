//! The roots of the mesh while the gateway runs, and their rotation: a new root is trusted first, then signs, then the
//! old one is forgotten. Each step is refused while a host would be lost by it.

use std::fmt;
use std::sync::Arc;

use pki::{Authority, InvalidAuthority, InvalidBundle, Issued, KeyHash, TrustBundle, TrustDomain, UnixTime};
use tokio::sync::watch;

use crate::store::{Given, KeptRoot, RootError, Store, StoreError, WorkloadName, root_id};

/// How many names an explanation lists.
const LISTED: usize = 5;

/// The roots, and where they are kept. Calls that change something block on the disk.
pub struct Ca {
    store: Arc<Store>,
    trust_domain: TrustDomain,
    roots: watch::Sender<Arc<Roots>>,
}

/// All roots at one moment.
pub struct Roots {
    active: Root,
    /// Oldest first.
    all: Vec<Root>,
}

/// A root.
#[derive(Clone)]
pub struct Root {
    /// Its name: the first digits of its key's hash.
    pub id: String,
    /// It and its key.
    pub authority: Arc<Authority>,
    /// When it was made.
    pub added_at: UnixTime,
}

/// What hosts have of a root.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Standing {
    /// Its name.
    pub id: String,
    /// Whether it signs.
    pub active: bool,
    /// When it was made, in seconds since 1970.
    pub added_at: u64,
    /// When it ends, in seconds since 1970.
    pub expires: u64,
    /// Hosts that have shown that they trust it.
    pub trusted_by: usize,
    /// Hosts whose certificate it signed.
    pub signed: usize,
    /// All hosts.
    pub hosts: usize,
}

/// Why the roots were not changed.
#[derive(Debug, thiserror::Error)]
pub enum RotationError {
    /// There is no such root.
    #[error("there is no root {0}: see `outrigger-gateway ca list`")]
    Unknown(String),
    /// A rotation is under way.
    #[error("root {0} is trusted and does not sign yet: activate or retire it first")]
    UnderWay(String),
    /// The root that signs cannot go.
    #[error("root {0} signs: activate another one first")]
    Active(String),
    /// Hosts do not trust it yet.
    #[error(
        "{count} hosts have not shown that they have root {id} ({names}): those that are connected are asked to renew, which takes seconds, with thousands minutes; one that is away would not come back. `--force` does it all the same"
    )]
    Untrusted {
        /// The root.
        id: String,
        /// How many.
        count: usize,
        /// Some of them.
        names: String,
    },
    /// Tokens do not pin it.
    #[error(
        "tokens that may still be used do not name root {id} ({names}): revoke them or let them expire; `--force` does it all the same"
    )]
    Tokens {
        /// The root.
        id: String,
        /// Some of them.
        names: String,
    },
    /// Hosts have certificates of it.
    #[error(
        "{count} hosts have not shown a certificate of another root than {id} ({names}): those that are connected are asked to renew, which takes seconds, with thousands minutes; one that is away would not come back. `--force` does it all the same"
    )]
    InUse {
        /// The root.
        id: String,
        /// How many.
        count: usize,
        /// Some of them.
        names: String,
    },
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The roots cannot be read.
    #[error(transparent)]
    Root(#[from] RootError),
    /// No root can be made.
    #[error(transparent)]
    Authority(#[from] InvalidAuthority),
}

impl Ca {
    /// The roots of the store; the first one is made with it.
    ///
    /// # Errors
    /// [`RootError`].
    pub fn open(store: Arc<Store>, trust_domain: &TrustDomain, now: UnixTime) -> Result<Self, RootError> {
        let roots = Roots::try_new(store.roots(trust_domain, now)?)?;
        Ok(Self { store, trust_domain: trust_domain.clone(), roots: watch::Sender::new(Arc::new(roots)) })
    }

    /// The roots now.
    #[must_use]
    pub fn roots(&self) -> Arc<Roots> {
        self.roots.borrow().clone()
    }

    /// The roots, always the latest.
    #[must_use]
    pub fn watch(&self) -> watch::Receiver<Arc<Roots>> {
        self.roots.subscribe()
    }

    /// What hosts have of each root, oldest first.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn standings(&self) -> Result<Vec<Standing>, StoreError> {
        let given = self.store.confirmed_trust()?;
        let roots = self.roots();
        let count = |is: &dyn Fn(&Given) -> bool| given.values().flatten().filter(|given| is(given)).count();
        let standing = |root: &Root| Standing {
            id: root.id.clone(),
            active: root.id == roots.active.id,
            added_at: root.added_at.as_secs(),
            expires: root.authority.expires().as_secs(),
            trusted_by: count(&|given| given.roots.contains(&root.id)),
            signed: count(&|given| given.issuer == root.id),
            hosts: given.len(),
        };
        Ok(roots.all.iter().map(standing).collect())
    }

    /// Makes a new root, which is trusted and does not sign yet. Its name.
    ///
    /// # Errors
    /// [`RotationError`]; one rotation at a time.
    pub fn add(&self, now: UnixTime) -> Result<String, RotationError> {
        let roots = self.roots();
        if let Some(waiting) = roots.all.last().filter(|newest| newest.id != roots.active.id) {
            return Err(RotationError::UnderWay(waiting.id.clone()));
        }
        let authority = Authority::create(&self.trust_domain, now)?;
        self.store.add_root(&authority, now)?;
        self.reload(now)?;
        Ok(root_id(&authority))
    }

    /// Lets a root sign.
    ///
    /// # Errors
    /// [`RotationError`] while hosts or tokens do not know it, unless forced.
    pub fn activate(&self, id: &str, force: bool, now: UnixTime) -> Result<(), RotationError> {
        let roots = self.roots();
        let root = roots.find(id)?;
        if !force {
            let trusts = |given: &Given| given.roots.iter().any(|known| known == id);
            if let Some((count, names)) = self.hosts_without(trusts)? {
                return Err(RotationError::Untrusted { id: id.to_owned(), count, names });
            }
            let usable = self.store.tokens()?.into_iter().filter(|token| {
                let older = token.created_at <= root.added_at.as_secs();
                older && !token.revoked && token.uses_left > 0 && token.expires_at > now.as_secs()
            });
            let usable: Vec<String> = usable.map(|token| token.id).collect();
            if !usable.is_empty() && roots.all.len() > 1 {
                return Err(RotationError::Tokens { id: id.to_owned(), names: listed(&usable) });
            }
        }
        if !self.store.activate_root(id)? {
            return Err(RotationError::Unknown(id.to_owned()));
        }
        self.reload(now)
    }

    /// Forgets a root: nobody is trusted by it any more.
    ///
    /// # Errors
    /// [`RotationError`] for the one that signs, and while hosts have certificates of it, unless forced.
    pub fn retire(&self, id: &str, force: bool, now: UnixTime) -> Result<(), RotationError> {
        let roots = self.roots();
        roots.find(id)?;
        if roots.active().id == id {
            return Err(RotationError::Active(id.to_owned()));
        }
        if !force && let Some((count, names)) = self.hosts_without(|given| given.issuer != id)? {
            return Err(RotationError::InUse { id: id.to_owned(), count, names });
        }
        if !self.store.remove_root(id)? {
            return Err(RotationError::Unknown(id.to_owned()));
        }
        self.reload(now)
    }

    /// The hosts that have not shown something, if any: how many, and some names.
    fn hosts_without(&self, has: impl Fn(&Given) -> bool) -> Result<Option<(usize, String)>, StoreError> {
        let given = self.store.confirmed_trust()?;
        let without = given.iter().filter(|(_, given)| !given.as_ref().is_some_and(&has));
        let names: Vec<String> = without.map(|(name, _)| name.to_string()).collect();
        Ok((!names.is_empty()).then(|| (names.len(), listed(&names))))
    }

    fn reload(&self, now: UnixTime) -> Result<(), RotationError> {
        let roots = Roots::try_new(self.store.roots(&self.trust_domain, now)?)?;
        self.roots.send_replace(Arc::new(roots));
        Ok(())
    }
}

impl Roots {
    fn try_new(kept: Vec<KeptRoot>) -> Result<Self, RootError> {
        let mut active = None;
        let mut all = Vec::new();
        for KeptRoot { id, authority, active: signs, added_at } in kept {
            let added_at = crate::store::unix_time(added_at);
            let root = Root { id, authority: Arc::new(authority), added_at };
            if signs {
                active = Some(root.clone());
            }
            all.push(root);
        }
        Ok(Self { active: active.ok_or(RootError::NoneActive)?, all })
    }

    /// The one that signs.
    #[must_use]
    pub const fn active(&self) -> &Root {
        &self.active
    }

    /// All of them in DER, as hosts are given them.
    #[must_use]
    pub fn certificates(&self) -> Vec<Vec<u8>> {
        self.all.iter().map(|root| root.authority.certificate().to_vec()).collect()
    }

    /// What tokens pin.
    #[must_use]
    pub fn pins(&self) -> Vec<KeyHash> {
        self.all.iter().map(|root| root.authority.pin()).collect()
    }

    /// What peers are verified with.
    ///
    /// # Errors
    /// Never for roots that were made or read.
    pub fn bundle(&self) -> Result<TrustBundle, InvalidBundle> {
        TrustBundle::try_new(self.all.iter().map(|root| root.authority.certificate().clone()).collect())
    }

    /// What a host is given with a certificate that the active root signed.
    #[must_use]
    pub fn given(&self, issued: &Issued) -> Given {
        Given {
            issuer: self.active().id.clone(),
            roots: self.all.iter().map(|root| root.id.clone()).collect(),
            expires: issued.expires.as_secs(),
        }
    }

    /// Whether a host that was given this would be given the same again.
    #[must_use]
    pub fn are_as_given(&self, given: &Given) -> bool {
        given.issuer == self.active.id && given.roots.iter().eq(self.all.iter().map(|root| &root.id))
    }

    fn find(&self, id: &str) -> Result<&Root, RotationError> {
        let found = self.all.iter().find(|root| root.id == id);
        found.ok_or_else(|| RotationError::Unknown(id.to_owned()))
    }
}

impl fmt::Debug for Ca {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ca").finish_non_exhaustive()
    }
}

/// Records what a workload was given. A failure is no reason to refuse it: then a rotation waits for its next renewal.
pub fn record(store: &Store, name: &WorkloadName, given: Given) {
    if let Err(error) = store.gave(name, given) {
        tracing::warn!(%error, workload = %name, "what the host trusts is not recorded");
    }
}

fn listed(names: &[String]) -> String {
    let some = names.iter().take(LISTED).cloned().collect::<Vec<_>>().join(", ");
    if names.len() > LISTED { format!("{some}, …") } else { some }
}
