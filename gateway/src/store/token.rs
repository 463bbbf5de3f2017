//! Join tokens: secrets for one purpose, a time and a number of joins. Only the hash of a secret is kept.

use std::net::IpAddr;
use std::time::Duration;

use ipnet::IpNet;
use pki::{KeyHash, UnixTime};
use redb::ReadableTable;
use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq as _;
use zeroize::Zeroizing;

use super::record::{Target, Token, Workload, WorkloadName};
use super::table::{TOKENS, decode, get, put};
use super::{Store, StoreError};

/// What a new token is for.
#[derive(Clone, Debug)]
pub struct Minting {
    /// What its bearer becomes.
    pub target: Target,
    /// The workload that is taken over, and nothing else.
    pub bound_to: Option<WorkloadName>,
    /// How long it is valid.
    pub ttl: Duration,
    /// How many joins it allows.
    pub uses: u32,
    /// Where hosts have to come from; none: from anywhere.
    pub source_prefixes: Vec<IpNet>,
    /// Whether hosts that join with it are forgotten once they are away for long.
    pub ephemeral: bool,
}

impl Minting {
    /// One join from anywhere, by a host that stays.
    #[must_use]
    pub const fn new(target: Target, ttl: Duration) -> Self {
        Self { target, bound_to: None, ttl, uses: 1, source_prefixes: Vec::new(), ephemeral: false }
    }
}

/// A new token. The secret is here and nowhere else.
pub struct Minted {
    /// What is kept of it.
    pub token: Token,
    /// 32 random bytes.
    pub secret: Zeroizing<Vec<u8>>,
}

/// Why a token is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TokenRefusal {
    /// There is no such token.
    #[error(
        "the token is not known to this gateway: it is another gateway's, or was removed long after it expired"
    )]
    Unknown,
    /// The secret is wrong.
    #[error("the token is not known to this gateway: its secret is wrong")]
    Secret,
    /// An administrator revoked it.
    #[error("the token {0} was revoked: ask for a new one")]
    Revoked(String),
    /// It is too old.
    #[error(
        "the token {id} expired at {}, the gateway's clock shows {}: ask for a new one",
        pki::display_time(*expired_at), pki::display_time(*now)
    )]
    Expired {
        /// The token.
        id: String,
        /// When it expired.
        expired_at: UnixTime,
        /// The gateway's clock.
        now: UnixTime,
    },
    /// It is not for hosts that come from there.
    #[error(
        "the token {id} is for hosts that come from {}, not from {}: join from there, or ask for another one",
        listed(allowed), from.map_or_else(|| "where nobody knows (loopback or a proxy)".to_owned(), |from| from.to_string())
    )]
    Source {
        /// The token.
        id: String,
        /// Where they have to come from.
        allowed: Vec<IpNet>,
        /// Where this one comes from, if that is known.
        from: Option<IpAddr>,
    },
    /// Its joins are used up.
    #[error("the token {id} was used already (by {}): ask for a new one", names(used_by))]
    Used {
        /// The token.
        id: String,
        /// The workloads that joined with it.
        used_by: Vec<WorkloadName>,
    },
}

impl TokenRefusal {
    /// The reason as one word, for the audit log and metrics.
    #[must_use]
    pub const fn reason(&self) -> &'static str {
        match self {
            Self::Unknown => "token-unknown",
            Self::Secret => "token-secret",
            Self::Revoked(_) => "token-revoked",
            Self::Expired { .. } => "token-expired",
            Self::Source { .. } => "token-source",
            Self::Used { .. } => "token-used",
        }
    }
}

impl Store {
    /// Mints a token.
    ///
    /// # Errors
    /// [`StoreError`]; then there is no token.
    pub fn mint(&self, minting: Minting, now: UnixTime) -> Result<Minted, StoreError> {
        let secret = Zeroizing::new(rand::random::<[u8; 32]>().to_vec());
        let random = hex::encode(rand::random::<[u8; 6]>());
        let id = match (&self.ledger, &minting.target) {
            (Some(ledger), Target::Group { namespace, .. }) => ledger.token_id(namespace, &random),
            _ => random,
        };
        let bound_key = minting.bound_to.as_ref().and_then(|name| self.workload(name)).map(|bound| bound.key);
        let token = Token {
            id,
            secret_hash: hash(&secret),
            target: minting.target,
            bound_key,
            bound_to: minting.bound_to,
            created_at: now.as_secs(),
            expires_at: now.as_secs().saturating_add(minting.ttl.as_secs()),
            max_uses: minting.uses,
            uses_left: minting.uses,
            source_prefixes: minting.source_prefixes,
            ephemeral: minting.ephemeral,
            revoked: false,
            used_by: Vec::new(),
        };
        self.write(|transaction| put(transaction, TOKENS, &token.id, &token))?;
        Ok(Minted { token, secret })
    }

