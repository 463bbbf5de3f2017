//! What lets this host join, and by what it knows gateways: a token that somebody handed over, or, on a cluster node, the
//! service account of the agent's pod with what the gateway keeps in the `ConfigMap` `outrigger-bootstrap`.

use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use config::{HostPort, InvalidFile};
use pki::{KeyHash, TrustDomain};
use proto::v1::JoinToken;
use proto::v1::join_request::Credential;
use serde::Deserialize;
use zeroize::Zeroizing;

use crate::config::AccountFiles;

/// What service accounts are called as users.
const USER: &str = "system:serviceaccount:";

/// What lets this host join, and whom it asks.
pub struct Invitation {
    /// Where gateways listen, `host:port`.
    pub gateways: Vec<String>,
    /// The hashes of the public keys of trusted roots.
    pub pins: Vec<KeyHash>,
    /// Their trust domain.
    pub domain: TrustDomain,
    /// What authorises.
    pub proof: Proof,
}

/// What authorises. Shown to a gateway only.
pub enum Proof {
    /// A one-time token.
    Token {
        /// Its name.
        id: String,
        /// Its secret.
        secret: Zeroizing<Vec<u8>>,
    },
    /// The token of a pod's service account.
    Account {
        /// The account, `namespace/name`.
        account: String,
        /// The token.
        token: Zeroizing<String>,
    },
}

/// An invitation that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum InvalidInvitation {
    /// A token's content is of no use.
    #[error("the token cannot be used: {0}")]
    Token(String),
    /// The service account's token is not there.
    #[error("waiting for the service account's token: {}: {source}", path.display())]
    AccountToken {
        /// The file.
        path: PathBuf,
        /// Why it cannot be read.
        source: std::io::Error,
    },
    /// It is no such token.
    #[error("{}: it is no token of a service account", path.display())]
    NoAccount {
        /// The file.
        path: PathBuf,
    },
    /// What says where gateways are is not there.
    #[error(
        "waiting for where gateways are, which the gateway says in the ConfigMap outrigger-bootstrap: {}: {source}", path.display()
    )]
    Bootstrap {
        /// The file.
        path: PathBuf,
        /// Why it cannot be read.
        source: std::io::Error,
    },
    /// It cannot be understood.
    #[error(transparent)]
    File(#[from] InvalidFile),
    /// It says something that is of no use.
    #[error("{}: {reason}", path.display())]
    Content {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
}

/// The content of the `ConfigMap`. A newer gateway may say more.
#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Bootstrap {
    gateways: Vec<String>,
    root_pins: Vec<String>,
    trust_domain: String,
}

impl Invitation {
    /// That of a token.
    ///
    /// # Errors
    /// [`InvalidInvitation::Token`].
    pub fn of_token(token: JoinToken) -> Result<Self, InvalidInvitation> {
        let unusable = |error: &dyn std::fmt::Display| InvalidInvitation::Token(error.to_string());
        let JoinToken { gateways, root_pins, trust_domain, id, secret } = token;
        let pins = root_pins.iter().map(|pin| KeyHash::try_from_bytes(pin)).collect::<Result<_, _>>();
        Ok(Self {
            gateways,
            pins: pins.map_err(|error| unusable(&error))?,
            domain: TrustDomain::try_new(&trust_domain).map_err(|error| unusable(&error))?,
            proof: Proof::Token { id, secret: Zeroizing::new(secret) },
        })
    }

    /// That of the pod that this agent runs in, as its files are now: the cluster puts others in their place.
    ///
    /// # Errors
    /// [`InvalidInvitation`], saying which file is waited for or what is wrong with it.
    pub fn of_account(files: &AccountFiles) -> Result<Self, InvalidInvitation> {
        let (account, token) = account(&files.token)?;
        let path = &files.bootstrap;
        let content = |reason: String| InvalidInvitation::Content { path: path.clone(), reason };
        let Bootstrap { gateways, root_pins, trust_domain } = bootstrap(path)?;
        let pins = root_pins.iter().map(|pin| pin.parse()).collect::<Result<Vec<KeyHash>, _>>();
        let pins = pins.map_err(|error| content(format!("rootPins: {error}")))?;
        if pins.is_empty() {
            return Err(content("it names no root to trust (rootPins)".to_owned()));
        }
        let domain = TrustDomain::try_new(&trust_domain);
        Ok(Self {
            gateways,
            pins,
            domain: domain.map_err(|error| content(format!("trustDomain: {error}")))?,
            proof: Proof::Account { account, token },
        })
    }
}

impl Proof {
    /// What may be told of it.
    #[must_use]
    pub fn name(&self) -> &str {
        match self {
            Self::Token { id, .. } => id,
            Self::Account { account, .. } => account,
        }
    }

    /// The account, if it is one's.
    #[must_use]
    pub fn account(&self) -> Option<&str> {
        match self {
            Self::Token { .. } => None,
            Self::Account { account, .. } => Some(account),
        }
    }

    /// The name of a token, and what a gateway is shown.
    #[must_use]
    pub fn credential(&self) -> (String, Credential) {
        match self {
            Self::Token { id, secret } => (id.clone(), Credential::TokenSecret(secret.to_vec())),
            Self::Account { token, .. } => {
                (String::new(), Credential::ServiceAccountToken(token.to_string()))
            }
        }
    }
}

impl std::fmt::Debug for Invitation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { gateways, pins: _, domain: _, proof } = self;
        f.debug_struct("Invitation")
            .field("gateways", gateways)
            .field("proof", &proof.name())
            .finish_non_exhaustive()
    }
}

