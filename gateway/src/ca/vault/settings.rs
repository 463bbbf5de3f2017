//! Which Vault, and how we prove to it who we are. Secrets are in files alone, and read when they are used.

use std::fmt;
use std::net::IpAddr;
use std::path::PathBuf;
use std::str::FromStr;

/// Which engine of which Vault.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Where it is.
    pub address: Address,
    /// The authorities that its own certificate may be signed by, in PEM.
    pub ca_file: PathBuf,
    /// The namespace; `None`: the root.
    pub namespace: Option<String>,
    /// Where the PKI engine is mounted.
    pub mount: String,
    /// The role.
    pub role: String,
    /// The issuer, by name or id.
    pub issuer: String,
    /// Who we are.
    pub auth: Auth,
}

/// How we prove who we are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Auth {
    /// A token that somebody else keeps fresh, or that we prolong.
    Token {
        /// The file with the token.
        file: PathBuf,
    },
    /// The token of a service account of Kubernetes.
    Kubernetes {
        /// Where the method is mounted.
        mount: String,
        /// The role.
        role: String,
        /// The file with the service account's token.
        jwt_file: PathBuf,
    },
    /// An id and a secret.
    AppRole {
        /// Where the method is mounted.
        mount: String,
        /// The id.
        role_id: String,
        /// The file with the secret.
        secret_id_file: PathBuf,
    },
}

/// Where a Vault is: `https://host:port`, or `http://` on this machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Address {
    pub(super) tls: bool,
    pub(super) host: String,
    pub(super) port: u16,
}

/// A value that cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidSetting {
    /// No address.
    #[error("{0:?} is no address: write `https://host:port`, without a path")]
    Address(String),
    /// Secrets would be readable on the way.
    #[error("{0} is not encrypted: `http://` is for loopback addresses only")]
    Clear(String),
    /// No path.
    #[error("{0:?} is no path of Vault: letters, digits, `-`, `_` and `.`, parts separated by `/`")]
    Path(String),
}

impl FromStr for Address {
    type Err = InvalidSetting;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let invalid = || InvalidSetting::Address(text.to_owned());
        let uri: ::http::Uri = text.parse().map_err(|_malformed| invalid())?;
        let tls = match uri.scheme_str() {
            Some("https") => true,
            Some("http") => false,
            _ => return Err(invalid()),
        };
        let bare = uri.path().trim_matches('/').is_empty() && uri.query().is_none();
        let authority = uri.authority().filter(|authority| bare && !authority.as_str().contains('@'));
        let authority = authority.ok_or_else(invalid)?;
        let host = authority.host().trim_matches(['[', ']']).to_owned();
        let is_here = host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback());
        if !tls && !is_here {
            return Err(InvalidSetting::Clear(text.to_owned()));
        }
        Ok(Self { tls, host, port: authority.port_u16().unwrap_or(8200) })
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.tls { "https" } else { "http" };
        if self.host.contains(':') {
            write!(f, "{scheme}://[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{scheme}://{}:{}", self.host, self.port)
        }
    }
}

impl Settings {
    /// Whether everything that becomes part of a path can.
    ///
    /// # Errors
    /// [`InvalidSetting::Path`].
    pub fn check(&self) -> Result<(), InvalidSetting> {
        let method = match &self.auth {
            Auth::Token { .. } => None,
            Auth::Kubernetes { mount, .. } | Auth::AppRole { mount, .. } => Some(mount),
        };
        let paths = [&self.mount, &self.role, &self.issuer].into_iter().chain(method);
        let mut wrong = paths.filter(|path| !is_path(path));
        wrong.next().map_or(Ok(()), |path| Err(InvalidSetting::Path(path.clone())))
    }
}

fn is_path(text: &str) -> bool {
    let is_part = |part: &str| {
        !part.is_empty()
            && part != "."
            && part != ".."
            && part.chars().all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c))
    };
    text.split('/').all(is_part)
}
