//! The section `ca`: who signs certificates. Secrets are in files that it names.

use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::{InvalidConfig, value};
use crate::ca::{cert_manager, vault};

/// The authorities that a system trusts.
const SYSTEM_BUNDLE: &str = "/etc/ssl/certs/ca-certificates.crt";
/// The token of the service account of a pod.
const SERVICE_ACCOUNT: &str = "/var/run/secrets/kubernetes.io/serviceaccount/token";

/// The section as it is written.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
pub struct CaSection {
    backend: Backend,
    trust_bundle: Option<PathBuf>,
    vault: Option<VaultSection>,
    cert_manager: Option<CertManagerSection>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Backend {
    #[default]
    BuiltIn,
    Vault,
    CertManager,
}

#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct VaultSection {
    address: String,
    ca_file: Option<PathBuf>,
    namespace: Option<String>,
    #[serde(default = "pki_mount")]
    mount: String,
    role: String,
    #[serde(default = "default_issuer")]
    issuer: String,
    auth: AuthSection,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
struct AuthSection {
    token_file: Option<PathBuf>,
    kubernetes: Option<KubernetesSection>,
    app_role: Option<AppRoleSection>,
}

#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct KubernetesSection {
    #[serde(default = "kubernetes_mount")]
    mount: String,
    role: String,
    #[serde(default = "service_account")]
    jwt_file: PathBuf,
}

#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct AppRoleSection {
    #[serde(default = "app_role_mount")]
    mount: String,
    role_id: String,
    secret_id_file: PathBuf,
}

#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct CertManagerSection {
    issuer: IssuerSection,
    namespace: Option<String>,
    kubeconfig: Option<PathBuf>,
}

#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct IssuerSection {
    name: String,
    #[serde(default = "issuer_kind")]
    kind: String,
    #[serde(default = "issuer_group")]
    group: String,
}

/// Who signs certificates.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ca {
    /// The gateway itself.
    BuiltIn,
    /// Somebody else.
    External {
        /// Who.
        signer: Signer,
        /// The roots to trust; `None`: those that certificates come with.
        trust_bundle: Option<PathBuf>,
    },
}

/// Who else signs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Signer {
    /// Vault or `OpenBao`.
    Vault(Box<vault::Settings>),
    /// cert-manager, by the API of a cluster.
    CertManager(cert_manager::Settings),
}

impl Ca {
    /// A key of another backend is no mistake to pass over: somebody expects something of it.
    pub(super) fn of(
        section: Option<CaSection>,
        kubeconfig: Option<PathBuf>,
        path: &Path,
    ) -> Result<Self, InvalidConfig> {
        let CaSection { backend, trust_bundle, vault, cert_manager } = section.unwrap_or_default();
        let of_another =
            |key, backend: &str| Err(value(path, key, format!("means nothing with the backend {backend}")));
        let missing = |key, backend: &str| value(path, key, format!("is needed with the backend {backend}"));
        let signer = match (backend, vault, cert_manager) {
            (Backend::BuiltIn, Some(_), _) => return of_another("ca.vault", "built-in"),
            (Backend::BuiltIn, _, Some(_)) => return of_another("ca.certManager", "built-in"),
            (Backend::Vault, _, Some(_)) => return of_another("ca.certManager", "vault"),
            (Backend::CertManager, Some(_), _) => return of_another("ca.vault", "cert-manager"),
            (Backend::BuiltIn, None, None) if trust_bundle.is_some() => {
                return of_another("ca.trustBundle", "built-in");
            }
            (Backend::BuiltIn, None, None) => return Ok(Self::BuiltIn),
            (Backend::Vault, None, None) => return Err(missing("ca.vault", "vault")),
            (Backend::CertManager, None, None) => return Err(missing("ca.certManager", "cert-manager")),
            (Backend::Vault, Some(section), None) => Signer::Vault(Box::new(section.settings(path)?)),
            (Backend::CertManager, None, Some(section)) => {
                Signer::CertManager(section.settings(kubeconfig, path)?)
            }
        };
        Ok(Self::External { signer, trust_bundle })
    }
}

impl VaultSection {
    fn settings(self, path: &Path) -> Result<vault::Settings, InvalidConfig> {
        let invalid = |error: vault::InvalidSetting| value(path, "ca.vault", error.to_string());
        let settings = vault::Settings {
            address: self.address.parse().map_err(invalid)?,
            ca_file: self.ca_file.unwrap_or_else(|| PathBuf::from(SYSTEM_BUNDLE)),
            namespace: self.namespace,
            mount: self.mount,
            role: self.role,
            issuer: self.issuer,
            auth: self.auth.auth(path)?,
        };
        settings.check().map_err(invalid)?;
        Ok(settings)
    }
}