/// The service account whose token a file has, with the token. Only the gateway can tell whether it is genuine.
///
/// # Errors
/// [`InvalidInvitation`].
pub fn account(path: &Path) -> Result<(String, Zeroizing<String>), InvalidInvitation> {
    let text = std::fs::read_to_string(path).map(Zeroizing::new);
    let text = text.map_err(|source| InvalidInvitation::AccountToken { path: path.to_owned(), source })?;
    let token = Zeroizing::new(text.trim().to_owned());
    let account = subject(&token).ok_or_else(|| InvalidInvitation::NoAccount { path: path.to_owned() })?;
    Ok((account, token))
}

/// Where gateways are, as the file says now; none where it says nothing that is of use.
#[must_use]
pub fn gateways(path: &Path) -> Vec<String> {
    bootstrap(path).map(|bootstrap| bootstrap.gateways).unwrap_or_default()
}

fn bootstrap(path: &Path) -> Result<Bootstrap, InvalidInvitation> {
    let text = std::fs::read_to_string(path);
    let text = text.map_err(|source| InvalidInvitation::Bootstrap { path: path.to_owned(), source })?;
    let bootstrap: Bootstrap = config::parse(path, &text)?;
    let content = |reason: String| InvalidInvitation::Content { path: path.to_owned(), reason };
    if bootstrap.gateways.is_empty() {
        return Err(content("it names no gateway".to_owned()));
    }
    for gateway in &bootstrap.gateways {
        gateway.parse::<HostPort>().map_err(|error| content(format!("gateways: `{gateway}`: {error}")))?;
    }
    Ok(bootstrap)
}

/// The service account that a token (JWT) names.
fn subject(token: &str) -> Option<String> {
    #[derive(Deserialize)]
    struct Claims {
        sub: String,
    }
    let mut parts = token.split('.');
    let (Some(_header), Some(claims), Some(_signature), None) =
        (parts.next(), parts.next(), parts.next(), parts.next())
    else {
        return None;
    };
    let claims = URL_SAFE_NO_PAD.decode(claims).ok()?;
    let Claims { sub } = serde_json::from_slice(&claims).ok()?;
    let (namespace, name) = sub.strip_prefix(USER)?.split_once(':')?;
    Some(format!("{namespace}/{name}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const PIN: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

    fn jwt(subject: &str) -> String {
        let claims = URL_SAFE_NO_PAD.encode(format!("{{\"sub\":\"{subject}\",\"aud\":[\"outrigger\"]}}"));
        format!("e30.{claims}.c2lnbmVk")
    }

    fn read(token: Option<&str>, bootstrap: Option<&str>) -> Result<Invitation, InvalidInvitation> {
        let folder = tempfile::tempdir().unwrap();
        let files = AccountFiles {
            token: folder.path().join("token"),
            bootstrap: folder.path().join("bootstrap.json"),
        };
        for (path, text) in [(&files.token, token), (&files.bootstrap, bootstrap)] {
            if let Some(text) = text {
                std::fs::write(path, text).unwrap();
            }
        }
        Invitation::of_account(&files)
    }

    fn told(gateways: &str, pins: &str) -> String {
        format!(
            "{{\"gateways\": [{gateways}], \"rootPins\": [{pins}], \"trustDomain\": \"outrigger.local\", \"later\": 1}}"
        )
    }

    #[test]
    fn the_files_of_a_pod_are_an_invitation() {
        let token = jwt("system:serviceaccount:mesh:transit") + "\n";
        let good = told("\"gw.example:7443\"", &format!("\"{PIN}\""));
        let invitation = read(Some(&token), Some(&good)).unwrap();
        assert_eq!(invitation.gateways, ["gw.example:7443"]);
        assert_eq!(invitation.pins, [PIN.parse().unwrap()]);
        assert_eq!(invitation.proof.account(), Some("mesh/transit"));
        let (id, credential) = invitation.proof.credential();
        assert_eq!((id.as_str(), credential), ("", Credential::ServiceAccountToken(token.trim().to_owned())));
        let shown = format!("{invitation:?}");
        assert!(!shown.contains(token.trim()) && shown.contains("mesh/transit"), "{shown}");
        let yaml = format!("gateways: [gw:1]\nrootPins: ['{PIN}']\ntrustDomain: outrigger.local\n");
        assert_eq!(read(Some(&token), Some(&yaml)).unwrap().gateways, ["gw:1"]);
    }

    #[test]
    fn what_is_missing_or_wrong_is_said_with_its_file() {
        let token = jwt("system:serviceaccount:mesh:transit");
        let pin = format!("\"{PIN}\"");
        let good = told("\"gw:7443\"", &pin);
        for (token, bootstrap, words) in [
            (None, Some(good.clone()), "waiting for the service account's token"),
            (Some("not a token".to_owned()), Some(good.clone()), "no token of a service account"),
            (Some(jwt("somebody")), Some(good.clone()), "no token of a service account"),
            (Some(token.clone()), None, "waiting for where gateways are"),
            (Some(token.clone()), Some(String::new()), "it names no gateway"),
            (Some(token.clone()), Some("{".to_owned()), "bootstrap.json:"),
            (Some(token.clone()), Some(told("\"gw\"", &pin)), "gateways: `gw`"),
            (Some(token.clone()), Some(told("\"gw:1\"", "")), "no root to trust"),
            (Some(token.clone()), Some(told("\"gw:1\"", "\"abc\"")), "rootPins"),
            (Some(token), Some(good.replace("outrigger.local", "No Domain")), "trustDomain"),
        ] {
            let error = read(token.as_deref(), bootstrap.as_deref()).unwrap_err().to_string();
            assert!(error.contains(words), "{words}: {error}");
        }
    }
}
