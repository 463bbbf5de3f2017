//! Who may speak to the server: its certificate, the users with their tokens, and the kubeconfigs that carry both.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result};
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use serde_json::{Value, json};

use super::bound::Signer;

/// A user who is known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct User {
    pub(super) name: String,
    pub(super) groups: Vec<String>,
}

/// The users by token.
#[derive(Debug)]
pub(super) struct Users {
    known: BTreeMap<String, User>,
    /// Of the tokens that pods get.
    pub(super) signer: Signer,
}

impl User {
    /// A user by name; `system:serviceaccount:NAMESPACE:NAME` is a service account, `admin` may do everything.
    pub(super) fn named(name: &str) -> Self {
        let mut groups = vec!["system:authenticated".to_owned()];
        if name == "admin" {
            groups.push("system:masters".to_owned());
        }
        if let Some((namespace, _)) =
            name.strip_prefix("system:serviceaccount:").and_then(|rest| rest.split_once(':'))
        {
            groups.push("system:serviceaccounts".to_owned());
            groups.push(format!("system:serviceaccounts:{namespace}"));
        }
        Self { name: name.to_owned(), groups }
    }

    /// As reviews show it.
    pub(super) fn show(&self) -> Value {
        json!({"username": self.name, "groups": self.groups})
    }
}

impl Users {
    /// The users of a folder and these, with a kubeconfig for each of these.
    pub(super) fn open(folder: &Path, names: &[String], address: SocketAddr) -> Result<Self> {
        let file = folder.join("tokens.json");
        let mut tokens: BTreeMap<String, String> = match std::fs::read(&file) {
            Ok(bytes) => serde_json::from_slice(&bytes)?,
            Err(_) => BTreeMap::new(),
        };
        let authority = BASE64_STANDARD.encode(std::fs::read(folder.join("ca.pem"))?);
        for name in std::iter::once("admin").chain(names.iter().map(String::as_str)) {
            let token =
                tokens.entry(name.to_owned()).or_insert_with(|| hex::encode(rand::random::<[u8; 16]>()));
            let text = format!("{:#}\n", kubeconfig(name, token, &authority, address));
            // A reader sees the old file or the new one.
            let (draft, path) = (folder.join(".draft"), folder.join(format!("{name}.kubeconfig")));
            std::fs::write(&draft, text)?;
            std::fs::rename(&draft, &path).with_context(|| format!("cannot write {}", path.display()))?;
        }
        std::fs::write(file, serde_json::to_vec(&tokens)?)?;
        let known = tokens.into_iter().map(|(name, token)| (token, User::named(&name))).collect();
        Ok(Self { known, signer: Signer::open(folder)? })
    }

    /// The users with their tokens.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&String, &User)> {
        self.known.iter()
    }

    /// Whose token it is.
    pub(super) fn of_token(&self, token: &str) -> Option<&User> {
        self.known.get(token)
    }
}

fn kubeconfig(user: &str, token: &str, authority: &str, address: SocketAddr) -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "double",
        "contexts": [{"name": "double", "context": {"cluster": "double", "user": user, "namespace": "default"}}],
        "clusters": [{
            "name": "double",
            "cluster": {"server": format!("https://{address}"), "certificate-authority-data": authority},
        }],
        "users": [{"name": user, "user": {"token": token}}],
    })
}

/// The TLS configuration with the certificate of a folder, which is made if there is none.
pub(super) fn tls(folder: &Path, addresses: &[SocketAddr]) -> Result<Arc<ServerConfig>> {
    let (certificate, key) = (folder.join("server.pem"), folder.join("server.key"));
    if !certificate.exists() {
        issue(folder, addresses)?;
    }
    let chain = CertificateDer::pem_file_iter(&certificate)?.collect::<Result<Vec<_>, _>>()?;
    let key = PrivateKeyDer::from_pem_file(&key)?;
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(chain, key)?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}

/// Makes an authority and a certificate of it.
fn issue(folder: &Path, addresses: &[SocketAddr]) -> Result<()> {
    let mut authority = CertificateParams::default();
    authority.distinguished_name.push(DnType::CommonName, "apiserver double");
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority_key = KeyPair::generate()?;
    let root = authority.self_signed(&authority_key)?;
    let mut names: Vec<String> = addresses.iter().map(|address| address.ip().to_string()).collect();
    names.extend(["127.0.0.1", "::1", "localhost", "kubernetes.default.svc"].map(str::to_owned));
    names.sort();
    names.dedup();
    let key = KeyPair::generate()?;
    let certificate =
        CertificateParams::new(names)?.signed_by(&key, &Issuer::new(authority, authority_key))?;
    std::fs::write(folder.join("ca.pem"), root.pem())?;
    std::fs::write(folder.join("server.key"), key.serialize_pem())?;
    std::fs::write(folder.join("server.pem"), certificate.pem())?;
    Ok(())
}