impl AuthSection {
    fn auth(self, path: &Path) -> Result<vault::Auth, InvalidConfig> {
        match (self.token_file, self.kubernetes, self.app_role) {
            (Some(file), None, None) => Ok(vault::Auth::Token { file }),
            (None, Some(KubernetesSection { mount, role, jwt_file }), None) => {
                Ok(vault::Auth::Kubernetes { mount, role, jwt_file })
            }
            (None, None, Some(AppRoleSection { mount, role_id, secret_id_file })) => {
                Ok(vault::Auth::AppRole { mount, role_id, secret_id_file })
            }
            _ => {
                let reason = "is one of `tokenFile`, `kubernetes` and `appRole`".to_owned();
                Err(value(path, "ca.vault.auth", reason))
            }
        }
    }
}

impl CertManagerSection {
    fn settings(
        self,
        kubeconfig: Option<PathBuf>,
        path: &Path,
    ) -> Result<cert_manager::Settings, InvalidConfig> {
        let IssuerSection { name, kind, group } = self.issuer;
        let namespace = self.namespace.filter(|namespace| pki::is_dns1123_label(namespace));
        let namespace = namespace.ok_or_else(|| {
            value(path, "ca.certManager.namespace", "is needed: where requests are made".to_owned())
        })?;
        Ok(cert_manager::Settings {
            name,
            kind,
            group,
            namespace,
            kubeconfig: self.kubeconfig.or(kubeconfig),
        })
    }
}

fn pki_mount() -> String {
    "pki".to_owned()
}

fn default_issuer() -> String {
    "default".to_owned()
}

fn kubernetes_mount() -> String {
    "kubernetes".to_owned()
}

fn app_role_mount() -> String {
    "approle".to_owned()
}

fn service_account() -> PathBuf {
    PathBuf::from(SERVICE_ACCOUNT)
}

fn issuer_kind() -> String {
    "Issuer".to_owned()
}

fn issuer_group() -> String {
    "cert-manager.io".to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Options;

    fn read(text: &str) -> Result<Ca, InvalidConfig> {
        let path = Path::new("gateway.yaml");
        let options: Options = ::config::parse(path, text)?;
        Ca::of(options.ca, None, path)
    }

    #[test]
    fn each_backend_has_its_keys() {
        assert_eq!(read("logLevel: info").unwrap(), Ca::BuiltIn);
        let token = "ca:\n  backend: vault\n  vault:\n    address: https://vault.example\n    role: mesh\n    auth:\n      tokenFile: /t\n";
        let Ca::External { signer: Signer::Vault(settings), trust_bundle: None } = read(token).unwrap()
        else {
            panic!("no Vault");
        };
        assert_eq!(settings.address.to_string(), "https://vault.example:8200");
        assert_eq!((settings.mount.as_str(), settings.issuer.as_str()), ("pki", "default"));
        assert_eq!(settings.auth, vault::Auth::Token { file: "/t".into() });
        let requests = "ca:\n  backend: cert-manager\n  trustBundle: /roots.pem\n  certManager:\n    namespace: mesh\n    issuer:\n      name: ca\n";
        let Ca::External { signer: Signer::CertManager(settings), trust_bundle } = read(requests).unwrap()
        else {
            panic!("no cert-manager");
        };
        assert_eq!((settings.kind.as_str(), settings.group.as_str()), ("Issuer", "cert-manager.io"));
        assert_eq!(trust_bundle, Some("/roots.pem".into()));
    }

    #[test]
    fn what_does_not_fit_is_refused_by_its_key() {
        let vault = |rest: &str| format!("ca:\n  backend: vault\n  vault:\n    role: mesh\n{rest}");
        let address = "    address: https://v\n";
        let file = "    auth: {tokenFile: /t}\n";
        for (text, named) in [
            ("ca:\n  backend: vaults\n".to_owned(), "gateway.yaml:2:12: ca: "),
            ("ca:\n  backends: vault\n".to_owned(), "gateway.yaml:2:3: ca: "),
            (vault(&format!("{address}{file}    token: secret\n")), "gateway.yaml:7:5: ca: "),
            (vault(&format!("{address}{file}  certManager: {{issuer: {{name: a}}}}\n")), "ca.certManager"),
            ("ca:\n  backend: vault\n".to_owned(), "ca.vault: is needed"),
            ("ca:\n  trustBundle: /a\n".to_owned(), "ca.trustBundle"),
            (vault(&format!("{address}    auth: {{}}\n")), "ca.vault.auth"),
            (vault(&format!("    address: http://192.0.2.1:8200\n{file}")), "not encrypted"),
            (vault(&format!("    address: https://a@v\n{file}")), "no address"),
            (vault(&format!("{address}    mount: ../sys\n{file}")), "../sys"),
            (vault(&format!("{address}    issuer: a?b\n{file}")), "a?b"),
            (
                "ca:\n  backend: cert-manager\n  certManager: {issuer: {name: a}}\n".to_owned(),
                "ca.certManager.namespace",
            ),
        ] {
            let error = read(&text).unwrap_err().to_string();
            assert!(error.contains(named) && !error.contains("secret"), "{text}\n{error}");
        }
        assert!(read(&vault(&format!("    address: http://[::1]:8200\n{file}"))).is_ok());
    }
}