    /// Every token that is kept, by age.
    ///
    /// # Errors
    /// [`StoreError`] where they cannot be read.
    pub fn tokens(&self) -> Result<Vec<Token>, StoreError> {
        let mut tokens = self.read(|transaction| {
            let mut tokens: Vec<Token> = Vec::new();
            for entry in transaction.open_table(TOKENS)?.iter()? {
                let (key, bytes) = entry?;
                tokens.push(decode("tokens", key.value(), bytes.value())?);
            }
            Ok(tokens)
        })?;
        tokens.sort_by(|a, b| (a.created_at, &a.id).cmp(&(b.created_at, &b.id)));
        Ok(tokens)
    }

    /// Revokes a token; `None` where there is none. Revoking twice is no error.
    ///
    /// # Errors
    /// [`StoreError`]; then it is as valid as before.
    pub fn revoke_token(&self, id: &str) -> Result<Option<Token>, StoreError> {
        self.write(|transaction| {
            let found: Option<Token> = get(&transaction.open_table(TOKENS)?, "tokens", id)?;
            let Some(mut token) = found else { return Ok(None) };
            token.revoked = true;
            put(transaction, TOKENS, id, &token)?;
            Ok(Some(token))
        })
    }

    /// Checks a token without using it. One that is used up still serves the host with the key that used it.
    ///
    /// # Errors
    /// [`StoreError`] where it cannot be read; inside, why the token is refused.
    pub fn check_token(
        &self,
        id: &str,
        secret: &[u8],
        key: KeyHash,
        source: Option<IpAddr>,
        now: UnixTime,
    ) -> Result<Result<Token, TokenRefusal>, StoreError> {
        let found =
            self.read(|transaction| valid(&transaction.open_table(TOKENS)?, id, secret, source, now))?;
        let joined = |token: &Token| self.workloads().values().any(|found| found.joined_with(&token.id, key));
        Ok(found.and_then(|token| if joined(&token) { Ok(token) } else { unused(token) }))
    }
}

impl Workload {
    /// Whether it joined with the token of that name and has the key.
    pub(super) fn joined_with(&self, token: &str, key: KeyHash) -> bool {
        self.joined_with == token && self.key == key
    }
}

/// The token, if it allows another join.
pub(super) fn unused(token: Token) -> Result<Token, TokenRefusal> {
    if token.uses_left == 0 {
        return Err(TokenRefusal::Used { id: token.id, used_by: token.used_by });
    }
    Ok(token)
}

/// The token, if it is valid now, used up or not. Whether the secret is right is decided first, so that nobody learns
/// anything about a token without it.
pub(super) fn valid(
    table: &impl ReadableTable<&'static str, &'static [u8]>,
    id: &str,
    secret: &[u8],
    source: Option<IpAddr>,
    now: UnixTime,
) -> Result<Result<Token, TokenRefusal>, StoreError> {
    let Some(token) = get::<Token>(table, "tokens", id)? else { return Ok(Err(TokenRefusal::Unknown)) };
    let right: bool = token.secret_hash.as_bytes().ct_eq(hash(secret).as_bytes()).into();
    Ok(if !right {
        Err(TokenRefusal::Secret)
    } else if token.revoked {
        Err(TokenRefusal::Revoked(token.id))
    } else if now.as_secs() >= token.expires_at {
        let expired_at = super::unix_time(token.expires_at);
        Err(TokenRefusal::Expired { id: token.id, expired_at, now })
    } else if !token.allows(source) {
        Err(TokenRefusal::Source { id: token.id, allowed: token.source_prefixes, from: source })
    } else {
        Ok(token)
    })
}

fn hash(secret: &[u8]) -> String {
    hex::encode(Sha256::digest(secret))
}

fn listed(prefixes: &[IpNet]) -> String {
    prefixes.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

fn names(workloads: &[WorkloadName]) -> String {
    workloads.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}
