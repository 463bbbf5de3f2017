//! The rotation of the root: a new root is trusted first, then signs, then the old one is forgotten. Each step is refused
//! while a host would be lost by it. Where somebody else signs, only the last step is done here.

use std::path::PathBuf;

use pki::{Authority, InvalidAuthority, UnixTime};

use super::{Ca, Root};
use crate::store::{Given, RootError, StoreError, root_id};

/// How many names an explanation lists.
const LISTED: usize = 5;

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
    /// Somebody else has its key.
    #[error("root {0} has no key here: only one of the gateway's own can sign")]
    Keyless(String),
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
    /// The roots are somebody else's.
    #[error("the roots are those of {ca}: {elsewhere}")]
    Elsewhere {
        /// Who signs.
        ca: String,
        /// What to do there.
        elsewhere: String,
    },
    /// A file says that it is trusted.
    #[error("root {id} is in {} (`ca.trustBundle`): remove it there", path.display())]
    Listed {
        /// The root.
        id: String,
        /// The file.
        path: PathBuf,
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
            active: root.id == roots.active(),
            added_at: root.added_at.as_secs(),
            expires: root.certificate.expires().as_secs(),
            trusted_by: count(&|given| given.roots.contains(&root.id)),
            signed: count(&|given| given.issuer == root.id),
            hosts: given.len(),
        };
        Ok(roots.all().iter().map(standing).collect())
    }

    /// Makes a new root, which is trusted and does not sign yet. Its name.
    ///
    /// # Errors
    /// [`RotationError`]; one rotation at a time.
    pub fn add(&self, now: UnixTime) -> Result<String, RotationError> {
        self.only_built_in()?;
        let roots = self.roots();
        if let Some(waiting) = roots.all().last().filter(|newest| newest.id != roots.active()) {
            return Err(RotationError::UnderWay(waiting.id.clone()));
        }
        let authority = Authority::create(&self.trust_domain, now)?;
        self.store.add_root(&authority, now)?;
        self.reload(now)?;
        Ok(root_id(authority.pin()))
    }

    /// Lets a root sign.
    ///
    /// # Errors
    /// [`RotationError`] while hosts or tokens do not know it, unless forced.
    pub fn activate(&self, id: &str, force: bool, now: UnixTime) -> Result<(), RotationError> {
        self.only_built_in()?;
        let roots = self.roots();
        let root = roots.find(id)?;
        if root.authority.is_none() {
            return Err(RotationError::Keyless(id.to_owned()));
        }
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
            if !usable.is_empty() && roots.all().len() > 1 {
                return Err(RotationError::Tokens { id: id.to_owned(), names: listed(&usable) });
            }
        }
        if !self.store.activate_root(id)? {
            return Err(RotationError::Unknown(id.to_owned()));
        }
        Ok(self.reload(now)?)
    }

    /// Forgets a root: nobody is trusted by it any more.
    ///
    /// # Errors
    /// [`RotationError`] for the one that signs, and while hosts have certificates of it, unless forced.
    pub fn retire(&self, id: &str, force: bool, now: UnixTime) -> Result<(), RotationError> {
        let roots = self.roots();
        let root = roots.find(id)?;
        if let (true, Some(path)) = (root.listed, self.trust_bundle()) {
            return Err(RotationError::Listed { id: id.to_owned(), path: path.to_owned() });
        }
        if roots.active() == id {
            return Err(RotationError::Active(id.to_owned()));
        }
        if !force && let Some((count, names)) = self.hosts_without(|given| given.issuer != id)? {
            return Err(RotationError::InUse { id: id.to_owned(), count, names });
        }
        if !self.store.remove_root(id)? {
            return Err(RotationError::Unknown(id.to_owned()));
        }
        Ok(self.reload(now)?)
    }

    /// Whether a host has not shown that it trusts a root.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn is_unknown_to_hosts(&self, id: &str) -> Result<bool, StoreError> {
        Ok(self.hosts_without(|given| given.roots.iter().any(|known| known == id))?.is_some())
    }

    fn only_built_in(&self) -> Result<(), RotationError> {
        if !self.is_external() {
            return Ok(());
        }
        let (ca, elsewhere) = (self.signer().name().to_owned(), self.signer().elsewhere().to_owned());
        Err(RotationError::Elsewhere { ca, elsewhere })
    }

    /// The hosts that have not shown something, if any: how many, and some names.
    fn hosts_without(&self, has: impl Fn(&Given) -> bool) -> Result<Option<(usize, String)>, StoreError> {
        let given = self.store.confirmed_trust()?;
        let without = given.iter().filter(|(_, given)| !given.as_ref().is_some_and(&has));
        let names: Vec<String> = without.map(|(name, _)| name.to_string()).collect();
        Ok((!names.is_empty()).then(|| (names.len(), listed(&names))))
    }
}

fn listed(names: &[String]) -> String {
    let some = names.iter().take(LISTED).cloned().collect::<Vec<_>>().join(", ");
    if names.len() > LISTED { format!("{some}, …") } else { some }
}
